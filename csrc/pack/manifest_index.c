#define _GNU_SOURCE
#include "pack/manifest_internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "toc/hash.h"

/* The slot of a name, or the free one where it belongs. */
static size_t slot_of(const sgz_pack_manifest *m, const char *name, size_t len)
{
    uint64_t hash = sgz_toc_hash_bytes(sgz_pack_manifest_seed(m), name, len);
    size_t mask = (size_t)m->slot_count - 1, at = (hash ^ hash >> 32) & mask;
    for (; m->slots[at]; at = (at + 1) & mask) {
        const sgz_pack_walk_entry *e = &m->entries[m->slots[at] - 1].file;
        if (e->name_len == len && !memcmp(m->arena + e->name_off, name, len))
            break;
    }
    return at;
}

uint32_t sgz_pack_manifest_lookup(const sgz_pack_manifest *m, const char *name, size_t len)
{
    return m->slots[slot_of(m, name, len)] - 1; /* 0 becomes SGZ_WALK_NONE */
}

sgz_status sgz_pack_manifest_index(sgz_pack_manifest *m, sgz_error *err)
{
    uint64_t count = 16;
    while (count < (uint64_t)m->entry_count * 2)
        count *= 2;
    m->slots = count <= UINT32_MAX ? calloc(count + 2, sizeof *m->slots) : NULL;
    if (!m->slots)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the manifest's names");
    m->slot_count = (uint32_t)count;
    if (getrandom(m->slots + count, 2 * sizeof *m->slots, GRND_NONBLOCK) < 0)
        m->slots[count] = (uint32_t)(uintptr_t)m->slots; /* early in a boot */
    for (size_t i = 0; i < m->entry_count; i++) {
        const sgz_pack_walk_entry *e = &m->entries[i].file;
        size_t at = slot_of(m, m->arena + e->name_off, e->name_len);
        if (m->slots[at])
            return sgz_base_fail(err, SGZ_ETOC, -1, m->arena + e->name_off, e->name_len,
                                 "is in the manifest twice: %s", SGZ_MANIFEST_ADVICE);
        m->slots[at] = (uint32_t)i + 1;
    }
    return SGZ_OK;
}

static int same_times(const sgz_pack_walk_entry *a, const sgz_pack_walk_entry *b)
{
    return a->mtime == b->mtime && a->mtime_nsec == b->mtime_nsec && a->ctime == b->ctime &&
           a->ctime_nsec == b->ctime_nsec;
}

uint32_t sgz_pack_manifest_known(void *arg, const sgz_pack_walk_entry *e, const char *name)
{
    const sgz_pack_manifest *m = arg;
    uint32_t number = sgz_pack_manifest_lookup(m, name, e->name_len);
    if (number == SGZ_WALK_NONE || m->entries[number].flags & SGZ_MANIFEST_DOUBTFUL)
        return SGZ_WALK_NONE;
    const sgz_pack_walk_entry *was = &m->entries[number].file, *file = was;
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
