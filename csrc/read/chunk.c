#include "read/chunk.h"

#include <stdlib.h>
#include <string.h>

#define SINK ((size_t)64 << 10)
/* Bytes are hashed while they are still in the L2 cache. */
#define PIECE ((size_t)256 << 10)
/* How far away the check sum may be behind a chunk that it alone vouches for: headers of two
 * million entries without data. More is refused rather than decoded without end. */
#define RUN_MAX ((int64_t)1 << 30)

/* --- digests ---------------------------------------------------------------------------- */

sgz_status sgz_read_check_init(sgz_read_check *c, const sgz_codecs *codecs,
                               const sgz_spans *spans, sgz_error *err)
{
    c->codecs = codecs;
    c->spans = spans;
    return sgz_codec_sha256_new(codecs, &c->sha, err);
}

void sgz_read_check_free(sgz_read_check *c)
{
    if (c->sha.ctx)
        sgz_codec_sha256_free(c->codecs, &c->sha);
    c->sha.ctx = NULL;
}

sgz_status sgz_read_verdict(const sgz_read_check *c, size_t span, const uint8_t *whole,
                            uint32_t named, sgz_error *err)
{
    const sgz_toc *toc = c->spans->toc;
    const sgz_entry *e = sgz_read_span_row(c->spans, span);
    const uint8_t *expected = sgz_read_span_digest(c->spans, span);
    const char *what = e->flags & SGZ_HAS_CHUNK_DIGEST ? "a chunk" : "the file";
    if (!expected || !memcmp(expected, c->actual, 32)) {
        if (!whole || whole == expected || !memcmp(whole, c->actual, 32))
            return SGZ_OK;
        expected = whole;
        what = "the file";
    }
    return sgz_base_fail_digest(err, e->offset, sgz_toc_row_name(toc, named),
                                toc->rows[named].name_len, expected, c->actual, what);
}

sgz_status sgz_read_cut_off(const sgz_spans *spans, size_t span, uint32_t named, sgz_error *err)
{
    const sgz_entry *e = sgz_read_span_row(spans, span);
    return sgz_base_fail(err, SGZ_EDATA, e->offset, sgz_toc_row_name(spans->toc, named),
                         spans->toc->rows[named].name_len,
                         "the data of this chunk ends before its %lld bytes",
                         (long long)e->chunk_size);
}

/* --- bytes that go by ------------------------------------------------------------------- */

int sgz_read_pass(sgz_read_check *c, sgz_read_passing *p, const uint8_t *data, size_t len,
                  size_t *n)
{
    int what = 0;
    *n = len;
    if (p->span < p->last) {
        const sgz_entry *e = sgz_read_span_row(c->spans, p->span);
        int inside = p->at >= e->inner_offset;
        uint64_t left = (uint64_t)(e->inner_offset + (inside ? e->chunk_size : 0) - p->at);
        if (left < len)
            *n = (size_t)left;
        if (inside) {
            what = SGZ_PASS_CHUNK | (p->open ? 0 : SGZ_PASS_FIRST);
            if (!p->open)
                sgz_codec_sha256_init(c->codecs, &c->sha);
            sgz_codec_sha256_update(c->codecs, &c->sha, data, *n);
            p->open = *n < left;
            if (!p->open) {
                what |= SGZ_PASS_LAST;
                sgz_codec_sha256_final(c->codecs, &c->sha, c->actual);
                p->span++;
            }
        }
    }
    p->at += (int64_t)*n;
    return what;
}

/* --- a chunk by itself ------------------------------------------------------------------ */

sgz_status sgz_read_reader_init(sgz_reader *r, const sgz_codecs *codecs, const sgz_spans *spans,
                                const sgz_blob *blob, sgz_error *err)
{
    memset(r, 0, sizeof *r);
    r->entered = -1;
    r->sink = malloc(SINK);
    if (!r->sink)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to decode with");
    sgz_status st = sgz_codec_decoder_init(&r->decoder, codecs, blob, err);
    if (!st)
        st = sgz_read_check_init(&r->check, codecs, spans, err);
    if (st)
        sgz_read_reader_free(r);
    return st;
}

void sgz_read_reader_free(sgz_reader *r)
{
    sgz_read_check_free(&r->check);
    sgz_codec_decoder_free(&r->decoder);
    free(r->sink);
    memset(r, 0, sizeof *r);
}

int sgz_read_reader_near(const sgz_reader *r, const sgz_entry *e)
{
    return r->entered == e->offset && r->at <= e->inner_offset ? 2
           : sgz_codec_decoder_holds(&r->decoder, e->offset)   ? 1
                                                               : 0;
}

/* Say whose bytes an error of the decoder is about, and that it stands nowhere. */
static sgz_status failed(sgz_reader *r, sgz_status st, sgz_error *err)
{
    const sgz_toc *toc = r->check.spans->toc;
    r->entered = -1;
    if (st != SGZ_ECALLBACK)
        sgz_base_name(err, sgz_toc_row_name(toc, r->named), toc->rows[r->named].name_len);
    return st;
}

/* Decode exactly `len` bytes: they are the ones wanted, even if what follows is broken. But where
 * only the blob's check sum can tell, one that passes must be right, also one right behind them. */
static sgz_status exactly(sgz_reader *r, uint8_t *out, size_t len, sgz_error *err)
{
    size_t got;
    if (r->stop && atomic_load_explicit(r->stop, memory_order_relaxed))
        return sgz_base_fail(err, SGZ_ECANCELLED, -1, NULL, 0, "cancelled");
    sgz_status st = r->sum ? sgz_codec_decoder_read_checked(&r->decoder, out, len, &got, err)
                           : sgz_codec_decoder_read(&r->decoder, out, len, &got, err);
    r->at += (int64_t)got;
    if (!st && got < len)
        st = sgz_read_cut_off(r->check.spans, r->span, r->named, err);
    if (st)
        failed(r, st, err);
    return got == len && !r->sum ? SGZ_OK : st;
}

sgz_status sgz_read_begin(sgz_reader *r, size_t span, uint32_t named, int verify, sgz_error *err)
{
    const sgz_spans *spans = r->check.spans;
    const sgz_entry *e = sgz_read_span_row(spans, span);
    r->span = span;
    r->named = named;
    r->hash = verify && sgz_read_span_digest(spans, span);
    r->sum = verify && !r->hash;
    if (r->entered != e->offset || r->at > e->inner_offset) {
        sgz_codec_decoder_enter(&r->decoder, sgz_codec_point(e->offset),
                                sgz_read_span_end(spans, span));
        r->entered = e->offset;
        r->at = 0;
    }
    while (r->at < e->inner_offset) {
        int64_t left = e->inner_offset - r->at;
        sgz_status st = exactly(r, r->sink, left < (int64_t)SINK ? (size_t)left : SINK, err);
        if (st)
            return st;
    }
    if (r->hash)
        sgz_codec_sha256_init(r->check.codecs, &r->check.sha);
    return SGZ_OK;
}

sgz_status sgz_read_bytes(sgz_reader *r, uint8_t *out, size_t len, sgz_error *err)
{
    while (len) {
        size_t n = len < PIECE ? len : PIECE;
        sgz_status st = exactly(r, out, n, err);
        if (st)
            return st;
        if (r->hash)
            sgz_codec_sha256_update(r->check.codecs, &r->check.sha, out, n);
        out += n;
        len -= n;
    }
    return SGZ_OK;
}

sgz_status sgz_read_end(sgz_reader *r, const uint8_t *whole, sgz_error *err)
{
    if (r->hash) {
        sgz_codec_sha256_final(r->check.codecs, &r->check.sha, r->check.actual);
        return sgz_read_verdict(&r->check, r->span, whole, r->named, err);
    }
    if (!r->sum)
        return SGZ_OK;
    int ended;
    sgz_status st = sgz_codec_decoder_finish(&r->decoder, RUN_MAX, &ended, err);
    r->entered = -1;
    if (!st && !ended) {
        int64_t offset = sgz_read_span_row(r->check.spans, r->span)->offset;
        st = sgz_base_fail(err, SGZ_EDATA, offset, NULL, 0,
                           "this chunk has no digest, and its %s goes on for too long to check "
                           "the CRC; read it without verification",
                           sgz_codec_point_unit(sgz_codec_point(offset)));
    }
    return st ? failed(r, st, err) : SGZ_OK;
}

/* Bytes of the chunk that are only checked. */
static sgz_status drop(sgz_reader *r, int64_t len, sgz_error *err)
{
    sgz_status st = SGZ_OK;
    for (int64_t n; len > 0 && !st; len -= n) {
        n = len < (int64_t)SINK ? len : (int64_t)SINK;
        st = sgz_read_bytes(r, r->sink, (size_t)n, err);
    }
    return st;
}

sgz_status sgz_read_chunk(sgz_reader *r, size_t span, int verify, int64_t from, size_t len,
                          uint8_t *out, sgz_error *err)
{
    const sgz_spans *spans = r->check.spans;
    sgz_status st = sgz_read_begin(r, span, spans->files[span], verify, err);
    if (!st)
        st = drop(r, from, err);
    if (!st)
        st = sgz_read_bytes(r, out, len, err);
    if (!st && verify)
        st = drop(r, sgz_read_span_row(spans, span)->chunk_size - from - (int64_t)len, err);
    return st || !verify ? st : sgz_read_end(r, NULL, err);
}
