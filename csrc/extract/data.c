/* Contents: inflated, hashed, written under a temporary name, and named when whole. */
#define _GNU_SOURCE
#include "extract/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/beneath.h"

#define PIECE SGZ_PIECE
#define HOLE ((size_t)4 << 10) /* zeros shorter than a block are written */
#define CRC_REACH ((int64_t)4 << 20)
#define TRIES 64
#define CREATE (O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC)

static int create(struct sgz_extract *ex, int dir, uint64_t *number, char temp[SGZ_TEMP_NAME])
{
    int fd = -1;
    for (int tries = 0; tries < TRIES; tries++) {
        *number = sgz_extract_temp_number(ex);
        sgz_extract_temp_name(*number, temp);
        fd = openat(dir, temp, CREATE, 0600);
        if (fd >= 0 || (errno != EEXIST && errno != EINTR))
            break;
    }
    return fd < 0 ? -errno : fd;
}

static int all_zero(const uint8_t *data, size_t len)
{
    return len >= HOLE && !data[0] && !memcmp(data, data + 1, len - 1);
}

/* Zeros become a hole; whoever ends the file sets its size. */
static sgz_status put(sgz_extract_worker *w, sgz_extract_object *o, int fd, const uint8_t *data,
                      size_t len, int64_t offset, sgz_error *err)
{
    if (all_zero(data, len)) {
        atomic_store(&o->holes, 1);
        return SGZ_OK;
    }
    while (len) {
        ssize_t n = pwrite(fd, data, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return sgz_extract_fail_row(w->ex->plan.toc, o->dest, n ? errno : ENOSPC,
                                        "cannot write", err);
        data += n;
        offset += n;
        len -= (size_t)n;
    }
    return SGZ_OK;
}

/* The file is whole: metadata, then its name. */
static sgz_status complete(sgz_extract_worker *w, sgz_extract_object *o, int dir, int fd,
                           const char *temp, sgz_error *err)
{
    const sgz_toc *toc = w->ex->plan.toc;
    char base[SGZ_BASE_MAX + 1];
    if (o->holes && ftruncate(fd, (off_t)toc->rows[o->row].size) != 0)
        return sgz_extract_fail_row(toc, o->dest, errno, "cannot set the size", err);
    sgz_status st = sgz_extract_set_metadata(w, o->row, fd, err);
    if (st)
        return st;
    sgz_extract_base_name(toc, o->dest, base);
    int bad = sgz_base_beneath_rename(dir, temp, base);
    if (bad == -EEXIST)
        return sgz_extract_fail_row(toc, o->dest, bad,
                                    "a directory that is not empty is in the way", err);
    if (bad)
        return sgz_extract_fail_row(toc, o->dest, bad, "cannot name the file", err);
    w->result.files++;
    return SGZ_OK;
}

/* A file that one thread has whole in memory, or that is empty. */
static sgz_status write_file(sgz_extract_worker *w, sgz_extract_object *o, const uint8_t *data,
                             size_t len, sgz_error *err)
{
    char temp[SGZ_TEMP_NAME];
    uint64_t number;
    int dir;
    sgz_status st = sgz_extract_worker_dir(w, o->node, &dir, err);
    if (st)
        return st;
    int fd = create(w->ex, dir, &number, temp);
    if (fd < 0)
        return sgz_extract_fail_row(w->ex->plan.toc, o->dest, fd, "cannot create the file", err);
    st = put(w, o, fd, data, len, 0, err);
    if (!st)
        st = complete(w, o, dir, fd, temp, err);
    if (close(fd) != 0 && !st)
        st = sgz_extract_fail_row(w->ex->plan.toc, o->dest, errno, "cannot write", err);
    if (st)
        unlinkat(dir, temp, 0);
    return st;
}

/* A file of several pieces: the first thread that comes to it creates it. */
static sgz_status open_shared(sgz_extract_worker *w, sgz_extract_object *o, int *fd,
                              sgz_error *err)
{
    char temp[SGZ_TEMP_NAME];
    sgz_status st = SGZ_OK;
    pthread_mutex_lock(&w->ex->job->lock);
    if (o->fd < 0) {
        int dir;
        st = sgz_extract_worker_dir(w, o->node, &dir, err);
        if (!st) {
            int made = create(w->ex, dir, &o->temp, temp);
            if (made < 0)
                st = sgz_extract_fail_row(w->ex->plan.toc, o->dest, made,
                                          "cannot create the file", err);
            else
                o->fd = made;
        }
    }
    *fd = o->fd;
    pthread_mutex_unlock(&w->ex->job->lock);
    return st;
}

static sgz_status check(const sgz_toc *toc, const sgz_extract_object *o, int64_t offset,
                        const uint8_t *expected, const uint8_t *actual, const char *what,
                        sgz_error *err)
{
    const sgz_entry *e = &toc->rows[o->dest];
    if (!memcmp(expected, actual, 32))
        return SGZ_OK;
    return sgz_base_fail_digest(err, offset, toc->arena + e->name_off, e->name_len, expected,
                                actual, what);
}

/* The digest of the whole file, or NULL when there is none. */
static const uint8_t *file_digest(const sgz_toc *toc, const sgz_entry *e)
{
    if (!(e->flags & SGZ_HAS_DIGEST))
        return NULL;
    if (e->flags & SGZ_DIGEST_IS_CHUNK)
        return e->chunk_digest;
    return (const uint8_t *)toc->arena + e->digest_off;
}

/* A file of several chunks of which not all have a digest: read it back. */
static sgz_status check_whole(sgz_extract_worker *w, sgz_extract_object *o, int fd,
                              sgz_error *err)
{
    struct sgz_extract *ex = w->ex;
    const sgz_toc *toc = ex->plan.toc;
    const sgz_entry *e = &toc->rows[o->row];
    int missing = 0;
    for (uint32_t i = o->row; i < toc->count; i++) {
        if (i != o->row && toc->rows[i].type != SGZ_CHUNK)
            break;
        missing |= toc->rows[i].chunk_size > 0 && !(toc->rows[i].flags & SGZ_HAS_CHUNK_DIGEST);
    }
    if (!missing)
        return SGZ_OK;
    if (!file_digest(toc, e)) {
        w->result.unverified++;
        return SGZ_OK;
    }
    uint8_t digest[32];
    sgz_codec_sha256_init(ex->options.codecs, &w->sha);
    if (o->holes && ftruncate(fd, (off_t)e->size) != 0)
        return sgz_extract_fail_row(toc, o->dest, errno, "cannot set the size", err);
    for (int64_t at = 0; at < e->size;) {
        if (sgz_extract_stopped(ex))
            return sgz_base_fail(err, SGZ_ECANCELLED, -1, NULL, 0, "cancelled");
        ssize_t n = pread(fd, w->buffer, PIECE, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return sgz_extract_fail_row(toc, o->dest, n ? errno : EIO, "cannot read it back",
                                        err);
        sgz_codec_sha256_update(ex->options.codecs, &w->sha, w->buffer, (size_t)n);
        at += n;
    }
    sgz_codec_sha256_final(ex->options.codecs, &w->sha, digest);
    return check(toc, o, e->offset, file_digest(toc, e), digest, "the file", err);
}

static sgz_status end_shared(sgz_extract_worker *w, sgz_extract_object *o, sgz_error *err)
{
    char temp[SGZ_TEMP_NAME];
    int dir, fd = o->fd;
    sgz_status st = SGZ_OK;
    if (w->ex->options.verify)
        st = check_whole(w, o, fd, err);
    if (!st)
        st = sgz_extract_worker_dir(w, o->node, &dir, err);
    if (st)
        return st; /* it is removed with all others that are not complete */
    sgz_extract_temp_name(o->temp, temp);
    st = complete(w, o, dir, fd, temp, err);
    if (st)
        return st;
    o->fd = -1;
    if (close(fd) != 0)
        return sgz_extract_fail_row(w->ex->plan.toc, o->dest, errno, "cannot write", err);
    return SGZ_OK;
}

/* Decode exactly len bytes, or say whose bytes are missing. Decoded bytes are the ones
 * wanted, even if what follows is broken; unless `strict`, where only the CRC can tell. */
static sgz_status decode(sgz_extract_worker *w, const sgz_extract_object *o, const sgz_entry *e,
                         uint8_t *out, size_t len, int strict, sgz_error *err)
{
    const sgz_toc *toc = w->ex->plan.toc;
    const sgz_entry *file = &toc->rows[o->dest];
    const char *name = toc->arena + file->name_off;
    size_t got;
    if (sgz_extract_stopped(w->ex))
        return sgz_base_fail(err, SGZ_ECANCELLED, -1, NULL, 0, "cancelled");
    sgz_status st = sgz_codec_decoder_read(&w->decoder, out, len, &got, err);
    w->at += (int64_t)got;
    if (st || got < len)
        w->member = -1; /* whoever follows in this member seeks */
    if (got == len && !(st && strict))
        return SGZ_OK;
    if (!st)
        return sgz_base_fail(err, SGZ_EGZIP, e->offset, name, file->name_len,
                             "the data of this chunk ends before its %lld bytes",
                             (long long)e->chunk_size);
    if (st != SGZ_ECALLBACK && !err->name[0]) {
        sgz_error inner = *err;
        sgz_base_fail(err, st, inner.offset, name, file->name_len, "%s", inner.message);
        err->sys_errno = inner.sys_errno;
    }
    return st;
}

/* Where no digest vouches for the bytes, the member's CRC must: decode on to its trailer.
 * What follows the data there is padding and headers, a MiB or so of them at most. */
static sgz_status check_crc(sgz_extract_worker *w, const sgz_extract_object *o,
                            const sgz_entry *e, sgz_error *err)
{
    int64_t got;
    sgz_status st = sgz_codec_decoder_skip(&w->decoder, CRC_REACH, &got, err);
    w->member = -1; /* whoever follows in this member seeks */
    if (st && st != SGZ_ECALLBACK && !err->name[0]) {
        const sgz_entry *file = &w->ex->plan.toc->rows[o->dest];
        sgz_error inner = *err;
        sgz_base_fail(err, st, e->offset, w->ex->plan.toc->arena + file->name_off,
                      file->name_len, "%s", inner.message);
        err->sys_errno = inner.sys_errno;
    }
    return st;
}

static sgz_status write_span(sgz_extract_worker *w, uint32_t span, sgz_error *err)
{
    struct sgz_extract *ex = w->ex;
    const sgz_toc *toc = ex->plan.toc;
    const sgz_codecs *codecs = ex->options.codecs;
    uint32_t file = ex->plan.spans.files[span], index = ex->plan.object_of[file];
    if (index == SGZ_NO_ROW)
        return SGZ_OK;
    sgz_extract_object *o = &ex->plan.objects[index];
    const sgz_entry *e = &toc->rows[ex->plan.spans.rows[span]], *whole = &toc->rows[file];
    if (e->offset != w->member || e->inner_offset < w->at) {
        sgz_codec_decoder_seek(&w->decoder, e->offset, sgz_read_span_end(&ex->plan.spans, span));
        w->member = e->offset;
        w->at = 0;
    }
    while (w->at < e->inner_offset) {
        int64_t skip = e->inner_offset - w->at;
        size_t step = skip < (int64_t)PIECE ? (size_t)skip : PIECE;
        sgz_status st = decode(w, o, e, w->buffer, step, 0, err);
        if (st)
            return st;
    }
    int single = e->chunk_size == whole->size, shared = -1;
    const uint8_t *expected = e->flags & SGZ_HAS_CHUNK_DIGEST ? e->chunk_digest : NULL;
    const uint8_t *second = single ? file_digest(toc, whole) : NULL;
    if (!expected) {
        expected = second;
        second = NULL;
    }
    int hash = ex->options.verify && expected;
    int strict = ex->options.verify && !expected && !file_digest(toc, whole);
    size_t piece = 0;
    if (hash)
        sgz_codec_sha256_init(codecs, &w->sha);
    for (int64_t done = 0; done < e->chunk_size; done += (int64_t)piece) {
        int64_t left = e->chunk_size - done;
        piece = left < (int64_t)PIECE ? (size_t)left : PIECE;
        sgz_status st = decode(w, o, e, w->buffer, piece, strict, err);
        if (st)
            return st;
        if (hash)
            sgz_codec_sha256_update(codecs, &w->sha, w->buffer, piece);
        if (single && whole->size <= (int64_t)PIECE)
            break; /* written below, once it is known to be right */
        if (shared < 0)
            st = open_shared(w, o, &shared, err);
        if (!st)
            st = put(w, o, shared, w->buffer, piece, e->chunk_offset + done, err);
        if (st)
            return st;
    }
    sgz_status st = SGZ_OK;
    if (hash) {
        uint8_t digest[32];
        sgz_codec_sha256_final(codecs, &w->sha, digest);
        st = check(toc, o, e->offset, expected, digest, single ? "the file" : "a chunk", err);
        if (!st && second)
            st = check(toc, o, e->offset, second, digest, "the file", err);
    } else if (strict) {
        st = check_crc(w, o, e, err);
        w->result.unverified += single;
    }
    if (!st && shared < 0)
        st = write_file(w, o, w->buffer, piece, err);
    else if (!st && atomic_fetch_sub(&o->left, 1) == 1)
        st = end_shared(w, o, err);
    if (st)
        return st;
    w->result.bytes += (uint64_t)e->chunk_size;
    atomic_fetch_add_explicit(&ex->job->done, e->chunk_size, memory_order_relaxed);
    return SGZ_OK;
}

sgz_status sgz_extract_write_batch(sgz_extract_worker *w, uint32_t batch, sgz_error *err)
{
    const sgz_extract_plan *plan = &w->ex->plan;
    uint32_t first = plan->batches[batch * 2], last = plan->batches[batch * 2 + 1];
    sgz_codec_decoder_read_ahead(&w->decoder, sgz_read_span_end(&plan->spans, last - 1));
    for (uint32_t span = first; span < last; span++) {
        sgz_status st = write_span(w, span, err);
        if (st)
            return st;
        if (sgz_extract_stopped(w->ex))
            break;
    }
    return SGZ_OK;
}

sgz_status sgz_extract_write_empty(sgz_extract_worker *w, uint32_t object, sgz_error *err)
{
    return write_file(w, &w->ex->plan.objects[object], NULL, 0, err);
}

void sgz_extract_remove_begun(sgz_extract_worker *w)
{
    sgz_extract_plan *plan = &w->ex->plan;
    for (uint32_t i = 0; i < plan->object_count; i++) {
        sgz_extract_object *o = &plan->objects[i];
        char temp[SGZ_TEMP_NAME];
        int dir;
        if (o->fd < 0)
            continue;
        sgz_extract_temp_name(o->temp, temp);
        if (!sgz_extract_worker_dir(w, o->node, &dir, &w->err))
            unlinkat(dir, temp, 0);
        close(o->fd);
        o->fd = -1;
    }
}
