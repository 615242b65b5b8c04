/* Where a blob's bytes go. */
#ifndef SGZ_IO_SINK_H
#define SGZ_IO_SINK_H

#include "base/job.h"

/* A descriptor, or a callback that returns 0, or -1 after it stored an exception. */
typedef struct {
    int fd;
    int (*write)(void *arg, const uint8_t *data, size_t len);
    void *arg;
    const sgz_base_stop *stop;   /* non-zero ends a wait for a full pipe; may be NULL */
    int is_pipe;
    const char *name;           /* for errors */
} sgz_sink;

/* Write all of it; SGZ_ECANCELLED when the stop flag came first. */
sgz_status sgz_io_sink_write(const sgz_sink *sink, const uint8_t *data, size_t len,
                             sgz_error *err);

#endif
