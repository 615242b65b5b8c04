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

static void count(sgz_extract_result *r, sgz_extract_stage_kind kind)
{
    r->directories += kind == SGZ_STAGE_DIRECTORY;
    r->symlinks += kind == SGZ_STAGE_SYMLINK;
    r->hardlinks += kind == SGZ_STAGE_LINK || kind == SGZ_STAGE_SYMLINK_LINK;
    r->specials += kind == SGZ_STAGE_SPECIAL;
}

/* A task that is about one entry. */
static void run_entry(sgz_extract_worker *w, sgz_extract_stage_kind kind, uint32_t task)
{
    struct sgz_extract *ex = w->ex;
    sgz_extract_object *object = NULL;
    uint32_t layer, row;
    sgz_status st;
    if (kind == SGZ_STAGE_LINK || kind == SGZ_STAGE_SYMLINK_LINK) {
        const sgz_extract_hardlink *link = &ex->plan.links[task];
        layer = link->layer;
        row = link->dest;
        st = sgz_extract_write_hardlink(w, task, &w->err);
    } else if (kind == SGZ_STAGE_DIRECTORY) {
        uint32_t node = ex->plan.order[task];
        layer = ex->plan.nodes[node].layer;
        row = ex->plan.nodes[node].row;
        st = sgz_extract_write_directory(w, node, &w->err);
    } else {
        uint32_t number = ex->plan.order[task];
        object = &ex->plan.objects[number];
        layer = object->layer;
        row = object->dest;
        st = kind == SGZ_STAGE_EMPTY     ? sgz_extract_write_empty(w, number, &w->err)
             : kind == SGZ_STAGE_SPECIAL ? sgz_extract_write_special(w, number, &w->err)
                                         : sgz_extract_write_symlink(w, number, &w->err);
    }
    if (st) {
        if (object)
            object->failed = 1;
        sgz_extract_go_on(ex, layer, row, &w->err);
        return;
    }
    count(&w->result, kind);
    if (kind != SGZ_STAGE_EMPTY && row != SGZ_NO_ROW) /* that lists what it completes */
        sgz_extract_list(ex, layer, row);
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
            if (stage->kind != SGZ_STAGE_DATA)
                run_entry(w, stage->kind, task);
            else if (sgz_extract_write_batch(w, task, &w->err))
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
    sum->directories += one->directories;
    sum->symlinks += one->symlinks;
    sum->hardlinks += one->hardlinks;
    sum->specials += one->specials;
    sum->unverified += one->unverified;
    sum->devices += one->devices;
    sum->setid += one->setid;
    sum->xattrs += one->xattrs;
    sum->xattrs_failed += one->xattrs_failed;
}

static sgz_status init_worker(sgz_extract_worker *w)
{
    w->dirs_max = DIRS_ALL / w->ex->job->threads;
    w->dirs_max = w->dirs_max > SGZ_DIRS ? SGZ_DIRS : w->dirs_max < 4 ? 4 : w->dirs_max;
    w->layer = SGZ_NO_ROW;
    for (int i = 0; i < SGZ_DIRS; i++)
        w->dirs[i].fd = -1;
    if (!(w->buffer = malloc(SGZ_PIECE)))
        return sgz_base_fail(&w->err, SGZ_ENOMEM, -1, NULL, 0, "no memory to decode with");
    return SGZ_OK;
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
        sgz_extract_remove_begun(&ex->plan);
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

sgz_status sgz_extract_start(sgz_extract *ex, sgz_base_job *job, sgz_error *err)
{
    sgz_extract_plan *plan = &ex->plan;
    sgz_status st = sgz_extract_plan_init(plan, &ex->options, err);
    if (st)
        return st;
    if (ex->options.list) {
        size_t most = (size_t)plan->object_count + plan->link_count + plan->node_count + 1;
        ex->written = calloc(most, sizeof *ex->written);
        if (!ex->written)
            return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the list of names");
    }
    ex->result.devices = plan->devices;
    ex->result.setid = plan->setid;
    ex->job = job;
    job->total = plan->total;
    return sgz_base_job_start(job, ex->options.threads, work, ex, err);
}

sgz_status sgz_extract_finish(sgz_extract *ex, sgz_extract_result *result, sgz_error *err)
{
    sgz_status st = sgz_base_job_join(ex->job, err);
    *result = ex->result;
    return st;
}

const sgz_error *sgz_extract_errors(const sgz_extract *ex, const uint64_t **places, size_t *kept,
                                    uint64_t *count, uint64_t *damaged)
{
    const sgz_extract_failures *f = &ex->plan.failures;
    *places = f->places;
    *kept = f->kept;
    *count = f->count;
    *damaged = f->damaged;
    return f->errors;
}

int sgz_extract_next_written(const sgz_extract *ex, size_t *at, uint32_t *layer, uint32_t *row)
{
    if (!ex->written || *at >= atomic_load(&ex->written_count))
        return 0;
    uint64_t place = atomic_load(&ex->written[*at]);
    if (!place) /* some thread is about to store it */
        return 0;
    *layer = (uint32_t)((place - 1) >> 32);
    *row = (uint32_t)(place - 1);
    ++*at;
    return 1;
}

void sgz_extract_free(sgz_extract *ex)
{
    if (!ex)
        return;
    sgz_extract_plan_free(&ex->plan);
    free(ex->written);
    free(ex);
}
