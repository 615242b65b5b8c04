#include "read/pieces.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "read/chunk.h"

#define THREADS_MAX 256

typedef struct {
    const sgz_codecs *codecs;
    const sgz_spans *spans;
    const sgz_read_piece *pieces;
    size_t count;
    int verify;
    atomic_size_t next;
    atomic_int failed;
    pthread_mutex_t lock;
    size_t error_at; /* the piece that err is about */
    sgz_status status;
    sgz_error *err;
} job;

static void report(job *j, size_t at, sgz_status st, const sgz_error *err)
{
    atomic_store(&j->failed, 1);
    pthread_mutex_lock(&j->lock);
    if (!j->status || at < j->error_at) {
        j->status = st;
        j->error_at = at;
        if (j->err)
            *j->err = *err;
    }
    pthread_mutex_unlock(&j->lock);
}

static void *work(void *arg)
{
    job *j = arg;
    sgz_reader r;
    sgz_error err;
    const sgz_blob *blob = NULL;
    memset(&r, 0, sizeof r);
    while (!atomic_load(&j->failed)) {
        size_t i = atomic_fetch_add(&j->next, 1);
        if (i >= j->count)
            break;
        const sgz_read_piece *p = &j->pieces[i];
        sgz_status st = SGZ_OK;
        if (p->blob != blob) {
            sgz_read_reader_free(&r);
            st = sgz_read_reader_init(&r, j->codecs, j->spans, p->blob, &err);
            blob = st ? NULL : p->blob;
        }
        if (!st)
            st = sgz_read_chunk(&r, p->span, j->verify, p->from, p->len, p->out, &err);
        if (st)
            report(j, i, st, &err);
    }
    sgz_read_reader_free(&r);
    return NULL;
}

sgz_status sgz_read_pieces(const sgz_codecs *codecs, const sgz_spans *spans,
                           const sgz_read_piece *pieces, size_t count, int verify,
                           int threads, sgz_error *err)
{
    job j = {.codecs = codecs, .spans = spans, .pieces = pieces, .count = count,
             .verify = verify, .err = err};
    pthread_t ids[THREADS_MAX];
    int started = 0;
    pthread_mutex_init(&j.lock, NULL);
    if (threads > THREADS_MAX)
        threads = THREADS_MAX;
    if ((uint64_t)threads > count)
        threads = (int)count;
    while (started + 1 < threads && !pthread_create(&ids[started], NULL, work, &j))
        started++;
    work(&j);
    for (int i = 0; i < started; i++)
        pthread_join(ids[i], NULL);
    pthread_mutex_destroy(&j.lock);
    return j.status;
}
