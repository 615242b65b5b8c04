/* Tables that deflate's codes are decoded with: an entry for each value that the next bits may
 * have, and for longer codes tables behind it. */
#ifndef SGZ_CODEC_LZ_TABLES_H
#define SGZ_CODEC_LZ_TABLES_H

#include "codec/lz.h"

#define SGZ_LITLEN_BITS 11
#define SGZ_DISTANCE_BITS 9

/* Of all entries bits 0 to 5 say how many bits of the stream are done with, extra bits with them,
 * and 8 to 11 how many of them are the code. Then
 *   litlen    16..24 a literal, or a length's base; 15 it is a literal, 14 something else:
 *             12 no symbol, 13 the end of the block, neither: a table behind, which takes as many
 *             bits as stand in 8..11 and begins at 16..31
 *   distance  12..16 its symbol, 17..31 its base. With 0 in 8..11 a table behind, which takes
 *             12..16 bits and begins at 17..31, or, with 0 there, no symbol
 *   precode   16..20 its symbol; 12 no symbol */
#define SGZ_LZ_LITERAL 0x8000u
#define SGZ_LZ_OTHER 0x4000u
#define SGZ_LZ_END 0x2000u
#define SGZ_LZ_NONE 0x1000u
#define SGZ_LZ_CODE 0x0f00u

/* Every symbol with a code longer than the table has a table behind of its own, at worst. */
typedef struct {
    uint32_t litlen[(1 << SGZ_LITLEN_BITS) + ((SGZ_LITLENS + 2) << (SGZ_CODE_MAX - SGZ_LITLEN_BITS))];
    uint32_t distance[(1 << SGZ_DISTANCE_BITS)
                      + ((SGZ_DISTANCES + 2) << (SGZ_CODE_MAX - SGZ_DISTANCE_BITS))];
    uint32_t precode[1 << SGZ_PRECODE_MAX]; /* bits done with; 16..20 symbol; 12 none */
} sgz_lz_tables;

/* From the code lengths of `count` symbols. 0: there are more codes than bits have values. That
 * some values are no code's is no error until they are met. */
int sgz_codec_lz_litlens(sgz_lz_tables *t, const uint8_t *lengths, unsigned count);
int sgz_codec_lz_distances(sgz_lz_tables *t, const uint8_t *lengths, unsigned count);
int sgz_codec_lz_precodes(sgz_lz_tables *t, const uint8_t *lengths);
void sgz_codec_lz_fixed(sgz_lz_tables *t);

#endif
