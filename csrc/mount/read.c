/* Reads: answered at once from what is local, else parked until their chunks have come. */
#define _GNU_SOURCE
#include "mount/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint64_t since(const sgz_mount *f)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t ns = (now.tv_sec - f->began.tv_sec) * 1000000000LL + now.tv_nsec - f->began.tv_nsec;
    return ns > 0 ? (uint64_t)ns : 1;
}

static void note(const sgz_mount *f, sgz_mount_tree *tree, uint32_t node, size_t size)
{
    sgz_mount_access *access = &tree->accesses[node];
    if (!__atomic_load_n(&access->first, __ATOMIC_RELAXED)) {
        uint64_t none = 0;
        __atomic_compare_exchange_n(&access->first, &none, since(f), 0, __ATOMIC_RELAXED,
                                    __ATOMIC_RELAXED);
    }
    __atomic_fetch_add(&access->bytes, size, __ATOMIC_RELAXED);
}

/* --- waiting ------------------------------------------------------------------------------- */

/* Under the lock. */
static void unlist(sgz_mount *f, sgz_mount_parked *p)
{
    if (p->prev)
        p->prev->next = p->next;
    else
        f->waiting = p->next;
    if (p->next)
        p->next->prev = p->prev;
    p->listed = 0;
}

/* Under the lock. */
static void make_runnable(sgz_mount *f, sgz_mount_parked *p)
{
    p->next = NULL;
    *f->runnable_end = p;
    f->runnable_end = &p->next;
    pthread_cond_signal(&f->answer_cond);
}

/* Its chunks have come, or failed. May be called by any thread, while `wait_for` is still on
 * its way or INTERRUPT at work. */
static void ready(sgz_chunks_want *want)
{
    sgz_mount_parked *p = (sgz_mount_parked *)want;
    sgz_mount *f = p->fuse;
    pthread_mutex_lock(&f->lock);
    p->woken = 1;
    if (p->listed && !p->held) {
        unlist(f, p);
        make_runnable(f, p);
    }
    pthread_mutex_unlock(&f->lock);
}

/* After sgz_chunks_read parked it. */
static void wait_for(sgz_mount *f, sgz_mount_parked *p)
{
    pthread_mutex_lock(&f->lock);
    if (p->woken) {
        make_runnable(f, p);
    } else {
        p->prev = NULL;
        p->next = f->waiting;
        if (p->next)
            p->next->prev = p;
        f->waiting = p;
        p->listed = 1;
    }
    pthread_mutex_unlock(&f->lock);
}

static void leave(sgz_mount *f, sgz_mount_parked *p)
{
    pthread_mutex_lock(&f->lock);
    if (--f->parked_count == 0)
        pthread_cond_broadcast(&f->answer_cond);
    pthread_mutex_unlock(&f->lock);
    free(p);
}

int sgz_mount_interrupt_read(sgz_mount *f, uint64_t unique)
{
    pthread_mutex_lock(&f->lock);
    sgz_mount_parked *p = f->waiting;
    while (p && p->unique != unique)
        p = p->next;
    if (!p) { /* it may be about to be tried again */
        for (p = f->runnable; p && p->unique != unique; p = p->next)
            ;
        if (p)
            p->interrupted = 1;
        pthread_mutex_unlock(&f->lock);
        return p != NULL;
    }
    if (p->held) { /* another thread is at it */
        pthread_mutex_unlock(&f->lock);
        return 1;
    }
    p->held = p->interrupted = 1;
    sgz_mount_tree *tree = sgz_mount_tree_at(f, p->node >> SGZ_FUSE_TREE_SHIFT);
    pthread_mutex_unlock(&f->lock);
    int cancelled = sgz_chunks_cancel(tree->served.chunks, &p->want);
    pthread_mutex_lock(&f->lock);
    p->held = 0;
    if (cancelled || p->woken) {
        unlist(f, p);
        if (!cancelled)
            make_runnable(f, p);
    }
    pthread_mutex_unlock(&f->lock);
    if (cancelled) {
        sgz_mount_send(f, unique, EINTR, NULL, 0);
        leave(f, p);
    }
    return 1;
}

/* --- reading ------------------------------------------------------------------------------- */

static void fail(sgz_mount *f, const sgz_mount_parked *p, const sgz_error *err)
{
    __atomic_fetch_add(&f->stats.failed, 1, __ATOMIC_RELAXED);
    if (err->code != SGZ_ECANCELLED)
        sgz_mount_report(f, p->node, err);
    sgz_mount_send(f, p->unique, EIO, NULL, 0);
}

/* Answer it, or let it wait (1). */
static int try_read(sgz_mount *f, sgz_mount_parked *p, uint8_t *out)
{
    sgz_error err = {.code = SGZ_OK};
    sgz_mount_tree *tree = sgz_mount_tree_at(f, p->node >> SGZ_FUSE_TREE_SHIFT);
    int parks = 0;
    p->woken = 0;
    sgz_status status = sgz_chunks_read(tree->served.chunks, &p->want, out, &parks, &err);
    if (status != SGZ_OK) {
        err.code = status;
        fail(f, p, &err);
        return 0;
    }
    if (parks)
        return 1;
    sgz_mount_send(f, p->unique, 0, out, p->want.size);
    return 0;
}

void sgz_mount_read(sgz_mount_thread *t, const sgz_mount_request *request)
{
    sgz_mount *f = t->fuse;
    uint64_t unique = request->head->unique;
    uint32_t node;
    const struct fuse_read_in *in = BODY(request, struct fuse_read_in);
    sgz_mount_tree *tree = sgz_mount_find(f, request->head->nodeid, &node);
    const sgz_entry *row = tree ? sgz_toc_tree_row(tree->served.tree, node) : NULL;
    int error = 0;
    if (!in)
        error = EINVAL;
    else if (!tree)
        error = ESTALE;
    else if (!row || tree->served.tree->nodes[node].type != SGZ_REG)
        error = EINVAL;
    if (!error && !t->spare && !(t->spare = calloc(1, sizeof(*t->spare))))
        error = ENOMEM;
    if (error) {
        sgz_mount_send(f, unique, error, NULL, 0);
        return;
    }
    uint64_t total = row->size > 0 ? (uint64_t)row->size : 0;
    uint64_t size = in->size < FUSE_READ_MAX ? in->size : FUSE_READ_MAX;
    if (in->offset >= total || !size) {
        sgz_mount_send(f, unique, 0, NULL, 0);
        return;
    }
    if (size > total - in->offset)
        size = total - in->offset;
    __atomic_fetch_add(&f->stats.reads, 1, __ATOMIC_RELAXED);
    note(f, tree, tree->served.tree->nodes[node].inode, (size_t)size);

    sgz_mount_parked *p = t->spare;
    const sgz_toc_node *n = &tree->served.tree->nodes[node];
    p->fuse = f;
    p->unique = unique;
    p->node = request->head->nodeid;
    p->interrupted = 0;
    memset(&p->want, 0, offsetof(sgz_chunks_want, error));
    p->want.error.code = SGZ_OK;
    p->want.layer = tree->served.layers[n->layer];
    p->want.file = n->row;
    p->want.offset = (int64_t)in->offset;
    p->want.size = (size_t)size;
    p->want.ready = ready;
    if (!try_read(f, p, t->out)) {
        if (__atomic_load_n(&f->serving, __ATOMIC_RELAXED) > 1) /* another takes what comes */
            t->decoding = sgz_chunks_idle(tree->served.chunks, p->want.layer);
        return;
    }
    t->spare = NULL;
    t->decoding = 1;
    __atomic_fetch_add(&f->stats.parked, 1, __ATOMIC_RELAXED);
    pthread_mutex_lock(&f->lock);
    f->parked_count++;
    pthread_mutex_unlock(&f->lock);
    wait_for(f, p);
}

void sgz_mount_answer(sgz_mount *f)
{
    uint8_t *out = aligned_alloc(4096, FUSE_READ_MAX);
    pthread_mutex_lock(&f->lock);
    for (;;) {
        sgz_mount_parked *p = f->runnable;
        if (!p) {
            if (f->state >= SGZ_FUSE_REFUSED && f->parked_count == 0 &&
                __atomic_load_n(&f->serving, __ATOMIC_SEQ_CST) == 0)
                break;
            /* The count of those that serve changes without the lock. */
            struct timespec until = sgz_base_deadline(f->state >= SGZ_FUSE_REFUSED ? 5 : 1000);
            pthread_cond_timedwait(&f->answer_cond, &f->lock, &until);
            continue;
        }
        f->runnable = p->next;
        if (!f->runnable)
            f->runnable_end = &f->runnable;
        pthread_mutex_unlock(&f->lock);
        if (p->interrupted) {
            sgz_mount_tree *tree = sgz_mount_tree_at(f, p->node >> SGZ_FUSE_TREE_SHIFT);
            sgz_chunks_cancel(tree->served.chunks, &p->want); /* lets go of its chunks */
            sgz_mount_send(f, p->unique, EINTR, NULL, 0);
            leave(f, p);
        } else if (!out) {
            sgz_mount_send(f, p->unique, ENOMEM, NULL, 0);
            leave(f, p);
        } else if (try_read(f, p, out)) {
            wait_for(f, p);
        } else {
            leave(f, p);
        }
        pthread_mutex_lock(&f->lock);
    }
    pthread_mutex_unlock(&f->lock);
    free(out);
}
