/* Contents: read from the tree, or copied from the base. Runs in every thread. */
#define _GNU_SOURCE
#include "pack/internal.h"

#include "base/beneath.h"
#include "base/bytes.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

/* What one thread needs. */
typedef struct {
    sgz_hasher hasher;
    sgz_inflater inflater;
    sgz_deflater deflater;      /* for what is damaged in the base */
    sgz_pack_made_header header;
    int dir;                    /* the directory last read from, -1: none */
    char *path;                 /* its name, and room for that of a file */
    size_t path_len, path_cap;
    unsigned misses;            /* files in a row that the page cache did not have */
    int in_memory;              /* the directory is a tmpfs's */
} loader;

void *sgz_pack_worker_new(void *arg, sgz_error *err)
{
    sgz_pack *p = arg;
    loader *w = calloc(1, sizeof *w);
    if (!w) {
        sgz_pack_no_memory(err);
        return NULL;
    }
    w->dir = -1;
    sgz_status status = sgz_codec_hasher_init(&w->hasher, p->codecs, err);
    if (!status && p->base)
        status = sgz_codec_inflater_init(&w->inflater, p->codecs, err);
    if (!status)
        return w;
    sgz_pack_worker_free(arg, w);
    return NULL;
}

void sgz_pack_worker_free(void *arg, void *worker)
{
    loader *w = worker;
    (void)arg;
    sgz_codec_hasher_free(&w->hasher);
    if (w->inflater.codecs)
        sgz_codec_inflater_free(&w->inflater);
    if (w->deflater.codecs)
        sgz_codec_deflater_free(&w->deflater);
    sgz_pack_header_free(&w->header);
    if (w->dir >= 0)
        close(w->dir);
    free(w->path);
    free(w);
}

/* --- reading the tree --------------------------------------------------------------------- */

static sgz_status fail_entry(const sgz_pack *p, const sgz_pack_walk_entry *e, int error,
                             sgz_error *err)
{
    const char *name = p->m.arena + e->name_off;
    if (!error || error == ENOENT || error == ENOTDIR || error == ELOOP)
        return sgz_base_fail(err, SGZ_EIO, -1, name, e->name_len,
                             "was replaced or removed while it was packed; pack again");
    return sgz_base_fail_errno(err, error, "reading failed", name, e->name_len);
}

/* Open a file of the tree; no link is followed on the way. Files come in the order of their
 * directories, so that one is kept open. Returns -errno. */
static int open_entry(sgz_pack *p, loader *w, const sgz_pack_walk_entry *e)
{
    const char *name = p->m.arena + e->name_off;
    const char *slash = memrchr(name, '/', e->name_len);
    size_t dir_len = slash ? (size_t)(slash - name) : 0, base = slash ? dir_len + 1 : 0;
    if (w->dir < 0 || w->path_len != dir_len || memcmp(w->path, name, dir_len)) {
        if (w->dir >= 0)
            close(w->dir);
        w->dir = -1;
        w->in_memory = 0;
        if (!SGZ_FIT(w->path, w->path_cap, dir_len + 256 + 2))
            return -ENOMEM;
        memcpy(w->path, name, dir_len);
        w->path[dir_len] = '\0';
        w->path_len = dir_len;
        int dir = sgz_base_beneath_open(p->root, w->path, 1);
        if (dir == -ENAMETOOLONG)
            dir = sgz_base_beneath_open(p->root, w->path, 0);
        if (dir < 0)
            return dir;
        w->dir = dir;
    }
    char *last = w->path + dir_len + 1;
    size_t last_len = e->name_len - base;
    if (last_len > 255)
        return -ENAMETOOLONG;
    memcpy(last, name + base, last_len);
    last[last_len] = '\0';
    /* O_NONBLOCK: it may have become a fifo. */
    int fd = openat(w->dir, last, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* Read [at, at + len) into out; what the file does not have is zeros. Returns how much it has,
 * or -errno. */
static int64_t read_range(int fd, int64_t at, size_t len, uint8_t *out)
{
    int64_t got = sgz_base_read_all(fd, out, len, at);
    if (got >= 0)
        memset(out + got, 0, len - (size_t)got);
    return got;
}

/* The same for a file that may have holes, which are not read. */
static int64_t read_sparse(int fd, int64_t at, size_t len, uint8_t *out)
{
    int64_t end = at + (int64_t)len, pos = at;
    while (pos < end) {
        int64_t data = lseek(fd, pos, SEEK_DATA), hole;
        if (data < 0 && errno == ENXIO)
            data = end;     /* a hole up to the end; how long the file is, stat tells */
        else if (data < 0)
            return read_range(fd, at, len, out);
        data = data < end ? data : end;
        memset(out + (pos - at), 0, (size_t)(data - pos));
        pos = data;
        if (pos == end)
            break;
        hole = lseek(fd, pos, SEEK_HOLE);
        hole = hole > pos && hole < end ? hole : end;
        int64_t got = read_range(fd, pos, (size_t)(hole - pos), out + (pos - at));
        if (got < 0 || got < hole - pos) {
            memset(out + (hole - at), 0, (size_t)(end - hole));
            return got < 0 ? got : pos - at + got;
        }
        pos = hole;
    }
    return (int64_t)len;
}

static void note_changed(sgz_pack *p, uint32_t entry, int cut)
{
    pthread_mutex_lock(&p->lock);
    uint64_t n = p->found.changed;
    if (!(p->m.entries[entry].flags & SGZ_MANIFEST_DOUBTFUL)) {
        p->m.entries[entry].flags |= SGZ_MANIFEST_DOUBTFUL;
        p->found.changed++;
        if (n < CHANGED_NAMES) {
            p->changed[n].entry = entry;
            p->changed[n].cut = cut;
        }
    } else if (cut) {
        for (size_t i = 0; i < CHANGED_NAMES && i < n; i++)
            if (p->changed[i].entry == entry)
                p->changed[i].cut = 1;
    }
    pthread_mutex_unlock(&p->lock);
}

static int same_times(const struct stat *st, const sgz_pack_walk_entry *e)
{
    return st->st_size == e->size && st->st_mtim.tv_sec == e->mtime
        && st->st_mtim.tv_nsec == (long)e->mtime_nsec && st->st_ctim.tv_sec == e->ctime
        && st->st_ctim.tv_nsec == (long)e->ctime_nsec;
}

/* A range of a file's contents, of exactly the length that the walk saw. */
static sgz_status read_contents(sgz_pack *p, loader *w, uint32_t entry, int64_t at, size_t len,
                                uint8_t *out, sgz_error *err)
{
    const sgz_pack_walk_entry *e = &p->m.entries[entry].file;
    struct stat st;
    int fd = open_entry(p, w, e);
    if (fd < 0)
        return fail_entry(p, e, -fd, err);
    int error = fstat(fd, &st) ? errno : 0;
    if (error || !S_ISREG(st.st_mode) || st.st_ino != e->ino || st.st_dev != e->dev) {
        close(fd);
        return fail_entry(p, e, error, err);
    }
    int sparse = (int64_t)st.st_blocks < st.st_size / 512;
    int64_t got = sparse ? read_sparse(fd, at, len, out) : read_range(fd, at, len, out);
    if (got >= 0 && fstat(fd, &st))
        got = -errno;
    close(fd);
    if (got < 0)
        return fail_entry(p, e, (int)-got, err);
    if (!same_times(&st, e))
        note_changed(p, entry, st.st_size < e->size || got < (int64_t)len);
    return SGZ_OK;
}

static sgz_status load_file(sgz_pack *p, loader *w, sgz_write_slab *slab,
                            const sgz_pack_part *part, sgz_error *err)
{
    uint8_t *out = slab->buf + part->start;
    sgz_write_piece *piece = &slab->pieces[part->piece];
    sgz_status status = read_contents(p, w, part->entry, part->at, part->len, out, err);
    if (status)
        return status;
    memset(out + part->len, 0, part->tar_len - part->len);
    if (piece->hashed) {
        sgz_message message = {out, part->len, piece->digest};
        sgz_codec_hasher_update(&w->hasher, NULL, 0, &message, 1);
    }
    return SGZ_OK;
}

/* --- copying the base ---------------------------------------------------------------------- */

/* The headers of a part. */
static sgz_status make_headers(const sgz_pack *p, loader *w, const sgz_pack_part *part,
                               uint8_t *out, sgz_error *err)
{
    for (uint32_t i = 0; i < part->headers; i++) {
        uint8_t *bytes;
        size_t len;
        sgz_status status = sgz_pack_header(p, part->entry + (size_t)i, &w->header, err);
        if (!status)
            status = sgz_tar_expanded_header(&w->header.entry, &bytes, &len, err);
        if (status)
            return status;
        memcpy(out, bytes, len);
        out += len;
        free(bytes);
    }
    return SGZ_OK;
}

/* The tar's bytes of a copied part, once more from the tree, compressed as they were then. */
static sgz_status make_anew(sgz_pack *p, loader *w, const sgz_pack_part *part, uint8_t *packed,
                            uint8_t *tar, sgz_error *err)
{
    const sgz_pack_walk_entry *e = &p->m.entries[part->entry].file;
    size_t cap = sgz_codec_member_bound(part->tar_len), made = 0;
    uint8_t *in = malloc(part->tar_len), *out = malloc(cap);
    sgz_status status = in && out ? SGZ_OK : sgz_pack_no_memory(err);
    if (!status && !part->headers) {
        status = read_contents(p, w, part->entry, part->at, part->len, in, err);
        memset(in + part->len, 0, part->tar_len - part->len);
    }
    if (!status && part->headers)
        status = make_headers(p, w, part, in, err);
    if (!status && !w->deflater.codecs)
        status = sgz_codec_deflater_init(&w->deflater, p->codecs, p->options.bytes.level, err);
    if (!status)
        status = sgz_codec_deflate_member(&w->deflater, in, part->tar_len, 0, out, cap, &made,
                                          err);
    if (!status &&
        (made != part->packed_len || sgz_codec_crc32(p->codecs, 0, out, made) != part->crc))
        status = sgz_base_fail(
            err, SGZ_EIO, -1, p->m.arena + e->name_off, e->name_len,
            "its part of the base is damaged, and it is not what it was then; pack "
            "without the base");
    if (!status) {
        memcpy(packed, out, made);
        if (tar)
            memcpy(tar, in, part->tar_len);
        pthread_mutex_lock(&p->lock);
        p->found.damaged++;
        pthread_mutex_unlock(&p->lock);
    }
    free(in);
    free(out);
    return status;
}

/* One member into exactly len bytes; 0 when it is not that. */
static int inflate_member(loader *w, int64_t offset, const uint8_t *in, size_t in_len,
                          uint8_t *out, size_t len)
{
    size_t done = 0, got = 1;
    sgz_codec_inflater_reset(&w->inflater, offset);
    while (in_len && got && done < len) {
        if (sgz_codec_inflate(&w->inflater, &in, &in_len, out + done, len - done, &got, 0, NULL))
            return 0;
        done += got;
    }
    /* The trailer, which checks the CRC, may still be to come. */
    if (in_len && done == len &&
        (sgz_codec_inflate(&w->inflater, &in, &in_len, out + len, 0, &got, 0, NULL) || got))
        return 0;
    return done == len && !in_len && sgz_codec_inflater_at_member_end(&w->inflater);
}

/* The contents of a member from the file in the tree, if the kernel has that in memory: to
 * inflate the member takes two to ten times as long. It is not trusted: the member's own CRC and
 * length tell whether these are its contents. A tree that is not in memory is seldom asked. */
static int read_cached(sgz_pack *p, loader *w, const sgz_pack_part *part, const uint8_t *packed,
                       uint8_t *tar)
{
#ifdef RWF_NOWAIT
    uint8_t trailer[SGZ_GZIP_TRAILER];
    if (part->packed_len < sizeof trailer || (w->misses > 16 && w->misses++ % 64))
        return 0;
    int fd = open_entry(p, w, &p->m.entries[part->entry].file);
    struct iovec to = {tar, part->len};
    struct statfs fs;
    ssize_t got = fd < 0 || w->in_memory ? -1 : preadv2(fd, &to, 1, part->at, RWF_NOWAIT);
    /* A tmpfs cannot be asked so, but is in memory. */
    if (fd >= 0 && got < 0 && !w->in_memory && errno == EOPNOTSUPP)
        w->in_memory = !fstatfs(fd, &fs) && fs.f_type == TMPFS_MAGIC;
    if (fd >= 0 && w->in_memory)
        got = pread(fd, tar, part->len, part->at);
    if (fd >= 0)
        close(fd);
    if (got < 0 || (size_t)got != part->len) {
        w->misses++;
        return 0;
    }
    w->misses = 0;
    memset(tar + part->len, 0, part->tar_len - part->len);
    uint32_t crc = sgz_codec_crc32(p->codecs, 0, tar, part->tar_len);
    sgz_put_le32(trailer, crc);
    sgz_put_le32(trailer + 4, (uint32_t)part->tar_len);
    return !memcmp(trailer, packed + part->packed_len - sizeof trailer, sizeof trailer);
#else
    (void)p, (void)w, (void)part, (void)packed, (void)tar;
    return 0;
#endif
}

/* Parts that are neighbours in the base: one read, and a check of each. */
static sgz_status copy_run(sgz_pack *p, loader *w, sgz_write_slab *slab,
                           const sgz_pack_part *parts, size_t count, sgz_error *err)
{
    const sgz_pack_part *last = &parts[count - 1];
    size_t len = last->packed + last->packed_len - parts[0].packed;
    int64_t got = read_range(p->options.base_fd, parts[0].base_at, len,
                             slab->packed + parts[0].packed);
    (void)got; /* what could not be read is damaged */
    for (size_t i = 0; i < count; i++) {
        const sgz_pack_part *part = &parts[i];
        uint8_t *packed = slab->packed + part->packed;
        uint8_t *tar = p->options.diff_id ? slab->buf + part->start : NULL;
        int good = sgz_codec_crc32(p->codecs, 0, packed, part->packed_len) == part->crc;
        sgz_status status = SGZ_OK;
        if (good && tar && part->headers) /* costs less than to inflate them */
            status = make_headers(p, w, part, tar, err);
        else if (good && tar)
            good = read_cached(p, w, part, packed, tar)
                || inflate_member(w, part->base_at, packed, part->packed_len, tar,
                                  part->tar_len);
        if (!good)
            status = make_anew(p, w, part, packed, tar, err);
        if (status)
            return status;
    }
    return SGZ_OK;
}

sgz_status sgz_pack_load(void *arg, void *worker, sgz_write_slab *slab, size_t n, sgz_error *err)
{
    sgz_pack *p = arg;
    const sgz_pack_plan *plan = slab->plan;
    size_t end = n + 1 < plan->job_count ? plan->jobs[n + 1] : plan->part_count;
    sgz_status status = SGZ_OK;
    for (size_t i = plan->jobs[n]; i < end && !status;) {
        const sgz_pack_part *part = &plan->parts[i];
        size_t count = 1;
        if (!part->copied) {
            status = load_file(p, worker, slab, part, err);
        } else {
            while (i + count < end && part[count].copied
                   && part[count].base_at
                       == part[count - 1].base_at + (int64_t)part[count - 1].packed_len)
                count++;
            status = copy_run(p, worker, slab, part, count, err);
        }
        i += count;
    }
    return status;
}

/* --- contents that the base has under another name ------------------------------------------ */

static uint32_t unit_of_chunk(const sgz_pack_manifest *m, uint32_t chunk)
{
    size_t low = 0, high = m->unit_count; /* the last unit that begins there or before */
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (m->units[middle].first_chunk <= chunk)
            low = middle;
        else
            high = middle;
    }
    return (uint32_t)low;
}

/* The padding in a chunk's member: 0 but for the last of a file. */
static size_t padding_of(const sgz_pack_manifest *m, uint32_t unit, uint32_t chunk)
{
    const sgz_pack_manifest_unit *u = &m->units[unit];
    int last = chunk + 1 == u->first_chunk + sgz_pack_unit_chunks(m, unit);
    size_t file = (size_t)u->first_entry + sgz_pack_unit_entries(m, unit) - 1;
    return last ? sgz_pack_padding(m->entries[file].file.size) : 0;
}

/* A chunk of this digest (which tells its length too) and padding: its slot, or a free one. */
static size_t find_slot(const sgz_pack *p, const uint8_t digest[32], size_t padding)
{
    const sgz_pack_manifest *base = p->base;
    uint64_t hash = sgz_load32(digest);
    size_t slot = sgz_map_first(&p->chunks, hash);
    for (; sgz_map_taken(&p->chunks, slot); slot = sgz_map_next(&p->chunks, hash, slot)) {
        uint32_t chunk = sgz_map_number(&p->chunks, slot);
        if (!memcmp(base->chunks[chunk].digest, digest, 32) &&
            padding_of(base, unit_of_chunk(base, chunk), chunk) == padding)
            break;
    }
    return slot;
}

/* With the lock. */
static void index_chunks(sgz_pack *p)
{
    const sgz_pack_manifest *base = p->base;
    if (!sgz_map_reserve(&p->chunks, base->chunk_count))
        return; /* nothing is found, then */
    for (uint32_t unit = 0; unit < base->unit_count; unit++)
        for (uint32_t k = 0; k < sgz_pack_unit_chunks(base, unit); k++) {
            uint32_t i = base->units[unit].first_chunk + k;
            const uint8_t *digest = base->chunks[i].digest;
            size_t slot = find_slot(p, digest, padding_of(base, unit, i));
            if (!sgz_map_taken(&p->chunks, slot))
                sgz_map_put(&p->chunks, slot, sgz_load32(digest), i);
        }
}

static uint32_t find_chunk(sgz_pack *p, const uint8_t digest[32], size_t padding, size_t *packed)
{
    pthread_mutex_lock(&p->lock);
    if (!p->chunks.size)
        index_chunks(p);
    pthread_mutex_unlock(&p->lock);
    uint32_t chunk = sgz_map_number(&p->chunks, find_slot(p, digest, padding));
    if (chunk == SGZ_MAP_NONE)
        return SGZ_WALK_NONE;
    uint32_t unit = unit_of_chunk(p->base, chunk);
    *packed = (size_t)(sgz_pack_chunk_end(p->base, unit, chunk) - p->base->chunks[chunk].offset);
    return chunk;
}

sgz_status sgz_pack_reuse(void *arg, void *worker, const sgz_write_slab *slab, size_t member,
                          uint8_t *out, size_t cap, size_t *len, sgz_error *err)
{
    sgz_pack *p = arg;
    const sgz_write_member *m = &slab->members[member];
    (void)worker;
    (void)err;
    *len = 0;
    if (!m->piece_count || !slab->pieces[m->first_piece].hashed)
        return SGZ_OK;
    const sgz_write_piece *piece = &slab->pieces[m->first_piece];
    size_t packed;
    uint32_t chunk = find_chunk(p, piece->digest, m->len - piece->len, &packed);
    if (chunk == SGZ_WALK_NONE || packed > cap)
        return SGZ_OK;
    int64_t got = read_range(p->options.base_fd, p->base->chunks[chunk].offset, packed, out);
    int good = got == (int64_t)packed &&
               sgz_codec_crc32(p->codecs, 0, out, packed) == p->base->chunks[chunk].crc;
    pthread_mutex_lock(&p->lock);
    p->found.damaged += !good;
    if (good) {
        p->found.reused_files += piece->row == piece->file_row;
        p->found.reused_bytes += (int64_t)packed;
    }
    pthread_mutex_unlock(&p->lock);
    *len = good ? packed : 0;
    return SGZ_OK;
}
