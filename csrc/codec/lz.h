/* Deflate data as what it says: literals, and matches (copy so many bytes from so far back). The
 * bytes of literals are not kept here: they stand in what was decoded. */
#ifndef SGZ_CODEC_LZ_H
#define SGZ_CODEC_LZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define SGZ_MATCH_MIN 3
#define SGZ_MATCH_MAX 258
#define SGZ_DISTANCE_MAX 32768

/* Of deflate (RFC 1951, 3.2.5): literals are symbols 0 to 255, 256 ends a block, lengths follow. */
#define SGZ_END_OF_BLOCK 256
#define SGZ_LENGTHS 29
#define SGZ_DISTANCES 30
#define SGZ_LITLENS (SGZ_END_OF_BLOCK + 1 + SGZ_LENGTHS)
#define SGZ_CODE_MAX 15 /* bits of a symbol */
#define SGZ_PRECODES 19 /* symbols that code lengths are written with, */
#define SGZ_PRECODE_MAX 7 /* and their bits at most */

extern const uint16_t sgz_codec_length_base[SGZ_LENGTHS], sgz_codec_distance_base[SGZ_DISTANCES];
extern const uint8_t sgz_codec_length_extra[SGZ_LENGTHS], sgz_codec_distance_extra[SGZ_DISTANCES];
extern const uint8_t sgz_codec_precode_order[SGZ_PRECODES];

/* A token: some literals, then a match. From the lowest bit on the match's length (9 bits), the
 * symbol of its distance (5) and what is added to that (13), and the number of literals (5). With a
 * length of 0 there is no match, and all bits above count literals. */
#define SGZ_LZ_RUN_MAX 31
#define SGZ_LZ_LITERALS_MAX ((1u << 23) - 1)

static inline uint32_t sgz_lz_match(uint32_t len, uint32_t symbol, uint32_t extra, uint32_t run)
{
    return len | symbol << 9 | extra << 14 | run << 27;
}

static inline uint32_t sgz_lz_literals(uint32_t run)
{
    return run << 9;
}

static inline uint32_t sgz_lz_len(uint32_t token)
{
    return token & 511;
}

static inline uint32_t sgz_lz_run(uint32_t token)
{
    return sgz_lz_len(token) ? token >> 27 : token >> 9;
}

static inline uint32_t sgz_lz_distance(uint32_t token)
{
    return sgz_codec_distance_base[token >> 9 & 31] + (token >> 14 & 8191);
}

/* Where in a stream a token begins. */
typedef struct { int64_t at; size_t token; } sgz_lz_mark;

/* Tokens of a stretch of a stream, without gaps. The last one may reach further than what was
 * decoded, or there are literals behind it. */
typedef struct {
    uint32_t *tokens;
    size_t count, cap;
    sgz_lz_mark *marks;     /* in order, the first one at the first token */
    size_t mark_count, mark_cap;
} sgz_lz;

static inline void sgz_lz_free(sgz_lz *lz)
{
    free(lz->tokens);
    free(lz->marks);
    *lz = (sgz_lz){0};
}

#endif
