/* What became of entries: those that failed, and the list of those that are there. */
#include "extract/worker.h"

#include <string.h>

/* Kept sorted by the place of the entry, so that the list does not depend on the threads. */
sgz_status sgz_extract_tell(sgz_extract_failures *f, uint32_t layer, uint32_t row,
                            const sgz_error *err)
{
    int damaged = err->code == SGZ_EDATA || err->code == SGZ_EDIGEST || err->code == SGZ_ETOC;
    if (!damaged && err->code != SGZ_EUNSAFE && !(err->code == SGZ_EIO && err->sys_errno))
        return err->code; /* no entry's own: no memory, no source, cancelled */
    uint64_t place = (uint64_t)layer << 32 | row;
    f->count++;
    f->damaged += (uint64_t)damaged;
    size_t at = f->kept;
    while (at && f->places[at - 1] > place)
        at--;
    if (at == SGZ_EXTRACT_ERRORS)
        return SGZ_OK;
    if (f->kept < SGZ_EXTRACT_ERRORS)
        f->kept++;
    size_t moved = f->kept - 1 - at;
    memmove(&f->places[at + 1], &f->places[at], moved * sizeof *f->places);
    memmove(&f->errors[at + 1], &f->errors[at], moved * sizeof *f->errors);
    f->places[at] = place;
    f->errors[at] = *err;
    return SGZ_OK;
}

int sgz_extract_go_on(struct sgz_extract *ex, uint32_t layer, uint32_t row, const sgz_error *err)
{
    sgz_status st = err->code;
    if (ex->plan.keep_going && !sgz_extract_stopped(ex)) {
        pthread_mutex_lock(&ex->job->lock);
        st = sgz_extract_tell(&ex->plan.failures, layer, row, err);
        pthread_mutex_unlock(&ex->job->lock);
    }
    if (st)
        sgz_base_job_fail(ex->job, 0, err);
    return !st;
}

void sgz_extract_list(struct sgz_extract *ex, uint32_t layer, uint32_t row)
{
    if (ex->written)
        atomic_store(&ex->written[atomic_fetch_add(&ex->written_count, 1)],
                     ((uint64_t)layer << 32 | row) + 1);
}
