/* codec/roll.c against the sum as bup defines it. */
#include "codec/roll.h"

#include "check.h"

#include <string.h>

#define LEN (200 << 10)

static void plain(const uint8_t *data, size_t len, uint64_t *bits)
{
    uint32_t s1 = 64 * 31, s2 = 64 * 63 * 31, at = 0;
    uint8_t window[64] = {0};
    for (size_t i = 0; i < len; i++) {
        uint32_t old = window[at];
        s1 += data[i] - old;
        s2 += s1 - 64 * (old + 31);
        window[at] = data[i];
        at = (at + 1) % 64;
        if ((s2 & 0xffff) == 0xffff)
            bits[i / 64] |= (uint64_t)1 << i % 64;
    }
}

/* Where sums are the target at almost every byte, and elsewhere. */
static void fill(uint8_t *data, size_t len, int kind)
{
    for (size_t i = 0; i < len; i++)
        data[i] = kind == 0   ? (uint8_t)below(256)
                  : kind == 1 ? (uint8_t)(below(2) * 255)
                  : kind == 2 ? 255
                              : (uint8_t)(i * i >> 9);
    /* Bytes of ages 1 to 64 sum up to 2080 each: 6079 is two such and 1919 more. */
    if (kind == 1)
        for (size_t i = 4096; i + 64 < len; i += 4096) {
            memset(data + i, 2, 64);
            data[i + 63] += 95;  /* 1919 = 95 * 1 + 28 * 64 + 32 */
            data[i] += 28;
            data[i + 32] += 1;
        }
}

int main(void)
{
    uint8_t *data = calloc(1, LEN + SGZ_ROLL_WINDOW);
    uint64_t *ours = malloc((LEN / 64 + 1) * 8), *theirs = malloc((LEN / 64 + 1) * 8);
    size_t hits = 0;
    CHECK(data && ours && theirs);
    for (int round = 0; round < 400; round++) {
        uint8_t *file = data + SGZ_ROLL_WINDOW;
        size_t len = below(round % 4 ? 9000 : LEN);
        fill(file, len, round % 5 < 3 ? 0 : round % 5 - 1 - (round & 1));
        memset(theirs, 0, (len + 63) / 64 * 8);
        plain(file, len, theirs);
        memset(ours, 0xa5, (len + 63) / 64 * 8);
        int any = sgz_codec_roll_scan(file, len, ours);
        CHECK(!memcmp(ours, theirs, (len + 63) / 64 * 8));
        size_t count = 0;
        for (size_t i = 0; i < (len + 63) / 64; i++)
            count += (size_t)__builtin_popcountll(ours[i]);
        CHECK(any == (count != 0));
        hits += count;
        /* Begun in the midst, it finds the same. */
        size_t from = below((uint32_t)len + 1) & ~(size_t)63;
        if (from < len) {
            sgz_codec_roll_scan(file + from, len - from, ours);
            CHECK(!memcmp(ours, theirs + from / 64, (len - from + 63) / 64 * 8));
        }
    }
    CHECK(hits > 100);
    free(data);
    free(ours);
    free(theirs);
    return 0;
}
