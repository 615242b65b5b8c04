#include "write/internal.h"

#include <stdlib.h>

/* --- what can be done now, with the lock ---------------------------------------------------- */

static int complete(const sgz_write_slot *s, sgz_write_stage stage)
{
    return s->parts[stage].done == s->parts[stage].count;
}

static int has_room(sgz_write_pipeline *c, sgz_write_slot *s)
{
    /* What is stored has been placed, and so its tar hashed; what is listed has been split. */
    uint64_t freed = c->at[LIST].next < c->at[STORE].next ? c->at[LIST].next : c->at[STORE].next;
    (void)s;
    return !c->filled && c->at[FILL].next < freed + c->slot_count;
}

static int is_loaded(sgz_write_pipeline *c, sgz_write_slot *s)
{
    (void)c;
    return complete(s, LOAD);
}

static int is_tar_due(sgz_write_pipeline *c, sgz_write_slot *s)
{
    return s->chunks_due && is_loaded(c, s);
}

static int is_sampled(sgz_write_pipeline *c, sgz_write_slot *s)
{
    return is_loaded(c, s) && complete(s, SAMPLE);
}

/* Hashes the tar too if that was not done, and there are no chunks to be hashed with it. */
static int can_place(sgz_write_pipeline *c, sgz_write_slot *s)
{
    s->tar_beside = c->at[PLACE].next == c->at[HASH_TAR].next;
    if (s->tar_beside && (c->at[HASH_TAR].busy || s->chunks_due || !complete(s, LOAD)))
        return 0;
    return complete(s, COMPRESS);
}

static int can_list(sgz_write_pipeline *c, sgz_write_slot *s)
{
    (void)s;
    return c->at[LIST].next < c->at[SPLIT].next;
}

static int is_over(sgz_write_pipeline *c, sgz_write_slot *s)
{
    uint64_t all = c->at[FILL].next;
    (void)s;
    return c->filled && !c->at[END].next && c->at[STORE].next == all &&
           c->at[HASH_TAR].next == all && c->at[LIST].next == all;
}

/* --- the stages ----------------------------------------------------------------------------- */

typedef struct {
    int (*ready)(sgz_write_pipeline *c, sgz_write_slot *s); /* NULL: always */
    sgz_write_run *run;
    int in_parts;           /* side by side, of any slab; else slab after slab */
    sgz_write_stage after;  /* which this one follows; itself: none */
} stage;

static const stage stages[STAGES] = {
    [STORE] = {NULL, sgz_write_store, 0, PLACE},
    [PLACE] = {can_place, sgz_write_place, 0, FILL},
    [FILL] = {has_room, sgz_write_fill, 0, FILL},
    [HASH_TAR] = {is_tar_due, sgz_write_hash_tar, 0, FILL},
    [SPLIT] = {is_loaded, sgz_write_split_tar, 0, FILL},
    [LIST] = {can_list, sgz_write_list, 0, PLACE},
    [LOAD] = {NULL, sgz_write_load, 1, FILL},
    [SAMPLE] = {is_loaded, sgz_write_sample, 1, FILL},
    [COMPRESS] = {is_sampled, sgz_write_compress, 1, FILL},
    [END] = {is_over, sgz_write_end, 0, END},
};

/* Claim what this stage can do now: the slot, or NULL; *part of it. */
static sgz_write_slot *claim(sgz_write_pipeline *c, sgz_write_stage n, size_t *part)
{
    const stage *g = &stages[n];
    if (!g->in_parts) {
        sgz_write_slot *s = &c->slots[c->at[n].next % c->slot_count];
        if (c->at[n].busy || (g->after != n && c->at[n].next == c->at[g->after].next) ||
            (g->ready && !g->ready(c, s)))
            return NULL;
        c->at[n].busy = 1;
        if (n == PLACE && s->tar_beside)
            c->at[HASH_TAR].busy = 1;
        return s;
    }
    for (uint64_t i = c->at[PLACE].next; i < c->at[FILL].next; i++) {
        sgz_write_slot *s = &c->slots[i % c->slot_count];
        if (s->parts[n].taken < s->parts[n].count && (!g->ready || g->ready(c, s))) {
            *part = s->parts[n].taken++;
            return s;
        }
    }
    return NULL;
}

static void pass(sgz_write_pipeline *c, sgz_write_stage n)
{
    c->at[n].busy = 0;
    c->at[n].next++;
}

/* It is done; 1 when other threads should look what there is to do now. */
static int release_claim(sgz_write_pipeline *c, sgz_write_stage n, sgz_write_slot *s)
{
    if (stages[n].in_parts)
        return ++s->parts[n].done == s->parts[n].count;
    pass(c, n);
    if (n == PLACE && s->tar_beside)
        pass(c, HASH_TAR);
    if (n == FILL) {
        c->filled = s->last;
        c->job->done = c->filler.progress(c->filler.arg);
    }
    return 1;
}

/* Do one thing; *found: there was one. */
static sgz_status run_one(sgz_write_worker *w, int *found, sgz_error *err)
{
    sgz_write_pipeline *c = w->c;
    sgz_write_slot *s = NULL;
    int n = 0;
    for (; n < STAGES && !s; n++)
        s = claim(c, n, &w->part);
    *found = s != NULL;
    if (!s)
        return SGZ_OK;
    pthread_mutex_unlock(&c->job->lock);
    sgz_status status = stages[--n].run(w, s, err);
    pthread_mutex_lock(&c->job->lock);
    if (!status && release_claim(c, n, s))
        pthread_cond_broadcast(&c->job->changed);
    return status;
}

static sgz_status work(void *arg, int number, sgz_error *err)
{
    sgz_write_pipeline *c = arg;
    sgz_write_worker w = {.c = c};
    int found;
    (void)number;
    int level = c->options.level;
    sgz_status status = sgz_write_is_zstd(c)
                            ? sgz_codec_framer_init(&w.framer, c->codecs, level, err)
                            : sgz_codec_deflater_init(&w.deflater, c->codecs, level, err);
    if (!status && c->options.reuse)
        status = sgz_codec_recoder_new(&w.recoder, c->codecs, err);
    if (!status && c->options.verify)
        status = sgz_codec_inflater_init(&w.inflater, c->codecs, err);
    if (!status && c->filler.worker_new) {
        w.loader = c->filler.worker_new(c->filler.arg, err);
        status = w.loader ? SGZ_OK : err->code;
    }
    pthread_mutex_lock(&c->job->lock);
    /* The first one there ends the blob; the others have nothing to do then. */
    while (!status && !sgz_base_job_stopped(c->job) && !c->at[END].busy && !c->at[END].next) {
        status = run_one(&w, &found, err);
        if (!found)
            pthread_cond_wait(&c->job->changed, &c->job->lock);
    }
    pthread_mutex_unlock(&c->job->lock);
    if (w.deflater.codecs)
        sgz_codec_deflater_free(&w.deflater);
    sgz_codec_framer_free(&w.framer);
    sgz_codec_recoder_free(w.recoder);
    sgz_codec_inflater_free(&w.inflater);
    free(w.scratch);
    free(w.zeros.out);
    if (w.loader)
        c->filler.worker_free(c->filler.arg, w.loader);
    return status;
}

/* --- life ------------------------------------------------------------------------------------ */

static void release(sgz_write_pipeline *c)
{
    sgz_write_blob_free(&c->writer);
    sgz_write_split_free(&c->split);
    sgz_write_chunked_free(&c->chunked);
    sgz_codec_hasher_free(&c->file_sha);
    sgz_codec_sha256_free(c->codecs, &c->tail_sha);
    for (unsigned i = 0; i < SLABS_MAX; i++) {
        sgz_write_slab_free(&c->slots[i].in);
        free(c->slots[i].out);
        free(c->slots[i].batches);
    }
    free(c->messages);
    free(c->hashed);
    free(c->file_digests);
    free(c);
}

sgz_status sgz_write_pipeline_start(sgz_write_pipeline **pipeline, sgz_base_job *job,
                                    const sgz_codecs *codecs, const sgz_write_filler *filler,
                                    const sgz_sink *sink, sgz_toc *toc,
                                    const sgz_write_options *options, sgz_error *err)
{
    sgz_write_pipeline *c = calloc(1, sizeof *c);
    if (!c)
        return sgz_write_no_memory(err);
    c->job = job;
    c->codecs = codecs;
    c->filler = *filler;
    c->toc = toc;
    c->options = *options;
    c->slot_count = options->threads + 3 < SLABS_MAX ? (unsigned)options->threads + 3 : SLABS_MAX;
    sgz_status status = sgz_codec_hasher_init(&c->file_sha, codecs, err);
    if (!status)
        status = sgz_write_blob_init(&c->writer, codecs, sink, err);
    if (!status && sgz_write_is_zstd(c))
        status = sgz_write_chunked_init(&c->chunked, codecs, options->level, options->dir, err);
    if (!status && options->format == SGZ_WRITE_CHUNKED)
        status = sgz_write_split_init(&c->split, codecs, options->level, options->dir,
                                      &filler->kept->rows, filler->lock, err);
    c->writer.no_diff_id = options->no_diff_id;
    for (unsigned i = 0; i < c->slot_count && !status; i++)
        status = sgz_write_slab_init(&c->slots[i].in, filler->slab_size, err);
    if (!status)
        status = sgz_base_job_start(job, options->threads, work, c, err);
    if (status)
        release(c);
    else
        *pipeline = c;
    return status;
}

sgz_status sgz_write_pipeline_finish(sgz_write_pipeline *c, sgz_write_result *result,
                                     sgz_error *err)
{
    sgz_status status = sgz_base_job_join(c->job, err);
    *result = c->result;
    release(c);
    return status;
}
