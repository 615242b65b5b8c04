/* The TOC of zstd:chunked, written while the tar goes by where its dialect lets that be, and how such
 * a blob ends: TOC, tar-split and footers, in skippable frames. */
#ifndef SGZ_WRITE_CHUNKED_END_H
#define SGZ_WRITE_CHUNKED_END_H

#include "toc/kept.h"
#include "write/frame.h"
#include "write/split.h"

typedef struct {
    sgz_write_frame frame;
    sgz_sha256 json_sha;
    sgz_status status;      /* what failed while rows became JSON */
    sgz_error err;
    /* Of containers/storage: */
    sgz_kept_json *json;
    sgz_kept_rows rows;     /* those that are written */
    uint64_t entries, chunks;
} sgz_write_chunked;

/* To be freed also when this fails. */
sgz_status sgz_write_chunked_init(sgz_write_chunked *t, const sgz_codecs *codecs, int level,
                                  const char *dir, sgz_error *err);
void sgz_write_chunked_free(sgz_write_chunked *t);
/* Rows before `until` are complete, and written; with `lock` they are taken. */
sgz_status sgz_write_chunked_rows(sgz_write_chunked *t, sgz_toc_kept *kept, uint32_t until,
                                  pthread_mutex_t *lock, sgz_error *err);
/* Write what ends the blob and fill in the result. With `kept` and `split` as containers/storage has
 * it, and behind that the footer of stargz-snapshotter, which reads such a blob too; without, as that
 * one has it, with the rows of `toc`. SGZ_ENOTOC: the TOC would be too large; nothing was written. */
sgz_status sgz_write_chunked_finish(sgz_write_chunked *t, sgz_write_blob *w, const sgz_toc *toc,
                                    const sgz_toc_kept *kept, sgz_write_split *split,
                                    sgz_write_result *result, sgz_error *err);

#endif
