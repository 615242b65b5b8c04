/* The tree that a tar makes when applied in order, against a TOC. Belongs to one thread at
 * a time; the pieces of the decoded blob are given in order. */
#ifndef SGZ_VERIFY_CLAIMED_NAMES_H
#define SGZ_VERIFY_CLAIMED_NAMES_H

#include "base/notes.h"
#include "read/spans.h"

typedef void (*sgz_verify_take_error)(void *arg, const sgz_error *err);
typedef struct sgz_verify_names sgz_verify_names;

sgz_verify_names *sgz_verify_names_new(const sgz_codecs *codecs, const sgz_spans *spans,
                                       sgz_verify_take_error report, void *arg);
void sgz_verify_names_free(sgz_verify_names *tree);
/* Decoded bytes that belong to no chunk of the TOC; `offset` is that of their segment in
 * the blob, for errors. */
void sgz_verify_names_gap(sgz_verify_names *tree, const uint8_t *data, size_t len,
                          int64_t offset);
/* All bytes of a chunk went by. */
void sgz_verify_names_span(sgz_verify_names *tree, size_t span);
/* Bytes are missing from here on: there is no tree to compare. */
void sgz_verify_names_break(sgz_verify_names *tree);
/* What other readers take otherwise in the headers that went by. */
const sgz_notes *sgz_verify_names_notes(const sgz_verify_names *tree);
/* The tar ended, and a TOC has to have `followed` in it, or not: only then may the last file's padding
 * be missing. Compares every entry; returns the status of a failure of its own. */
sgz_status sgz_verify_names_finish(sgz_verify_names *tree, int followed, sgz_error *err);

#endif
