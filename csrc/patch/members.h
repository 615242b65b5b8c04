/* All gzip members of a blob: where they are, their digests, and whether the engine remakes
 * them.
 *
 * The distinct offsets of the TOC cut the blob into segments, each of whole members. Worker
 * threads claim runs of segments (or of members to prove) in order. After an error nothing is
 * claimed, but what was claimed before it is finished: so the first error in the blob is the
 * one that is told, whatever the threads. */
#ifndef SGZ_PATCH_MEMBERS_H
#define SGZ_PATCH_MEMBERS_H

#include "base/job.h"
#include "patch/format.h"
#include "read/spans.h"

typedef struct {
    int64_t offset, size;     /* in the blob */
    uint64_t content;         /* bytes that it inflates to */
    uint8_t digest[32];       /* sha256 of the compressed bytes */
} sgz_patch_member_info;

typedef struct {
    const sgz_codecs *codecs;
    const sgz_blob *blob;
    int threads;
} sgz_patch_members_args;

typedef struct sgz_patch_members sgz_patch_members;

/* Decode every member of [0, blob size): of the chunks, up to spans->end; of the TOC, if there
 * is one, up to toc_end; and the footer. Each chunk must have its digest, if the TOC gives one:
 * SGZ_EDIGEST names the entry. `chunks` gets the sha256 of every span, 32 bytes each. Starts
 * the job's threads, whose progress is in compressed bytes; what the arguments point at must
 * stay. */
sgz_status sgz_patch_members_walk(sgz_patch_members **members, sgz_base_job *job,
                                  const sgz_patch_members_args *args, const sgz_spans *spans,
                                  int64_t toc_end, uint8_t *chunks, sgz_error *err);

/* A member to prove, and the parts of its contents that are wanted (gaps[first_gap] on). */
typedef struct {
    int64_t offset, size;
    uint64_t content;
    uint64_t first_gap, gap_count;
} sgz_patch_proof;

typedef struct {
    uint64_t start, len;      /* in the contents */
    uint64_t to;              /* where in `literals` they go */
} sgz_patch_proof_gap;

/* made[i] becomes 1 where compressing the contents of proofs[i] at `level` gives the bytes that
 * it has in the blob, else 0; `literals` gets the gaps of those with 1. The caller has checked
 * that gaps lie in the contents and in `literals`. */
sgz_status sgz_patch_members_prove(sgz_patch_members **members, sgz_base_job *job,
                                   const sgz_patch_members_args *args, int level,
                                   const sgz_patch_proof *proofs, size_t count,
                                   const sgz_patch_proof_gap *gaps, uint8_t *made,
                                   uint8_t *literals, sgz_error *err);

/* Join the threads and free everything. Of a walk *found are the members in blob order,
 * malloc'ed; both may be NULL otherwise. */
sgz_status sgz_patch_members_finish(sgz_patch_members *members, sgz_patch_member_info **found,
                                    size_t *count, sgz_error *err);

#endif
