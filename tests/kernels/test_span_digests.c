/* The digests of spans are the same for pieces of any size, and points that are told late. */
#include "index/span_digests.h"
#include "check.h"

#include <string.h>

enum { DATA = 20000, POINTS = 30, ROUNDS = 2000 };

static sgz_codecs codecs;
static uint8_t data[DATA];
static sgz_point at[POINTS];

/* Offsets that ascend, some by one byte only, with and without a byte that two spans share. */
static void some_points(sgz_points *points, size_t len)
{
    int64_t offset = below(20);
    points->at = at;
    points->count = 0;
    while (points->count < POINTS && offset < (int64_t)len) {
        at[points->count++] = (sgz_point){.offset = offset, .skip = (uint8_t)below(8)};
        offset += 1 + (below(2) ? below(3) : below(2000));
    }
    points->size = (int64_t)len;
}

static void one_round(void)
{
    size_t len = below(2) ? below(DATA) : below(2000), known = 0;
    sgz_points points = {.kind = SGZ_POINT_DEFLATE}, told;
    sgz_index_span_digests s;
    sgz_error err;
    some_points(&points, len);
    told = points;
    CHECK(!sgz_index_span_digests_init(&s, &codecs, &err));
    for (size_t pos = 0; pos < len;) {
        size_t most = below(3) ? 700 : 5000, step = 1 + below((uint32_t)most);
        step = step < len - pos ? step : len - pos;
        pos += step;
        while (known < points.count &&
               (at[known].offset + SGZ_SPAN_HELD <= (int64_t)pos || !below(3)))
            known++;
        told.count = known;
        CHECK(!sgz_index_span_digests_add(&s, &told, data + pos - step, step, &err));
    }
    CHECK(!sgz_index_span_digests_finish(&s, &points, &err));
    for (size_t i = 0; i < points.count; i++) {
        uint8_t digest[32];
        size_t from = (size_t)sgz_codec_points_start(&points, i);
        size_t end = (size_t)sgz_codec_points_end(&points, i);
        sgz_codec_sha256_init(&codecs, &s.sha);
        sgz_codec_sha256_update(&codecs, &s.sha, data + from, end - from);
        sgz_codec_sha256_final(&codecs, &s.sha, digest);
        CHECK(!memcmp(digest, points.digests[i], 32));
    }
    free(points.digests);
    sgz_index_span_digests_free(&s);
}

static void too_late(void)
{
    sgz_points points = {.kind = SGZ_POINT_DEFLATE, .at = at};
    sgz_index_span_digests s;
    sgz_error err;
    CHECK(!sgz_index_span_digests_init(&s, &codecs, &err));
    CHECK(!sgz_index_span_digests_add(&s, &points, data, SGZ_SPAN_HELD + 100, &err));
    at[points.count++] = (sgz_point){.offset = 99, .skip = 1};
    CHECK(sgz_index_span_digests_add(&s, &points, data, 1, &err) == SGZ_ECODEC);
    sgz_index_span_digests_free(&s);
}

int main(void)
{
    sgz_error err;
    CHECK(!sgz_codec_load_crypto(&codecs, "libcrypto.so.3", &err));
    for (size_t i = 0; i < DATA; i++)
        data[i] = (uint8_t)below(256);
    for (int i = 0; i < ROUNDS; i++)
        one_round();
    too_late();
    return 0;
}
