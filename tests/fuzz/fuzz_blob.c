/* A blob and its TOC, both hostile: reads and verification end, within their memory, and
 * agree with each other, on one thread and on several.
 *
 * The input is a TOC's JSON, a zero byte, then decoded segments, each after its length in
 * two bytes. Each segment becomes a gzip member; the JSON's offsets are the segments'
 * numbers times 64. So mutations reach behind the gzip layer, which fuzz_gzip covers. */
#include "fuzz.h"
#include "codec/gzip.h"
#include "read/chunk.h"
#include "verify/verify.h"

#include <string.h>

#define SEGMENTS 64
#define SCALE 64

static uint8_t blob_bytes[1 << 18];

/* Members of all segments; returns their number. */
static size_t make_members(const uint8_t *data, size_t size, int64_t offsets[SEGMENTS + 1],
                           uint8_t damage)
{
    static sgz_deflater deflater;
    sgz_error err = {0};
    size_t count = 0, at = 0, end = 0;
    if (!deflater.codecs)
        CHECK(sgz_codec_deflater_init(&deflater, fuzz_codecs(), 1, &err) == SGZ_OK);
    while (count < SEGMENTS && size - at >= 2) {
        size_t len = data[at] | (size_t)data[at + 1] << 8, made;
        at += 2;
        if (len > size - at)
            len = size - at;
        if (sgz_codec_member_bound(len) > sizeof blob_bytes - end)
            break;
        CHECK(sgz_codec_deflate_member(&deflater, data + at, len, 0, blob_bytes + end,
                                       sizeof blob_bytes - end, &made, &err) == SGZ_OK);
        offsets[count++] = (int64_t)end;
        at += len;
        end += made;
    }
    offsets[count] = (int64_t)end;
    if (damage && end)
        blob_bytes[(damage * 7919u) % end] ^= damage;
    return count;
}

static void verify(const sgz_spans *spans, const sgz_blob *blob, int threads,
                   sgz_verify_result *result)
{
    sgz_verify_args args = {fuzz_codecs(), spans, blob, blob->size, 0, threads, 0};
    sgz_verify *run;
    sgz_error err = {0};
    sgz_base_job job;
    sgz_base_job_init(&job);
    CHECK(sgz_verify_start(&run, &job, &args, &err) == SGZ_OK);
    CHECK(sgz_verify_finish(run, result, &err) == SGZ_OK);
    CHECK(job.done == blob->size);
    sgz_base_job_free(&job);
    CHECK(result->kept <= SGZ_VERIFY_ERRORS && result->kept <= result->error_count);
}

static void check(const sgz_toc *toc, const sgz_blob *blob)
{
    static sgz_verify_result one, more;
    sgz_spans spans;
    sgz_error err = {0};
    sgz_reader reader;
    if (sgz_read_spans_init(&spans, toc, NULL, blob->size, &err)) {
        CHECK(err.code == SGZ_ETOC && err.message[0]);
        return;
    }
    verify(&spans, blob, 1, &one);
    verify(&spans, blob, 3, &more);
    CHECK(one.files == more.files && one.chunks == more.chunks && one.bytes == more.bytes);
    CHECK(one.error_count == more.error_count);

    CHECK(sgz_read_reader_init(&reader, fuzz_codecs(), &spans, blob, &err) == SGZ_OK);
    uint64_t good = 0;
    int undigested = 0;
    for (size_t i = 0; i < spans.count; i++) {
        const sgz_entry *e = &toc->rows[spans.rows[i]];
        size_t first, last, len = e->chunk_size > 4096 ? 4096 : (size_t)e->chunk_size;
        uint8_t *out = malloc(len);
        CHECK(out);
        CHECK(sgz_read_spans_find(&spans, spans.files[i], e->chunk_offset, e->chunk_size, &first,
                                  &last, &err) == SGZ_OK);
        CHECK(first == i && last == i + 1);
        CHECK(sgz_read_span_end(&spans, i) > e->offset);
        sgz_status st = sgz_read_chunk(&reader, i, 1, e->chunk_size - (int64_t)len, len, out, &err);
        CHECK(!st || st == SGZ_EDATA || st == SGZ_EDIGEST);
        good += !st;
        undigested |= !(e->flags & SGZ_HAS_CHUNK_DIGEST);
        free(out);
    }
    /* Verification also checks CRCs and whole files, which a read need not come to. */
    /* A chunk without a digest is counted, but read only if its file's digest or its
     * member's CRC is right; where that fails, verification has an error to tell. */
    CHECK(one.chunks <= good || (undigested && one.error_count));
    CHECK(one.error_count || good == spans.count);
    CHECK(one.error_count || one.chunks == spans.count);
    sgz_read_reader_free(&reader);
    sgz_read_spans_free(&spans);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t offsets[SEGMENTS + 1];
    sgz_error err = {0};
    if (size < 2)
        return 0;
    uint8_t damage = data[0] & 0x80 ? data[0] : 0;
    const uint8_t *json = data + 1, *end = memchr(json, 0, size - 1);
    if (!end)
        return 0;
    size_t rest = size - (size_t)(end + 1 - data);
    size_t count = make_members(end + 1, rest, offsets, damage);
    if (!count)
        return 0;
    sgz_toc *toc = sgz_toc_new();
    CHECK(toc);
    sgz_toc_parser *parser = sgz_toc_parser_new(toc);
    CHECK(parser);
    sgz_status st = sgz_toc_parse(parser, (const char *)json, (size_t)(end - json), &err);
    if (!st)
        st = sgz_toc_parse_finish(parser, (int64_t)count * SCALE, &err);
    if (!st) {
        for (size_t i = 0; i < toc->count; i++)
            if (toc->rows[i].chunk_size > 0)
                toc->rows[i].offset = offsets[toc->rows[i].offset / SCALE];
        sgz_blob blob = {.data = blob_bytes, .fd = -1, .size = offsets[count]};
        check(toc, &blob);
    }
    sgz_toc_parser_free(parser);
    sgz_toc_free(toc);
    return 0;
}
