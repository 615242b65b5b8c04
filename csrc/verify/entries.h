/* The entries of a TOC as they stand in its JSON, by name. Those of containers/storage are in the
 * order of the tar's: then about as many are held as one piece of the JSON has. */
#ifndef SGZ_VERIFY_ENTRIES_H
#define SGZ_VERIFY_ENTRIES_H

#include "tar/stated.h"
#include "verify/pull.h"

typedef struct {
    int type;                /* of its row */
    int64_t size, mode, uid, gid, dev_major, dev_minor;
    int64_t end_offset;      /* 0: not given */
    sgz_tar_time mtime, atime, ctime;
    int bad_time;            /* one of them is none */
    const char *link;        /* good until the next call, as those that follow are */
    size_t link_len;
    const char *uname, *gname; /* of no length: not given */
    size_t uname_len, gname_len;
    const char *xattrs;      /* as in base/xattrs.h, but for their order; values are in base64 */
    size_t xattr_len;
} sgz_verify_entry;

typedef struct sgz_verify_entries sgz_verify_entries;

/* NULL: no memory. */
sgz_verify_entries *sgz_verify_entries_new(sgz_verify_pull pull);
void sgz_verify_entries_free(sgz_verify_entries *entries);
/* Take the entry of this very name out, or *none. */
sgz_status sgz_verify_entries_take(sgz_verify_entries *entries, const char *name, size_t len,
                                   sgz_verify_entry *entry, int *none, sgz_error *err);
/* Call `tell` with the name of each that was not taken. */
typedef void (*sgz_verify_tell_name)(void *arg, const char *name, size_t len);
sgz_status sgz_verify_entries_rest(sgz_verify_entries *entries, sgz_verify_tell_name tell,
                                   void *arg, sgz_error *err);

#endif
