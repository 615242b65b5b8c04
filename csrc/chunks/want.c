/* Reading through the table: see chunks/table.h. */
#include "chunks/internal.h"

#include <stdlib.h>
#include <string.h>

/* After this many reads in a row that went on to the next chunk an idle thread decodes ahead,
 * this many bytes of the blob far. A tar of a mounted Debian layer, mostly small files read one
 * after the other, then takes 0.84 s, and without it 1.17 s. */
#define RUN_MIN 3
#define LOOK_AHEAD ((int64_t)256 << 10)
#define LOOK_AHEAD_INNER ((int64_t)1 << 20) /* decoded, where one entry point has it all */
#define FEW 16
#define NOT_QUEUED (-1) /* of sgz_chunks_chunk.reach: to be fetched, not yet in the queue */

/* Only with the lock held. */
static void release(sgz_chunks *c, sgz_chunks_chunk **held, size_t count)
{
    for (size_t i = 0; i < count; i++)
        sgz_chunks_unpin(c, held[i]);
}

static sgz_status cancelled(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ECANCELLED, -1, NULL, 0, "reading was stopped");
}

static void touch(sgz_chunks *c, sgz_chunks_chunk *k)
{
    sgz_chunks_layer *layer = k->layer;
    if (!(layer->marks[k->span] & SGZ_TOUCHED)) {
        layer->marks[k->span] |= SGZ_TOUCHED;
        c->stats.touched_bytes += (uint64_t)sgz_chunks_span_entry(layer, k->span)->chunk_size;
    }
    k->cold = 0;
}

/* A chunk that is not there, from the disk cache. */
static int from_disk(sgz_chunks *c, sgz_chunks_chunk *k)
{
    const uint8_t *digest = sgz_read_span_digest(k->layer->spans, k->span);
    int64_t size = sgz_chunks_span_entry(k->layer, k->span)->chunk_size;
    int found = 0;
    if (!c->store || !digest || size > SGZ_WINDOW || !k->layer->verify ||
        sgz_read_span_contradicts(k->layer->spans, k->span) ||
        sgz_read_spans_claimed(k->layer->spans, k->layer->spans->files[k->span]) == k->span)
        return 0;
    uint8_t *data = sgz_chunks_data_new(c, k);
    if (!data)
        return 0;
    if (sgz_chunks_disk_get(c->store, digest, data, k->len, &found, NULL) || !found) {
        sgz_chunks_data_free(c, k, data);
        pthread_mutex_lock(&c->lock);
        k->layer->marks[k->span] &= (uint8_t)~SGZ_ON_DISK; /* evicted, or damaged */
        pthread_mutex_unlock(&c->lock);
        return 0;
    }
    pthread_mutex_lock(&c->lock);
    k->layer->marks[k->span] |= SGZ_ON_DISK;
    c->stats.disk_bytes += k->len;
    sgz_chunks_want *wants = sgz_chunks_mark_ready(c, k, data);
    pthread_mutex_unlock(&c->lock);
    sgz_chunks_wake(wants);
    return 1;
}

/* One chunk of a want, pinned: there, decoded here, or on its way. The lock is held on entry
 * and on return. *missed and *first_use are set as it turns out. */
static sgz_chunks_chunk *acquire(sgz_chunks *c, sgz_chunks_layer *layer, size_t span,
                                 uint32_t window, int *missed, int *first_use, sgz_error *err)
{
    sgz_chunks_chunk *k = sgz_chunks_find(layer, span, window);
    if (k) {
        sgz_chunks_pin(k);
        *first_use |= k->unasked;
        sgz_chunks_set_unasked(c, k, 0);
        touch(c, k);
        return k;
    }
    k = sgz_chunks_make(layer, span, window);
    if (!k) {
        sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for a chunk");
        return NULL;
    }
    touch(c, k);
    if (layer->direct) {
        if (sgz_chunks_decode_direct(c, k, sgz_chunks_budget(c), err)) {
            sgz_chunks_unpin(c, k);
            return NULL;
        }
        return k;
    }
    pthread_mutex_unlock(&c->lock);
    int found = from_disk(c, k);
    pthread_mutex_lock(&c->lock);
    *first_use = 1;
    if (!found) {
        *missed = 1;
        k->reach = NOT_QUEUED;
    }
    return k;
}

static void copy(const sgz_chunks_want *want, const sgz_chunks_chunk *k, uint8_t *out)
{
    const sgz_entry *e = sgz_chunks_span_entry(k->layer, k->span);
    int64_t start = e->chunk_offset + k->window * SGZ_WINDOW; /* in the file */
    int64_t from = want->offset > start ? want->offset : start;
    int64_t end = want->offset + (int64_t)want->size;
    if (end > start + (int64_t)k->len)
        end = start + (int64_t)k->len;
    if (from >= end) /* it only had to be there */
        return;
    memcpy(out + (from - want->offset), k->data + (from - start), (size_t)(end - from));
}

/* The windows of one span that a want touches. */
static void windows_of(const sgz_chunks_want *want, const sgz_entry *e, uint32_t *first,
                       uint32_t *last)
{
    int64_t from = want->offset - e->chunk_offset;
    int64_t to = want->offset + (int64_t)want->size - e->chunk_offset;
    if (from < 0)
        from = 0;
    if (to > e->chunk_size)
        to = e->chunk_size;
    *first = (uint32_t)(from / SGZ_WINDOW);
    *last = (uint32_t)((to - 1) / SGZ_WINDOW) + 1;
}

/* Park on the last chunk that is on its way: those before it were asked for before. */
static sgz_status park(sgz_chunks *c, sgz_chunks_want *want, sgz_chunks_chunk **held,
                       size_t count, int *parked, sgz_error *err)
{
    sgz_chunks_chunk *on = NULL;
    for (size_t i = 0; i < count; i++) {
        if (held[i]->state == SGZ_FAILED) {
            if (!held[i]->error)
                return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory");
            if (err)
                *err = *held[i]->error;
            return held[i]->error->code;
        }
        if (held[i]->state == SGZ_FLYING)
            on = held[i];
    }
    if (!on)
        return SGZ_OK;
    if (c->stopped)
        return cancelled(err);
    sgz_chunks_hold *h = malloc(sizeof *h + count * sizeof *h->chunks);
    if (!h)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to wait for a chunk");
    h->on = on;
    h->count = count;
    memcpy(h->chunks, held, count * sizeof *held);
    want->error.code = SGZ_OK;
    want->parked_on = h;
    want->next = on->waiters;
    on->waiters = want;
    *parked = 1;
    return SGZ_OK;
}

static void note_run(sgz_chunks_layer *layer, size_t first, size_t last)
{
    if (first == layer->run_next)
        layer->run++;
    else if (first + 1 != layer->run_next) /* not the same chunk once more */
        layer->run = 0;
    layer->run_next = last;
}

/* Whether `e` is further behind `from` than is decoded ahead. */
static int too_far(const sgz_entry *from, const sgz_entry *e)
{
    if (e->offset == from->offset)
        return e->inner_offset - from->inner_offset > LOOK_AHEAD_INNER;
    return e->offset - from->offset > LOOK_AHEAD;
}

/* With the lock held. */
static void look_ahead(sgz_chunks *c, sgz_chunks_layer *layer)
{
    layer->looking = 1;
    for (size_t span = layer->run_next; !c->stopped && layer->run >= RUN_MIN; span++) {
        if (span < layer->run_next)
            span = layer->run_next; /* overtaken */
        if (span >= layer->spans->count)
            break;
        const sgz_entry *e = sgz_chunks_span_entry(layer, span);
        if (e->chunk_size > SGZ_WINDOW / 8 ||
            too_far(sgz_chunks_span_entry(layer, layer->run_next), e))
            break;
        sgz_chunks_chunk *k = layer->heads[span] ? NULL : sgz_chunks_make(layer, span, 0);
        if (!k)
            continue;
        sgz_error err; /* whoever wants the chunk will see it */
        sgz_chunks_decode_direct(c, k, sgz_chunks_budget(c), &err);
        int left = k->state == SGZ_FLYING;
        sgz_chunks_unpin(c, k);
        if (left)
            break;
    }
    layer->looking = 0;
}

int sgz_chunks_idle(sgz_chunks *c, uint32_t number)
{
    pthread_mutex_lock(&c->lock);
    sgz_chunks_layer *layer = number < c->layer_count ? c->layers[number] : NULL;
    if (layer && layer->direct && !layer->looking && layer->run >= RUN_MIN)
        look_ahead(c, layer);
    int more = c->finishing || c->under_way[SGZ_DEMAND] || c->under_way[SGZ_AHEAD];
    pthread_mutex_unlock(&c->lock);
    return more;
}

static sgz_status get(sgz_chunks *c, sgz_chunks_layer *layer, sgz_chunks_want *want,
                      uint8_t *out, size_t first, size_t last, int *parked, sgz_error *err)
{
    sgz_chunks_chunk *few[FEW], **held = few;
    size_t count = 0, room = FEW, claimed = sgz_read_spans_claimed(layer->spans, want->file);
    int missed = 0, first_use = 0, slow = 0;
    sgz_status st = claimed == SGZ_NO_SPAN
                        ? SGZ_OK
                        : sgz_read_claims_wrong(layer->spans->claims, want->file, err);
    if (st)
        sgz_base_name(err, sgz_toc_row_name(layer->spans->toc, want->file),
                      layer->spans->toc->rows[want->file].name_len);
    pthread_mutex_lock(&c->lock);
    if (layer->direct && first < last)
        note_run(layer, first, last);
    /* What an index claims of the file is checked with its first chunk, which holes do not have, nor
     * what is fetched for another. */
    if (!st && claimed != SGZ_NO_SPAN && (first == last || (claimed < first && !layer->direct))) {
        if ((held[0] = acquire(c, layer, claimed, 0, &missed, &first_use, err)))
            slow = held[count++]->slow;
        else
            st = err->code;
    }
    /* What follows on a slow one would likely be as slow, and is asked for again anyway. */
    for (size_t span = first; span < last && !st && !slow; span++) {
        uint32_t w, end;
        windows_of(want, sgz_chunks_span_entry(layer, span), &w, &end);
        for (; w < end && !st && !slow; w++) {
            if (count == room) {
                sgz_chunks_chunk **more = malloc(2 * room * sizeof *more);
                if (!more) {
                    st = sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for a read");
                    break;
                }
                memcpy(more, held, count * sizeof *more);
                if (held != few)
                    free(held);
                held = more;
                room *= 2;
            }
            if (c->stopped)
                st = cancelled(err);
            else if ((held[count] = acquire(c, layer, span, w, &missed, &first_use, err)))
                slow = held[count++]->slow;
            else
                st = err->code;
        }
    }
    if (first_use && !layer->direct) {
        int64_t reach = first < last
                            ? sgz_chunks_ahead_seen(c, layer, first, last, missed)
                            : sgz_chunks_ahead_seen(c, layer, claimed, claimed + 1, missed);
        /* All at once, so that neighbours go into one request. */
        for (size_t i = 0; i < count; i++)
            if (held[i]->reach == NOT_QUEUED) {
                held[i]->reach = reach;
                sgz_chunks_fetch_want(c, held[i]);
            }
    }
    if (!st)
        st = park(c, want, held, count, parked, err);
    if (!*parked && !st) {
        pthread_mutex_unlock(&c->lock);
        for (size_t i = 0; i < count; i++)
            copy(want, held[i], out);
        sgz_read_spans_zeros(layer->spans, first, last, want->offset, (int64_t)want->size, out);
        pthread_mutex_lock(&c->lock);
        c->stats.read_bytes += want->size;
    }
    if (!*parked)
        release(c, held, count);
    pthread_mutex_unlock(&c->lock);
    if (held != few)
        free(held);
    return st;
}

sgz_status sgz_chunks_read(sgz_chunks *c, sgz_chunks_want *want, uint8_t *out, int *parked,
                           sgz_error *err)
{
    sgz_error mine;
    sgz_status st = SGZ_OK;
    sgz_chunks_layer *layer = NULL;
    size_t first, last;
    if (!err)
        err = &mine;
    *parked = 0;
    pthread_mutex_lock(&c->lock);
    sgz_chunks_hold *old = want->parked_on;
    want->parked_on = NULL;
    if (want->layer < c->layer_count)
        layer = c->layers[want->layer];
    if (c->stopped) {
        st = cancelled(err);
    } else if (old) {
        for (size_t i = 0; i < old->count && !st; i++)
            if (old->chunks[i]->state == SGZ_FAILED) {
                *err = old->chunks[i]->error ? *old->chunks[i]->error : want->error;
                st = err->code ? err->code : SGZ_ENOMEM;
            }
    }
    pthread_mutex_unlock(&c->lock);
    if (!st && !layer)
        st = sgz_base_fail(err, SGZ_ETOC, -1, NULL, 0, "there is no layer %u",
                           (unsigned)want->layer);
    if (!st && want->size) {
        st = sgz_read_spans_find(layer->spans, want->file, want->offset, (int64_t)want->size,
                                 &first, &last, err);
        if (!st)
            st = get(c, layer, want, out, first, last, parked, err);
    }
    if (old) {
        pthread_mutex_lock(&c->lock);
        release(c, old->chunks, old->count);
        pthread_mutex_unlock(&c->lock);
        free(old);
    }
    return st;
}

int sgz_chunks_cancel(sgz_chunks *c, sgz_chunks_want *want)
{
    pthread_mutex_lock(&c->lock);
    sgz_chunks_hold *h = want->parked_on;
    int parked = h && h->on;
    want->parked_on = NULL;
    if (parked) {
        sgz_chunks_want **at = &h->on->waiters;
        while (*at != want)
            at = &(*at)->next;
        *at = want->next;
    }
    if (h)
        release(c, h->chunks, h->count);
    pthread_mutex_unlock(&c->lock);
    free(h);
    return parked;
}
