/* Entering blobs at points of every kind. */
#include <unistd.h>

#include "layer.h"
#include "streams.h"

static const size_t STEPS[] = {1, 13, 4096, 1 << 20};

/* Decode from the point at `offset` to blob offset `end`: `len` bytes, those at `text`. */
static void check_from(sgz_decoder *d, int64_t offset, int64_t end, const uint8_t *text,
                       size_t len, size_t step)
{
    uint8_t *out = malloc(step);
    sgz_error err;
    size_t done = 0, got = 1;
    CHECK(out && !sgz_codec_decoder_enter(d, offset, end, &err));
    while (done < len && got) {
        size_t want = len - done < step ? len - done : step;
        CHECK(!sgz_codec_decoder_read(d, out, want, &got, &err));
        CHECK(!memcmp(out, text + done, got));
        done += got;
    }
    CHECK(done == len);
    free(out);
}

static int read_at(void *arg, int64_t offset, uint8_t *out, size_t len)
{
    memcpy(out, (const uint8_t *)arg + offset, len);
    return 0;
}

/* All spans, each by itself and on from it, in any order, from memory and by pieces. */
static void check_spans(const stream *s)
{
    const sgz_points *p = &s->points;
    sgz_blob memory = {.data = s->blob, .fd = -1, .size = (int64_t)s->len};
    sgz_blob pieces = {.fd = -1, .read_at = read_at, .arg = s->blob, .size = (int64_t)s->len};
    sgz_error err;
    for (int far = 0; far < 2; far++) {
        sgz_decoder d;
        CHECK(!sgz_codec_decoder_init(&d, &codecs, far ? &pieces : &memory, p, &err));
        for (size_t n = 0; n < p->count; n++) {
            size_t i = (n * 7) % p->count;
            size_t from = (size_t)p->at[i].out;
            size_t to = (size_t)(i + 1 < p->count ? p->at[i + 1].out : p->end);
            check_from(&d, p->at[i].offset, sgz_codec_points_end(p, i), s->text + from, to - from,
                       STEPS[1 + n % 3]);
            if (n % 5 == 0) /* through ends of members, to the end */
                check_from(&d, p->at[i].offset, p->size, s->text + from, s->size - from, 4096);
        }
        CHECK(sgz_codec_decoder_enter(&d, p->at[0].offset + 1, p->size, &err) == SGZ_ETOC);
        sgz_codec_decoder_free(&d);
    }
}

static void test_deflate(void)
{
    unsigned skips = 0, short_windows = 0;
    for (int kind = 0; kind < 6; kind++) {
        size_t size = 300000;
        stream s = new_stream(size);
        int strategy = kind == 2 ? 4 : kind == 3 ? 2 : 0; /* fixed codes, Huffman only */
        int level = kind == 4 ? 0 : kind == 5 ? 9 : 6;
        size_t flush = kind == 5 ? 40000 : 1777;
        add_member(&s, 0, size / 3, level, strategy, flush);
        add_member(&s, size / 3, size / 3 + 10, level, strategy, 0);
        add_member(&s, size / 3 + 10, size, level, strategy, flush);
        find_points(&s, 32768);
        CHECK(s.points.count > 3);
        for (size_t i = 0; i < s.points.count; i++) {
            skips |= 1u << s.points.at[i].skip;
            short_windows += s.points.at[i].history > 0 && s.points.at[i].history < 32768;
        }
        check_spans(&s);
        free_stream(&s);
    }
    CHECK(skips == 0xff); /* every bit of a byte */
    CHECK(short_windows);
}

/* Histories that are kept deflated, and broken ones. */
static void test_packed(void)
{
    stream s = new_stream(200000);
    sgz_points packed = {.kind = SGZ_POINT_DEFLATE, .size = 0};
    sgz_blob blob = {.data = s.blob, .fd = -1};
    sgz_deflater z;
    sgz_error err;
    uint8_t *room = malloc(sgz_codec_member_bound(32768));
    add_member(&s, 0, s.size, 6, 0, 30000);
    find_points(&s, 32768);
    packed.size = blob.size = (int64_t)s.len;
    packed.end = (int64_t)s.size;
    CHECK(room && !sgz_codec_deflater_init(&z, &codecs, 1, &err));
    for (size_t i = 0; i < s.points.count; i++) {
        sgz_point p = s.points.at[i];
        const uint8_t *window = s.points.windows + p.window;
        if (p.history) {
            size_t len;
            CHECK(!sgz_codec_deflate_member(&z, window, p.history, 0, room,
                                            sgz_codec_member_bound(32768), &len, &err));
            p.packed = (uint32_t)(len - SGZ_GZIP_HEADER - SGZ_GZIP_TRAILER);
            window = room + SGZ_GZIP_HEADER;
        }
        CHECK(!sgz_codec_points_append(&packed, p, window, &err));
    }
    sgz_codec_points_free(&s.points);
    s.points = packed;
    check_spans(&s);
    /* Cut off, and garbled: an error, and the decoder is as good as before. */
    sgz_decoder d;
    CHECK(!sgz_codec_decoder_init(&d, &codecs, &blob, &s.points, &err));
    size_t last = s.points.count - 1;
    sgz_point *at = &s.points.at[last];
    at->packed -= 5;
    CHECK(sgz_codec_decoder_enter(&d, at->offset, blob.size, &err) == SGZ_EDATA);
    at->packed += 5;
    s.points.windows[at->window] ^= 7;
    s.points.windows[at->window + 1] ^= 0xff;
    int st = sgz_codec_decoder_enter(&d, at->offset, blob.size, &err);
    CHECK(!st || st == SGZ_EDATA);
    check_from(&d, s.points.at[1].offset, blob.size, s.text + s.points.at[1].out, 100, 100);
    sgz_codec_decoder_free(&d);
    sgz_codec_deflater_free(&z);
    free(room);
    free_stream(&s);
}

/* References before what is known of the history are an error; those into it give what it has. */
static void test_wrong_windows(void)
{
    stream s = new_stream(200000);
    sgz_blob blob = {.data = s.blob, .fd = -1};
    sgz_decoder d;
    sgz_error err;
    uint8_t out[20000];
    size_t got, wrong = 0, refused = 0;
    add_member(&s, 0, s.size, 6, 0, 30000);
    find_points(&s, 100);
    blob.size = (int64_t)s.len;
    CHECK(!sgz_codec_decoder_init(&d, &codecs, &blob, &s.points, &err));
    for (size_t i = 1; i < s.points.count; i++) {
        CHECK(!sgz_codec_decoder_enter(&d, s.points.at[i].offset, blob.size, &err));
        int st = sgz_codec_decoder_read(&d, out, sizeof out, &got, &err);
        CHECK(!st || st == SGZ_EDATA);
        refused += st != 0;
        wrong += !st && memcmp(out, s.text + s.points.at[i].out, got);
    }
    CHECK(refused && !wrong);
    sgz_codec_decoder_free(&d);
    free_stream(&s);
}

static void test_later_members(void)
{
    stream s = new_stream(100000);
    sgz_blob blob = {.data = s.blob, .fd = -1};
    sgz_decoder d;
    sgz_error err;
    uint8_t *out = malloc(s.size);
    size_t got;
    add_member(&s, 0, 60000, 6, 0, 20000);
    size_t first = s.len;
    add_member(&s, 60000, s.size, 6, 0, 0);
    find_points(&s, 32768);
    blob.size = (int64_t)s.len;
    CHECK(!sgz_codec_decoder_init(&d, &codecs, &blob, &s.points, &err));
    /* The member it was entered in has no check sum to compare, the next one has. */
    s.blob[first - 8] ^= 1;
    check_from(&d, s.points.at[1].offset, blob.size, s.text + s.points.at[1].out,
               s.size - (size_t)s.points.at[1].out, 4096);
    s.blob[s.len - 8] ^= 1;
    CHECK(!sgz_codec_decoder_enter(&d, s.points.at[1].offset, blob.size, &err));
    CHECK(sgz_codec_decoder_read(&d, out, s.size, &got, &err) == SGZ_EDATA);
    CHECK(strstr(err.message, "CRC-32"));
    /* And one that is entered where its data begins has. */
    CHECK(!sgz_codec_decoder_enter(&d, s.points.at[0].offset, blob.size, &err));
    CHECK(sgz_codec_decoder_read(&d, out, s.size, &got, &err) == SGZ_EDATA);
    CHECK(strstr(err.message, "CRC-32"));
    sgz_codec_decoder_free(&d);
    free(out);
    free_stream(&s);
}

static void test_zstd(void)
{
    stream s = new_stream(500000);
    sgz_error err;
    s.points.kind = SGZ_POINT_ZSTD;
    for (size_t at = 0, n; at < s.size; at += n) {
        n = 1 + below(30000);
        n = n < s.size - at ? n : s.size - at;
        sgz_point p = {.offset = (int64_t)s.len, .out = (int64_t)at};
        CHECK(!sgz_codec_points_append(&s.points, p, NULL, &err));
        add_frame(&s, at, at + n);
    }
    memset(s.blob + s.len, 0, 600); /* padded */
    s.len += 600;
    s.points.size = (int64_t)s.len;
    s.points.end = (int64_t)s.size;
    check_spans(&s);
    sgz_blob blob = {.data = s.blob, .fd = -1, .size = (int64_t)s.len};
    sgz_decoder d;
    uint8_t out[30000];
    size_t got;
    CHECK(!sgz_codec_decoder_init(&d, &codecs, &blob, &s.points, &err));
    int64_t offset = s.points.at[2].offset, end = sgz_codec_points_end(&s.points, 2);
    CHECK(!sgz_codec_decoder_enter(&d, offset, end - 3, &err));
    CHECK(sgz_codec_decoder_read(&d, out, sizeof out, &got, &err) == SGZ_EDATA);
    s.blob[offset + 1] ^= 1;
    CHECK(!sgz_codec_decoder_enter(&d, offset, end, &err));
    CHECK(sgz_codec_decoder_read(&d, out, sizeof out, &got, &err) == SGZ_EDATA);
    CHECK(err.offset == offset);
    sgz_codec_decoder_free(&d);
    free_stream(&s);
}

static void test_stored(void)
{
    stream s = new_stream(300000);
    sgz_blob blob = {.data = s.text, .fd = -1, .size = (int64_t)s.size};
    sgz_points stored = {.kind = SGZ_POINT_STORED, .size = (int64_t)s.size,
                         .end = (int64_t)s.size};
    sgz_decoder d;
    sgz_error err;
    CHECK(!sgz_codec_decoder_init(&d, &codecs, &blob, &stored, &err));
    for (int i = 0; i < 100; i++) {
        size_t from = below((uint32_t)s.size);
        check_from(&d, (int64_t)from, blob.size, s.text + from, s.size - from, STEPS[2]);
    }
    sgz_codec_decoder_free(&d);
    free_stream(&s);
}

int main(void)
{
    sgz_error err;
    load_codecs();
    load_streams();
    CHECK(!sgz_codec_load_zstd(&codecs, "libzstd.so.1", &err));
    test_deflate();
    test_packed();
    test_wrong_windows();
    test_later_members();
    test_zstd();
    test_stored();
    return 0;
}
