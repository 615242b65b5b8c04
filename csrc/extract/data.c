/* Contents: inflated, hashed, written under a temporary name, and named when whole. */
#define _GNU_SOURCE
#include "extract/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/beneath.h"
#include "base/bytes.h"
#include "base/file.h"

#define PIECE SGZ_PIECE
#define HOLE ((size_t)4 << 10) /* zeros shorter than a block are written */
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

static const sgz_toc *toc_of(const sgz_extract_worker *w, const sgz_extract_object *o)
{
    return sgz_extract_toc(w->ex, o->layer);
}

/* Zeros become a hole; whoever ends the file sets its size. */
static sgz_status put(sgz_extract_worker *w, sgz_extract_object *o, int fd, const uint8_t *data,
                      size_t len, int64_t offset, sgz_error *err)
{
    if (len >= HOLE && sgz_is_zeros(data, len)) {
        atomic_store(&o->holes, 1);
        return SGZ_OK;
    }
    int bad = sgz_base_write_all(fd, data, len, offset);
    return bad ? sgz_extract_fail_row(toc_of(w, o), o->dest, bad, "cannot write", err) : SGZ_OK;
}

/* The file is whole: metadata, then its name. */
static sgz_status complete(sgz_extract_worker *w, sgz_extract_object *o, int dir, int fd,
                           const char *temp, sgz_error *err)
{
    const sgz_toc *toc = toc_of(w, o);
    char base[SGZ_BASE_MAX + 1];
    if (o->holes && ftruncate(fd, (off_t)toc->rows[o->row].size) != 0)
        return sgz_extract_fail_row(toc, o->dest, errno, "cannot set the size", err);
    sgz_status st = sgz_extract_set_metadata(w, toc, o->row, fd, err);
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
    w->result.bytes += (uint64_t)toc->rows[o->row].size;
    sgz_extract_list(w->ex, o->layer, o->dest);
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
        return sgz_extract_fail_row(toc_of(w, o), o->dest, fd, "cannot create the file", err);
    st = put(w, o, fd, data, len, 0, err);
    if (!st)
        st = complete(w, o, dir, fd, temp, err);
    if (close(fd) != 0 && !st)
        st = sgz_extract_fail_row(toc_of(w, o), o->dest, errno, "cannot write", err);
    if (st)
        unlinkat(dir, temp, 0);
    return st;
}

/* Its directory stays open beside it: who ends it may find no way back there. */
static sgz_status create_shared(sgz_extract_worker *w, sgz_extract_object *o, int dir,
                                sgz_error *err)
{
    char temp[SGZ_TEMP_NAME];
    int held = fcntl(dir, F_DUPFD_CLOEXEC, 0);
    int made = held < 0 ? -errno : create(w->ex, held, &o->temp, temp);
    if (made < 0) {
        if (held >= 0)
            close(held);
        return sgz_extract_fail_row(toc_of(w, o), o->dest, made, "cannot create the file", err);
    }
    o->dir = held;
    o->fd = made;
    return SGZ_OK;
}

/* A file of several pieces: the first thread that comes to it creates it. */
static sgz_status open_shared(sgz_extract_worker *w, sgz_extract_object *o, int *fd,
                              sgz_error *err)
{
    sgz_status st = SGZ_OK;
    pthread_mutex_lock(&w->ex->job->lock);
    if (o->fd < 0) {
        int dir;
        st = sgz_extract_worker_dir(w, o->node, &dir, err);
        if (!st)
            st = create_shared(w, o, dir, err);
    }
    *fd = o->fd;
    pthread_mutex_unlock(&w->ex->job->lock);
    return st;
}

/* What the whole of a file must hash to; NULL: nothing does, or it is not looked at. */
static const uint8_t *whole_digest(const sgz_extract_worker *w, const sgz_extract_object *o)
{
    return o->unhashed ? NULL : sgz_toc_digest(toc_of(w, o), o->row);
}

/* Hash one piece of a file: zeros, or what was written of it. */
static sgz_status hash_piece(sgz_extract_worker *w, const sgz_extract_object *o, uint32_t row,
                             int fd, sgz_sha256 *sha, sgz_error *err)
{
    const sgz_toc *toc = toc_of(w, o);
    const sgz_entry *e = &toc->rows[row];
    if (e->type == SGZ_ZEROS)
        memset(w->buffer, 0, PIECE);
    for (int64_t at = 0, n; at < e->chunk_size; at += n) {
        if (sgz_extract_stopped(w->ex))
            return sgz_base_fail(err, SGZ_ECANCELLED, -1, NULL, 0, "cancelled");
        n = e->chunk_size - at < (int64_t)PIECE ? e->chunk_size - at : (int64_t)PIECE;
        if (e->type != SGZ_ZEROS)
            n = sgz_base_read_all(fd, w->buffer, (size_t)n, e->chunk_offset + at);
        if (n <= 0)
            return sgz_extract_fail_row(toc, o->dest, n ? (int)n : EIO, "cannot read it back",
                                        err);
        sgz_codec_sha256_update(w->ex->options.codecs, sha, w->buffer, (size_t)n);
    }
    return SGZ_OK;
}

/* A file of several pieces of which not all have a digest: read it back. */
static sgz_status check_whole(sgz_extract_worker *w, sgz_extract_object *o, int fd,
                              sgz_error *err)
{
    const sgz_codecs *codecs = w->ex->options.codecs;
    const sgz_toc *toc = toc_of(w, o);
    const sgz_entry *e = &toc->rows[o->row];
    const uint8_t *expected = whole_digest(w, o);
    int bare = 0, zeros = 0;
    uint32_t end = o->row;
    do {
        zeros |= toc->rows[end].type == SGZ_ZEROS &&
                 !(toc->rows[end].flags & SGZ_HAS_CHUNK_DIGEST);
        bare |= sgz_toc_has_data(&toc->rows[end]) &&
                !(toc->rows[end].flags & SGZ_HAS_CHUNK_DIGEST);
    } while (++end < toc->count && sgz_toc_is_piece(&toc->rows[end]));
    w->result.unverified += bare && !expected &&
                            !sgz_read_spans_covered(&w->ex->plan.parts[o->layer].spans);
    if (!expected || !(bare || zeros))
        return SGZ_OK;
    if (o->holes && fd >= 0 && ftruncate(fd, (off_t)e->size) != 0)
        return sgz_extract_fail_row(toc, o->dest, errno, "cannot set the size", err);
    uint8_t digest[32];
    sgz_sha256 sha;
    sgz_status st = sgz_codec_sha256_new(codecs, &sha, err);
    if (st)
        return st;
    sgz_codec_sha256_init(codecs, &sha);
    for (uint32_t row = o->row; row < end && !st; row++)
        st = hash_piece(w, o, row, fd, &sha, err);
    sgz_codec_sha256_final(codecs, &sha, digest);
    sgz_codec_sha256_free(codecs, &sha);
    if (st || !memcmp(expected, digest, 32))
        return st;
    return sgz_base_fail_digest(err, e->offset, sgz_toc_row_name(toc, o->dest),
                                toc->rows[o->dest].name_len, expected, digest, "the file");
}

static sgz_status end_shared(sgz_extract_worker *w, sgz_extract_object *o, sgz_error *err)
{
    char temp[SGZ_TEMP_NAME];
    int fd = o->fd;
    sgz_status st = SGZ_OK;
    if (w->ex->options.verify)
        st = check_whole(w, o, fd, err);
    sgz_extract_temp_name(o->temp, temp);
    if (!st)
        st = complete(w, o, o->dir, fd, temp, err);
    if (st)
        return st; /* it is removed where failures are told */
    o->fd = -1;
    close(o->dir);
    if (close(fd) != 0)
        return sgz_extract_fail_row(toc_of(w, o), o->dest, errno, "cannot write", err);
    return SGZ_OK;
}

/* *shared says whether the file is written by pieces, which some thread ends. */
static sgz_status write_span(sgz_extract_worker *w, uint32_t span, sgz_extract_object *o,
                             int *shared, sgz_error *err)
{
    struct sgz_extract *ex = w->ex;
    const sgz_spans *spans = &ex->plan.parts[o->layer].spans;
    const sgz_entry *e = sgz_read_span_row(spans, span);
    const uint8_t *whole = whole_digest(w, o);
    int single = sgz_read_span_is_file(spans, span), fd = -1;
    int bare = !sgz_read_span_digest(spans, span);
    /* Where there is but a digest of all chunks together, check_whole compares it. */
    int verify = ex->options.verify && !(bare && whole);
    size_t piece = 0;
    *shared = !single || e->chunk_size > (int64_t)PIECE;
    if (o->failed)
        return SGZ_OK;
    sgz_status st = sgz_read_begin(&w->reader, span, o->dest, verify, err);
    for (int64_t done = 0; done < e->chunk_size && !st; done += (int64_t)piece) {
        int64_t left = e->chunk_size - done;
        piece = left < (int64_t)PIECE ? (size_t)left : PIECE;
        st = sgz_read_bytes(&w->reader, w->buffer, piece, err);
        if (!*shared)
            break; /* written below, once it is known to be right */
        if (!st && fd < 0)
            st = open_shared(w, o, &fd, err);
        if (!st)
            st = put(w, o, fd, w->buffer, piece, e->chunk_offset + done, err);
    }
    if (!st)
        st = sgz_read_end(&w->reader, single ? whole : NULL, err);
    if (!st)
        w->result.unverified += verify && bare && single && !sgz_read_spans_covered(spans);
    if (!st && !*shared)
        st = write_file(w, o, w->buffer, piece, err);
    return st;
}

static void drop_shared(sgz_extract_object *o)
{
    char temp[SGZ_TEMP_NAME];
    if (o->fd < 0)
        return;
    sgz_extract_temp_name(o->temp, temp);
    unlinkat(o->dir, temp, 0);
    close(o->dir);
    close(o->fd);
    o->fd = -1;
}

/* 0: the job has ended. */
static int write_chunk(sgz_extract_worker *w, uint32_t span, sgz_extract_object *o,
                       sgz_error *err)
{
    struct sgz_extract *ex = w->ex;
    int shared;
    sgz_status st = write_span(w, span, o, &shared, err);
    if (st && !atomic_exchange(&o->failed, 1) && !sgz_extract_go_on(ex, o->layer, o->dest, err))
        return 0;
    if (shared && atomic_fetch_sub(&o->left, 1) == 1) {
        if (!o->failed && end_shared(w, o, err)) {
            o->failed = 1;
            if (!sgz_extract_go_on(ex, o->layer, o->dest, err))
                return 0;
        }
        drop_shared(o);
    }
    const sgz_entry *e = sgz_read_span_row(&ex->plan.parts[o->layer].spans, span);
    atomic_fetch_add_explicit(&ex->job->done, e->chunk_size, memory_order_relaxed);
    return !sgz_extract_stopped(ex);
}

/* The reader of a layer, in place of that of the one before. */
static sgz_status read_layer(sgz_extract_worker *w, uint32_t layer, sgz_error *err)
{
    const sgz_extract_options *o = &w->ex->options;
    if (w->layer == layer)
        return SGZ_OK;
    sgz_read_reader_free(&w->reader);
    w->layer = SGZ_NO_ROW;
    sgz_status st = sgz_read_reader_init(&w->reader, o->codecs, &w->ex->plan.parts[layer].spans,
                                         o->layers[layer].blob, err);
    if (st)
        return st;
    w->reader.decoder.stop = &w->ex->job->stop;
    w->reader.with_first = 1; /* no file is completed without */
    w->layer = layer;
    return SGZ_OK;
}

sgz_status sgz_extract_write_batch(sgz_extract_worker *w, uint32_t number, sgz_error *err)
{
    const sgz_extract_batch *batch = &w->ex->plan.batches[number];
    const sgz_extract_part *part = &w->ex->plan.parts[batch->layer];
    sgz_status st = read_layer(w, batch->layer, err);
    if (st)
        return st;
    sgz_codec_decoder_read_ahead(&w->reader.decoder,
                                 sgz_read_span_end(&part->spans, batch->last - 1));
    for (uint32_t span = batch->first; span < batch->last; span++) {
        uint32_t object = part->object_of[part->spans.files[span]];
        if (object != SGZ_NO_ROW && !write_chunk(w, span, &w->ex->plan.objects[object], err))
            break;
    }
    return SGZ_OK;
}

sgz_status sgz_extract_write_empty(sgz_extract_worker *w, uint32_t object, sgz_error *err)
{
    sgz_extract_object *o = &w->ex->plan.objects[object];
    const sgz_toc *toc = toc_of(w, o);
    const uint8_t *digest = w->ex->options.verify ? sgz_toc_digest(toc, o->row) : NULL;
    sgz_status st = SGZ_OK;
    if (toc->rows[o->row].size)
        st = digest ? check_whole(w, o, -1, err) : SGZ_OK;
    else if (digest && memcmp(digest, sgz_toc_empty_digest, 32))
        return sgz_base_fail_digest(err, toc->rows[o->row].offset, sgz_toc_row_name(toc, o->dest),
                                    toc->rows[o->dest].name_len, digest, sgz_toc_empty_digest,
                                    "the file");
    return st ? st : write_file(w, o, NULL, 0, err);
}

void sgz_extract_remove_begun(sgz_extract_plan *plan)
{
    for (uint32_t i = 0; i < plan->object_count; i++)
        drop_shared(&plan->objects[i]);
}
