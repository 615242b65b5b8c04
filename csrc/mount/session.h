/* Trees of layers as a mounted file system: the kernel's FUSE protocol (linux/fuse.h), spoken
 * over the descriptor of /dev/fuse, read-only.
 *
 * Any number of threads serve at once, each a loop of read, dispatch, writev. What is not yet
 * local waits without a thread: a parked read is answered by the thread in sgz_mount_answer when
 * its chunks have come. What C does not know (the directories above the trees of a root of many
 * images) is asked of the caller's threads in sgz_mount_next.
 *
 * A kernel that sends nonsense gets an error; nothing it sends is trusted. */
#ifndef SGZ_MOUNT_SESSION_H
#define SGZ_MOUNT_SESSION_H

#include "chunks/table.h"
#include "toc/tree.h"

typedef struct sgz_mount sgz_mount;

/* Node ids: the number of the tree << 40 | inode + 1; the kernel's root, 1, is the root of tree
 * 0. They are st_ino too. */
#define SGZ_FUSE_TREE_SHIFT 40
#define SGZ_FUSE_TREES 65536

/* A tree as it is served; what it points to outlives the server. */
typedef struct {
    const sgz_toc_tree *tree;
    sgz_chunks *chunks;
    const uint32_t *layers; /* of each layer of the tree its number in chunks; copied */
} sgz_mount_added;

/* `fd` stays the caller's, who closes it after sgz_mount_free. With `asked` the nodes of tree 0
 * are the caller's (SGZ_FUSE_ASKED events), and trees are numbered from 1. */
sgz_status sgz_mount_new(sgz_mount **fuse, int fd, int asked, sgz_error *err);
/* Only once no thread uses it. */
void sgz_mount_free(sgz_mount *fuse);
sgz_status sgz_mount_add(sgz_mount *fuse, const sgz_mount_added *tree, uint32_t *number,
                         sgz_error *err);

/* Serve until the file system is unmounted or the server stopped; both are SGZ_OK. */
sgz_status sgz_mount_serve(sgz_mount *fuse, sgz_error *err);
/* Answer reads that were parked, until the server is stopped and none are left. */
void sgz_mount_answer(sgz_mount *fuse);
/* End every loop; waits for those that serve. The parked reads are woken by sgz_chunks_stop,
 * which comes first. */
void sgz_mount_stop(sgz_mount *fuse);

enum { SGZ_FUSE_WAITING, SGZ_FUSE_READY, SGZ_FUSE_REFUSED, SGZ_FUSE_ENDED };
/* Wait for the kernel's first request up to timeout_ms; what became of it, whatever came later.
 * READY: answered; REFUSED: the kernel's protocol is too old; ENDED: unmounted or stopped
 * before. */
int sgz_mount_wait(sgz_mount *fuse, int timeout_ms);
/* The protocol's version as the kernel told it: major << 16 | minor. */
uint32_t sgz_mount_version(const sgz_mount *fuse);

/* --- events ------------------------------------------------------------------------------ */

enum { SGZ_FUSE_ASKED = 1, SGZ_FUSE_FAILED };
#define SGZ_FUSE_NAME_MAX 255

typedef struct {
    int kind;
    /* SGZ_FUSE_ASKED: a request about a node of tree 0; answer it with a sgz_mount_reply. */
    uint64_t unique, node;
    uint32_t opcode;
    uint64_t offset;        /* of READDIR and READDIRPLUS */
    uint32_t size;          /* likewise: how many bytes there is room for */
    uint32_t name_len;      /* of LOOKUP */
    char name[SGZ_FUSE_NAME_MAX + 1];
    /* SGZ_FUSE_FAILED: a read of `node` failed with EIO; so did `more` others, untold. */
    sgz_error error;
    uint64_t more;
} sgz_mount_event;

/* The next event; waits for it up to timeout_ms. 1: *event; 0: none yet; -1: ended. */
int sgz_mount_next(sgz_mount *fuse, int timeout_ms, sgz_mount_event *event);

/* Answers to a request, each once; later ones, also to one that was interrupted meanwhile,
 * do nothing. */
void sgz_mount_reply_error(sgz_mount *fuse, uint64_t unique, int error);
/* LOOKUP: a name that is not there; the kernel may remember it for so long. */
void sgz_mount_reply_absent(sgz_mount *fuse, uint64_t unique, uint32_t seconds);
/* LOOKUP: the root of a tree. `seconds` is how long the name stays. */
void sgz_mount_reply_tree(sgz_mount *fuse, uint64_t unique, uint32_t number, uint32_t seconds);
/* LOOKUP and GETATTR: a directory of tree 0, with the time of its last change. The name stays
 * for `seconds`. */
void sgz_mount_reply_dir(sgz_mount *fuse, uint64_t unique, uint32_t opcode, uint64_t node,
                         int64_t mtime_ns, uint32_t seconds);
/* READDIR and READDIRPLUS: names, all directories, each followed by a NUL, from the event's
 * offset on: `first` is how many names come before, "." and ".." included. */
void sgz_mount_reply_names(sgz_mount *fuse, const sgz_mount_event *event, const char *names,
                           size_t len, uint64_t first);
void sgz_mount_reply_statfs(sgz_mount *fuse, uint64_t unique);

/* --- what was read ----------------------------------------------------------------------- */

/* Of a node that was read: when first, in nanoseconds since the server began (never 0), and how
 * many bytes the kernel asked for since; 0 and 0 of others. The kernel keeps pages: what is
 * read again is not asked for again. */
typedef struct {
    uint64_t first, bytes;
} sgz_mount_access;
/* As many as the tree has nodes; they are counted while the server runs. NULL: no such tree. */
const sgz_mount_access *sgz_mount_accesses(const sgz_mount *fuse, uint32_t number);

/* One of them, which is counted meanwhile. */
static inline sgz_mount_access sgz_mount_access_now(const sgz_mount_access *access)
{
    return (sgz_mount_access){__atomic_load_n(&access->first, __ATOMIC_RELAXED),
                              __atomic_load_n(&access->bytes, __ATOMIC_RELAXED)};
}

typedef struct {
    uint64_t requests, reads, parked, failed; /* since the server began */
} sgz_mount_stats;
void sgz_mount_get_stats(const sgz_mount *fuse, sgz_mount_stats *stats);

#endif
