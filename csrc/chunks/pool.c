/* Idle decoders: a sequential reader goes on with the one it had. */
#include "chunks/internal.h"

#include <stdlib.h>
#include <string.h>

static sgz_chunks_pooled take(sgz_chunks *c, int number)
{
    sgz_chunks_pooled taken = c->pool[number];
    c->pooled--;
    memmove(c->pool + number, c->pool + number + 1,
            (size_t)(c->pooled - number) * sizeof *c->pool);
    return taken;
}

sgz_reader *sgz_chunks_take_reader(sgz_chunks *c, const sgz_chunks_layer *layer, size_t span,
                                   uint32_t window)
{
    const sgz_entry *e = sgz_chunks_span_entry(layer, span);
    int best = -1, score = -1;
    for (int i = 0; i < c->pooled; i++) {
        if (c->pool[i].layer != layer)
            continue;
        int here = sgz_read_reader_near(c->pool[i].reader, e, window * SGZ_WINDOW);
        if (!here && c->pool[i].rest != SGZ_NO_SPAN && c->pooled < SGZ_POOL)
            continue;
        if (here > score) {
            score = here;
            best = i;
        }
    }
    return best < 0 ? NULL : take(c, best).reader;
}

int sgz_chunks_take_rest(sgz_chunks *c, sgz_chunks_pooled *pooled)
{
    for (int i = 0; i < c->pooled; i++)
        if (c->pool[i].rest != SGZ_NO_SPAN) {
            *pooled = take(c, i);
            return 1;
        }
    return 0;
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

void sgz_chunks_give_reader(sgz_chunks *c, sgz_chunks_layer *layer, sgz_reader *r, size_t rest)
{
    if (c->pooled == SGZ_POOL)
        sgz_chunks_free_reader(take(c, 0).reader);
    c->pool[c->pooled++] = (sgz_chunks_pooled){layer, r, rest};
    if (rest != SGZ_NO_SPAN && !c->finishing)
        pthread_cond_broadcast(&c->work);
}
