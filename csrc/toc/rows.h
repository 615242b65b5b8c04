/* Tar entries applied in order to a TOC: what the tree is once the tar was extracted.
 *
 * Used by the writer to make the TOC and by verify to check one. The rules are format
 * section 4: a later entry of the same cleaned name replaces the earlier one; a hard link
 * made to a file that is replaced later keeps the earlier contents. Entries below a symlink of the
 * layer have the name of the place that it leads to (toc/place.h). Whiteouts below what is no
 * directory are left out. What tools would not agree on is refused: entries below a file, and a
 * directory with entries that something else replaces. */
#ifndef SGZ_TOC_ROWS_H
#define SGZ_TOC_ROWS_H

#include "base/notes.h"
#include "tar/stream.h"
#include "toc/limits.h"
#include "toc/toc.h"

typedef struct sgz_toc_rows sgz_toc_rows;
sgz_toc_rows *sgz_toc_rows_new(sgz_toc *toc);
void sgz_toc_rows_free(sgz_toc_rows *apply);
/* From now on texts are kept as they stand, UTF-8 or not, and told apart by their bytes: such rows
 * are not all that JSON can say. */
void sgz_toc_rows_keep_bytes(sgz_toc_rows *apply);

/* From now on an entry that no tree can hold, or that tools would not agree on, is left out with a
 * note (its row is SGZ_DROPPED), as GNU tar extracts nothing of it; not an error. */
void sgz_toc_rows_leave_out(sgz_toc_rows *apply);

/* Add one entry: appends its row (without offsets and digests, which belong to the caller)
 * and returns its number in *row. `offset` (of the tar) is for errors. */
sgz_status sgz_toc_rows_entry(sgz_toc_rows *apply, const sgz_tar_entry *entry, int64_t offset,
                              uint32_t *row, sgz_error *err);
/* Append a chunk row for the file last added. */
sgz_status sgz_toc_rows_chunk(sgz_toc_rows *apply, uint32_t *row, sgz_error *err);
/* A row is an empty file's: it has no chunk, but a digest, that of nothing. */
void sgz_toc_rows_empty(sgz_toc_rows *apply, uint32_t row);
/* After the last entry. Notes are added. */
sgz_status sgz_toc_rows_finish(sgz_toc_rows *apply, sgz_notes *notes, sgz_error *err);

/* Whether a name is that of a TOC (2) or a landmark (1) at the root, or below one. */
int sgz_toc_rows_marker(const char *name, size_t len);
/* Whether an entry is what the format itself puts there, and no file of a user's. */
int sgz_toc_rows_is_own(const sgz_tar_entry *entry);
/* What is to be noted when an entry of such a name is left out: nothing of what an earlier
 * conversion left. */
unsigned sgz_toc_rows_marker_note(const sgz_tar_entry *entry, int marker);

/* What is to be noted of bytes behind a tar's end: nothing of the TOC of a layer that was converted
 * without loss. */
unsigned sgz_toc_rows_behind_note(const sgz_tar_stream *tar);

/* What a TOC of the rows will take once it was read (toc/limits.h): at least that. */
sgz_toc_weight sgz_toc_weigh(const sgz_toc *toc);
/* Whether a TOC that was written as `json` bytes will be opened again: the same limits. */
sgz_status sgz_toc_check_size(const sgz_toc *toc, uint64_t json, sgz_error *err);

#endif
