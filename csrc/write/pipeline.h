/* One conversion: one pass over the input, all cores, bounded memory. */
#ifndef SGZ_WRITE_PIPELINE_H
#define SGZ_WRITE_PIPELINE_H

#include "write/cut.h"
#include "write/blob_writer.h"

typedef struct {
    sgz_write_cut_options cut;
    int level;              /* 1..12 */
    int legacy;             /* google/crfs: its footer, no chunkDigest */
    int no_diff_id;         /* do without the DiffID */
    int writeback;          /* the sink is a file that will be synced: begin early */
    unsigned threads;
} sgz_write_options;

typedef struct sgz_write_pipeline sgz_write_pipeline;

/* Start the threads. `*stop` is set when they are to end, for whatever reason; input and
 * sink watch it while they wait. Everything pointed to must live until sgz_write_pipeline_finish. */
sgz_write_pipeline *sgz_write_pipeline_start(const sgz_codecs *codecs, sgz_input *input,
                                             sgz_sink *sink, sgz_toc *toc,
                                             const sgz_write_options *options,
                                             volatile int *stop, sgz_error *err);
/* The same with slabs of another filler; options->cut is not used. */
sgz_write_pipeline *sgz_write_pipeline_start_filled(const sgz_codecs *codecs,
                                                    const sgz_write_filler *filler,
                                                    sgz_sink *sink, sgz_toc *toc,
                                                    const sgz_write_options *options,
                                                    volatile int *stop, sgz_error *err);
/* Wait at most `milliseconds`; 1 when all threads have ended. *done is the progress in
 * bytes of the source. */
int sgz_write_pipeline_wait(sgz_write_pipeline *conversion, int milliseconds, int64_t *done);
/* Ask the threads to stop soon. */
void sgz_write_pipeline_cancel(sgz_write_pipeline *conversion);
/* Join the threads and free everything. */
sgz_status sgz_write_pipeline_finish(sgz_write_pipeline *conversion, sgz_write_result *result,
                                     sgz_error *err);

#endif
