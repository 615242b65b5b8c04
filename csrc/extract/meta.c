#define _GNU_SOURCE
#include "extract/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/beneath.h"
#include "base/bytes.h"
#include "base/xattrs.h"

#define TRIES 64
#define XATTR_NAME_MAX 255
#define CHANGED "another process changed it while it was written"
#define NO_OWNER "cannot set the owner (extraction without owners leaves files to you)"

/* --- names and directories ------------------------------------------------------------ */

uint64_t sgz_extract_temp_number(struct sgz_extract *ex)
{
    return ex->temp_seed + atomic_fetch_add(&ex->temps, 1);
}

void sgz_extract_temp_name(uint64_t number, char name[SGZ_TEMP_NAME])
{
    uint8_t bytes[8];
    sgz_put_be64(bytes, number);
    memcpy(name, ".stargz-", 8);
    *sgz_put_hex(name + 8, bytes, sizeof bytes) = '\0';
}

void sgz_extract_base_name(const sgz_toc *toc, uint32_t row, char base[SGZ_BASE_MAX + 1])
{
    const char *name = toc->arena + toc->rows[row].name_off;
    size_t end = toc->rows[row].name_len, at = end;
    while (at && name[at - 1] != '/')
        at--;
    size_t len = end - at < SGZ_BASE_MAX ? end - at : SGZ_BASE_MAX;
    memcpy(base, name + at, len);
    base[len] = '\0';
}

/* The root has a name too: without one it is the blob that cannot be read. */
static sgz_status fail_path(const char *path, size_t len, int sys, const char *what,
                            sgz_error *err)
{
    return sgz_base_fail_errno(err, sys < 0 ? -sys : sys, what, len ? path : ".", len ? len : 1);
}

sgz_status sgz_extract_fail_row(const sgz_toc *toc, uint32_t row, int sys, const char *what,
                                sgz_error *err)
{
    const sgz_entry *e = &toc->rows[row];
    return fail_path(toc->arena + e->name_off, e->name_len, sys, what, err);
}

static int cached(sgz_extract_worker *w, uint32_t node)
{
    for (int i = 0; i < w->dirs_max; i++)
        if (w->dirs[i].fd >= 0 && w->dirs[i].node == node) {
            w->dirs[i].used = ++w->clock;
            return w->dirs[i].fd;
        }
    return -1;
}

/* In place of the one used longest ago. */
static void cache(sgz_extract_worker *w, uint32_t node, int fd)
{
    int oldest = 0;
    for (int i = 0; i < w->dirs_max; i++) {
        if (w->dirs[i].fd < 0) {
            oldest = i;
            break;
        }
        if (w->dirs[i].used < w->dirs[oldest].used)
            oldest = i;
    }
    if (w->dirs[oldest].fd >= 0)
        close(w->dirs[oldest].fd);
    w->dirs[oldest].node = node;
    w->dirs[oldest].fd = fd;
    w->dirs[oldest].used = ++w->clock;
}

void sgz_extract_worker_close_dirs(sgz_extract_worker *w)
{
    for (int i = 0; i < SGZ_DIRS; i++) {
        if (w->dirs[i].fd >= 0)
            close(w->dirs[i].fd);
        w->dirs[i].fd = -1;
    }
}

/* A directory of ours that cannot be written into gets its mode back in the end. */
static void loosen(sgz_extract_worker *w, const sgz_extract_node *n, int fd)
{
    struct stat st;
    if (!w->ex->uid || n->row == SGZ_NO_ROW || fstat(fd, &st) != 0)
        return;
    if ((st.st_mode & 0700) != 0700 && st.st_uid == w->ex->uid)
        (void)fchmod(fd, (st.st_mode & 07777) | 0700);
}

static int make(sgz_extract_worker *w, sgz_extract_node *n, int parent)
{
    char base[SGZ_BASE_MAX + 1];
    size_t len = n->path_len - n->base;
    memcpy(base, n->path + n->base, len);
    base[len] = '\0';
    int made;
    /* One with an entry gets its mode in the end; until then it is nobody else's. */
    int fd = sgz_base_beneath_make(parent, base, n->row == SGZ_NO_ROW ? 0755 : 0700, &made);
    if (fd >= 0 && !made)
        loosen(w, n, fd);
    return fd;
}

sgz_status sgz_extract_worker_dir(sgz_extract_worker *w, uint32_t node, int *fd, sgz_error *err)
{
    struct sgz_extract *ex = w->ex;
    sgz_extract_node *nodes = ex->plan.nodes;
    *fd = cached(w, node);
    if (*fd >= 0)
        return SGZ_OK;
    int result = -ENOENT;
    for (int tries = 0; tries < TRIES; tries++) {
        char path[SGZ_PATH_MAX + 1];
        uint32_t at = node;
        /* Up to the nearest one that is there, then down, making what is missing. */
        while (at && !atomic_load_explicit(&nodes[at].made, memory_order_relaxed) &&
               cached(w, at) < 0)
            at = nodes[at].parent;
        result = cached(w, at);
        if (result < 0) {
            memcpy(path, nodes[at].path, nodes[at].path_len);
            path[nodes[at].path_len] = '\0';
            result = sgz_base_beneath_open(ex->options.root, path, ex->options.openat2);
            if (result >= 0) {
                cache(w, at, result);
            } else if (at && (result == -ENOENT || result == -ELOOP || result == -ENOTDIR)) {
                /* Another process took it away: make it, and what is above, again. */
                for (uint32_t up = at; up; up = nodes[up].parent)
                    atomic_store_explicit(&nodes[up].made, 0, memory_order_relaxed);
                continue;
            }
        }
        while (result >= 0 && at != node) {
            uint32_t next = node;
            while (nodes[next].parent != at)
                next = nodes[next].parent;
            result = make(w, &nodes[next], result);
            if (result >= 0) {
                cache(w, next, result);
                atomic_store_explicit(&nodes[next].made, 1, memory_order_relaxed);
            }
            at = next;
        }
        if (result != -ENOENT)
            break;
        /* A directory that was held open is gone: do not trust the others either. */
        sgz_extract_worker_close_dirs(w);
    }
    *fd = result;
    if (result >= 0)
        return SGZ_OK;
    const sgz_extract_node *n = &nodes[node];
    return fail_path(n->path - n->cut, (size_t)n->path_len + n->cut, result,
                     "cannot make the directory", err);
}

/* --- metadata ------------------------------------------------------------------------- */

static int wanted_xattr(int policy, const char *key)
{
    if (policy == SGZ_XATTRS_ALL)
        return 1;
    return policy == SGZ_XATTRS_USER && !strncmp(key, "user.", 5) &&
           strncmp(key, "user.overlay.", 13);
}

/* To `fd`, or when that is -1 to where `path` leads. */
static sgz_status set_xattrs(sgz_extract_worker *w, const sgz_toc *toc, uint32_t row, int fd,
                             const char *path, sgz_error *err)
{
    const sgz_entry *e = &toc->rows[row];
    const char *at = toc->arena + e->xattr_off, *end = at + e->xattr_len;
    for (sgz_xattr x; sgz_xattrs_next(&at, end, &x);) {
        char key[XATTR_NAME_MAX + 1];
        size_t len = x.key_len < XATTR_NAME_MAX ? x.key_len : XATTR_NAME_MAX;
        memcpy(key, x.key, len);
        key[len] = '\0';
        if (!wanted_xattr(w->ex->options.xattrs, key)) {
            w->result.xattrs += w->ex->options.xattrs != SGZ_XATTRS_NONE;
            continue;
        }
        if (x.key_len > XATTR_NAME_MAX || memchr(key, 0, x.key_len)) {
            w->result.xattrs_failed++;
            continue;
        }
        int bad = fd >= 0 ? fsetxattr(fd, key, x.value, x.value_len, 0)
                          : setxattr(path, key, x.value, x.value_len, 0);
        if (!bad)
            continue;
        if (errno == ENOSPC || errno == EDQUOT || errno == EIO)
            return sgz_extract_fail_row(toc, row, errno, "cannot set an xattr", err);
        /* ENOTSUP: the file system has none. EPERM: not for this user. E2BIG and so on. */
        w->result.xattrs_failed++;
    }
    return SGZ_OK;
}

static mode_t mode_of(const sgz_extract_worker *w, const sgz_entry *e)
{
    return e->mode & (w->ex->options.setid ? 07777 : 01777);
}

static void times_of(const sgz_toc *toc, uint32_t row, struct timespec times[2])
{
    sgz_toc_time mtime = sgz_toc_mtime(toc, row);
    times[0] = (struct timespec){.tv_nsec = UTIME_OMIT};
    times[1] = (struct timespec){.tv_sec = (time_t)mtime.seconds, .tv_nsec = mtime.ns};
}

sgz_status sgz_extract_set_metadata(sgz_extract_worker *w, const sgz_toc *toc, uint32_t row,
                                    int fd, sgz_error *err)
{
    const sgz_entry *e = &toc->rows[row];
    /* A change of owner clears set-id bits and file capabilities: it comes first. */
    if (w->ex->options.same_owner && fchown(fd, e->uid, e->gid) != 0)
        return sgz_extract_fail_row(toc, row, errno, NO_OWNER, err);
    if (e->xattr_len) {
        sgz_status st = set_xattrs(w, toc, row, fd, NULL, err);
        if (st)
            return st;
    }
    if (fchmod(fd, mode_of(w, e)) != 0)
        return sgz_extract_fail_row(toc, row, errno, "cannot set the mode", err);
    struct timespec times[2];
    times_of(toc, row, times);
    if (futimens(fd, times) != 0)
        return sgz_extract_fail_row(toc, row, errno, "cannot set the time", err);
    return SGZ_OK;
}

sgz_status sgz_extract_write_directory(sgz_extract_worker *w, uint32_t node, sgz_error *err)
{
    const sgz_extract_node *n = &w->ex->plan.nodes[node];
    int fd;
    sgz_status st = sgz_extract_worker_dir(w, node, &fd, err);
    if (!st && n->row != SGZ_NO_ROW)
        st = sgz_extract_set_metadata(w, sgz_extract_toc(w->ex, n->layer), n->row, fd, err);
    return st;
}

/* The same for what cannot be opened for reading or writing: a symlink, fifo or device that
 * was just made and is held as the O_PATH descriptor fd. Many calls refuse those; the link in
 * /proc leads to the same inode, also a symlink's own, whatever has its name by now. */
static sgz_status set_metadata_of_path(sgz_extract_worker *w, const sgz_toc *toc, uint32_t row,
                                       int fd, sgz_error *err)
{
    const sgz_entry *e = &toc->rows[row];
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (w->ex->options.same_owner && fchownat(fd, "", e->uid, e->gid, AT_EMPTY_PATH) != 0)
        return sgz_extract_fail_row(toc, row, errno, NO_OWNER, err);
    if (e->xattr_len) {
        sgz_status st = set_xattrs(w, toc, row, -1, path, err);
        if (st)
            return st;
    }
    if (e->type != SGZ_SYMLINK && chmod(path, mode_of(w, e)) != 0)
        return sgz_extract_fail_row(toc, row, errno, "cannot set the mode", err);
    struct timespec times[2];
    times_of(toc, row, times);
    if (utimensat(AT_FDCWD, path, times, 0) != 0)
        return sgz_extract_fail_row(toc, row, errno, "cannot set the time", err);
    return SGZ_OK;
}

/* --- everything but files and directories ---------------------------------------------- */

static int create(const sgz_toc *toc, const sgz_entry *e, int dir, const char *name)
{
    if (e->type == SGZ_SYMLINK) {
        char target[SGZ_PATH_MAX + 1];
        memcpy(target, toc->arena + e->link_off, e->link_len);
        target[e->link_len] = '\0';
        return symlinkat(target, dir, name) == 0 ? 0 : -errno;
    }
    mode_t type = e->type == SGZ_FIFO ? S_IFIFO : e->type == SGZ_CHAR ? S_IFCHR : S_IFBLK;
    dev_t device = e->type == SGZ_FIFO ? 0 : makedev(e->dev_major, e->dev_minor);
    return mknodat(dir, name, type | 0600, device) == 0 ? 0 : -errno;
}

/* Still what was made, with no other name that it could have come from? */
static int is_ours(const sgz_entry *e, int fd)
{
    struct stat st;
    mode_t type = e->type == SGZ_SYMLINK ? S_IFLNK : e->type == SGZ_FIFO ? S_IFIFO
                  : e->type == SGZ_CHAR ? S_IFCHR : S_IFBLK;
    return fstat(fd, &st) == 0 && (st.st_mode & S_IFMT) == type && st.st_nlink == 1;
}

static sgz_status write_node(sgz_extract_worker *w, uint32_t object, const char *what,
                             sgz_error *err)
{
    struct sgz_extract *ex = w->ex;
    const sgz_extract_object *o = &ex->plan.objects[object];
    const sgz_toc *toc = sgz_extract_toc(ex, o->layer);
    const sgz_entry *e = &toc->rows[o->row];
    char temp[SGZ_TEMP_NAME], base[SGZ_BASE_MAX + 1];
    int dir, bad = -EEXIST;
    sgz_status st = sgz_extract_worker_dir(w, o->node, &dir, err);
    if (st)
        return st;
    for (int tries = 0; tries < TRIES && bad == -EEXIST; tries++) {
        sgz_extract_temp_name(sgz_extract_temp_number(ex), temp);
        bad = create(toc, e, dir, temp);
    }
    if (bad)
        return sgz_extract_fail_row(toc, o->dest, bad, what, err);
    int fd = openat(dir, temp, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        st = sgz_extract_fail_row(toc, o->dest, errno, what, err);
    else if (!is_ours(e, fd))
        st = sgz_base_fail(err, SGZ_EUNSAFE, -1, toc->arena + e->name_off, e->name_len, CHANGED);
    else
        st = set_metadata_of_path(w, toc, o->row, fd, err);
    if (fd >= 0)
        close(fd);
    if (!st) {
        sgz_extract_base_name(toc, o->dest, base);
        bad = sgz_base_beneath_rename(dir, temp, base);
        if (bad)
            st = sgz_extract_fail_row(toc, o->dest, bad, what, err);
    }
    if (st)
        unlinkat(dir, temp, 0);
    return st;
}

sgz_status sgz_extract_write_symlink(sgz_extract_worker *w, uint32_t object, sgz_error *err)
{
    return write_node(w, object, "cannot make the symlink", err);
}

sgz_status sgz_extract_write_special(sgz_extract_worker *w, uint32_t object, sgz_error *err)
{
    return write_node(w, object, "cannot make the fifo or device", err);
}

sgz_status sgz_extract_write_hardlink(sgz_extract_worker *w, uint32_t index, sgz_error *err)
{
    static const char what[] = "cannot make the hard link";
    struct sgz_extract *ex = w->ex;
    const sgz_extract_hardlink *link = &ex->plan.links[index];
    const sgz_toc *toc = sgz_extract_toc(ex, link->layer);
    const sgz_extract_object *o = &ex->plan.objects[link->object];
    char from[SGZ_BASE_MAX + 1], to[SGZ_BASE_MAX + 1], temp[SGZ_TEMP_NAME];
    int from_dir, dir;
    if (o->failed)
        return sgz_base_fail(err, SGZ_EUNSAFE, -1, sgz_toc_row_name(toc, link->dest),
                             toc->rows[link->dest].name_len,
                             "the file that it is a hard link to could not be written");
    sgz_status st = sgz_extract_worker_dir(w, o->node, &from_dir, err);
    if (st)
        return st;
    if (o->node == link->node) {
        dir = from_dir;
    } else {
        /* A copy: the next call may close what the cache holds. */
        from_dir = fcntl(from_dir, F_DUPFD_CLOEXEC, 0);
        if (from_dir < 0)
            return sgz_extract_fail_row(toc, link->dest, errno, what, err);
        st = sgz_extract_worker_dir(w, link->node, &dir, err);
        if (st) {
            close(from_dir);
            return st;
        }
    }
    sgz_extract_base_name(toc, o->dest, from);
    sgz_extract_base_name(toc, link->dest, to);
    int bad = linkat(from_dir, from, dir, to, 0) == 0 ? 0 : -errno;
    if (bad == -EEXIST) {
        for (int tries = 0; tries < TRIES && bad == -EEXIST; tries++) {
            sgz_extract_temp_name(sgz_extract_temp_number(ex), temp);
            bad = linkat(from_dir, from, dir, temp, 0) == 0 ? 0 : -errno;
        }
        if (!bad) {
            bad = sgz_base_beneath_rename(dir, temp, to);
            /* A rename between two names of one file does nothing and leaves both. */
            unlinkat(dir, temp, 0);
        }
    }
    if (from_dir != dir)
        close(from_dir);
    return bad ? sgz_extract_fail_row(toc, link->dest, bad, what, err) : SGZ_OK;
}
