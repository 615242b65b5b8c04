#include "pack/walk_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define FLAGS (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)

/* Every function here is called with the lock held, but for sgz_pack_walk_open. */

static void unlist(sgz_pack_walk_state *s, sgz_pack_walk_dir *dir)
{
    *(dir->newer ? &dir->newer->older : &s->newest) = dir->older;
    *(dir->older ? &dir->older->newer : &s->oldest) = dir->newer;
    dir->newer = dir->older = NULL;
    s->open_count--;
}

static void list_newest(sgz_pack_walk_state *s, sgz_pack_walk_dir *dir)
{
    dir->newer = NULL;
    dir->older = s->newest;
    *(s->newest ? &s->newest->newer : &s->oldest) = dir;
    s->newest = dir;
    s->open_count++;
}

static void shut(sgz_pack_walk_state *s, sgz_pack_walk_dir *dir)
{
    unlist(s, dir);
    close(dir->fd);
    dir->fd = -1;
    s->shut_count++;
}

/* 0: there is none to close. */
static int shut_oldest(sgz_pack_walk_state *s)
{
    for (sgz_pack_walk_dir *dir = s->oldest; dir; dir = dir->newer)
        if (!dir->users) {
            shut(s, dir);
            return 1;
        }
    return 0;
}

static void hold(sgz_pack_walk_state *s, sgz_pack_walk_dir *dir)
{
    dir->users++;
    if (dir->parent) { /* the root is always open */
        unlist(s, dir);
        list_newest(s, dir);
    }
}

static void release(sgz_pack_walk_state *s, sgz_pack_walk_dir *dir)
{
    if (!--dir->users && !dir->waiting && dir->parent)
        shut(s, dir);
}

/* errno of a name that is no directory any more. */
static int is_gone(int sys_errno)
{
    return sys_errno == ENOENT || sys_errno == ENOTDIR || sys_errno == ELOOP;
}

static sgz_status cannot_open(const sgz_pack_walk_dir *dir, int sys_errno, sgz_error *err)
{
    return sgz_base_fail_errno(err, sys_errno, "cannot read this directory", dir->name,
                               dir->name_len);
}

/* Open it in its parent, which is held, and put it in the list, held. *gone when there is no
 * such directory. The lock is let go meanwhile: on a network file system this takes time. */
static sgz_status open_in_parent(sgz_pack_walk_state *s, sgz_pack_walk_dir *dir,
                                 struct stat *info, int *gone, sgz_error *err)
{
    int fd, bad, why, parent = dir->parent->fd;
    uint64_t before;
    do {
        before = s->shut_count;
        pthread_mutex_unlock(&s->job->lock);
        fd = openat(parent, dir->name + dir->base, FLAGS);
        bad = fd < 0 || fstat(fd, info);
        why = errno;
        pthread_mutex_lock(&s->job->lock);
        /* There is room again if another thread shut one meanwhile. */
    } while (fd < 0 && (why == EINTR || ((why == EMFILE || why == ENFILE) &&
                                         (s->shut_count != before || shut_oldest(s)))));
    *gone = fd < 0 && is_gone(why);
    if (bad) {
        if (fd >= 0)
            close(fd);
        return *gone ? SGZ_OK : cannot_open(dir, why, err);
    }
    if (dir->fd >= 0) { /* another thread opened it meanwhile */
        close(fd);
        hold(s, dir);
        return SGZ_OK;
    }
    while (s->open_count >= SGZ_WALK_OPEN_MAX && shut_oldest(s))
        ;
    dir->fd = fd;
    dir->users++;
    list_newest(s, dir);
    return SGZ_OK;
}

/* Open all that are not open from the root to `dir`, and hold `dir`. The last of them stay
 * open: a walk comes back to them next. */
static sgz_status open_again(sgz_pack_walk_state *s, sgz_pack_walk_dir *dir, int *gone,
                             sgz_error *err)
{
    sgz_pack_walk_dir **way = malloc(((size_t)dir->depth + 1) * sizeof *way), *at = dir;
    sgz_status status = SGZ_OK;
    size_t count = 0;
    if (!way)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to walk the tree");
    for (; at->fd < 0; at = at->parent)
        way[count++] = at;
    hold(s, at);
    while (count && !status && !*gone) {
        struct stat info;
        sgz_pack_walk_dir *next = way[--count];
        if (next->fd >= 0) { /* another thread was here */
            hold(s, next);
        } else {
            status = open_in_parent(s, next, &info, gone, err);
            if (status || *gone)
                break;
            /* Another one of the same name is not it. */
            *gone = info.st_ino != next->ino || info.st_dev != next->dev;
        }
        release(s, at);
        at = next;
    }
    if (status || *gone)
        release(s, at);
    free(way);
    return status;
}

sgz_status sgz_pack_walk_open(sgz_pack_walk_state *s, sgz_pack_walk_dir *dir, struct stat *info,
                              sgz_error *err)
{
    sgz_pack_walk_dir *parent = dir->parent;
    sgz_status status = SGZ_OK;
    int gone = 0;
    pthread_mutex_lock(&s->job->lock);
    if (!parent) {
        dir->users++;
        if (fstat(dir->fd, info))
            status = cannot_open(dir, errno, err);
    } else {
        if (parent->fd >= 0)
            hold(s, parent);
        else
            status = open_again(s, parent, &gone, err);
        int held = !status && !gone;
        if (held)
            status = open_in_parent(s, dir, info, &gone, err);
        parent->waiting--;
        if (held)
            release(s, parent);
        dir->gone = (char)gone;
    }
    pthread_mutex_unlock(&s->job->lock);
    return status;
}

void sgz_pack_walk_let_go(sgz_pack_walk_state *s, sgz_pack_walk_dir *dir)
{
    release(s, dir);
}
