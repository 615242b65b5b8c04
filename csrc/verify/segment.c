/* One segment of the blob: decoded, its chunks hashed, the rest handed to the tree. */
#include "verify/internal.h"

#define DEFER_MAX ((size_t)8 << 20)     /* chunk bytes held until their file's turn */

typedef struct {
    sgz_read_passing pass;
    sgz_verify_big *big; /* of the current span */
    int hold;            /* the current span's bytes are held back */
    int other;           /* it is one of zeros, and has others */
    int64_t start;
} cursor;

static sgz_status hold_item(sgz_verify_worker *w, size_t span)
{
    sgz_verify_deferred item = {span, 0, 0};
    return SGZ_PUSH(w->deferred, w->deferred_count, w->deferred_cap, item)
               ? SGZ_OK
               : sgz_verify_no_memory(w->v);
}

static sgz_status begin_span(sgz_verify_worker *w, cursor *c, size_t span)
{
    sgz_verify *v = w->v;
    c->big = v->big_count ? sgz_verify_big_of(v, span) : NULL;
    c->hold = c->other = 0;
    if (!c->big)
        return SGZ_OK;
    if (!w->deferred_count && sgz_verify_big_has_turn(c->big, span))
        return SGZ_OK;
    int64_t size = sgz_read_span_row(v->args.spans, span)->chunk_size;
    if (size <= (int64_t)(DEFER_MAX - w->held_len)) {
        if (!w->held && !(w->held = malloc(DEFER_MAX)))
            return sgz_verify_no_memory(v);
        c->hold = 1;
        return hold_item(w, span);
    }
    sgz_status st = sgz_verify_big_flush(w);
    return st ? st : sgz_verify_big_wait(v, c->big, span);
}

/* Bytes of a file of several chunks are for the file's hash too. */
static sgz_status span_bytes(sgz_verify_worker *w, cursor *c, const uint8_t *data, size_t len)
{
    if (!c->big)
        return SGZ_OK;
    if (!c->hold)
        return sgz_verify_big_update(w->v, c->big, data, len);
    memcpy(w->held + w->held_len, data, len);
    w->held_len += len;
    w->deferred[w->deferred_count - 1].len += len;
    return SGZ_OK;
}

/* Readers are given zeros without looking. */
static int is_zeros(const uint8_t *data, size_t len)
{
    return !data[0] && !memcmp(data, data + 1, len - 1);
}

/* A span ended: whole, or (`failed`) because no more bytes come. */
static void end_span(sgz_verify_worker *w, cursor *c, size_t span, int failed)
{
    sgz_verify *v = w->v;
    uint32_t file = v->args.spans->files[span];
    if (!failed) {
        sgz_error err;
        const uint8_t *whole = c->big ? NULL : sgz_toc_digest(v->toc, file);
        const sgz_entry *e = sgz_read_span_row(v->args.spans, span);
        failed = sgz_read_verdict(&w->check, span, whole, file, &err) != SGZ_OK;
        if (!failed && c->other) {
            failed = 1;
            sgz_base_fail(&err, SGZ_ETOC, e->offset, sgz_toc_row_name(v->toc, file),
                          v->toc->rows[file].name_len,
                          "the TOC calls a chunk zeros that has other bytes");
        }
        if (failed)
            sgz_verify_report(v, &err);
        else if (e->type != SGZ_ZEROS)
            atomic_fetch_add_explicit(&v->chunks, 1, memory_order_relaxed);
    }
    if (c->big && c->hold)
        w->deferred[w->deferred_count - 1].failed = failed;
    else if (c->big)
        sgz_verify_big_advance(v, c->big, span, failed);
}

/* Share out decoded bytes between chunks and gaps. */
static sgz_status share(sgz_verify_worker *w, cursor *c, const uint8_t *data, size_t len)
{
    sgz_status st = SGZ_OK;
    for (size_t n; len && !st; data += n, len -= n) {
        size_t span = c->pass.span;
        int what = sgz_read_pass(&w->check, &c->pass, data, len, &n);
        if (!what) {
            st = sgz_verify_batch_bytes(w, EVENT_GAP, 0, data, n, c->start);
            continue;
        }
        if (what & SGZ_PASS_FIRST)
            st = begin_span(w, c, span);
        if (sgz_read_span_row(w->v->args.spans, span)->type == SGZ_ZEROS)
            c->other |= !is_zeros(data, n);
        if (!st)
            st = span_bytes(w, c, data, n);
        if (!st && w->v->args.whole)
            st = sgz_verify_batch_bytes(w, EVENT_DATA, span, data, n, c->start);
        if (!st && what & SGZ_PASS_LAST) {
            end_span(w, c, span, 0);
            st = sgz_verify_batch_event(w, EVENT_SPAN, span, w->decoder.next);
        }
    }
    return st;
}

/* Every chunk that got no bytes, or not all of them, still passes its file's turn. */
static sgz_status abandon_spans(sgz_verify_worker *w, cursor *c)
{
    for (size_t span = c->pass.span; span < c->pass.last; span++) {
        sgz_status st = c->pass.open ? SGZ_OK : begin_span(w, c, span);
        if (st)
            return st;
        end_span(w, c, span, 1);
        c->pass.open = 0;
    }
    return sgz_verify_batch_event(w, EVENT_BREAK, 0, c->start);
}

/* The one file that all of the spans belong to, or SGZ_NO_ROW. */
static uint32_t only_file(const sgz_spans *spans, size_t first, size_t last)
{
    uint32_t file = first < last ? spans->files[first] : SGZ_NO_ROW;
    for (size_t span = first; span < last; span++)
        if (spans->files[span] != file)
            return SGZ_NO_ROW;
    return file;
}

sgz_status sgz_verify_walk_segment(sgz_verify_worker *w, size_t number)
{
    sgz_verify *v = w->v;
    const sgz_spans *spans = v->args.spans;
    const sgz_verify_segment *s = &v->segments[number];
    int64_t end = s->end;
    cursor c = {.pass.span = s->first_span, .start = s->start};
    c.pass.last = number + 1 < v->segment_count ? s[1].first_span : spans->count;
    sgz_error err;
    sgz_status st;
    size_t got = 0;
    uint64_t bytes = 0;
    st = sgz_codec_decoder_enter(&w->decoder, s->start, end, &err);
    while (!st) {
        if (sgz_base_job_stopped(v->job))
            return SGZ_ECANCELLED;
        int ended = 0;
        st = v->args.whole
                 ? sgz_codec_decoder_read_unit(&w->decoder, w->piece, PIECE, &got, &ended, &err)
                 : sgz_codec_decoder_read(&w->decoder, w->piece, PIECE, &got, &err);
        bytes += got;
        if (!v->args.size_only && got) {
            sgz_status inner = share(w, &c, w->piece, got);
            if (inner)
                return inner;
        }
        if (got < PIECE && !ended)
            break;
    }
    atomic_fetch_add_explicit(&v->bytes, bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&v->job->done, end - s->start, memory_order_relaxed);
    int broken = st != SGZ_OK, missing = c.pass.span < c.pass.last;
    uint32_t file = missing ? spans->files[c.pass.span]
                            : only_file(spans, s->first_span, c.pass.last);
    if (file != SGZ_NO_ROW && st == SGZ_EDATA)
        sgz_base_name(&err, sgz_toc_row_name(v->toc, file), v->toc->rows[file].name_len);
    if (st && sgz_verify_judge(v, st, &err))
        return st;
    if (!st && sgz_codec_decoder_garbage(&w->decoder)) {
        sgz_base_fail(&err, SGZ_EDATA, s->start, NULL, 0,
                      "bytes that are no %s stand between the members",
                      sgz_codec_point_unit(spans->points));
        sgz_verify_report(v, &err);
        broken = 1;
    }
    if (v->args.size_only)
        return SGZ_OK;
    if (missing && !broken) {
        sgz_read_cut_off(spans, c.pass.span, file, &err);
        sgz_verify_report(v, &err);
        broken = 1;
    }
    return broken ? abandon_spans(w, &c) : SGZ_OK;
}
