#include "codec/lz_internal.h"

#include "base/vec.h"

#include <stdlib.h>
#include <string.h>

/* Literals that wait for a match are made a token at so many. */
#define RUN_LONG ((size_t)1 << 20)
#define MARK_STEP ((int64_t)64 << 10)

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

/* --- blocks ------------------------------------------------------------------------------ */

static int have(sgz_lz_reader *r, sgz_lz_call *c, unsigned n)
{
    if (r->bit_count < n)
        sgz_lz_fill(r, c);
    return r->bit_count >= n;
}

static sgz_lz_ended end_block(sgz_lz_reader *r)
{
    r->step = BLOCK;
    return GO_ON;
}

static sgz_lz_ended block(sgz_lz_reader *r, sgz_lz_call *c)
{
    if (!have(r, c, 3))
        return NO_INPUT;
    r->last = (int)sgz_lz_take(r, 1);
    switch (sgz_lz_take(r, 2)) {
    case 0:
        r->step = STORED_SIZE;
        sgz_lz_take(r, r->bit_count % 8);
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
        return sgz_lz_broken(c, SGZ_BROKEN_BLOCK);
    }
}

static sgz_lz_ended stored_size(sgz_lz_reader *r, sgz_lz_call *c)
{
    if (!have(r, c, 32))
        return NO_INPUT;
    uint32_t len = sgz_lz_take(r, 16);
    if ((len ^ sgz_lz_take(r, 16)) != 0xffff)
        return sgz_lz_broken(c, SGZ_BROKEN_BLOCK);
    r->stored = len;
    r->step = STORED;
    return GO_ON;
}

static sgz_lz_ended stored(sgz_lz_reader *r, sgz_lz_call *c)
{
    while (r->stored && r->bit_count && c->op < c->end) {
        *c->op++ = (uint8_t)sgz_lz_take(r, 8);
        r->stored--;
    }
    size_t n = r->stored, room = (size_t)(c->end - c->op), left = (size_t)(c->in_end - c->in);
    n = n < room ? n : room;
    n = n < left ? n : left;
    if (n) {
        memcpy(c->op, c->in, n);
        c->op += n;
        c->in += n;
        r->stored -= (uint32_t)n;
    }
    if (!r->stored)
        return end_block(r);
    return c->op == c->end ? NO_ROOM : NO_INPUT;
}

static sgz_lz_ended counts(sgz_lz_reader *r, sgz_lz_call *c)
{
    if (!have(r, c, 14))
        return NO_INPUT;
    r->litlens = sgz_lz_take(r, 5) + SGZ_END_OF_BLOCK + 1;
    r->distances = sgz_lz_take(r, 5) + 1;
    r->precodes = sgz_lz_take(r, 4) + 4;
    if (r->litlens > SGZ_LITLENS || r->distances > SGZ_DISTANCES)
        return sgz_lz_broken(c, SGZ_BROKEN_BLOCK);
    memset(r->lengths, 0, SGZ_PRECODES);
    r->at = 0;
    r->fixed = 0;
    r->step = PRECODES;
    return GO_ON;
}

static sgz_lz_ended precodes(sgz_lz_reader *r, sgz_lz_call *c)
{
    for (; r->at < r->precodes; r->at++) {
        if (!have(r, c, 3))
            return NO_INPUT;
        r->lengths[sgz_codec_precode_order[r->at]] = (uint8_t)sgz_lz_take(r, 3);
    }
    if (!sgz_codec_lz_precodes(&r->tables, r->lengths))
        return sgz_lz_broken(c, SGZ_BROKEN_BLOCK);
    r->at = 0;
    r->step = LENGTHS;
    return GO_ON;
}

/* Where the input ends the bits to come are zeros: the first codes, and the least repeats. What is wrong
 * with them is wrong whatever comes, and so is a block that nothing can end. */
static sgz_lz_ended lengths(sgz_lz_reader *r, sgz_lz_call *c)
{
    static const uint8_t extra[] = {2, 3, 7}, least[] = {3, 3, 11};
    unsigned all = r->litlens + r->distances;
    while (r->at < all) {
        if (r->bit_count < SGZ_PRECODE_MAX + 7)
            sgz_lz_fill(r, c);
        uint32_t e = r->tables.precode[r->bits & ((1u << SGZ_PRECODE_MAX) - 1)];
        unsigned used = e & 63, what = e >> 16, n = 0;
        if (e & SGZ_LZ_NONE)
            return sgz_lz_broken(c, SGZ_BROKEN_BLOCK);
        if (used <= r->bit_count) {
            n = 1;
            if (what >= 16) {
                n = least[what - 16] + (unsigned)(r->bits >> used & ((1u << extra[what - 16]) - 1));
                used += extra[what - 16];
                if (n > all - r->at || (what == 16 && !r->at))
                    return sgz_lz_broken(c, SGZ_BROKEN_BLOCK);
                what = what == 16 ? r->lengths[r->at - 1] : 0;
            }
            memset(r->lengths + r->at, (int)what, n);
        }
        if (used > r->bit_count)
            return r->at + n > SGZ_END_OF_BLOCK && !r->lengths[SGZ_END_OF_BLOCK]
                       ? sgz_lz_broken(c, SGZ_BROKEN_BLOCK)
                       : NO_INPUT;
        sgz_lz_take(r, used);
        r->at += n;
    }
    if (!r->lengths[SGZ_END_OF_BLOCK] ||
        !sgz_codec_lz_distances(&r->tables, r->lengths + r->litlens, r->distances) ||
        !sgz_codec_lz_litlens(&r->tables, r->lengths, r->litlens))
        return sgz_lz_broken(c, SGZ_BROKEN_BLOCK);
    r->step = SYMBOLS;
    return GO_ON;
}

/* --- the stream -------------------------------------------------------------------------- */

static sgz_lz_ended steps(sgz_lz_reader *r, sgz_lz_call *c)
{
    for (sgz_lz_ended how = GO_ON;;) {
        switch (r->step) {
        case BEGIN:
            r->bits = r->bit_count = 0;
            r->history = 0;
            r->last = 0;
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
        case SYMBOLS: how = sgz_codec_lz_symbols(r, c); break;
        default: how = sgz_codec_lz_copy(r, c); break;
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
    sgz_lz_call c = {.in = *in, .in_begin = *in, .in_end = *in + *in_len, .op = out, .out = out,
              .end = out + cap, .tokens = r->to->tokens + r->to->count, .reach = r->history,
              .run_begin = (size_t)(r->covered - r->out)};
    sgz_lz_ended how = steps(r, &c);
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
        sgz_lz_give_back(r, &c);
    sgz_codec_inflate_took(z, in, in_len, (size_t)(c.in - *in));
    sgz_codec_inflate_made(z, out, *made);
    if (how == BROKEN) {
        z->broken = c.error;
        z->phase = SGZ_PHASE_BROKEN;
        r->step = BEGIN;
    } else if (how == GO_ON) {
        sgz_lz_take(r, r->bit_count % 8);
        for (z->pending_len = 0; r->bit_count; z->pending_len++)
            z->pending[z->pending_len] = (uint8_t)sgz_lz_take(r, 8);
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
