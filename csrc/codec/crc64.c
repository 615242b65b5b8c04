/* No tables and no carry-less multiplication: the polynomial has so few terms that a word goes on
 * by 64 bits in some shifts, since x^64 = x^4 + x^3 + x + 1, and by 512 too: a square has as many
 * terms as its root, and so x^512 = x^32 + x^24 + x^8 + 1. So eight words side by side are each
 * carried to the next eight, in vectors. Bits are reflected: the lowest is of the highest power. */
#include "codec/crc64.h"

#include <string.h>

#define LANES 8

static uint64_t word_at(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

/* What powers above 63 leave, of which there are few enough that none is above 63 again. */
static inline uint64_t reduce(uint64_t high)
{
    return high ^ high >> 1 ^ high >> 3 ^ high >> 4;
}

static inline uint64_t times_x64(uint64_t v)
{
    return v ^ v >> 1 ^ v >> 3 ^ v >> 4 ^ reduce(v << 63 ^ v << 61 ^ v << 60);
}

/* Of a word or a vector of them. */
#define TIMES_X512(v)                                                                          \
    do {                                                                                       \
        __typeof__(v) high_ = (v) << 56 ^ (v) << 40 ^ (v) << 32;                               \
        (v) ^= (v) >> 8 ^ (v) >> 24 ^ (v) >> 32;                                               \
        (v) ^= high_ ^ high_ >> 1 ^ high_ >> 3 ^ high_ >> 4;                                   \
    } while (0)

typedef uint64_t vec __attribute__((vector_size(32)));

/* A function that returned one would warn where there are no such registers. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define ADD_ROW(lanes, p)                                                                      \
    do {                                                                                       \
        vec row_;                                                                              \
        memcpy(&row_, (p), sizeof row_);                                                       \
        (lanes) ^= row_;                                                                       \
    } while (0)
#else
#define ADD_ROW(lanes, p)                                                                      \
    do {                                                                                       \
        for (int i_ = 0; i_ < 4; i_++)                                                         \
            (lanes)[i_] ^= word_at((p) + 8 * i_);                                              \
    } while (0)
#endif

/* Take whole rows; what is left of the sum is in the lanes. */
static inline __attribute__((always_inline)) const uint8_t *take_rows(uint64_t lanes[LANES],
                                                                      const uint8_t *p,
                                                                      size_t rows)
{
    vec low, high;
    memcpy(&low, lanes, sizeof low);
    memcpy(&high, lanes + 4, sizeof high);
    for (; rows; rows--, p += 64) {
        TIMES_X512(low);
        TIMES_X512(high);
        ADD_ROW(low, p);
        ADD_ROW(high, p + 32);
    }
    memcpy(lanes, &low, sizeof low);
    memcpy(lanes + 4, &high, sizeof high);
    return p;
}

#ifdef __x86_64__
__attribute__((target("avx2"))) static const uint8_t *take_rows_avx2(uint64_t lanes[LANES],
                                                                     const uint8_t *p, size_t rows)
{
    return take_rows(lanes, p, rows);
}
#endif

static const uint8_t *take(uint64_t lanes[LANES], const uint8_t *p, size_t rows)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2"))
        return take_rows_avx2(lanes, p, rows);
#endif
    return take_rows(lanes, p, rows);
}

uint64_t sgz_codec_crc64(uint64_t crc, const void *data, size_t len)
{
    const uint8_t *p = data, *end = p + len;
    uint64_t lanes[LANES];
    crc = ~crc;
    if (len >= 2 * sizeof lanes) {
        for (int i = 0; i < LANES; i++)
            lanes[i] = word_at(p + 8 * i);
        lanes[0] ^= crc;
        p = take(lanes, p + sizeof lanes, len / sizeof lanes - 1);
        crc = 0;
        for (int i = 0; i < LANES; i++)
            crc = times_x64(crc ^ lanes[i]);
    }
    for (; end - p >= 8; p += 8)
        crc = times_x64(crc ^ word_at(p));
    for (; p < end; p++) {
        crc ^= *p;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0xd800000000000000u & -(crc & 1));
    }
    return ~crc;
}
