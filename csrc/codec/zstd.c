#include "codec/zstd.h"

#include <string.h>

#include "codec/points.h"

#define WINDOW_LOG_MAX 100 /* ZSTD_d_windowLogMax */

sgz_status sgz_codec_zstd_new(const sgz_codecs *codecs, int64_t memory, void **stream,
                              sgz_error *err)
{
    const sgz_zstd *lib = &codecs->zstd;
    if (!lib->create_dstream)
        return sgz_base_fail(err, SGZ_ECODEC, -1, NULL, 0,
                             "zstd input, but libzstd is not loaded");
    *stream = lib->create_dstream();
    if (!*stream)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
    lib->init_dstream(*stream);
    int log = 10;
    while (log < 31 && (int64_t)1 << log < memory)
        log++;
    lib->set_parameter(*stream, WINDOW_LOG_MAX, log);
    return SGZ_OK;
}

int sgz_codec_zstd_has_sum(const uint8_t *p, size_t len)
{
    return len < 5 || p[0] != 0x28 || p[4] & 4;
}

static uint64_t little_endian(const uint8_t *p, size_t n)
{
    uint64_t value = 0;
    while (n--)
        value = value << 8 | p[n];
    return value;
}

/* A frame of one of the formats before 0.8, which some builds of libzstd decode: most have no check
 * sum, and the limit of windows is not theirs. */
static int is_legacy(const uint8_t *p, size_t len)
{
    return len >= 4 && !memcmp(p + 1, "\xb5\x2f\xfd", 3) &&
           (p[0] == 0x1e || (p[0] >= 0x22 && p[0] <= 0x27));
}

/* RFC 8878, 3.1.1.1. */
sgz_status sgz_codec_zstd_check(const uint8_t *p, size_t len, int64_t memory, int64_t offset,
                                sgz_zstd_blocks *blocks, sgz_error *err)
{
    static const uint8_t dictionary_bytes[] = {0, 1, 2, 4}, content_bytes[] = {0, 2, 4, 8};
    *blocks = (sgz_zstd_blocks){.skip = INT64_MAX};
    if (is_legacy(p, len))
        return sgz_base_fail(err, SGZ_EDATA, offset, NULL, 0,
                             "a zstd frame of a format of before 2016, which is not read; compress it "
                             "again");
    if (len < 6 || p[0] != 0x28)
        return SGZ_OK;
    int descriptor = p[4], single = descriptor & 0x20;
    size_t dictionary = dictionary_bytes[descriptor & 3], at = single ? 5 : 6;
    size_t content = content_bytes[descriptor >> 6];
    if (single && !content)
        content = 1;
    if (len < at + dictionary + content)
        return SGZ_OK;
    blocks->skip = (int64_t)(at + dictionary + content);
    uint64_t id = little_endian(p + at, dictionary);
    if (id)
        return sgz_base_fail(err, SGZ_EDATA, offset, NULL, 0,
                             "a zstd frame needs the dictionary %llu, which is not there; "
                             "compress it without one", (unsigned long long)id);
    uint64_t window = little_endian(p + at + dictionary, content) + (content == 2 ? 256 : 0);
    blocks->sized = content > 0;
    blocks->content = window;
    if (!single)
        window = ((uint64_t)1 << (10 + (p[5] >> 3))) / 8 * (8 + (p[5] & 7));
    if (window <= (uint64_t)memory)
        return SGZ_OK;
    uint64_t mib = (window >> 20) + ((window & ((1 << 20) - 1)) != 0);
    if (memory == SGZ_FRAME_MEMORY)
        return sgz_base_fail(err, SGZ_EDATA, offset, NULL, 0,
                             "a zstd frame has a window of %llu MiB, over the limit of %lld MiB "
                             "for zstd:chunked; convert the layer again",
                             (unsigned long long)mib, (long long)(memory >> 20));
    return sgz_base_fail(err, SGZ_EDATA, offset, NULL, 0,
                         "a zstd frame has a window of %llu MiB, over the limit of %lld MiB; "
                         "allow it with memory (--memory %lluMiB), or compress with a smaller one",
                         (unsigned long long)mib, (long long)(memory >> 20),
                         (unsigned long long)mib);
}

static sgz_status follow_blocks(sgz_zstd_blocks *blocks, const uint8_t *data, size_t len,
                                int64_t offset, sgz_error *err)
{
    enum { REPEATED = 1, COMPRESSED = 2 };
    while (len) {
        if (blocks->skip) {
            size_t step = (uint64_t)blocks->skip < len ? (size_t)blocks->skip : len;
            blocks->skip -= (int64_t)step;
            data += step;
            len -= step;
            continue;
        }
        blocks->header |= (uint32_t)*data++ << 8 * blocks->have++;
        len--;
        if (blocks->have < 3)
            continue;
        uint32_t last = blocks->header & 1, type = blocks->header >> 1 & 3,
                 size = blocks->header >> 3;
        if (type == COMPRESSED && !size)
            return sgz_base_fail(err, SGZ_EDATA, offset, NULL, 0,
                                 "corrupt zstd frame: a compressed block of no bytes");
        blocks->skip = last ? INT64_MAX : type == REPEATED ? 1 : size;
        blocks->header = blocks->have = 0;
    }
    return SGZ_OK;
}

sgz_status sgz_codec_zstd_follow(sgz_zstd_blocks *blocks, const uint8_t *data, size_t len,
                                 size_t made, int ended, int64_t offset, sgz_error *err)
{
    sgz_status status = follow_blocks(blocks, data, len, offset, err);
    blocks->made += made;
    if (status || !ended || !blocks->sized || blocks->made == blocks->content)
        return status;
    return sgz_base_fail(err, SGZ_EDATA, offset, NULL, 0,
                         "corrupt zstd frame: it decodes to %llu bytes, and says %llu",
                         (unsigned long long)blocks->made, (unsigned long long)blocks->content);
}
