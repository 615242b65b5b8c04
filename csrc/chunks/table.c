/* The table of chunks: see chunks/table.h. */
#include "chunks/internal.h"

#include <stdlib.h>

#include "base/deadline.h"

/* What a chunk costs besides its bytes: the struct and malloc's own. */
#define CHUNK_COST (sizeof(sgz_chunks_chunk) + 32)

sgz_status sgz_chunks_new(sgz_chunks **chunks, const sgz_codecs *codecs, size_t memory,
                          sgz_chunks_disk *store, sgz_error *err)
{
    sgz_chunks *c = calloc(1, sizeof *c);
    if (!c)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the table of chunks");
    c->codecs = codecs;
    c->memory = memory;
    c->store = store;
    c->kinds = 1u << SGZ_AHEAD;
    c->by_use.newer = c->by_use.older = &c->by_use;
    c->queue_end = &c->queue;
    c->slow_end = &c->slow;
    pthread_mutex_init(&c->lock, NULL);
    sgz_base_cond_init(&c->work);
    *chunks = c;
    return SGZ_OK;
}

uint8_t *sgz_chunks_data_new(sgz_chunks *c, const sgz_chunks_chunk *k)
{
    if (k->len < SGZ_CHUNKS_LARGE)
        return sgz_chunks_buffer_new(NULL, k->len);
    pthread_mutex_lock(&c->lock);
    uint8_t *data = sgz_chunks_buffer_new(&c->spares, k->len);
    pthread_mutex_unlock(&c->lock);
    return data;
}

void sgz_chunks_data_free(sgz_chunks *c, const sgz_chunks_chunk *k, uint8_t *data)
{
    pthread_mutex_lock(&c->lock);
    sgz_chunks_buffer_free(&c->spares, data, k->len);
    pthread_mutex_unlock(&c->lock);
}

static void chunk_free(sgz_chunks *c, sgz_chunks_chunk *k)
{
    sgz_chunks_buffer_free(&c->spares, k->data, k->len);
    free(k->error);
    free(k);
}

static void free_active(sgz_chunks *c)
{
    for (sgz_chunks_active *a = c->active, *next; a; a = next) {
        next = a->next;
        free(a->chunks);
        free(a);
    }
}

void sgz_chunks_free(sgz_chunks *c)
{
    if (!c)
        return;
    free_active(c);
    for (uint32_t i = 0; i < c->layer_count; i++) {
        sgz_chunks_layer *layer = c->layers[i];
        for (size_t s = 0; s < layer->count; s++)
            for (sgz_chunks_chunk *k = layer->heads[s], *next; k; k = next) {
                next = k->chain;
                chunk_free(c, k);
            }
        free(layer->heads);
        free(layer->marks);
        free(layer);
    }
    sgz_chunks_spares_free(&c->spares);
    free(c->layers);
    while (c->pooled)
        sgz_chunks_free_reader(c->pool[--c->pooled].reader);
    pthread_cond_destroy(&c->work);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

/* The first span whose entry point is at or behind `offset`. */
static size_t span_at(const sgz_spans *spans, int64_t offset)
{
    size_t low = 0, high = spans->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (spans->toc->rows[spans->rows[middle]].offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

sgz_status sgz_chunks_add(sgz_chunks *c, const sgz_spans *spans, const sgz_blob *blob,
                          int verify, int64_t prefetch_end, uint32_t *number, sgz_error *err)
{
    sgz_chunks_layer *layer = calloc(1, sizeof *layer);
    if (layer) {
        layer->heads = calloc(spans->count + 1, sizeof *layer->heads);
        layer->marks = calloc(spans->count + 1, 1);
    }
    pthread_mutex_lock(&c->lock);
    if (!layer || !layer->heads || !layer->marks ||
        !SGZ_PUSH(c->layers, c->layer_count, c->layer_cap, layer)) {
        pthread_mutex_unlock(&c->lock);
        if (layer) {
            free(layer->heads);
            free(layer->marks);
        }
        free(layer);
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for a layer's chunks");
    }
    layer->spans = spans;
    layer->count = spans->count;
    layer->blob = blob;
    layer->verify = verify;
    layer->direct = sgz_codec_blob_direct(blob);
    layer->prefetch_last = span_at(spans, prefetch_end);
    layer->number = *number = c->layer_count - 1;
    pthread_cond_broadcast(&c->work);
    pthread_mutex_unlock(&c->lock);
    return SGZ_OK;
}

/* --- the table, with the lock held -------------------------------------------------------- */

sgz_chunks_chunk *sgz_chunks_find(const sgz_chunks_layer *layer, size_t span, uint32_t window)
{
    sgz_chunks_chunk *k = layer->heads[span];
    while (k && k->window != window)
        k = k->chain;
    return k;
}

sgz_chunks_chunk *sgz_chunks_make(sgz_chunks_layer *layer, size_t span, uint32_t window)
{
    sgz_chunks_chunk *k = calloc(1, sizeof *k);
    if (!k)
        return NULL;
    int64_t size = sgz_chunks_span_entry(layer, span)->chunk_size - window * SGZ_WINDOW;
    k->layer = layer;
    k->span = span;
    k->window = window;
    k->len = (size_t)(size < SGZ_WINDOW ? size : SGZ_WINDOW);
    k->pins = 1;
    k->listed = 1;
    k->chain = layer->heads[span];
    layer->heads[span] = k;
    return k;
}

static void out_of_ring(sgz_chunks_chunk *k)
{
    k->newer->older = k->older;
    k->older->newer = k->newer;
}

/* Of what is there and not pinned: `by_use.older` is the newest, `by_use.newer` the oldest. */
static void into_ring(sgz_chunks *c, sgz_chunks_chunk *k)
{
    sgz_chunks_chunk *head = &c->by_use;
    if (k->cold) {
        k->older = head;
        k->newer = head->newer;
    } else {
        k->newer = head;
        k->older = head->older;
    }
    k->older->newer = k;
    k->newer->older = k;
}

void sgz_chunks_set_unasked(sgz_chunks *c, sgz_chunks_chunk *k, int unasked)
{
    if (k->unasked == unasked)
        return;
    k->unasked = (uint8_t)unasked;
    if (unasked) {
        c->unasked_bytes += k->len;
    } else {
        c->unasked_bytes -= k->len;
        if (c->ahead_count)
            pthread_cond_broadcast(&c->work); /* there is room to read further ahead */
    }
}

void sgz_chunks_unlist(sgz_chunks *c, sgz_chunks_chunk *k)
{
    if (!k->listed)
        return;
    sgz_chunks_chunk **at = &k->layer->heads[k->span];
    while (*at != k)
        at = &(*at)->chain;
    *at = k->chain;
    k->listed = 0;
    if (k->state == SGZ_READY) {
        if (!k->pins)
            out_of_ring(k);
        c->used -= k->len + CHUNK_COST;
    }
    sgz_chunks_set_unasked(c, k, 0);
    if (!k->pins)
        chunk_free(c, k);
}

/* The newest stays, however large: a window that is read in small pieces must not be decoded for
 * each of them. */
static void trim(sgz_chunks *c)
{
    while (c->used > c->memory && c->by_use.newer != c->by_use.older) {
        sgz_chunks_chunk *k = c->by_use.newer;
        if (k->unasked && !k->spared) {
            /* The reader is still on its way to it, and has less use for what it has read. */
            k->spared = 1;
            out_of_ring(k);
            into_ring(c, k);
        } else {
            sgz_chunks_unlist(c, k);
        }
    }
}

void sgz_chunks_pin(sgz_chunks_chunk *k)
{
    if (!k->pins++ && k->state == SGZ_READY && k->listed)
        out_of_ring(k);
}

void sgz_chunks_unpin(sgz_chunks *c, sgz_chunks_chunk *k)
{
    if (--k->pins)
        return;
    if (!k->listed) {
        chunk_free(c, k);
    } else if (k->state == SGZ_READY) {
        into_ring(c, k);
        trim(c);
    }
}

static sgz_chunks_want *take_waiters(sgz_chunks_chunk *k, sgz_status code, const sgz_error *err)
{
    sgz_chunks_want *wants = k->waiters;
    k->waiters = NULL;
    for (sgz_chunks_want *w = wants; w; w = w->next) {
        ((sgz_chunks_hold *)w->parked_on)->on = NULL;
        if (err)
            w->error = *err;
        w->error.code = code;
    }
    return wants;
}

sgz_chunks_want *sgz_chunks_mark_ready(sgz_chunks *c, sgz_chunks_chunk *k, uint8_t *data)
{
    k->data = data;
    k->state = SGZ_READY;
    k->slow = 0;
    free(k->error);
    k->error = NULL;
    c->used += k->len + CHUNK_COST;
    trim(c);
    return take_waiters(k, SGZ_OK, NULL);
}

sgz_chunks_want *sgz_chunks_mark_failed(sgz_chunks *c, sgz_chunks_chunk *k, const sgz_error *err)
{
    k->state = SGZ_FAILED;
    k->slow = 0;
    if (k->error || (k->error = malloc(sizeof *k->error)))
        *k->error = *err;
    sgz_chunks_unlist(c, k);
    return take_waiters(k, err->code, err);
}

void sgz_chunks_wake(sgz_chunks_want *wants)
{
    for (sgz_chunks_want *next; wants; wants = next) {
        next = wants->next; /* once told, its owner may reuse it */
        wants->ready(wants);
    }
}

static sgz_chunks_want *join(sgz_chunks_want *a, sgz_chunks_want *b)
{
    if (!a)
        return b;
    sgz_chunks_want *last = a;
    while (last->next)
        last = last->next;
    last->next = b;
    return a;
}

void sgz_chunks_stop(sgz_chunks *c)
{
    sgz_chunks_want *wants = NULL;
    pthread_mutex_lock(&c->lock);
    c->stopped = 1;
    c->ended = 1;
    for (uint32_t i = 0; i < c->layer_count; i++)
        for (size_t s = 0; s < c->layers[i]->count; s++)
            for (sgz_chunks_chunk *k = c->layers[i]->heads[s]; k; k = k->chain)
                wants = join(take_waiters(k, SGZ_ECANCELLED, NULL), wants);
    pthread_cond_broadcast(&c->work);
    pthread_mutex_unlock(&c->lock);
    sgz_chunks_wake(wants);
}

void sgz_chunks_get_stats(sgz_chunks *c, sgz_chunks_stats *stats)
{
    pthread_mutex_lock(&c->lock);
    *stats = c->stats;
    pthread_mutex_unlock(&c->lock);
}
