/* The texts of rows that JSON cannot hold, which go beside it. */
#ifndef SGZ_INDEX_TEXTS_H
#define SGZ_INDEX_TEXTS_H

#include "toc/toc.h"

/* Where the search stands; all zero but for the TOC at first. */
typedef struct {
    const sgz_toc *toc;
    size_t row;
    uint64_t entry;
    int kind;           /* that comes next */
} sgz_index_texts;

/* The next one, in the order of entries and kinds. 0: there is none. */
int sgz_index_next_text(sgz_index_texts *texts, sgz_toc_text *text);

#endif
