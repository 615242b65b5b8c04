/* Preloaded by tests/failing.py: lets a chosen call on files below a folder fail, or be the last
 * thing that the process does.
 *
 * Calls are counted by kind in memory that a forked child shares, so that whoever forked it sees
 * how far it came. Of a write that fails half is written first; a close that fails has closed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN, WRITE, SYNC, RENAME, LINK, CLOSE, TRUNCATE, MKDIR, KINDS };

struct failing {
    atomic_long seen[KINDS + 1]; /* the last: all of them */
    atomic_long hit;             /* how often a call failed */
    long kind;                   /* which are to fail: KINDS for any, -1 for none */
    long at;                     /* the one to fail, from 0 */
    long on;                     /* and all behind it */
    long error;                  /* errno, or 0: SIGKILL */
    char below[PATH_MAX];
};

static struct failing *failing;

struct failing *failing_state(void)
{
    return failing;
}

__attribute__((constructor)) static void begin(void)
{
    failing = mmap(NULL, sizeof *failing, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (failing == MAP_FAILED)
        failing = NULL;
    else
        failing->kind = -1;
}

static int below(const char *path)
{
    size_t len = strlen(failing->below);
    return !strncmp(path, failing->below, len) && (path[len] == '/' || !path[len]);
}

static int fd_below(int fd)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    if (len < 0)
        return 0;
    path[len] = 0;
    return below(path);
}

static int path_below(int dir, const char *path)
{
    int fd;
    if (sscanf(path, "/proc/self/fd/%d", &fd) == 1)
        return fd_below(fd);
    if (path[0] == '/')
        return below(path);
    char here[PATH_MAX];
    return dir == AT_FDCWD ? getcwd(here, sizeof here) && below(here) : fd_below(dir);
}

/* Count a call; whether it is to fail, with errno set. */
static int fails(int kind)
{
    long number = atomic_fetch_add(&failing->seen[kind], 1);
    long of_all = atomic_fetch_add(&failing->seen[KINDS], 1);
    if (failing->kind != kind && failing->kind != KINDS)
        return 0;
    if (failing->kind == KINDS)
        number = of_all;
    if (number != failing->at && !(failing->on && number > failing->at))
        return 0;
    atomic_fetch_add(&failing->hit, 1);
    if (!failing->error) {
        kill(getpid(), SIGKILL);
        for (;;)
            pause();
    }
    errno = (int)failing->error;
    return 1;
}

static int armed(void)
{
    return failing && failing->below[0];
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define WRITES(name, result, arguments, fd, call, half)                                            \
    result name arguments                                                                          \
    {                                                                                              \
        if (armed() && fd_below(fd) && fails(WRITE)) {                                             \
            int error = errno;                                                                     \
            half;                                                                                  \
            errno = error;                                                                         \
            return -1;                                                                             \
        }                                                                                          \
        return call;                                                                               \
    }

WRITES(write, ssize_t, (int fd, const void *data, size_t len), fd, NEXT(write)(fd, data, len),
       (void)!NEXT(write)(fd, data, len / 2))
WRITES(pwrite, ssize_t, (int fd, const void *data, size_t len, off_t at), fd,
       NEXT(pwrite)(fd, data, len, at), (void)!NEXT(pwrite)(fd, data, len / 2, at))
WRITES(pwrite64, ssize_t, (int fd, const void *data, size_t len, off64_t at), fd,
       NEXT(pwrite64)(fd, data, len, at), (void)!NEXT(pwrite64)(fd, data, len / 2, at))
WRITES(writev, ssize_t, (int fd, const struct iovec *data, int n), fd, NEXT(writev)(fd, data, n), )
WRITES(copy_file_range, ssize_t,
       (int in, off64_t *from, int out, off64_t *to, size_t len, unsigned flags), out,
       NEXT(copy_file_range)(in, from, out, to, len, flags), )
WRITES(sendfile, ssize_t, (int out, int in, off_t *at, size_t len), out,
       NEXT(sendfile)(out, in, at, len), )
WRITES(sendfile64, ssize_t, (int out, int in, off64_t *at, size_t len), out,
       NEXT(sendfile64)(out, in, at, len), )

#define OTHER(kind, name, arguments, where, call)                                                  \
    int name arguments                                                                             \
    {                                                                                              \
        return armed() && (where) && fails(kind) ? -1 : call;                                      \
    }

OTHER(SYNC, fsync, (int fd), fd_below(fd), NEXT(fsync)(fd))
OTHER(SYNC, fdatasync, (int fd), fd_below(fd), NEXT(fdatasync)(fd))
OTHER(RENAME, rename, (const char *from, const char *to), path_below(AT_FDCWD, to),
      NEXT(rename)(from, to))
OTHER(RENAME, renameat, (int old, const char *from, int dir, const char *to), path_below(dir, to),
      NEXT(renameat)(old, from, dir, to))
OTHER(RENAME, renameat2, (int old, const char *from, int dir, const char *to, unsigned flags),
      path_below(dir, to), NEXT(renameat2)(old, from, dir, to, flags))
OTHER(LINK, link, (const char *from, const char *to), path_below(AT_FDCWD, to),
      NEXT(link)(from, to))
OTHER(LINK, linkat, (int old, const char *from, int dir, const char *to, int flags),
      path_below(dir, to), NEXT(linkat)(old, from, dir, to, flags))
OTHER(TRUNCATE, ftruncate, (int fd, off_t size), fd_below(fd), NEXT(ftruncate)(fd, size))
OTHER(TRUNCATE, ftruncate64, (int fd, off64_t size), fd_below(fd), NEXT(ftruncate64)(fd, size))
OTHER(MKDIR, mkdir, (const char *path, mode_t mode), path_below(AT_FDCWD, path),
      NEXT(mkdir)(path, mode))
OTHER(MKDIR, mkdirat, (int dir, const char *path, mode_t mode), path_below(dir, path),
      NEXT(mkdirat)(dir, path, mode))

int close(int fd)
{
    int written = armed() && fd_below(fd) && (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY;
    int failed = written && fails(CLOSE), error = errno;
    int result = NEXT(close)(fd);
    if (!failed)
        return result;
    errno = error;
    return -1;
}

/* Those for writing, and of folders. */
#define OPENS(name, parameters, dir, path, flags, call)                                            \
    int name parameters                                                                            \
    {                                                                                              \
        mode_t mode = 0;                                                                           \
        if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) {                                                     \
            va_list more;                                                                          \
            va_start(more, flags);                                                                 \
            mode = va_arg(more, mode_t);                                                           \
            va_end(more);                                                                          \
        }                                                                                          \
        if (armed() && flags & (O_ACCMODE | O_CREAT | O_DIRECTORY) && path_below(dir, path) &&     \
            fails(OPEN))                                                                           \
            return -1;                                                                             \
        return call;                                                                               \
    }

OPENS(open, (const char *path, int flags, ...), AT_FDCWD, path, flags, NEXT(open)(path, flags, mode))
OPENS(open64, (const char *path, int flags, ...), AT_FDCWD, path, flags,
      NEXT(open64)(path, flags, mode))
OPENS(openat, (int dir, const char *path, int flags, ...), dir, path, flags,
      NEXT(openat)(dir, path, flags, mode))
OPENS(openat64, (int dir, const char *path, int flags, ...), dir, path, flags,
      NEXT(openat64)(dir, path, flags, mode))
