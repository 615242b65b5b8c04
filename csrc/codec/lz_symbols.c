#include "codec/lz_internal.h"

#include <string.h>

#define ALWAYS static inline __attribute__((always_inline))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* What the fast loop may read and write beyond what it checked for. */
#define FAST_IN 32
#define FAST_OUT (SGZ_MATCH_MAX + 64)

#define FIXED_DISTANCE 5 /* bits of each distance in fixed blocks */

/* --- tokens and matches ------------------------------------------------------------------ */

ALWAYS uint32_t *put_match(uint32_t *t, size_t run, uint32_t len, uint32_t symbol, uint32_t extra)
{
    while (UNLIKELY(run > SGZ_LZ_RUN_MAX)) {
        uint32_t n = run < SGZ_LZ_LITERALS_MAX ? (uint32_t)run : SGZ_LZ_LITERALS_MAX;
        *t++ = sgz_lz_literals(n);
        run -= n;
    }
    *t++ = sgz_lz_match(len, symbol, extra, (uint32_t)run);
    return t;
}

/* Copy a match that reaches back before this call's output: from the window, then from there. */
static void copy_far(const sgz_lz_reader *r, sgz_lz_call *c, uint32_t distance, uint32_t len)
{
    for (; len; len--, c->op++) {
        size_t made = (size_t)(c->op - c->out);
        *c->op = distance > made ? r->window[r->history - (distance - made)] : *(c->op - distance);
    }
}

/* What fits of the match that is begun. */
sgz_lz_ended sgz_codec_lz_copy(sgz_lz_reader *r, sgz_lz_call *c)
{
    size_t room = (size_t)(c->end - c->op);
    uint32_t n = r->copy < room ? r->copy : (uint32_t)room;
    copy_far(r, c, r->distance, n);
    r->copy -= n;
    c->run_begin = (size_t)(c->op - c->out);
    r->step = r->copy ? COPY : SYMBOLS;
    return r->copy ? NO_ROOM : GO_ON;
}

/* --- symbols ----------------------------------------------------------------------------- */

static sgz_lz_ended end_block(sgz_lz_reader *r)
{
    r->step = BLOCK;
    return GO_ON;
}

/* One symbol, with its distance: at the ends of input and output. Where the input ends the bits to come
 * are zeros, which lead to the first codes: what is none with them is none whatever comes. (ISA-L waits
 * for all bits of those two distances that only fixed blocks have codes for.) */
static sgz_lz_ended symbol(sgz_lz_reader *r, sgz_lz_call *c)
{
    sgz_lz_fill(r, c);
    uint64_t bits = r->bits;
    unsigned count = r->bit_count, used;
    uint32_t e = r->tables.litlen[bits & ((1u << SGZ_LITLEN_BITS) - 1)];
    used = 0;
    if (e & SGZ_LZ_OTHER && !(e & (SGZ_LZ_NONE | SGZ_LZ_END))) {
        bits >>= used = SGZ_LITLEN_BITS;
        e = r->tables.litlen[(e >> 16) + (bits & ((1u << (e >> 8 & 15)) - 1))];
    }
    if (e & SGZ_LZ_OTHER && e & SGZ_LZ_NONE)
        return sgz_lz_broken(c, SGZ_BROKEN_SYMBOL);
    if (used + (e & 63) > count)
        return NO_INPUT;
    if (e & SGZ_LZ_OTHER) {
        sgz_lz_take(r, used + (e & 63));
        return end_block(r);
    }
    if (e & SGZ_LZ_LITERAL) {
        if (c->op == c->end)
            return NO_ROOM;
        sgz_lz_take(r, used + (e & 63));
        *c->op++ = (uint8_t)(e >> 16);
        return GO_ON;
    }
    uint32_t code = e >> 8 & 15;
    uint32_t len = (e >> 16) + (uint32_t)((bits & ((1u << (e & 63)) - 1)) >> code);
    used += e & 63;
    bits = r->bits >> used;
    e = r->tables.distance[bits & ((1u << SGZ_DISTANCE_BITS) - 1)];
    if (!(e & SGZ_LZ_CODE) && e >> 17) {
        bits >>= SGZ_DISTANCE_BITS;
        used += SGZ_DISTANCE_BITS;
        e = r->tables.distance[(e >> 17) + (bits & ((1u << (e >> 12 & 31)) - 1))];
    }
    if (!(e & SGZ_LZ_CODE))
        return count < used + (r->fixed ? FIXED_DISTANCE : 0) ? NO_INPUT
                                                              : sgz_lz_broken(c, SGZ_BROKEN_SYMBOL);
    if (used + (e & 63) > count)
        return NO_INPUT;
    uint32_t extra = (uint32_t)((bits & (((uint64_t)1 << (e & 63)) - 1)) >> (e >> 8 & 15));
    uint32_t distance = (e >> 17) + extra;
    if (distance > c->reach + (size_t)(c->op - c->out))
        return sgz_lz_broken(c, SGZ_BROKEN_DISTANCE);
    if (c->op == c->end)
        return NO_ROOM;
    sgz_lz_take(r, used + (e & 63));
    c->tokens = put_match(c->tokens, (size_t)(c->op - c->out) - c->run_begin, len, e >> 12 & 31, extra);
    r->copy = len;
    r->distance = distance;
    return sgz_codec_lz_copy(r, c);
}

ALWAYS void copy8(uint8_t *to, const uint8_t *from)
{
    uint64_t v;
    memcpy(&v, from, sizeof v);
    memcpy(to, &v, sizeof v);
}

ALWAYS void copy16(uint8_t *to, const uint8_t *from)
{
    typedef uint8_t sixteen __attribute__((vector_size(16)));
    sixteen v;
    memcpy(&v, from, sizeof v);
    memcpy(to, &v, sizeof v);
}

/* Writes up to 32 bytes more. */
ALWAYS void copy_near(uint8_t *op, uint32_t distance, uint32_t len)
{
    const uint8_t *from = op - distance;
    uint8_t *end = op + len;
    if (LIKELY(distance >= 16)) {
        copy16(op, from);
        copy16(op + 16, from + 16);
        for (uint32_t at = 32; UNLIKELY(at < len); at += 16)
            copy16(op + at, from + at);
    } else if (distance >= 8) {
        for (; op < end; op += 8, from += 8)
            copy8(op, from);
    } else if (distance == 1) {
        memset(op, *from, 16);
        if (len > 16)
            memset(op + 16, *from, len - 16);
    } else {
        for (; op < end; op += distance)
            copy8(op, from);
    }
}

/* 56 bits at least; what is above bit_count may be bits to come, so adding them again is no harm. */
#define REFILL()                                            \
    do {                                                    \
        uint64_t next_;                                     \
        memcpy(&next_, in, sizeof next_);                   \
        bits |= next_ << (count & 63);                      \
        in += 7 - (count >> 3 & 7);                         \
        count |= 56;                                        \
    } while (0)
#define DROP(e) (bits >>= (e) & 63, count -= (e) & 63)
#define LOW(n) (((uint64_t)1 << (n)) - 1)

/* Symbols while there is plenty of input and of room. */
ALWAYS sgz_lz_ended fast(sgz_lz_reader *r, sgz_lz_call *c)
{
    const uint32_t *litlen = r->tables.litlen, *distances = r->tables.distance;
    const uint8_t *in = c->in, *in_end = c->in_end - FAST_IN;
    uint8_t *op = c->op, *end = c->end - FAST_OUT, *const out = c->out;
    uint32_t *tokens = c->tokens;
    size_t run_begin = c->run_begin;
    uint64_t bits = r->bits;
    unsigned count = r->bit_count;
    sgz_lz_ended how = GO_ON;
    REFILL();
    uint32_t e = litlen[bits & LOW(SGZ_LITLEN_BITS)];
    for (;;) {
        if (e & SGZ_LZ_LITERAL) {
#define LITERAL()                                  \
    do {                                           \
        DROP(e);                                   \
        *op++ = (uint8_t)(e >> 16);                \
        e = litlen[bits & LOW(SGZ_LITLEN_BITS)];   \
    } while (0)
            LITERAL();
            if (e & SGZ_LZ_LITERAL) {
                LITERAL();
                if (e & SGZ_LZ_LITERAL) {
                    LITERAL();
                    if (UNLIKELY(op >= end || in >= in_end))
                        break;
                    REFILL();
                    continue;
                }
            }
        }
        REFILL();
        if (UNLIKELY(e & SGZ_LZ_OTHER)) {
            if (!(e & (SGZ_LZ_END | SGZ_LZ_NONE))) {
                bits >>= SGZ_LITLEN_BITS;
                count -= SGZ_LITLEN_BITS;
                e = litlen[(e >> 16) + (bits & LOW(e >> 8 & 15))];
            }
            if (e & SGZ_LZ_LITERAL) {
                LITERAL();
                if (UNLIKELY(op >= end || in >= in_end))
                    break;
                REFILL();
                continue;
            }
            if (UNLIKELY(e & SGZ_LZ_OTHER)) {
                if (e & SGZ_LZ_NONE) {
                    how = sgz_lz_broken(c, SGZ_BROKEN_SYMBOL);
                    break;
                }
                DROP(e);
                how = end_block(r);
                break;
            }
        }
        uint32_t len = (e >> 16) + (uint32_t)((bits & LOW(e & 63)) >> (e >> 8 & 15));
        DROP(e);
        uint32_t d = distances[bits & LOW(SGZ_DISTANCE_BITS)];
        if (UNLIKELY(!(d & SGZ_LZ_CODE))) {
            if (d >> 17) {
                bits >>= SGZ_DISTANCE_BITS;
                count -= SGZ_DISTANCE_BITS;
                d = distances[(d >> 17) + (bits & LOW(d >> 12 & 31))];
            }
            if (!(d & SGZ_LZ_CODE)) {
                how = sgz_lz_broken(c, SGZ_BROKEN_SYMBOL);
                break;
            }
        }
        uint32_t extra = (uint32_t)((bits & LOW(d & 63)) >> (d >> 8 & 15));
        uint32_t distance = (d >> 17) + extra;
        size_t made = (size_t)(op - out);
        DROP(d);
        if (UNLIKELY(distance > made)) {
            if (distance > c->reach + made) {
                how = sgz_lz_broken(c, SGZ_BROKEN_DISTANCE);
                break;
            }
            tokens = put_match(tokens, made - run_begin, len, d >> 12 & 31, extra);
            c->op = op;
            copy_far(r, c, distance, len);
            op = c->op;
            REFILL();
            e = litlen[bits & LOW(SGZ_LITLEN_BITS)];
        } else {
            tokens = put_match(tokens, made - run_begin, len, d >> 12 & 31, extra);
            REFILL();
            e = litlen[bits & LOW(SGZ_LITLEN_BITS)];
            copy_near(op, distance, len);
            op += len;
        }
        run_begin = (size_t)(op - out);
        if (UNLIKELY(op >= end || in >= in_end))
            break;
    }
    c->in = in;
    c->op = op;
    c->tokens = tokens;
    c->run_begin = run_begin;
    r->bit_count = count & 63;
    r->bits = bits & LOW(r->bit_count);
    sgz_lz_give_back(r, c);
    return how;
}

static sgz_lz_ended fast_any(sgz_lz_reader *r, sgz_lz_call *c)
{
    return fast(r, c);
}

#ifdef __x86_64__
__attribute__((target("bmi,bmi2"))) static sgz_lz_ended fast_bmi2(sgz_lz_reader *r, sgz_lz_call *c)
{
    return fast(r, c);
}
#endif

sgz_lz_ended sgz_codec_lz_symbols(sgz_lz_reader *r, sgz_lz_call *c)
{
    sgz_lz_ended how = GO_ON;
    while (how == GO_ON && r->step == SYMBOLS) {
        if (c->in_end - c->in > FAST_IN && c->end - c->op > FAST_OUT) {
#ifdef __x86_64__
            how = __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2")
                      ? fast_bmi2(r, c) : fast_any(r, c);
#else
            how = fast_any(r, c);
#endif
        } else {
            how = symbol(r, c);
        }
    }
    return how;
}
