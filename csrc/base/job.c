#include "base/job.h"

#include <signal.h>
#include <stdlib.h>

#include "base/deadline.h"

struct sgz_base_thread {
    sgz_base_job *job;
    pthread_t id;
};

void sgz_base_job_init(sgz_base_job *job)
{
    *job = (sgz_base_job){.failed_at = SIZE_MAX};
    pthread_mutex_init(&job->lock, NULL);
    pthread_cond_init(&job->changed, NULL);
    sgz_base_cond_init(&job->ended);
}

void sgz_base_job_free(sgz_base_job *job)
{
    pthread_mutex_destroy(&job->lock);
    pthread_cond_destroy(&job->changed);
    pthread_cond_destroy(&job->ended);
}

static sgz_status cancelled(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ECANCELLED, -1, NULL, 0, "cancelled");
}

static void *run(void *arg)
{
    const struct sgz_base_thread *thread = arg;
    sgz_base_job *job = thread->job;
    sgz_error err;
    pthread_mutex_lock(&job->lock); /* until all are started */
    pthread_mutex_unlock(&job->lock);
    sgz_status status = job->work(job->arg, (int)(thread - job->all), &err);
    if (status == SGZ_ECANCELLED)
        cancelled(&err);
    /* The reason for which it was cancelled comes first. */
    if (status)
        sgz_base_job_fail(job, status == SGZ_ECANCELLED ? SIZE_MAX - 1 : 0, &err);
    pthread_mutex_lock(&job->lock);
    if (!--job->running)
        pthread_cond_broadcast(&job->ended);
    pthread_mutex_unlock(&job->lock);
    return NULL;
}

sgz_status sgz_base_job_start(sgz_base_job *job, int threads,
                              sgz_status (*work)(void *arg, int number, sgz_error *err),
                              void *arg, sgz_error *err)
{
    sigset_t all, before;
    int failed = 0;
    threads = threads < 1 ? 1 : threads > SGZ_JOB_THREADS ? SGZ_JOB_THREADS : threads;
    job->all = malloc((size_t)threads * sizeof *job->all);
    if (!job->all)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for threads");
    job->work = work;
    job->arg = arg;
    sigfillset(&all);
    pthread_mutex_lock(&job->lock);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (; job->threads < threads; job->threads++) {
        struct sgz_base_thread *thread = &job->all[job->threads];
        thread->job = job;
        if ((failed = pthread_create(&thread->id, NULL, run, thread)))
            break;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    job->running = job->threads;
    pthread_mutex_unlock(&job->lock);
    if (job->threads)
        return SGZ_OK;
    sgz_base_job_join(job, NULL);
    return sgz_base_fail_errno(err, failed, "no thread can be started", NULL, 0);
}

int sgz_base_job_wait(sgz_base_job *job, int milliseconds)
{
    struct timespec until = sgz_base_deadline(milliseconds);
    pthread_mutex_lock(&job->lock);
    while (job->running && !pthread_cond_timedwait(&job->ended, &job->lock, &until))
        ;
    int ended = !job->running;
    pthread_mutex_unlock(&job->lock);
    return ended;
}

void sgz_base_job_fail(sgz_base_job *job, size_t place, const sgz_error *err)
{
    pthread_mutex_lock(&job->lock);
    if (place < job->failed_at) {
        job->failed_at = place;
        job->err = *err;
    }
    if (!place)
        job->stop = 1;
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&job->lock);
}

void sgz_base_job_cancel(sgz_base_job *job)
{
    sgz_error err;
    cancelled(&err);
    sgz_base_job_fail(job, 0, &err);
}

sgz_status sgz_base_job_join(sgz_base_job *job, sgz_error *err)
{
    for (int i = 0; i < job->threads; i++)
        pthread_join(job->all[i].id, NULL);
    free(job->all);
    job->all = NULL;
    job->threads = 0;
    if (job->failed_at == SIZE_MAX)
        return SGZ_OK;
    if (err)
        *err = job->err;
    return job->err.code;
}
