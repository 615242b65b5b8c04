/* The stages of verification that keep the order of the blob: the hashes of files of several
 * chunks, the hash of the tar, and what is compared with it. */
#include "verify/internal.h"

/* Bytes that a batch holds before it must be its turn: of no chunk, and where all are wanted. */
#define GAP_MAX ((size_t)1 << 20)
#define WHOLE_MAX ((size_t)8 << 20)
/* Who has held so few asks whether its turn has come. */
#define TURN_BELOW ((size_t)1 << 20)

/* --- the digests of files of several chunks ---------------------------------------------- */

sgz_verify_big *sgz_verify_big_of(sgz_verify *v, size_t span)
{
    uint32_t row = v->args.spans->files[span];
    size_t low = 0, high = v->big_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (v->big[middle].row < row)
            low = middle + 1;
        else
            high = middle;
    }
    return low < v->big_count && v->big[low].row == row ? &v->big[low] : NULL;
}

sgz_status sgz_verify_big_wait(sgz_verify *v, const sgz_verify_big *f, size_t span)
{
    if (sgz_verify_big_has_turn(f, span))
        return SGZ_OK;
    atomic_fetch_add(&v->waiters, 1);
    pthread_mutex_lock(&v->job->lock);
    while (!sgz_verify_big_has_turn(f, span) && !sgz_base_job_stopped(v->job))
        pthread_cond_wait(&v->job->changed, &v->job->lock);
    pthread_mutex_unlock(&v->job->lock);
    atomic_fetch_sub(&v->waiters, 1);
    return sgz_base_job_stopped(v->job) ? SGZ_ECANCELLED : SGZ_OK;
}

/* Feed bytes of the chunk whose turn it is. */
sgz_status sgz_verify_big_update(sgz_verify *v, sgz_verify_big *f, const uint8_t *data,
                                 size_t len)
{
    if (!f->sha.ctx) {
        sgz_error err;
        sgz_status st = sgz_codec_sha256_new(v->args.codecs, &f->sha, &err);
        if (st)
            return sgz_verify_judge(v, st, &err);
        sgz_codec_sha256_init(v->args.codecs, &f->sha);
    }
    sgz_codec_sha256_update(v->args.codecs, &f->sha, data, len);
    return SGZ_OK;
}

/* The chunk whose turn it is has passed. */
void sgz_verify_big_advance(sgz_verify *v, sgz_verify_big *f, size_t span, int failed)
{
    f->failed |= failed;
    if (span + 1 == f->last) {
        const sgz_entry *file = &v->toc->rows[f->row];
        const uint8_t *expected = sgz_toc_digest(v->toc, f->row);
        uint8_t actual[32];
        if (f->sha.ctx) {
            sgz_codec_sha256_final(v->args.codecs, &f->sha, actual);
            sgz_codec_sha256_free(v->args.codecs, &f->sha);
            f->sha.ctx = NULL;
            if (expected && !f->failed)
                sgz_verify_check(v, file, file->offset, expected, actual, "the file");
        }
    }
    atomic_store(&f->next, span + 1);
    if (atomic_load(&v->waiters)) {
        pthread_mutex_lock(&v->job->lock);
        pthread_cond_broadcast(&v->job->changed);
        pthread_mutex_unlock(&v->job->lock);
    }
}

sgz_status sgz_verify_big_flush(sgz_verify_worker *w)
{
    size_t at = 0;
    for (size_t i = 0; i < w->deferred_count; i++) {
        sgz_verify_deferred *d = &w->deferred[i];
        sgz_verify_big *f = sgz_verify_big_of(w->v, d->span);
        if (sgz_verify_big_wait(w->v, f, d->span))
            return SGZ_ECANCELLED;
        sgz_status st = d->len ? sgz_verify_big_update(w->v, f, w->held + at, d->len) : SGZ_OK;
        if (st)
            return st;
        at += d->len;
        sgz_verify_big_advance(w->v, f, d->span, d->failed);
    }
    w->deferred_count = 0;
    w->held_len = 0;
    return SGZ_OK;
}

/* --- batches, and what is done in order ---------------------------------------------------- */

static sgz_status add_event(sgz_verify_worker *w, const sgz_verify_event *event)
{
    sgz_verify_batch *b = w->batch;
    sgz_verify_event *last = b->count ? &b->events[b->count - 1] : NULL;
    if (event->len && last && last->kind == event->kind && last->span == event->span &&
        last->offset == event->offset) {
        last->len += event->len;
        return SGZ_OK;
    }
    return SGZ_PUSH(b->events, b->count, b->cap, *event) ? SGZ_OK : sgz_verify_no_memory(w->v);
}

sgz_status sgz_verify_batch_event(sgz_verify_worker *w, int kind, size_t span, int64_t offset)
{
    return add_event(w, &(sgz_verify_event){kind, span, 0, offset});
}

void sgz_verify_batch_free(sgz_verify_batch *b)
{
    if (!b)
        return;
    free(b->events);
    free(b->held);
    free(b);
}

static void take_bytes(sgz_verify *v, const sgz_verify_event *e, const uint8_t *data, size_t len)
{
    if (v->whole.ctx)
        sgz_codec_sha256_update(v->args.codecs, &v->whole, data, len);
    if (v->split && e->kind == EVENT_DATA)
        sgz_verify_split_data(v->split, e->span, data, len);
    else if (v->split)
        sgz_verify_split_gap(v->split, data, len, e->offset);
    else if (e->kind == EVENT_GAP)
        sgz_verify_names_gap(v->tree, data, len, e->offset);
}

static void take_event(sgz_verify *v, const sgz_verify_event *e)
{
    if (e->kind == EVENT_BREAK && v->whole.ctx) {
        sgz_codec_sha256_free(v->args.codecs, &v->whole);
        v->whole.ctx = NULL;
    }
    if (v->split && e->kind == EVENT_SPAN)
        sgz_verify_split_span(v->split, e->span, e->offset);
    else if (v->split)
        sgz_verify_split_break(v->split);
    else if (e->kind == EVENT_SPAN)
        sgz_verify_names_span(v->tree, e->span);
    else
        sgz_verify_names_break(v->tree);
}

static void feed(sgz_verify *v, sgz_verify_batch *b)
{
    size_t at = 0;
    for (size_t i = 0; i < b->count; i++) {
        const sgz_verify_event *e = &b->events[i];
        if (e->len)
            take_bytes(v, e, b->held + at, e->len);
        else
            take_event(v, e);
        at += e->len;
    }
    b->count = 0;
    b->held_len = 0;
}

/* Feed what waits in the ring, in order, unless somebody already does. Called and left
 * with the lock held. */
static void feed_ring(sgz_verify *v)
{
    if (v->feeding)
        return;
    sgz_verify_batch *b;
    while ((b = v->ring[v->next_fed % RING]) && b->number == v->next_fed) {
        v->feeding = 1;
        v->ring[v->next_fed % RING] = NULL;
        v->held -= b->held_len;
        pthread_mutex_unlock(&v->job->lock);
        feed(v, b);
        sgz_verify_batch_free(b);
        pthread_mutex_lock(&v->job->lock);
        v->feeding = 0;
        v->next_fed++;
        pthread_cond_broadcast(&v->job->changed);
    }
}

void sgz_verify_batch_finish(sgz_verify_worker *w)
{
    sgz_verify *v = w->v;
    sgz_verify_batch *b = w->batch;
    w->batch = NULL;
    if (b->direct) {
        feed(v, b);
        sgz_verify_batch_free(b);
        pthread_mutex_lock(&v->job->lock);
        v->feeding = 0;
        v->next_fed++;
        pthread_cond_broadcast(&v->job->changed);
    } else {
        pthread_mutex_lock(&v->job->lock);
        v->ring[b->number % RING] = b;
        v->held += b->held_len;
    }
    feed_ring(v);
    pthread_mutex_unlock(&v->job->lock);
}

/* Wait until all earlier batches were fed, and take the turn for this one. */
static sgz_status take_turn(sgz_verify_worker *w)
{
    sgz_verify *v = w->v;
    pthread_mutex_lock(&v->job->lock);
    while ((v->next_fed != w->batch->number || v->feeding) && !sgz_base_job_stopped(v->job))
        pthread_cond_wait(&v->job->changed, &v->job->lock);
    if (!sgz_base_job_stopped(v->job)) {
        v->feeding = 1;
        w->batch->direct = 1;
    }
    pthread_mutex_unlock(&v->job->lock);
    if (!w->batch->direct)
        return SGZ_ECANCELLED;
    feed(v, w->batch);
    return SGZ_OK;
}

/* The turn, if it has come. */
static void try_turn(sgz_verify_worker *w)
{
    sgz_verify *v = w->v;
    pthread_mutex_lock(&v->job->lock);
    if (v->next_fed == w->batch->number && !v->feeding)
        v->feeding = w->batch->direct = 1;
    pthread_mutex_unlock(&v->job->lock);
    if (w->batch->direct)
        feed(v, w->batch);
}

sgz_status sgz_verify_batch_bytes(sgz_verify_worker *w, int kind, size_t span,
                                  const uint8_t *data, size_t len, int64_t offset)
{
    sgz_verify_batch *b = w->batch;
    sgz_verify_event event = {kind, span, len, offset};
    if (!b->direct && w->v->args.whole && b->held_len < TURN_BELOW)
        try_turn(w);
    if (!b->direct && b->held_len + len > (w->v->args.whole ? WHOLE_MAX : GAP_MAX)) {
        sgz_status st = take_turn(w);
        if (st)
            return st;
    }
    if (b->direct) {
        feed(w->v, b); /* what a deferred event left behind */
        take_bytes(w->v, &event, data, len);
        return SGZ_OK;
    }
    if (!SGZ_FIT(b->held, b->held_cap, b->held_len + len))
        return sgz_verify_no_memory(w->v);
    memcpy(b->held + b->held_len, data, len);
    b->held_len += len;
    return add_event(w, &event);
}
