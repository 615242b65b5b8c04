/* One block of deflate data, written as whatever is smallest. */
#ifndef SGZ_CODEC_BLOCK_H
#define SGZ_CODEC_BLOCK_H

#include "codec/lz.h"

/* What is coded at a time: one or two literals, or a match. From the lowest bit on a literal, or 254
 * more than a match's length (10 bits); a literal, SGZ_UNIT_NONE, or 257 more than the symbol of its
 * distance (9); and what is added to that (13). */
#define SGZ_UNIT_LEN 254
#define SGZ_UNIT_DISTANCE 257
#define SGZ_UNIT_NONE (256u << 10)
#define SGZ_UNIT_EXTRA 19
#define SGZ_UNIT_FIRSTS (SGZ_UNIT_LEN + SGZ_MATCH_MAX + 1)
#define SGZ_UNIT_SECONDS (SGZ_UNIT_DISTANCE + SGZ_DISTANCES)

/* A block's literals and lengths at most, and so its distances: what its costs have room for. */
#define SGZ_BLOCK_SYMBOLS (3u << 16)

/* How often each symbol occurs. */
typedef struct { uint32_t litlen[SGZ_LITLENS + 2], distance[SGZ_DISTANCES + 2]; } sgz_block_counts;

typedef struct {
    uint8_t *at;        /* up to 8 bytes behind it are written */
    uint64_t bits;
    unsigned bit_count; /* below 8 between blocks */
    int fixed;          /* the tables are those of fixed blocks */
    uint32_t firsts[1024], seconds[512];
} sgz_block_writer;

/* Whole bytes, at the end of the deflate data. */
void sgz_codec_block_align(sgz_block_writer *w);
/* The units, which are `len` bytes of data, and what is in them but for the end of the block. Units
 * may be read in pairs, one too far. */
void sgz_codec_block_write(sgz_block_writer *w, const uint32_t *units, size_t count,
                           sgz_block_counts *counts, const uint8_t *data, size_t len, int last);
/* What the symbols take with the best codes, about: in 1024ths of a bit. */
uint64_t sgz_codec_block_cost(const sgz_block_counts *counts);

#endif
