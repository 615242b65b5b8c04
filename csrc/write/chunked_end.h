/* How a blob of zstd:chunked ends: TOC, tar-split and footers, in skippable frames. */
#ifndef SGZ_WRITE_CHUNKED_END_H
#define SGZ_WRITE_CHUNKED_END_H

#include "toc/kept.h"
#include "write/blob_writer.h"
#include "write/split.h"

/* Write it and fill in the result. With `kept` and `split` as containers/storage has it, and behind
 * that the footer of stargz-snapshotter, which reads such a blob too; without, as that one has it. */
sgz_status sgz_write_chunked_finish(sgz_write_blob *w, const sgz_toc *toc,
                                    const sgz_toc_kept *kept, sgz_write_split *split, int level,
                                    sgz_write_result *result, sgz_error *err);

#endif
