/* A want whose owner has nothing else to do than to wait for it. */
#ifndef SGZ_CHUNKS_WAIT_H
#define SGZ_CHUNKS_WAIT_H

#include <pthread.h>

#include "chunks/table.h"

typedef struct {
    sgz_chunks_want want; /* first: `ready` is given its address */
    pthread_mutex_t lock;
    pthread_cond_t cond;
    int parked, woken;
} sgz_chunks_waiter;

void sgz_chunks_waiter_init(sgz_chunks_waiter *w);
/* To be given up or read to its end before. */
void sgz_chunks_waiter_free(sgz_chunks_waiter *w);
/* Read what w->want says, waiting up to timeout_ms for it. *again is 1 when it is not there
 * yet: call this again, or sgz_chunks_waiter_cancel. */
sgz_status sgz_chunks_waiter_read(sgz_chunks *chunks, sgz_chunks_waiter *w, uint8_t *out,
                                  int timeout_ms, int *again, sgz_error *err);
void sgz_chunks_waiter_cancel(sgz_chunks *chunks, sgz_chunks_waiter *w);

#endif
