#include "read/chunk.h"

#include <stdlib.h>
#include <string.h>

#include "base/vec.h"

#define SINK ((size_t)64 << 10)
/* Bytes are hashed while they are still in the L2 cache. */
#define PIECE ((size_t)256 << 10)
/* After how many failures bytes that are fetched anew each time are given up. */
#define FETCHED_TRIES 16

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
    if (!whole && sgz_read_span_is_file(c->spans, span))
        whole = sgz_toc_digest(toc, c->spans->files[span]);
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
    r->entered = r->refused = -1;
    r->sink = malloc(SINK);
    if (!r->sink)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to decode with");
    sgz_status st = sgz_codec_decoder_init(&r->decoder, codecs, blob, spans->points, err);
    if (!st)
        st = sgz_read_check_init(&r->check, codecs, spans, err);
    if (st)
        sgz_read_reader_free(r);
    return st;
}

void sgz_read_reader_free(sgz_reader *r)
{
    if (r->part.ctx)
        sgz_codec_sha256_free(r->check.codecs, &r->part);
    sgz_read_check_free(&r->check);
    sgz_codec_decoder_free(&r->decoder);
    sgz_codec_decoder_mark_free(&r->mark);
    free(r->watch.seen);
    free(r->sink);
    memset(r, 0, sizeof *r);
}

int sgz_read_reader_near(const sgz_reader *r, const sgz_entry *e, int64_t from)
{
    return r->entered == e->offset && r->at <= e->inner_offset + from ? 2
           : sgz_codec_decoder_holds(&r->decoder, e->offset)          ? 1
                                                                      : 0;
}

/* Say whose bytes an error of the decoder is about. */
static sgz_status named_error(const sgz_reader *r, sgz_status st, sgz_error *err)
{
    const sgz_toc *toc = r->check.spans->toc;
    if (st && st != SGZ_ECALLBACK)
        sgz_base_name(err, sgz_toc_row_name(toc, r->named), toc->rows[r->named].name_len);
    return st;
}

/* And that it stands nowhere. */
static sgz_status failed(sgz_reader *r, sgz_status st, sgz_error *err)
{
    r->entered = -1;
    return named_error(r, st, err);
}

/* Decode at most `len` bytes, to the end of a unit where things are watched. */
static sgz_status step(sgz_reader *r, uint8_t *out, size_t len, size_t *got, int *ended,
                       sgz_error *err)
{
    sgz_status st;
    *got = 0;
    *ended = 0;
    if (!r->watching) {
        st = sgz_codec_decoder_read(&r->decoder, out, len, got, err);
    } else {
        st = sgz_codec_decoder_read_unit(&r->decoder, out, len, got, ended, err);
        sgz_read_watch_pass(&r->watch, r->check.codecs, r->check.spans, r->span, out, *got);
        if (*ended)
            sgz_read_watch_unit(&r->watch, r->check.spans, r->entered);
    }
    r->at += (int64_t)*got;
    return st;
}

/* What has no digest and is in a unit that is broken from somewhere on, is not asked for again. */
static sgz_status broken(sgz_reader *r, sgz_status st, sgz_error *err)
{
    int64_t offset = sgz_read_span_row(r->check.spans, r->span)->offset;
    if ((st == SGZ_EDATA || st == SGZ_EDIGEST) && r->sum && r->refused != offset) {
        sgz_read_vouched_refuse(r->check.spans->vouched, offset, r->watch.began, INT64_MAX, err);
        r->refused = offset; /* once, for all of its chunks that are asked for here */
    }
    return failed(r, st, err);
}

/* Decode exactly `len` bytes: they are the ones wanted, even if what follows is broken. But where
 * only the blob's check sum can tell, one that passes must be right, also one right behind them. */
static sgz_status exactly(sgz_reader *r, uint8_t *out, size_t len, sgz_error *err)
{
    sgz_status st = SGZ_OK;
    size_t got = 0;
    while (got < len && !st) {
        size_t n;
        int ended;
        st = step(r, out + got, len - got, &n, &ended, err);
        got += n;
        if (!st && !n && !ended)
            st = sgz_read_cut_off(r->check.spans, r->span, r->named, err);
    }
    if (st)
        broken(r, st, err);
    return got == len && !r->sum && st != SGZ_ECANCELLED ? SGZ_OK : st;
}

/* Whether all windows of the bytes wanted were right once. */
static int known(const sgz_reader *r)
{
    uint8_t sum[32];
    for (int64_t at = r->from; at < r->from + r->len; at += SGZ_WINDOW)
        if (!sgz_read_vouched_get(r->check.spans->vouched, r->span,
                                  (uint32_t)(at / SGZ_WINDOW), sum))
            return 0;
    return 1;
}

static int refused(const sgz_reader *r, sgz_error *err)
{
    const sgz_entry *e = sgz_read_span_row(r->check.spans, r->span);
    int64_t start = e->inner_offset + r->from;
    return sgz_read_vouched_refused(r->check.spans->vouched, e->offset, start, start + r->len,
                                    r->fetched && r->refused != e->offset ? FETCHED_TRIES : 1,
                                    err);
}

/* Go to decoded byte `to` of the entry point of a chunk. */
static sgz_status go_to(sgz_reader *r, size_t span, int64_t to, sgz_error *err)
{
    const sgz_spans *spans = r->check.spans;
    const sgz_entry *e = sgz_read_span_row(spans, span);
    int here = r->entered == e->offset && r->at <= to;
    if (here && r->decoder.vouched)
        r->watching = 0;
    if (!here || (r->watching && r->watch.at != r->at) ||
        (r->sum && !r->known && !sgz_codec_decoder_vouches(&r->decoder))) {
        r->decoder.compare = r->decoder.need_sum = r->sum;
        r->watch.began = 0;
        sgz_status st = sgz_codec_decoder_enter(&r->decoder, e->offset,
                                                sgz_read_span_end(spans, span), err);
        if (st)
            return broken(r, st, err);
        r->entered = e->offset;
        r->at = 0;
        r->watching = r->watching && !r->decoder.vouched;
        if (r->watching)
            sgz_read_watch_from(&r->watch, spans, span);
    }
    if (r->decoder.vouched)
        r->sum = 0;
    while (r->at < to) {
        int64_t left = to - r->at;
        sgz_status st = exactly(r, r->sink, left < (int64_t)SINK ? (size_t)left : SINK, err);
        if (st)
            return st;
    }
    return SGZ_OK;
}

/* What the index claims of the file, if it is not known to be right, is compared with its headers
 * in the blob. */
static sgz_status check_claim(sgz_reader *r, size_t span, sgz_error *err)
{
    const sgz_spans *spans = r->check.spans;
    uint32_t file = spans->files[span], len;
    sgz_status st = sgz_read_claims_wrong(spans->claims, file, err);
    size_t first = sgz_read_spans_claimed(spans, file);
    if (st)
        return named_error(r, st, err);
    if (first == SGZ_NO_SPAN || (first != span && r->with_first))
        return SGZ_OK;
    int64_t content = sgz_read_claims_place(spans->claims, file, &len);
    int64_t before = sgz_read_span_row(spans, first)->inner_offset - len;
    uint8_t *header = malloc(len);
    if (!header)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the headers of a file");
    uint8_t sum = r->sum, watching = r->watching; /* of the chunk that is wanted */
    r->span = first;
    if (before < 0) {
        r->entered = -1;
        r->decoder.compare = r->sum;
        st = sgz_read_claims_decode(&r->decoder, content - len, content, header, err);
    } else if (!(st = go_to(r, first, before, err)))
        st = exactly(r, header, len, err);
    r->span = span;
    r->sum = sum;
    r->watching = watching;
    if (!st)
        st = sgz_read_claims_check(spans->claims, file, header, r->fetched, err);
    free(header);
    return named_error(r, st, err);
}

/* Go to bytes [from, from + len) of a chunk: all of it, or one window. */
static sgz_status begin(sgz_reader *r, size_t span, uint32_t named, int verify, int64_t from,
                        int64_t len, sgz_error *err)
{
    const sgz_spans *spans = r->check.spans;
    const sgz_entry *e = sgz_read_span_row(spans, span);
    int64_t start = e->inner_offset + from;
    r->span = span;
    r->named = named;
    r->from = from;
    r->len = len;
    r->hash = verify && sgz_read_span_digest(spans, span);
    r->sum = verify && !r->hash;
    r->watching = verify && spans->vouched;
    if (r->sum && !sgz_codec_points_vouch(spans->points)) {
        sgz_base_fail(err, SGZ_EDATA, e->offset, NULL, 0,
                      "the index of the blob has no digest for this chunk, and nothing else tells "
                      "whether it is right; read it without verification");
        return named_error(r, SGZ_EDATA, err);
    }
    r->known = r->sum && known(r);
    if (r->sum && !r->known && refused(r, err))
        return named_error(r, err->code, err);
    sgz_status st = spans->claims ? check_claim(r, span, err) : SGZ_OK;
    if (!st)
        st = go_to(r, span, start, err);
    if (st)
        return st;
    r->watch.changed = r->watch.far = 0;
    if (r->hash)
        sgz_codec_sha256_init(r->check.codecs, &r->check.sha);
    return SGZ_OK;
}

sgz_status sgz_read_begin(sgz_reader *r, size_t span, uint32_t named, int verify, sgz_error *err)
{
    return begin(r, span, named, verify, 0, sgz_read_span_row(r->check.spans, span)->chunk_size,
                 err);
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

/* Whoever looks ahead for what vouches for a piece comes back to the end of it. */
static void mark_here(sgz_reader *r)
{
    sgz_error err; /* without memory it is decoded anew */
    r->marked = !sgz_codec_decoder_mark(&r->decoder, &r->mark, &err);
    r->marked_at = r->at;
    r->marked_watch = r->watch;
}

static void come_back(sgz_reader *r)
{
    if (!r->marked) {
        r->entered = -1;
        return;
    }
    sgz_read_watch now = r->watch;
    sgz_codec_decoder_return(&r->decoder, &r->mark);
    r->at = r->marked_at;
    r->watch = r->marked_watch;
    r->marked = 0;
    r->watch.seen = now.seen;
    r->watch.seen_cap = now.seen_cap;
    if (now.began != r->watch.began) /* what was seen by then has had its check sum */
        r->watch.seen_count = 0;
}

/* Decode on until the check sum of the unit that holds the last byte has passed. */
static sgz_status look_ahead(sgz_reader *r, sgz_error *err)
{
    const sgz_read_watch *w = &r->watch;
    sgz_status st = SGZ_OK;
    int back = !sgz_codec_decoder_between(&r->decoder) && w->span < w->last;
    if (back)
        mark_here(r);
    while (!sgz_codec_decoder_between(&r->decoder) && !st) {
        size_t n;
        int ended;
        if (sgz_read_watch_lost(w))
            st = sgz_read_watch_refuse(w, r->check.spans, r->entered, err);
        else if ((st = step(r, r->sink, SINK, &n, &ended, err)))
            return broken(r, st, err);
    }
    if (!st && w->far)
        st = sgz_read_watch_refuse(w, r->check.spans, r->entered, err);
    if (back)
        come_back(r);
    return named_error(r, st, err);
}

static sgz_status changed(sgz_reader *r, sgz_error *err)
{
    int64_t offset = sgz_read_span_row(r->check.spans, r->span)->offset;
    sgz_base_fail(err, SGZ_EDATA, offset, NULL, 0,
                  "this chunk was right before, and is another now");
    return failed(r, SGZ_EDATA, err);
}

sgz_status sgz_read_end(sgz_reader *r, const uint8_t *whole, sgz_error *err)
{
    if (r->hash) {
        sgz_codec_sha256_final(r->check.codecs, &r->check.sha, r->check.actual);
        return sgz_read_verdict(&r->check, r->span, whole, r->named, err);
    }
    if (!r->sum)
        return SGZ_OK;
    if (!r->known)
        return look_ahead(r, err);
    return r->watch.changed ? changed(r, err) : SGZ_OK;
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

/* Decode a window, to `out` unless that is NULL, and tell its digest. */
static sgz_status hash_window(sgz_reader *r, int64_t len, uint8_t *out, uint8_t sum[32],
                              sgz_error *err)
{
    const sgz_codecs *codecs = r->check.codecs;
    sgz_status st = SGZ_OK;
    sgz_codec_sha256_init(codecs, &r->part);
    for (int64_t n; len > 0 && !st; len -= n) {
        n = len < (int64_t)SINK ? len : (int64_t)SINK;
        uint8_t *to = out ? out : r->sink;
        st = sgz_read_bytes(r, to, (size_t)n, err);
        if (!st)
            sgz_codec_sha256_update(codecs, &r->part, to, (size_t)n);
        if (out)
            out += n;
    }
    sgz_codec_sha256_final(codecs, &r->part, sum);
    return st;
}

/* A window of a chunk whose digest needs all of it: that is checked once, and from then on each
 * window by a digest of its own. */
static sgz_status read_window(sgz_reader *r, size_t span, int64_t from, int64_t len, uint8_t *out,
                              sgz_error *err)
{
    const sgz_spans *spans = r->check.spans;
    const sgz_entry *e = sgz_read_span_row(spans, span);
    uint32_t wanted = (uint32_t)(from / SGZ_WINDOW), count = 0;
    uint8_t sum[32], actual[32], (*sums)[32] = NULL;
    size_t cap = 0;
    sgz_status st = SGZ_OK;
    r->marked = 0;
    if (!r->part.ctx)
        st = sgz_codec_sha256_new(r->check.codecs, &r->part, err);
    if (st)
        return st;
    if (sgz_read_vouched_get(spans->vouched, span, wanted, sum)) {
        st = begin(r, span, spans->files[span], 1, from, len, err);
        r->hash = 0;
        if (!st)
            st = hash_window(r, len, out, actual, err);
        return st || !memcmp(sum, actual, 32) ? st : changed(r, err);
    }
    st = begin(r, span, spans->files[span], 1, 0, e->chunk_size, err);
    for (uint32_t w = 0; w * SGZ_WINDOW < e->chunk_size && !st; w++) {
        st = hash_window(r, sgz_read_window_len(e, w), w == wanted ? out : NULL, sum, err);
        if (!st && count == w && SGZ_FIT(sums, cap, count + 1u))
            memcpy(sums[count++], sum, 32);
        if (w == wanted)
            mark_here(r);
    }
    if (!st)
        st = sgz_read_end(r, NULL, err);
    for (uint32_t w = 0; w < count && !st; w++)
        sgz_read_vouched_put(spans->vouched, span, w, sums[w]);
    free(sums);
    come_back(r);
    return st;
}

sgz_status sgz_read_chunk(sgz_reader *r, size_t span, int verify, int64_t from, size_t len,
                          uint8_t *out, sgz_error *err)
{
    const sgz_spans *spans = r->check.spans;
    const sgz_entry *e = sgz_read_span_row(spans, span);
    int window = verify && (int64_t)len < e->chunk_size && from % SGZ_WINDOW == 0 &&
                 (int64_t)len == sgz_read_window_len(e, (uint32_t)(from / SGZ_WINDOW));
    if (window && sgz_read_span_digest(spans, span))
        return read_window(r, span, from, (int64_t)len, out, err);
    int64_t begun = window || !verify ? from : 0;
    int64_t whole = window || !verify ? (int64_t)len : e->chunk_size;
    sgz_status st = begin(r, span, spans->files[span], verify, begun, whole, err);
    if (!st)
        st = drop(r, from - begun, err);
    if (!st)
        st = sgz_read_bytes(r, out, len, err);
    if (!st)
        st = drop(r, begun + whole - from - (int64_t)len, err);
    return st || !verify ? st : sgz_read_end(r, NULL, err);
}
