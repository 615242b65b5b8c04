/* How far a request goes on over the neighbours of what is wanted, and what is read ahead. */
#include "chunks/internal.h"
#include "base/deadline.h"

#include <string.h>

/* The request for one wanted chunk goes on over its neighbours by this much: most files of most
 * layers are smaller, so the next of a few files read in a row is there already, at 5 ms of a
 * link of 100 Mbit/s. It doubles with each request that goes on where one ended. */
#define WINDOW_MIN ((int64_t)64 << 10)
/* From this window on requests are made ahead of the reader, this many windows far. */
#define AHEAD_FROM ((int64_t)512 << 10)
#define AHEAD_WINDOWS 3
/* Who goes forward has the link and the processors alone, until this long after its last read: the
 * background would overtake it, by small requests one after the other, and leave on disk what is
 * then read and checked once more. A tar of a mounted image (Debian, Python, 280 MB of files) takes
 * 25 requests and 2.3 s of all processors' time by this, and 45 to 100 and 2.9 s without. */
#define ALONE_MS 100
/* A reader that has gone through fewer files in a row than this reads one file, not the layer:
 * what lies behind that file is not for it. A Python that starts from a mounted image fetches
 * 5.5 MB by this rule, and 16 MB without. */
#define FILES_IN_A_ROW 4

void sgz_chunks_add_ahead(sgz_chunks *c, sgz_chunks_layer *layer, size_t first, size_t last,
                      int64_t step)
{
    if (first >= last)
        return;
    for (unsigned i = 0; i < c->ahead_count; i++) {
        sgz_chunks_range *a = &c->aheads[i];
        if (a->layer == layer && first >= a->first && first <= a->last) {
            if (last > a->last)
                a->last = last;
            if (step > a->step)
                a->step = step;
            return;
        }
    }
    if (c->ahead_count == SGZ_AHEADS) {
        memmove(c->aheads, c->aheads + 1, (SGZ_AHEADS - 1) * sizeof *c->aheads);
        c->ahead_count--;
    }
    c->aheads[c->ahead_count++] = (sgz_chunks_range){layer, first, last, step};
    pthread_cond_broadcast(&c->work);
}

void sgz_chunks_ahead(sgz_chunks *c, uint32_t number, uint32_t file, int64_t offset, int64_t size)
{
    size_t first, last;
    pthread_mutex_lock(&c->lock);
    sgz_chunks_layer *layer = number < c->layer_count ? c->layers[number] : NULL;
    if (layer && !layer->direct && c->kinds & 1u << SGZ_AHEAD && !c->stopped && size > 0 &&
        !sgz_read_spans_find(layer->spans, file, offset, size, &first, &last, NULL))
        sgz_chunks_add_ahead(c, layer, first, last, SGZ_REQUEST_MAX);
    pthread_mutex_unlock(&c->lock);
}

/* The span behind the last one of the file that `span` belongs to. */
static size_t file_end(const sgz_chunks_layer *layer, size_t span)
{
    const sgz_spans *spans = layer->spans;
    size_t low = span + 1, high = spans->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (spans->files[middle] == spans->files[span])
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The stream that a read at `first` goes on with, or NULL. */
static sgz_chunks_stream *find_stream(sgz_chunks_layer *layer, size_t first,
                                      sgz_chunks_stream **oldest)
{
    int64_t at = sgz_chunks_span_start(layer, first);
    *oldest = &layer->streams[0];
    for (int i = 0; i < SGZ_STREAMS; i++) {
        sgz_chunks_stream *t = &layer->streams[i];
        /* Nearly in order is good enough, once it is seen to be one. */
        int64_t slack = t->files < FILES_IN_A_ROW ? WINDOW_MIN : t->window;
        if (t->window && at >= sgz_chunks_span_start(layer, t->low) - slack &&
            at <= sgz_chunks_span_start(layer, t->next) + slack)
            return t;
        if (t->tick < (*oldest)->tick)
            *oldest = t;
    }
    return NULL;
}

int64_t sgz_chunks_ahead_seen(sgz_chunks *c, sgz_chunks_layer *layer, size_t first, size_t last,
                              int missed)
{
    size_t count = layer->spans->count;
    int64_t at = sgz_chunks_span_start(layer, first), reach;
    int64_t wanted = sgz_chunks_span_start(layer, last) - at;
    sgz_chunks_stream *oldest, *s;
    if (!(c->kinds & 1u << SGZ_AHEAD))
        return 0;
    s = find_stream(layer, first, &oldest);
    if (!s && !missed)
        return 0;
    if (!s) {
        s = oldest;
        *s = (sgz_chunks_stream){
            .window = WINDOW_MIN, .next = last, .file = layer->spans->files[first], .files = 1};
    } else if (missed && first > s->low) {
        /* A reader that asks for more at a time than the window goes on with twice as much. */
        s->window = 2 * (wanted > s->window ? wanted : s->window);
        if (s->window > SGZ_REQUEST_MAX)
            s->window = SGZ_REQUEST_MAX;
    }
    if (layer->spans->files[last - 1] != s->file && first > s->low)
        s->files++;
    s->file = layer->spans->files[last - 1];
    s->used += wanted;
    s->low = first;
    s->tick = ++layer->tick;
    if ((s->files >= FILES_IN_A_ROW || s->window >= AHEAD_FROM) &&
        c->unasked_bytes <= c->memory / 2)
        c->alone = sgz_base_deadline(ALONE_MS);
    size_t bound = s->files < FILES_IN_A_ROW ? file_end(layer, last - 1) : count;
    reach = s->window;
    if (bound < count && reach > sgz_chunks_span_start(layer, bound) - at + WINDOW_MIN)
        reach = sgz_chunks_span_start(layer, bound) - at + WINDOW_MIN;
    if (missed) {
        size_t to = sgz_chunks_advance(layer, first, count, reach);
        s->next = s->next > to && s->next - first < SGZ_REQUEST_SPANS ? s->next : to;
    }
    if (s->next < last)
        s->next = last;
    if (s->window < AHEAD_FROM)
        return reach;
    /* Never further than what was read so far: a reader that stops leaves little behind. */
    int64_t far = AHEAD_WINDOWS * s->window < s->used ? AHEAD_WINDOWS * s->window : s->used;
    while (s->next < bound && sgz_chunks_span_start(layer, s->next) - at < far) {
        size_t to = sgz_chunks_advance(layer, s->next, bound, s->window);
        sgz_chunks_add_ahead(c, layer, s->next, to, s->window);
        s->next = to;
        if (s->window < SGZ_REQUEST_MAX)
            s->window = 2 * s->window < SGZ_REQUEST_MAX ? 2 * s->window : SGZ_REQUEST_MAX;
    }
    return reach;
}
