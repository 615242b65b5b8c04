#include "patch/apply.h"

#include "base/deadline.h"
#include "patch/internal.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A pipe gets at least a footer less than NEW before NEW's digest is right. */
#define HOLD_MIN 51

/* --- making -------------------------------------------------------------------------------- */

static sgz_status check_base(sgz_patch_maker *m, sgz_error *err)
{
    uint8_t digest[32];
    sgz_status status = SGZ_OK;
    for (int64_t at = 0; at < m->head.base_size && !status;) {
        uint8_t *to;
        size_t n;
        status = sgz_patch_ring_room(&m->ring, &to, &n, err);
        if (status)
            return status;
        if (n > (uint64_t)(m->head.base_size - at))
            n = (size_t)(m->head.base_size - at);
        status = sgz_codec_blob_read(m->base, at, to, n, err);
        if (!status)
            status = sgz_patch_ring_put(&m->ring, n, err);
        at += (int64_t)n;
    }
    if (!status)
        status = sgz_patch_ring_drain(&m->ring, digest, err);
    if (!status && memcmp(digest, m->head.base_digest, 32))
        status = sgz_base_fail_digest(err, -1, "BASE", 4, m->head.base_digest, digest, "BASE");
    return status;
}

static sgz_status take_frames(sgz_patch_maker *m, sgz_error *err)
{
    for (;;) {
        sgz_status status = sgz_patch_next(m->reader, err);
        if (status)
            return status;
        uint8_t type = m->reader->type;
        if (m->in_toc && type != 'T' && type != 'E')
            return sgz_patch_fail(m->reader, err, "a frame %c after the TOC", type);
        if (type == 'D') {
            m->result.received += (int64_t)m->reader->payload_len;
            status = sgz_patch_emit(m, m->reader->payload, m->reader->payload_len, err);
        } else if (type == 'M') {
            status = sgz_patch_apply_members(m, err);
        } else if (type == 'T') {
            status = sgz_patch_apply_toc(m, err);
        } else if (type == 'E') {
            if (m->head.toc_json_size)
                status = sgz_patch_apply_end(m, err);
            if (!status && m->position != m->head.new_size)
                status = sgz_patch_fail(m->reader, err,
                                        "less comes out than the patch announced");
            return status;
        } else {
            status = sgz_patch_fail(m->reader, err, "a second head");
        }
        if (status)
            return status;
    }
}

static sgz_status make(sgz_patch_apply *a, sgz_error *err)
{
    sgz_patch_maker *m = &a->maker;
    sgz_status status = check_base(m, err);
    if (status)
        return status;
    pthread_mutex_lock(&m->ring.lock);
    m->ring.write = sgz_patch_write_new;
    m->ring.arg = a;
    pthread_mutex_unlock(&m->ring.lock);
    status = take_frames(m, err);
    if (!status)
        status = sgz_patch_ring_drain(&m->ring, m->result.digest, err);
    if (status)
        return status;
    if (memcmp(m->result.digest, m->head.new_digest, 32))
        return sgz_base_fail_digest(err, -1, "NEW", 3, m->head.new_digest, m->result.digest,
                                    "NEW");
    m->result.size = m->position;
    m->result.patch_size = m->reader->size;
    return sgz_patch_release_held(a, err);
}

/* --- threads ------------------------------------------------------------------------------- */

static void thread_ended(sgz_patch_apply *a)
{
    pthread_mutex_lock(&a->maker.ring.lock);
    a->running--;
    pthread_cond_broadcast(&a->ended);
    pthread_mutex_unlock(&a->maker.ring.lock);
}

static void *run_make(void *arg)
{
    sgz_patch_apply *a = arg;
    sgz_error err;
    if (make(a, &err))
        sgz_patch_ring_stop(&a->maker.ring, &err);
    sgz_patch_ring_end(&a->maker.ring);
    thread_ended(a);
    return NULL;
}

static void *run_hash(void *arg)
{
    sgz_patch_apply *a = arg;
    sgz_patch_ring_hash(&a->maker.ring);
    thread_ended(a);
    return NULL;
}

static void *run_write(void *arg)
{
    sgz_patch_apply *a = arg;
    sgz_patch_ring_write(&a->maker.ring);
    thread_ended(a);
    return NULL;
}

static void release(sgz_patch_apply *a)
{
    pthread_cond_destroy(&a->ended);
    sgz_patch_maker_free(&a->maker);
    free(a);
}

static int start_threads(sgz_patch_apply *a)
{
    /* The one that makes is last: it begins when there is somebody to hash and to write. */
    static void *(*const all[SGZ_PATCH_THREADS])(void *) = {run_hash, run_write, run_make};
    unsigned first = a->maker.ring.alone ? SGZ_PATCH_THREADS - 1 : 0;
    int failed = 0;
    for (unsigned i = first; i < SGZ_PATCH_THREADS && !failed; i++) {
        pthread_mutex_lock(&a->maker.ring.lock);
        a->running++;
        pthread_mutex_unlock(&a->maker.ring.lock);
        failed = pthread_create(&a->threads[a->thread_count], NULL, all[i], a);
        if (failed)
            thread_ended(a);
        else
            a->thread_count++;
    }
    return failed;
}

sgz_patch_apply *sgz_patch_apply_start(const sgz_codecs *codecs, sgz_patch_reader *reader,
                                       const sgz_patch_head *head, const sgz_blob *base,
                                       const sgz_sink *sink, int spool, unsigned threads,
                                       sgz_base_stop *stop, sgz_error *err)
{
    sgz_patch_apply *a = calloc(1, sizeof *a);
    if (!a) {
        sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
        return NULL;
    }
    sgz_patch_maker *m = &a->maker;
    m->codecs = codecs;
    m->reader = reader;
    m->head = *head;
    m->base = base;
    a->sink = sink;
    a->spool = spool;
    a->hold = head->new_size > HOLD_MIN ? head->new_size - HOLD_MIN : 0;
    if (head->new_toc_offset < a->hold)
        a->hold = head->new_toc_offset;
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&a->ended, &clock);
    pthread_condattr_destroy(&clock);
    if (sgz_patch_ring_init(&m->ring, codecs, stop, err)) {
        release(a);
        return NULL;
    }
    m->ring.alone = threads == 1;
    /* Signals are for the calling thread, which can act on them. */
    sigset_t full, before;
    sigfillset(&full);
    pthread_sigmask(SIG_SETMASK, &full, &before);
    int failed = start_threads(a);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no thread can be started");
        sgz_patch_ring_end(&m->ring);
        for (unsigned i = 0; i < a->thread_count; i++)
            pthread_join(a->threads[i], NULL);
        release(a);
        return NULL;
    }
    return a;
}

int sgz_patch_apply_wait(sgz_patch_apply *a, int milliseconds, int64_t *done)
{
    struct timespec until = sgz_base_deadline(milliseconds);
    pthread_mutex_lock(&a->maker.ring.lock);
    while (a->running && !pthread_cond_timedwait(&a->ended, &a->maker.ring.lock, &until))
        ;
    int ended = !a->running;
    *done = a->maker.ring.done;
    pthread_mutex_unlock(&a->maker.ring.lock);
    return ended;
}

void sgz_patch_apply_cancel(sgz_patch_apply *a)
{
    sgz_error err;
    sgz_base_fail(&err, SGZ_ECANCELLED, -1, NULL, 0, "cancelled");
    sgz_patch_ring_stop(&a->maker.ring, &err);
}

sgz_status sgz_patch_apply_finish(sgz_patch_apply *a, sgz_patch_result *result, sgz_error *err)
{
    for (unsigned i = 0; i < a->thread_count; i++)
        pthread_join(a->threads[i], NULL);
    sgz_status status = SGZ_OK;
    *result = a->maker.result;
    if (*a->maker.ring.stop) {
        *err = a->maker.ring.err;
        status = err->code;
    }
    release(a);
    return status;
}
