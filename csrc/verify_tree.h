/* The tree that a tar makes when applied in order, against a TOC. Belongs to one thread at
 * a time; the pieces of the decoded blob are given in order. */
#ifndef SGZ_VERIFY_TREE_H
#define SGZ_VERIFY_TREE_H

#include "read.h"

typedef void (*sgz_report)(void *arg, const sgz_error *err);
typedef struct sgz_tree sgz_tree;

sgz_tree *sgz_tree_new(const sgz_codecs *codecs, const sgz_spans *spans, sgz_report report,
                       void *arg);
void sgz_tree_free(sgz_tree *tree);
/* Decoded bytes that belong to no chunk of the TOC; `offset` is that of their segment in
 * the blob, for errors. */
void sgz_tree_gap(sgz_tree *tree, const uint8_t *data, size_t len, int64_t offset);
/* All bytes of a chunk went by. */
void sgz_tree_span(sgz_tree *tree, size_t span);
/* Bytes are missing from here on: there is no tree to compare. */
void sgz_tree_break(sgz_tree *tree);
/* The tar ended. Compares every entry; returns the status of a failure of its own. */
sgz_status sgz_tree_finish(sgz_tree *tree, sgz_error *err);

#endif
