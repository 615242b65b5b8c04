#include "codec/roll.h"

#include <string.h>

#define WINDOW SGZ_ROLL_WINDOW
#define LANES 16
#define STEPS 16 /* that are transposed at a time */
/* Bytes of one lane: each reads the window before it anew. Fewer are summed one by one. */
#define LANE_MAX (SGZ_ROLL_BLOCK / LANES)
#define LANE_MIN 128

/* A chunk ends where the low 16 bits of bup's sum are all ones. It adds 31 to each byte, which makes
 * the same of every window: what is left must be this. */
#define TARGET ((uint16_t)(0xffff - 64 * 63 * 31))

static inline void set_bit(uint64_t *bits, size_t i)
{
    bits[i / 64] |= (uint64_t)1 << i % 64;
}

/* Byte by byte, from byte `begin` on. */
static int scan_rest(const uint8_t *data, size_t begin, size_t len, uint64_t *bits)
{
    uint16_t s1 = 0, s2 = 0;
    int any = 0;
    const uint8_t *p = data + begin - WINDOW;
    for (; p < data + begin; p++)
        s2 = (uint16_t)(s2 + (s1 = (uint16_t)(s1 + *p)));
    for (; p < data + len; p++) {
        unsigned old = p[-WINDOW];
        s1 = (uint16_t)(s1 + *p - old);
        s2 = (uint16_t)(s2 + s1 - WINDOW * old);
        if (__builtin_expect(s2 == TARGET, 0)) {
            set_bit(bits, (size_t)(p - data));
            any = 1;
        }
    }
    return any;
}

/* Lanes are pieces of the data, one behind the other: their bytes come together by transposing
 * squares of 16 bytes of each. */
typedef uint8_t row __attribute__((vector_size(LANES)));
typedef uint16_t sums __attribute__((vector_size(2 * LANES)));

#define ALWAYS static inline __attribute__((always_inline))

/* Clang has one that GCC has from 12 on, GCC another. */
#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (row){__VA_ARGS__})
#endif
#define LOW(a, b) SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define HIGH(a, b) SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)

ALWAYS void transpose(row square[STEPS])
{
    row other[STEPS];
    for (int half = 0; half < 2; half++) {
        for (int i = 0; i < STEPS / 2; i++) {
            other[2 * i] = LOW(square[i], square[i + STEPS / 2]);
            other[2 * i + 1] = HIGH(square[i], square[i + STEPS / 2]);
        }
        for (int i = 0; i < STEPS / 2; i++) {
            square[2 * i] = LOW(other[i], other[i + STEPS / 2]);
            square[2 * i + 1] = HIGH(other[i], other[i + STEPS / 2]);
        }
    }
}

ALWAYS void load(const uint8_t *data, size_t lane, row square[STEPS])
{
    for (int i = 0; i < LANES; i++)
        memcpy(&square[i], data + (size_t)i * lane, sizeof square[i]);
    transpose(square);
}

#define WIDE(v) __builtin_convertvector(v, sums)

ALWAYS int scan_lanes(const uint8_t *data, size_t lane, uint64_t *bits)
{
    row window[WINDOW / STEPS][STEPS]; /* the bytes that go out next */
    sums s1 = {0}, s2 = {0};
    int any = 0;
    for (int b = 0; b < WINDOW / STEPS; b++) {
        load(data - WINDOW + b * STEPS, lane, window[b]);
        for (int i = 0; i < STEPS; i++)
            s2 += s1 += WIDE(window[b][i]);
    }
    for (size_t at = 0; at < lane; at += STEPS) {
        row in[STEPS], *out = window[at / STEPS % (WINDOW / STEPS)];
        sums hits[STEPS], found = {0};
        load(data + at, lane, in);
        for (int i = 0; i < STEPS; i++) {
            sums old = WIDE(out[i]);
            s1 += WIDE(in[i]) - old;
            s2 += s1 - old * WINDOW;
            hits[i] = (sums)(s2 == TARGET);
            found |= hits[i];
            out[i] = in[i];
        }
        uint64_t words[sizeof found / 8];
        memcpy(words, &found, sizeof words);
        if (__builtin_expect(!(words[0] | words[1] | words[2] | words[3]), 1))
            continue;
        any = 1;
        for (int i = 0; i < STEPS; i++)
            for (size_t k = 0; k < LANES; k++)
                if (hits[i][k])
                    set_bit(bits, k * lane + at + (size_t)i);
    }
    return any;
}

#ifdef __x86_64__
__attribute__((target("avx2"))) static int scan_lanes_avx2(const uint8_t *data, size_t lane,
                                                           uint64_t *bits)
{
    return scan_lanes(data, lane, bits);
}
#endif

static int scan_block(const uint8_t *data, size_t lane, uint64_t *bits)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2"))
        return scan_lanes_avx2(data, lane, bits);
#endif
    return scan_lanes(data, lane, bits);
}

int sgz_codec_roll_scan(const uint8_t *data, size_t len, uint64_t *bits)
{
    size_t at = 0;
    int any = 0;
    memset(bits, 0, (len + 63) / 64 * sizeof *bits);
    for (size_t lane; (lane = (len - at) / LANES & ~(size_t)63) >= LANE_MIN; at += lane * LANES) {
        lane = lane < LANE_MAX ? lane : LANE_MAX;
        any |= scan_block(data + at, lane, bits + at / 64);
    }
    return any | (at < len && scan_rest(data, at, len, bits));
}
