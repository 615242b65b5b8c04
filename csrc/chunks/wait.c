#include "chunks/wait.h"
#include "base/deadline.h"

#include <stddef.h>
#include <string.h>

static void ready(sgz_chunks_want *want)
{
    sgz_chunks_waiter *w = (sgz_chunks_waiter *)want;
    pthread_mutex_lock(&w->lock);
    w->woken = 1;
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->lock);
}

void sgz_chunks_waiter_init(sgz_chunks_waiter *w)
{
    memset(w, 0, sizeof *w);
    w->want.ready = ready;
    pthread_mutex_init(&w->lock, NULL);
    sgz_base_cond_init(&w->cond);
}

void sgz_chunks_waiter_free(sgz_chunks_waiter *w)
{
    pthread_cond_destroy(&w->cond);
    pthread_mutex_destroy(&w->lock);
}

/* Whether it was woken within the time. */
static int wait_for(sgz_chunks_waiter *w, int timeout_ms)
{
    struct timespec until = sgz_base_deadline(timeout_ms);
    pthread_mutex_lock(&w->lock);
    int late = 0;
    while (!w->woken && !late)
        late = pthread_cond_timedwait(&w->cond, &w->lock, &until) != 0;
    int woken = w->woken;
    pthread_mutex_unlock(&w->lock);
    return woken;
}

sgz_status sgz_chunks_waiter_read(sgz_chunks *c, sgz_chunks_waiter *w, uint8_t *out,
                                  int timeout_ms, int *again, sgz_error *err)
{
    *again = 1;
    for (;;) {
        if (w->parked && !wait_for(w, timeout_ms))
            return SGZ_OK;
        w->woken = 0;
        sgz_status st = sgz_chunks_read(c, &w->want, out, &w->parked, err);
        if (!w->parked) {
            *again = 0;
            return st;
        }
    }
}

void sgz_chunks_waiter_cancel(sgz_chunks *c, sgz_chunks_waiter *w)
{
    if (!w->parked)
        return;
    /* When it is too late to give it up, it is being woken: only a moment. */
    if (!sgz_chunks_cancel(c, &w->want))
        while (!wait_for(w, 1000))
            ;
    w->parked = 0;
}
