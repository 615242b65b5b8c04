/* Bytes on their way: one thread fills slabs, others hash and write them meanwhile. */
#ifndef SGZ_PATCH_RING_H
#define SGZ_PATCH_RING_H

#include "base/job.h"
#include "codec/codecs.h"

#define SGZ_RING_SLABS 8
#define SGZ_RING_SLAB ((size_t)256 << 10) /* read, hashed and written while the cache has it */

typedef struct {
    const sgz_codecs *codecs;
    sgz_sha256 sha;
    /* Writes one slab; NULL only hashes. */
    sgz_status (*write)(void *arg, const uint8_t *data, size_t len, sgz_error *err);
    void *arg;
    int alone;                  /* no other threads: what fills a slab also hashes and writes it */

    uint8_t *memory;
    size_t lens[SGZ_RING_SLABS];
    size_t open;                /* bytes in the slab that is being filled */

    sgz_base_job *job;          /* its lock is that of everything below; bytes hashed are done */
    uint64_t filled, hashed, written; /* slabs */
    int ended;                  /* no more slabs will come */
} sgz_patch_ring;

sgz_status sgz_patch_ring_init(sgz_patch_ring *ring, const sgz_codecs *codecs,
                               sgz_base_job *job, sgz_error *err);
void sgz_patch_ring_free(sgz_patch_ring *ring);

/* For the thread that fills. Room for bytes that come next, at least one; SGZ_ECANCELLED once
 * the stop flag is set. */
sgz_status sgz_patch_ring_room(sgz_patch_ring *ring, uint8_t **at, size_t *room, sgz_error *err);
/* `len` bytes were put there. */
sgz_status sgz_patch_ring_put(sgz_patch_ring *ring, size_t len, sgz_error *err);
/* The same for bytes that are elsewhere. */
sgz_status sgz_patch_ring_append(sgz_patch_ring *ring, const uint8_t *data, size_t len,
                                 sgz_error *err);
/* Have what was put so far hashed and written, without waiting for more or for that. */
sgz_status sgz_patch_ring_flush(sgz_patch_ring *ring, sgz_error *err);
/* Wait until everything put so far was hashed and written; the digest of it, and another begins. */
sgz_status sgz_patch_ring_drain(sgz_patch_ring *ring, uint8_t digest[32], sgz_error *err);
/* No more will come: hash and write threads end. */
void sgz_patch_ring_end(sgz_patch_ring *ring);

/* For the other threads: until the end. */
void sgz_patch_ring_hash(sgz_patch_ring *ring);
sgz_status sgz_patch_ring_write(sgz_patch_ring *ring, sgz_error *err);

#endif
