/* Shared by the parts of the decoder: codec/lz_read.c (headers, blocks, the stream),
 * codec/lz_symbols.c (what is between). */
#ifndef SGZ_CODEC_LZ_INTERNAL_H
#define SGZ_CODEC_LZ_INTERNAL_H

#include "codec/inflate.h"
#include "codec/lz_read.h"

/* sgz_lz_reader.step: what comes next. */
enum { BEGIN, BLOCK, STORED_SIZE, STORED, COUNTS, PRECODES, LENGTHS, SYMBOLS, COPY };

/* Where a step ended. */
typedef enum { GO_ON, NO_INPUT, NO_ROOM, BROKEN } sgz_lz_ended;

/* One call. */
typedef struct {
    const uint8_t *in, *in_begin, *in_end;
    uint8_t *op, *out, *end;
    uint32_t *tokens;
    size_t run_begin; /* where the literals before `op` begin, from `out` on: modulo 2^64, for they
                         may have begun in an earlier call */
    size_t reach;     /* bytes of the member before `out`, as far as matches reach */
    int error;        /* BROKEN: ISA-L's number of it */
} sgz_lz_call;

/* As many bits as there are, up to 63. */
static inline void sgz_lz_fill(sgz_lz_reader *r, sgz_lz_call *c)
{
    while (r->bit_count < 56 && c->in < c->in_end) {
        r->bits |= (uint64_t)*c->in++ << r->bit_count;
        r->bit_count += 8;
    }
}

static inline uint32_t sgz_lz_take(sgz_lz_reader *r, unsigned n)
{
    uint32_t value = (uint32_t)(r->bits & (((uint64_t)1 << n) - 1));
    r->bits >>= n;
    r->bit_count -= n;
    return value;
}

/* Whole bytes of this call's input that were not decoded go back. */
static inline void sgz_lz_give_back(sgz_lz_reader *r, sgz_lz_call *c)
{
    size_t n = r->bit_count / 8, taken = (size_t)(c->in - c->in_begin);
    n = n < taken ? n : taken;
    c->in -= n;
    r->bit_count -= 8 * (unsigned)n;
    r->bits &= ((uint64_t)1 << r->bit_count) - 1;
}

static inline sgz_lz_ended sgz_lz_broken(sgz_lz_call *c, int error)
{
    c->error = error;
    return BROKEN;
}

/* SYMBOLS, to the end of the block; and COPY. */
sgz_lz_ended sgz_codec_lz_symbols(sgz_lz_reader *r, sgz_lz_call *c);
sgz_lz_ended sgz_codec_lz_copy(sgz_lz_reader *r, sgz_lz_call *c);

#endif
