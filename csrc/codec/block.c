#include "codec/block.h"

#include "codec/huffman.h"

#include <string.h>

#define ALWAYS static inline __attribute__((always_inline))
#define STORED_MAX 65535

/* --- what it costs ----------------------------------------------------------------------- */

/* Below 2^18, whose logarithm is 18. */
_Static_assert(SGZ_BLOCK_SYMBOLS < 1u << 18 && SGZ_BLOCK_SYMBOLS <= UINT32_MAX / (18 << 10),
               "n * log2(n) of a block's symbols in 1024ths fits 32 bits");

/* n * log2(n) in 1024ths: whole numbers alone, so that it is the same everywhere. */
ALWAYS uint32_t n_log_n(uint32_t n)
{
    union { float f; uint32_t u; } v = {.f = (float)(int32_t)n}; /* exact: below 2^24 */
    uint32_t log = (v.u >> 13) - (127u << 10), part = log & 1023;
    return n * (log + ((part * (1024 - part) * 11) >> 15));
}

ALWAYS uint64_t code_cost(const uint32_t *counts, unsigned n)
{
    uint32_t all = 0, sum = 0;
    for (unsigned i = 0; i < n; i++) {
        all += counts[i];
        sum += n_log_n(counts[i]);
    }
    uint32_t total = n_log_n(all);
    return total > sum ? total - sum : 0;
}

uint64_t sgz_codec_block_cost(const sgz_block_counts *counts)
{
    return code_cost(counts->litlen, SGZ_LITLENS + 2) + code_cost(counts->distance, SGZ_DISTANCES + 2);
}

/* --- codes ------------------------------------------------------------------------------- */

typedef struct {
    uint8_t litlen[SGZ_LITLENS + 2], distance[SGZ_DISTANCES + 2];
    uint16_t litlen_codes[SGZ_LITLENS + 2], distance_codes[SGZ_DISTANCES + 2];
} codes;

static void fixed_lengths(codes *c)
{
    memset(c->litlen, 8, 144);
    memset(c->litlen + 144, 9, 112);
    memset(c->litlen + 256, 7, 24);
    memset(c->litlen + 280, 8, 8);
    memset(c->distance, 5, sizeof c->distance);
}

static uint64_t bits_of(const codes *c, const sgz_block_counts *counts)
{
    uint32_t sum = 0; /* 15 bits of SGZ_BLOCK_SYMBOLS, and of as many distances, fit */
    for (unsigned i = 0; i < SGZ_LITLENS; i++)
        sum += counts->litlen[i] * c->litlen[i];
    for (unsigned i = 0; i < SGZ_DISTANCES; i++)
        sum += counts->distance[i] * c->distance[i];
    return sum;
}

static uint64_t extra_bits(const sgz_block_counts *counts)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < SGZ_LENGTHS; i++)
        sum += counts->litlen[SGZ_END_OF_BLOCK + 1 + i] * sgz_codec_length_extra[i];
    for (unsigned i = 0; i < SGZ_DISTANCES; i++)
        sum += counts->distance[i] * sgz_codec_distance_extra[i];
    return sum;
}

/* --- the header of a dynamic block ------------------------------------------------------- */

static const uint8_t PRECODE_EXTRA[SGZ_PRECODES] = {[16] = 2, [17] = 3, [18] = 7};

typedef struct {
    unsigned litlens, distances, precodes, count;
    uint8_t symbols[SGZ_LITLENS + SGZ_DISTANCES], extra[SGZ_LITLENS + SGZ_DISTANCES];
    uint8_t lengths[SGZ_PRECODES];
    uint64_t bits;
} header;

static void put_symbol(header *h, uint32_t *counts, unsigned symbol, unsigned extra)
{
    h->symbols[h->count] = (uint8_t)symbol;
    h->extra[h->count++] = (uint8_t)extra;
    counts[symbol]++;
}

static void make_header(header *h, const codes *c)
{
    uint8_t all[SGZ_LITLENS + SGZ_DISTANCES];
    uint32_t counts[SGZ_PRECODES] = {0};
    h->count = 0;
    for (h->litlens = SGZ_LITLENS; !c->litlen[h->litlens - 1];)
        h->litlens--;
    for (h->distances = SGZ_DISTANCES; !c->distance[h->distances - 1];)
        h->distances--;
    unsigned n = h->litlens + h->distances;
    memcpy(all, c->litlen, h->litlens);
    memcpy(all + h->litlens, c->distance, h->distances);
    for (unsigned i = 0, run; i < n; i += run) {
        for (run = 1; i + run < n && all[i + run] == all[i];)
            run++;
        unsigned left = run, k;
        if (all[i]) {
            put_symbol(h, counts, all[i], 0);
            for (left--; left >= 3; left -= k)
                put_symbol(h, counts, 16, (k = left < 6 ? left : 6) - 3);
        } else {
            for (; left >= 11; left -= k)
                put_symbol(h, counts, 18, (k = left < 138 ? left : 138) - 11);
            if (left >= 3) {
                put_symbol(h, counts, 17, left - 3);
                left = 0;
            }
        }
        while (left--)
            put_symbol(h, counts, all[i], 0);
    }
    sgz_codec_huffman(counts, SGZ_PRECODES, SGZ_PRECODE_MAX, h->lengths);
    for (h->precodes = SGZ_PRECODES; !h->lengths[sgz_codec_precode_order[h->precodes - 1]];)
        h->precodes--;
    h->precodes = h->precodes < 4 ? 4 : h->precodes;
    h->bits = 14 + 3 * h->precodes;
    for (unsigned i = 0; i < SGZ_PRECODES; i++)
        h->bits += (uint64_t)counts[i] * (h->lengths[i] + PRECODE_EXTRA[i]);
}

/* --- writing ----------------------------------------------------------------------------- */

ALWAYS void put(sgz_block_writer *w, uint64_t value, unsigned n)
{
    w->bits |= value << w->bit_count;
    w->bit_count += n;
}

ALWAYS void flush(sgz_block_writer *w)
{
    memcpy(w->at, &w->bits, sizeof w->bits);
    w->at += w->bit_count >> 3;
    w->bits >>= w->bit_count & ~7u;
    w->bit_count &= 7;
}

void sgz_codec_block_align(sgz_block_writer *w)
{
    w->bit_count = (w->bit_count + 7) & ~7u;
    flush(w);
}

static void write_header(sgz_block_writer *w, const header *h)
{
    uint16_t precodes[SGZ_PRECODES];
    put(w, (h->litlens - SGZ_END_OF_BLOCK - 1) | (h->distances - 1) << 5 | (h->precodes - 4) << 10, 14);
    flush(w);
    for (unsigned i = 0; i < h->precodes; i++) {
        put(w, h->lengths[sgz_codec_precode_order[i]], 3);
        if (i % 16 == 15)
            flush(w);
    }
    flush(w);
    sgz_codec_huffman_codes(h->lengths, SGZ_PRECODES, precodes);
    for (unsigned i = 0; i < h->count; i++) {
        unsigned s = h->symbols[i];
        put(w, precodes[s] | (uint64_t)h->extra[i] << h->lengths[s], h->lengths[s] + PRECODE_EXTRA[s]);
        flush(w);
    }
}

/* For each first half of a unit its bits and, above 27, how many; for each second half its code's,
 * above 22 how many these are, and above 27 how many with what is added. */
static void make_tables(sgz_block_writer *w, codes *c)
{
    sgz_codec_huffman_codes(c->litlen, SGZ_LITLENS + 2, c->litlen_codes);
    sgz_codec_huffman_codes(c->distance, SGZ_DISTANCES + 2, c->distance_codes);
    for (unsigned i = 0; i <= SGZ_END_OF_BLOCK; i++)
        w->firsts[i] = c->litlen_codes[i] | (uint32_t)c->litlen[i] << 27;
    for (unsigned s = 0; s < SGZ_LENGTHS; s++) {
        unsigned symbol = SGZ_END_OF_BLOCK + 1 + s, len = c->litlen[symbol];
        unsigned base = SGZ_UNIT_LEN + sgz_codec_length_base[s], extra = sgz_codec_length_extra[s];
        /* 258 has a symbol of its own. */
        unsigned values = s == SGZ_LENGTHS - 2 ? 31 : 1u << extra;
        for (uint32_t x = 0; x < values; x++)
            w->firsts[base + x] = c->litlen_codes[symbol] | x << len | (uint32_t)(len + extra) << 27;
    }
    for (unsigned i = 0; i < 256; i++)
        w->seconds[i] = c->litlen_codes[i] | (uint32_t)c->litlen[i] << 22 | (uint32_t)c->litlen[i] << 27;
    w->seconds[SGZ_UNIT_NONE >> 10] = 0;
    for (unsigned i = 0; i < SGZ_DISTANCES; i++)
        w->seconds[SGZ_UNIT_DISTANCE + i] =
            c->distance_codes[i] | (uint32_t)c->distance[i] << 22
            | (uint32_t)(c->distance[i] + sgz_codec_distance_extra[i]) << 27;
}

ALWAYS uint64_t unit_bits(const sgz_block_writer *w, uint32_t unit, unsigned *n)
{
    uint32_t first = w->firsts[unit & 1023], second = w->seconds[unit >> 10 & 511];
    uint64_t tail = (second & 0xffff) | (uint64_t)(unit >> SGZ_UNIT_EXTRA) << (second >> 22 & 31);
    *n = (first >> 27) + (second >> 27);
    return (first & 0x7ffffff) | tail << (first >> 27);
}

/* Two units take 56 bits mostly, 96 at most. */
ALWAYS void write_units(sgz_block_writer *w, const uint32_t *units, size_t count)
{
    uint8_t *at = w->at;
    uint64_t bits = w->bits;
    unsigned have = w->bit_count, n, m;
#define FLUSH()                          \
    do {                                 \
        memcpy(at, &bits, sizeof bits);  \
        at += have >> 3;                 \
        bits >>= have & ~7u;             \
        have &= 7;                       \
    } while (0)
    for (size_t i = 0; i + 1 < count; i += 2) {
        uint64_t a = unit_bits(w, units[i], &n), b = unit_bits(w, units[i + 1], &m);
        if (__builtin_expect(n + m <= 56, 1)) {
            bits |= (a | b << n) << have;
            have += n + m;
        } else {
            bits |= a << have;
            have += n;
            FLUSH();
            bits |= b << have;
            have += m;
        }
        FLUSH();
    }
    if (count % 2) {
        bits |= unit_bits(w, units[count - 1], &n) << have;
        have += n;
        FLUSH();
    }
    w->at = at;
    w->bits = bits;
    w->bit_count = have;
    put(w, w->firsts[SGZ_END_OF_BLOCK] & 0xffff, w->firsts[SGZ_END_OF_BLOCK] >> 27);
    flush(w);
}

static void write_units_any(sgz_block_writer *w, const uint32_t *units, size_t count)
{
    write_units(w, units, count);
}

#ifdef __x86_64__
__attribute__((target("bmi,bmi2"))) static void write_units_bmi2(sgz_block_writer *w,
                                                                 const uint32_t *units, size_t count)
{
    write_units(w, units, count);
}
#endif

static void write_stored(sgz_block_writer *w, const uint8_t *data, size_t len, int last)
{
    do {
        size_t n = len < STORED_MAX ? len : STORED_MAX;
        put(w, (uint64_t)(last && n == len), 3);
        sgz_codec_block_align(w);
        put(w, n | (n ^ 0xffff) << 16, 32);
        flush(w);
        memcpy(w->at, data, n);
        w->at += n;
        data += n;
        len -= n;
    } while (len);
}

/* With few symbols the header alone is longer than what better codes save: about so much. */
static uint64_t header_about(const sgz_block_counts *counts)
{
    uint64_t used = 0;
    for (unsigned i = 0; i < SGZ_LITLENS; i++)
        used += counts->litlen[i] != 0;
    for (unsigned i = 0; i < SGZ_DISTANCES; i++)
        used += counts->distance[i] != 0;
    return 80 + 4 * used;
}

#define FEW 128 /* units */

void sgz_codec_block_write(sgz_block_writer *w, const uint32_t *units, size_t count,
                           sgz_block_counts *counts, const uint8_t *data, size_t len, int last)
{
    codes c, f;
    header h;
    counts->litlen[SGZ_END_OF_BLOCK]++;
    fixed_lengths(&f);
    uint64_t extra = extra_bits(counts), fixed = bits_of(&f, counts) + extra, dynamic = UINT64_MAX;
    uint64_t stored = 8 * (len + 5 * (len / STORED_MAX + 1));
    if (count >= FEW || fixed > sgz_codec_block_cost(counts) / 1024 + extra + header_about(counts)) {
        sgz_codec_huffman(counts->litlen, SGZ_LITLENS, SGZ_CODE_MAX, c.litlen);
        sgz_codec_huffman(counts->distance, SGZ_DISTANCES, SGZ_CODE_MAX, c.distance);
        memset(c.litlen + SGZ_LITLENS, 0, 2);
        memset(c.distance + SGZ_DISTANCES, 0, 2);
        make_header(&h, &c);
        dynamic = h.bits + bits_of(&c, counts) + extra;
    }
    if (stored <= fixed && stored <= dynamic) {
        write_stored(w, data, len, last);
        return;
    }
    int is_fixed = fixed <= dynamic;
    put(w, (unsigned)(last != 0) | (is_fixed ? 2 : 4), 3);
    if (is_fixed) {
        flush(w);
        if (!w->fixed)
            make_tables(w, &f);
    } else {
        write_header(w, &h);
        make_tables(w, &c);
    }
    w->fixed = is_fixed;
#ifdef __x86_64__
    if (__builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2")) {
        write_units_bmi2(w, units, count);
        return;
    }
#endif
    write_units_any(w, units, count);
}
