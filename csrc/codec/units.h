/* A member's data as what is coded: units, made of the tokens of the stream that the data is of. */
#ifndef SGZ_CODEC_UNITS_H
#define SGZ_CODEC_UNITS_H

#include "codec/lz.h"

/* Bytes of data a step takes, and the units that it makes at most, with what is written too far. */
#define SGZ_UNITS_STEP ((size_t)16 << 10)
#define SGZ_UNITS_OF_STEP (SGZ_UNITS_STEP + SGZ_MATCH_MAX + 16)

#define SGZ_UNITS_HASH_BITS 15
/* Bytes of a member at most: places in it fit 32 bits behind those of others, which take half of them. */
#define SGZ_UNITS_PLACES (1u << 31)
#define SGZ_UNITS_MEMBER_MAX ((1u << 31) - (1u << 16)) /* less twice SGZ_DISTANCE_MAX */

/* From `at` of the data on its bytes are those of the tokens' stream from `from` on; -1: of none. */
typedef struct { size_t at; int64_t from; } sgz_lz_piece;

/* Where the tokens' stream is gone through: literals, then a match. */
typedef struct {
    const uint32_t *next, *end;
    size_t run;
    uint32_t len, token; /* 0: there is no more but literals */
} sgz_lz_cursor;

typedef struct {
    uint32_t *to;           /* the caller's: from to[count] on units are put */
    size_t count;

    /* Private. */
    const uint8_t *all;
    const sgz_lz *lz;
    const sgz_lz_piece *pieces;
    size_t piece_count, piece; /* the last piece begun */
    sgz_lz_mark place;      /* of the token that this was in */
    const uint8_t *data;    /* of the member, which begins here in `all` */
    size_t begin, len;
    sgz_lz_cursor at;
    size_t floor;           /* matches that stand in the stream reach no further back */
    size_t piece_end;
    uint32_t base;          /* of the member in `seen`: of places in others it is too far ahead */
    uint32_t seen[1 << SGZ_UNITS_HASH_BITS];
} sgz_units;

/* As sgz_codec_recode_begin. Units begin as all zeros: the first member's `base` is ahead of these, too. */
void sgz_codec_units_begin(sgz_units *units, const uint8_t *data, const sgz_lz *lz,
                           const sgz_lz_piece *pieces, size_t piece_count);
/* The member data[begin, begin + len) is next; `count` is 0. */
void sgz_codec_units_member(sgz_units *units, size_t begin, size_t len);
/* Units from `at` of the member on, where the last step ended; returns where these end. */
size_t sgz_codec_units_step(sgz_units *units, size_t at);

#endif
