/* Decoding, block by block where a point may be. */
#include "codec/scan_internal.h"

#include "codec/blocks.h"
#include "codec/inflate.h"

#include <stdlib.h>
#include <string.h>

/* ISA-L decodes up to 64 KiB and a match more than it hands out: from so much before a place on
 * where a point may be, blocks are watched. */
#define AHEAD ((int64_t)66 << 10)
#define PACK_LEVEL 2

static int make_room(sgz_scanner *s, const sgz_codecs *codecs)
{
    for (unsigned i = 0; i < s->options.tries; i++) {
        sgz_scan_candidate *c = &s->candidates[i];
        if (!(c->window = malloc(SGZ_HISTORY_MAX)) ||
            (sgz_codec_scan_traces(s) && !sgz_codec_trace_new(&c->trace, &codecs->isal)))
            return 0;
    }
    if (s->options.raw)
        return (s->recent = calloc(1, SGZ_HISTORY_MAX)) != NULL;
    return (s->packed = malloc(sgz_codec_member_bound(SGZ_HISTORY_MAX))) != NULL;
}

sgz_status sgz_codec_scanner_new(sgz_scanner **scanner, const sgz_codecs *codecs,
                                 const sgz_scan_options *options, sgz_error *err)
{
    *scanner = NULL;
    if (!codecs->isal.blocks)
        return sgz_base_fail(err, SGZ_ECODEC, -1, NULL, 0,
                             "with this ISA-L no entry points can be found in gzip; use ISA-L 2.24 "
                             "to 2.32 (pip install 'isal>=1.7,<1.10')");
    sgz_scanner *s = calloc(1, sizeof *s);
    if (!s)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
    s->options = *options;
    if (s->options.wanted)
        s->options.tries = 1;
    if (s->options.span < SGZ_SPAN_MIN)
        s->options.span = SGZ_SPAN_MIN;
    if (!s->options.tries)
        s->options.tries = 1;
    if (s->options.tries > SGZ_TRIES_MAX)
        s->options.tries = SGZ_TRIES_MAX;
    s->member = UINT64_MAX;
    sgz_status status = sgz_codec_inflater_init(&s->inflater, codecs, err);
    if (!status)
        sgz_codec_inflater_reset(&s->inflater, 0);
    if (!status && !s->options.raw)
        status = sgz_codec_deflater_init(&s->deflater, codecs, PACK_LEVEL, err);
    if (!status && !make_room(s, codecs))
        status = sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
    if (status) {
        sgz_codec_scanner_free(s);
        return status;
    }
    if (s->options.points)
        s->options.points->kind = SGZ_POINT_DEFLATE;
    *scanner = s;
    return SGZ_OK;
}

void sgz_codec_scanner_free(sgz_scanner *s)
{
    if (!s)
        return;
    for (unsigned i = 0; i < SGZ_TRIES_MAX; i++) {
        sgz_codec_trace_free(&s->candidates[i].trace);
        free(s->candidates[i].window);
    }
    if (s->deflater.codecs)
        sgz_codec_deflater_free(&s->deflater);
    sgz_codec_inflater_free(&s->inflater);
    free(s->packed);
    free(s->recent);
    free(s);
}

/* --- decoding ---------------------------------------------------------------------------- */

/* Where blocks must be watched from on, in decoded bytes. */
static int64_t watch_from(const sgz_scanner *s)
{
    if (s->count && !s->closed)
        return s->out; /* for more candidates */
    int64_t next = s->count && !s->options.wanted
                       ? s->candidates[0].point.out + s->options.span : s->next;
    return next - AHEAD;
}

static int64_t decoded(const sgz_scanner *s)
{
    return s->out + sgz_isal_held(s->inflater.state) - s->again;
}

/* Give what the state holds, but one byte. */
static size_t give(sgz_scanner *s, uint8_t *out, size_t cap)
{
    sgz_isal_inflate_state *state = s->inflater.state;
    size_t held = (size_t)sgz_isal_held(state);
    if (s->again && held > 1) {
        state->tmp_out_processed++;
        s->again = 0;
        held--;
    }
    size_t n = held - 1 < cap ? held - 1 : cap;
    if (!n)
        return 0;
    memcpy(out, state->tmp_out + state->tmp_out_processed, n);
    state->tmp_out_processed += (int32_t)n;
    sgz_codec_inflate_made(&s->inflater, out, n);
    s->out += (int64_t)n;
    sgz_isal_shift(state);
    return n;
}

/* No longer hold a byte back that was given already. */
static void let_go(sgz_scanner *s)
{
    sgz_isal_inflate_state *state = s->inflater.state;
    state->tmp_out_processed += s->again;
    if (state->tmp_out_valid < state->tmp_out_processed) /* after an error */
        state->tmp_out_valid = state->tmp_out_processed;
    s->again = 0;
}

/* Decode up to the end of the present block, into the state's own buffer. */
static sgz_status watch(sgz_scanner *s, const uint8_t **in, size_t *in_len, sgz_error *err)
{
    sgz_inflater *z = &s->inflater;
    sgz_isal_inflate_state *state = z->state;
    if (!s->armed) {
        if (sgz_isal_starved(state)) {
            if (!*in_len)
                return SGZ_OK;
            sgz_isal_feed_byte(state, **in);
            sgz_codec_inflate_took(z, in, in_len, 1);
        }
        if (sgz_isal_last(state)) {
            s->last = 1;
            return SGZ_OK;
        }
        sgz_isal_set_last(state, 1);
        s->armed = 1;
    }
    s->again += sgz_isal_hold(state);
    size_t none;
    sgz_status status = sgz_codec_inflate_data(z, in, in_len, NULL, 0, &none, err);
    if (status || z->phase != SGZ_PHASE_DATA || state->block_state != SGZ_ISAL_BLOCK_INPUT_DONE)
        return status;
    s->armed = 0;
    sgz_isal_go_on(state);
    return sgz_codec_scan_consider(s, decoded(s), sgz_isal_bits(state), state->read_in_length,
                                   err);
}

static sgz_status begin_member(sgz_scanner *s, sgz_error *err)
{
    s->member = s->inflater.members;
    s->member_out = s->out;
    s->armed = s->again = s->last = 0;
    s->passed = -1;
    return sgz_codec_scan_consider(s, s->out, 0, 0, err);
}

static sgz_status scan_some(sgz_scanner *s, const uint8_t **in, size_t *in_len, uint8_t *out,
                            size_t cap, size_t *made, sgz_error *err)
{
    sgz_inflater *z = &s->inflater;
    sgz_isal_inflate_state *state = z->state;
    for (;;) {
        if (s->count && !s->closed && decoded(s) - s->candidates[0].point.out > SGZ_SCAN_FAR) {
            s->closed = 1;
            sgz_status status = sgz_codec_scan_decide(s, err);
            if (status)
                return status;
        }
        int64_t plain = s->last ? INT64_MAX : watch_from(s) - s->out;
        if (plain > 0) {
            if (s->armed)
                sgz_isal_set_last(state, 0);
            s->armed = 0;
            let_go(s);
            size_t room = cap - *made, n;
            if (plain < (int64_t)room)
                room = (size_t)plain;
            sgz_status status =
                sgz_codec_inflate_data(z, in, in_len, out + *made, room, &n, err);
            *made += n;
            s->out += (int64_t)n;
            if (status || z->phase != SGZ_PHASE_DATA || n < room || *made == cap)
                return status;
            continue;
        }
        int64_t before = decoded(s);
        size_t left = *in_len;
        sgz_status status = watch(s, in, in_len, err);
        if (status || z->phase != SGZ_PHASE_DATA) {
            let_go(s);
            return status;
        }
        if (s->last)
            continue;
        if (sgz_isal_held(state))
            *made += give(s, out + *made, cap - *made);
        if (*made == cap || (decoded(s) == before && *in_len == left))
            return SGZ_OK;
    }
}

/* The place of sgz_codec_inflate_data. */
static sgz_status scan_data(sgz_inflater *z, const uint8_t **in, size_t *in_len, uint8_t *out,
                            size_t cap, size_t *made, sgz_error *err)
{
    sgz_scanner *s = (sgz_scanner *)z;
    s->given = *in;
    s->given_len = *in_len;
    s->given_at = z->base;
    s->call_out = s->out;
    *made = 0;
    sgz_status status = s->member == z->members ? sgz_codec_scan_decide(s, err) : begin_member(s, err);
    if (!status)
        status = scan_some(s, in, in_len, out, cap, made, err);
    if (!status && z->phase == SGZ_PHASE_TRAILER)
        status = sgz_codec_scan_end_traces(s, err);
    if (s->recent && *made) {
        size_t n = *made < SGZ_HISTORY_MAX ? *made : SGZ_HISTORY_MAX;
        memmove(s->recent, s->recent + n, SGZ_HISTORY_MAX - n);
        memcpy(s->recent + SGZ_HISTORY_MAX - n, out + *made - n, n);
    }
    return status;
}

sgz_status sgz_codec_scan(sgz_scanner *s, const uint8_t **in, size_t *in_len, uint8_t *out,
                          size_t out_cap, size_t *out_len, sgz_error *err)
{
    return sgz_codec_inflate_by(scan_data, &s->inflater, in, in_len, out, out_cap, out_len, 0, err);
}

sgz_status sgz_codec_scan_end(sgz_scanner *s, sgz_error *err)
{
    sgz_inflater *z = &s->inflater;
    if (!sgz_codec_inflater_at_member_end(z) || !z->members)
        return sgz_base_fail(err, SGZ_EDATA, z->base, NULL, 0,
                             "truncated: the input ends inside a gzip member");
    s->closed = s->count != 0;
    sgz_status status = sgz_codec_scan_end_traces(s, err);
    if (!status && s->options.wanted && s->wants < s->options.wanted->count)
        status = sgz_codec_scan_not_there(s, "the blob ends before", err);
    s->next = INT64_MAX;
    sgz_points *points = s->options.points;
    while (points && s->options.wanted && points->count > 1 &&
           points->at[points->count - 1].out == s->out) /* nothing is behind it */
        points->windows_len = points->at[--points->count].window;
    if (points) {
        points->size = z->base;
        points->end = s->out;
    }
    return status;
}

int64_t sgz_codec_scan_settled(const sgz_scanner *s)
{
    if (s->count)
        return s->candidates[0].point.out;
    int64_t here = decoded(s);
    return s->begun && here <= s->next ? s->next + (s->next < INT64_MAX) : here;
}

int64_t sgz_codec_scan_out(const sgz_scanner *s)
{
    return s->out;
}

int64_t sgz_codec_scan_in(const sgz_scanner *s)
{
    return s->inflater.base;
}

uint64_t sgz_codec_scan_members(const sgz_scanner *s)
{
    return s->inflater.members;
}

int64_t sgz_codec_scan_member_offset(const sgz_scanner *s)
{
    return s->inflater.member_offset;
}

int sgz_codec_scan_garbage(const sgz_scanner *s)
{
    return s->inflater.garbage;
}
