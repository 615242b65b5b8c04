#include "codec/lz_read.h"

#include "base/vec.h"
#include "codec/inflate.h"

#include <stdlib.h>
#include <string.h>

#define ALWAYS static inline __attribute__((always_inline))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* sgz_lz_reader.step: what comes next. */
enum { BEGIN, BLOCK, STORED_SIZE, STORED, COUNTS, PRECODES, LENGTHS, SYMBOLS, COPY };

/* Where a step ended. */
typedef enum { GO_ON, NO_INPUT, NO_ROOM, BROKEN } ended;

/* Literals that wait for a match are made a token at so many. */
#define RUN_LONG ((size_t)1 << 20)
#define MARK_STEP ((int64_t)64 << 10)

/* What the fast loop may read and write beyond what it checked for. */
#define FAST_IN 32
#define FAST_OUT (SGZ_MATCH_MAX + 64)

/* One call. */
typedef struct {
    const uint8_t *in, *in_begin, *in_end;
    uint8_t *op, *out, *end;
    uint32_t *tokens;
    size_t run_begin; /* where the literals before `op` begin, from `out` on: modulo 2^64, for they
                         may have begun in an earlier call */
    size_t reach;     /* bytes of the member before `out`, as far as matches reach */
    int error;        /* BROKEN: ISA-L's number of it */
} call;

sgz_status sgz_codec_lz_reader_new(sgz_lz_reader **reader, const sgz_codecs *codecs,
                                   sgz_error *err)
{
    sgz_lz_reader *r = calloc(1, sizeof *r);
    *reader = NULL;
    if (!r)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
    sgz_status status = sgz_codec_inflater_init(&r->inflater, codecs, err);
    if (status) {
        free(r);
        return status;
    }
    sgz_codec_inflater_reset(&r->inflater, 0);
    *reader = r;
    return SGZ_OK;
}

void sgz_codec_lz_reader_free(sgz_lz_reader *r)
{
    if (r)
        sgz_codec_inflater_free(&r->inflater);
    free(r);
}

/* --- bits -------------------------------------------------------------------------------- */

/* As many as there are, up to 63. */
static void fill(sgz_lz_reader *r, call *c)
{
    while (r->bit_count < 56 && c->in < c->in_end) {
        r->bits |= (uint64_t)*c->in++ << r->bit_count;
        r->bit_count += 8;
    }
}

static int have(sgz_lz_reader *r, call *c, unsigned n)
{
    if (r->bit_count < n)
        fill(r, c);
    return r->bit_count >= n;
}

static uint32_t take(sgz_lz_reader *r, unsigned n)
{
    uint32_t value = (uint32_t)(r->bits & (((uint64_t)1 << n) - 1));
    r->bits >>= n;
    r->bit_count -= n;
    return value;
}

/* Whole bytes of this call's input that were not decoded go back. */
static void give_back(sgz_lz_reader *r, call *c)
{
    size_t n = r->bit_count / 8, taken = (size_t)(c->in - c->in_begin);
    n = n < taken ? n : taken;
    c->in -= n;
    r->bit_count -= 8 * (unsigned)n;
    r->bits &= ((uint64_t)1 << r->bit_count) - 1;
}

static ended broken(call *c, int error)
{
    c->error = error;
    return BROKEN;
}

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
static void copy_far(const sgz_lz_reader *r, call *c, uint32_t distance, uint32_t len)
{
    for (; len; len--, c->op++) {
        size_t made = (size_t)(c->op - c->out);
        *c->op = distance > made ? r->window[r->history - (distance - made)] : *(c->op - distance);
    }
}

/* What fits of the match that is begun. */
static ended copy(sgz_lz_reader *r, call *c)
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

static ended end_block(sgz_lz_reader *r)
{
    r->step = BLOCK;
    return GO_ON;
}

/* One symbol, with its distance: at the ends of input and output. */
static ended symbol(sgz_lz_reader *r, call *c)
{
    fill(r, c);
    uint64_t bits = r->bits;
    unsigned count = r->bit_count, used;
    uint32_t e = r->tables.litlen[bits & ((1u << SGZ_LITLEN_BITS) - 1)];
    used = 0;
    if (e & SGZ_LZ_OTHER && !(e & (SGZ_LZ_NONE | SGZ_LZ_END))) {
        bits >>= used = SGZ_LITLEN_BITS;
        e = r->tables.litlen[(e >> 16) + (bits & ((1u << (e >> 8 & 15)) - 1))];
    }
    if (e & SGZ_LZ_OTHER && e & SGZ_LZ_NONE)
        return count < SGZ_CODE_MAX ? NO_INPUT : broken(c, SGZ_BROKEN_SYMBOL);
    if (used + (e & 63) > count)
        return NO_INPUT;
    if (e & SGZ_LZ_OTHER) {
        take(r, used + (e & 63));
        return end_block(r);
    }
    if (e & SGZ_LZ_LITERAL) {
        if (c->op == c->end)
            return NO_ROOM;
        take(r, used + (e & 63));
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
        return count < used + SGZ_CODE_MAX ? NO_INPUT : broken(c, SGZ_BROKEN_SYMBOL);
    if (used + (e & 63) > count)
        return NO_INPUT;
    uint32_t extra = (uint32_t)((bits & (((uint64_t)1 << (e & 63)) - 1)) >> (e >> 8 & 15));
    uint32_t distance = (e >> 17) + extra;
    if (distance > c->reach + (size_t)(c->op - c->out))
        return broken(c, SGZ_BROKEN_DISTANCE);
    if (c->op == c->end)
        return NO_ROOM;
    take(r, used + (e & 63));
    c->tokens = put_match(c->tokens, (size_t)(c->op - c->out) - c->run_begin, len, e >> 12 & 31, extra);
    r->copy = len;
    r->distance = distance;
    return copy(r, c);
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
ALWAYS ended fast(sgz_lz_reader *r, call *c)
{
    const uint32_t *litlen = r->tables.litlen, *distances = r->tables.distance;
    const uint8_t *in = c->in, *in_end = c->in_end - FAST_IN;
    uint8_t *op = c->op, *end = c->end - FAST_OUT, *const out = c->out;
    uint32_t *tokens = c->tokens;
    size_t run_begin = c->run_begin;
    uint64_t bits = r->bits;
    unsigned count = r->bit_count;
    ended how = GO_ON;
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
                    how = broken(c, SGZ_BROKEN_SYMBOL);
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
                how = broken(c, SGZ_BROKEN_SYMBOL);
                break;
            }
        }
        uint32_t extra = (uint32_t)((bits & LOW(d & 63)) >> (d >> 8 & 15));
        uint32_t distance = (d >> 17) + extra;
        size_t made = (size_t)(op - out);
        DROP(d);
        if (UNLIKELY(distance > made)) {
            if (distance > c->reach + made) {
                how = broken(c, SGZ_BROKEN_DISTANCE);
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
    give_back(r, c);
    return how;
}

static ended fast_any(sgz_lz_reader *r, call *c)
{
    return fast(r, c);
}

#ifdef __x86_64__
__attribute__((target("bmi,bmi2"))) static ended fast_bmi2(sgz_lz_reader *r, call *c)
{
    return fast(r, c);
}
#endif

static ended symbols(sgz_lz_reader *r, call *c)
{
    ended how = GO_ON;
    while (how == GO_ON && r->step == SYMBOLS) {
        if (c->in_end - c->in > FAST_IN && c->end - c->op > FAST_OUT) {
#ifdef __x86_64__
            how = __builtin_cpu_supports("bmi2") ? fast_bmi2(r, c) : fast_any(r, c);
#else
            how = fast_any(r, c);
#endif
        } else {
            how = symbol(r, c);
        }
    }
    return how;
}

/* --- blocks ------------------------------------------------------------------------------ */

static ended block(sgz_lz_reader *r, call *c)
{
    if (!have(r, c, 3))
        return NO_INPUT;
    r->last = (int)take(r, 1);
    switch (take(r, 2)) {
    case 0:
        r->step = STORED_SIZE;
        take(r, r->bit_count % 8);
        return GO_ON;
    case 1:
        if (!r->fixed)
            sgz_codec_lz_fixed(&r->tables);
        r->fixed = 1;
        r->step = SYMBOLS;
        return GO_ON;
    case 2:
        r->step = COUNTS;
        return GO_ON;
    default:
        return broken(c, SGZ_BROKEN_BLOCK);
    }
}

static ended stored_size(sgz_lz_reader *r, call *c)
{
    if (!have(r, c, 32))
        return NO_INPUT;
    uint32_t len = take(r, 16);
    if ((len ^ take(r, 16)) != 0xffff)
        return broken(c, SGZ_BROKEN_BLOCK);
    r->stored = len;
    r->step = STORED;
    return GO_ON;
}

static ended stored(sgz_lz_reader *r, call *c)
{
    while (r->stored && r->bit_count && c->op < c->end) {
        *c->op++ = (uint8_t)take(r, 8);
        r->stored--;
    }
    size_t n = r->stored, room = (size_t)(c->end - c->op), left = (size_t)(c->in_end - c->in);
    n = n < room ? n : room;
    n = n < left ? n : left;
    if (n && !r->bit_count) {
        memcpy(c->op, c->in, n);
        c->op += n;
        c->in += n;
        r->stored -= (uint32_t)n;
    }
    if (!r->stored)
        return end_block(r);
    return c->op == c->end ? NO_ROOM : NO_INPUT;
}

static ended counts(sgz_lz_reader *r, call *c)
{
    if (!have(r, c, 14))
        return NO_INPUT;
    r->litlens = take(r, 5) + SGZ_END_OF_BLOCK + 1;
    r->distances = take(r, 5) + 1;
    r->precodes = take(r, 4) + 4;
    if (r->litlens > SGZ_LITLENS || r->distances > SGZ_DISTANCES)
        return broken(c, SGZ_BROKEN_BLOCK);
    memset(r->lengths, 0, SGZ_PRECODES);
    r->at = 0;
    r->fixed = 0;
    r->step = PRECODES;
    return GO_ON;
}

static ended precodes(sgz_lz_reader *r, call *c)
{
    for (; r->at < r->precodes; r->at++) {
        if (!have(r, c, 3))
            return NO_INPUT;
        r->lengths[sgz_codec_precode_order[r->at]] = (uint8_t)take(r, 3);
    }
    int any = 0;
    for (unsigned i = 0; i < SGZ_PRECODES; i++)
        any |= r->lengths[i];
    if (!any || !sgz_codec_lz_precodes(&r->tables, r->lengths))
        return broken(c, SGZ_BROKEN_BLOCK);
    r->at = 0;
    r->step = LENGTHS;
    return GO_ON;
}

static ended lengths(sgz_lz_reader *r, call *c)
{
    static const uint8_t extra[] = {2, 3, 7}, least[] = {3, 3, 11};
    unsigned all = r->litlens + r->distances;
    while (r->at < all) {
        if (r->bit_count < SGZ_PRECODE_MAX + 7)
            fill(r, c);
        uint32_t e = r->tables.precode[r->bits & ((1u << SGZ_PRECODE_MAX) - 1)];
        unsigned used = e & 63, what = e >> 16;
        if (e & SGZ_LZ_NONE)
            return r->bit_count < SGZ_PRECODE_MAX ? NO_INPUT : broken(c, SGZ_BROKEN_BLOCK);
        if (used + (what < 16 ? 0 : extra[what - 16]) > r->bit_count)
            return NO_INPUT;
        take(r, used);
        if (what < 16) {
            r->lengths[r->at++] = (uint8_t)what;
            continue;
        }
        unsigned n = least[what - 16] + take(r, extra[what - 16]);
        if (n > all - r->at || (what == 16 && !r->at))
            return broken(c, SGZ_BROKEN_BLOCK);
        memset(r->lengths + r->at, what == 16 ? r->lengths[r->at - 1] : 0, n);
        r->at += n;
    }
    if (!r->lengths[SGZ_END_OF_BLOCK] ||
        !sgz_codec_lz_distances(&r->tables, r->lengths + r->litlens, r->distances) ||
        !sgz_codec_lz_litlens(&r->tables, r->lengths, r->litlens))
        return broken(c, SGZ_BROKEN_BLOCK);
    r->step = SYMBOLS;
    return GO_ON;
}

/* --- the stream -------------------------------------------------------------------------- */

static ended steps(sgz_lz_reader *r, call *c)
{
    for (ended how = GO_ON;;) {
        switch (r->step) {
        case BEGIN:
            r->bits = r->bit_count = 0;
            r->history = 0;
            r->last = r->fixed = 0;
            c->reach = 0;
            r->step = BLOCK;
            break;
        case BLOCK:
            if (r->last)
                return GO_ON;
            how = block(r, c);
            break;
        case STORED_SIZE: how = stored_size(r, c); break;
        case STORED: how = stored(r, c); break;
        case COUNTS: how = counts(r, c); break;
        case PRECODES: how = precodes(r, c); break;
        case LENGTHS: how = lengths(r, c); break;
        case SYMBOLS: how = symbols(r, c); break;
        default: how = copy(r, c); break;
        }
        if (how != GO_ON)
            return how;
    }
}

/* Keep the last bytes that were given, for matches to come. */
static void keep_window(sgz_lz_reader *r, const uint8_t *data, size_t len)
{
    size_t cap = sizeof r->window, keep = SGZ_DISTANCE_MAX;
    if (len >= keep) {
        memcpy(r->window, data + len - keep, keep);
        r->history = keep;
        return;
    }
    if (len > cap - r->history) {
        size_t drop = r->history - keep;
        memmove(r->window, r->window + drop, keep);
        r->history = keep;
    }
    memcpy(r->window + r->history, data, len);
    r->history += len;
}

/* Room for the tokens of so many bytes: a match has three at least, and one in front of which literals
 * have a token of their own, 35. */
static int make_room(sgz_lz_reader *r, size_t bytes)
{
    sgz_lz *lz = r->to;
    int due = !lz->mark_count || r->covered - lz->marks[lz->mark_count - 1].at >= MARK_STEP;
    if (due && !SGZ_PUSH(lz->marks, lz->mark_count, lz->mark_cap, (sgz_lz_mark){r->covered, lz->count}))
        return 0;
    return SGZ_FIT(lz->tokens, lz->cap, lz->count + bytes / 2 + bytes / SGZ_LZ_LITERALS_MAX + 16);
}

static sgz_status read_data(sgz_inflater *z, const uint8_t **in, size_t *in_len, uint8_t *out,
                            size_t cap, size_t *made, sgz_error *err)
{
    sgz_lz_reader *r = (sgz_lz_reader *)z;
    if (!make_room(r, cap))
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
    call c = {.in = *in, .in_begin = *in, .in_end = *in + *in_len, .op = out, .out = out,
              .end = out + cap, .tokens = r->to->tokens + r->to->count, .reach = r->history,
              .run_begin = (size_t)(r->covered - r->out)};
    ended how = steps(r, &c);
    size_t run = (size_t)(c.op - out) - c.run_begin;
    *made = (size_t)(c.op - out);
    r->out += (int64_t)*made;
    /* (A match that is begun has its token.) */
    r->covered = r->out - (int64_t)run + (r->step == COPY ? r->copy : 0);
    if (run >= RUN_LONG) {
        uint32_t n = run < SGZ_LZ_LITERALS_MAX ? (uint32_t)run : SGZ_LZ_LITERALS_MAX;
        *c.tokens++ = sgz_lz_literals(n);
        r->covered += n;
    }
    r->to->count = (size_t)(c.tokens - r->to->tokens);
    if (how != NO_INPUT)
        give_back(r, &c);
    sgz_codec_inflate_took(z, in, in_len, (size_t)(c.in - *in));
    sgz_codec_inflate_made(z, out, *made);
    if (how == BROKEN) {
        z->broken = c.error;
        z->phase = SGZ_PHASE_BROKEN;
        r->step = BEGIN;
    } else if (how == GO_ON) {
        take(r, r->bit_count % 8);
        for (z->pending_len = 0; r->bit_count; z->pending_len++)
            z->pending[z->pending_len] = (uint8_t)take(r, 8);
        z->phase = SGZ_PHASE_TRAILER;
        r->step = BEGIN;
    } else {
        keep_window(r, out, *made);
    }
    return SGZ_OK;
}

sgz_status sgz_codec_lz_read(sgz_lz_reader *r, const uint8_t **in, size_t *in_len, uint8_t *out,
                             size_t out_cap, size_t *out_len, sgz_error *err)
{
    return sgz_codec_inflate_by(read_data, &r->inflater, in, in_len, out, out_cap, out_len, 0, err);
}
