/* What takes long to decode, on threads of its own: see chunks/table.h. */
#include "chunks/internal.h"

/* The first one whose layer has none under way, out of the queue; NULL: none. */
static sgz_chunks_chunk *take(sgz_chunks *c)
{
    sgz_chunks_chunk **at = &c->slow;
    while (*at && (*at)->layer->slow)
        at = &(*at)->next;
    sgz_chunks_chunk *k = *at;
    if (k && !(*at = k->next))
        c->slow_end = at;
    return k;
}

/* The request that a chunk of a blob that is not direct belongs to. */
static sgz_chunks_active *request(sgz_chunks *c, const sgz_chunks_chunk *k)
{
    for (sgz_chunks_active *a = c->active; a; a = a->next)
        for (size_t i = 0; i < a->count; i++)
            if (a->chunks[i] == k)
                return a;
    return NULL;
}

static void decode_here(sgz_chunks *c, sgz_chunks_chunk *k)
{
    sgz_error err;
    if (k->pins > 1) { /* someone still wants it */
        sgz_chunks_decode_direct(c, k, 0, &err);
    } else {
        sgz_base_fail(&err, SGZ_ECANCELLED, -1, NULL, 0, "nobody wants it");
        sgz_chunks_mark_failed(c, k, &err);
    }
    k->layer->slow = 0;
    sgz_chunks_unpin(c, k);
    pthread_cond_broadcast(&c->work); /* its layer's next one */
}

int sgz_chunks_slow(sgz_chunks *c, sgz_chunks_job *job)
{
    sgz_chunks_active *a = NULL;
    pthread_mutex_lock(&c->lock);
    c->has_slow = 1;
    while (!c->stopped && !a) {
        sgz_chunks_chunk *k = take(c);
        if (!k) {
            if (!sgz_chunks_finish(c))
                pthread_cond_wait(&c->work, &c->lock);
            continue;
        }
        k->layer->slow = 1;
        if (k->layer->direct) {
            decode_here(c, k);
        } else {
            a = request(c, k);
            a->slow = 1;
            *job = a->job;
            sgz_chunks_unpin(c, k);
        }
    }
    pthread_mutex_unlock(&c->lock);
    return a ? 1 : -1;
}
