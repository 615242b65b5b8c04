/* What is written once and read once: in memory, and when it becomes much, in an unnamed file. */
#ifndef SGZ_IO_SPOOL_H
#define SGZ_IO_SPOOL_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

#define SGZ_SPOOL_MEMORY ((size_t)16 << 20)

/* All zero, but for dir and fd, is an empty one. */
typedef struct {
    const char *dir;        /* where the file is made */
    int fd;                 /* -1: there is none yet */
    uint64_t size;
    uint8_t *buf;           /* what the file has not */
    size_t len, cap;
} sgz_spool;

void sgz_io_spool_free(sgz_spool *spool);
sgz_status sgz_io_spool_put(sgz_spool *spool, const uint8_t *data, size_t len, sgz_error *err);
/* Overwrite what is there. */
sgz_status sgz_io_spool_patch(sgz_spool *spool, uint64_t at, const uint8_t *data, size_t len,
                              sgz_error *err);
/* Hand out all of it. */
sgz_status sgz_io_spool_read(sgz_spool *spool,
                             sgz_status (*take)(void *arg, const uint8_t *data, size_t len,
                                                sgz_error *err),
                             void *arg, sgz_error *err);

#endif
