/* The threads of a task, under the sanitizers: every end that one can come to, and that no
 * signal comes to them. */
#define _GNU_SOURCE
#include "base/job.h"
#include "check.h"

#include <dlfcn.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>

enum { ITEMS = 1000, LONG_MS = 60000 };

/* As many threads as the system is to give. */
static atomic_int left = 1 << 20;

int pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*work)(void *), void *arg)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!real) {
        void *found = dlsym(RTLD_NEXT, "pthread_create");
        memcpy(&real, &found, sizeof real);
    }
    return atomic_fetch_sub(&left, 1) > 0 ? real(id, attr, work, arg) : EAGAIN;
}

typedef struct {
    sgz_base_job job;
    sgz_error err;
    int fails;                  /* the thread that does; -1: none */
    int waits;                  /* the others do, for the end */
    size_t bad[2];              /* items that fail, the first one last if it can be */
    atomic_size_t next;
    atomic_int began, ended, too_few, has_signals;
    atomic_char seen[ITEMS];
} task;

static task *new_task(void)
{
    task *t = calloc(1, sizeof *t);
    CHECK(t);
    sgz_base_job_init(&t->job);
    t->fails = -1;
    for (size_t i = 0; i < 2; i++)
        t->bad[i] = SIZE_MAX;
    return t;
}

static void end_task(task *t)
{
    sgz_base_job_free(&t->job);
    free(t);
}

static sgz_status wait_or_fail(void *arg, int number, sgz_error *err)
{
    task *t = arg;
    sigset_t mask;
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    for (int i = 1; i < NSIG; i++)
        t->has_signals += i != SIGKILL && i != SIGSTOP && (i < 32 || i >= SIGRTMIN) &&
                          !sigismember(&mask, i);
    t->too_few += number >= t->job.threads;
    t->began++;
    if (number == t->fails)
        return sgz_base_fail(err, SGZ_EDATA, 7, "name", 4, "thread %d", number);
    pthread_mutex_lock(&t->job.lock);
    while (t->waits && !sgz_base_job_stopped(&t->job))
        pthread_cond_wait(&t->job.changed, &t->job.lock);
    pthread_mutex_unlock(&t->job.lock);
    t->ended++;
    return sgz_base_job_stopped(&t->job) ? SGZ_ECANCELLED : SGZ_OK;
}

static void test_ends(int threads)
{
    sigset_t before, after;
    pthread_sigmask(SIG_BLOCK, NULL, &before);
    task *t = new_task();
    t->waits = 1;
    CHECK(!sgz_base_job_start(&t->job, threads, wait_or_fail, t, &t->err));
    CHECK(t->job.threads == threads);
    pthread_sigmask(SIG_BLOCK, NULL, &after);
    for (int i = 1; i < NSIG; i++)
        CHECK(sigismember(&before, i) == sigismember(&after, i));
    CHECK(!sgz_base_job_wait(&t->job, 20) && !t->ended);
    sgz_base_job_cancel(&t->job);
    CHECK(sgz_base_job_wait(&t->job, LONG_MS));
    sgz_base_job_cancel(&t->job); /* once more is no harm */
    CHECK(sgz_base_job_join(&t->job, &t->err) == SGZ_ECANCELLED);
    CHECK(t->err.code == SGZ_ECANCELLED && !strcmp(t->err.message, "cancelled"));
    CHECK(t->began == threads && t->ended == threads && !t->too_few && !t->has_signals);
    end_task(t);

    /* One fails: the others end, and that is what is told, also after a late cancel. */
    t = new_task();
    t->waits = 1;
    t->fails = threads - 1;
    CHECK(!sgz_base_job_start(&t->job, threads, wait_or_fail, t, &t->err));
    CHECK(sgz_base_job_wait(&t->job, LONG_MS));
    sgz_base_job_cancel(&t->job);
    CHECK(sgz_base_job_join(&t->job, &t->err) == SGZ_EDATA && t->err.offset == 7);
    CHECK(t->began == threads && t->ended == threads - 1);
    end_task(t);

    /* Nothing happens; join alone waits too. */
    t = new_task();
    CHECK(sgz_base_job_wait(&t->job, LONG_MS)); /* no threads yet */
    CHECK(!sgz_base_job_start(&t->job, threads, wait_or_fail, t, &t->err));
    CHECK(!sgz_base_job_join(&t->job, &t->err) && t->ended == threads);
    end_task(t);
}

/* A cancel that no one gives a reason for is none that is lost. */
static sgz_status give_up(void *arg, int number, sgz_error *err)
{
    (void)arg, (void)number, (void)err;
    return SGZ_ECANCELLED;
}

static sgz_status do_items(void *arg, int number, sgz_error *err)
{
    task *t = arg;
    (void)number;
    for (;;) {
        size_t i = atomic_fetch_add(&t->next, 1);
        if (i >= ITEMS || sgz_base_job_passed(&t->job, i))
            return SGZ_OK;
        t->seen[i] = 1;
        if (i == t->bad[0] || i == t->bad[1]) {
            while (i < t->bad[1] && t->job.threads > 1 && t->job.failed_at == SIZE_MAX)
                sched_yield();
            sgz_base_fail(err, SGZ_ETAR, (int64_t)i, NULL, 0, "item");
            sgz_base_job_fail(&t->job, i, err);
        }
        atomic_fetch_add(&t->job.done, 1);
    }
}

/* The first in order is told, and all before it was done. */
static void test_order(int threads)
{
    for (int round = 0; round < 200; round++) {
        task *t = new_task();
        size_t first = below(round % 4 ? ITEMS / 2 : 2);
        t->bad[0] = first;
        t->bad[1] = first + 1 + below(ITEMS / 2);
        CHECK(!sgz_base_job_start(&t->job, threads, do_items, t, &t->err));
        CHECK(sgz_base_job_join(&t->job, &t->err) == SGZ_ETAR);
        CHECK(t->err.offset == (int64_t)first);
        for (size_t i = 0; i <= first; i++)
            CHECK(t->seen[i]);
        CHECK(sgz_base_job_stopped(&t->job) == !first);
        end_task(t);
    }
    task *t = new_task();
    CHECK(!sgz_base_job_start(&t->job, threads, do_items, t, &t->err));
    CHECK(!sgz_base_job_join(&t->job, NULL) && t->job.done == ITEMS);
    end_task(t);
}

/* The system gives out of threads at any of them. */
static void test_too_few(int threads)
{
    for (int there = 0; there < threads; there++) {
        task *t = new_task();
        left = there;
        t->waits = 1;
        sgz_status status = sgz_base_job_start(&t->job, threads, wait_or_fail, t, &t->err);
        left = 1 << 20;
        CHECK(status == (there ? SGZ_OK : SGZ_EIO) && t->job.threads == there);
        CHECK(sgz_base_job_wait(&t->job, 0) == !there);
        sgz_base_job_cancel(&t->job);
        CHECK(sgz_base_job_join(&t->job, &t->err) == SGZ_ECANCELLED);
        CHECK(t->began == there && t->ended == there && !t->too_few);
        end_task(t);
    }
}

int main(void)
{
    for (int threads = 1; threads <= 9; threads += 4) {
        test_ends(threads);
        test_order(threads);
        test_too_few(threads);
    }
    task *t = new_task();
    CHECK(!sgz_base_job_start(&t->job, 0, give_up, t, &t->err) && t->job.threads == 1);
    CHECK(sgz_base_job_join(&t->job, &t->err) == SGZ_ECANCELLED && t->err.code == SGZ_ECANCELLED);
    end_task(t);
    t = new_task();
    CHECK(!sgz_base_job_start(&t->job, 1 << 30, do_items, t, &t->err));
    CHECK(t->job.threads == SGZ_JOB_THREADS && !sgz_base_job_join(&t->job, &t->err));
    end_task(t);
    printf("job ok\n");
    return 0;
}
