/* The threads of an extraction.
 *
 * Stages follow each other, each done by all threads: contents, in blob order; empty files;
 * fifos and devices; hard links; symlinks; metadata of directories, deepest first. So
 * nothing that the archive brings can redirect a later write, and a directory can be
 * read-only in the end and still be filled. */
#define _GNU_SOURCE
#include "extract/worker.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define DIRS_ALL 512 /* open directories of all threads together */

static sgz_status run_task(sgz_extract_worker *w, const sgz_extract_stage *stage, uint32_t task,
                           sgz_error *err)
{
    sgz_extract_plan *plan = &w->ex->plan;
    switch (stage->kind) {
    case SGZ_STAGE_DATA:
        return sgz_extract_write_batch(w, task, err);
    case SGZ_STAGE_EMPTY:
        return sgz_extract_write_empty(w, plan->order[task], err);
    case SGZ_STAGE_SPECIAL:
        return sgz_extract_write_special(w, plan->order[task], err);
    case SGZ_STAGE_SYMLINK:
        return sgz_extract_write_symlink(w, plan->order[task], err);
    case SGZ_STAGE_LINK:
    case SGZ_STAGE_SYMLINK_LINK:
        return sgz_extract_write_hardlink(w, task, err);
    case SGZ_STAGE_DIRECTORY:
        return sgz_extract_write_directory(w, plan->order[task], err);
    }
    return SGZ_OK;
}

static void run_stage(sgz_extract_worker *w, sgz_extract_stage *stage)
{
    struct sgz_extract *ex = w->ex;
    while (!sgz_extract_stopped(ex)) {
        uint32_t task = atomic_fetch_add(&stage->next, stage->grain);
        if (task >= stage->last)
            return;
        uint32_t end = stage->last - task < stage->grain ? stage->last : task + stage->grain;
        for (; task < end && !sgz_extract_stopped(ex); task++)
            if (run_task(w, stage, task, &w->err))
                sgz_base_job_fail(ex->job, 0, &w->err);
    }
}

/* Until all threads are here. */
static void barrier(struct sgz_extract *ex)
{
    pthread_mutex_lock(&ex->job->lock);
    uint64_t generation = ex->generation;
    if (++ex->arrived == ex->job->threads) {
        ex->arrived = 0;
        ex->generation++;
        pthread_cond_broadcast(&ex->job->changed);
    }
    while (generation == ex->generation)
        pthread_cond_wait(&ex->job->changed, &ex->job->lock);
    pthread_mutex_unlock(&ex->job->lock);
}

static void add_results(sgz_extract_result *sum, const sgz_extract_result *one)
{
    sum->files += one->files;
    sum->bytes += one->bytes;
    sum->unverified += one->unverified;
    sum->devices += one->devices;
    sum->setid += one->setid;
    sum->xattrs += one->xattrs;
    sum->xattrs_failed += one->xattrs_failed;
}

static sgz_status init_worker(sgz_extract_worker *w)
{
    const sgz_extract_options *o = &w->ex->options;
    w->dirs_max = DIRS_ALL / w->ex->job->threads;
    w->dirs_max = w->dirs_max > SGZ_DIRS ? SGZ_DIRS : w->dirs_max < 4 ? 4 : w->dirs_max;
    for (int i = 0; i < SGZ_DIRS; i++)
        w->dirs[i].fd = -1;
    sgz_status st = sgz_read_reader_init(&w->reader, o->codecs, &w->ex->plan.spans, o->blob,
                                         &w->err);
    w->reader.decoder.stop = &w->ex->job->stop;
    if (!st && !(w->buffer = malloc(SGZ_PIECE)))
        st = sgz_base_fail(&w->err, SGZ_ENOMEM, -1, NULL, 0, "no memory to decode with");
    return st;
}

static void free_worker(sgz_extract_worker *w)
{
    sgz_extract_worker_close_dirs(w);
    sgz_read_reader_free(&w->reader);
    free(w->buffer);
}

static sgz_status work(void *arg, int number, sgz_error *err)
{
    struct sgz_extract *ex = arg;
    sgz_extract_worker w = {.ex = ex};
    (void)err;
    if (init_worker(&w))
        sgz_base_job_fail(ex->job, 0, &w.err);
    for (uint32_t i = 0; i < ex->plan.stage_count; i++) {
        run_stage(&w, &ex->plan.stages[i]);
        barrier(ex); /* which every thread has to reach */
    }
    if (sgz_extract_stopped(ex) && number == 0)
        sgz_extract_remove_begun(&w);
    pthread_mutex_lock(&ex->job->lock);
    add_results(&ex->result, &w.result);
    pthread_mutex_unlock(&ex->job->lock);
    free_worker(&w);
    return SGZ_OK;
}

/* --- interface ------------------------------------------------------------------------ */

sgz_extract *sgz_extract_new(const sgz_extract_options *options)
{
    sgz_extract *ex = calloc(1, sizeof *ex);
    if (!ex)
        return NULL;
    ex->options = *options;
    ex->uid = geteuid();
    if (getrandom(&ex->temp_seed, sizeof ex->temp_seed, GRND_NONBLOCK) < 0)
        ex->temp_seed = (uint64_t)getpid() << 32; /* names only have to be new */
    return ex;
}

sgz_status sgz_extract_select(sgz_extract *ex, const char *name, size_t len, sgz_error *err)
{
    char *copy = malloc(len + 1), *scratch = malloc(len + 1);
    size_t clean_len = 0;
    const char *clean = scratch ? sgz_toc_clean_name(name, len, scratch, &clean_len) : name;
    sgz_extract_member member = {copy, (uint32_t)clean_len, SGZ_NO_ROW};
    if (!copy || !scratch || len > UINT32_MAX ||
        !SGZ_PUSH(ex->members, ex->member_count, ex->member_cap, member)) {
        free(copy);
        free(scratch);
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for a name");
    }
    memcpy(copy, clean, clean_len);
    free(scratch);
    return SGZ_OK;
}

sgz_status sgz_extract_start(sgz_extract *ex, sgz_base_job *job, sgz_error *err)
{
    sgz_status st = sgz_extract_plan_init(&ex->plan, &ex->options, ex->members, ex->member_count,
                                          err);
    if (st)
        return st;
    ex->result.devices = ex->plan.devices;
    ex->result.setid = ex->plan.setid;
    ex->job = job;
    job->total = ex->plan.total;
    return sgz_base_job_start(job, ex->options.threads, work, ex, err);
}

sgz_status sgz_extract_finish(sgz_extract *ex, sgz_extract_result *result, sgz_error *err)
{
    sgz_status st = sgz_base_job_join(ex->job, err);
    *result = ex->result;
    return st;
}

void sgz_extract_free(sgz_extract *ex)
{
    if (!ex)
        return;
    for (size_t i = 0; i < ex->member_count; i++)
        free(ex->members[i].name);
    free(ex->members);
    sgz_extract_plan_free(&ex->plan);
    free(ex);
}
