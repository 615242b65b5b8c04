/* codec/crc64.c against the definition. */
#include "codec/crc64.h"

#include "check.h"

static uint64_t plain(uint64_t crc, const uint8_t *p, size_t len)
{
    crc = ~crc;
    while (len--) {
        crc ^= *p++;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0xd800000000000000u : crc >> 1;
    }
    return ~crc;
}

int main(void)
{
    uint8_t data[3000];
    CHECK(sgz_codec_crc64(0, "123456789", 9) == 0xb90956c775a41001u);
    CHECK(sgz_codec_crc64(0, "", 0) == 0);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)below(256);
    for (int round = 0; round < 20000; round++) {
        size_t start = below(64), len = below(round & 1 ? 300 : 2900), cut = below((uint32_t)len + 1);
        uint64_t whole = plain(0, data + start, len);
        CHECK(sgz_codec_crc64(0, data + start, len) == whole);
        uint64_t first = sgz_codec_crc64(0, data + start, cut);
        CHECK(sgz_codec_crc64(first, data + start + cut, len - cut) == whole);
    }
    return 0;
}
