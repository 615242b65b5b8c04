#include "codec/lz_tables.h"

#include <string.h>

#define ALWAYS static inline __attribute__((always_inline))

typedef enum { LITLEN, DISTANCE, PRECODE } kind;

/* A symbol's entry, without its code's length. */
ALWAYS uint32_t entry_of(kind k, unsigned symbol)
{
    if (k == PRECODE)
        return symbol << 16;
    if (k == DISTANCE)
        return symbol < SGZ_DISTANCES ? (uint32_t)sgz_codec_distance_base[symbol] << 17 | symbol << 12
                                            | sgz_codec_distance_extra[symbol]
                                      : 0;
    if (symbol < SGZ_END_OF_BLOCK)
        return SGZ_LZ_LITERAL | symbol << 16;
    if (symbol == SGZ_END_OF_BLOCK)
        return SGZ_LZ_OTHER | SGZ_LZ_END;
    if (symbol >= SGZ_LITLENS)
        return SGZ_LZ_OTHER | SGZ_LZ_NONE;
    symbol -= SGZ_END_OF_BLOCK + 1;
    return (uint32_t)sgz_codec_length_base[symbol] << 16 | sgz_codec_length_extra[symbol];
}

ALWAYS uint32_t none_of(kind k)
{
    return k == LITLEN ? SGZ_LZ_OTHER | SGZ_LZ_NONE : k == PRECODE ? SGZ_LZ_NONE : 0;
}

ALWAYS uint32_t with_length(kind k, uint32_t entry, unsigned len)
{
    /* What is no symbol stays that, whatever its code. */
    return k == DISTANCE && !entry ? 0 : entry + len * 0x101;
}

ALWAYS uint32_t behind(kind k, unsigned main_bits, unsigned bits, size_t at)
{
    return k == LITLEN ? SGZ_LZ_OTHER | bits << 8 | (uint32_t)at << 16 | main_bits
                       : bits << 12 | (uint32_t)at << 17 | main_bits;
}

/* Codes are kept with their first bit lowest, as the stream has them. The next code of this length;
 * the same one is also the first of those that are longer. */
ALWAYS uint32_t next_code(uint32_t code, unsigned len)
{
    uint32_t bit = 1u << (len - 1);
    while (code & bit) {
        code ^= bit;
        bit >>= 1;
    }
    return code | bit;
}

/* The codes that are longer than the table, which begin with `order[i]`'s. */
ALWAYS void build_behind(kind k, uint32_t *table, unsigned main_bits, const uint8_t *lengths,
                         const uint16_t *order, unsigned i, unsigned count, uint32_t code)
{
    uint32_t mask = (1u << main_bits) - 1;
    size_t at = (size_t)1 << main_bits;
    while (i < count) {
        /* Those with the same beginning follow on each other, the longest one last. */
        uint32_t begin = code & mask, scan = code;
        unsigned end = i, last = 0;
        while (end < count && (scan & mask) == begin) {
            last = lengths[order[end]];
            scan = next_code(scan, last);
            end++;
            if (!scan) /* it was the very last code */
                break;
        }
        unsigned bits = last - main_bits;
        for (size_t j = 0; j < (size_t)1 << bits; j++)
            table[at + j] = none_of(k);
        table[begin] = behind(k, main_bits, bits, at);
        for (; i < end; i++) {
            unsigned len = lengths[order[i]] - main_bits;
            uint32_t entry = with_length(k, entry_of(k, order[i]), len);
            for (size_t j = code >> main_bits; j < (size_t)1 << bits; j += (size_t)1 << len)
                table[at + j] = entry;
            code = next_code(code, lengths[order[i]]);
        }
        at += (size_t)1 << bits;
    }
}

ALWAYS int build(kind k, uint32_t *table, unsigned main_bits, unsigned max, const uint8_t *lengths,
                 unsigned count)
{
    unsigned counts[SGZ_CODE_MAX + 1] = {0}, first[SGZ_CODE_MAX + 2];
    uint16_t order[SGZ_LITLENS + 2];
    uint32_t used = 0, code = 0;
    for (unsigned i = 0; i < count; i++)
        counts[lengths[i]]++;
    counts[0] = 0;
    first[0] = first[1] = 0;
    for (unsigned len = 1; len <= max; len++) {
        used += counts[len] << (max - len);
        first[len + 1] = first[len] + counts[len];
    }
    if (used > 1u << max)
        return 0;
    unsigned codes = first[max + 1], i = 0;
    for (unsigned s = 0; s < count; s++)
        if (lengths[s])
            order[first[lengths[s]]++] = (uint16_t)s;
    /* The table for so many bits, doubled as codes get longer. */
    table[0] = none_of(k);
    for (unsigned len = 1; len <= main_bits; len++) {
        size_t half = (size_t)1 << (len - 1);
        memcpy(table + half, table, half * sizeof *table);
        for (unsigned n = counts[len]; n; n--) {
            table[code] = with_length(k, entry_of(k, order[i++]), len);
            code = next_code(code, len);
        }
    }
    if (i < codes)
        build_behind(k, table, main_bits, lengths, order, i, codes, code);
    return 1;
}

int sgz_codec_lz_litlens(sgz_lz_tables *t, const uint8_t *lengths, unsigned count)
{
    return build(LITLEN, t->litlen, SGZ_LITLEN_BITS, SGZ_CODE_MAX, lengths, count);
}

int sgz_codec_lz_distances(sgz_lz_tables *t, const uint8_t *lengths, unsigned count)
{
    return build(DISTANCE, t->distance, SGZ_DISTANCE_BITS, SGZ_CODE_MAX, lengths, count);
}

int sgz_codec_lz_precodes(sgz_lz_tables *t, const uint8_t *lengths)
{
    return build(PRECODE, t->precode, SGZ_PRECODE_MAX, SGZ_PRECODE_MAX, lengths, SGZ_PRECODES);
}

void sgz_codec_lz_fixed(sgz_lz_tables *t)
{
    uint8_t lengths[SGZ_LITLENS + 2];
    memset(lengths, 8, 144);
    memset(lengths + 144, 9, 112);
    memset(lengths + 256, 7, 24);
    memset(lengths + 280, 8, 8);
    sgz_codec_lz_litlens(t, lengths, sizeof lengths);
    memset(lengths, 5, SGZ_DISTANCES + 2);
    sgz_codec_lz_distances(t, lengths, SGZ_DISTANCES + 2);
}
