/* Write a ztoc, the index of a layer that SOCI's snapshotter reads (awslabs/soci-snapshotter,
 * version 0.9). Its bytes are those that the reference's builder makes in UTC, but for points of the
 * same output, which make a layer unreadable to it.
 *
 * What a ztoc takes beyond an sgz_index is collected while the blob is read: each tar entry as its
 * headers have it, and the windows, which go to a file. */
#ifndef SGZ_INDEX_ZTOC_WRITE_H
#define SGZ_INDEX_ZTOC_WRITE_H

#include "index/index.h"
#include "tar/tar.h"

typedef struct sgz_index_ztoc sgz_index_ztoc;

/* `spool` is an empty file for the windows, 32 KiB of each point: the caller's, as long as this is
 * used. NULL: no memory. */
sgz_index_ztoc *sgz_index_ztoc_new(int spool);
void sgz_index_ztoc_free(sgz_index_ztoc *ztoc);

/* The callbacks of index/build.h. What a ztoc cannot hold, or what would be unreadable through it,
 * is SGZ_ENOTOC. */
sgz_status sgz_index_ztoc_entry(void *ztoc, const sgz_tar_entry *entry, int64_t begin,
                                int64_t content, sgz_error *err);
sgz_status sgz_index_ztoc_global(void *ztoc, int64_t begin, sgz_error *err);
sgz_status sgz_index_ztoc_point(void *ztoc, const sgz_point *point, const uint8_t *window,
                                sgz_error *err);

/* The ztoc of an index whose building called these, in pieces. `tool` says who made it. */
sgz_status sgz_index_ztoc_write(sgz_index_ztoc *ztoc, const sgz_index *index, const char *tool,
                                sgz_index_emit emit, void *arg, sgz_error *err);

#endif
