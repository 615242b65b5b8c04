/* A side index: what an ordinary tar.gz, tar or tar.zst needs beside it to be read as a layer is. */
#ifndef SGZ_INDEX_INDEX_H
#define SGZ_INDEX_INDEX_H

#include "base/notes.h"
#include "codec/points.h"
#include "toc/origin.h"
#include "toc/toc.h"

/* All zero is an empty one. */
typedef struct {
    sgz_points points;       /* and the sizes: of the blob, and of the tar that it decodes to */
    sgz_toc *toc;            /* with origins; names, links and owners are as in the tar, UTF-8 or not */
    uint8_t digest[32];      /* of the blob */
    uint8_t diff_id[32];     /* of the tar; zeros, as the blob's: not known */
    uint64_t members;        /* gzip members that were gone through; 0: not known */
    int64_t archive_size;    /* the tar as far as its two blocks of zeros */
    int64_t span_size;       /* that was asked for */
    int64_t json_size;       /* of the TOC's JSON in the file that was read; 0: none was */
    uint8_t json_digest[32]; /* zeros: not known */
    sgz_notes notes;         /* of the tar; in no file */
} sgz_index;

/* Takes the next bytes of a file that is written. */
typedef sgz_status (*sgz_index_emit)(void *arg, const uint8_t *data, size_t len, sgz_error *err);

/* The longest span, decoded: what a read has to decode at most. 0 where every offset is a point. */
int64_t sgz_index_longest(const sgz_index *index);
void sgz_index_free(sgz_index *index);

/* From rows as toc/rows.h leaves them to rows as they are read, with the places of those that are
 * left: an index that was made is then the same as one that comes out of its file. */
sgz_status sgz_index_settle(sgz_index *index, sgz_error *err);

/* Whether points, rows and places fit each other and the sizes: every number of them is within its
 * bounds then, and a chunk lies in one span, where its file's bytes are. SGZ_EINDEX. */
sgz_status sgz_index_check(const sgz_index *index, sgz_error *err);

#endif
