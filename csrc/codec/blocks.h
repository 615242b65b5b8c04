/* Where ISA-L stands between two blocks of deflate data: stopping there, and beginning there.
 *
 * ISA-L has no call that stops at a block's end. But it stops behind the last block, and which
 * one that is stands in its state: so the present block is made the last one. Behind the last
 * block it also waits until all it decoded was handed out; only then does it end the stream (and,
 * in newer versions, drop the bits it holds of the byte that it stands in). So one byte is kept
 * from being handed out. All of this is done from the state's public fields, in calls with no
 * room for output, which decode into the state's own buffer: codec/codecs.c tries it out. */
#ifndef SGZ_CODEC_BLOCKS_H
#define SGZ_CODEC_BLOCKS_H

#include "codec/codecs.h"

#include <string.h>

#define SGZ_ISAL_HISTORY 32768

/* Decoded bytes that the state has not handed out. */
static inline int32_t sgz_isal_held(const sgz_isal_inflate_state *s)
{
    return s->tmp_out_valid - s->tmp_out_processed;
}

/* Hold the last byte back, which was handed out already (or, before there is any, what lies in
 * front of the buffer: nothing can refer to it). 1 if that was needed: then the first byte that is
 * held is not to be handed out again. */
static inline int sgz_isal_hold(sgz_isal_inflate_state *s)
{
    if (sgz_isal_held(s))
        return 0;
    s->tmp_out_processed--;
    return 1;
}

/* Once bytes that are held were taken (at tmp_out_processed, which moves on): make room in the
 * buffer, as ISA-L does at the end of a call. It relies on that having been done. */
static inline void sgz_isal_shift(sgz_isal_inflate_state *s)
{
    int32_t drop = s->tmp_out_valid - SGZ_ISAL_HISTORY;
    if (s->tmp_out_processed < SGZ_ISAL_HISTORY || drop <= 0)
        return;
    if (drop > s->tmp_out_processed)
        drop = s->tmp_out_processed;
    memmove(s->tmp_out, s->tmp_out + drop, (size_t)(s->tmp_out_valid - drop));
    s->tmp_out_valid -= drop;
    s->tmp_out_processed -= drop;
}

/* Whether a block's header comes next, or the rest of one. */
static inline int sgz_isal_between(const sgz_isal_inflate_state *s)
{
    return s->block_state == SGZ_ISAL_BLOCK_NEW_HDR || s->block_state == SGZ_ISAL_BLOCK_HDR;
}

/* Whether not even the first bit of the next block is there. */
static inline int sgz_isal_starved(const sgz_isal_inflate_state *s)
{
    return sgz_isal_between(s) && s->read_in_length <= 0 &&
           (s->block_state == SGZ_ISAL_BLOCK_NEW_HDR || !s->tmp_in_size);
}

/* Then its first byte is given so. */
static inline void sgz_isal_feed_byte(sgz_isal_inflate_state *s, uint8_t byte)
{
    s->read_in = byte;
    s->read_in_length = 8;
}

/* Whether the present block, or the next if it stands between two, says that it is the last. */
static inline int sgz_isal_last(const sgz_isal_inflate_state *s)
{
    if (!sgz_isal_between(s))
        return s->bfinal != 0;
    return (int)((s->read_in_length > 0 ? s->read_in : s->tmp_in[0]) & 1);
}

/* Have it say so, or not: for what is not starved. */
static inline void sgz_isal_set_last(sgz_isal_inflate_state *s, int last)
{
    if (!sgz_isal_between(s))
        s->bfinal = (uint32_t)last;
    else if (s->read_in_length > 0)
        s->read_in = (s->read_in & ~(uint64_t)1) | (unsigned)last;
    else
        s->tmp_in[0] = (uint8_t)((s->tmp_in[0] & ~1) | last);
}

/* Behind a block that was made the last one: go on with the next. */
static inline void sgz_isal_go_on(sgz_isal_inflate_state *s)
{
    s->block_state = SGZ_ISAL_BLOCK_NEW_HDR;
}

/* The bits that the state holds of the next block. */
static inline uint64_t sgz_isal_bits(const sgz_isal_inflate_state *s)
{
    return s->read_in_length < 64 ? s->read_in & (((uint64_t)1 << s->read_in_length) - 1)
                                  : s->read_in;
}

/* Begin between two blocks: `bits` are the next ones, `count` of them, and the input is what
 * follows. `history` are the bytes before, as many as are known. */
static inline void sgz_isal_enter(const sgz_isal *isal, sgz_isal_inflate_state *s, uint64_t bits,
                                  int count, const uint8_t *history, uint32_t len)
{
    isal->inflate_reset(s);
    if (len)
        isal->inflate_set_dict(s, (uint8_t *)history, len); /* fails only above 32 KiB */
    s->read_in = bits;
    s->read_in_length = count;
}

/* Whether all this works with a library: it is tried with a small stream, in the state `s`. */
int sgz_codec_blocks_work(const sgz_isal *isal, sgz_isal_inflate_state *s);

#endif
