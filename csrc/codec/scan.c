#include "codec/scan.h"

#include "codec/blocks.h"
#include "codec/inflate.h"
#include "codec/trace.h"

#include <stdlib.h>
#include <string.h>

#define FAR ((int64_t)512 << 10) /* no candidate is further behind the first */
/* ISA-L decodes up to 64 KiB and a match more than it hands out: from so much before a place on
 * where a point may be, blocks are watched. */
#define AHEAD ((int64_t)66 << 10)
#define PACK_LEVEL 2

/* A place where a point may be. */
typedef struct {
    sgz_point point;
    sgz_trace trace;
    uint32_t needs;  /* bytes of its history */
    uint8_t *window; /* SGZ_HISTORY_MAX bytes if raw, else `history` of them */
} candidate;

struct sgz_scanner {
    sgz_inflater inflater; /* first: sgz_codec_inflate_by hands it to scan_data */
    sgz_scan_options options;
    sgz_deflater deflater;
    uint8_t *packed;
    uint8_t *recent;       /* raw: the last SGZ_HISTORY_MAX bytes given before this call */
    int64_t out;           /* bytes given */
    int64_t call_out;      /* of those, before this call */
    int64_t member_out;    /* and before this member */
    uint64_t member;       /* its number */
    int armed;             /* the present block was made the last */
    int again;             /* the first byte that is held was given already */
    int last;              /* the present block is the last of its member: none ends behind it */
    int64_t next;          /* points come behind this decoded position */
    size_t wants;          /* of the wanted points those that were found */
    int64_t passed;        /* the traces are within the member up to there */
    int begun;             /* the first point was found */
    candidate candidates[SGZ_TRIES_MAX];
    unsigned count;
    int closed;            /* no more of them: the choice waits for their traces alone */
    const uint8_t *given;  /* the input of this call, which begins at `given_at` */
    size_t given_len;
    int64_t given_at;
};

static int traces(const sgz_scanner *s)
{
    return !s->options.raw || s->options.tries > 1;
}

static int make_room(sgz_scanner *s, const sgz_codecs *codecs)
{
    for (unsigned i = 0; i < s->options.tries; i++) {
        candidate *c = &s->candidates[i];
        if (!(c->window = malloc(SGZ_HISTORY_MAX)) ||
            (traces(s) && !sgz_codec_trace_new(&c->trace, &codecs->isal)))
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

/* --- candidates -------------------------------------------------------------------------- */

/* Leave out what comes before the first needed byte, have zeros for the others, and deflate it. */
static sgz_status reduce(sgz_scanner *s, candidate *c, const uint8_t **window, sgz_error *err)
{
    sgz_point *point = &c->point;
    uint32_t first = 0, n = point->history;
    const uint8_t *needed = c->trace.needed + SGZ_HISTORY_MAX - n;
    while (first + 1 < n && !needed[first])
        first++;
    for (uint32_t i = first; i < n; i++)
        c->window[i] &= (uint8_t)-needed[i];
    point->history = n - first;
    *window = c->window + first;
    if (!point->history)
        return SGZ_OK;
    size_t len;
    sgz_status status =
        sgz_codec_deflate_member(&s->deflater, *window, point->history, 0, s->packed,
                                 sgz_codec_member_bound(SGZ_HISTORY_MAX), &len, err);
    len -= SGZ_GZIP_HEADER + SGZ_GZIP_TRAILER;
    if (!status && len < point->history) {
        point->packed = (uint32_t)len;
        *window = s->packed + SGZ_GZIP_HEADER;
    }
    return status;
}

static sgz_status settle(sgz_scanner *s, candidate *c, sgz_error *err)
{
    const uint8_t *window = c->window;
    sgz_status status = s->options.raw ? SGZ_OK : reduce(s, c, &window, err);
    if (status)
        return status;
    if (s->options.found)
        return s->options.found(s->options.arg, &c->point, window, err);
    if (s->options.raw)
        window += SGZ_HISTORY_MAX - c->point.history;
    return s->options.points ? sgz_codec_points_append(s->options.points, c->point, window, err)
                             : SGZ_OK;
}

/* --- wanted points ----------------------------------------------------------------------- */

static int64_t next_wanted(const sgz_scanner *s)
{
    const sgz_points *wanted = s->options.wanted;
    return s->wants < wanted->count ? wanted->at[s->wants].out - 1 : INT64_MAX;
}

static sgz_status not_there(const sgz_scanner *s, const char *what, sgz_error *err)
{
    const sgz_point *p = &s->options.wanted->at[s->wants];
    return sgz_base_fail(err, SGZ_EINDEX, p->offset, NULL, 0,
                         "entry point %zu of the index, for decoded byte %lld, is not right: %s; is "
                         "the index of another file?", s->wants, (long long)p->out, what);
}

/* Whether the history that a point came with is the one that was decoded, as far as it goes. */
static int right_history(const sgz_scanner *s, const sgz_point *p, uint32_t in_member)
{
    const sgz_isal_inflate_state *state = s->inflater.state;
    uint32_t n = p->history < in_member ? p->history : in_member;
    const uint8_t *told = s->options.wanted->windows + p->window + (p->history - n);
    const uint8_t *own = state->tmp_out + state->tmp_out_valid - n;
    for (uint32_t i = 0; i < n; i++)
        if (told[i] && told[i] != own[i])
            return 0;
    return 1;
}

/* Is this place among the wanted? `place` is as it would be listed. */
static sgz_status find_wanted(sgz_scanner *s, const sgz_point *place, int *found, sgz_error *err)
{
    const sgz_points *wanted = s->options.wanted;
    const sgz_point *p = &wanted->at[s->wants];
    int64_t offset = place->offset;
    *found = 0;
    if (wanted->kind == SGZ_POINT_GZIP)
        offset = place->history || place->out != s->member_out ? -1 : s->inflater.member_offset;
    if (s->wants == wanted->count || place->out < p->out)
        return SGZ_OK;
    if (place->out > p->out)
        return not_there(s, "decoding cannot begin there", err);
    if (offset != p->offset || place->skip != p->skip)
        return SGZ_OK; /* blocks may be empty: the next has the same position */
    if (p->history && !right_history(s, p, place->history))
        return not_there(s, "its window is not what comes before it", err);
    s->wants++;
    *found = !place->history || place->out > s->passed;
    return SGZ_OK;
}

/* Trace on, and make the choice once all that it needs is known. */
static sgz_status decide(sgz_scanner *s, sgz_error *err)
{
    const sgz_isal *isal = &s->inflater.codecs->isal;
    int traced = 1;
    for (unsigned i = 0; i < s->count; i++) {
        sgz_trace *t = &s->candidates[i].trace;
        sgz_codec_trace_feed(t, isal, s->given, s->given_len, s->given_at);
        traced &= sgz_codec_trace_done(t);
    }
    if (!s->closed || !traced)
        return SGZ_OK;
    candidate *best = NULL;
    for (unsigned i = 0; i < s->count; i++) {
        candidate *c = &s->candidates[i];
        c->needs = c->point.history && traces(s)
                       ? sgz_codec_trace_needs(&c->trace, c->point.history)
                       : 0;
        if (!best || c->needs < best->needs)
            best = c;
    }
    /* When the traces end depends on how the input comes. That nothing else does, none of the
     * places that they pass is a candidate. */
    int64_t passed = s->candidates[s->count - 1].point.out + SGZ_HISTORY_MAX;
    s->next = best->point.out + s->options.span;
    if (s->next < passed)
        s->next = passed;
    if (s->options.wanted)
        s->next = next_wanted(s);
    s->count = 0;
    s->closed = 0;
    return settle(s, best, err);
}

/* The history of a place: the state has its member's, and for raw ones what is before was kept. */
static void copy_history(const sgz_scanner *s, candidate *c)
{
    const sgz_isal_inflate_state *state = s->inflater.state;
    uint32_t n = c->point.history;
    const uint8_t *own = state->tmp_out + state->tmp_out_valid - n;
    if (!s->options.raw) {
        memcpy(c->window, own, n);
        return;
    }
    size_t since = n < SGZ_HISTORY_MAX ? (size_t)(s->call_out - s->member_out) : 0;
    memcpy(c->window, s->recent + n - since, SGZ_HISTORY_MAX - n);
    memcpy(c->window + SGZ_HISTORY_MAX - n, own, n);
}

/* Decoding may begin at this place: is it a candidate? `bits` are the next ones, `count` of them;
 * the input goes on behind them. */
static sgz_status consider(sgz_scanner *s, int64_t out, uint64_t bits, int count, sgz_error *err)
{
    if (s->count && !s->closed && out - s->candidates[0].point.out > FAR) {
        s->closed = 1;
        sgz_status status = decide(s, err);
        if (status)
            return status;
    }
    int64_t base = s->inflater.base, in_member = out - s->member_out;
    if (in_member > s->inflater.state->tmp_out_valid) /* it never is */
        in_member = s->inflater.state->tmp_out_valid;
    const sgz_point place = {
        .offset = base - (count + 7) / 8,
        .out = out,
        .history = in_member < SGZ_HISTORY_MAX ? (uint32_t)in_member : SGZ_HISTORY_MAX,
        .skip = (uint8_t)(-count & 7),
    };
    if (s->options.wanted) {
        int found;
        sgz_status status = find_wanted(s, &place, &found, err);
        s->next = next_wanted(s);
        if (!status && s->count) /* its traces have ended, behind `passed` */
            status = found ? decide(s, err) : SGZ_OK;
        if (status || s->count || (s->begun && !found))
            return status;
        s->passed = out + SGZ_HISTORY_MAX;
    } else if (s->closed || (s->begun && out <= s->next)) {
        return SGZ_OK;
    }
    s->begun = 1;
    candidate *c = &s->candidates[s->count++];
    c->point = place;
    copy_history(s, c);
    if (traces(s) && c->point.history)
        sgz_codec_trace_begin(&c->trace, &s->inflater.codecs->isal, bits, count, c->point.history,
                              base);
    else
        sgz_codec_trace_end(&c->trace);
    /* No place is better than a member's beginning. */
    s->closed = !c->point.history || s->count == s->options.tries;
    return decide(s, err);
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
    return consider(s, decoded(s), sgz_isal_bits(state), state->read_in_length, err);
}

static sgz_status begin_member(sgz_scanner *s, sgz_error *err)
{
    s->member = s->inflater.members;
    s->member_out = s->out;
    s->armed = s->again = s->last = 0;
    s->passed = -1;
    return consider(s, s->out, 0, 0, err);
}

/* What is decoded of a member at its end is known to the traces, too. */
static sgz_status end_traces(sgz_scanner *s, sgz_error *err)
{
    for (unsigned i = 0; i < s->count; i++)
        sgz_codec_trace_end(&s->candidates[i].trace);
    return decide(s, err);
}

static sgz_status scan_some(sgz_scanner *s, const uint8_t **in, size_t *in_len, uint8_t *out,
                            size_t cap, size_t *made, sgz_error *err)
{
    sgz_inflater *z = &s->inflater;
    sgz_isal_inflate_state *state = z->state;
    for (;;) {
        if (s->count && !s->closed && decoded(s) - s->candidates[0].point.out > FAR) {
            s->closed = 1;
            sgz_status status = decide(s, err);
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
    sgz_status status = s->member == z->members ? decide(s, err) : begin_member(s, err);
    if (!status)
        status = scan_some(s, in, in_len, out, cap, made, err);
    if (!status && z->phase == SGZ_PHASE_TRAILER)
        status = end_traces(s, err);
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
    sgz_status status = end_traces(s, err);
    if (!status && s->options.wanted && s->wants < s->options.wanted->count)
        status = not_there(s, "the blob ends before", err);
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
