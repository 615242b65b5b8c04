#include "writer.h"

#include "tar.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How often a thread that waits for a pipe looks whether it should stop: milliseconds. */
#define STOP_POLL 100

/* The TOC goes through the compressor in pieces of this length: part of the pin. */
#define TOC_PIECE (1u << 20)

/* libdeflate takes a member whole. Up to this length the TOC is held for it; a longer one
 * streams through ISA-L, so that a million entries do not cost a gigabyte. */
#define TOC_WHOLE_MAX ((uint64_t)32 << 20)

static sgz_status no_memory(sgz_error *err)
{
    return sgz_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
}

sgz_status sgz_writer_init(sgz_writer *w, const sgz_codecs *codecs, sgz_sink *sink,
                           sgz_error *err)
{
    memset(w, 0, sizeof *w);
    w->codecs = codecs;
    w->sink = sink;
    sgz_status status = sgz_sha256_new(codecs, &w->blob_sha, err);
    if (!status)
        status = sgz_hasher_init(&w->tar_sha, codecs, err);
    if (status)
        return status;
    sgz_sha256_init(codecs, &w->blob_sha);
    return SGZ_OK;
}

void sgz_writer_free(sgz_writer *w)
{
    if (!w->codecs)
        return;
    sgz_sha256_free(w->codecs, &w->blob_sha);
    sgz_hasher_free(&w->tar_sha);
}

/* Wait until a pipe takes bytes; 0 when the sink's stop flag came first. */
static int wait_writable(const sgz_sink *sink)
{
    struct pollfd ready = {.fd = sink->fd, .events = POLLOUT};
    while (!(sink->stop && *sink->stop))
        if (poll(&ready, 1, STOP_POLL) > 0)
            return 1;
    return 0;
}

sgz_status sgz_writer_blob(sgz_writer *w, const uint8_t *data, size_t len, sgz_error *err)
{
    sgz_sha256_update(w->codecs, &w->blob_sha, data, len);
    w->position += (int64_t)len;
    if (w->sink->write) {
        if (w->sink->write(w->sink->arg, data, len))
            return sgz_fail(err, SGZ_ECALLBACK, -1, NULL, 0, "writing the output failed");
        return SGZ_OK;
    }
    while (len) {
        /* A ready pipe takes PIPE_BUF bytes without blocking; more might wait for ever. */
        size_t want = w->sink->is_pipe && len > PIPE_BUF ? PIPE_BUF : len;
        if (w->sink->is_pipe && !wait_writable(w->sink))
            return sgz_fail(err, SGZ_ECANCELLED, -1, NULL, 0, "cancelled");
        ssize_t n = write(w->sink->fd, data, want);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n < 0)
            return sgz_fail_errno(err, errno, "writing failed", w->sink->name,
                                  w->sink->name ? strlen(w->sink->name) : 0);
        data += n;
        len -= (size_t)n;
    }
    return SGZ_OK;
}

void sgz_writer_tar(sgz_writer *w, const uint8_t *data, size_t len,
                    const sgz_message *messages, size_t count)
{
    sgz_hasher_update(&w->tar_sha, data, len, messages, count);
    w->tar_size += (int64_t)len;
}

/* --- TOC -------------------------------------------------------------------------------- */

typedef struct {
    sgz_writer *w;
    sgz_deflater deflater;
    sgz_member_stream stream;
    sgz_sha256 json_sha;
    int whole;              /* one call of the compressor, at the end */
    int legacy;
    uint8_t *in, *out;
    size_t in_len, in_cap, out_cap;
    sgz_error *err;
    sgz_status status;
} toc_member;

static sgz_status flush_piece(toc_member *t, int last)
{
    size_t made;
    sgz_status status;
    sgz_writer_tar(t->w, t->in, t->in_len, NULL, 0);
    if (t->whole)
        status = sgz_deflate_member(&t->deflater, t->in, t->in_len, t->legacy, t->out,
                                    t->out_cap, &made, t->err);
    else
        status = sgz_member_piece(&t->stream, t->in, t->in_len, last, t->out, t->out_cap,
                                  &made, t->err);
    t->in_len = 0;
    return status ? status : sgz_writer_blob(t->w, t->out, made, t->err);
}

static sgz_status append(toc_member *t, const uint8_t *data, size_t len)
{
    while (len && !t->status) {
        size_t n = t->in_cap - t->in_len;
        n = n < len ? n : len;
        memcpy(t->in + t->in_len, data, n);
        t->in_len += n;
        data += n;
        len -= n;
        /* The last piece is left for the end, so that it is never empty. */
        if (t->in_len == t->in_cap && len)
            t->status = flush_piece(t, 0);
    }
    return t->status;
}

static int append_json(void *arg, const char *data, size_t len)
{
    toc_member *t = arg;
    sgz_sha256_update(t->w->codecs, &t->json_sha, data, len);
    return append(t, (const uint8_t *)data, len) != SGZ_OK;
}

static sgz_status begin_toc(toc_member *t, sgz_writer *w, uint64_t tar_len, int level,
                            int legacy, sgz_error *err)
{
    memset(t, 0, sizeof *t);
    t->w = w;
    t->err = err;
    t->legacy = legacy;
    t->whole = level > SGZ_LEVEL_ISAL_MAX && tar_len <= TOC_WHOLE_MAX;
    t->in_cap = t->whole ? (size_t)tar_len : TOC_PIECE;
    t->out_cap = sgz_member_bound(t->in_cap);
    t->in = malloc(t->in_cap);
    t->out = malloc(t->out_cap);
    if (!t->in || !t->out)
        return no_memory(err);
    if (!t->whole && level > SGZ_LEVEL_ISAL_MAX)
        level = SGZ_LEVEL_ISAL_MAX;
    sgz_status status = sgz_deflater_init(&t->deflater, w->codecs, level, err);
    if (!status)
        status = sgz_sha256_new(w->codecs, &t->json_sha, err);
    if (status)
        return status;
    sgz_sha256_init(w->codecs, &t->json_sha);
    if (!t->whole) {
        size_t made;
        sgz_member_begin(&t->stream, &t->deflater, legacy, t->out, &made);
        status = sgz_writer_blob(w, t->out, made, err);
    }
    return status;
}

static sgz_status write_toc(sgz_writer *w, const sgz_toc *toc, int level, int legacy,
                            sgz_convert_result *result, sgz_error *err)
{
    static const uint8_t zeros[3 * SGZ_TAR_BLOCK];
    uint8_t header[SGZ_TAR_BLOCK];
    uint64_t json_len, again;
    sgz_status status = sgz_toc_format(toc, legacy, NULL, NULL, &json_len, err);
    if (status)
        return status;
    size_t padding = (size_t)(-json_len % SGZ_TAR_BLOCK);
    toc_member t;
    status = begin_toc(&t, w, SGZ_TAR_BLOCK + json_len + padding + 2 * SGZ_TAR_BLOCK, level,
                       legacy, err);
    if (!status) {
        sgz_tar_plain_header(header, SGZ_TOC_NAME, (int64_t)json_len);
        status = append(&t, header, sizeof header);
    }
    if (!status) {
        status = sgz_toc_format(toc, legacy, append_json, &t, &again, err);
        if (t.status)
            status = t.status;
    }
    if (!status)
        status = append(&t, zeros, padding + 2 * SGZ_TAR_BLOCK);
    if (!status)
        status = flush_piece(&t, 1);
    if (!status)
        sgz_sha256_final(w->codecs, &t.json_sha, result->toc_digest);
    result->toc_size = json_len;
    free(t.in);
    free(t.out);
    if (t.deflater.codecs)
        sgz_deflater_free(&t.deflater);
    sgz_sha256_free(w->codecs, &t.json_sha);
    return status;
}

static sgz_status write_footer(sgz_writer *w, int64_t toc_offset, int legacy, sgz_error *err)
{
    /* Format section 3: gzip header with Extra, an empty stored block, CRC and length 0. */
    uint8_t footer[51] = {0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255};
    char text[23];
    size_t at = 10;
    snprintf(text, sizeof text, "%016llxSTARGZ", (unsigned long long)toc_offset);
    footer[at++] = legacy ? 22 : 26;
    footer[at++] = 0;
    if (!legacy) {
        memcpy(footer + at, "SG\x16", 4);
        at += 4;
    }
    memcpy(footer + at, text, 22);
    at += 22;
    memcpy(footer + at, "\x01\x00\x00\xff\xff", 5);
    return sgz_writer_blob(w, footer, at + 5 + 8, err);
}

sgz_status sgz_writer_finish(sgz_writer *w, const sgz_toc *toc, int level, int legacy,
                             sgz_convert_result *result, sgz_error *err)
{
    for (size_t i = 0; i < toc->count; i++) {
        const sgz_entry *row = &toc->rows[i];
        if (row->flags & SGZ_DROPPED)
            continue;
        result->entries += row->type != SGZ_CHUNK;
        result->chunks += row->type == SGZ_CHUNK || (row->type == SGZ_REG && row->size);
    }
    result->toc_offset = w->position;
    sgz_status status = write_toc(w, toc, level, legacy, result, err);
    if (!status)
        status = write_footer(w, result->toc_offset, legacy, err);
    if (status)
        return status;
    sgz_sha256_final(w->codecs, &w->blob_sha, result->digest);
    sgz_hasher_final(&w->tar_sha, result->diff_id);
    result->size = w->position;
    result->uncompressed_size = w->tar_size;
    result->members = w->members + 1;
    return SGZ_OK;
}
