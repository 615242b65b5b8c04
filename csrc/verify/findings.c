/* What a verification finds: errors of the content are listed, others end it. */
#include "verify/internal.h"

/* Kept sorted by offset, so that the list does not depend on the threads. */
static void report_locked(sgz_verify *v, const sgz_error *err)
{
    sgz_verify_result *r = &v->result;
    r->error_count++;
    size_t at = r->kept;
    while (at && r->errors[at - 1].offset > err->offset)
        at--;
    if (at == SGZ_VERIFY_ERRORS)
        return;
    size_t moved = r->kept - at;
    if (r->kept == SGZ_VERIFY_ERRORS)
        moved--;
    else
        r->kept++;
    memmove(&r->errors[at + 1], &r->errors[at], moved * sizeof *err);
    r->errors[at] = *err;
}

void sgz_verify_report(void *arg, const sgz_error *err)
{
    sgz_verify *v = arg;
    pthread_mutex_lock(&v->job->lock);
    report_locked(v, err);
    pthread_mutex_unlock(&v->job->lock);
}

sgz_status sgz_verify_judge(sgz_verify *v, sgz_status st, const sgz_error *err)
{
    if (st == SGZ_EDATA || st == SGZ_ETAR || st == SGZ_ENOTOC || st == SGZ_ETOC
        || st == SGZ_EDIGEST) {
        sgz_verify_report(v, err);
        return SGZ_OK;
    }
    sgz_base_job_fail(v->job, 0, err);
    return st;
}

sgz_status sgz_verify_no_memory(sgz_verify *v)
{
    sgz_error err;
    sgz_base_fail(&err, SGZ_ENOMEM, -1, NULL, 0, "no memory to verify with");
    return sgz_verify_judge(v, SGZ_ENOMEM, &err);
}

int sgz_verify_check(sgz_verify *v, const sgz_entry *file, int64_t offset,
                        const uint8_t *expected, const uint8_t *actual, const char *what)
{
    if (!memcmp(expected, actual, 32))
        return 1;
    sgz_error err;
    sgz_base_fail_digest(&err, offset, v->toc->arena + file->name_off, file->name_len, expected,
                         actual, what);
    sgz_verify_report(v, &err);
    return 0;
}
