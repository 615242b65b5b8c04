/* What the threads of a walk share: the first error, and whether to stop. */
#include "pack/walk_internal.h"

sgz_status sgz_pack_walk_fail(sgz_pack_walk_state *s, const sgz_error *error)
{
    pthread_mutex_lock(&s->lock);
    if (!s->failed)
        s->error = *error;
    __atomic_store_n(&s->failed, 1, __ATOMIC_RELAXED);
    pthread_cond_broadcast(&s->wake);
    pthread_mutex_unlock(&s->lock);
    return error->code;
}

int sgz_pack_walk_stopped(const sgz_pack_walk_state *s)
{
    return __atomic_load_n(&s->failed, __ATOMIC_RELAXED) ||
           (s->options->stop && *s->options->stop);
}
