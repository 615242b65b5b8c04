/* The headers of a tar's entry against its entry of the TOC, as the reader of containers/storage
 * compares them. */
#ifndef SGZ_VERIFY_HEADER_H
#define SGZ_VERIFY_HEADER_H

#include "toc/kept.h"
#include "verify/entries.h"

/* Scratch; all zero is an empty one. */
typedef struct {
    sgz_toc_kept kept;      /* no rows: room for xattrs */
    sgz_xattr *xattrs;
    size_t xattr_cap;
    char *base64;
    size_t base64_cap;
} sgz_verify_header;

void sgz_verify_header_free(sgz_verify_header *header);
/* Put into `what` (of `cap` bytes) what that reader refuses in the headers at `offset` of the tar, or
 * the first thing that the TOC has otherwise; nothing, if they are the same. Names of owners are
 * compared where the TOC has any. */
sgz_status sgz_verify_header_compare(sgz_verify_header *header, const sgz_tar_entry *tar,
                                     int64_t offset, const sgz_verify_entry *entry, char *what,
                                     size_t cap, sgz_error *err);

#endif
