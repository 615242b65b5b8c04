/* codec/frames.c, read again by libzstd, and by what the package reads frames with. */
#include "codec/frames.h"

#include "check.h"

#include <dlfcn.h>
#include <string.h>

#define LEN (300 << 10)

static sgz_codecs codecs;
static uint8_t text[LEN], packed[2 * LEN], again[LEN + 1];

typedef struct {
    uint8_t *data;
    size_t len;
} memory;

static sgz_status keep(void *arg, const uint8_t *data, size_t len, sgz_error *err)
{
    memory *m = arg;
    (void)err;
    CHECK(m->len + len <= sizeof packed - SGZ_FRAME_SIZED);
    memcpy(m->data + m->len, data, len);
    m->len += len;
    return SGZ_OK;
}

static size_t (*zstd_decompress)(void *, size_t, const void *, size_t);
static unsigned long long (*content_size)(const void *, size_t);

static void check_frame(size_t packed_len, size_t len)
{
    /* Bit 2 of the descriptor: a check sum; the size stands there. */
    CHECK(packed[4] & 4);
    CHECK(content_size(packed, packed_len) == len);
    CHECK(zstd_decompress(again, sizeof again, packed, packed_len) == len);
    CHECK(!memcmp(again, text, len));
}

int main(void)
{
    sgz_error err;
    void *zstd = dlopen("libzstd.so.1", RTLD_NOW);
    CHECK(zstd);
    *(void **)&zstd_decompress = dlsym(zstd, "ZSTD_decompress");
    *(void **)&content_size = dlsym(zstd, "ZSTD_getFrameContentSize");
    sgz_framer none = {0};
    CHECK(sgz_codec_framer_init(&none, &codecs, 3, &err) == SGZ_ECODEC);
    sgz_codec_framer_free(&none);
    CHECK(!sgz_codec_load_zstd(&codecs, "libzstd.so.1", &err));
    CHECK(codecs.zstd.version()[0] == '1');
    for (size_t i = 0; i < LEN; i++)
        text[i] = i > 9000 && below(5) ? text[i - 8000 - below(2)] : (uint8_t)below(200);
    for (int level = 1; level <= SGZ_ZSTD_LEVEL_MAX; level += 3) {
        sgz_framer f = {0}, other = {0}, pieces = {0};
        static uint8_t same[sizeof packed];
        size_t made, made_again;
        CHECK(!sgz_codec_framer_init(&f, &codecs, level, &err));
        CHECK(!sgz_codec_framer_init(&pieces, &codecs, level, &err));
        for (int round = 0; round < 12; round++) {
            size_t len = round ? below(round & 1 ? LEN : 2000) : 0;
            CHECK(!sgz_codec_frame(&f, text, len, packed, sgz_codec_frame_bound(len), &made, &err));
            check_frame(made, len);
            /* One that was used before makes the same bytes as a new one. */
            CHECK(!sgz_codec_framer_init(&other, &codecs, level, &err));
            CHECK(!sgz_codec_frame(&other, text, len, same, sizeof same, &made_again, &err));
            CHECK(made == made_again && !memcmp(packed, same, made));
            sgz_codec_framer_free(&other);

            /* In pieces, the header is replaced in the end. */
            memory m = {packed + SGZ_FRAME_SIZED - SGZ_FRAME_UNSIZED, 0};
            CHECK(!sgz_codec_frame_begin(&pieces, &err));
            for (size_t at = 0; at < len;) {
                size_t n = 1 + below(40000);
                n = n < len - at ? n : len - at;
                CHECK(!sgz_codec_frame_piece(&pieces, text + at, n, 0, keep, &m, &err));
                at += n;
            }
            CHECK(!sgz_codec_frame_piece(&pieces, text, 0, 1, keep, &m, &err));
            CHECK(content_size(m.data, m.len) == ~0ull);
            uint8_t head[SGZ_FRAME_SIZED];
            sgz_codec_frame_sized(m.data, len, head);
            memcpy(packed, head, sizeof head);
            check_frame((size_t)(m.data - packed) + m.len, len);
        }
        /* More than there is room for is an error. */
        CHECK(sgz_codec_frame(&f, text, LEN, packed, 10, &made, &err) == SGZ_ECODEC);
        CHECK(!sgz_codec_frame(&f, text, 100, packed, sizeof packed, &made, &err));
        check_frame(made, 100);
        sgz_codec_framer_free(&f);
        sgz_codec_framer_free(&pieces);
    }
    uint8_t head[SGZ_SKIPPABLE_HEADER];
    sgz_codec_skippable(head, 0x01020304);
    CHECK(!memcmp(head, "\x50\x2a\x4d\x18\4\3\2\1", 8));
    return 0;
}
