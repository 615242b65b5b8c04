#include "read/spans.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define SINK ((size_t)64 << 10)
/* Deflate makes at most 258 bytes of 2 bits. What claims to inflate to more is refused
 * before memory is asked for it. */
#define RATIO_MAX 1032
#define THREADS_MAX 256
/* How far a member may go on behind a chunk that only its CRC vouches for: headers of two
 * million entries without data. More is refused rather than decoded without end. */
#define RUN_MAX ((int64_t)1 << 30)

/* --- spans ---------------------------------------------------------------------------- */

/* Whether a member of `packed` bytes can hold `size` bytes. */
static int fits(int64_t packed, int64_t size)
{
    return size / RATIO_MAX <= packed;
}

static sgz_status bad_span(const sgz_toc *toc, uint32_t row, const char *what, sgz_error *err)
{
    const sgz_entry *e = &toc->rows[row];
    return sgz_base_fail(err, SGZ_ETOC, e->offset, sgz_toc_row_name(toc, row), e->name_len, "%s",
                         what);
}

sgz_status sgz_read_spans_init(sgz_spans *spans, const sgz_toc *toc, int64_t end, sgz_error *err)
{
    memset(spans, 0, sizeof *spans);
    spans->toc = toc;
    spans->end = end;
    size_t count = 0;
    for (size_t i = 0; i < toc->count; i++)
        count += toc->rows[i].chunk_size > 0;
    spans->rows = malloc((count + 1) * sizeof *spans->rows);
    spans->files = malloc((count + 1) * sizeof *spans->files);
    if (!spans->rows || !spans->files) {
        sgz_read_spans_free(spans);
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the chunk index");
    }
    uint32_t file = SGZ_NO_ROW;
    const sgz_entry *last = NULL;
    sgz_status st = SGZ_OK;
    for (uint32_t i = 0; i < toc->count && !st; i++) {
        const sgz_entry *e = &toc->rows[i];
        if (e->type == SGZ_REG)
            file = i;
        else if (e->type != SGZ_CHUNK)
            file = SGZ_NO_ROW;
        if (e->chunk_size <= 0)
            continue;
        if (file == SGZ_NO_ROW)
            st = bad_span(toc, i, "a chunk that belongs to no regular file", err);
        else if (e->offset < 0 || e->offset >= end || e->inner_offset < 0 ||
                 e->inner_offset > INT64_MAX - e->chunk_size)
            st = bad_span(toc, i, "its data lies outside of the blob", err);
        else if (e->chunk_size > SGZ_CHUNK_MAX)
            st = bad_span(toc, i, "its chunk is too large; convert the layer again", err);
        else if (last && (e->offset < last->offset ||
                          (e->offset == last->offset &&
                           e->inner_offset < last->inner_offset + last->chunk_size)))
            st = bad_span(toc, i, "its data overlaps or precedes that of the entry before", err);
        else if (last && e->offset != last->offset &&
                 !fits(e->offset - last->offset, last->inner_offset + last->chunk_size))
            st = bad_span(toc, spans->rows[spans->count - 1], "its member is too small for it",
                          err);
        last = e;
        spans->rows[spans->count] = i;
        spans->files[spans->count++] = file;
    }
    if (!st && last && !fits(end - last->offset, last->inner_offset + last->chunk_size))
        st = bad_span(toc, spans->rows[spans->count - 1], "its member is too small for it", err);
    if (st)
        sgz_read_spans_free(spans);
    return st;
}

void sgz_read_spans_free(sgz_spans *spans)
{
    free(spans->rows);
    free(spans->files);
    memset(spans, 0, sizeof *spans);
}

int64_t sgz_read_span_end(const sgz_spans *spans, size_t span)
{
    const sgz_entry *rows = spans->toc->rows;
    int64_t offset = rows[spans->rows[span]].offset;
    /* Mostly the next one: gallop, then bisect. */
    size_t low = span, step = 1;
    while (low + step < spans->count && rows[spans->rows[low + step]].offset == offset) {
        low += step;
        step *= 2;
    }
    size_t high = low + step < spans->count ? low + step : spans->count;
    while (low + 1 < high) {
        size_t middle = low + (high - low) / 2;
        if (rows[spans->rows[middle]].offset == offset)
            low = middle;
        else
            high = middle;
    }
    return high < spans->count ? rows[spans->rows[high]].offset : spans->end;
}

const uint8_t *sgz_read_span_digest(const sgz_spans *spans, size_t span)
{
    uint32_t row = spans->rows[span], file = spans->files[span];
    const sgz_entry *e = &spans->toc->rows[row];
    if (e->flags & SGZ_HAS_CHUNK_DIGEST)
        return e->chunk_digest;
    return row == file && e->chunk_size == e->size ? sgz_toc_digest(spans->toc, file) : NULL;
}

/* First span whose file is >= `file`. */
static size_t file_bound(const sgz_spans *spans, uint64_t file)
{
    size_t low = 0, high = spans->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (spans->files[middle] < file)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

sgz_status sgz_read_spans_find(const sgz_spans *spans, uint32_t file, int64_t offset,
                               int64_t size, size_t *first, size_t *last, sgz_error *err)
{
    const sgz_entry *rows = spans->toc->rows;
    size_t low = file_bound(spans, file), high = file_bound(spans, (uint64_t)file + 1);
    size_t stop = high;
    while (low < high) { /* the first chunk that ends beyond `offset` */
        size_t middle = low + (high - low) / 2;
        const sgz_entry *e = &rows[spans->rows[middle]];
        if (e->chunk_size > offset - e->chunk_offset)
            high = middle;
        else
            low = middle + 1;
    }
    *first = low;
    int64_t at = offset, left = size;
    for (; left > 0; low++) {
        const sgz_entry *e = low < stop ? &rows[spans->rows[low]] : NULL;
        if (!e || e->chunk_offset > at || e->chunk_size <= at - e->chunk_offset ||
            (at != offset && e->chunk_offset != at))
            return sgz_base_fail(err, SGZ_ETOC, -1, sgz_toc_row_name(spans->toc, file),
                                 rows[file].name_len, "no chunk holds byte %lld of this file",
                                 (long long)at);
        int64_t here = e->chunk_size - (at - e->chunk_offset);
        at += here;
        left -= here;
    }
    *last = low;
    return SGZ_OK;
}

/* --- reading -------------------------------------------------------------------------- */

sgz_status sgz_read_reader_init(sgz_reader *r, const sgz_codecs *codecs, const sgz_spans *spans,
                                const sgz_blob *blob, sgz_error *err)
{
    memset(r, 0, sizeof *r);
    r->spans = spans;
    r->member = -1;
    r->sink = malloc(SINK);
    if (!r->sink)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to decode with");
    sgz_status st = sgz_codec_decoder_init(&r->decoder, codecs, blob, err);
    if (st) {
        free(r->sink);
        memset(r, 0, sizeof *r);
        return st;
    }
    st = sgz_codec_sha256_new(codecs, &r->sha, err);
    if (st) {
        sgz_codec_decoder_free(&r->decoder);
        free(r->sink);
        memset(r, 0, sizeof *r);
    }
    return st;
}

void sgz_read_reader_free(sgz_reader *r)
{
    if (!r->sink)
        return;
    sgz_codec_sha256_free(r->decoder.inflater.codecs, &r->sha);
    sgz_codec_decoder_free(&r->decoder);
    free(r->sink);
    memset(r, 0, sizeof *r);
}

/* Say whose bytes an error of the decoder is about. */
static sgz_status blame(const sgz_reader *r, const sgz_entry *file, sgz_status st, sgz_error *err)
{
    if (err && st != SGZ_ECALLBACK && !err->name[0]) {
        sgz_error inner = *err;
        sgz_base_fail(err, st, inner.offset, r->spans->toc->arena + file->name_off,
                      file->name_len, "%s", inner.message);
        err->sys_errno = inner.sys_errno;
    }
    return st;
}

/* Decode exactly len bytes, or say whose bytes are missing. With `crc` the trailers that
 * pass must be right, also one right behind the last byte. */
static sgz_status exactly(sgz_reader *r, const sgz_entry *e, const sgz_entry *file, int crc,
                          uint8_t *out, size_t len, sgz_error *err)
{
    sgz_decoder *d = &r->decoder;
    size_t got = 0;
    sgz_status st;
    if (crc) {
        size_t n;
        uint64_t members;
        do {
            members = d->inflater.members;
            st = sgz_codec_decoder_read_member(d, out + got, len - got, &n, err);
            got += n;
        } while (!st && got < len && (n || d->inflater.members != members));
    } else {
        st = sgz_codec_decoder_read(d, out, len, &got, err);
        /* Decoded bytes are the ones wanted, even if what follows is broken. */
        if (got == len && st) {
            r->member = -1;
            st = SGZ_OK;
        }
    }
    if (!st && got < len)
        return sgz_base_fail(err, SGZ_EGZIP, e->offset, r->spans->toc->arena + file->name_off,
                             file->name_len, "the data of this chunk ends before its %lld bytes",
                             (long long)e->chunk_size);
    return st ? blame(r, file, st, err) : SGZ_OK;
}

/* The rest of the member that holds the chunk's last byte, for its CRC. */
static sgz_status check_crc(sgz_reader *r, const sgz_entry *e, const sgz_entry *file,
                            sgz_error *err)
{
    int ended;
    sgz_status st = sgz_codec_decoder_finish(&r->decoder, RUN_MAX, &ended, err);
    if (st)
        return blame(r, file, st, err);
    if (!ended)
        return sgz_base_fail(err, SGZ_EGZIP, e->offset, r->spans->toc->arena + file->name_off,
                             file->name_len,
                             "this chunk has no digest, and its gzip member goes on "
                             "for too long to check the CRC; read it without verification");
    return SGZ_OK;
}

sgz_status sgz_read_chunk(sgz_reader *r, size_t span, int verify, int64_t from, size_t len,
                          uint8_t *out, sgz_error *err)
{
    const sgz_spans *spans = r->spans;
    const sgz_entry *e = &spans->toc->rows[spans->rows[span]];
    const sgz_entry *file = &spans->toc->rows[spans->files[span]];
    const sgz_codecs *codecs = r->decoder.inflater.codecs;
    const uint8_t *expected = verify ? sgz_read_span_digest(spans, span) : NULL;
    int hash = expected != NULL, crc = verify && !hash;

    /* Positions count from the chunk's first byte; what precedes it is negative. */
    int64_t at = -e->inner_offset, wanted_end = from + (int64_t)len;
    if (!crc && r->member == e->offset && r->inner <= e->inner_offset)
        at += r->inner;
    else
        sgz_codec_decoder_seek(&r->decoder, e->offset, sgz_read_span_end(spans, span));
    if (hash)
        sgz_codec_sha256_init(codecs, &r->sha);
    r->member = e->offset;
    int64_t stop = verify ? e->chunk_size : wanted_end;
    while (at < stop) {
        uint8_t *to = r->sink;
        int64_t until = at < 0 ? 0 : at < from ? from : at < wanted_end ? wanted_end : stop;
        if (until > stop)
            until = stop;
        size_t n = (uint64_t)(until - at) < SINK ? (size_t)(until - at) : SINK;
        if (at >= from && at < wanted_end) {
            to = out + (at - from);
            n = (size_t)(until - at);
            /* Hash while the bytes are still in the cache. */
            if (hash && n > 4 * SINK)
                n = 4 * SINK;
        }
        sgz_status st = exactly(r, e, file, crc, to, n, err);
        if (st) {
            r->member = -1;
            return st;
        }
        if (hash && at >= 0)
            sgz_codec_sha256_update(codecs, &r->sha, to, n);
        at += (int64_t)n;
    }
    r->inner = e->inner_offset + at;
    if (crc)
        r->member = -1;
    if (hash) {
        uint8_t digest[32];
        sgz_codec_sha256_final(codecs, &r->sha, digest);
        if (memcmp(digest, expected, 32))
            return sgz_base_fail_digest(err, e->offset, spans->toc->arena + file->name_off,
                                        file->name_len, expected, digest, "a chunk");
    }
    return crc ? check_crc(r, e, file, err) : SGZ_OK;
}

typedef struct {
    const sgz_codecs *codecs;
    const sgz_spans *spans;
    const sgz_read_piece *pieces;
    size_t count;
    int verify;
    atomic_size_t next;
    atomic_int failed;
    pthread_mutex_t lock;
    size_t error_at; /* the piece that err is about */
    sgz_status status;
    sgz_error *err;
} job;

static void report(job *j, size_t at, sgz_status st, const sgz_error *err)
{
    atomic_store(&j->failed, 1);
    pthread_mutex_lock(&j->lock);
    if (!j->status || at < j->error_at) {
        j->status = st;
        j->error_at = at;
        if (j->err)
            *j->err = *err;
    }
    pthread_mutex_unlock(&j->lock);
}

static void *work(void *arg)
{
    job *j = arg;
    sgz_reader r;
    sgz_error err;
    const sgz_blob *blob = NULL;
    memset(&r, 0, sizeof r);
    while (!atomic_load(&j->failed)) {
        size_t i = atomic_fetch_add(&j->next, 1);
        if (i >= j->count)
            break;
        const sgz_read_piece *p = &j->pieces[i];
        sgz_status st = SGZ_OK;
        if (p->blob != blob) {
            sgz_read_reader_free(&r);
            st = sgz_read_reader_init(&r, j->codecs, j->spans, p->blob, &err);
            blob = st ? NULL : p->blob;
        }
        if (!st)
            st = sgz_read_chunk(&r, p->span, j->verify, p->from, p->len, p->out, &err);
        if (st)
            report(j, i, st, &err);
    }
    sgz_read_reader_free(&r);
    return NULL;
}

sgz_status sgz_read_pieces(const sgz_codecs *codecs, const sgz_spans *spans,
                           const sgz_read_piece *pieces, size_t count, int verify,
                           int threads, sgz_error *err)
{
    job j = {.codecs = codecs, .spans = spans, .pieces = pieces, .count = count,
             .verify = verify, .err = err};
    pthread_t ids[THREADS_MAX];
    int started = 0;
    pthread_mutex_init(&j.lock, NULL);
    if (threads > THREADS_MAX)
        threads = THREADS_MAX;
    if ((uint64_t)threads > count)
        threads = (int)count;
    while (started + 1 < threads && !pthread_create(&ids[started], NULL, work, &j))
        started++;
    work(&j);
    for (int i = 0; i < started; i++)
        pthread_join(ids[i], NULL);
    pthread_mutex_destroy(&j.lock);
    return j.status;
}
