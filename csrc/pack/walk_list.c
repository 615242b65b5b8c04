#include "pack/walk_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/xattrs.h"

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to walk the tree");
}

/* --- names ------------------------------------------------------------------------------ */

struct dent { /* what the kernel gives: getdents64(2) */
    uint64_t ino;
    int64_t off;
    uint16_t len;
    uint8_t type;
    char name[];
};

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* All names of a directory, sorted, in worker->order. */
static sgz_status read_names(sgz_pack_walk_worker *w, const sgz_pack_walk_dir *dir,
                             size_t *count, sgz_error *err)
{
    w->names_len = 0;
    *count = 0;
    for (;;) {
        long got = syscall(SYS_getdents64, dir->fd, w->dents, SGZ_WALK_XATTR_MAX);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == ENOENT)
            got = 0; /* removed while it is open */
        if (got < 0)
            return sgz_base_fail_errno(err, errno, "cannot read this directory", dir->name,
                                       dir->name_len);
        if (!got)
            break;
        if (sgz_base_job_stopped(w->state->job))
            return SGZ_ECANCELLED;
        for (long at = 0; at < got;) {
            const struct dent *d = (const void *)(w->dents + at);
            size_t len = strlen(d->name) + 1;
            at += d->len;
            if (!strcmp(d->name, ".") || !strcmp(d->name, ".."))
                continue;
            if (!SGZ_FIT(w->names, w->names_cap, w->names_len + len))
                return no_memory(err);
            memcpy(w->names + w->names_len, d->name, len);
            w->names_len += len;
            ++*count;
        }
    }
    if (!SGZ_FIT(w->order, w->order_cap, *count))
        return no_memory(err);
    const char *name = w->names;
    for (size_t i = 0; i < *count; i++, name += strlen(name) + 1)
        w->order[i] = name;
    if (*count)
        qsort(w->order, *count, sizeof *w->order, by_bytes);
    return SGZ_OK;
}

/* --- entries ---------------------------------------------------------------------------- */

static void fill(sgz_pack_walk_entry *e, const struct stat *info)
{
    e->size = S_ISREG(info->st_mode) ? info->st_size : 0;
    e->mtime = info->st_mtim.tv_sec;
    e->ctime = info->st_ctim.tv_sec;
    e->mtime_nsec = (uint32_t)info->st_mtim.tv_nsec;
    e->ctime_nsec = (uint32_t)info->st_ctim.tv_nsec;
    e->ino = info->st_ino;
    e->dev = info->st_dev;
    e->mode = info->st_mode & 07777;
    e->uid = info->st_uid;
    e->gid = info->st_gid;
    e->nlink = (uint32_t)info->st_nlink;
    e->dev_major = e->dev_minor = 0;
    if (S_ISCHR(info->st_mode) || S_ISBLK(info->st_mode)) {
        e->dev_major = major(info->st_rdev);
        e->dev_minor = minor(info->st_rdev);
    }
    switch (info->st_mode & S_IFMT) {
    case S_IFREG: e->type = '0'; break;
    case S_IFLNK: e->type = '2'; break;
    case S_IFCHR: e->type = '3'; break;
    case S_IFBLK: e->type = '4'; break;
    case S_IFDIR: e->type = '5'; break;
    case S_IFIFO: e->type = '6'; break;
    default: e->type = 0; /* a socket */
    }
}

/* Where xattr calls find an entry of the directory. */
static const char *path_of(sgz_pack_walk_worker *w, const char *base)
{
    if (w->at_cwd)
        return base;
    snprintf(w->path + w->path_base, sizeof w->path - w->path_base, "/%s", base);
    return w->path;
}

/* The kernel says that the entry itself is no more, not just one of its attributes. */
static int vanished(int sys_errno)
{
    return sys_errno == ENOENT || sys_errno == ENOTDIR;
}

/* Put the target of a link after the name; *gone: it is no link any more. */
static sgz_status read_target(sgz_pack_walk_worker *w, sgz_pack_walk_dir *dir,
                              sgz_pack_walk_entry *e, const char *base, int *gone,
                              sgz_error *err)
{
    ssize_t len = readlinkat(w->at_cwd ? AT_FDCWD : dir->fd, base, w->value, SGZ_WALK_XATTR_MAX);
    if (len < 0 && (vanished(errno) || errno == EINVAL)) {
        *gone = 1;
        return SGZ_OK;
    }
    if (len < 0)
        return sgz_base_fail_errno(err, errno, "cannot read this link", dir->text + e->name_off,
                                   e->name_len);
    if (!SGZ_FIT(dir->text, dir->text_cap, dir->text_len + (size_t)len))
        return no_memory(err);
    e->link_off = dir->text_len;
    e->link_len = (uint32_t)len;
    if (len)
        memcpy(dir->text + dir->text_len, w->value, (size_t)len);
    dir->text_len += (size_t)len;
    return SGZ_OK;
}

/* First with a buffer that most fit into: the kernel allocates one as large for each call, and
 * one of 64 KiB costs more than all the rest of it. */
static ssize_t list_keys(sgz_pack_walk_worker *w, const char *path)
{
    ssize_t len = llistxattr(path, w->keys, 256);
    return len < 0 && errno == ERANGE ? llistxattr(path, w->keys, SGZ_WALK_XATTR_MAX) : len;
}

static ssize_t get_value(sgz_pack_walk_worker *w, const char *path, const char *key)
{
    ssize_t len = lgetxattr(path, key, w->value, 256);
    return len < 0 && errno == ERANGE ? lgetxattr(path, key, w->value, SGZ_WALK_XATTR_MAX)
                                      : len;
}

static sgz_status read_xattrs(sgz_pack_walk_worker *w, sgz_pack_walk_dir *dir,
                              sgz_pack_walk_entry *e, const char *base, int *gone,
                              sgz_error *err)
{
    const char *path = path_of(w, base);
    ssize_t list_len = list_keys(w, path);
    size_t count = 0;
    e->xattr_off = dir->text_len;
    if (list_len <= 0) {
        if (!list_len || errno == ENOTSUP || (*gone = vanished(errno)))
            return SGZ_OK;
        return sgz_base_fail_errno(err, errno, "cannot list the extended attributes",
                                   dir->text + e->name_off, e->name_len);
    }
    w->keys[list_len] = '\0';
    for (ssize_t at = 0; at < list_len; at += (ssize_t)strlen(w->keys + at) + 1)
        if (w->keys[at])
            w->key_order[count++] = w->keys + at;
    qsort(w->key_order, count, sizeof *w->key_order, by_bytes);
    for (size_t i = 0; i < count; i++) {
        const char *key = w->key_order[i];
        ssize_t len = get_value(w, path, key);
        if (len < 0 && (errno == ENODATA || errno == ENOTSUP))
            continue; /* removed meanwhile */
        if (len < 0 && (*gone = vanished(errno)))
            return SGZ_OK;
        if (len < 0)
            return sgz_base_fail_errno(err, errno, "cannot read the extended attributes",
                                       dir->text + e->name_off, e->name_len);
        sgz_xattr x = {key, w->value, (uint32_t)strlen(key), (uint32_t)len};
        if (!SGZ_FIT(dir->text, dir->text_cap,
                     dir->text_len + sgz_xattrs_size(x.key_len, x.value_len)))
            return no_memory(err);
        dir->text_len = (size_t)(sgz_xattrs_put(dir->text + dir->text_len, &x) - dir->text);
    }
    e->xattr_len = (uint32_t)(dir->text_len - e->xattr_off);
    return SGZ_OK;
}

/* A directory's names have the directory's before them. */
static sgz_status put_name(sgz_pack_walk_dir *dir, sgz_pack_walk_entry *e, const char *base,
                           sgz_error *err)
{
    size_t base_len = strlen(base), dir_len = dir->name_len + (dir->name_len > 0);
    size_t len = dir_len + base_len;
    if (len > SGZ_WALK_NAME_MAX)
        return sgz_base_fail_errno(err, ENAMETOOLONG, "its name is longer than a layer can hold",
                                   dir->name, dir->name_len);
    if (!SGZ_FIT(dir->text, dir->text_cap, dir->text_len + len + 1))
        return no_memory(err);
    char *out = dir->text + dir->text_len;
    if (dir_len) {
        memcpy(out, dir->name, dir->name_len);
        out[dir->name_len] = '/';
    }
    memcpy(out + dir_len, base, base_len + 1);
    e->name_off = dir->text_len;
    e->name_len = (uint32_t)len;
    dir->text_len += len + 1;
    return SGZ_OK;
}

static void note_socket(sgz_pack_walk_state *s, const char *name)
{
    pthread_mutex_lock(&s->job->lock);
    if (!s->sockets++ || strcmp(name, s->first_socket) < 0)
        snprintf(s->first_socket, sizeof s->first_socket, "%s", name);
    pthread_mutex_unlock(&s->job->lock);
}

static int ask_ignore(sgz_pack_walk_worker *w, const char *name, const sgz_pack_walk_entry *e)
{
    sgz_pack_walk_state *s = w->state;
    int answer = -2;
    pthread_mutex_lock(&s->ignoring);
    if (!sgz_base_job_stopped(s->job))
        answer = s->options->ignore(s->options->ignore_arg, name, e->name_len, e->type == '5');
    pthread_mutex_unlock(&s->ignoring);
    return answer;
}

/* One name: the next of dir->entries if it is to be kept. */
static sgz_status add(sgz_pack_walk_worker *w, sgz_pack_walk_dir *dir, const char *base,
                      sgz_error *err)
{
    const sgz_pack_walk_options *o = w->state->options;
    sgz_pack_walk_entry *e = &dir->entries[dir->count];
    size_t before = dir->text_len;
    struct stat info;
    int gone = 0, ignored = 0;
    memset(e, 0, sizeof *e);
    sgz_status status = put_name(dir, e, base, err);
    if (status)
        return status;
    const char *name = dir->text + e->name_off;
    if (fstatat(w->at_cwd ? AT_FDCWD : dir->fd, base, &info, AT_SYMLINK_NOFOLLOW)) {
        if (!vanished(errno))
            return sgz_base_fail_errno(err, errno, "cannot look at this", name, e->name_len);
        dir->text_len = before;
        return SGZ_OK;
    }
    fill(e, &info);
    if (o->ignore) {
        ignored = ask_ignore(w, name, e);
        if (ignored == -2)
            return SGZ_ECANCELLED;
        if (ignored < 0)
            return sgz_base_fail(err, SGZ_ECALLBACK, -1, name, e->name_len,
                                 "stopped by the caller");
    }
    int enter = e->type == '5' && (!o->one_file_system || e->dev == dir->dev);
    if (!e->type && !ignored)
        note_socket(w->state, name);
    if (!e->type || ignored > 1 || (ignored && !enter)) {
        dir->text_len = before;
        return SGZ_OK;
    }
    e->known = o->known ? o->known(o->known_arg, e, name) : SGZ_WALK_NONE;
    if (e->known == SGZ_WALK_NONE) {
        if (e->type == '2')
            status = read_target(w, dir, e, base, &gone, err);
        if (!status && !gone)
            status = read_xattrs(w, dir, e, base, &gone, err);
    }
    e->target = enter ? 1 + (uint32_t)ignored : 0;
    if (gone)
        dir->text_len = before;
    else
        dir->count++;
    return status;
}

/* Make the directory the one that look-ups without a slash begin at, where that can be: a step
 * less for each, and for xattrs there is no call that takes a descriptor. */
static void go_to(sgz_pack_walk_worker *w, const sgz_pack_walk_dir *dir)
{
    w->path_base = (size_t)snprintf(w->path, sizeof w->path, "/proc/self/fd/%d", dir->fd);
    w->at_cwd = w->own_cwd && !fchdir(dir->fd);
}

sgz_status sgz_pack_walk_renew(sgz_pack_walk_worker *w, sgz_pack_walk_dir *dir,
                               const struct stat *info, sgz_error *err)
{
    int gone = 0;
    dir->dev = info->st_dev;
    dir->ino = info->st_ino;
    dir->renewed = 1;
    memset(&dir->now, 0, sizeof dir->now);
    fill(&dir->now, info);
    dir->now.name_len = dir->name_len;
    dir->now.known = dir->now.target = SGZ_WALK_NONE;
    go_to(w, dir);
    sgz_status status = read_xattrs(w, dir, &dir->now, ".", &gone, err);
    dir->gone = (char)gone;
    return status;
}

sgz_status sgz_pack_walk_list(sgz_pack_walk_worker *w, sgz_pack_walk_dir *dir, sgz_error *err)
{
    size_t count;
    sgz_status status = read_names(w, dir, &count, err);
    if (status || !count)
        return status;
    if (!SGZ_FIT(dir->entries, dir->cap, count) ||
        !SGZ_FIT(dir->text, dir->text_cap,
                 dir->text_len + w->names_len + count * ((size_t)dir->name_len + 1)))
        return no_memory(err);
    go_to(w, dir);
    for (size_t i = 0; i < count && !status; i++) {
        if (i % 256 == 255 && sgz_base_job_stopped(w->state->job))
            status = SGZ_ECANCELLED;
        if (!status)
            status = add(w, dir, w->order[i], err);
    }
    return status;
}
