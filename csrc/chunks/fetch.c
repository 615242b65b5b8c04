/* Which bytes are fetched, when: see chunks/table.h. */
#include "chunks/internal.h"
#include "base/deadline.h"

#include <stdlib.h>
#include <string.h>

/* Bytes between two wanted chunks that are fetched rather than asked around: about what a
 * second request costs on a link of 100 Mbit/s with a round trip of 5 ms. */
#define GAP ((int64_t)64 << 10)
/* Small enough that a wanted chunk does not wait long for the link (80 ms at 100 Mbit/s). */
#define BACKGROUND_STEP ((int64_t)1 << 20)
#define PREFETCH_STEP ((int64_t)4 << 20)
/* Of six workers (stargz/remote.py) two are left for other layers while one's server stalls. */
#define LAYER_REQUESTS 4

void sgz_chunks_unasked(sgz_chunks *c, unsigned kinds)
{
    pthread_mutex_lock(&c->lock);
    c->kinds = kinds;
    if (!c->store)
        c->kinds &= ~(1u << SGZ_PREFETCH | 1u << SGZ_BACKGROUND);
    pthread_cond_broadcast(&c->work);
    pthread_mutex_unlock(&c->lock);
}

/* --- the queue, with the lock held ---------------------------------------------------------- */

void sgz_chunks_fetch_want(sgz_chunks *c, sgz_chunks_chunk *k)
{
    k->queued = 1;
    k->next = NULL;
    *c->queue_end = k;
    c->queue_end = &k->next;
    pthread_cond_broadcast(&c->work);
}

static void unqueue(sgz_chunks *c, sgz_chunks_chunk *k)
{
    sgz_chunks_chunk **at = &c->queue;
    while (*at != k)
        at = &(*at)->next;
    *at = k->next;
    if (c->queue_end == &k->next)
        c->queue_end = at;
    k->queued = 0;
}

/* --- requests -------------------------------------------------------------------------------- */

/* Put a chunk into a request that is being made. */
static int include(sgz_chunks *c, sgz_chunks_active *a, sgz_chunks_chunk *k, int pinned)
{
    if (!SGZ_PUSH(a->chunks, a->count, a->cap, k))
        return 0;
    if (k->queued)
        unqueue(c, k);
    if (!pinned)
        sgz_chunks_pin(k);
    return 1;
}

/* Whether the span could be fetched though nobody waits for it. */
static int worth(const sgz_chunks *c, const sgz_chunks_layer *layer, size_t span, unsigned priority)
{
    int64_t size = sgz_chunks_span_entry(layer, span)->chunk_size;
    if (layer->heads[span] || layer->marks[span] & SGZ_ON_DISK || size > SGZ_WINDOW)
        return 0;
    if (priority >= SGZ_PREFETCH) /* of use only on disk */
        return layer->verify && sgz_read_span_digest(layer->spans, span) != NULL;
    return c->kinds & 1u << SGZ_AHEAD && c->unasked_bytes + (uint64_t)size <= c->memory / 2;
}

/* Which of [first, last) the disk has. Lets go of the lock meanwhile: each is a system call. */
static void ask_disk(sgz_chunks *c, sgz_chunks_layer *layer, size_t first, size_t last,
                     unsigned priority)
{
    uint8_t asked[SGZ_REQUEST_SPANS];
    size_t count = last - first, any = 0;
    if (!c->store || !layer->verify)
        return;
    for (size_t i = 0; i < count; i++)
        any += asked[i] = (uint8_t)worth(c, layer, first + i, priority);
    if (!any)
        return;
    pthread_mutex_unlock(&c->lock);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *digest = sgz_read_span_digest(layer->spans, first + i);
        if (asked[i])
            asked[i] = digest &&
                       sgz_chunks_disk_has(c->store, digest,
                                           sgz_chunks_span_entry(layer, first + i)->chunk_size);
    }
    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < count; i++)
        if (asked[i])
            layer->marks[first + i] |= SGZ_ON_DISK;
}

static int drop(sgz_chunks *c, sgz_chunks_active *a)
{
    for (size_t i = 0; i < a->count; i++)
        sgz_chunks_unpin(c, a->chunks[i]);
    free(a->chunks);
    free(a);
    return 0;
}

/* What a request takes of one span: its chunks that are wanted, or one that is worth having.
 * Returns how many; -1: no memory. */
static int take(sgz_chunks *c, sgz_chunks_active *a, sgz_chunks_layer *layer, size_t span,
                int unasked, unsigned priority)
{
    int taken = 0;
    for (sgz_chunks_chunk *k = layer->heads[span]; k; k = k->chain) {
        if (k->queued && !include(c, a, k, 0))
            return -1;
        taken += a->count && a->chunks[a->count - 1] == k;
    }
    /* Windows in the order in which they are decoded. */
    for (size_t i = 1; i < a->count && a->chunks[i]->span == span; i++)
        for (size_t j = i; j && a->chunks[j - 1]->window > a->chunks[j]->window; j--) {
            sgz_chunks_chunk *k = a->chunks[j];
            a->chunks[j] = a->chunks[j - 1];
            a->chunks[j - 1] = k;
        }
    if (taken || !unasked || !worth(c, layer, span, priority))
        return taken;
    sgz_chunks_chunk *k = sgz_chunks_make(layer, span, 0);
    if (!k)
        return -1;
    if (!include(c, a, k, 1)) {
        sgz_chunks_unlist(c, k);
        sgz_chunks_unpin(c, k);
        return -1;
    }
    if (priority >= SGZ_PREFETCH)
        k->cold = 1;
    else
        sgz_chunks_set_unasked(c, k, 1);
    return 1;
}

/* Lay out a request for what is wanted of spans [first, last), and worth having of those before
 * `reach`; `wanted` is a queued chunk of the first span, or NULL. *last becomes where it ended.
 * 0: nothing to ask for; -1: no memory. May let go of the lock. */
static int make(sgz_chunks *c, sgz_chunks_layer *layer, size_t first, size_t *last, size_t reach,
                sgz_chunks_chunk *wanted, unsigned priority, sgz_chunks_job *job)
{
    sgz_chunks_active *a = calloc(1, sizeof *a);
    int64_t start = INT64_MAX, end = 0;
    if (!a || (wanted && !include(c, a, wanted, 0))) {
        free(a);
        return -1;
    }
    ask_disk(c, layer, first, reach, priority);
    for (size_t span = first; span < *last; span++) {
        if (span != first && a->count &&
            sgz_chunks_span_entry(layer, span)->offset - end > GAP) {
            *last = span;
            break;
        }
        if (priority == SGZ_AHEAD && c->unasked_bytes > c->memory / 2) {
            *last = span; /* the rest later, once some of it was used */
            break;
        }
        int64_t packed = sgz_chunks_packed_end(layer, span);
        int single = sgz_chunks_alone(layer, span);
        if (a->count && packed > end && (single ? !(span == first && wanted) : a->job.in_steps)) {
            *last = span;
            break;
        }
        int taken = take(c, a, layer, span, span < reach && !(single && !wanted), priority);
        if (taken < 0) {
            if (a->count)
                break;
            drop(c, a);
            return -1;
        }
        if (taken && packed > end)
            end = packed;
        if (taken && sgz_read_span_start(layer->spans, span) < start)
            start = sgz_read_span_start(layer->spans, span);
        if (taken && single)
            a->job.in_steps = 1; /* then only for what its bytes have */
    }
    if (!a->count || c->stopped)
        return drop(c, a);
    a->job.layer = layer->number;
    a->job.priority = priority;
    a->job.first = a->chunks[0]->span;
    a->job.last = a->chunks[a->count - 1]->span + 1;
    a->job.offset = start;
    a->job.size = end - a->job.offset;
    a->job.id = ++c->ids;
    a->next = c->active;
    c->active = a;
    c->under_way[priority]++;
    layer->demanding += priority == SGZ_DEMAND;
    *job = a->job;
    return 1;
}

/* The oldest queued chunk whose layer has not its share of the workers already. */
static sgz_chunks_chunk *first_wanted(sgz_chunks *c)
{
    for (sgz_chunks_chunk *k = c->queue, *next; k; k = next) {
        next = k->next;
        if (!k->pins) { /* given up meanwhile */
            unqueue(c, k);
            sgz_chunks_unlist(c, k);
        } else if (k->layer->demanding < LAYER_REQUESTS) {
            return k;
        }
    }
    return NULL;
}

/* There is no memory for a request: whoever waits for the oldest one hears of it, as memory may not
 * come back. Lets go of the lock. */
static void give_up(sgz_chunks *c)
{
    sgz_error err;
    sgz_chunks_chunk *k = first_wanted(c);
    if (!k)
        return;
    sgz_base_fail(&err, SGZ_ENOMEM, -1, NULL, 0, "no memory for a request");
    unqueue(c, k);
    sgz_chunks_want *wants = sgz_chunks_mark_failed(c, k, &err);
    pthread_mutex_unlock(&c->lock);
    sgz_chunks_wake(wants);
    pthread_mutex_lock(&c->lock);
}

static int next_wanted(sgz_chunks *c, sgz_chunks_job *job)
{
    for (sgz_chunks_chunk *k; (k = first_wanted(c));) {
        sgz_chunks_layer *layer = k->layer;
        size_t first = k->span, last = k->span + 1, reach = last;
        int64_t size = sgz_chunks_span_entry(layer, k->span)->chunk_size;
        /* Neighbours that are wanted too go along; what is only worth having, up to reach. */
        if (size <= SGZ_WINDOW) {
            reach = sgz_chunks_advance(layer, first, layer->spans->count, k->reach);
            last = sgz_chunks_advance(layer, first, layer->spans->count, SGZ_REQUEST_MAX);
            while (last > reach) {
                sgz_chunks_chunk *other = layer->heads[last - 1];
                if (other && other->queued)
                    break;
                last--;
            }
            /* What the decoder passes on its way is worth having, too. */
            while (first && !sgz_chunks_alone(layer, k->span) &&
                   sgz_chunks_span_start(layer, first - 1) ==
                       sgz_chunks_span_start(layer, first) &&
                   k->span - first < SGZ_REQUEST_SPANS / 2 &&
                   sgz_chunks_span_entry(layer, k->span)->inner_offset -
                           sgz_chunks_span_entry(layer, first - 1)->inner_offset <
                       SGZ_REQUEST_DECODED)
                first--;
            /* So is what else the bytes of the last one have. */
            size_t others = sgz_chunks_advance(layer, last - 1, layer->spans->count, 0);
            if (others > last)
                reach = last = others;
            if (last - first > SGZ_REQUEST_SPANS)
                last = first + SGZ_REQUEST_SPANS;
            if (reach > last)
                reach = last;
        }
        int made = make(c, layer, first, &last, reach, first == k->span ? k : NULL, SGZ_DEMAND,
                        job);
        if (made < 0)
            give_up(c);
        if (made > 0 || c->stopped)
            return made > 0;
    }
    return 0;
}

static int next_ahead(sgz_chunks *c, sgz_chunks_job *job)
{
    while (c->ahead_count && c->unasked_bytes <= c->memory / 2 && !c->stopped) {
        sgz_chunks_range now = c->aheads[0];
        size_t to = sgz_chunks_advance(now.layer, now.first, now.last, now.step);
        memmove(c->aheads, c->aheads + 1, --c->ahead_count * sizeof *c->aheads);
        int made = make(c, now.layer, now.first, &to, to, NULL, SGZ_AHEAD, job);
        if (made >= 0)
            sgz_chunks_add_ahead(c, now.layer, to, now.last, now.step);
        if (made)
            return made > 0;
    }
    return 0;
}

/* Prefetch and background go once over each layer, whatever becomes of their requests. */
static int next_unasked(sgz_chunks *c, unsigned priority, sgz_chunks_job *job)
{
    int prefetch = priority == SGZ_PREFETCH;
    if (!(c->kinds & 1u << priority))
        return 0;
    for (uint32_t i = 0; i < c->layer_count; i++) {
        sgz_chunks_layer *layer = c->layers[i];
        size_t *next = prefetch ? &layer->prefetch_next : &layer->background_next;
        size_t bound = prefetch ? layer->prefetch_last : layer->spans->count;
        while (!layer->direct && *next < bound && !c->stopped) {
            size_t first = *next;
            size_t to = sgz_chunks_advance(layer, first, bound,
                                           prefetch ? PREFETCH_STEP : BACKGROUND_STEP);
            *next = to; /* before the lock is let go: no two workers take the same */
            int made = make(c, layer, first, &to, to, NULL, priority, job);
            if (made > 0 && *next > to && to > first)
                *next = to; /* it ended at a gap */
            if (made || c->queue)
                return made > 0;
        }
    }
    return 0;
}

int sgz_chunks_fetch_idle(const sgz_chunks *c)
{
    return !c->queue && !c->under_way[SGZ_DEMAND] && !c->under_way[SGZ_AHEAD] &&
           !c->under_way[SGZ_PREFETCH];
}

static int before(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec != b->tv_sec ? a->tv_sec < b->tv_sec : a->tv_nsec < b->tv_nsec;
}

int sgz_chunks_next(sgz_chunks *c, unsigned lowest, int timeout_ms, sgz_chunks_job *job)
{
    struct timespec until = sgz_base_deadline(timeout_ms);
    int got = 0, waited = 0;
    pthread_mutex_lock(&c->lock);
    for (;;) {
        struct timespec now = sgz_base_deadline(0);
        int alone = before(&now, &c->alone);
        if (!c->stopped && (next_wanted(c, job) || (lowest >= SGZ_AHEAD && next_ahead(c, job)) ||
                            (lowest >= SGZ_PREFETCH && next_unasked(c, SGZ_PREFETCH, job)) ||
                            (lowest >= SGZ_BACKGROUND && !alone && sgz_chunks_fetch_idle(c) &&
                             next_unasked(c, SGZ_BACKGROUND, job))))
            got = 1;
        else if (c->stopped)
            got = -1;
        if (got || waited)
            break;
        int sooner = lowest >= SGZ_BACKGROUND && alone && before(&c->alone, &until);
        struct timespec when = sooner ? c->alone : until;
        waited = pthread_cond_timedwait(&c->work, &c->lock, &when) != 0 && !sooner;
    }
    pthread_mutex_unlock(&c->lock);
    return got;
}
