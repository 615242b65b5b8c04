/* The TOC of containers/storage's zstd:chunked, made of a tar that is kept as it is: one entry for
 * each header, with all that Go's archive/tar reads there, since its reader compares them. So there is
 * neither replacement nor cleaning, and what the two could differ in is refused.
 *
 * Rows are those of an sgz_toc, but for these: name, link, size, mode and devices are the header's
 * own; mtime is rounded down; pieces that are zeros have bytes in the blob, and so the flag
 * SGZ_KEPT_ZEROS in place of SGZ_ZEROS; and inner_offset of a file's own row is where its last frame
 * ends. */
#ifndef SGZ_TOC_KEPT_H
#define SGZ_TOC_KEPT_H

#include "tar/stated.h"
#include "toc/toc.h"

#define SGZ_KEPT_ZEROS SGZ_PINNED

/* What a row has no room for, of those that have it. */
typedef struct {
    uint32_t row, nanoseconds; /* of the mtime */
    sgz_tar_time atime, ctime;
} sgz_kept_times;

typedef struct {
    sgz_toc *toc;
    sgz_kept_times *times;  /* in the order of the rows */
    size_t time_count, time_cap;
    sgz_xattr *xattrs;      /* scratch */
    size_t xattr_cap;
    uint32_t last;          /* the file that chunks are added to */
} sgz_toc_kept;

void sgz_toc_kept_free(sgz_toc_kept *kept);
/* Append the row of an entry, of a parser that keeps records. SGZ_ENOTOC: this dialect cannot hold it,
 * or its readers would refuse the layer. */
sgz_status sgz_toc_kept_entry(sgz_toc_kept *kept, const sgz_tar_entry *entry, int64_t offset,
                              uint32_t *row, sgz_error *err);
/* Append a chunk of the file last added. */
sgz_status sgz_toc_kept_chunk(sgz_toc_kept *kept, uint32_t *row, sgz_error *err);

/* After the last one: SGZ_ENOTOC where a hard link leads to nothing, which no one can extract. */
sgz_status sgz_toc_kept_finish(const sgz_toc_kept *kept, sgz_error *err);

/* Format the JSON, in pieces, as sgz_toc_format does. `split` is the sha256 of the compressed
 * tar-split. */
sgz_status sgz_toc_kept_format(const sgz_toc_kept *kept, const uint8_t split[32],
                               sgz_toc_emit emit, void *arg, uint64_t *len, sgz_error *err);

#endif
