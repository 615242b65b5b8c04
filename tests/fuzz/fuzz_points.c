/* Entering a blob at points of every kind that say anything within their bounds: the same bytes and
 * the same verdict from memory and by pieces, in steps of any size, and after coming back. */
#include "fuzz.h"
#include "codec/decode.h"

#define OUT_MAX ((size_t)1 << 18)
#define POINTS 8
#define FACTS 9 /* bytes that tell of one point */

typedef struct {
    const uint8_t *data;
    size_t size;
} bytes;

static int read_at(void *arg, int64_t offset, uint8_t *out, size_t len)
{
    const bytes *b = arg;
    CHECK(offset >= 0 && (uint64_t)offset <= b->size && len <= b->size - (uint64_t)offset);
    memcpy(out, b->data + offset, len);
    return 0;
}

/* What index/check.c lets pass, of any bytes. */
static sgz_points points_of(const uint8_t *data, size_t count, const bytes *windows, size_t size)
{
    sgz_points points = {.kind = (sgz_point_kind)(data[0] % 4), .size = (int64_t)size};
    int64_t offset = 0, out = 0;
    sgz_error err;
    const uint8_t *fact = data + 2;
    for (size_t i = 0; i < count; i++, fact += FACTS) {
        sgz_point p = {0};
        offset += (fact[0] | fact[1] << 8) % 4096 + (i > 0);
        out += (fact[2] | fact[3] << 8) + (i > 0);
        p.offset = offset;
        p.out = out;
        if (points.kind == SGZ_POINT_DEFLATE) {
            p.skip = fact[4] & 7;
            p.history = (fact[5] | (unsigned)fact[6] << 8) % (SGZ_HISTORY_MAX + 1);
            if (p.history)
                p.packed = fact[7] | (unsigned)fact[8] << 8;
            if (p.packed > windows->size)
                p.packed = (uint32_t)windows->size;
            if (!p.packed && p.history > windows->size)
                p.history = (uint32_t)windows->size;
        }
        if (offset >= (int64_t)size)
            break;
        uint8_t *window = malloc(sgz_codec_point_stored(&p) + 1);
        CHECK(window);
        memcpy(window, windows->data, sgz_codec_point_stored(&p));
        CHECK(!sgz_codec_points_append(&points, p, window, &err));
        free(window);
    }
    points.end = out + 1000;
    if (data[1] & 1 && points.count)
        points.digests = calloc(points.count, sizeof *points.digests);
    return points;
}

typedef struct {
    sgz_status status;
    size_t len;
} outcome;

/* All that is decoded from a point to the end of its span. */
static outcome decode(sgz_decoder *d, const sgz_points *points, size_t i, uint8_t *out,
                      size_t step)
{
    sgz_error err = {0};
    sgz_decoder_mark mark = {0};
    outcome o = {0, 0};
    int64_t end = points->count ? sgz_codec_points_end(points, i) : points->size;
    int64_t offset = points->count ? points->at[i].offset : 0;
    size_t got = 1, back = 0;
    o.status = sgz_codec_decoder_enter(d, offset, end, &err);
    while (!o.status && got && o.len < OUT_MAX) {
        size_t want = OUT_MAX - o.len < step ? OUT_MAX - o.len : step;
        if (o.len > 100 && !back && !d->compare) { /* go on, and come back */
            int ended;
            uint8_t ahead[500];
            back = 1;
            if (!sgz_codec_decoder_mark(d, &mark, &err)) {
                sgz_codec_decoder_read_unit(d, ahead, sizeof ahead, &got, &ended, &err);
                sgz_codec_decoder_return(d, &mark);
            }
        }
        uint8_t *piece = malloc(want);
        CHECK(piece);
        o.status = sgz_codec_decoder_read(d, piece, want, &got, &err);
        CHECK(got <= want);
        memcpy(out + o.len, piece, got);
        o.len += got;
        free(piece);
    }
    CHECK(!o.status || (err.message[0] && o.status != SGZ_ECALLBACK));
    sgz_codec_decoder_mark_free(&mark);
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t first[OUT_MAX], second[OUT_MAX];
    sgz_error err;
    size_t count = size > 2 ? data[1] / 2 % (POINTS + 1) : 0, head = 4 + count * FACTS;
    if (size < head)
        return 0;
    size_t windows_len = (size_t)(data[head - 2] | data[head - 1] << 8);
    if (windows_len > size - head)
        windows_len = size - head;
    bytes windows = {data + head, windows_len};
    bytes blob_bytes = {data + head + windows_len, size - head - windows_len};
    sgz_points points = points_of(data, count, &windows, blob_bytes.size);
    sgz_blob memory = {.data = blob_bytes.data, .fd = -1, .size = (int64_t)blob_bytes.size};
    sgz_blob far = {.fd = -1, .read_at = read_at, .arg = &blob_bytes,
                    .size = (int64_t)blob_bytes.size};
    if (points.kind == SGZ_POINT_STORED || points.count) {
        sgz_decoder a, b;
        CHECK(!sgz_codec_decoder_init(&a, fuzz_codecs_with_zstd(), &memory, &points, &err));
        CHECK(!sgz_codec_decoder_init(&b, fuzz_codecs_with_zstd(), &far, &points, &err));
        for (size_t i = 0; i < (points.count ? points.count : 1); i++) {
            outcome one = decode(&a, &points, i, first, OUT_MAX);
            outcome two = decode(&b, &points, i, second, 1 + data[0] * 7u);
            size_t both = one.len < two.len ? one.len : two.len;
            CHECK(!memcmp(first, second, both));
            /* How much of what is broken comes before the error is not the same. */
            CHECK(one.status == two.status || one.len == OUT_MAX || two.len == OUT_MAX);
            CHECK(one.status || one.len == two.len);
            if (points.digests) {
                a.compare = 1;
                outcome wrong = decode(&a, &points, i, first, OUT_MAX);
                CHECK(wrong.status && !wrong.len);
                a.compare = 0;
            }
        }
        sgz_codec_decoder_free(&a);
        sgz_codec_decoder_free(&b);
    }
    sgz_codec_points_free(&points);
    return 0;
}
