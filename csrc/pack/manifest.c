#include "pack/manifest_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/file.h"
#include "toc/hash.h"

#define PIECE ((size_t)1 << 18) /* written at once */
#define DIGEST 32

/* Rows are in the file as they are in memory. */
_Static_assert(sizeof(sgz_pack_manifest_head) % 8 == 0, "rows follow the head");
_Static_assert(sizeof(sgz_pack_manifest_entry) == 128 && sizeof(sgz_pack_manifest_unit) == 80 &&
                   sizeof(sgz_pack_manifest_chunk) == 48,
               "another version then");

/* --- loading ------------------------------------------------------------------------------ */

static sgz_status refuse(sgz_error *err, const char *what)
{
    return sgz_base_fail(err, SGZ_ETOC, -1, NULL, 0, "%s: %s", what, SGZ_MANIFEST_ADVICE);
}

static sgz_status read_file(int fd, uint8_t *out, size_t len, sgz_error *err)
{
    int64_t got = sgz_base_read_all(fd, out, len, 0);
    if (got < 0)
        return sgz_base_fail_errno(err, (int)-got, "cannot read the manifest", NULL, 0);
    if ((size_t)got < len)
        return refuse(err, "the manifest is cut short");
    return SGZ_OK;
}

typedef struct {
    const sgz_codecs *codecs;
    const uint8_t *data;
    size_t len;
    sgz_sha256 sha;
    uint8_t digest[DIGEST];
} hashing;

static sgz_status hash(void *arg, int number, sgz_error *err)
{
    hashing *h = arg;
    (void)number, (void)err;
    sgz_codec_sha256_init(h->codecs, &h->sha);
    sgz_codec_sha256_update(h->codecs, &h->sha, h->data, h->len);
    sgz_codec_sha256_final(h->codecs, &h->sha, h->digest);
    return SGZ_OK;
}

/* Take `count` rows of `size` bytes from the front of what is left. */
static void *take(uint8_t **at, uint64_t *left, uint64_t count, size_t size)
{
    uint8_t *rows = *at;
    if (count > *left / size)
        return NULL;
    *at += count * size;
    *left -= count * size;
    return rows;
}

static sgz_status lay_out(sgz_pack_manifest *m, uint64_t len, sgz_error *err)
{
    uint8_t *at = m->file;
    const sgz_pack_manifest_head *head = m->file;
    uint64_t left = len - DIGEST - sizeof *head;
    at += sizeof *head;
    m->entries = take(&at, &left, head->entry_count, sizeof *m->entries);
    m->units = m->entries ? take(&at, &left, head->unit_count, sizeof *m->units) : NULL;
    m->chunks = m->units ? take(&at, &left, head->chunk_count, sizeof *m->chunks) : NULL;
    if (!m->chunks || left != head->arena_len)
        return refuse(err, "the manifest has not the size that its counts say");
    m->arena = (char *)at;
    m->entry_count = (size_t)head->entry_count;
    m->unit_count = (size_t)head->unit_count;
    m->chunk_count = (size_t)head->chunk_count;
    m->arena_len = (size_t)head->arena_len;
    m->options = head->options;
    m->walked_at = head->walked_at;
    m->blob_size = head->blob_size;
    m->toc_offset = head->toc_offset;
    memcpy(m->blob_digest, head->blob_digest, DIGEST);
    memcpy(m->tail_digest, head->tail_digest, DIGEST);
    return SGZ_OK;
}

/* The digest takes as long as all the rest: so on a thread of its own. What is damaged is told
 * to be that, whatever else is wrong with it. */
static sgz_status understand(sgz_pack_manifest *m, const sgz_codecs *codecs, size_t len,
                             sgz_error *err)
{
    hashing h = {.codecs = codecs, .data = m->file, .len = len - DIGEST};
    sgz_base_job job;
    sgz_status status = sgz_codec_sha256_new(codecs, &h.sha, err);
    if (status)
        return status;
    sgz_base_job_init(&job);
    int started = !sgz_base_job_start(&job, 1, hash, &h, NULL);
    status = lay_out(m, len, err);
    if (!status)
        status = sgz_pack_manifest_check(m, err);
    if (!status)
        status = sgz_pack_manifest_index(m, err);
    sgz_base_job_join(&job, NULL);
    sgz_base_job_free(&job);
    if (!started)
        hash(&h, 0, NULL);
    sgz_codec_sha256_free(codecs, &h.sha);
    if (memcmp(h.digest, (const uint8_t *)m->file + len - DIGEST, DIGEST))
        status = refuse(err, "the manifest is damaged: it does not match its own digest");
    return status;
}

static sgz_status load(sgz_pack_manifest *m, const sgz_codecs *codecs, int fd, sgz_error *err)
{
    sgz_pack_manifest_head head;
    struct stat info;
    if (fstat(fd, &info))
        return sgz_base_fail_errno(err, errno, "cannot read the manifest", NULL, 0);
    /* What is no manifest is not read to its end. */
    int64_t got = sgz_base_read_all(fd, &head, sizeof head, 0);
    if (got < 0)
        return sgz_base_fail_errno(err, (int)-got, "cannot read the manifest", NULL, 0);
    if ((size_t)got < sizeof head.magic ||
        memcmp(head.magic, SGZ_MANIFEST_MAGIC, sizeof head.magic))
        return refuse(err, "this is not a manifest of a packed layer");
    if (!S_ISREG(info.st_mode) || (size_t)got < sizeof head ||
        (uint64_t)info.st_size < sizeof head + DIGEST || (uint64_t)info.st_size > SIZE_MAX / 2)
        return refuse(err, "the manifest is cut short");
    if (head.version != SGZ_MANIFEST_VERSION || head.order != SGZ_MANIFEST_ORDER ||
        head.head_size != sizeof head || head.entry_size != sizeof *m->entries ||
        head.unit_size != sizeof *m->units || head.chunk_size != sizeof *m->chunks)
        return refuse(err, "the manifest is of another version or machine");
    size_t len = (size_t)info.st_size;
    m->file = sgz_base_buffer_new(len);
    if (!m->file)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the manifest");
    sgz_status status = read_file(fd, m->file, len, err);
    if (!status && memcmp(m->file, &head, sizeof head))
        status = refuse(err, "the manifest changed while it was read");
    return status ? status : understand(m, codecs, len, err);
}

sgz_status sgz_pack_manifest_load(sgz_pack_manifest *m, const sgz_codecs *codecs, int fd,
                                  sgz_error *err)
{
    memset(m, 0, sizeof *m);
    sgz_status status = load(m, codecs, fd, err);
    if (status)
        sgz_pack_manifest_free(m);
    return status;
}

void sgz_pack_manifest_free(sgz_pack_manifest *m)
{
    sgz_map_free(&m->names);
    if (m->file) {
        free(m->file);
    } else {
        free(m->entries);
        free(m->units);
        free(m->chunks);
        free(m->arena);
    }
    memset(m, 0, sizeof *m);
}

/* --- saving ------------------------------------------------------------------------------- */

typedef struct {
    const sgz_codecs *codecs;
    sgz_sha256 sha;
    int fd;
    uint8_t *buf;
    size_t used;
} writer;

static sgz_status flush(writer *w, sgz_error *err)
{
    int bad = sgz_base_write_all(w->fd, w->buf, w->used, -1);
    if (bad)
        return sgz_base_fail_errno(err, -bad, "cannot write the manifest", NULL, 0);
    w->used = 0;
    return SGZ_OK;
}

static sgz_status put(writer *w, const void *data, size_t len, sgz_error *err)
{
    const uint8_t *at = data;
    while (len) {
        size_t room = PIECE - w->used, part = len < room ? len : room;
        memcpy(w->buf + w->used, at, part);
        sgz_codec_sha256_update(w->codecs, &w->sha, at, part);
        w->used += part;
        at += part;
        len -= part;
        if (w->used == PIECE) {
            sgz_status status = flush(w, err);
            if (status)
                return status;
        }
    }
    return SGZ_OK;
}

/* Whether a change after `walked_at` may leave this timestamp as it is: it is not older than
 * what the clock showed then, cut off as coarsely as the zeros at its end allow. Whole seconds
 * may even be every second one. */
static int is_fresh(int64_t seconds, uint32_t nsec, int64_t walked_at)
{
    int64_t grain = 1;
    if (!nsec)
        grain = 2000000000;
    else
        while (nsec % (grain * 10) == 0)
            grain *= 10;
    return (__int128)seconds * 1000000000 + nsec + grain > walked_at;
}

static sgz_status put_entries(writer *w, const sgz_pack_manifest *m, sgz_error *err)
{
    sgz_status status = SGZ_OK;
    for (size_t i = 0; i < m->entry_count && !status; i++) {
        const sgz_pack_walk_entry *e = &m->entries[i].file;
        sgz_pack_manifest_entry row;
        memset(&row, 0, sizeof row); /* what is between the fields, too */
        memcpy(&row.file, e, offsetof(sgz_pack_walk_entry, type) + 1);
        row.file.known = SGZ_WALK_NONE;
        row.unit = m->entries[i].unit;
        row.flags = m->entries[i].flags;
        if (is_fresh(e->mtime, e->mtime_nsec, m->walked_at) ||
            is_fresh(e->ctime, e->ctime_nsec, m->walked_at))
            row.flags |= SGZ_MANIFEST_DOUBTFUL;
        status = put(w, &row, sizeof row, err);
    }
    return status;
}

static sgz_status put_units(writer *w, const sgz_pack_manifest *m, sgz_error *err)
{
    sgz_status status = SGZ_OK;
    for (size_t i = 0; i < m->unit_count && !status; i++) {
        const sgz_pack_manifest_unit *u = &m->units[i];
        sgz_pack_manifest_unit row;
        memset(&row, 0, sizeof row);
        row.first_entry = u->first_entry;
        row.first_chunk = u->first_chunk;
        row.headers_crc = u->headers_crc;
        row.start = u->start;
        row.data = u->data;
        row.end = u->end;
        row.headers_len = u->headers_len;
        memcpy(row.digest, u->digest, DIGEST);
        status = put(w, &row, sizeof row, err);
    }
    for (size_t i = 0; i < m->chunk_count && !status; i++) {
        sgz_pack_manifest_chunk row;
        memset(&row, 0, sizeof row);
        row.offset = m->chunks[i].offset;
        row.crc = m->chunks[i].crc;
        memcpy(row.digest, m->chunks[i].digest, DIGEST);
        status = put(w, &row, sizeof row, err);
    }
    return status;
}

static sgz_status put_head(writer *w, const sgz_pack_manifest *m, sgz_error *err)
{
    sgz_pack_manifest_head head;
    const sgz_pack_manifest_options *o = &m->options;
    memset(&head, 0, sizeof head);
    memcpy(head.magic, SGZ_MANIFEST_MAGIC, sizeof head.magic);
    head.version = SGZ_MANIFEST_VERSION;
    head.order = SGZ_MANIFEST_ORDER;
    head.head_size = sizeof head;
    head.entry_size = sizeof *m->entries;
    head.unit_size = sizeof *m->units;
    head.chunk_size = sizeof *m->chunks;
    head.entry_count = m->entry_count;
    head.unit_count = m->unit_count;
    head.chunk_count = m->chunk_count;
    head.arena_len = m->arena_len;
    head.options = *o;
    /* So that equal options are equal bytes. */
    size_t engine = strnlen(o->engine, sizeof o->engine - 1);
    memset(head.options.engine + engine, 0, sizeof o->engine - engine);
    head.walked_at = m->walked_at;
    head.blob_size = m->blob_size;
    head.toc_offset = m->toc_offset;
    memcpy(head.blob_digest, m->blob_digest, DIGEST);
    memcpy(head.tail_digest, m->tail_digest, DIGEST);
    return put(w, &head, sizeof head, err);
}

sgz_status sgz_pack_manifest_save(const sgz_pack_manifest *m, const sgz_codecs *codecs, int fd,
                                  sgz_error *err)
{
    writer w = {.codecs = codecs, .fd = fd, .buf = malloc(PIECE)};
    sgz_status status = SGZ_OK;
    if (!w.buf)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the manifest");
    status = sgz_codec_sha256_new(codecs, &w.sha, err);
    if (!status) {
        sgz_codec_sha256_init(codecs, &w.sha);
        status = put_head(&w, m, err);
        if (!status)
            status = put_entries(&w, m, err);
        if (!status)
            status = put_units(&w, m, err);
        if (!status)
            status = put(&w, m->arena, m->arena_len, err);
        uint8_t digest[DIGEST];
        sgz_codec_sha256_final(codecs, &w.sha, digest);
        if (!status) /* not a part of what it is of */
            status = flush(&w, err);
        if (!status) {
            memcpy(w.buf, digest, DIGEST);
            w.used = DIGEST;
            status = flush(&w, err);
        }
        sgz_codec_sha256_free(codecs, &w.sha);
    }
    free(w.buf);
    return status;
}

/* The slot of a name, or the free one where it belongs. */
static size_t slot_of(const sgz_pack_manifest *m, uint64_t hash, const char *name, size_t len)
{
    size_t at = sgz_map_first(&m->names, hash);
    for (; sgz_map_taken(&m->names, at); at = sgz_map_next(&m->names, hash, at)) {
        const sgz_pack_walk_entry *e = &m->entries[sgz_map_number(&m->names, at)].file;
        if (e->name_len == len && !memcmp(m->arena + e->name_off, name, len))
            break;
    }
    return at;
}

uint32_t sgz_pack_manifest_lookup(const sgz_pack_manifest *m, const char *name, size_t len)
{
    uint64_t hash = sgz_toc_hash_bytes(m->seed, name, len);
    return sgz_map_number(&m->names, slot_of(m, hash, name, len));
}

sgz_status sgz_pack_manifest_index(sgz_pack_manifest *m, sgz_error *err)
{
    if (!sgz_map_reserve(&m->names, m->entry_count))
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the manifest's names");
    if (getrandom(&m->seed, sizeof m->seed, GRND_NONBLOCK) < 0)
        m->seed = (uintptr_t)m->names.slots; /* early in a boot */
    for (size_t i = 0; i < m->entry_count; i++) {
        const sgz_pack_walk_entry *e = &m->entries[i].file;
        const char *name = m->arena + e->name_off;
        uint64_t hash = sgz_toc_hash_bytes(m->seed, name, e->name_len);
        size_t at = slot_of(m, hash, name, e->name_len);
        if (sgz_map_taken(&m->names, at))
            return sgz_base_fail(err, SGZ_ETOC, -1, name, e->name_len,
                                 "is in the manifest twice: %s", SGZ_MANIFEST_ADVICE);
        sgz_map_put(&m->names, at, hash, (uint32_t)i);
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
