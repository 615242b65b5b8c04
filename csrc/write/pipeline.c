#include "write/internal.h"

#include "base/deadline.h"

#include <signal.h>
#include <stdlib.h>

/* --- scheduling ---------------------------------------------------------------------------- */

static int loaded(const sgz_write_flight *s)
{
    return s->loads_done == s->in.load_count;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* A load job, else a job, of the first slab that has one. */
static sgz_write_flight *find_job(sgz_write_pipeline *c, int *load)
{
    for (*load = 1; *load >= 0; --*load)
        for (uint64_t n = c->placed; n < c->filled; n++) {
            sgz_write_flight *s = &c->slabs[n % c->slab_count];
            if (*load ? s->loads_taken < s->in.load_count
                      : loaded(s) && s->jobs_taken < s->job_count)
                return s;
        }
    return NULL;
}

/* Load or compress; 1 when other threads should look what there is to do now. */
static int run_part(sgz_write_pipeline *c, sgz_write_worker *w, sgz_write_flight *s, int load,
                    sgz_status *status, sgz_error *err)
{
    if (load) {
        size_t n = s->loads_taken++;
        pthread_mutex_unlock(&c->lock);
        *status = c->filler.load(c->filler.arg, w->loader, &s->in, n, err);
        pthread_mutex_lock(&c->lock);
        return ++s->loads_done == s->in.load_count;
    }
    sgz_write_job *j = &s->jobs[s->jobs_taken++];
    if (j->copied)
        return 0;
    pthread_mutex_unlock(&c->lock);
    *status = sgz_write_run_job(c, w, s, j, err);
    pthread_mutex_lock(&c->lock);
    return ++s->jobs_done == s->job_count;
}

/* Whether the slab that comes next can be placed; *both: the tar is to be hashed with the blob,
 * as there are no chunks to be hashed with it. */
static int can_place(const sgz_write_pipeline *c, const sgz_write_flight *s, int *both)
{
    if (c->placing || c->placed == c->filled)
        return 0;
    *both = c->placed == c->diffed;
    if (*both && (c->diffing || s->chunks_due || !loaded(s)))
        return 0;
    return s->jobs_done == s->job_count;
}

/* The stages in the order that keeps the longest chain moving: what frees slabs, then the
 * serial stages, then loads and jobs, which fill every core's remaining time. */
static int run_one(sgz_write_pipeline *c, sgz_write_worker *w)
{
    sgz_error err;
    sgz_status status = SGZ_OK;
    uint64_t freed = least(c->filed, c->written); /* placed is never ahead of diffed */
    sgz_write_flight *s = &c->slabs[c->written % c->slab_count];
    sgz_write_flight *place = &c->slabs[c->placed % c->slab_count];
    sgz_write_flight *diff = &c->slabs[c->diffed % c->slab_count];
    sgz_write_flight *file = &c->slabs[c->filed % c->slab_count];
    int load, both;
    if (!c->writing && c->written < c->placed) {
        c->writing = 1;
        pthread_mutex_unlock(&c->lock);
        status = sgz_write_store_slab(c, s, &err);
        pthread_mutex_lock(&c->lock);
        c->writing = 0;
        c->written++;
    } else if (can_place(c, place, &both)) {
        c->placing = 1;
        c->diffing |= both;
        pthread_mutex_unlock(&c->lock);
        status = sgz_write_place_slab(c, place, both, &err);
        pthread_mutex_lock(&c->lock);
        c->placing = 0;
        c->placed++;
        if (both) {
            c->diffing = 0;
            c->diffed++;
        }
    } else if (!c->filling && !c->end && c->filled < freed + c->slab_count) {
        int end;
        s = &c->slabs[c->filled % c->slab_count];
        c->filling = 1;
        pthread_mutex_unlock(&c->lock);
        status = c->filler.fill(c->filler.arg, &s->in, &end, &err);
        if (!status)
            status = sgz_write_plan_jobs(s, &err);
        pthread_mutex_lock(&c->lock);
        c->filling = 0;
        c->end = end;
        c->progress = c->filler.progress(c->filler.arg);
        c->filled++;
    } else if (!c->diffing && c->diffed < c->filled && loaded(diff) && diff->chunks_due) {
        c->diffing = 1;
        pthread_mutex_unlock(&c->lock);
        status = sgz_write_hash_tar(c, diff, &err);
        pthread_mutex_lock(&c->lock);
        c->diffing = 0;
        c->diffed++;
    } else if (!c->filing && c->filed < c->filled && loaded(file)) {
        c->filing = 1;
        pthread_mutex_unlock(&c->lock);
        status = sgz_write_hash_files(c, file, &err);
        pthread_mutex_lock(&c->lock);
        c->filing = 0;
        c->filed++;
    } else {
        s = find_job(c, &load);
        if (!s)
            return 0;
        if (!run_part(c, w, s, load, &status, &err) && !status)
            return 1;
    }
    if (status && !*c->stop) {
        *c->stop = 1;
        c->err = err;
    }
    pthread_cond_broadcast(&c->changed);
    return 1;
}

static int all_done(const sgz_write_pipeline *c)
{
    return c->end && c->written == c->filled && c->diffed == c->filled && c->filed == c->filled;
}

static sgz_status write_end(sgz_write_pipeline *c, sgz_error *err)
{
    sgz_status status = sgz_codec_sha256_new(c->codecs, &c->tail_sha, err);
    if (status)
        return status;
    sgz_codec_sha256_init(c->codecs, &c->tail_sha);
    c->result.bad_names = c->filler.bad_names(c->filler.arg);
    c->result.trailing_garbage = c->input && c->input->inflater.garbage;
    c->writer.tail = &c->tail_sha;
    status = sgz_write_blob_finish(&c->writer, c->toc, c->options.level, c->options.legacy,
                                   &c->result, err);
    if (!status)
        sgz_codec_sha256_final(c->codecs, &c->tail_sha, c->result.tail_digest);
    return status;
}

static void *work(void *arg)
{
    sgz_write_pipeline *c = arg;
    sgz_write_worker w = {0};
    sgz_error err;
    sgz_status status = sgz_codec_deflater_init(&w.deflater, c->codecs, c->options.level, &err);
    if (!status && c->filler.worker_new) {
        w.loader = c->filler.worker_new(c->filler.arg, &err);
        status = w.loader ? SGZ_OK : err.code;
    }
    pthread_mutex_lock(&c->lock);
    if (status && !*c->stop) {
        *c->stop = 1;
        c->err = err;
        pthread_cond_broadcast(&c->changed);
    }
    while (!*c->stop && !all_done(c))
        if (!run_one(c, &w))
            pthread_cond_wait(&c->changed, &c->lock);
    if (!*c->stop && !c->finishing) {
        /* The first one here ends the blob; the caller still waits, and may cancel. */
        c->finishing = 1;
        pthread_mutex_unlock(&c->lock);
        status = write_end(c, &err);
        pthread_mutex_lock(&c->lock);
        if (status && !*c->stop) {
            *c->stop = 1;
            c->err = err;
        }
    }
    c->running--;
    pthread_cond_broadcast(&c->ended);
    pthread_mutex_unlock(&c->lock);
    if (w.deflater.codecs)
        sgz_codec_deflater_free(&w.deflater);
    if (w.loader)
        c->filler.worker_free(c->filler.arg, w.loader);
    return NULL;
}

/* --- slabs of a tar ------------------------------------------------------------------------- */

static sgz_status cut_fill(void *arg, sgz_write_slab *s, int *end, sgz_error *err)
{
    return sgz_write_cutter_fill(((sgz_write_pipeline *)arg)->cutter, s, end, err);
}

static int64_t cut_progress(void *arg)
{
    return ((sgz_write_pipeline *)arg)->input->source_pos;
}

static uint64_t cut_bad_names(void *arg)
{
    return sgz_write_cutter_bad_names(((sgz_write_pipeline *)arg)->cutter);
}

/* --- life ------------------------------------------------------------------------------------ */

static void release(sgz_write_pipeline *c)
{
    sgz_write_cutter_free(c->cutter);
    sgz_write_blob_free(&c->writer);
    sgz_codec_sha256_free(c->codecs, &c->file_sha);
    sgz_codec_sha256_free(c->codecs, &c->tail_sha);
    for (unsigned i = 0; i < SLABS_MAX; i++) {
        sgz_write_slab_free(&c->slabs[i].in);
        free(c->slabs[i].out);
        free(c->slabs[i].jobs);
    }
    pthread_mutex_destroy(&c->lock);
    pthread_mutex_destroy(&c->toc_lock);
    pthread_cond_destroy(&c->changed);
    pthread_cond_destroy(&c->ended);
    free(c->messages);
    free(c->threads);
    free(c);
}

static sgz_status prepare(sgz_write_pipeline *c, sgz_error *err)
{
    c->slab_count = c->options.threads + 3 < SLABS_MAX ? c->options.threads + 3 : SLABS_MAX;
    if (c->input) {
        c->cutter = sgz_write_cutter_new(c->input, c->toc, &c->toc_lock, &c->options.cut);
        c->filler = (sgz_write_filler){.arg = c,
                                       .slab_size = sgz_write_cutter_slab_size(&c->options.cut),
                                       .lock = &c->toc_lock,
                                       .fill = cut_fill,
                                       .progress = cut_progress,
                                       .bad_names = cut_bad_names};
    }
    c->threads = calloc(c->options.threads, sizeof *c->threads);
    if ((c->input && !c->cutter) || !c->threads)
        return sgz_write_no_memory(err);
    sgz_status status = sgz_codec_sha256_new(c->codecs, &c->file_sha, err);
    if (!status)
        status = sgz_write_blob_init(&c->writer, c->codecs, c->sink, err);
    for (unsigned i = 0; i < c->slab_count && !status; i++)
        status = sgz_write_slab_init(&c->slabs[i].in, c->filler.slab_size, err);
    c->writer.no_diff_id = c->options.no_diff_id;
    return status;
}

static sgz_write_pipeline *start(const sgz_codecs *codecs, sgz_input *input,
                                 const sgz_write_filler *filler, sgz_sink *sink, sgz_toc *toc,
                                 const sgz_write_options *options, volatile int *stop,
                                 sgz_error *err)
{
    sgz_write_pipeline *c = calloc(1, sizeof *c);
    if (!c) {
        sgz_write_no_memory(err);
        return NULL;
    }
    c->codecs = codecs;
    c->input = input;
    if (filler)
        c->filler = *filler;
    c->sink = sink;
    c->toc = toc;
    c->options = *options;
    c->stop = stop;
    pthread_mutex_init(&c->lock, NULL);
    pthread_mutex_init(&c->toc_lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&c->ended, &clock);
    pthread_condattr_destroy(&clock);
    if (prepare(c, err)) {
        release(c);
        return NULL;
    }
    /* Signals are for the calling thread, which can act on them. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (; c->thread_count < options->threads; c->thread_count++) {
        pthread_mutex_lock(&c->lock);
        c->running++;
        pthread_mutex_unlock(&c->lock);
        if (pthread_create(&c->threads[c->thread_count], NULL, work, c)) {
            pthread_mutex_lock(&c->lock);
            c->running--;
            pthread_mutex_unlock(&c->lock);
            break;
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!c->thread_count) {
        sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no thread can be started");
        release(c);
        return NULL;
    }
    return c;
}

sgz_write_pipeline *sgz_write_pipeline_start(const sgz_codecs *codecs, sgz_input *input,
                                             sgz_sink *sink, sgz_toc *toc,
                                             const sgz_write_options *options,
                                             volatile int *stop, sgz_error *err)
{
    return start(codecs, input, NULL, sink, toc, options, stop, err);
}

sgz_write_pipeline *sgz_write_pipeline_start_filled(const sgz_codecs *codecs,
                                                    const sgz_write_filler *filler,
                                                    sgz_sink *sink, sgz_toc *toc,
                                                    const sgz_write_options *options,
                                                    volatile int *stop, sgz_error *err)
{
    return start(codecs, NULL, filler, sink, toc, options, stop, err);
}

int sgz_write_pipeline_wait(sgz_write_pipeline *c, int milliseconds, int64_t *done)
{
    struct timespec until = sgz_base_deadline(milliseconds);
    pthread_mutex_lock(&c->lock);
    while (c->running && !pthread_cond_timedwait(&c->ended, &c->lock, &until))
        ;
    int ended = !c->running;
    *done = c->progress;
    pthread_mutex_unlock(&c->lock);
    return ended;
}

void sgz_write_pipeline_cancel(sgz_write_pipeline *c)
{
    pthread_mutex_lock(&c->lock);
    if (!*c->stop) {
        *c->stop = 1;
        sgz_base_fail(&c->err, SGZ_ECANCELLED, -1, NULL, 0, "cancelled");
    }
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

sgz_status sgz_write_pipeline_finish(sgz_write_pipeline *c, sgz_write_result *result,
                                     sgz_error *err)
{
    for (unsigned i = 0; i < c->thread_count; i++)
        pthread_join(c->threads[i], NULL);
    sgz_status status = SGZ_OK;
    *result = c->result;
    if (*c->stop) {
        *err = c->err;
        status = c->err.code;
    }
    release(c);
    return status;
}
