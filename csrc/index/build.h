/* One pass over an ordinary blob that makes its index: points of entry, rows, digests.
 *
 * What a stream is and where it ends is as for a conversion (io/input.h, toc/rows.h), with the same
 * errors; but every byte of the blob counts for its digest and size, and every one that it decodes to
 * for the DiffID, also what lies behind the archive. */
#ifndef SGZ_INDEX_BUILD_H
#define SGZ_INDEX_BUILD_H

#include "base/job.h"
#include "index/index.h"
#include "io/input.h"
#include "tar/tar.h"

typedef struct {
    int64_t span_size;   /* decoded bytes between two points, or some more; at least SGZ_SPAN_MIN */
    int64_t chunk_size;  /* of files, at most */
    int64_t memory;      /* the largest window of a zstd frame; 0: as input.h has it */
    int soci;            /* points as SOCI sets them, their windows to on_point alone; digests of spans.
                            A plain tar has points too then, at multiples of span_size */
    const sgz_points *wanted; /* not NULL: the points of a gzip blob, of another program (import.h) */
    int no_digests;      /* rows without digests of chunks and files */
    int no_whole;        /* no digest of the blob, nor of the tar: zeros */
    int threads;

    /* The rest may be NULL. What is called gets `arg`; an error ends the pass. */
    void *arg;
    /* Each entry, also those that the rows go without, and where its first header block and its
     * contents begin; the same for a PAX global header. One at a time, in order. */
    sgz_status (*on_entry)(void *arg, const sgz_tar_entry *entry, int64_t begin, int64_t content,
                           sgz_error *err);
    sgz_status (*on_global)(void *arg, int64_t begin, sgz_error *err);
    /* Only with soci: each point, with the SGZ_HISTORY_MAX bytes before it, zeros in front of the
     * first. One at a time, in order, but beside the others. */
    sgz_status (*on_point)(void *arg, const sgz_point *point, const uint8_t *window,
                           sgz_error *err);
} sgz_index_build_options;

typedef struct sgz_index_build sgz_index_build;

/* NULL: no memory. source.stop, if there is one, is that of the job to come. */
sgz_index_build *sgz_index_build_new(const sgz_codecs *codecs, sgz_source source,
                                     const sgz_index_build_options *options);
/* Wait for the first bytes and see what they are. After SGZ_ECANCELLED it may be called again. The
 * caller then sees to it that codecs->zstd is loaded if *wrap asks for it. */
sgz_status sgz_index_build_peek(sgz_index_build *build, sgz_wrap *wrap, sgz_error *err);
/* Start the job's threads, after peek; its progress is in bytes of the blob. */
sgz_status sgz_index_build_start(sgz_index_build *build, sgz_base_job *job, sgz_error *err);
/* Join the threads. The index is the caller's, and was empty. */
sgz_status sgz_index_build_finish(sgz_index_build *build, sgz_index *index, sgz_error *err);
/* After finish, or where nothing was started; NULL is allowed. */
void sgz_index_build_free(sgz_index_build *build);

#endif
