/* What the files that read and write ztocs share. */
#ifndef SGZ_INDEX_ZTOC_H
#define SGZ_INDEX_ZTOC_H

#include "index/ztoc_write.h"

/* Tables by name, fields in the order of their numbers. */
enum { ZTOC_VERSION, ZTOC_TOOL, ZTOC_BLOB_SIZE, ZTOC_TAR_SIZE, ZTOC_TOC, ZTOC_COMPRESSION };
enum { ZTOC_TOC_ENTRIES };
enum {
    ZTOC_NAME, ZTOC_TYPE, ZTOC_OFFSET, ZTOC_SIZE, ZTOC_LINK, ZTOC_MODE, ZTOC_UID, ZTOC_GID,
    ZTOC_UNAME, ZTOC_GNAME, ZTOC_MTIME, ZTOC_DEV_MAJOR, ZTOC_DEV_MINOR, ZTOC_XATTRS
};
enum { ZTOC_XATTR_KEY, ZTOC_XATTR_VALUE };
enum { ZTOC_ALGORITHM, ZTOC_MAX_SPAN, ZTOC_DIGESTS, ZTOC_CHECKPOINTS };
enum { ZTOC_PLAIN_VERSION, ZTOC_PLAIN_SPAN, ZTOC_PLAIN_SIZE };

enum { ZTOC_GZIP = 1, ZTOC_PLAIN = 2 }; /* values of ZTOC_ALGORITHM; its default is the first */

/* Checkpoints of gzip: i32 count, i64 span size; of each i64 offset of the first whole byte, i64 out,
 * u8 bits of the byte before it that belong to it, and the window, zeros before what there is. */
enum { ZTOC_HEAD = 12, ZTOC_POINT = 17, ZTOC_CHECKPOINT = ZTOC_POINT + SGZ_HISTORY_MAX };

/* Offsets in a flatbuffer are signed, of 32 bits. */
#define SGZ_ZTOC_SIZE_MAX ((uint64_t)INT32_MAX)

/* By typeflag of a tar. */
static inline const char *sgz_ztoc_type_name(char type)
{
    switch (type) {
    case '0': return "reg";
    case '1': return "hardlink";
    case '2': return "symlink";
    case '3': return "char";
    case '4': return "block";
    case '5': return "dir";
    default: return "fifo";
    }
}

/* An entry, before its texts: name, link, uname, gname, and PAX records as base/xattrs.h has them. */
typedef struct {
    int64_t content, size, seconds, mode, dev_major, dev_minor;
    uint32_t nanoseconds, uid, gid;
    uint32_t name_len, link_len, uname_len, gname_len, records_len;
    char type;
} sgz_ztoc_entry;

/* Where an entry is kept; and, in the ztoc, where its table and the beginning of all of it are. */
typedef struct {
    uint32_t kept, table, begin;
} sgz_ztoc_place;

struct sgz_index_ztoc {
    int spool;
    int64_t points;           /* in the spool */
    char *arena;              /* the entries */
    size_t arena_len, arena_cap;
    sgz_ztoc_place *entries;
    size_t count, cap;
    sgz_xattr *records;       /* scratch */
    size_t record_cap;
    int behind_global;        /* a global header stands before the next entry */
};

static inline sgz_status sgz_ztoc_no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for a ztoc");
}

#endif
