/* What the headers of an entry say as they stand, where sgz_tar_entry has it of some types only, or
 * makes it fit: as Go's archive/tar reads them, and so everyone who compares with it. */
#ifndef SGZ_TAR_STATED_H
#define SGZ_TAR_STATED_H

#include "tar/tar.h"

typedef struct {
    int64_t seconds;        /* rounded down */
    uint32_t nanoseconds;
    int given;
} sgz_tar_time;

typedef struct {
    int64_t size;           /* of links and directories too */
    int64_t mode, dev_major, dev_minor;
    sgz_tar_time mtime, atime, ctime;
} sgz_tar_stated;

/* Of an entry of a parser that keeps records. SGZ_ENOTOC: Go would not take the header. */
sgz_status sgz_tar_read_stated(const sgz_tar_entry *entry, int64_t offset, sgz_tar_stated *out,
                               sgz_error *err);

#endif
