/* The threads of an extraction.
 *
 * Stages follow each other, each done by all threads: contents, in blob order; empty files;
 * fifos and devices; hard links; symlinks; metadata of directories, deepest first. So
 * nothing that the archive brings can redirect a later write, and a directory can be
 * read-only in the end and still be filled. */
#define _GNU_SOURCE
#include "extract/worker.h"
#include "base/deadline.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define THREADS_MAX 256
#define DIRS_ALL 512 /* open directories of all threads together */

static void fail(struct sgz_extract *ex, sgz_status st, const sgz_error *err)
{
    pthread_mutex_lock(&ex->lock);
    if (!ex->status) {
        ex->status = st;
        ex->err = *err;
        ex->err.code = st;
    }
    pthread_mutex_unlock(&ex->lock);
    atomic_store(&ex->stop, 1);
}

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
        for (; task < end && !sgz_extract_stopped(ex); task++) {
            sgz_status st = run_task(w, stage, task, &w->err);
            if (st) {
                fail(ex, st, &w->err);
                return;
            }
        }
    }
}

/* Until all threads are here. */
static void barrier(struct sgz_extract *ex)
{
    pthread_mutex_lock(&ex->lock);
    uint64_t generation = ex->generation;
    if (++ex->arrived == ex->worker_count) {
        ex->arrived = 0;
        ex->generation++;
        pthread_cond_broadcast(&ex->change);
    }
    while (generation == ex->generation)
        pthread_cond_wait(&ex->change, &ex->lock);
    pthread_mutex_unlock(&ex->lock);
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

static void *work(void *arg)
{
    sgz_extract_worker *w = arg;
    struct sgz_extract *ex = w->ex;
    /* How many threads there are is known once the first stage begins. */
    pthread_mutex_lock(&ex->lock);
    while (!ex->started)
        pthread_cond_wait(&ex->change, &ex->lock);
    pthread_mutex_unlock(&ex->lock);
    for (uint32_t i = 0; i < ex->plan.stage_count; i++) {
        run_stage(w, &ex->plan.stages[i]);
        barrier(ex);
    }
    if (sgz_extract_stopped(ex) && w == ex->workers)
        sgz_extract_remove_begun(w);
    sgz_extract_worker_close_dirs(w);
    pthread_mutex_lock(&ex->lock);
    add_results(&ex->result, &w->result);
    ex->running--;
    pthread_cond_broadcast(&ex->change);
    pthread_mutex_unlock(&ex->lock);
    return NULL;
}

static void free_worker(sgz_extract_worker *w)
{
    sgz_read_reader_free(&w->reader);
    free(w->buffer);
    w->buffer = NULL;
}

static sgz_status init_worker(struct sgz_extract *ex, sgz_extract_worker *w, int dirs,
                              sgz_error *err)
{
    w->ex = ex;
    w->dirs_max = dirs;
    for (int i = 0; i < SGZ_DIRS; i++)
        w->dirs[i].fd = -1;
    sgz_status st = sgz_read_reader_init(&w->reader, ex->options.codecs, &ex->plan.spans,
                                         ex->options.blob, err);
    w->reader.stop = &ex->stop;
    if (!st && !(w->buffer = malloc(SGZ_PIECE)))
        st = sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to decode with");
    if (st)
        free_worker(w);
    return st;
}

/* --- interface ------------------------------------------------------------------------ */

sgz_extract *sgz_extract_new(const sgz_extract_options *options)
{
    sgz_extract *ex = calloc(1, sizeof *ex);
    if (!ex)
        return NULL;
    ex->options = *options;
    ex->uid = geteuid();
    pthread_mutex_init(&ex->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&ex->change, &attr);
    pthread_condattr_destroy(&attr);
    if (getrandom(&ex->temp_seed, sizeof ex->temp_seed, GRND_NONBLOCK) < 0)
        ex->temp_seed = (uint64_t)getpid() << 32; /* names only have to be new */
    return ex;
}

sgz_status sgz_extract_select(sgz_extract *ex, const char *name, size_t len, sgz_error *err)
{
    sgz_extract_member *grown = realloc(ex->members, (ex->member_count + 1) * sizeof *grown);
    char *copy = malloc(len + 1), *scratch = malloc(len + 1);
    size_t clean_len = 0;
    if (grown)
        ex->members = grown;
    if (!grown || !copy || !scratch || len > UINT32_MAX) {
        free(copy);
        free(scratch);
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for a name");
    }
    const char *clean = sgz_toc_clean_name(name, len, scratch, &clean_len);
    memcpy(copy, clean, clean_len);
    free(scratch);
    ex->members[ex->member_count++] = (sgz_extract_member){copy, (uint32_t)clean_len,
                                                           SGZ_NO_ROW};
    return SGZ_OK;
}

sgz_status sgz_extract_start(sgz_extract *ex, sgz_error *err)
{
    sgz_status st = sgz_extract_plan_init(&ex->plan, &ex->options, ex->members, ex->member_count,
                                          err);
    if (st)
        return st;
    ex->result.devices = ex->plan.devices;
    ex->result.setid = ex->plan.setid;
    int threads = ex->options.threads < THREADS_MAX ? ex->options.threads : THREADS_MAX;
    if (threads < 1)
        threads = 1;
    int dirs = DIRS_ALL / threads;
    dirs = dirs > SGZ_DIRS ? SGZ_DIRS : dirs < 4 ? 4 : dirs;
    ex->workers = calloc((size_t)threads, sizeof *ex->workers);
    if (!ex->workers)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for threads");
    /* Signals are for the caller's thread, and never interrupt a system call here. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    for (int i = 0; i < threads; i++) {
        sgz_extract_worker *w = &ex->workers[i];
        st = init_worker(ex, w, dirs, err);
        if (st)
            break;
        int bad = pthread_create(&w->thread, NULL, work, w);
        if (bad) {
            free_worker(w);
            st = sgz_base_fail_errno(err, bad, "cannot start a thread", NULL, 0);
            break;
        }
        ex->worker_count++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (!ex->worker_count)
        return st;
    pthread_mutex_lock(&ex->lock);
    ex->running = ex->worker_count;
    ex->started = 1;
    pthread_cond_broadcast(&ex->change);
    pthread_mutex_unlock(&ex->lock);
    return SGZ_OK;
}

int sgz_extract_wait(sgz_extract *ex, int timeout_ms, int64_t *done, int64_t *total)
{
    struct timespec until = sgz_base_deadline(timeout_ms);
    pthread_mutex_lock(&ex->lock);
    while (ex->running && pthread_cond_timedwait(&ex->change, &ex->lock, &until) == 0)
        ;
    int finished = !ex->running;
    pthread_mutex_unlock(&ex->lock);
    *done = atomic_load(&ex->done);
    *total = ex->plan.total;
    return finished;
}

void sgz_extract_cancel(sgz_extract *ex)
{
    static const sgz_error cancelled = {.offset = -1, .message = "cancelled"};
    fail(ex, SGZ_ECANCELLED, &cancelled);
}

static void join(sgz_extract *ex)
{
    for (int i = 0; i < ex->worker_count; i++) {
        pthread_join(ex->workers[i].thread, NULL);
        free_worker(&ex->workers[i]);
    }
    ex->worker_count = 0;
}

sgz_status sgz_extract_finish(sgz_extract *ex, sgz_extract_result *result, sgz_error *err)
{
    join(ex);
    *result = ex->result;
    if (ex->status)
        *err = ex->err;
    return ex->status;
}

void sgz_extract_free(sgz_extract *ex)
{
    if (!ex)
        return;
    if (ex->worker_count)
        sgz_extract_cancel(ex);
    join(ex);
    for (size_t i = 0; i < ex->member_count; i++)
        free(ex->members[i].name);
    free(ex->members);
    free(ex->workers);
    sgz_extract_plan_free(&ex->plan);
    pthread_cond_destroy(&ex->change);
    pthread_mutex_destroy(&ex->lock);
    free(ex);
}
