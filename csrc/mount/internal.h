/* What the files of the FUSE server share. */
#ifndef SGZ_MOUNT_INTERNAL_H
#define SGZ_MOUNT_INTERNAL_H

#include <linux/fuse.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "base/deadline.h"
#include "mount/session.h"

/* Trees never change, so the kernel may remember what it was told. */
#define FUSE_TREE_SECONDS 86400
/* The largest read and readahead that the kernel is told of: 128 KiB, its default, needs
 * eight times the requests. */
#define FUSE_READ_MAX (1u << 20)
/* What the kernel wants a server to have room for at the least, and some more: names, and lists
 * of nodes to forget. */
#define FUSE_REQUEST_MAX (64u << 10)

/* A read that waits for its chunks. The lists' links are under the server's lock; so are the
 * flags. */
typedef struct sgz_mount_parked {
    sgz_chunks_want want; /* first: `ready` gets its address */
    struct sgz_mount *fuse;
    uint64_t unique, node;
    struct sgz_mount_parked *next, *prev;
    uint8_t listed;            /* among the waiting, where INTERRUPT finds it */
    uint8_t held;              /* INTERRUPT is cancelling it */
    uint8_t woken;             /* `ready` was called */
    uint8_t interrupted;
} sgz_mount_parked;

/* A request that was handed out by sgz_mount_next, or will be. */
typedef struct sgz_mount_asked {
    struct sgz_mount_asked *next;
    sgz_mount_event event;
    int given;
} sgz_mount_asked;

typedef struct {
    sgz_mount_added served;
    uint64_t base;             /* number << SGZ_FUSE_TREE_SHIFT */
    int xattrs;                /* whether any node has one */
    sgz_mount_access *accesses; /* a node each */
    uint32_t *numbers;         /* served.layers */
} sgz_mount_tree;

#define FAILURES 32

struct sgz_mount {
    int fd, stop_fd, asked_root;
    struct timespec began;
    sgz_mount_tree **trees;    /* SGZ_FUSE_TREES; a pointer is set once */
    uint32_t tree_count;       /* atomic */
    int stopping, serving;     /* atomic */
    int looking;               /* atomic: a thread looks for the next request without sleeping */
    uint32_t version, init_flags; /* atomic */
    sgz_mount_stats stats;        /* atomic */

    pthread_mutex_t lock;      /* of all below */
    pthread_cond_t answer_cond, event_cond, state_cond;
    int state, answer;         /* answer: the first state but WAITING */
    sgz_mount_parked *waiting, *runnable, **runnable_end;
    uint64_t parked_count;     /* waiting, runnable or being answered */
    sgz_mount_asked *requests; /* given ones and others, oldest first */
    struct { uint64_t node; sgz_error error; } failures[FAILURES];
    unsigned failure_count;
    uint64_t failures_untold;
};

/* One thread's memory. */
typedef struct {
    sgz_mount *fuse;
    int epoll;
    uint8_t *request, *out;    /* FUSE_REQUEST_MAX, FUSE_READ_MAX */
    sgz_mount_parked *spare;
    int decoding;              /* others decode what is waited for, or may be read next */
} sgz_mount_thread;

/* A request, checked as far as the header goes. */
typedef struct {
    const struct fuse_in_header *head;
    const uint8_t *body;
    size_t len;                /* of the body */
} sgz_mount_request;

/* The body as a struct, or NULL when it is too short. */
#define BODY(request, type) \
    ((request)->len < sizeof(type) ? NULL : (const type *)(const void *)(request)->body)

/* --- mount/session.c --- */
void sgz_mount_send(sgz_mount *fuse, uint64_t unique, int error, const void *data, size_t len);
sgz_mount_tree *sgz_mount_tree_at(const sgz_mount *fuse, uint64_t number);
/* The tree and node of an id; NULL when there is no such node. */
sgz_mount_tree *sgz_mount_find(const sgz_mount *fuse, uint64_t id, uint32_t *node);
void sgz_mount_set_state(sgz_mount *fuse, int state);

/* --- mount/nodes.c: everything that the tree alone answers --- */
void sgz_mount_lookup(sgz_mount_thread *t, const sgz_mount_request *request);
void sgz_mount_getattr(sgz_mount_thread *t, const sgz_mount_request *request);
void sgz_mount_readlink(sgz_mount_thread *t, const sgz_mount_request *request);
void sgz_mount_statfs(sgz_mount_thread *t, const sgz_mount_request *request);
void sgz_mount_statfs_send(sgz_mount *fuse, uint64_t unique, uint64_t bytes, uint64_t inodes);
void sgz_mount_fill_entry(const sgz_mount_tree *tree, uint32_t node, struct fuse_entry_out *out);
/* What sgz_mount_next's caller may tell the kernel of a directory of tree 0. */
void sgz_mount_fill_dir(uint64_t node, int64_t mtime_ns, struct fuse_attr *attr);

/* --- mount/dirs.c --- */
void sgz_mount_readdir(sgz_mount_thread *t, const sgz_mount_request *request);
/* Append one name to a listing; the bytes it took, 0 when there is no room. `entry` may be
 * NULL with `plus`: then the kernel is told nothing but the name. */
size_t sgz_mount_add_name(uint8_t *out, size_t room, int plus,
                          const struct fuse_entry_out *entry, uint64_t ino, uint32_t type,
                          uint64_t next, const char *name, size_t len);

/* --- mount/xattrs.c --- */
void sgz_mount_getxattr(sgz_mount_thread *t, const sgz_mount_request *request);
void sgz_mount_listxattr(sgz_mount_thread *t, const sgz_mount_request *request);

/* --- mount/read.c --- */
void sgz_mount_read(sgz_mount_thread *t, const sgz_mount_request *request);
/* Whether the request was among the parked reads. */
int sgz_mount_interrupt_read(sgz_mount *fuse, uint64_t unique);

/* --- mount/ask.c --- */
void sgz_mount_ask(sgz_mount_thread *t, const sgz_mount_request *request);
int sgz_mount_interrupt_asked(sgz_mount *fuse, uint64_t unique);
void sgz_mount_report(sgz_mount *fuse, uint64_t node, const sgz_error *err);

#endif
