/* When a wait ends, for conditions and polls that go by CLOCK_MONOTONIC. */
#ifndef SGZ_BASE_DEADLINE_H
#define SGZ_BASE_DEADLINE_H

#include <pthread.h>
#include <time.h>

static inline struct timespec sgz_base_deadline(int timeout_ms)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    if (timeout_ms < 0)
        timeout_ms = 0;
    at.tv_sec += timeout_ms / 1000;
    at.tv_nsec += timeout_ms % 1000 * 1000000L;
    if (at.tv_nsec >= 1000000000L) {
        at.tv_sec++;
        at.tv_nsec -= 1000000000L;
    }
    return at;
}

/* A condition whose waits end by that clock, not by the one that people set. */
static inline void sgz_base_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &clock);
    pthread_condattr_destroy(&clock);
}

#endif
