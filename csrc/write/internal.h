/* Shared by the parts of a conversion: write/pipeline.c (threads), write/stages.c (what they do). */
#ifndef SGZ_WRITE_INTERNAL_H
#define SGZ_WRITE_INTERNAL_H

#include "write/pipeline.h"

/* Slabs in flight: one being filled, one compressed by each thread, one being hashed and one
 * written, but no more than memory allows; many jobs fit in one slab. */
#define SLABS_MAX 8

typedef struct {
    size_t first_member, member_count;
    size_t out, out_cap, out_len;   /* in the slab's output buffer */
    int copied;                     /* in its `packed` instead: nothing to do */
} sgz_write_job;

typedef struct {
    sgz_write_slab in;
    uint8_t *out;
    size_t out_cap;
    sgz_write_job *jobs;
    size_t job_count, job_cap, jobs_taken, jobs_done;
    size_t loads_taken, loads_done;
    int chunks_due;                 /* their digests are made with the tar's: else that of the
                                       blob is */
} sgz_write_flight;

/* What one thread has of its own. */
typedef struct {
    sgz_deflater deflater;
    void *loader;
} sgz_write_worker;

struct sgz_write_pipeline {
    const sgz_codecs *codecs;
    sgz_input *input;               /* of the cutter */
    sgz_write_filler filler;
    sgz_sink *sink;
    sgz_toc *toc;
    sgz_write_options options;
    sgz_write_cutter *cutter;
    sgz_write_blob writer;          /* DiffID, blob digest, position */
    sgz_sha256 file_sha;            /* of a file of several chunks */
    sgz_sha256 tail_sha;
    sgz_message *messages;          /* the chunks of the slab that is hashed */
    size_t message_cap;

    pthread_mutex_t lock;           /* of everything below */
    pthread_cond_t changed;         /* a stage may go on */
    pthread_cond_t ended;           /* a thread has ended */
    pthread_mutex_t toc_lock;
    sgz_write_flight slabs[SLABS_MAX];
    unsigned slab_count;
    /* Sequence numbers of the next slab of each ordered stage. */
    uint64_t filled, diffed, filed, placed, written;
    int filling, diffing, filing, placing, writing, end, finishing;
    volatile int *stop;             /* set by the first error, or by cancel */
    int64_t progress;
    sgz_write_result result;
    sgz_error err;

    pthread_t *threads;
    unsigned thread_count, running;
};

static inline sgz_status sgz_write_no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
}

/* The stages; each runs without the lock. */
sgz_status sgz_write_plan_jobs(sgz_write_flight *s, sgz_error *err);
sgz_status sgz_write_run_job(sgz_write_pipeline *c, sgz_write_worker *w, sgz_write_flight *s,
                             sgz_write_job *j, sgz_error *err);
/* The DiffID, and the digests of the chunks beside it. */
sgz_status sgz_write_hash_tar(sgz_write_pipeline *c, sgz_write_flight *s, sgz_error *err);
/* The digests of files that have several chunks, which may lie in several slabs. */
sgz_status sgz_write_hash_files(sgz_write_pipeline *c, sgz_write_flight *s, sgz_error *err);
/* The slab has its place in the blob: rows of the TOC, and the blob's digest; with `tar` the
 * DiffID too: two digests side by side take the time of one, as in codec/hasher.h. (A pack that copies
 * the Debian tree needed a sixth less processor time for that.) */
sgz_status sgz_write_place_slab(sgz_write_pipeline *c, const sgz_write_flight *s, int tar,
                                sgz_error *err);
sgz_status sgz_write_store_slab(sgz_write_pipeline *c, const sgz_write_flight *s,
                                sgz_error *err);

#endif
