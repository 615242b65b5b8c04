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
    uint8_t *data = sgz_chunks_data_new(c, k);
    if (!data)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for a chunk of %zu bytes",
                             k->len);
    sgz_status st = sgz_read_chunk(r, k->span, k->layer->verify, k->window * SGZ_WINDOW, k->len,
                                   data, err);
    if (st) {
        sgz_chunks_data_free(c, k, data);
        return st;
    }
    pthread_mutex_lock(&c->lock);
    sgz_chunks_want *wants = sgz_chunks_mark_ready(c, k, data);
    pthread_mutex_unlock(&c->lock);
    sgz_chunks_wake(wants);
    return SGZ_OK;
}

/* The same for a chunk of a direct blob, which is tried once. One that takes too long goes on
 * flying. */
static sgz_status decode(sgz_chunks *c, sgz_reader *r, sgz_chunks_chunk *k, sgz_error *err)
{
    sgz_status st = sgz_chunks_decode(c, r, k, err);
    if (!st)
        return SGZ_OK;
    pthread_mutex_lock(&c->lock);
    int later = st == SGZ_ECANCELLED && r->decoder.budget < 0 && !c->stopped;
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

/* A chunk that was left to the pass is left no more; 0: it was not, or to another. */
static int take(sgz_chunks_pass *p, sgz_chunks_chunk *k)
{
    sgz_chunks_chunk **at = &p->left;
    while (*at && *at != k)
        at = &(*at)->next;
    if (!*at)
        return 0;
    *at = k->next;
    k->left = 0;
    return 1;
}

/* A chunk on the way of a pass that is not there, and that no other thread decodes, pinned; NULL:
 * none. `unasked` ones only while there is memory for them: *full. */
static sgz_chunks_chunk *missing(sgz_chunks *c, sgz_chunks_pass *p, size_t span, int unasked,
                                 int *full)
{
    sgz_chunks_chunk *k = p->layer->heads[span];
    uint64_t size = (uint64_t)sgz_chunks_span_entry(p->layer, span)->chunk_size;
    p->next_span = span + 1;
    if (k)
        return k->left && take(p, k) ? k : NULL;
    *full = unasked && c->unasked_bytes + size > c->memory / 2;
    if (*full || !(k = sgz_chunks_make(p->layer, span, 0)))
        return NULL;
    sgz_chunks_set_unasked(c, k, unasked);
    return k;
}

/* Decode and keep the chunks of spans [first, last) that are not there. */
static void keep(sgz_chunks *c, sgz_chunks_pass *p, size_t first, size_t last, int unasked)
{
    int ended = 0;
    for (; first < last && !ended; first++) {
        sgz_error err;
        pthread_mutex_lock(&c->lock);
        sgz_chunks_chunk *k = missing(c, p, first, unasked, &ended);
        pthread_mutex_unlock(&c->lock);
        if (!k)
            continue;
        ended = decode(c, p->reader, k, &err) || p->reader->decoder.budget < 0;
        pthread_mutex_lock(&c->lock);
        sgz_chunks_unpin(c, k);
        pthread_mutex_unlock(&c->lock);
    }
}

/* The first span on the way of the decoder to chunk `k`: what it passes from there on is kept. */
static size_t way_to(const sgz_chunks *c, const sgz_chunks_pass *p, const sgz_chunks_chunk *k)
{
    const sgz_reader *r = p->reader;
    const sgz_entry *e = sgz_chunks_span_entry(p->layer, k->span);
    int64_t from = r->entered == e->offset && r->at <= e->inner_offset ? r->at : 0;
    size_t first = k->span;
    if (e->chunk_size > SGZ_WINDOW)
        return first;
    while (first) {
        const sgz_entry *before = sgz_chunks_span_entry(p->layer, first - 1);
        if (before->offset != e->offset || before->inner_offset < from ||
            e->inner_offset - before->inner_offset > bound_of(c))
            break;
        first--;
    }
    return first;
}

/* Whether the entry point of a chunk is entered, and not for the first time: then its chunks are
 * read in no order. */
static int enters_again(const sgz_chunks_pass *p, const sgz_chunks_chunk *k)
{
    const sgz_reader *r = p->reader;
    const sgz_entry *e = sgz_chunks_span_entry(p->layer, k->span);
    size_t first = sgz_read_span_first(p->layer->spans, k->span);
    if ((r->entered == e->offset && r->at <= e->inner_offset) || p->last == first + 1)
        return 0;
    int again = p->layer->marks[first] & SGZ_ENTERED;
    p->layer->marks[first] |= SGZ_ENTERED;
    return again;
}

/* The end of what the entry point of span `from` has, no further from it than the bound. */
static size_t end_of(const sgz_chunks *c, const sgz_chunks_pass *p, size_t from)
{
    int64_t start = sgz_chunks_span_entry(p->layer, from)->inner_offset;
    size_t end = from;
    for (; end < p->last; end++) {
        const sgz_entry *e = sgz_chunks_span_entry(p->layer, end);
        if (e->inner_offset + e->chunk_size - start > bound_of(c))
            break;
    }
    return end;
}

/* --- passes, with the lock held, which is let go of to decode --------------------------------- */

/* Decode a chunk, and keep what is on the way to it. What is entered once more is decoded to its
 * end, so that it is not a third time. */
static sgz_status decode_from(sgz_chunks *c, sgz_chunks_pass *p, sgz_chunks_chunk *k,
                              sgz_error *err)
{
    int again = enters_again(p, k);
    size_t first = p->next_span = way_to(c, p, k);
    pthread_mutex_unlock(&c->lock);
    keep(c, p, first, k->span, 0);
    pthread_mutex_lock(&c->lock);
    p->next_span = k->span + 1;
    pthread_mutex_unlock(&c->lock);
    sgz_status st = decode(c, p->reader, k, err);
    if (again && !st && p->reader->decoder.budget >= 0)
        keep(c, p, k->span + 1, end_of(c, p, k->span), 0);
    pthread_mutex_lock(&c->lock);
    return st;
}

/* Leave a chunk to a thread that comes to it; 0: there is none. One that is to be decoded however
 * long it takes is not left to a pass that may end before. */
static int leave(sgz_chunks *c, sgz_chunks_chunk *k, int64_t budget)
{
    sgz_chunks_pass *p = c->passes;
    while (p && (p->layer != k->layer || k->span < p->next_span || k->span >= p->last ||
                 (p->bounded && !budget)))
        p = p->next;
    if (!p || sgz_chunks_span_entry(k->layer, k->span)->chunk_size > SGZ_WINDOW)
        return 0;
    sgz_chunks_pin(k);
    k->left = 1;
    k->next = p->left;
    p->left = k;
    return 1;
}

static void begin(sgz_chunks *c, sgz_chunks_pass *p, sgz_chunks_layer *layer, sgz_reader *r,
                  size_t span)
{
    *p = (sgz_chunks_pass){.layer = layer, .reader = r, .next_span = span, .next = c->passes};
    p->last = sgz_read_span_next(layer->spans, span);
    p->bounded = r->decoder.budget != 0;
    c->passes = p;
}

/* What was left to it is decoded, too. */
static void end(sgz_chunks *c, sgz_chunks_pass *p)
{
    while (p->left) {
        sgz_chunks_chunk *k = p->left;
        sgz_error err;
        take(p, k);
        if (p->reader->decoder.budget < 0)
            sgz_chunks_put_off(c, k);
        else
            decode_from(c, p, k, &err);
        sgz_chunks_unpin(c, k);
    }
    sgz_chunks_pass **at = &c->passes;
    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
}

sgz_status sgz_chunks_decode_direct(sgz_chunks *c, sgz_chunks_chunk *k, int64_t budget,
                                    sgz_error *err)
{
    sgz_chunks_layer *layer = k->layer;
    sgz_chunks_pass p;
    if (leave(c, k, budget))
        return SGZ_OK;
    sgz_reader *r = sgz_chunks_take_reader(c, layer, k->span, k->window);
    if (!r && !(r = sgz_chunks_new_reader(c, layer, layer->blob, err))) {
        sgz_chunks_want *wants = sgz_chunks_mark_failed(c, k, err);
        pthread_mutex_unlock(&c->lock);
        sgz_chunks_wake(wants);
        pthread_mutex_lock(&c->lock);
        return err->code;
    }
    r->decoder.stop = &c->ended;
    r->decoder.budget = budget;
    begin(c, &p, layer, r, k->span);
    sgz_status st = decode_from(c, &p, k, err);
    end(c, &p);
    int more = r->entered >= 0 && r->decoder.budget >= 0 && p.next_span < p.last &&
               sgz_chunks_span_entry(layer, p.next_span - 1)->chunk_size <= SGZ_WINDOW;
    sgz_chunks_give_reader(c, layer, r, more ? p.next_span : SGZ_NO_SPAN);
    return st;
}

int sgz_chunks_finish(sgz_chunks *c)
{
    sgz_chunks_pooled from;
    sgz_chunks_pass p;
    if (c->finishing || !sgz_chunks_take_rest(c, &from))
        return 0;
    c->finishing = 1;
    from.reader->decoder.budget = AT_ONCE;
    begin(c, &p, from.layer, from.reader, from.rest);
    pthread_mutex_unlock(&c->lock);
    keep(c, &p, from.rest, end_of(c, &p, from.rest), 1);
    pthread_mutex_lock(&c->lock);
    end(c, &p);
    sgz_chunks_give_reader(c, from.layer, from.reader, SGZ_NO_SPAN);
    c->finishing = 0;
    return 1;
}
