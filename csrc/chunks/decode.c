/* Decoding chunks, and what takes too long for whoever began: see chunks/internal.h. */
#include "chunks/internal.h"

#include <stdlib.h>

/* Of chunks that are decoded from one entry point, what comes on the way to the wanted one is
 * kept, up to this many bytes. */
#define ON_THE_WAY ((int64_t)16 << 20)
/* What takes more bytes, in and out, than this (30 ms) is slow: a window of a large chunk is. */
#define AT_ONCE ((int64_t)64 << 20)

int64_t sgz_chunks_budget(const sgz_chunks *c)
{
    return c->has_slow ? AT_ONCE : 0;
}

void sgz_chunks_put_off(sgz_chunks *c, sgz_chunks_chunk *k)
{
    sgz_chunks_pin(k);
    k->slow = 1;
    k->next = NULL;
    *c->slow_end = k;
    c->slow_end = &k->next;
    pthread_cond_broadcast(&c->work);
}

sgz_status sgz_chunks_decode(sgz_chunks *c, sgz_reader *r, sgz_chunks_chunk *k, sgz_error *err)
{
    uint8_t *data = malloc(k->len);
    if (!data)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for a chunk of %zu bytes",
                             k->len);
    sgz_status st = sgz_read_chunk(r, k->span, k->layer->verify, k->window * SGZ_WINDOW, k->len,
                                   data, err);
    if (st) {
        free(data);
        return st;
    }
    pthread_mutex_lock(&c->lock);
    sgz_chunks_want *wants = sgz_chunks_mark_ready(c, k, data);
    pthread_mutex_unlock(&c->lock);
    sgz_chunks_wake(wants);
    return SGZ_OK;
}

/* The same for a chunk of a direct blob, which is tried once; without a decoder it fails. One that
 * takes too long goes on flying. */
static sgz_status decode(sgz_chunks *c, sgz_reader *r, sgz_chunks_chunk *k, sgz_error *err)
{
    sgz_status st = r ? sgz_chunks_decode(c, r, k, err) : err->code;
    if (!st)
        return SGZ_OK;
    pthread_mutex_lock(&c->lock);
    int later = st == SGZ_ECANCELLED && r && r->decoder.budget < 0 && !c->stopped;
    sgz_chunks_want *wants = NULL;
    if (later)
        sgz_chunks_put_off(c, k);
    else
        wants = sgz_chunks_mark_failed(c, k, err);
    pthread_mutex_unlock(&c->lock);
    sgz_chunks_wake(wants);
    return later ? SGZ_OK : st;
}

static int64_t bound_of(const sgz_chunks *c)
{
    return (int64_t)(c->memory / 4) < ON_THE_WAY ? (int64_t)(c->memory / 4) : ON_THE_WAY;
}

/* Decode and keep the chunks of spans [first, last) that are not there. */
static void keep(sgz_chunks *c, sgz_reader *r, sgz_chunks_layer *layer, size_t first, size_t last)
{
    for (; first < last; first++) {
        sgz_error err;
        sgz_chunks_chunk *other = NULL;
        pthread_mutex_lock(&c->lock);
        if (!layer->heads[first])
            other = sgz_chunks_make(layer, first, 0);
        pthread_mutex_unlock(&c->lock);
        if (!other)
            continue;
        sgz_status st = decode(c, r, other, &err);
        pthread_mutex_lock(&c->lock);
        sgz_chunks_unpin(c, other);
        pthread_mutex_unlock(&c->lock);
        if (st || r->decoder.budget < 0)
            break;
    }
}

/* What the decoder passes on its way to chunk `k` is kept. */
static void on_the_way(sgz_chunks *c, sgz_reader *r, const sgz_chunks_chunk *k)
{
    sgz_chunks_layer *layer = k->layer;
    const sgz_entry *e = sgz_chunks_span_entry(layer, k->span);
    int64_t from = r->entered == e->offset && r->at <= e->inner_offset ? r->at : 0;
    size_t first = k->span;
    while (first) {
        const sgz_entry *before = sgz_chunks_span_entry(layer, first - 1);
        if (before->offset != e->offset || before->inner_offset < from ||
            e->inner_offset - before->inner_offset > bound_of(c))
            break;
        first--;
    }
    keep(c, r, layer, first, k->span);
}

/* Whether the entry point of a chunk is entered, and not for the first time: then its chunks are
 * read in no order. */
static int enters_again(sgz_chunks *c, const sgz_reader *r, const sgz_chunks_chunk *k)
{
    sgz_chunks_layer *layer = k->layer;
    const sgz_entry *e = sgz_chunks_span_entry(layer, k->span);
    size_t first = sgz_read_span_first(layer->spans, k->span);
    if ((r->entered == e->offset && r->at <= e->inner_offset) ||
        (first == k->span && sgz_read_span_next(layer->spans, first) == first + 1))
        return 0;
    pthread_mutex_lock(&c->lock);
    int again = layer->marks[first] & SGZ_ENTERED;
    layer->marks[first] |= SGZ_ENTERED;
    pthread_mutex_unlock(&c->lock);
    return again;
}

/* Go on decoding from chunk `k` to the end of what its entry point has, so that it is not entered
 * a third time. */
static void to_the_end(sgz_chunks *c, sgz_reader *r, const sgz_chunks_chunk *k)
{
    sgz_chunks_layer *layer = k->layer;
    const sgz_entry *e = sgz_chunks_span_entry(layer, k->span);
    size_t last = k->span + 1, next = sgz_read_span_next(layer->spans, k->span);
    while (last < next) {
        const sgz_entry *behind = sgz_chunks_span_entry(layer, last);
        if (behind->inner_offset + behind->chunk_size - e->inner_offset > bound_of(c))
            break;
        last++;
    }
    keep(c, r, layer, k->span + 1, last);
}

sgz_status sgz_chunks_decode_direct(sgz_chunks *c, sgz_reader *r, sgz_chunks_chunk *k,
                                    int64_t budget, sgz_error *err)
{
    sgz_chunks_layer *layer = k->layer;
    const sgz_entry *e = sgz_chunks_span_entry(layer, k->span);
    if (!r)
        r = sgz_chunks_new_reader(c, layer, layer->blob, err);
    if (!r)
        return decode(c, NULL, k, err);
    r->decoder.stop = &c->ended;
    r->decoder.budget = budget;
    int again = enters_again(c, r, k);
    if (e->inner_offset > 0 && e->chunk_size <= SGZ_WINDOW)
        on_the_way(c, r, k);
    sgz_status st = decode(c, r, k, err);
    if (again && !st && r->decoder.budget >= 0)
        to_the_end(c, r, k);
    sgz_chunks_give_reader(c, layer, r);
    return st;
}
