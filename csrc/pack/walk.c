#define _GNU_SOURCE
#include "pack/walk_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buffer.h"

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to walk the tree");
}

/* --- the queue -------------------------------------------------------------------------- */

/* With the lock held. NULL: no memory. */
static sgz_pack_walk_dir *new_dir(sgz_pack_walk_state *s, sgz_pack_walk_dir *parent)
{
    sgz_pack_walk_dir *dir = NULL;
    if (s->dir_count < SGZ_WALK_NONE && SGZ_FIT(s->dirs, s->dir_cap, s->dir_count + 1) &&
        SGZ_FIT(s->stack, s->stack_cap, s->stack_count + 1))
        dir = calloc(1, sizeof *dir);
    if (!dir)
        return NULL;
    dir->fd = -1;
    dir->parent = parent;
    dir->depth = parent ? parent->depth + 1 : 0;
    dir->number = (uint32_t)s->dir_count;
    s->dirs[s->dir_count++] = s->stack[s->stack_count++] = dir;
    return dir;
}

/* Queue what is to be entered, so that the first is read first. */
static sgz_status queue_children(sgz_pack_walk_state *s, sgz_pack_walk_dir *dir, sgz_error *err)
{
    for (size_t i = dir->count; i--;) {
        sgz_pack_walk_entry *e = &dir->entries[i];
        uint32_t enter = e->target;
        e->target = SGZ_WALK_NONE;
        if (!enter)
            continue;
        sgz_pack_walk_dir *sub = new_dir(s, dir);
        if (!sub)
            return no_memory(err);
        sub->name = dir->text + e->name_off;
        sub->name_len = e->name_len;
        sub->base = dir->name_len + (dir->name_len > 0);
        sub->dev = e->dev;
        sub->ino = e->ino;
        sub->tentative = enter == 2;
        e->target = sub->number;
        dir->waiting++;
    }
    return SGZ_OK;
}

static sgz_status read_dir(sgz_pack_walk_worker *w, sgz_pack_walk_dir *dir, sgz_error *err)
{
    struct stat info;
    sgz_pack_walk_state *s = w->state;
    sgz_status status = sgz_pack_walk_open(s, dir, &info, err);
    if (status || dir->gone)
        return status;
    if (dir->parent && (info.st_ino != dir->ino || info.st_dev != dir->dev)) {
        if (s->options->one_file_system && info.st_dev != dir->parent->dev)
            dir->gone = 1;
        else
            status = sgz_pack_walk_renew(w, dir, &info, err);
    }
    if (!status && !dir->gone)
        status = sgz_pack_walk_list(w, dir, err);
    pthread_mutex_lock(&s->job->lock);
    if (!status)
        status = queue_children(s, dir, err);
    sgz_pack_walk_let_go(s, dir);
    if (s->stack_count)
        pthread_cond_broadcast(&s->job->changed);
    pthread_mutex_unlock(&s->job->lock);
    return status;
}

static sgz_status run(sgz_pack_walk_worker *w, sgz_error *err)
{
    sgz_pack_walk_state *s = w->state;
    sgz_status status = SGZ_OK;
    pthread_mutex_lock(&s->job->lock);
    while (!status) {
        while (!s->stack_count && s->busy && !sgz_base_job_stopped(s->job))
            pthread_cond_wait(&s->job->changed, &s->job->lock);
        if (!s->stack_count || sgz_base_job_stopped(s->job))
            break;
        sgz_pack_walk_dir *dir = s->stack[--s->stack_count];
        s->busy++;
        pthread_mutex_unlock(&s->job->lock);
        status = read_dir(w, dir, err);
        pthread_mutex_lock(&s->job->lock);
        if (!--s->busy && !s->stack_count)
            pthread_cond_broadcast(&s->job->changed);
    }
    pthread_mutex_unlock(&s->job->lock);
    return status;
}

/* --- threads ---------------------------------------------------------------------------- */

/* A thread of its own: the caller's working directory must stay what it is. */
static sgz_status work(void *arg, int number, sgz_error *err)
{
    sgz_pack_walk_worker w = {.state = arg};
    (void)number;
    /* A sandbox may forbid it; then /proc leads to the directories. */
    w.own_cwd = !unshare(CLONE_FS);
    w.dents = malloc(SGZ_WALK_XATTR_MAX);
    w.keys = malloc(SGZ_WALK_XATTR_MAX + 1);
    w.value = malloc(SGZ_WALK_XATTR_MAX);
    w.key_order = malloc(SGZ_WALK_XATTR_MAX / 2 * sizeof *w.key_order);
    sgz_status status = w.dents && w.keys && w.value && w.key_order ? run(&w, err)
                                                                    : no_memory(err);
    free(w.names);
    free(w.order);
    free(w.dents);
    free(w.keys);
    free(w.value);
    free(w.key_order);
    return status;
}

/* --- the order of the whole ------------------------------------------------------------- */

static int is_kept(const sgz_pack_walk_state *s, const sgz_pack_walk_entry *e)
{
    if (e->target == SGZ_WALK_NONE)
        return 1;
    const sgz_pack_walk_dir *sub = s->dirs[e->target];
    return !sub->gone && (!sub->tentative || sub->all_count);
}

static size_t text_of(const sgz_pack_walk_state *s, const sgz_pack_walk_entry *e)
{
    const sgz_pack_walk_dir *sub = e->target == SGZ_WALK_NONE ? NULL : s->dirs[e->target];
    return (size_t)e->name_len + 1 + e->link_len +
           (sub && sub->renewed ? sub->now.xattr_len : e->xattr_len);
}

/* From the leaves up: a directory's number is above its parent's. */
static void count_all(sgz_pack_walk_state *s)
{
    for (size_t n = s->dir_count; n--;) {
        sgz_pack_walk_dir *dir = s->dirs[n];
        for (size_t i = 0; i < dir->count; i++) {
            const sgz_pack_walk_entry *e = &dir->entries[i];
            if (!is_kept(s, e))
                continue;
            dir->all_count++;
            dir->all_text += text_of(s, e);
            if (e->target != SGZ_WALK_NONE) {
                dir->all_count += s->dirs[e->target]->all_count;
                dir->all_text += s->dirs[e->target]->all_text;
            }
        }
    }
}

/* Move one text into the arena. */
static uint64_t put_text(sgz_pack_walk *walk, const char *text, size_t len)
{
    uint64_t at = walk->arena_len;
    if (len)
        memcpy(walk->arena + at, text, len);
    walk->arena_len += len;
    return at;
}

static void put_in_order(sgz_pack_walk_state *s, sgz_pack_walk *walk)
{
    sgz_pack_walk_dir *dir = s->dirs[0];
    while (dir) {
        if (dir->next == dir->count) {
            sgz_pack_walk_dir *parent = dir->parent;
            free(dir->entries);
            free(dir->text);
            dir->entries = NULL;
            dir->text = NULL;
            dir->count = dir->next = 0;
            dir = parent;
            continue;
        }
        const sgz_pack_walk_entry *e = &dir->entries[dir->next++];
        if (!is_kept(s, e))
            continue;
        sgz_pack_walk_entry *out = &walk->entries[walk->count++];
        sgz_pack_walk_dir *sub = e->target == SGZ_WALK_NONE ? NULL : s->dirs[e->target];
        const char *xattrs = dir->text + e->xattr_off;
        *out = *e;
        out->target = SGZ_WALK_NONE;
        if (sub && sub->renewed) {
            *out = sub->now;
            xattrs = sub->text + sub->now.xattr_off;
        }
        /* The name with its final NUL. */
        out->name_off = put_text(walk, dir->text + e->name_off, (size_t)e->name_len + 1);
        out->link_off = put_text(walk, dir->text + e->link_off, e->link_len);
        out->xattr_off = put_text(walk, xattrs, out->xattr_len);
        if (sub)
            dir = sub;
    }
}

/* Second names of a file become hard links to the first. */
static sgz_status link_names(sgz_pack_walk *walk, sgz_error *err)
{
    size_t several = 0;
    sgz_map files = {0};
    for (size_t i = 0; i < walk->count; i++)
        several += walk->entries[i].type == '0' && walk->entries[i].nlink > 1;
    if (!sgz_map_reserve(&files, several))
        return no_memory(err);
    for (size_t i = 0; i < walk->count; i++) {
        sgz_pack_walk_entry *e = &walk->entries[i];
        if (e->type != '0' || e->nlink < 2)
            continue;
        uint64_t hash = (e->ino ^ e->dev << 32 ^ e->dev >> 32) * 0x9e3779b97f4a7c15u >> 20;
        size_t at = sgz_map_first(&files, hash);
        for (; sgz_map_taken(&files, at); at = sgz_map_next(&files, hash, at)) {
            const sgz_pack_walk_entry *first = &walk->entries[sgz_map_number(&files, at)];
            if (first->ino == e->ino && first->dev == e->dev)
                break;
        }
        if (!sgz_map_taken(&files, at)) {
            sgz_map_put(&files, at, hash, (uint32_t)i);
            continue;
        }
        e->type = '1';
        e->size = 0;
        e->target = sgz_map_number(&files, at);
    }
    sgz_map_free(&files);
    return SGZ_OK;
}

static sgz_status put_together(sgz_pack_walk_state *s, sgz_pack_walk *walk, sgz_error *err)
{
    count_all(s);
    size_t count = s->dirs[0]->all_count, text = s->dirs[0]->all_text;
    if (count >= SGZ_WALK_NONE)
        return sgz_base_fail(err, SGZ_EIO, -1, NULL, 0,
                             "the tree has more than 4 billion files");
    walk->entries = sgz_base_buffer_new(count * sizeof *walk->entries);
    walk->arena = sgz_base_buffer_new(text);
    if (!walk->entries || !walk->arena)
        return no_memory(err);
    put_in_order(s, walk);
    walk->sockets = s->sockets;
    memcpy(walk->first_socket, s->first_socket, sizeof walk->first_socket);
    return link_names(walk, err);
}

/* --- the whole -------------------------------------------------------------------------- */

static void state_free(sgz_pack_walk_state *s)
{
    for (size_t i = 0; i < s->dir_count; i++) {
        sgz_pack_walk_dir *dir = s->dirs[i];
        if (dir->fd >= 0)
            close(dir->fd);
        free(dir->entries);
        free(dir->text);
        free(dir);
    }
    free(s->dirs);
    free(s->stack);
    pthread_mutex_destroy(&s->ignoring);
    free(s);
}

sgz_status sgz_pack_walk_start(sgz_pack_walk_state **state, sgz_base_job *job, int root,
                               const sgz_pack_walk_options *options, sgz_error *err)
{
    sgz_pack_walk_state *s = calloc(1, sizeof *s);
    struct stat info;
    if (!s)
        return no_memory(err);
    s->job = job;
    s->options = options;
    pthread_mutex_init(&s->ignoring, NULL);
    sgz_pack_walk_dir *dir = new_dir(s, NULL);
    sgz_status status = dir ? SGZ_OK : no_memory(err);
    if (dir) {
        /* The caller's descriptor has a position that is not ours to move. */
        dir->name = "";
        dir->fd = openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir->fd < 0 || fstat(dir->fd, &info))
            status = sgz_base_fail_errno(err, errno, "cannot read this directory", ".", 1);
    }
    if (!status) {
        dir->dev = info.st_dev;
        dir->ino = info.st_ino;
        status = sgz_base_job_start(job, options->threads, work, s, err);
    }
    if (status)
        state_free(s);
    else
        *state = s;
    return status;
}

sgz_status sgz_pack_walk_finish(sgz_pack_walk_state *s, sgz_pack_walk *walk, sgz_error *err)
{
    memset(walk, 0, sizeof *walk);
    sgz_status status = sgz_base_job_join(s->job, err);
    if (!status)
        status = put_together(s, walk, err);
    if (status)
        sgz_pack_walk_free(walk);
    state_free(s);
    return status;
}

void sgz_pack_walk_free(sgz_pack_walk *walk)
{
    free(walk->entries);
    free(walk->arena);
    memset(walk, 0, sizeof *walk);
}
