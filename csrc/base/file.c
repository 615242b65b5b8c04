#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

int sgz_base_write_all(int fd, const void *data, size_t len, int64_t at)
{
    const char *from = data, *end = from + len;
    while (from < end) {
        size_t left = (size_t)(end - from);
        ssize_t n = at < 0 ? write(fd, from, left) : pwrite(fd, from, left, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n ? -errno : -ENOSPC; /* nothing, or it would go on for ever */
        from += n;
        at += at < 0 ? 0 : n;
    }
    return 0;
}

int64_t sgz_base_read_all(int fd, void *out, size_t len, int64_t at)
{
    char *to = out, *end = to + len;
    while (to < end) {
        size_t left = (size_t)(end - to);
        ssize_t n = at < 0 ? read(fd, to, left) : pread(fd, to, left, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (!n)
            break;
        to += n;
        at += at < 0 ? 0 : n;
    }
    return to - (char *)out;
}

int sgz_base_open_named(const sgz_base_named *file)
{
    struct stat now;
    int fd;
    /* O_NONBLOCK: what has the name now may be a pipe. */
    do
        fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return errno == ENOENT ? -ESTALE : -errno;
    if (fstat(fd, &now) == 0 && now.st_dev == file->dev && now.st_ino == file->ino &&
        now.st_size == file->size &&
        now.st_mtim.tv_sec * 1000000000LL + now.st_mtim.tv_nsec == file->mtime_ns)
        return fd;
    close(fd);
    return -ESTALE;
}
