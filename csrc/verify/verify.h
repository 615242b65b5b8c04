/* Verification of a whole blob: every member, every digest, and the TOC against the tar.
 *
 * The distinct offsets of the TOC cut the blob into segments. Worker threads claim runs of
 * segments in order and decode each through a buffer of fixed size, hashing chunks as they
 * pass. What no chunk claims (headers, padding, replaced files) goes, in order, to one tar
 * parser; the tree that the tar makes is then compared with the TOC. Memory is bounded
 * whatever the members hold: a worker whose headers pile up waits for its turn. All waits
 * are for segments claimed earlier, so there is no deadlock.
 *
 * Of zstd:chunked all decoded bytes go to one place in order, where the tar is hashed; a layer with a
 * tar-split is compared with that there (verify/split.h), and no tree is made. */
#ifndef SGZ_VERIFY_VERIFY_H
#define SGZ_VERIFY_VERIFY_H

#include "base/job.h"
#include "base/notes.h"
#include "read/spans.h"
#include "verify/pull.h"

#define SGZ_VERIFY_ERRORS 100 /* kept in full; the rest are only counted */

typedef struct {
    const sgz_codecs *codecs;
    const sgz_spans *spans;   /* its end is where the TOC, or without one the footer, begins */
    const sgz_blob *blob;
    int64_t toc_end;          /* where the TOC's members end (the footer); spans->end: no TOC */
    int64_t json_size;        /* of the TOC's JSON */
    int threads;
    int size_only;            /* decode and count bytes; hash and compare nothing */
    /* Of zstd:chunked: */
    int whole;                /* also hash the tar as a whole */
    sgz_toc_frame toc;     /* where the JSON is */
    sgz_toc_frame split;   /* and the tar-split whose digest is in it: it is compared with the tar,
                                 and the TOC with headers, as containers/storage does */
} sgz_verify_args;

typedef struct {
    uint64_t files;           /* regular files */
    uint64_t chunks;          /* chunks whose bytes were all there, and their digest right */
    uint64_t bytes;           /* decoded, of the whole blob */
    int has_diff_id;          /* the tar's sha256 is known */
    uint8_t diff_id[32];
    uint64_t error_count;     /* all errors */
    sgz_notes notes;          /* on the tar's headers */
    size_t kept;              /* errors in `errors`, in blob order */
    sgz_error errors[SGZ_VERIFY_ERRORS];
} sgz_verify_result;

typedef struct sgz_verify sgz_verify;

/* Start the job's threads; its progress is in compressed bytes. args is copied, what it points at
 * is not. */
sgz_status sgz_verify_start(sgz_verify **verify, sgz_base_job *job, const sgz_verify_args *args,
                            sgz_error *err);
/* Join the threads, compare the trees, fill *result and free everything. Fails only when
 * verification itself could not go on (memory, input errors, cancelled). */
sgz_status sgz_verify_finish(sgz_verify *verify, sgz_verify_result *result, sgz_error *err);

#endif
