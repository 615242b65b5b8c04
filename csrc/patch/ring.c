#include "patch/ring.h"

#include "base/buffer.h"

#include <string.h>

sgz_status sgz_patch_ring_init(sgz_patch_ring *r, const sgz_codecs *codecs, sgz_base_job *job,
                               sgz_error *err)
{
    memset(r, 0, sizeof *r);
    r->codecs = codecs;
    r->job = job;
    r->memory = sgz_base_buffer_new(SGZ_RING_SLABS * SGZ_RING_SLAB);
    if (!r->memory)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
    sgz_status status = sgz_codec_sha256_new(codecs, &r->sha, err);
    if (!status)
        sgz_codec_sha256_init(codecs, &r->sha);
    return status;
}

void sgz_patch_ring_free(sgz_patch_ring *r)
{
    sgz_codec_sha256_free(r->codecs, &r->sha);
    free(r->memory);
}

static uint8_t *slab(const sgz_patch_ring *r, uint64_t number)
{
    return r->memory + number % SGZ_RING_SLABS * SGZ_RING_SLAB;
}

static sgz_status cancelled(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ECANCELLED, -1, NULL, 0, "cancelled");
}

/* --- filling ------------------------------------------------------------------------------- */

sgz_status sgz_patch_ring_room(sgz_patch_ring *r, uint8_t **at, size_t *room, sgz_error *err)
{
    if (!r->open && !r->alone) {
        pthread_mutex_lock(&r->job->lock);
        while (!sgz_base_job_stopped(r->job) && (r->filled - r->hashed == SGZ_RING_SLABS ||
                             r->filled - r->written == SGZ_RING_SLABS))
            pthread_cond_wait(&r->job->changed, &r->job->lock);
        pthread_mutex_unlock(&r->job->lock);
    }
    if (sgz_base_job_stopped(r->job))
        return cancelled(err);
    *at = slab(r, r->filled) + r->open;
    *room = SGZ_RING_SLAB - r->open;
    return SGZ_OK;
}

sgz_status sgz_patch_ring_flush(sgz_patch_ring *r, sgz_error *err)
{
    sgz_status status = SGZ_OK;
    if (!r->open)
        return SGZ_OK;
    if (r->alone) {
        sgz_codec_sha256_update(r->codecs, &r->sha, r->memory, r->open);
        if (r->write)
            status = r->write(r->arg, r->memory, r->open, err);
    }
    pthread_mutex_lock(&r->job->lock);
    if (r->alone) {
        r->job->done += (int64_t)r->open;
    } else {
        r->lens[r->filled % SGZ_RING_SLABS] = r->open;
        r->filled++;
        pthread_cond_broadcast(&r->job->changed);
    }
    pthread_mutex_unlock(&r->job->lock);
    r->open = 0;
    return status;
}

sgz_status sgz_patch_ring_put(sgz_patch_ring *r, size_t len, sgz_error *err)
{
    r->open += len;
    return r->open == SGZ_RING_SLAB ? sgz_patch_ring_flush(r, err) : SGZ_OK;
}

sgz_status sgz_patch_ring_append(sgz_patch_ring *r, const uint8_t *data, size_t len,
                                 sgz_error *err)
{
    while (len) {
        uint8_t *at = NULL;
        size_t n = 0;
        sgz_status status = sgz_patch_ring_room(r, &at, &n, err);
        if (status)
            return status;
        n = n < len ? n : len;
        memcpy(at, data, n);
        status = sgz_patch_ring_put(r, n, err);
        if (status)
            return status;
        data += n;
        len -= n;
    }
    return SGZ_OK;
}

sgz_status sgz_patch_ring_drain(sgz_patch_ring *r, uint8_t digest[32], sgz_error *err)
{
    sgz_status status = sgz_patch_ring_flush(r, err);
    if (status)
        return status;
    pthread_mutex_lock(&r->job->lock);
    while (!sgz_base_job_stopped(r->job) && (r->hashed < r->filled || r->written < r->filled))
        pthread_cond_wait(&r->job->changed, &r->job->lock);
    pthread_mutex_unlock(&r->job->lock);
    if (sgz_base_job_stopped(r->job))
        return cancelled(err);
    sgz_codec_sha256_final(r->codecs, &r->sha, digest);
    sgz_codec_sha256_init(r->codecs, &r->sha);
    return SGZ_OK;
}

void sgz_patch_ring_end(sgz_patch_ring *r)
{
    pthread_mutex_lock(&r->job->lock);
    r->ended = 1;
    pthread_cond_broadcast(&r->job->changed);
    pthread_mutex_unlock(&r->job->lock);
}

/* --- the other threads --------------------------------------------------------------------- */

/* Wait for the slab of this number; 0 when there will be none. With the lock held. */
static int wait_filled(sgz_patch_ring *r, uint64_t number)
{
    while (!sgz_base_job_stopped(r->job) && !r->ended && number == r->filled)
        pthread_cond_wait(&r->job->changed, &r->job->lock);
    return !sgz_base_job_stopped(r->job) && number < r->filled;
}

void sgz_patch_ring_hash(sgz_patch_ring *r)
{
    pthread_mutex_lock(&r->job->lock);
    while (wait_filled(r, r->hashed)) {
        size_t len = r->lens[r->hashed % SGZ_RING_SLABS];
        const uint8_t *data = slab(r, r->hashed);
        pthread_mutex_unlock(&r->job->lock);
        sgz_codec_sha256_update(r->codecs, &r->sha, data, len);
        pthread_mutex_lock(&r->job->lock);
        r->hashed++;
        r->job->done += (int64_t)len;
        pthread_cond_broadcast(&r->job->changed);
    }
    pthread_mutex_unlock(&r->job->lock);
}

sgz_status sgz_patch_ring_write(sgz_patch_ring *r, sgz_error *err)
{
    sgz_status status = SGZ_OK;
    pthread_mutex_lock(&r->job->lock);
    while (!status && wait_filled(r, r->written)) {
        size_t len = r->lens[r->written % SGZ_RING_SLABS];
        const uint8_t *data = slab(r, r->written);
        /* Set while nothing is under way, so that it can be read here. */
        sgz_status (*write)(void *, const uint8_t *, size_t, sgz_error *) = r->write;
        pthread_mutex_unlock(&r->job->lock);
        if (write)
            status = write(r->arg, data, len, err);
        pthread_mutex_lock(&r->job->lock);
        r->written += !status;
        pthread_cond_broadcast(&r->job->changed);
    }
    pthread_mutex_unlock(&r->job->lock);
    return status;
}
