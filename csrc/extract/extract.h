/* The tree of a layer, or of several, written below a directory by a pool of threads.
 *
 * Safe against the archive and against other processes that change the directory while it
 * is written: see base/beneath.h, and the order in extract/extract.c. A file is complete or
 * absent: it is written under a temporary name, verified, given its metadata and then renamed. */
#ifndef SGZ_EXTRACT_EXTRACT_H
#define SGZ_EXTRACT_EXTRACT_H

#include "base/job.h"
#include "codec/decode.h"
#include "read/claims.h"
#include "toc/toc.h"

enum { SGZ_XATTRS_NONE, SGZ_XATTRS_USER, SGZ_XATTRS_ALL };

/* How many failures are listed. */
#define SGZ_EXTRACT_ERRORS 100

typedef struct {
    const sgz_toc *toc;       /* parsed and checked; not changed while extracting */
    const sgz_blob *blob;
    const sgz_points *points; /* where the blob can be entered, or NULL: see codec/decode.h */
    sgz_read_claims *claims;  /* that are to be checked, or NULL: see read/claims.h */
    int64_t data_end;         /* blob offset where file data ends (the TOC's, or the footer's) */
    const uint8_t *wanted;    /* by row: 1 for entries that are written; a directory's own stands
                                 for its metadata alone. NULL, for a lone layer: all, without the
                                 landmarks. Several layers have no name twice. */
} sgz_extract_layer;

/* A directory that no layer lists, and that is made although nothing is written into it. */
typedef struct {
    const char *path; /* clean; not terminated */
    uint32_t len;
} sgz_extract_directory;

typedef struct {
    const sgz_extract_layer *layers;
    uint32_t layer_count;
    const sgz_extract_directory *empty;
    uint32_t empty_count;
    const sgz_codecs *codecs;
    uint32_t strip;           /* components that names lose in front; those with no more are left
                                 out, and of several that come to one name the last one stays */
    int keep_going;           /* entries that fail are left out and told */
    int list;                 /* keep what sgz_extract_next_written tells */
    int root;                 /* descriptor of the target directory, open for reading */
    int threads;
    int verify;               /* check digests */
    int same_owner;           /* set uid and gid */
    int devices;              /* make character and block devices */
    int setid;                /* keep set-uid and set-gid bits */
    int xattrs;               /* SGZ_XATTRS_*; USER leaves out user.overlay.* too */
    int openat2;              /* 0: walk paths by component (tests) */
} sgz_extract_options;

typedef struct {
    uint64_t files, bytes;    /* regular files written, hard links not counted */
    uint64_t directories, symlinks, hardlinks, specials; /* the others written */
    uint64_t unverified;      /* of the files, without any digest in the TOC */
    uint64_t devices, setid;  /* entries left out; entries that lost the bits */
    uint64_t xattrs;          /* xattrs left out by the option */
    uint64_t xattrs_failed;   /* xattrs that the file system or the kernel refused */
} sgz_extract_result;

typedef struct sgz_extract sgz_extract;

/* The options are copied, what they point to is not. NULL: no memory. */
sgz_extract *sgz_extract_new(const sgz_extract_options *options);

/* Lay out the work and start the job's threads; its progress is in bytes of contents. Nothing is
 * written when it fails. What is not complete when the job is cancelled will be removed. */
sgz_status sgz_extract_start(sgz_extract *ex, sgz_base_job *job, sgz_error *err);

/* After start: wait to the end, and tell how it went. */
sgz_status sgz_extract_finish(sgz_extract *ex, sgz_extract_result *result, sgz_error *err);

/* After finish: what failed and was gone on after, *kept of *count, in the order of their places
 * (layer << 32 | row). *damaged of all are contents that are not what they should be. */
const sgz_error *sgz_extract_errors(const sgz_extract *ex, const uint64_t **places, size_t *kept,
                                    uint64_t *count, uint64_t *damaged);

/* After start, by one thread: the entries in the order in which they are there; 0: none for now,
 * or after finish no more. *at begins as 0. */
int sgz_extract_next_written(const sgz_extract *ex, size_t *at, uint32_t *layer, uint32_t *row);

void sgz_extract_free(sgz_extract *ex);

#endif
