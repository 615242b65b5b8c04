#include "toc/open_frame.h"

#include <stdlib.h>
#include <string.h>

#include "base/vec.h"
#include "codec/zstd.h"
#include "toc/parser.h"

/* As in open.c: what is worked on is in the L2 cache. */
#define PIECE ((size_t)256 << 10)
/* Runs of zeros that are longer are left to the digests of their files, as holes are: this takes
 * 0.2 s at most, however many there are. */
#define ZEROS_MAX ((int64_t)256 << 20)

/* A TOC that is taken out of its frame. */
typedef struct {
    const sgz_codecs *codecs;
    const sgz_toc_frame *frame;
    sgz_toc_parser *parser;
    void *stream;
    sgz_sha256 json, packed;
    uint8_t *in, *out;
    int64_t made;
    int open; /* a frame has not ended */
    sgz_zstd_blocks blocks;
} frame_reader;

/* Parse what the `len` bytes of `in`, which are those at `at`, decode to. Those of a frame's header
 * that goes on behind them (`more`) are left: *used has the others, of which there are some. */
static sgz_status take(frame_reader *r, int64_t at, size_t len, int more, size_t *used,
                       sgz_error *err)
{
    const sgz_zstd *lib = &r->codecs->zstd;
    sgz_zstd_in in = {r->in, len, 0};
    sgz_zstd_out out = {r->out, PIECE, PIECE};
    /* A buffer that was filled may not be all that there is. */
    while (in.pos < in.size || (r->open && out.pos == out.size)) {
        size_t left = in.size - in.pos;
        if (!r->open && more && left < SGZ_ZSTD_HEADER)
            break;
        sgz_status st = r->open ? SGZ_OK
                                : sgz_codec_zstd_check(r->in + in.pos, left, SGZ_FRAME_MEMORY,
                                                       r->frame->offset + at + (int64_t)in.pos,
                                                       &r->blocks, err);
        if (st)
            return st;
        out.pos = 0;
        size_t took = in.pos, hint = lib->decompress_stream(r->stream, &out, &in);
        if (lib->is_error(hint))
            return sgz_base_fail(err, SGZ_EDATA, r->frame->offset, NULL, 0,
                                 "the zstd frame of the TOC is corrupt: %s", lib->error_name(hint));
        st = sgz_codec_zstd_follow(&r->blocks, r->in + took, in.pos - took, out.pos, !hint,
                                   r->frame->offset, err);
        if (st)
            return st;
        r->open = hint != 0;
        r->made += (int64_t)out.pos;
        if (r->made > r->frame->size)
            return sgz_base_fail(err, SGZ_ETOC, r->frame->offset, NULL, 0,
                                 "the table of contents is longer than its %lld bytes",
                                 (long long)r->frame->size);
        sgz_codec_sha256_update(r->codecs, &r->json, r->out, out.pos);
        st = sgz_toc_in_json(
            sgz_toc_parse(r->parser, (const char *)r->out, out.pos, err), r->frame->offset, err);
        if (st)
            return st;
    }
    *used = in.pos;
    return SGZ_OK;
}

static sgz_status read_all(frame_reader *r, const sgz_blob *blob, sgz_error *err)
{
    const sgz_toc_frame *frame = r->frame;
    size_t used = 0;
    for (int64_t at = 0; at < frame->packed; at += (int64_t)used) {
        int64_t left = frame->packed - at;
        size_t n = left < (int64_t)PIECE ? (size_t)left : PIECE;
        if (blob->poll && blob->poll())
            return sgz_base_fail(err, SGZ_ECANCELLED, -1, NULL, 0, "cancelled");
        sgz_status st = sgz_codec_blob_read(blob, frame->offset + at, r->in, n, err);
        if (!st)
            st = take(r, at, n, (int64_t)n < left, &used, err);
        if (st)
            return st;
        sgz_codec_sha256_update(r->codecs, &r->packed, r->in, used);
    }
    if (r->open)
        return sgz_base_fail(err, SGZ_ETOC, frame->offset, NULL, 0,
                             "the zstd frame of the TOC is cut off");
    if (r->made < frame->size)
        return sgz_base_fail(err, SGZ_ETOC, frame->offset, NULL, 0,
                             "the table of contents ends %lld bytes early",
                             (long long)(frame->size - r->made));
    return SGZ_OK;
}

/* --- runs of zeros ------------------------------------------------------------------------- */

typedef struct {
    int64_t size;
    uint32_t row;
} run;

static int by_size(const void *left, const void *right)
{
    const run *a = left, *b = right;
    return a->size == b->size ? (a->row > b->row) - (a->row < b->row) : a->size < b->size ? -1 : 1;
}

/* Nobody reads their frames here, as others do: what these have must be zeros, as far as their
 * digests tell. One pass over as many zeros as the longest has gives the digests of all. */
static sgz_status compare_runs(frame_reader *r, const sgz_toc *toc, const run *runs, size_t count,
                               sgz_error *err)
{
    uint8_t digest[32];
    int64_t at = 0;
    memset(r->out, 0, PIECE);
    sgz_codec_sha256_init(r->codecs, &r->json);
    for (size_t i = 0; i < count; i++) {
        const sgz_entry *row = &toc->rows[runs[i].row];
        int another = !i || at < row->chunk_size;
        for (int64_t n; at < row->chunk_size; at += n) {
            n = row->chunk_size - at < (int64_t)PIECE ? row->chunk_size - at : (int64_t)PIECE;
            sgz_codec_sha256_update(r->codecs, &r->json, r->out, (size_t)n);
        }
        if (another) {
            sgz_codec_sha256_copy(r->codecs, &r->packed, &r->json);
            sgz_codec_sha256_final(r->codecs, &r->packed, digest);
        }
        if (memcmp(row->chunk_digest, digest, 32))
            return sgz_base_fail_digest(err, row->offset, sgz_toc_row_name(toc, runs[i].row),
                                        row->name_len, row->chunk_digest, digest,
                                        "a chunk of zeros");
    }
    return SGZ_OK;
}

static sgz_status check_zeros(frame_reader *r, sgz_toc *toc, sgz_error *err)
{
    run *runs = NULL;
    size_t count = 0, cap = 0;
    sgz_status st = SGZ_OK;
    for (uint32_t i = 0; toc->holes && i < toc->count && !st; i++) {
        sgz_entry *row = &toc->rows[i];
        run one = {row->chunk_size, i};
        if (row->type != SGZ_ZEROS || !(row->flags & SGZ_HAS_CHUNK_DIGEST))
            continue;
        if (row->chunk_size > ZEROS_MAX)
            row->flags &= (uint8_t)~SGZ_HAS_CHUNK_DIGEST;
        else if (!SGZ_PUSH(runs, count, cap, one))
            st = sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to check the TOC");
    }
    if (!st && count) {
        qsort(runs, count, sizeof *runs, by_size);
        st = compare_runs(r, toc, runs, count, err);
    }
    free(runs);
    return st;
}

/* --- all of it ------------------------------------------------------------------------------ */

static sgz_status init(frame_reader *r, int64_t blob_end, sgz_toc *toc, sgz_error *err)
{
    sgz_status st = sgz_codec_zstd_new(r->codecs, SGZ_FRAME_MEMORY, &r->stream, err);
    if (!st)
        st = sgz_codec_sha256_new(r->codecs, &r->json, err);
    if (!st)
        st = sgz_codec_sha256_new(r->codecs, &r->packed, err);
    if (st)
        return st;
    r->in = malloc(PIECE);
    r->out = malloc(PIECE);
    r->parser = sgz_toc_parser_new(toc);
    if (!r->in || !r->out || !r->parser)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to read the TOC");
    sgz_codec_sha256_init(r->codecs, &r->json);
    sgz_codec_sha256_init(r->codecs, &r->packed);
    sgz_toc_parser_limit(r->parser, blob_end);
    sgz_toc_parser_expect(r->parser, r->frame->size);
    sgz_toc_parser_chunked(r->parser);
    return SGZ_OK;
}

sgz_status sgz_toc_read_frame(const sgz_codecs *codecs, const sgz_blob *blob,
                              const sgz_toc_frame *frame, int64_t max_size, int64_t blob_end,
                              sgz_toc *toc, uint8_t digest[32], uint8_t checksum[32],
                              sgz_error *err)
{
    frame_reader r = {.codecs = codecs, .frame = frame};
    const sgz_points frames = {.kind = SGZ_POINT_ZSTD};
    if (frame->size > max_size)
        return sgz_toc_too_large(frame->offset, frame->size, max_size, err);
    if (frame->packed > sgz_codec_bound(&frames, frame->size))
        return sgz_base_fail(err, SGZ_ETOC, frame->offset, NULL, 0,
                             "a table of contents of %lld bytes does not take %lld in zstd",
                             (long long)frame->size, (long long)frame->packed);
    sgz_status st = init(&r, blob_end, toc, err);
    if (!st)
        st = read_all(&r, blob, err);
    if (!st) {
        sgz_codec_sha256_final(codecs, &r.json, digest);
        sgz_codec_sha256_final(codecs, &r.packed, checksum);
        st = sgz_toc_in_json(sgz_toc_parse_finish(r.parser, blob_end, err), frame->offset, err);
    }
    if (!st)
        st = check_zeros(&r, toc, err);
    if (r.parser)
        sgz_toc_parser_free(r.parser);
    if (r.json.ctx)
        sgz_codec_sha256_free(codecs, &r.json);
    if (r.packed.ctx)
        sgz_codec_sha256_free(codecs, &r.packed);
    if (r.stream)
        codecs->zstd.free_dstream(r.stream);
    free(r.in);
    free(r.out);
    return st;
}
