/* The pass that makes an index: of any tar, plain or in gzip members, in pieces of any size, it is
 * the same or refused with the same words; and what it says of the tar is so.
 *
 * The first bytes choose how the tar is wrapped; checksums are repaired, or little would get past
 * the first header. */
#include "index/build.h"
#include "codec/gzip.h"
#include "codec/hasher.h"
#include "fuzz.h"

#include <string.h>

typedef struct { const uint8_t *data; size_t len, at, piece; } memory;

typedef struct {
    uint64_t hash;          /* of the rows' JSON */
    sgz_status status;
    char message[256];
} outcome;

static int64_t read_piece(void *arg, uint8_t *out, size_t cap)
{
    memory *m = arg;
    size_t n = m->len - m->at;
    n = n < cap ? n : cap;
    n = n < m->piece ? n : m->piece;
    memcpy(out, m->data + m->at, n);
    m->at += n;
    return (int64_t)n;
}

static int mix(void *arg, const char *data, size_t len)
{
    outcome *o = arg;
    for (size_t i = 0; i < len; i++)
        o->hash = (o->hash ^ (uint8_t)data[i]) * 1099511628211u;
    return 0;
}

static void digest(const uint8_t *data, size_t len, uint8_t out[32])
{
    sgz_sha256 sha;
    sgz_error err;
    CHECK(!sgz_codec_sha256_new(fuzz_codecs(), &sha, &err));
    sgz_codec_sha256_init(fuzz_codecs(), &sha);
    sgz_codec_sha256_update(fuzz_codecs(), &sha, data, len);
    sgz_codec_sha256_final(fuzz_codecs(), &sha, out);
    sgz_codec_sha256_free(fuzz_codecs(), &sha);
}

static void check_rows(const sgz_index *index, const uint8_t *tar, size_t len)
{
    uint8_t good[32];
    for (size_t i = 0; i < index->toc->count; i++) {
        const sgz_entry *row = &index->toc->rows[i];
        if (!sgz_toc_has_data(row))
            continue;
        size_t point = sgz_codec_points_at(&index->points, row->offset);
        int64_t at = row->inner_offset + (point == SGZ_NO_POINT ? row->offset
                                                                : index->points.at[point].out);
        CHECK(at >= 0 && at <= (int64_t)len && row->chunk_size <= (int64_t)len - at);
        if (!(row->flags & SGZ_HAS_CHUNK_DIGEST))
            continue;
        digest(tar + at, (size_t)row->chunk_size, good);
        CHECK(!memcmp(good, row->chunk_digest, 32));
    }
}

static outcome build(memory m, int soci, const uint8_t *tar, size_t len)
{
    outcome o = {.hash = 14695981039346656037u};
    sgz_index_build_options options = {
        .span_size = SGZ_SPAN_MIN, .chunk_size = 1000, .soci = soci, .threads = 1};
    sgz_source source = {.fd = -1, .read = read_piece, .arg = &m};
    sgz_index_build *b = sgz_index_build_new(fuzz_codecs(), source, &options);
    sgz_index index = {0};
    sgz_base_job job;
    sgz_wrap wrap;
    sgz_error err = {0};
    uint64_t json;
    sgz_base_job_init(&job);
    CHECK(b && !sgz_index_build_peek(b, &wrap, &err));
    o.status = sgz_index_build_start(b, &job, &err);
    if (!o.status)
        o.status = sgz_index_build_finish(b, &index, &err);
    if (!o.status) {
        CHECK(index.points.end == (int64_t)len);
        CHECK(index.points.digests || !sgz_index_check(&index, &err));
        check_rows(&index, tar, len);
        CHECK(!sgz_toc_format(index.toc, 0, mix, &o, &json, &err));
    }
    memcpy(o.message, err.message, sizeof o.message);
    sgz_index_free(&index);
    sgz_index_build_free(b);
    sgz_base_job_free(&job);
    return o;
}

/* In two members. */
static size_t pack(const uint8_t *tar, size_t len, size_t first, uint8_t *out, size_t cap)
{
    sgz_deflater deflater;
    sgz_error err;
    size_t made, more;
    first = first < len ? first : len;
    CHECK(!sgz_codec_deflater_init(&deflater, fuzz_codecs(), 1, &err));
    CHECK(!sgz_codec_deflate_member(&deflater, tar, first, 0, out, cap, &made, &err));
    CHECK(!sgz_codec_deflate_member(&deflater, tar + first, len - first, 0, out + made, cap - made,
                                    &more, &err));
    sgz_codec_deflater_free(&deflater);
    return made + more;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 8)
        return 0;
    size_t piece = 1 + data[1] * (size_t)(1 + data[2]), len = size - 8, cap = 2 * len + 2048;
    uint8_t *tar = malloc(len + 1), *blob = malloc(cap);
    CHECK(tar && blob);
    memcpy(tar, data + 8, len);
    for (size_t at = 0; at + SGZ_TAR_BLOCK <= len && data[3] % 8; at += SGZ_TAR_BLOCK)
        if (!memcmp(tar + at + 257, "ustar", 5))
            repair_checksum(tar + at);
    int soci = data[0] & 1;
    if (sgz_io_wrap_of(tar, len) == SGZ_WRAP_NONE) {
        size_t packed = data[0] & 2 ? pack(tar, len, 256u * data[4], blob, cap) : len;
        memory whole = {.data = data[0] & 2 ? blob : tar, .len = packed, .piece = packed + 1};
        memory pieces = whole;
        pieces.piece = piece;
        outcome a = build(whole, soci, tar, len), b = build(pieces, soci, tar, len);
        CHECK(a.status == b.status && !strcmp(a.message, b.message) && a.hash == b.hash);
    }
    free(tar);
    free(blob);
    return 0;
}
