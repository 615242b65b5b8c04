/* Where the bytes of NEW go: through the ring to the sink, or to the spool until NEW is right. */
#include "patch/internal.h"

#include "base/file.h"

static sgz_status too_large(const sgz_patch_maker *m, int64_t size, int64_t max, sgz_error *err)
{
    return sgz_base_fail(err, SGZ_EPATCH, m->reader->offset, NULL, 0,
                         "it makes a layer of %s%lld bytes, more than the %lld that it may; "
                         "max_size (--max-size SIZE) allows more",
                         size < m->head.new_size ? "at least " : "", (long long)size,
                         (long long)max);
}

/* How large NEW may become, by what is known so far. */
static int64_t largest(const sgz_patch_maker *m)
{
    int64_t max = m->max_size;
    if (max)
        return max;
    if (__builtin_mul_overflow(m->head.base_size, SGZ_PATCH_NEW_TIMES, &max) ||
        __builtin_add_overflow(max, m->inflated, &max))
        return INT64_MAX;
    return max > SGZ_PATCH_NEW_FREE ? max : SGZ_PATCH_NEW_FREE;
}

sgz_status sgz_patch_check_size(const sgz_patch_maker *m, sgz_error *err)
{
    if (m->max_size && m->head.new_size > m->max_size)
        return too_large(m, m->head.new_size, m->max_size, err);
    return SGZ_OK;
}

sgz_status sgz_patch_advance(sgz_patch_maker *m, uint64_t len, sgz_error *err)
{
    int64_t max = largest(m);
    if (m->position > max || len > (uint64_t)(max - m->position))
        return too_large(m, m->position + (int64_t)len, max, err);
    m->position += (int64_t)len;
    return SGZ_OK;
}

sgz_status sgz_patch_emit(sgz_patch_maker *m, const uint8_t *data, size_t len, sgz_error *err)
{
    if (len > (uint64_t)(m->head.new_size - m->position) ||
        (!m->in_toc && len > sgz_patch_space(m)))
        return sgz_patch_fail(m->reader, err, "more comes out than the patch announced");
    sgz_status status = sgz_patch_advance(m, len, err);
    return status ? status : sgz_patch_ring_append(&m->ring, data, len, err);
}

uint64_t sgz_patch_space(const sgz_patch_maker *m)
{
    int64_t end = m->head.toc_json_size ? m->head.new_toc_offset : m->head.new_size;
    return (uint64_t)(end - m->position);
}

sgz_status sgz_patch_write_new(void *arg, const uint8_t *data, size_t len, sgz_error *err)
{
    sgz_patch_apply *a = arg;
    size_t now = len;
    sgz_status status = SGZ_OK;
    if (a->spool >= 0) {
        int64_t left = a->hold > a->written ? a->hold - a->written : 0;
        now = (uint64_t)left < len ? (size_t)left : len;
    }
    if (now)
        status = sgz_io_sink_write(a->sink, data, now, err);
    if (!status && now < len) {
        int64_t at = a->written + (int64_t)now - a->hold;
        int bad = sgz_base_write_all(a->spool, data + now, len - now, at);
        if (bad)
            status = sgz_base_fail_errno(err, -bad, "writing a temporary file failed", NULL, 0);
    }
    a->written += (int64_t)len;
    return status;
}

/* NEW is right: send what was held back. */
sgz_status sgz_patch_release_held(sgz_patch_apply *a, sgz_error *err)
{
    sgz_blob held = {.fd = a->spool, .size = a->written - a->hold};
    for (int64_t at = 0; a->spool >= 0 && at < held.size;) {
        size_t n = SGZ_RING_SLAB;
        if (sgz_base_job_stopped(a->maker.ring.job))
            return SGZ_ECANCELLED;
        n = (uint64_t)(held.size - at) < n ? (size_t)(held.size - at) : n;
        sgz_status status = sgz_codec_blob_read(&held, at, a->maker.ring.memory, n, err);
        if (!status)
            status = sgz_io_sink_write(a->sink, a->maker.ring.memory, n, err);
        if (status)
            return status;
        at += (int64_t)n;
    }
    return SGZ_OK;
}
