#define _GNU_SOURCE
#include "io/spool.h"

#include "base/file.h"
#include "base/vec.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define STEP ((size_t)1 << 20)

static sgz_status failed(int code, sgz_error *err)
{
    return sgz_base_fail_errno(err, code, "a temporary file for the TOC failed", NULL, 0);
}

void sgz_io_spool_free(sgz_spool *s)
{
    if (s->fd >= 0)
        close(s->fd);
    free(s->buf);
    *s = (sgz_spool){.fd = -1};
}

static int unnamed_file(const char *dir)
{
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    char name[4096];
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT && errno != EINVAL))
        return fd;
    /* Not of all file systems. */
    int len = snprintf(name, sizeof name, "%s/.stargz-XXXXXX", dir);
    if (len < 0 || (size_t)len >= sizeof name) {
        errno = ENAMETOOLONG;
        return -1;
    }
    fd = mkostemp(name, O_CLOEXEC);
    if (fd >= 0)
        unlink(name);
    return fd;
}

/* What is in memory goes to the file. */
static sgz_status flush(sgz_spool *s, sgz_error *err)
{
    if (s->fd < 0 && (s->fd = unnamed_file(s->dir)) < 0)
        return failed(errno, err);
    int bad = sgz_base_write_all(s->fd, s->buf, s->len, (int64_t)(s->size - s->len));
    s->len = 0;
    return bad ? failed(-bad, err) : SGZ_OK;
}

sgz_status sgz_io_spool_put(sgz_spool *s, const uint8_t *data, size_t len, sgz_error *err)
{
    if (!len)
        return SGZ_OK;
    if (!SGZ_FIT(s->buf, s->cap, s->len + len))
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the TOC");
    memcpy(s->buf + s->len, data, len);
    s->len += len;
    s->size += len;
    size_t most = s->fd < 0 ? SGZ_SPOOL_MEMORY : STEP;
    return s->len < most ? SGZ_OK : flush(s, err);
}

sgz_status sgz_io_spool_patch(sgz_spool *s, uint64_t at, const uint8_t *data, size_t len,
                              sgz_error *err)
{
    if (s->fd < 0) {
        memcpy(s->buf + at, data, len);
        return SGZ_OK;
    }
    sgz_status status = flush(s, err);
    int bad = status ? 0 : sgz_base_write_all(s->fd, data, len, (int64_t)at);
    return bad ? failed(-bad, err) : status;
}

sgz_status sgz_io_spool_read(sgz_spool *s,
                             sgz_status (*take)(void *arg, const uint8_t *data, size_t len,
                                                sgz_error *err),
                             void *arg, sgz_error *err)
{
    if (s->fd < 0)
        return take(arg, s->buf, s->len, err);
    sgz_status status = flush(s, err);
    for (uint64_t at = 0, n; at < s->size && !status; at += n) {
        n = s->size - at < STEP ? s->size - at : STEP;
        int64_t got = sgz_base_read_all(s->fd, s->buf, n, (int64_t)at);
        if (got != (int64_t)n)
            return failed(got < 0 ? (int)-got : EIO, err);
        status = take(arg, s->buf, n, err);
    }
    return status;
}
