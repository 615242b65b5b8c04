/* What comes back for requests: see chunks/table.h. */
#include "chunks/internal.h"

#include <stdlib.h>

/* With the pauses of stargz/remote.py between them these take two minutes. */
#define BACKGROUND_TRIES 8

static sgz_chunks_active *find_active(sgz_chunks *c, uint64_t id)
{
    sgz_chunks_active *a;
    pthread_mutex_lock(&c->lock);
    for (a = c->active; a && a->job.id != id; a = a->next)
        ;
    pthread_mutex_unlock(&c->lock);
    return a;
}

/* With the lock held. */
static void end(sgz_chunks *c, sgz_chunks_active *a)
{
    sgz_chunks_active **at = &c->active;
    while (*at != a)
        at = &(*at)->next;
    *at = a->next;
    c->under_way[a->job.priority]--;
    sgz_chunks_layer *layer = c->layers[a->job.layer];
    layer->demanding -= a->job.priority == SGZ_DEMAND;
    layer->slow = layer->slow && !a->slow;
    for (size_t i = 0; i < a->count; i++)
        sgz_chunks_unpin(c, a->chunks[i]);
    if (sgz_chunks_fetch_idle(c) || c->ahead_count || c->queue || c->slow)
        pthread_cond_broadcast(&c->work);
    free(a->chunks);
    free(a);
}

/* Keep on disk what has come and was checked. */
static void to_disk(sgz_chunks *c, const sgz_chunks_active *a)
{
    for (size_t i = 0; i < a->count; i++) {
        sgz_chunks_chunk *k = a->chunks[i];
        sgz_chunks_layer *layer = k->layer;
        const uint8_t *digest = sgz_read_span_digest(layer->spans, k->span);
        int kept;
        if (!c->store || !layer->verify || !digest || k->state != SGZ_READY ||
            sgz_chunks_span_entry(layer, k->span)->chunk_size > SGZ_WINDOW)
            continue;
        pthread_mutex_lock(&c->lock);
        int there = layer->marks[k->span] & SGZ_ON_DISK;
        pthread_mutex_unlock(&c->lock);
        if (there || sgz_chunks_disk_put(c->store, digest, k->data, k->len, &kept, NULL) ||
            !kept)
            continue;
        pthread_mutex_lock(&c->lock);
        layer->marks[k->span] |= SGZ_ON_DISK;
        /* Nobody asked for it: memory is for what is read. */
        if (a->job.priority == SGZ_BACKGROUND && k->cold && k->pins == 1)
            sgz_chunks_unlist(c, k);
        pthread_mutex_unlock(&c->lock);
    }
}

/* Of what takes long only that is decoded which someone waits for. Says what is left. */
static sgz_chunks_chunk *still_wanted(sgz_chunks *c, const sgz_chunks_active *a)
{
    sgz_chunks_chunk *first = NULL;
    sgz_error err;
    for (size_t i = a->count; i--;) {
        sgz_chunks_chunk *k = a->chunks[i];
        if (k->state != SGZ_FLYING)
            continue;
        if (k->pins > 1) {
            first = k;
            continue;
        }
        sgz_base_fail(&err, SGZ_ECANCELLED, -1, NULL, 0, "nobody wants it");
        sgz_chunks_mark_failed(c, k, &err);
    }
    return first;
}

/* Decode what is missing of a request, within the decoder's budget. */
static sgz_status decode(sgz_chunks *c, const sgz_chunks_active *a, sgz_reader *r, sgz_error *err)
{
    sgz_status st = SGZ_OK, one = SGZ_OK;
    sgz_error mine;
    for (size_t i = 0; i < a->count && one != SGZ_ECANCELLED; i++) {
        sgz_chunks_chunk *k = a->chunks[i];
        if (k->state != SGZ_FLYING)
            continue;
        one = sgz_chunks_decode(c, r, k, &mine);
        if (one && (k->error || (k->error = malloc(sizeof *k->error))))
            *k->error = mine;
        if (one && (!st || one == SGZ_ECANCELLED)) {
            st = one;
            if (err)
                *err = mine;
        }
    }
    return st;
}

sgz_status sgz_chunks_deliver(sgz_chunks *c, const sgz_chunks_job *job, const sgz_blob *data,
                              int *later, sgz_error *err)
{
    sgz_chunks_active *a = find_active(c, job->id);
    sgz_reader *r = NULL;
    *later = 0;
    if (!a)
        return sgz_base_fail(err, SGZ_ECANCELLED, -1, NULL, 0, "there is no such request");
    sgz_chunks_layer *layer = a->chunks[0]->layer;
    /* What is read in steps goes on where the request before stopped. */
    int keep = job->in_steps && !data->data;
    pthread_mutex_lock(&c->lock);
    if (!a->counted) { /* before a reader has its bytes */
        c->stats.fetched_bytes += (uint64_t)job->size;
        c->stats.fetched_requests++;
        a->counted = 1;
    }
    if (keep)
        r = sgz_chunks_take_reader(c, layer, job->first, a->chunks[0]->window);
    int64_t budget = a->slow ? 0 : sgz_chunks_budget(c);
    if (budget && sgz_chunks_span_entry(layer, job->first)->chunk_size > SGZ_WINDOW)
        budget = -1; /* that is known beforehand */
    if (a->slow)
        still_wanted(c, a);
    pthread_mutex_unlock(&c->lock);
    if (!r && !(r = sgz_chunks_new_reader(c, layer, data, err)))
        return err->code;
    r->decoder.blob = data;
    r->decoder.stop = &c->ended;
    r->decoder.budget = budget;
    r->fetched = r->with_first = 1;
    sgz_status st = decode(c, a, r, err);
    int spent = st == SGZ_ECANCELLED && r->decoder.budget < 0;
    int again = keep && !st;
    if (!again)
        sgz_chunks_free_reader(r);
    to_disk(c, a);
    pthread_mutex_lock(&c->lock);
    if (again)
        sgz_chunks_give_reader(c, layer, r, SGZ_NO_SPAN);
    if (st && !spent) {
        pthread_mutex_unlock(&c->lock);
        return st;
    }
    if (c->stopped && spent) {
        pthread_mutex_unlock(&c->lock);
        return st;
    }
    sgz_chunks_chunk *slow = spent ? still_wanted(c, a) : NULL;
    if (slow) {
        sgz_chunks_put_off(c, slow);
        *later = 1;
    } else {
        end(c, a);
    }
    pthread_mutex_unlock(&c->lock);
    return SGZ_OK;
}

/* A source that was down may be back: the background does not pass over what failed, unless it
 * fails again and again. */
static void once_more(sgz_chunks_layer *layer, size_t first)
{
    if (layer->background_failed != first)
        layer->background_tries = 0;
    layer->background_failed = first;
    if (++layer->background_tries < BACKGROUND_TRIES && first < layer->background_next)
        layer->background_next = first;
}

void sgz_chunks_fail(sgz_chunks *c, const sgz_chunks_job *job, const sgz_error *err)
{
    sgz_chunks_active *a = find_active(c, job->id);
    if (!a)
        return;
    pthread_mutex_lock(&c->lock);
    c->stats.failures++;
    if (a->counted) {
        c->stats.fetched_bytes -= (uint64_t)job->size;
        c->stats.fetched_requests--;
    }
    if (job->priority == SGZ_BACKGROUND)
        once_more(c->layers[job->layer], job->first);
    for (size_t i = 0; i < a->count; i++) {
        if (a->chunks[i]->state != SGZ_FLYING)
            continue;
        /* What is wrong with their bytes is another thing for each. */
        int wrong = err->code == SGZ_EDATA || err->code == SGZ_EDIGEST;
        const sgz_error *own = a->chunks[i]->error;
        sgz_chunks_want *wants = sgz_chunks_mark_failed(c, a->chunks[i], wrong && own ? own : err);
        pthread_mutex_unlock(&c->lock);
        sgz_chunks_wake(wants);
        pthread_mutex_lock(&c->lock);
    }
    end(c, a);
    pthread_mutex_unlock(&c->lock);
}
