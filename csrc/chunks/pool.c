/* Idle decoders: a sequential reader goes on with the one it had. */
#include "chunks/internal.h"

#include <stdlib.h>
#include <string.h>

sgz_reader *sgz_chunks_take_reader(sgz_chunks *c, const sgz_chunks_layer *layer, size_t span,
                                   uint32_t window)
{
    const sgz_entry *e = sgz_chunks_span_entry(layer, span);
    int best = -1, score = 0;
    for (int i = 0; i < c->pooled; i++) {
        if (c->pool[i].layer != layer)
            continue;
        int here = sgz_read_reader_near(c->pool[i].reader, e, window * SGZ_WINDOW);
        if (here >= score) {
            score = here;
            best = i;
        }
    }
    if (best < 0)
        return NULL;
    sgz_reader *r = c->pool[best].reader;
    c->pool[best] = c->pool[--c->pooled];
    return r;
}

sgz_reader *sgz_chunks_new_reader(sgz_chunks *c, const sgz_chunks_layer *layer,
                                  const sgz_blob *blob, sgz_error *err)
{
    sgz_reader *r = malloc(sizeof *r);
    if (!r) {
        sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to decode with");
        return NULL;
    }
    if (sgz_read_reader_init(r, c->codecs, layer->spans, blob, err)) {
        free(r);
        return NULL;
    }
    return r;
}

void sgz_chunks_free_reader(sgz_reader *r)
{
    if (r)
        sgz_read_reader_free(r);
    free(r);
}

void sgz_chunks_give_reader(sgz_chunks *c, sgz_chunks_layer *layer, sgz_reader *r)
{
    sgz_reader *old = NULL;
    pthread_mutex_lock(&c->lock);
    if (c->pooled == SGZ_POOL) {
        old = c->pool[0].reader;
        memmove(c->pool, c->pool + 1, (SGZ_POOL - 1) * sizeof *c->pool);
        c->pooled--;
    }
    c->pool[c->pooled].layer = layer;
    c->pool[c->pooled++].reader = r;
    pthread_mutex_unlock(&c->lock);
    sgz_chunks_free_reader(old);
}
