/* From slabs to a blob: one pass over the source, all cores, bounded memory. */
#ifndef SGZ_WRITE_PIPELINE_H
#define SGZ_WRITE_PIPELINE_H

#include "base/job.h"
#include "write/blob_writer.h"
#include "write/filler.h"

typedef enum {
    SGZ_WRITE_ESTARGZ,
    SGZ_WRITE_STARGZ,          /* google/crfs: its footer, no chunkDigest */
    SGZ_WRITE_EXTERNAL,        /* the TOC goes to a sink of its own */
    SGZ_WRITE_CHUNKED,         /* zstd:chunked of containers/storage */
    SGZ_WRITE_CHUNKED_STARGZ   /* of stargz-snapshotter */
} sgz_write_format;

typedef struct {
    sgz_write_format format;
    int level;              /* 1..12, of zstd 1..19 */
    int reuse;              /* of gzip: where the slabs have tokens, members are made of these */
    int verify;             /* of gzip: inflate each member that is made, and compare */
    const sgz_sink *toc_sink;   /* of an external TOC; else NULL */
    int no_diff_id;         /* do without the DiffID */
    int writeback;          /* the sink is a file that will be synced: begin early */
    int threads;
    const char *dir;        /* for temporary files, of zstd:chunked */
} sgz_write_options;

typedef struct sgz_write_pipeline sgz_write_pipeline;

/* Start the job's threads; its progress is in bytes of the source. Everything pointed to must
 * live until sgz_write_pipeline_finish. */
sgz_status sgz_write_pipeline_start(sgz_write_pipeline **pipeline, sgz_base_job *job,
                                    const sgz_codecs *codecs, const sgz_write_filler *filler,
                                    const sgz_sink *sink, sgz_toc *toc,
                                    const sgz_write_options *options, sgz_error *err);
/* Join the threads and free everything. */
sgz_status sgz_write_pipeline_finish(sgz_write_pipeline *pipeline, sgz_write_result *result,
                                     sgz_error *err);

#endif
