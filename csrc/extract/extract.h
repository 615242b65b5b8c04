/* A layer's tree, written below a directory by a pool of threads.
 *
 * Safe against the archive and against other processes that change the directory while it
 * is written: see base/beneath.h, and the order in extract/extract.c. A file is complete or
 * absent: it is written under a temporary name, verified, given its metadata and then renamed. */
#ifndef SGZ_EXTRACT_EXTRACT_H
#define SGZ_EXTRACT_EXTRACT_H

#include "base/job.h"
#include "codec/decode.h"
#include "toc/toc.h"

enum { SGZ_XATTRS_NONE, SGZ_XATTRS_USER, SGZ_XATTRS_ALL };

typedef struct {
    const sgz_toc *toc;       /* parsed and checked; not changed while extracting */
    const sgz_codecs *codecs;
    const sgz_blob *blob;
    int64_t data_end;         /* blob offset where file data ends (the TOC's, or the footer's) */
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
    uint64_t unverified;      /* of them without any digest in the TOC */
    uint64_t devices, setid;  /* entries left out; entries that lost the bits */
    uint64_t xattrs;          /* xattrs left out by the option */
    uint64_t xattrs_failed;   /* xattrs that the file system or the kernel refused */
} sgz_extract_result;

typedef struct sgz_extract sgz_extract;

/* The options are copied, what they point to is not. NULL: no memory. */
sgz_extract *sgz_extract_new(const sgz_extract_options *options);

/* Extract only this entry, and all below it if it is a directory. Before start, any
 * number of times; never: the whole layer, without the landmarks. */
sgz_status sgz_extract_select(sgz_extract *ex, const char *name, size_t len, sgz_error *err);

/* Lay out the work and start the job's threads; its progress is in bytes of contents. Nothing is
 * written when it fails: a selected name that is not there is SGZ_EIO with ENOENT. What is not
 * complete when the job is cancelled will be removed. */
sgz_status sgz_extract_start(sgz_extract *ex, sgz_base_job *job, sgz_error *err);

/* After start: wait to the end, and tell how it went. */
sgz_status sgz_extract_finish(sgz_extract *ex, sgz_extract_result *result, sgz_error *err);

void sgz_extract_free(sgz_extract *ex);

#endif
