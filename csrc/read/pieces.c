#include "read/pieces.h"

#include <string.h>

#include "base/job.h"
#include "read/chunk.h"

typedef struct {
    const sgz_codecs *codecs;
    const sgz_spans *spans;
    const sgz_read_piece *pieces;
    size_t count;
    int verify;
    atomic_size_t next;
    sgz_base_job job;
} task;

/* The next pieces: those of one entry point, which one decoder passes. */
static int claim(task *t, size_t *first, size_t *last)
{
    size_t i = atomic_load(&t->next), end;
    do {
        if (i >= t->count)
            return 0;
        const sgz_entry *e = sgz_read_span_row(t->spans, t->pieces[i].span);
        for (end = i + 1; end < t->count; end++)
            if (sgz_read_span_row(t->spans, t->pieces[end].span)->offset != e->offset ||
                t->pieces[end].blob != t->pieces[i].blob)
                break;
    } while (!atomic_compare_exchange_weak(&t->next, &i, end));
    *first = i;
    *last = end;
    return 1;
}

static sgz_status work(void *arg, int number, sgz_error *err)
{
    task *t = arg;
    sgz_reader r;
    const sgz_blob *blob = NULL;
    size_t i = 0, last = 0;
    (void)number;
    memset(&r, 0, sizeof r);
    for (; (i < last || claim(t, &i, &last)) && !sgz_base_job_passed(&t->job, i); i++) {
        const sgz_read_piece *p = &t->pieces[i];
        sgz_status st = SGZ_OK;
        if (p->blob != blob) {
            sgz_read_reader_free(&r);
            st = sgz_read_reader_init(&r, t->codecs, t->spans, p->blob, err);
            blob = st ? NULL : p->blob;
            r.decoder.stop = &t->job.stop;
        }
        if (!st)
            st = sgz_read_chunk(&r, p->span, t->verify, p->from, p->len, p->out, err);
        if (st) /* what is interrupted ends them all */
            sgz_base_job_fail(&t->job, st == SGZ_ECANCELLED ? 0 : i, err);
    }
    sgz_read_reader_free(&r);
    return SGZ_OK;
}

sgz_status sgz_read_pieces(const sgz_codecs *codecs, const sgz_spans *spans,
                           const sgz_read_piece *pieces, size_t count, int verify,
                           int threads, sgz_error *err)
{
    task t = {.codecs = codecs, .spans = spans, .pieces = pieces, .count = count,
              .verify = verify};
    sgz_error own;
    sgz_base_job_init(&t.job);
    if ((uint64_t)threads > count)
        threads = (int)count;
    if (threads > 1) /* without them this thread does it all */
        sgz_base_job_start(&t.job, threads - 1, work, &t, &own);
    work(&t, threads, &own);
    sgz_status status = sgz_base_job_join(&t.job, err);
    sgz_base_job_free(&t.job);
    return status;
}
