#include "codec/huffman.h"

#include <string.h>

#define LENGTH_MAX 15
#define SYMBOL_BITS 10

/* The bits of a byte the other way round. */
#define R2(n) (n), (n) + 2 * 64, (n) + 1 * 64, (n) + 3 * 64
#define R4(n) R2(n), R2((n) + 2 * 16), R2((n) + 1 * 16), R2((n) + 3 * 16)
#define R6(n) R4(n), R4((n) + 2 * 4), R4((n) + 1 * 4), R4((n) + 3 * 4)
static const uint8_t REVERSED[256] = {R6(0), R6(2), R6(1), R6(3)};

/* Sort by the upper bits, `count` of them in use, in passes over 8 bits. */
static uint32_t *sorted(uint32_t *items, uint32_t *other, unsigned n, uint32_t top)
{
    if (n <= 24) {
        for (unsigned i = 1; i < n; i++) {
            uint32_t x = items[i];
            unsigned k = i;
            for (; k && items[k - 1] > x; k--)
                items[k] = items[k - 1];
            items[k] = x;
        }
        return items;
    }
    for (unsigned shift = SYMBOL_BITS; top; shift += 8, top >>= 8) {
        unsigned places[257] = {0};
        for (unsigned i = 0; i < n; i++)
            places[(items[i] >> shift & 255) + 1]++;
        for (unsigned i = 1; i < 256; i++)
            places[i] += places[i - 1];
        for (unsigned i = 0; i < n; i++)
            other[places[items[i] >> shift & 255]++] = items[i];
        uint32_t *swap = items;
        items = other;
        other = swap;
    }
    return items;
}

/* Huffman's tree over ascending weights, by two queues: how many leaves are at each depth. 0: some are
 * deeper than `max`. There is room for another weight. */
static int tree(uint32_t *weights, unsigned n, unsigned max, unsigned *at_depth)
{
    uint32_t sums[SGZ_HUFFMAN_MAX];
    uint16_t parent[SGZ_HUFFMAN_MAX];
    uint8_t depth[SGZ_HUFFMAN_MAX];
    unsigned leaf = 0, inner = 0, nodes = n - 1;
    /* Without branches, of which every other one would be foreseen wrongly: each queue ends with what is
     * never taken. */
    weights[n] = UINT32_MAX;
    for (unsigned i = 0; i < nodes; i++) {
        uint32_t sum = 0;
        sums[i] = UINT32_MAX - 1;
        for (int k = 0; k < 2; k++) {
            uint32_t a = weights[leaf], b = sums[inner];
            unsigned take = a <= b;
            sum += take ? a : b;
            parent[inner] = (uint16_t)i;
            leaf += take;
            inner += !take;
        }
        sums[i] = sum;
    }
    /* A depth has twice as many nodes as the one above has inner ones. */
    memset(at_depth, 0, (max + 1) * sizeof *at_depth);
    depth[nodes - 1] = 0;
    unsigned level = 0, here = 1, places = 1;
    for (unsigned i = nodes - 1; i--;) {
        depth[i] = (uint8_t)(depth[parent[i]] + 1);
        if (depth[i] != level) {
            at_depth[level] = places - here;
            places = 2 * here;
            here = 0;
            if (++level >= max)
                return 0;
        }
        here++;
    }
    at_depth[level] = places - here;
    at_depth[level + 1] = 2 * here;
    return 1;
}

/* The best lengths of at most `max`, by package-merge: for each length a list of leaves and of pairs of
 * what the list before has, by weight. */
static void limited(const uint32_t *weights, unsigned n, unsigned max, unsigned *at_depth)
{
    uint8_t is_leaf[LENGTH_MAX][2 * SGZ_HUFFMAN_MAX];
    uint32_t list[2 * SGZ_HUFFMAN_MAX], before[2 * SGZ_HUFFMAN_MAX];
    unsigned count = 0, more[LENGTH_MAX + 1];
    for (unsigned l = 0; l < max; l++) {
        unsigned pairs = count / 2, leaf = 0, pair = 0;
        memcpy(before, list, count * sizeof *list);
        for (count = 0; leaf < n || pair < pairs; count++) {
            uint32_t sum = pair < pairs ? before[2 * pair] + before[2 * pair + 1] : UINT32_MAX;
            is_leaf[l][count] = leaf < n && weights[leaf] <= sum;
            if (is_leaf[l][count]) {
                list[count] = weights[leaf++];
            } else {
                list[count] = sum;
                pair++;
            }
        }
    }
    /* Of the last list the first 2n - 2 are taken, with all that is in them: the leaves among these
     * have a bit more each time. */
    unsigned take = 2 * n - 2;
    for (unsigned l = max; l--;) {
        unsigned leaves = 0;
        for (unsigned i = 0; i < take; i++)
            leaves += is_leaf[l][i];
        more[l] = leaves;
        take = 2 * (take - leaves);
    }
    /* more[l] symbols have at least max - l bits. */
    for (unsigned l = 0; l < max; l++)
        at_depth[max - l] = more[l] - (l ? more[l - 1] : 0);
    at_depth[0] = 0;
}

void sgz_codec_huffman(const uint32_t *counts, unsigned n, unsigned max, uint8_t *lengths)
{
    uint32_t items[SGZ_HUFFMAN_MAX], other[SGZ_HUFFMAN_MAX], weights[SGZ_HUFFMAN_MAX + 1], top = 0;
    unsigned used = 0, at_depth[LENGTH_MAX + 2];
    for (unsigned i = 0; i < n; i++) {
        items[used] = counts[i] << SYMBOL_BITS | i;
        used += counts[i] != 0;
        top |= counts[i];
    }
    memset(lengths, 0, n);
    if (used < 2) {
        unsigned only = used ? items[0] & ((1u << SYMBOL_BITS) - 1) : 0;
        lengths[only] = lengths[only ? 0 : 1] = 1;
        return;
    }
    uint32_t *order = sorted(items, other, used, top);
    for (unsigned i = 0; i < used; i++)
        weights[i] = order[i] >> SYMBOL_BITS;
    if (!tree(weights, used, max, at_depth))
        limited(weights, used, max, at_depth);
    unsigned i = 0;
    for (unsigned len = max; len; len--)
        for (unsigned k = at_depth[len]; k; k--)
            lengths[order[i++] & ((1u << SYMBOL_BITS) - 1)] = (uint8_t)len;
}

void sgz_codec_huffman_codes(const uint8_t *lengths, unsigned n, uint16_t *codes)
{
    /* (Two of each: equal lengths that follow each other need not wait for each other.) */
    unsigned counts[2][LENGTH_MAX + 1] = {0}, next[LENGTH_MAX + 2] = {0};
    for (unsigned i = 0; i < n; i++)
        counts[i & 1][lengths[i]]++;
    for (unsigned len = 1; len <= LENGTH_MAX; len++)
        next[len + 1] = (next[len] + counts[0][len] + counts[1][len]) << 1;
    for (unsigned i = 0; i < n; i++) {
        unsigned len = lengths[i], code = next[len]++;
        codes[i] = (uint16_t)((REVERSED[code & 255] << 8 | REVERSED[code >> 8 & 255]) >> (16 - len));
    }
}
