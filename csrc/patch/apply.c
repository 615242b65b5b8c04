#include "patch/apply.h"

#include "patch/internal.h"

#include <stdlib.h>
#include <string.h>

/* One makes NEW, one hashes and one writes it; with fewer, the first does it all. */
#define THREADS 3

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
        status = sgz_base_fail_digest(err, -1, "BASE", 4, m->head.base_digest, digest,
                                      "the blob");
    return status;
}

static sgz_status take_frames(sgz_patch_maker *m, sgz_error *err)
{
    for (;;) {
        sgz_status status = sgz_patch_next(m->reader, err);
        if (status)
            return status;
        uint8_t type = m->reader->type;
        m->inflated += m->reader->payload_len;
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
    pthread_mutex_lock(&m->ring.job->lock);
    m->ring.write = sgz_patch_write_new;
    m->ring.arg = a;
    pthread_mutex_unlock(&m->ring.job->lock);
    status = take_frames(m, err);
    if (!status)
        status = sgz_patch_ring_drain(&m->ring, m->result.digest, err);
    if (status)
        return status;
    if (memcmp(m->result.digest, m->head.new_digest, 32))
        return sgz_base_fail_digest(err, -1, "NEW", 3, m->head.new_digest, m->result.digest,
                                    "the blob that was made");
    m->result.size = m->position;
    m->result.patch_size = m->reader->size;
    return sgz_patch_release_held(a, err);
}

/* --- threads ------------------------------------------------------------------------------- */

static sgz_status work(void *arg, int number, sgz_error *err)
{
    sgz_patch_apply *a = arg;
    sgz_patch_ring *ring = &a->maker.ring;
    int alone = ring->job->threads < THREADS;
    if (number == 0) {
        ring->alone = alone;
        sgz_status status = make(a, err);
        if (!status)
            sgz_patch_ring_end(ring);
        return status;
    }
    if (!alone && number == 1)
        sgz_patch_ring_hash(ring);
    return alone || number == 1 ? SGZ_OK : sgz_patch_ring_write(ring, err);
}

static void release(sgz_patch_apply *a)
{
    sgz_patch_maker_free(&a->maker);
    free(a);
}

sgz_status sgz_patch_apply_start(sgz_patch_apply **apply, sgz_base_job *job,
                                 const sgz_codecs *codecs, sgz_patch_reader *reader,
                                 const sgz_patch_head *head, const sgz_blob *base,
                                 const sgz_sink *sink, int spool, int64_t max_size, int threads,
                                 sgz_error *err)
{
    sgz_patch_apply *a = calloc(1, sizeof *a);
    if (!a)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
    sgz_patch_maker *m = &a->maker;
    m->codecs = codecs;
    m->reader = reader;
    m->head = *head;
    m->base = base;
    m->max_size = max_size;
    a->sink = sink;
    a->spool = spool;
    a->hold = head->new_size > HOLD_MIN ? head->new_size - HOLD_MIN : 0;
    if (head->new_toc_offset < a->hold)
        a->hold = head->new_toc_offset;
    job->total = head->base_size + head->new_size;
    sgz_status status = sgz_patch_check_size(m, err);
    if (!status)
        status = sgz_patch_ring_init(&m->ring, codecs, job, err);
    if (!status)
        status = sgz_base_job_start(job, threads == 1 ? 1 : THREADS, work, a, err);
    if (status)
        release(a);
    else
        *apply = a;
    return status;
}

sgz_status sgz_patch_apply_finish(sgz_patch_apply *a, sgz_patch_result *result, sgz_error *err)
{
    sgz_status status = sgz_base_job_join(a->maker.ring.job, err);
    *result = a->maker.result;
    release(a);
    return status;
}
