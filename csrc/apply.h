/* Tar entries applied in order to a TOC: what the tree is once the tar was extracted.
 *
 * Used by the writer to make the TOC and by verify to check one. The rules are format
 * section 4: a later entry of the same cleaned name replaces the earlier one; a hard link
 * made to a file that is replaced later keeps the earlier contents. */
#ifndef SGZ_APPLY_H
#define SGZ_APPLY_H

#include "tar.h"
#include "toc.h"

typedef struct sgz_apply sgz_apply;
sgz_apply *sgz_apply_new(sgz_toc *toc);
void sgz_apply_free(sgz_apply *apply);

/* Add one entry: appends its row (without offsets and digests, which belong to the caller)
 * and returns its number in *row. `offset` (of the tar) is for errors. */
sgz_status sgz_apply_entry(sgz_apply *apply, const sgz_tar_entry *entry, int64_t offset,
                           uint32_t *row, sgz_error *err);
/* Append a chunk row for the file last added. */
sgz_status sgz_apply_chunk(sgz_apply *apply, uint32_t *row, sgz_error *err);
/* A row is an empty file's: it has no chunk, but a digest, that of nothing. */
void sgz_apply_empty(sgz_apply *apply, uint32_t row);
/* After the last entry: no file is used as a directory. Also counts. */
sgz_status sgz_apply_finish(sgz_apply *apply, uint64_t *bad_names, sgz_error *err);

#endif
