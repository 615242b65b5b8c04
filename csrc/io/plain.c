#include "io/plain.h"

#include <errno.h>
#include <unistd.h>

#define STEP (8 << 20) /* bytes between two looks at signals: some 10 ms */

static sgz_status copy(int fd, const uint8_t *data, size_t len, sgz_error *err)
{
    while (len) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return sgz_base_fail_errno(err, errno, "writing the temporary copy failed", NULL, 0);
        data += n;
        len -= (size_t)n;
    }
    return SGZ_OK;
}

sgz_status sgz_io_plain_step(sgz_plain *plain, int *end, sgz_error *err)
{
    *end = 0;
    for (int64_t stop = plain->size + STEP; plain->size < stop;) {
        size_t got;
        sgz_status status = sgz_io_input_read(plain->input, plain->buf, SGZ_PLAIN_BUF, &got,
                                              err);
        int interrupted = status == SGZ_ECANCELLED;
        if (status && !interrupted)
            return status;
        sgz_codec_hasher_update(plain->hasher, plain->buf, got, NULL, 0);
        plain->size += (int64_t)got;
        if (plain->sink >= 0 && (status = copy(plain->sink, plain->buf, got, err)))
            return status;
        if (interrupted)
            return SGZ_OK;
        if (got < SGZ_PLAIN_BUF) {
            *end = 1;
            return SGZ_OK;
        }
    }
    return SGZ_OK;
}
