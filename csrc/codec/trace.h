/* Which bytes of its history does deflate data need? */
#ifndef SGZ_CODEC_TRACE_H
#define SGZ_CODEC_TRACE_H

#include "codec/codecs.h"
#include "codec/points.h"

/* No more than the next 32 KiB can refer to it, so these are decoded twice, with histories that
 * spell their own positions: position p is p modulo 256 in one, and p + 1 + p / 256 in the other.
 * Bytes that are equal in both are the stream's own; others are copies from the history, and the
 * two together say from where. */
typedef struct {
    sgz_isal_inflate_state *state[2];
    uint8_t *made[2];
    uint32_t len[2];
    int64_t at[2];   /* the input byte that comes next */
    int done[2];
    uint8_t *needed; /* flags; see sgz_codec_trace_needs */
} sgz_trace;

/* 0 when there is no memory. All zero can be freed, too. */
int sgz_codec_trace_new(sgz_trace *t, const sgz_isal *isal);
void sgz_codec_trace_free(sgz_trace *t);

/* Begin between two blocks: see sgz_isal_enter. The input goes on at offset `at`. */
void sgz_codec_trace_begin(sgz_trace *t, const sgz_isal *isal, uint64_t bits, int count,
                           uint32_t history, int64_t at);
/* Decode on, as far as this input goes, which begins at offset `start`. */
void sgz_codec_trace_feed(sgz_trace *t, const sgz_isal *isal, const uint8_t *in, size_t len,
                          int64_t start);
/* No more input comes, or none is needed. */
static inline void sgz_codec_trace_end(sgz_trace *t)
{
    t->done[0] = t->done[1] = 1;
}

static inline int sgz_codec_trace_done(const sgz_trace *t)
{
    return t->done[0] && t->done[1];
}

/* How many bytes of the history are needed. `needed` has a flag for each byte of the last
 * SGZ_HISTORY_MAX. */
uint32_t sgz_codec_trace_needs(sgz_trace *t, uint32_t history);

#endif
