/* Which of the places where decoding may begin become points. */
#include "codec/scan_internal.h"

#include <string.h>

/* --- candidates -------------------------------------------------------------------------- */

/* Leave out what comes before the first needed byte, have zeros for the others, and deflate it. */
static sgz_status reduce(sgz_scanner *s, sgz_scan_candidate *c, const uint8_t **window,
                         sgz_error *err)
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
    if (status)
        return status;
    len -= SGZ_GZIP_HEADER + SGZ_GZIP_TRAILER;
    if (len < point->history) {
        point->packed = (uint32_t)len;
        *window = s->packed + SGZ_GZIP_HEADER;
    }
    return SGZ_OK;
}

static sgz_status settle(sgz_scanner *s, sgz_scan_candidate *c, sgz_error *err)
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

sgz_status sgz_codec_scan_not_there(const sgz_scanner *s, const char *what, sgz_error *err)
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
        return sgz_codec_scan_not_there(s, "decoding cannot begin there", err);
    if (offset != p->offset || place->skip != p->skip)
        return SGZ_OK; /* blocks may be empty: the next has the same position */
    if (p->history && !right_history(s, p, place->history))
        return sgz_codec_scan_not_there(s, "its window is not what comes before it", err);
    s->wants++;
    *found = !place->history || place->out > s->passed;
    return SGZ_OK;
}

sgz_status sgz_codec_scan_decide(sgz_scanner *s, sgz_error *err)
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
    sgz_scan_candidate *best = NULL;
    for (unsigned i = 0; i < s->count; i++) {
        sgz_scan_candidate *c = &s->candidates[i];
        c->needs = c->point.history && sgz_codec_scan_traces(s)
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
static void copy_history(const sgz_scanner *s, sgz_scan_candidate *c)
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

sgz_status sgz_codec_scan_consider(sgz_scanner *s, int64_t out, uint64_t bits, int count,
                                   sgz_error *err)
{
    if (s->count && !s->closed && out - s->candidates[0].point.out > SGZ_SCAN_FAR) {
        s->closed = 1;
        sgz_status status = sgz_codec_scan_decide(s, err);
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
            status = found ? sgz_codec_scan_decide(s, err) : SGZ_OK;
        if (status || s->count || (s->begun && !found))
            return status;
        s->passed = out + SGZ_HISTORY_MAX;
    } else if (s->closed || (s->begun && out <= s->next)) {
        return SGZ_OK;
    }
    s->begun = 1;
    sgz_scan_candidate *c = &s->candidates[s->count++];
    c->point = place;
    copy_history(s, c);
    if (sgz_codec_scan_traces(s) && c->point.history)
        sgz_codec_trace_begin(&c->trace, &s->inflater.codecs->isal, bits, count, c->point.history,
                              base);
    else
        sgz_codec_trace_end(&c->trace);
    /* No place is better than a member's beginning. */
    s->closed = !c->point.history || s->count == s->options.tries;
    return sgz_codec_scan_decide(s, err);
}

sgz_status sgz_codec_scan_end_traces(sgz_scanner *s, sgz_error *err)
{
    for (unsigned i = 0; i < s->count; i++)
        sgz_codec_trace_end(&s->candidates[i].trace);
    return sgz_codec_scan_decide(s, err);
}
