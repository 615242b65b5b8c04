/* One segment of the blob: decoded, its chunks hashed, the rest handed to the tree. */
#include "verify/internal.h"

#define DEFER_MAX ((size_t)8 << 20)     /* chunk bytes held until their file's turn */

typedef struct {
    size_t span;        /* the next or current one */
    size_t last;
    int64_t at;         /* decoded bytes of the segment so far */
    sgz_verify_big *big; /* of the current span */
    int hold;           /* the current span's bytes are held back */
    int open;           /* the current span has begun */
    int64_t start;
} cursor;

static sgz_status hold_item(sgz_verify_worker *w, size_t span)
{
    if (w->deferred_count == w->deferred_cap) {
        size_t cap = w->deferred_cap ? w->deferred_cap * 2 : 64;
        sgz_verify_deferred *grown = realloc(w->deferred, cap * sizeof *grown);
        if (!grown)
            return sgz_verify_no_memory(w->v);
        w->deferred = grown;
        w->deferred_cap = cap;
    }
    w->deferred[w->deferred_count++] = (sgz_verify_deferred){span, 0, 0};
    return SGZ_OK;
}

static sgz_status begin_span(sgz_verify_worker *w, cursor *c)
{
    sgz_verify *v = w->v;
    c->open = 1;
    sgz_codec_sha256_init(v->args.codecs, &w->sha);
    c->big = v->big_count ? sgz_verify_big_of(v, c->span) : NULL;
    c->hold = 0;
    if (!c->big)
        return SGZ_OK;
    if (!w->deferred_count && sgz_verify_big_has_turn(c->big, c->span))
        return SGZ_OK;
    int64_t size = span_entry(v, c->span)->chunk_size;
    if (size <= (int64_t)(DEFER_MAX - w->held_len)) {
        if (!w->held && !(w->held = malloc(DEFER_MAX)))
            return sgz_verify_no_memory(v);
        c->hold = 1;
        return hold_item(w, c->span);
    }
    sgz_status st = sgz_verify_big_flush(w);
    return st ? st : sgz_verify_big_wait(v, c->big, c->span);
}

static sgz_status span_bytes(sgz_verify_worker *w, cursor *c, const uint8_t *data, size_t len)
{
    sgz_codec_sha256_update(w->v->args.codecs, &w->sha, data, len);
    if (!c->big)
        return SGZ_OK;
    if (!c->hold)
        return sgz_verify_big_update(w->v, c->big, data, len);
    memcpy(w->held + w->held_len, data, len);
    w->held_len += len;
    w->deferred[w->deferred_count - 1].len += len;
    return SGZ_OK;
}

/* The current span ended: whole, or (`failed`) because no more bytes come. */
static void end_span(sgz_verify_worker *w, cursor *c, int failed)
{
    sgz_verify *v = w->v;
    const sgz_entry *e = span_entry(v, c->span), *file = span_file(v, c->span);
    if (!failed) {
        const uint8_t *expected = NULL, *whole = NULL;
        if (!c->big)
            whole = sgz_toc_digest(v->toc, v->args.spans->files[c->span]);
        uint8_t digest[32];
        int good = 1;
        sgz_codec_sha256_final(v->args.codecs, &w->sha, digest);
        if (e->flags & SGZ_HAS_CHUNK_DIGEST)
            expected = e->chunk_digest;
        if (expected)
            good = sgz_verify_check(v, file, e->offset, expected, digest, "a chunk");
        if (good && whole && whole != expected)
            good = sgz_verify_check(v, file, e->offset, whole, digest, "the file");
        failed = !good;
        if (good)
            atomic_fetch_add_explicit(&v->chunks, 1, memory_order_relaxed);
    }
    if (c->big && c->hold)
        w->deferred[w->deferred_count - 1].failed = failed;
    else if (c->big)
        sgz_verify_big_advance(v, c->big, c->span, failed);
    c->open = 0;
    c->span++;
}

/* Share out decoded bytes between chunks and gaps. */
static sgz_status share(sgz_verify_worker *w, cursor *c, const uint8_t *data, size_t len)
{
    sgz_status st = SGZ_OK;
    while (len && !st) {
        size_t n = len;
        if (c->span == c->last) {
            st = sgz_verify_batch_gap(w, data, n, c->start);
        } else {
            const sgz_entry *e = span_entry(w->v, c->span);
            if (c->at < e->inner_offset) {
                if (n > (uint64_t)(e->inner_offset - c->at))
                    n = (size_t)(e->inner_offset - c->at);
                st = sgz_verify_batch_gap(w, data, n, c->start);
            } else {
                if (!c->open && (st = begin_span(w, c)))
                    return st;
                int64_t left = e->inner_offset + e->chunk_size - c->at;
                if (n > (uint64_t)left)
                    n = (size_t)left;
                st = span_bytes(w, c, data, n);
                if (!st && n == (uint64_t)left) {
                    size_t span = c->span;
                    end_span(w, c, 0);
                    st = sgz_verify_batch_event(w, EVENT_SPAN, span, c->start);
                }
            }
        }
        data += n;
        len -= n;
        c->at += (int64_t)n;
    }
    return st;
}

/* Every chunk that got no bytes, or not all of them, still passes its file's turn. */
static sgz_status abandon_spans(sgz_verify_worker *w, cursor *c)
{
    while (c->span < c->last) {
        sgz_status st = c->open ? SGZ_OK : begin_span(w, c);
        if (st)
            return st;
        end_span(w, c, 1);
    }
    return sgz_verify_batch_event(w, EVENT_BREAK, 0, c->start);
}

sgz_status sgz_verify_walk_segment(sgz_verify_worker *w, size_t number)
{
    sgz_verify *v = w->v;
    const sgz_verify_segment *s = &v->segments[number];
    int64_t end = number + 1 < v->segment_count ? s[1].start : v->args.spans->end;
    cursor c = {.span = s->first_span, .start = s->start};
    c.last = number + 1 < v->segment_count ? s[1].first_span : v->args.spans->count;
    sgz_error err;
    sgz_status st;
    size_t got;
    uint64_t bytes = 0;
    sgz_codec_decoder_seek(&w->decoder, s->start, end);
    do {
        if (sgz_base_job_stopped(v->job))
            return SGZ_ECANCELLED;
        st = sgz_codec_decoder_read(&w->decoder, w->piece, PIECE, &got, &err);
        bytes += got;
        if (!v->args.size_only && got) {
            sgz_status inner = share(w, &c, w->piece, got);
            if (inner)
                return inner;
        }
    } while (!st && got == PIECE);
    atomic_fetch_add_explicit(&v->bytes, bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&v->job->done, end - s->start, memory_order_relaxed);
    int broken = st != SGZ_OK;
    const sgz_entry *file = c.span < c.last ? span_file(v, c.span) : NULL;
    if (st && !err.name[0] && file && st == SGZ_EGZIP) {
        sgz_error bare = err;
        sgz_base_fail(&err, st, bare.offset, v->toc->arena + file->name_off, file->name_len,
                      "%s", bare.message);
    }
    if (st && sgz_verify_judge(v, st, &err))
        return st;
    if (!st && w->decoder.inflater.garbage) {
        sgz_base_fail(&err, SGZ_EGZIP, s->start, NULL, 0,
                      "bytes that are no gzip member stand between the members");
        sgz_verify_report(v, &err);
        broken = 1;
    }
    if (v->args.size_only)
        return SGZ_OK;
    if (c.span < c.last && !broken) {
        sgz_base_fail(&err, SGZ_EGZIP, s->start, v->toc->arena + file->name_off, file->name_len,
                      "the data of this chunk ends before its %lld bytes",
                      (long long)span_entry(v, c.span)->chunk_size);
        sgz_verify_report(v, &err);
        broken = 1;
    }
    return broken ? abandon_spans(w, &c) : SGZ_OK;
}
