/* The server's life, and what all of its parts share. */
#define _GNU_SOURCE
#include "mount/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the FUSE server");
}

sgz_status sgz_mount_new(sgz_mount **fuse, int fd, int asked, sgz_error *err)
{
    sgz_mount *f = calloc(1, sizeof(*f));
    if (f)
        f->trees = calloc(SGZ_FUSE_TREES, sizeof(*f->trees));
    if (!f || !f->trees) {
        free(f);
        return no_memory(err);
    }
    f->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int flags = f->stop_fd < 0 ? -1 : fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        int failed = errno;
        if (f->stop_fd >= 0)
            close(f->stop_fd);
        free(f->trees);
        free(f);
        return sgz_base_fail_errno(err, failed, "cannot serve", "/dev/fuse", 9);
    }
    f->fd = fd;
    f->asked_root = asked;
    f->tree_count = asked ? 1 : 0;
    f->runnable_end = &f->runnable;
    clock_gettime(CLOCK_MONOTONIC, &f->began);
    pthread_mutex_init(&f->lock, NULL);
    sgz_base_cond_init(&f->answer_cond);
    sgz_base_cond_init(&f->event_cond);
    sgz_base_cond_init(&f->state_cond);
    *fuse = f;
    return SGZ_OK;
}

static void free_tree(sgz_mount_tree *tree)
{
    if (!tree)
        return;
    free(tree->accesses);
    free(tree->numbers);
    free(tree);
}

void sgz_mount_free(sgz_mount *f)
{
    if (!f)
        return;
    for (uint32_t i = 0; i < f->tree_count; i++)
        free_tree(f->trees[i]);
    while (f->requests) {
        sgz_mount_asked *next = f->requests->next;
        free(f->requests);
        f->requests = next;
    }
    free(f->trees);
    close(f->stop_fd);
    pthread_cond_destroy(&f->answer_cond);
    pthread_cond_destroy(&f->event_cond);
    pthread_cond_destroy(&f->state_cond);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

sgz_status sgz_mount_add(sgz_mount *f, const sgz_mount_added *served, uint32_t *number,
                         sgz_error *err)
{
    sgz_mount_tree *tree = calloc(1, sizeof(*tree));
    size_t layers = served->tree->layer_count;
    if (tree) {
        tree->accesses = calloc((size_t)served->tree->count + 1, sizeof(*tree->accesses));
        tree->numbers = calloc(layers + 1, sizeof(*tree->numbers));
    }
    if (!tree || !tree->accesses || !tree->numbers) {
        free_tree(tree);
        return no_memory(err);
    }
    tree->served = *served;
    memcpy(tree->numbers, served->layers, layers * sizeof(*tree->numbers));
    tree->served.layers = tree->numbers;
    tree->xattrs = sgz_toc_tree_has_xattrs(served->tree);
    pthread_mutex_lock(&f->lock);
    uint32_t count = f->tree_count;
    if (count < SGZ_FUSE_TREES) {
        tree->base = (uint64_t)count << SGZ_FUSE_TREE_SHIFT;
        f->trees[count] = tree;
        __atomic_store_n(&f->tree_count, count + 1, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&f->lock);
    if (count >= SGZ_FUSE_TREES) {
        free_tree(tree);
        return sgz_base_fail(
            err, SGZ_EIO, -1, NULL, 0,
            "%d images and layers are open in this mount already; unmount it and "
            "mount it again",
            SGZ_FUSE_TREES - 1);
    }
    *number = count;
    return SGZ_OK;
}

/* --- nodes --------------------------------------------------------------------------------- */

sgz_mount_tree *sgz_mount_tree_at(const sgz_mount *f, uint64_t number)
{
    if (number >= __atomic_load_n(&f->tree_count, __ATOMIC_ACQUIRE))
        return NULL;
    return f->trees[number];
}

sgz_mount_tree *sgz_mount_find(const sgz_mount *f, uint64_t id, uint32_t *node)
{
    uint64_t low = id & (((uint64_t)1 << SGZ_FUSE_TREE_SHIFT) - 1);
    sgz_mount_tree *tree = sgz_mount_tree_at(f, id >> SGZ_FUSE_TREE_SHIFT);
    if (!tree || !low || low > tree->served.tree->count)
        return NULL;
    *node = (uint32_t)(low - 1);
    return tree;
}

const sgz_mount_access *sgz_mount_accesses(const sgz_mount *f, uint32_t number)
{
    const sgz_mount_tree *tree = sgz_mount_tree_at(f, number);
    return tree ? tree->accesses : NULL;
}

void sgz_mount_get_stats(const sgz_mount *f, sgz_mount_stats *stats)
{
    stats->requests = __atomic_load_n(&f->stats.requests, __ATOMIC_RELAXED);
    stats->reads = __atomic_load_n(&f->stats.reads, __ATOMIC_RELAXED);
    stats->parked = __atomic_load_n(&f->stats.parked, __ATOMIC_RELAXED);
    stats->failed = __atomic_load_n(&f->stats.failed, __ATOMIC_RELAXED);
}

/* --- states -------------------------------------------------------------------------------- */

void sgz_mount_set_state(sgz_mount *f, int state)
{
    pthread_mutex_lock(&f->lock);
    if (state > f->state)
        f->state = state;
    if (f->answer == SGZ_FUSE_WAITING)
        f->answer = state;
    pthread_cond_broadcast(&f->state_cond);
    pthread_cond_broadcast(&f->event_cond);
    pthread_cond_broadcast(&f->answer_cond);
    pthread_mutex_unlock(&f->lock);
}

int sgz_mount_wait(sgz_mount *f, int timeout_ms)
{
    struct timespec until = sgz_base_deadline(timeout_ms);
    pthread_mutex_lock(&f->lock);
    while (f->answer == SGZ_FUSE_WAITING &&
           pthread_cond_timedwait(&f->state_cond, &f->lock, &until) != ETIMEDOUT)
        ;
    int answer = f->answer;
    pthread_mutex_unlock(&f->lock);
    return answer;
}

uint32_t sgz_mount_version(const sgz_mount *f)
{
    return __atomic_load_n(&f->version, __ATOMIC_RELAXED);
}

void sgz_mount_stop(sgz_mount *f)
{
    uint64_t many = 1;
    __atomic_store_n(&f->stopping, 1, __ATOMIC_SEQ_CST);
    sgz_mount_set_state(f, SGZ_FUSE_ENDED);
    ssize_t written = write(f->stop_fd, &many, sizeof(many)); /* nobody reads it: it stays */
    (void)written;
    pthread_mutex_lock(&f->lock);
    while (__atomic_load_n(&f->serving, __ATOMIC_SEQ_CST) > 0) {
        struct timespec until = sgz_base_deadline(100);
        pthread_cond_timedwait(&f->state_cond, &f->lock, &until);
    }
    pthread_mutex_unlock(&f->lock);
}

/* --- messages ------------------------------------------------------------------------------ */

void sgz_mount_send(sgz_mount *f, uint64_t unique, int error, const void *data, size_t len)
{
    struct fuse_out_header head = {
        .len = (uint32_t)(sizeof(head) + (error ? 0 : len)), .error = -error, .unique = unique};
    struct iovec parts[2] = {{&head, sizeof(head)}, {(void *)(uintptr_t)data, len}};
    /* Fails when the request was given up (ENOENT) or the mount is gone: nobody waits. */
    ssize_t written = writev(f->fd, parts, error || !len ? 1 : 2);
    (void)written;
}
