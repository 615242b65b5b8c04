/* The threads' loop: requests of the kernel, each to who answers it, and the first talk with it. */
#define _GNU_SOURCE
#include "mount/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* How long one thread looks for the next request before it sleeps. Where an idle processor takes
 * its time to wake up (virtual machines), find over a Debian layer takes 0.08 s, and 0.15 s with
 * sleep alone; 50 us give 0.09 s, and 1 ms takes the processor from those who read (tar 0.92 s
 * instead of 0.79). */
#define LOOK_NS 200000
#if defined(__x86_64__)
#define RELAX() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define RELAX() __asm__ volatile("yield")
#else
#define RELAX() ((void)0)
#endif
#define MINOR_MIN 31 /* Linux 5.4: every feature that is relied on here */

static void init(sgz_mount_thread *t, const sgz_mount_request *request)
{
    sgz_mount *f = t->fuse;
    uint64_t unique = request->head->unique;
    /* Kernels before 5.17 send a shorter struct. */
    if (request->len < 4 * sizeof(uint32_t)) {
        sgz_mount_send(f, unique, EPROTO, NULL, 0);
        return;
    }
    const struct fuse_init_in *in = (const void *)request->body;
    struct fuse_init_out out;
    memset(&out, 0, sizeof(out));
    out.major = FUSE_KERNEL_VERSION;
    out.minor = FUSE_KERNEL_MINOR_VERSION;
    __atomic_store_n(&f->version, in->major << 16 | (in->minor & 0xffff), __ATOMIC_RELAXED);
    if (in->major > FUSE_KERNEL_VERSION) { /* it will ask again, in our version */
        sgz_mount_send(f, unique, 0, &out, sizeof(out));
        return;
    }
    if (in->major < FUSE_KERNEL_VERSION || in->minor < MINOR_MIN) {
        sgz_mount_send(f, unique, EPROTO, NULL, 0);
        sgz_mount_set_state(f, SGZ_FUSE_REFUSED);
        return;
    }
    out.flags = in->flags & (FUSE_ASYNC_READ | FUSE_MAX_PAGES | FUSE_PARALLEL_DIROPS |
                             FUSE_DO_READDIRPLUS | FUSE_NO_OPEN_SUPPORT |
                             FUSE_NO_OPENDIR_SUPPORT | FUSE_CACHE_SYMLINKS);
    __atomic_store_n(&f->init_flags, out.flags, __ATOMIC_RELAXED);
    out.max_readahead = FUSE_READ_MAX;
    out.max_background = 64;
    out.congestion_threshold = 48;
    out.max_write = 4096;
    out.max_pages = FUSE_READ_MAX / 4096;
    out.time_gran = 1;
    sgz_mount_send(f, unique, 0, &out, sizeof(out));
    sgz_mount_set_state(f, SGZ_FUSE_READY);
}

/* ENOSYS once, and the kernel opens without asking, and keeps its pages. */
static void open_node(sgz_mount_thread *t, const sgz_mount_request *request, uint32_t flag,
                      uint32_t keep)
{
    if (__atomic_load_n(&t->fuse->init_flags, __ATOMIC_RELAXED) & flag) {
        sgz_mount_send(t->fuse, request->head->unique, ENOSYS, NULL, 0);
        return;
    }
    struct fuse_open_out out = {.open_flags = keep};
    sgz_mount_send(t->fuse, request->head->unique, 0, &out, sizeof(out));
}

static void interrupt(sgz_mount_thread *t, const sgz_mount_request *request)
{
    const struct fuse_interrupt_in *in = BODY(request, struct fuse_interrupt_in);
    if (!in || sgz_mount_interrupt_read(t->fuse, in->unique) ||
        sgz_mount_interrupt_asked(t->fuse, in->unique))
        return;
    /* Another thread is busy with it, or about to park it: the kernel sends this again as long
     * as the request is open. */
    sched_yield();
    sgz_mount_send(t->fuse, request->head->unique, EAGAIN, NULL, 0);
}

/* What a tree answers, by opcode; of the root of many trees who serves it (sgz_mount_ask). */
static void (*const answers[])(sgz_mount_thread *, const sgz_mount_request *) = {
    [FUSE_LOOKUP] = sgz_mount_lookup,
    [FUSE_GETATTR] = sgz_mount_getattr,
    [FUSE_READLINK] = sgz_mount_readlink,
    [FUSE_READ] = sgz_mount_read,
    [FUSE_STATFS] = sgz_mount_statfs,
    [FUSE_GETXATTR] = sgz_mount_getxattr,
    [FUSE_LISTXATTR] = sgz_mount_listxattr,
    [FUSE_READDIR] = sgz_mount_readdir,
    [FUSE_READDIRPLUS] = sgz_mount_readdir,
};

static void dispatch(sgz_mount_thread *t, const sgz_mount_request *request)
{
    const struct fuse_in_header *head = request->head;
    sgz_mount *f = t->fuse;
    if (head->opcode < sizeof answers / sizeof *answers && answers[head->opcode]) {
        int asked = f->asked_root && head->nodeid >> SGZ_FUSE_TREE_SHIFT == 0;
        (asked ? sgz_mount_ask : answers[head->opcode])(t, request);
        return;
    }
    switch (head->opcode) {
    case FUSE_INIT:
        init(t, request);
        return;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_NOTIFY_REPLY:
        return; /* no reply; node numbers need no memory */
    case FUSE_INTERRUPT:
        interrupt(t, request);
        return;
    case FUSE_OPEN:
        open_node(t, request, FUSE_NO_OPEN_SUPPORT, FOPEN_KEEP_CACHE);
        return;
    case FUSE_OPENDIR:
        open_node(t, request, FUSE_NO_OPENDIR_SUPPORT, FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR);
        return;
    case FUSE_DESTROY:
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
        sgz_mount_send(f, head->unique, 0, NULL, 0);
        return;
    case FUSE_SETATTR:
    case FUSE_SYMLINK:
    case FUSE_MKNOD:
    case FUSE_MKDIR:
    case FUSE_UNLINK:
    case FUSE_RMDIR:
    case FUSE_RENAME:
    case FUSE_RENAME2:
    case FUSE_LINK:
    case FUSE_WRITE:
    case FUSE_SETXATTR:
    case FUSE_REMOVEXATTR:
    case FUSE_CREATE:
    case FUSE_FALLOCATE:
        sgz_mount_send(f, head->unique, EROFS, NULL, 0);
        return;
    default: /* FLUSH, ACCESS, LSEEK, FSYNC, ...: the kernel does it by itself from then on */
        sgz_mount_send(f, head->unique, ENOSYS, NULL, 0);
    }
}

/* Of the threads that wait for the kernel each request wakes one (EPOLLEXCLUSIVE), the end
 * all. A thread that waited in read() itself could not be told to stop. */
static int watch(const sgz_mount *f)
{
    struct epoll_event kernel = {.events = EPOLLIN | EPOLLEXCLUSIVE}, stop = {.events = EPOLLIN};
    int fd = epoll_create1(EPOLL_CLOEXEC);
    if (fd >= 0 && (epoll_ctl(fd, EPOLL_CTL_ADD, f->fd, &kernel) < 0 ||
                    epoll_ctl(fd, EPOLL_CTL_ADD, f->stop_fd, &stop) < 0)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* The next request. One thread at a time looks for it a little longer before it sleeps: whoever
 * works through a directory sends the next one at once. Not while there is decoding to be done, which
 * then has the processor: a tar of an image in a registry takes 5% less of it all. */
static ssize_t next_request(sgz_mount_thread *t)
{
    sgz_mount *f = t->fuse;
    ssize_t got = read(f->fd, t->request, FUSE_REQUEST_MAX);
    if (got >= 0 || errno != EAGAIN || t->decoding ||
        __atomic_exchange_n(&f->looking, 1, __ATOMIC_ACQUIRE))
        return got;
    int64_t until = now_ns() + LOOK_NS;
    do {
        for (int i = 0; i < 32; i++)
            RELAX();
        got = read(f->fd, t->request, FUSE_REQUEST_MAX);
    } while (got < 0 && errno == EAGAIN && now_ns() < until);
    int failed = errno;
    __atomic_store_n(&f->looking, 0, __ATOMIC_RELEASE);
    errno = failed;
    return got;
}

static sgz_status serve(sgz_mount_thread *t, sgz_error *err)
{
    sgz_mount *f = t->fuse;
    struct epoll_event event;
    while (!__atomic_load_n(&f->stopping, __ATOMIC_SEQ_CST)) {
        ssize_t got = next_request(t);
        t->decoding = 0;
        if (got < 0) {
            /* ENOENT: the request was given up while it was read. */
            if (errno == EINTR || errno == ENOENT)
                continue;
            if (errno == EAGAIN) {
                epoll_wait(t->epoll, &event, 1, -1);
                continue;
            }
            if (errno == ENODEV || errno == ECONNABORTED)
                return SGZ_OK; /* unmounted */
            return sgz_base_fail_errno(err, errno, "cannot read from the kernel", "/dev/fuse",
                                       9);
        }
        sgz_mount_request request = {(const void *)t->request,
                                     t->request + sizeof(*request.head),
                                     (size_t)got - sizeof(*request.head)};
        if ((size_t)got < sizeof(*request.head) || request.head->len != (size_t)got)
            return sgz_base_fail(err, SGZ_EIO, -1, "/dev/fuse", 9,
                                 "the kernel sent half a request");
        __atomic_fetch_add(&f->stats.requests, 1, __ATOMIC_RELAXED);
        dispatch(t, &request);
    }
    return SGZ_OK;
}

sgz_status sgz_mount_serve(sgz_mount *f, sgz_error *err)
{
    sgz_status status;
    sgz_mount_thread t = {.fuse = f, .epoll = -1};
    __atomic_fetch_add(&f->serving, 1, __ATOMIC_SEQ_CST);
    t.epoll = watch(f);
    t.request = aligned_alloc(64, FUSE_REQUEST_MAX);
    t.out = aligned_alloc(4096, FUSE_READ_MAX);
    if (t.epoll < 0)
        status = sgz_base_fail_errno(err, errno, "cannot wait for the kernel", "/dev/fuse", 9);
    else if (!t.request || !t.out)
        status = sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the FUSE server");
    else
        status = serve(&t, err);
    if (t.epoll >= 0)
        close(t.epoll);
    free(t.request);
    free(t.out);
    free(t.spare);
    /* Unmounted is unmounted for all; a thread that failed leaves its work to the others. */
    if (__atomic_sub_fetch(&f->serving, 1, __ATOMIC_SEQ_CST) == 0 || status == SGZ_OK)
        sgz_mount_set_state(f, SGZ_FUSE_ENDED);
    return status;
}
