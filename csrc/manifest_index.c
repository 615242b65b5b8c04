#define _GNU_SOURCE
#include "manifest_internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "toc_hash.h"

/* --- by name ------------------------------------------------------------------------------ */

/* The slot of a name, or the free one where it belongs. */
static size_t slot_of(const sgz_manifest *m, const char *name, size_t len)
{
    uint64_t hash = sgz_hash_bytes(sgz_manifest_seed(m), name, len);
    size_t mask = (size_t)m->slot_count - 1, at = (hash ^ hash >> 32) & mask;
    for (; m->slots[at]; at = (at + 1) & mask) {
        const sgz_walk_entry *e = &m->entries[m->slots[at] - 1].file;
        if (e->name_len == len && !memcmp(m->arena + e->name_off, name, len))
            break;
    }
    return at;
}

uint32_t sgz_manifest_lookup(const sgz_manifest *m, const char *name, size_t len)
{
    return m->slots[slot_of(m, name, len)] - 1; /* 0 becomes SGZ_WALK_NONE */
}

static sgz_status index_names(sgz_manifest *m, sgz_error *err)
{
    uint64_t count = 16;
    while (count < (uint64_t)m->entry_count * 2)
        count *= 2;
    m->slots = count <= UINT32_MAX ? calloc(count + 2, sizeof *m->slots) : NULL;
    if (!m->slots)
        return sgz_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the manifest's names");
    m->slot_count = (uint32_t)count;
    if (getrandom(m->slots + count, 2 * sizeof *m->slots, GRND_NONBLOCK) < 0)
        m->slots[count] = (uint32_t)(uintptr_t)m->slots; /* early in a boot */
    for (size_t i = 0; i < m->entry_count; i++) {
        const sgz_walk_entry *e = &m->entries[i].file;
        size_t at = slot_of(m, m->arena + e->name_off, e->name_len);
        if (m->slots[at])
            return sgz_fail(err, SGZ_ETOC, -1, m->arena + e->name_off, e->name_len,
                            "is in the manifest twice: %s", SGZ_MANIFEST_ADVICE);
        m->slots[at] = (uint32_t)i + 1;
    }
    return SGZ_OK;
}

static int same_times(const sgz_walk_entry *a, const sgz_walk_entry *b)
{
    return a->mtime == b->mtime && a->mtime_nsec == b->mtime_nsec && a->ctime == b->ctime &&
           a->ctime_nsec == b->ctime_nsec;
}

uint32_t sgz_manifest_known(void *arg, const sgz_walk_entry *e, const char *name)
{
    const sgz_manifest *m = arg;
    uint32_t number = sgz_manifest_lookup(m, name, e->name_len);
    if (number == SGZ_WALK_NONE || m->entries[number].flags & SGZ_MANIFEST_DOUBTFUL)
        return SGZ_WALK_NONE;
    const sgz_walk_entry *was = &m->entries[number].file, *file = was;
    /* A walk learns last which names are a file's second ones: as lstat sees it, one is a file
     * of the size that the first has. */
    if (was->type == '1')
        file = &m->entries[was->target].file;
    int same = e->type == file->type && e->size == file->size && same_times(e, was) &&
               e->ino == was->ino && e->dev == was->dev && e->mode == was->mode &&
               e->uid == was->uid && e->gid == was->gid && e->nlink == was->nlink &&
               e->dev_major == was->dev_major && e->dev_minor == was->dev_minor;
    return same ? number : SGZ_WALK_NONE;
}

/* --- by digest ---------------------------------------------------------------------------- */

static uint32_t unit_chunks(const sgz_manifest *m, size_t unit)
{
    size_t end = unit + 1 < m->unit_count ? m->units[unit + 1].first_chunk : m->chunk_count;
    return (uint32_t)(end - m->units[unit].first_chunk);
}

static int64_t unit_size(const sgz_manifest *m, size_t unit)
{
    size_t end = unit + 1 < m->unit_count ? m->units[unit + 1].first_entry : m->entry_count;
    return end > m->units[unit].first_entry ? m->entries[end - 1].file.size : 0;
}

static uint32_t prefix(const uint8_t digest[32])
{
    return (uint32_t)digest[0] << 24 | (uint32_t)digest[1] << 16 | (uint32_t)digest[2] << 8 |
           digest[3];
}

static int by_digest(const void *a, const void *b, void *arg)
{
    const sgz_manifest *m = arg;
    int64_t one = *(const int64_t *)a, two = *(const int64_t *)b;
    int order = memcmp(m->units[one].digest, m->units[two].digest, 32);
    return order ? order : one < two ? -1 : 1;
}

/* digest_order[0] is how many follow. By the first four bytes in two passes of a radix sort, and
 * what is equal in these by comparison. */
static sgz_status index_digests(sgz_manifest *m, sgz_error *err)
{
    size_t count = 0;
    m->digest_order = malloc((m->unit_count + 1) * sizeof *m->digest_order);
    int64_t *spare = malloc((m->unit_count + 1) * sizeof *spare);
    uint32_t *starts = malloc(65536 * sizeof *starts);
    if (!m->digest_order || !spare || !starts) {
        free(spare);
        free(starts);
        return sgz_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the manifest's digests");
    }
    int64_t *order = m->digest_order + 1;
    for (size_t i = 0; i < m->unit_count; i++)
        if (unit_chunks(m, i))
            order[count++] = (int64_t)i;
    m->digest_order[0] = (int64_t)count;
    for (int shift = 0; shift < 32; shift += 16) {
        uint32_t sum = 0;
        memset(starts, 0, 65536 * sizeof *starts);
        for (size_t i = 0; i < count; i++)
            starts[prefix(m->units[order[i]].digest) >> shift & 0xffff]++;
        for (size_t i = 0; i < 65536; i++) {
            uint32_t here = starts[i];
            starts[i] = sum;
            sum += here;
        }
        for (size_t i = 0; i < count; i++)
            spare[starts[prefix(m->units[order[i]].digest) >> shift & 0xffff]++] = order[i];
        if (count)
            memcpy(order, spare, count * sizeof *order);
    }
    for (size_t i = 0, end; i < count; i = end) {
        uint32_t first = prefix(m->units[order[i]].digest);
        for (end = i + 1; end < count && prefix(m->units[order[end]].digest) == first; end++)
            ;
        if (end - i > 1)
            qsort_r(order + i, end - i, sizeof *order, by_digest, m);
    }
    free(spare);
    free(starts);
    return SGZ_OK;
}

uint32_t sgz_manifest_find(const sgz_manifest *m, const uint8_t digest[32], int64_t size)
{
    const int64_t *order = m->digest_order + 1;
    size_t low = 0, high = (size_t)m->digest_order[0];
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (memcmp(m->units[order[middle]].digest, digest, 32) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == (size_t)m->digest_order[0] || memcmp(m->units[order[low]].digest, digest, 32) ||
        unit_size(m, (size_t)order[low]) != size)
        return SGZ_WALK_NONE;
    return (uint32_t)order[low];
}

sgz_status sgz_manifest_index(sgz_manifest *m, sgz_error *err)
{
    sgz_status status = index_names(m, err);
    return status ? status : index_digests(m, err);
}
