#include "io/sink.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

/* How often a thread that waits for a pipe looks whether it should stop: milliseconds. */
#define STOP_POLL 100

/* Wait until a pipe takes bytes; 0 when the sink's stop flag came first. */
static int wait_writable(const sgz_sink *sink)
{
    struct pollfd ready = {.fd = sink->fd, .events = POLLOUT};
    while (!(sink->stop && *sink->stop))
        if (poll(&ready, 1, STOP_POLL) > 0)
            return 1;
    return 0;
}

sgz_status sgz_io_sink_write(const sgz_sink *sink, const uint8_t *data, size_t len,
                             sgz_error *err)
{
    if (sink->write) {
        if (sink->write(sink->arg, data, len))
            return sgz_base_fail(err, SGZ_ECALLBACK, -1, NULL, 0, "writing the output failed");
        return SGZ_OK;
    }
    while (len) {
        /* A ready pipe takes PIPE_BUF bytes without blocking; more might wait for ever. */
        size_t want = sink->is_pipe && len > PIPE_BUF ? PIPE_BUF : len;
        if (sink->is_pipe && !wait_writable(sink))
            return sgz_base_fail(err, SGZ_ECANCELLED, -1, NULL, 0, "cancelled");
        ssize_t n = write(sink->fd, data, want);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n < 0)
            return sgz_base_fail_errno(err, errno, "writing failed", sink->name,
                                       sink->name ? strlen(sink->name) : 0);
        data += n;
        len -= (size_t)n;
    }
    return SGZ_OK;
}
