/* A layer of containers/storage, as its reader checks it: the tar that is put together of the
 * tar-split and the files is the one in the blob, byte for byte, and each header in it says just
 * what its entry of the TOC says. Nothing is held of either. Belongs to one thread at a time; the
 * decoded bytes of the blob are given in order. */
#ifndef SGZ_VERIFY_SPLIT_H
#define SGZ_VERIFY_SPLIT_H

#include "base/notes.h"
#include "read/spans.h"
#include "verify/claimed_names.h"
#include "verify/pull.h"

typedef struct sgz_verify_split sgz_verify_split;

/* NULL: no memory. `toc` is the JSON, `lines` are those of the tar-split. */
sgz_verify_split *sgz_verify_split_new(const sgz_spans *spans, sgz_verify_pull toc,
                                       sgz_verify_pull lines, sgz_verify_take_error report,
                                       void *arg);
void sgz_verify_split_free(sgz_verify_split *split);
/* Decoded bytes that belong to no chunk; `offset` is that of their segment in the blob. */
void sgz_verify_split_gap(sgz_verify_split *split, const uint8_t *data, size_t len,
                          int64_t offset);
/* Bytes of a chunk; then the end of its frame, when all of them went by. */
void sgz_verify_split_data(sgz_verify_split *split, size_t span, const uint8_t *data, size_t len);
void sgz_verify_split_span(sgz_verify_split *split, size_t span, int64_t end);
/* Bytes are missing from here on: there is no tar to compare. */
void sgz_verify_split_break(sgz_verify_split *split);
/* What other readers take otherwise in the headers that went by. */
const sgz_notes *sgz_verify_split_notes(const sgz_verify_split *split);
/* The tar ended. Returns the status of a failure of its own. */
sgz_status sgz_verify_split_finish(sgz_verify_split *split, sgz_error *err);

#endif
