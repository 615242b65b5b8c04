/* Shared by the parts of a conversion: write/pipeline.c (who does what when), write/stages.c
 * (what they do). */
#ifndef SGZ_WRITE_INTERNAL_H
#define SGZ_WRITE_INTERNAL_H

#include "write/chunked_end.h"
#include "write/pipeline.h"

/* Slabs in flight: one being filled, one compressed by each thread, one being hashed and one
 * written, but no more than memory allows; many batches fit in one slab. */
#define SLABS_MAX 8

/* What slabs go through, in the order that keeps the longest chain moving: what frees slabs,
 * then what is done in order, then what fills every core's remaining time. */
typedef enum { STORE, PLACE, FILL, HASH_TAR, SPLIT, LIST, LOAD, SAMPLE, COMPRESS, END } sgz_write_stage;
#define STAGES (END + 1)

/* Members that one thread compresses at a time, or copies that are compressed already. */
typedef struct {
    size_t first_member, member_count;
    size_t out, out_cap, out_len;   /* in the slot's output buffer */
    int copied;                     /* in the slab's `packed` instead: nothing to do */
} sgz_write_batch;

/* A place in the pipeline: a slab, and what becomes of it. */
typedef struct {
    sgz_write_slab in;
    uint8_t *out;
    size_t out_cap;
    sgz_write_batch *batches;
    size_t batch_count, batch_cap;
    struct { size_t count, taken, done; } parts[STAGES]; /* of LOAD, SAMPLE and COMPRESS */
    int reuse;                      /* members are made of the input's tokens; */
    int doubt;                      /* and each by level 1 too */
    int last;                       /* no slab comes after it */
    int chunks_due;                 /* their digests are made with the tar's: else that of the
                                       blob is */
    int tar_beside;                 /* and it is: placing the slab hashes its tar too */
} sgz_write_slot;

struct sgz_write_pipeline {
    sgz_base_job *job;
    const sgz_codecs *codecs;
    sgz_write_filler filler;
    sgz_toc *toc;
    sgz_write_options options;
    sgz_write_blob writer;          /* DiffID, blob digest, position */
    sgz_hasher file_sha;            /* of a file of several chunks */
    sgz_sha256 tail_sha;
    sgz_write_split split;          /* of zstd:chunked */
    sgz_write_chunked chunked;
    sgz_message *messages;          /* the chunks of the slab that is hashed */
    size_t message_cap;
    sgz_hash_piece *hashed;         /* of the slab that is placed */
    size_t hashed_cap;
    uint8_t (*file_digests)[32];
    size_t file_digest_cap;
    sgz_write_result result;

    sgz_write_slot slots[SLABS_MAX];
    unsigned slot_count;
    /* With the job's lock. */
    struct {
        uint64_t next;              /* number of the slab that comes next */
        int busy;                   /* and is being done */
    } at[STAGES];                   /* not of LOAD, SAMPLE and COMPRESS */
    int filled;                     /* the last slab is */
};

static inline int sgz_write_is_zstd(const sgz_write_pipeline *c)
{
    return c->options.format >= SGZ_WRITE_CHUNKED;
}

static inline sgz_status sgz_write_no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
}

static inline sgz_entry *sgz_write_row(const sgz_write_pipeline *c, uint32_t number)
{
    return c->filler.kept ? sgz_kept_row(&c->filler.kept->rows, number) : &c->toc->rows[number];
}

/* What one thread has of its own. */
typedef struct {
    sgz_write_pipeline *c;
    sgz_deflater deflater;          /* or, of zstd, */
    sgz_framer framer;
    sgz_recoder *recoder;           /* where tokens are reused */
    sgz_inflater inflater;          /* where members are verified */
    uint8_t *scratch;               /* a member, inflated or made in another way */
    size_t scratch_cap;
    void *loader;
    size_t part;                    /* of a slab, for LOAD, SAMPLE and COMPRESS */
    struct {                        /* the member of so many zeros that was made last */
        uint8_t *out;
        size_t len, out_len;
    } zeros;
} sgz_write_worker;

/* The stages; each runs without the lock. */
typedef sgz_status sgz_write_run(sgz_write_worker *w, sgz_write_slot *s, sgz_error *err);
sgz_write_run sgz_write_fill, sgz_write_load, sgz_write_compress;
/* Whether the input's tokens are good enough: what some members take with them, and compressed. */
sgz_write_run sgz_write_sample;
/* The DiffID, and the digests of the chunks beside it. */
sgz_write_run sgz_write_hash_tar;
/* What the tar-split has of the slab. */
sgz_write_run sgz_write_split_tar;
/* Rows of a tar that is kept go into the TOC. */
sgz_write_run sgz_write_list;
/* The slab has its place in the blob: rows of the TOC, and the digests of the blob and of files that
 * have several chunks, which may lie in several slabs; with tar_beside the DiffID too: two digests
 * side by side take less than one after the other, as in codec/hasher.h. (A pack that copies the
 * Debian tree needed a sixth less processor time for that.) */
sgz_write_run sgz_write_place;
sgz_write_run sgz_write_store;
/* TOC and footer; of no slab. */
sgz_write_run sgz_write_end;

#endif
