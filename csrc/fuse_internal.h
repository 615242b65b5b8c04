/* What the files of the FUSE server share. */
#ifndef SGZ_FUSE_INTERNAL_H
#define SGZ_FUSE_INTERNAL_H

#include <linux/fuse.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "deadline.h"
#include "fuse.h"

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
typedef struct parked {
    sgz_want want;             /* first: `ready` gets its address */
    struct sgz_fuse *fuse;
    uint64_t unique, node;
    struct parked *next, *prev;
    uint8_t listed;            /* among the waiting, where INTERRUPT finds it */
    uint8_t held;              /* INTERRUPT is cancelling it */
    uint8_t woken;             /* `ready` was called */
    uint8_t interrupted;
} parked;

/* A request that was handed out by sgz_fuse_next, or will be. */
typedef struct asked {
    struct asked *next;
    sgz_fuse_event event;
    int given;
} asked;

typedef struct {
    sgz_fuse_tree served;
    uint64_t base;             /* number << SGZ_FUSE_TREE_SHIFT */
    int xattrs;                /* whether any node has one */
    sgz_fuse_access *accesses; /* a node each */
} fuse_tree;

#define FAILURES 32

struct sgz_fuse {
    int fd, stop_fd, asked_root;
    struct timespec began;
    fuse_tree **trees;         /* SGZ_FUSE_TREES; a pointer is set once */
    uint32_t tree_count;       /* atomic */
    int stopping, serving;     /* atomic */
    int looking;               /* atomic: a thread looks for the next request without sleeping */
    uint32_t version, init_flags; /* atomic */
    sgz_fuse_stats stats;      /* atomic */

    pthread_mutex_t lock;      /* of all below */
    pthread_cond_t answer_cond, event_cond, state_cond;
    int state;
    parked *waiting, *runnable, **runnable_end;
    uint64_t parked_count;     /* waiting, runnable or being answered */
    asked *requests;           /* given ones and others, oldest first */
    struct { uint64_t node; sgz_error error; } failures[FAILURES];
    unsigned failure_count;
    uint64_t failures_untold;
};

/* One thread's memory. */
typedef struct {
    sgz_fuse *fuse;
    int epoll;
    uint8_t *request, *out;    /* FUSE_REQUEST_MAX, FUSE_READ_MAX */
    parked *spare;
} fuse_thread;

/* A request, checked as far as the header goes. */
typedef struct {
    const struct fuse_in_header *head;
    const uint8_t *body;
    size_t len;                /* of the body */
} fuse_request;

/* The body as a struct, or NULL when it is too short. */
#define BODY(request, type) \
    ((request)->len < sizeof(type) ? NULL : (const type *)(const void *)(request)->body)

/* --- fuse.c --- */
void fuse_send(sgz_fuse *fuse, uint64_t unique, int error, const void *data, size_t len);
fuse_tree *fuse_tree_at(const sgz_fuse *fuse, uint64_t number);
/* The tree and node of an id; NULL when there is no such node. */
fuse_tree *fuse_find(const sgz_fuse *fuse, uint64_t id, uint32_t *node);
void fuse_set_state(sgz_fuse *fuse, int state);

/* --- fuse_nodes.c: everything that the tree alone answers --- */
void fuse_lookup(fuse_thread *t, const fuse_request *request);
void fuse_getattr(fuse_thread *t, const fuse_request *request);
void fuse_readlink(fuse_thread *t, const fuse_request *request);
void fuse_statfs(fuse_thread *t, const fuse_request *request);
void fuse_statfs_send(sgz_fuse *fuse, uint64_t unique, uint64_t bytes, uint64_t inodes);
void fuse_fill_entry(const fuse_tree *tree, uint32_t node, struct fuse_entry_out *out);
/* What sgz_fuse_wait's caller may tell the kernel of a directory of tree 0. */
void fuse_fill_dir(uint64_t node, int64_t mtime_ns, struct fuse_attr *attr);

/* --- fuse_dirs.c --- */
void fuse_readdir(fuse_thread *t, const fuse_request *request, int plus);
/* Append one name to a listing; the bytes it took, 0 when there is no room. `entry` may be
 * NULL with `plus`: then the kernel is told nothing but the name. */
size_t fuse_add_name(uint8_t *out, size_t room, int plus, const struct fuse_entry_out *entry,
                     uint64_t ino, uint32_t type, uint64_t next, const char *name, size_t len);

/* --- fuse_xattrs.c --- */
int fuse_has_xattrs(const sgz_tree *tree);
void fuse_getxattr(fuse_thread *t, const fuse_request *request);
void fuse_listxattr(fuse_thread *t, const fuse_request *request);

/* --- fuse_read.c --- */
void fuse_read(fuse_thread *t, const fuse_request *request);
/* Whether the request was among the parked reads. */
int fuse_interrupt_read(sgz_fuse *fuse, uint64_t unique);

/* --- fuse_ask.c --- */
void fuse_ask(fuse_thread *t, const fuse_request *request);
int fuse_interrupt_asked(sgz_fuse *fuse, uint64_t unique);
void fuse_report(sgz_fuse *fuse, uint64_t node, const sgz_error *err);

#endif
