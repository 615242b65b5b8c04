#define _GNU_SOURCE
#include "base/beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* How often a step is tried again when another process keeps changing the directory. */
#define TRIES 64

#define OPEN_DIR (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

/* linux/openat2.h came with 5.6; its layout and number are part of the kernel's interface, also
 * where an older C library, as wheels are built with, does not know them. */
#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#define NO_MAGICLINKS 0x02
#define NO_SYMLINKS 0x04
#define BENEATH 0x08

static int open_beneath(int root, const char *path)
{
    struct { uint64_t flags, mode, resolve; } how = {
        .flags = OPEN_DIR, .resolve = BENEATH | NO_SYMLINKS | NO_MAGICLINKS,
    };
    for (int tries = 0; tries < TRIES; tries++) {
        int fd = (int)syscall(SYS_openat2, root, path, &how, sizeof how);
        if (fd >= 0)
            return fd;
        if (errno != EAGAIN && errno != EINTR)
            break;
    }
    return -errno;
}

/* One component after the other. The intermediate ones need search permission only. */
static int walk(int root, const char *path)
{
    char name[256];
    int fd = root;
    for (;;) {
        const char *slash = strchr(path, '/');
        size_t len = slash ? (size_t)(slash - path) : strlen(path);
        if (len >= sizeof name) {
            if (fd != root)
                close(fd);
            return -ENAMETOOLONG;
        }
        memcpy(name, path, len);
        name[len] = '\0';
        int flags = slash ? O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC : OPEN_DIR;
        int next = openat(fd, name, flags);
        int saved = errno;
        if (fd != root)
            close(fd);
        if (next < 0)
            return -saved;
        if (!slash)
            return next;
        fd = next;
        path = slash + 1;
    }
}

int sgz_base_beneath_open(int root, const char *path, int use_openat2)
{
    if (!*path) {
        int fd = openat(root, ".", OPEN_DIR);
        return fd < 0 ? -errno : fd;
    }
    if (use_openat2) {
        int fd = open_beneath(root, path);
        /* A kernel without it, or a sandbox that forbids it. EPERM is never the path's. */
        if (fd != -ENOSYS && fd != -EPERM)
            return fd;
    }
    return walk(root, path);
}

/* Open a directory that was just made. The umask may have taken from its owner what that needs. */
static int open_made(int parent, const char *name, mode_t mode)
{
    int fd = openat(parent, name, OPEN_DIR);
    if (fd < 0 && errno == EACCES) {
        char path[32];
        int there = openat(parent, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (there < 0)
            return there;
        snprintf(path, sizeof path, "/proc/self/fd/%d", there);
        fd = chmod(path, mode) == 0 ? openat(there, ".", OPEN_DIR) : -1;
        int error = errno;
        close(there);
        errno = error;
    }
    if (fd >= 0 && fchmod(fd, mode) != 0) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

int sgz_base_beneath_make(int parent, const char *name, mode_t mode, int *made)
{
    *made = 0;
    for (int tries = 0; tries < TRIES; tries++) {
        if (mkdirat(parent, name, mode) == 0)
            *made = 1;
        else if (errno != EEXIST)
            return -errno;
        int fd = *made ? open_made(parent, name, mode) : openat(parent, name, OPEN_DIR);
        if (fd >= 0)
            return fd;
        if (errno == ENOTDIR || errno == ELOOP) {
            /* unlinkat never removes a directory, should one stand here by now. */
            if (unlinkat(parent, name, 0) != 0 && errno != ENOENT && errno != EISDIR)
                return -errno;
        } else if (errno != ENOENT && errno != EINTR) {
            return -errno;
        }
        *made = 0;
    }
    return -ELOOP;
}

int sgz_base_beneath_rename(int dir, const char *from, const char *to)
{
    for (int tries = 0; tries < TRIES; tries++) {
        if (renameat(dir, from, dir, to) == 0)
            return 0;
        if (errno != EISDIR && errno != ENOTEMPTY && errno != EEXIST)
            return -errno;
        if (unlinkat(dir, to, AT_REMOVEDIR) != 0 && errno != ENOTDIR && errno != ENOENT)
            return errno == ENOTEMPTY ? -EEXIST : -errno;
    }
    return -EEXIST;
}
