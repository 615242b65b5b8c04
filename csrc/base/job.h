/* The threads of one task: started, followed, stopped and joined.
 *
 * Who wants a task done makes the job and gives it to the kernel that starts the threads, which
 * keeps what they share under the job's lock. The stop flag is there before the threads are, so
 * that what they may wait for outside (a silent pipe) can watch it too. */
#ifndef SGZ_BASE_JOB_H
#define SGZ_BASE_JOB_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/status.h"

typedef atomic_int sgz_base_stop;

typedef struct {
    sgz_base_stop stop;         /* the threads are to end soon: after a failure that work
                                   returned, or cancelled */
    atomic_llong done, total;   /* progress, in bytes of whatever the task counts and sets */
    pthread_mutex_t lock;
    pthread_cond_t changed;     /* for the task to signal; a failure and a cancel signal it too */
    int threads;                /* started: known when the first one begins */

    /* The job's own. */
    struct sgz_base_thread *all;
    int running;
    pthread_cond_t ended;       /* the last thread has */
    sgz_status (*work)(void *arg, int number, sgz_error *err);
    void *arg;
    atomic_size_t failed_at;    /* SIZE_MAX: nothing failed */
    sgz_error err;
} sgz_base_job;

void sgz_base_job_init(sgz_base_job *job);
/* After a join, or without a start. */
void sgz_base_job_free(sgz_base_job *job);

/* Start up to `threads` threads (at least 1, at most SGZ_JOB_THREADS) that each call work(arg,
 * number), and go on with fewer if there are no more to be had; fails when there is none. No
 * signal ever comes to them: those are for the caller's thread. A failure that work returns
 * ends the job; SGZ_ECANCELLED says that it ended because of the job. */
#define SGZ_JOB_THREADS 256
sgz_status sgz_base_job_start(sgz_base_job *job, int threads,
                              sgz_status (*work)(void *arg, int number, sgz_error *err),
                              void *arg, sgz_error *err);
/* Wait at most `milliseconds`; 1 when all threads have ended, or there are none. */
int sgz_base_job_wait(sgz_base_job *job, int milliseconds);
/* Ask the threads to stop soon; from any thread. */
void sgz_base_job_cancel(sgz_base_job *job);
/* What failed, and its place in the order of the work: of several the first is kept, whatever
 * the threads. What comes before it may still be done (and fail); nothing does with place 0. */
void sgz_base_job_fail(sgz_base_job *job, size_t place, const sgz_error *err);
/* Wait for the end; the failure that was kept, SGZ_ECANCELLED among them. */
sgz_status sgz_base_job_join(sgz_base_job *job, sgz_error *err);

static inline int sgz_base_job_stopped(const sgz_base_job *job)
{
    return atomic_load_explicit(&job->stop, memory_order_relaxed);
}

/* Whether there is no need to do what has this place. */
static inline int sgz_base_job_passed(const sgz_base_job *job, size_t place)
{
    return sgz_base_job_stopped(job) ||
           place > atomic_load_explicit(&job->failed_at, memory_order_relaxed);
}

#endif
