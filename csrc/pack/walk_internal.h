/* What the parts of the walk share: the queue of directories (pack/walk.c), the open ones
 * (pack/walk_open.c), what one directory holds (pack/walk_list.c). */
#ifndef SGZ_PACK_WALK_INTERNAL_H
#define SGZ_PACK_WALK_INTERNAL_H

#include "base/vec.h"
#include "pack/walk.h"

#include <sys/stat.h>

/* Directories that wait with an open descriptor for their subdirectories to be read. One that
 * loses its place is opened again on the way from the root, so any tree does with as many. */
#define SGZ_WALK_OPEN_MAX 96
/* Of one name. A tar header's long names end there too (tar/tar.h). */
#define SGZ_WALK_NAME_MAX (1u << 20)
/* The kernel's limits of an xattr's value and of a list of them. */
#define SGZ_WALK_XATTR_MAX 65536

typedef struct sgz_pack_walk_dir {
    struct sgz_pack_walk_dir *parent;        /* NULL: the root */
    struct sgz_pack_walk_dir *newer, *older; /* among the open ones, by last use */
    const char *name;                   /* full, in the parent's text; the root's is "" */
    uint32_t name_len, base;            /* where the last component begins */
    uint64_t dev, ino;
    uint32_t depth, number;
    int fd;                             /* -1: not open */
    uint32_t users;                     /* threads that need fd to stay open */
    uint32_t waiting;                   /* subdirectories that are not open yet */
    char tentative;                     /* ignored, but for what is kept in it */
    char gone;
    char renewed;                       /* it was another one when its parent was listed: */
    sgz_pack_walk_entry now;            /* what it is; its xattrs are in `text` */
    /* What it holds, sorted. `target` of an entry is the number of its sgz_pack_walk_dir. */
    sgz_pack_walk_entry *entries;
    char *text;
    size_t count, cap, text_len, text_cap;
    /* For the order of the whole. */
    size_t next;                        /* entry to be put out */
    size_t all_count, all_text;         /* of what is kept, with all below */
} sgz_pack_walk_dir;

struct sgz_pack_walk_state {
    const sgz_pack_walk_options *options;
    pthread_mutex_t ignoring;           /* around the ignore callback */
    sgz_base_job *job;                  /* its lock guards what follows */
    sgz_pack_walk_dir **dirs; /* a parent's number is below its children's */
    size_t dir_count, dir_cap;
    sgz_pack_walk_dir **stack; /* to be read; the last first, which keeps few open */
    size_t stack_count, stack_cap;
    size_t busy;                        /* being read */
    sgz_pack_walk_dir *newest, *oldest; /* open ones, without the root */
    size_t open_count;
    uint64_t shut_count;                /* so far */
    uint64_t sockets;
    char first_socket[256];
};

/* One thread's own. */
typedef struct {
    sgz_pack_walk_state *state;
    int own_cwd;                        /* its working directory is its own */
    int at_cwd;                         /* and is the directory being read */
    char *names;                        /* what getdents gave, one after the other */
    size_t names_len, names_cap;
    const char **order;
    size_t order_cap;
    char *dents, *keys, *value;         /* SGZ_WALK_XATTR_MAX bytes each; keys one more */
    const char **key_order;             /* SGZ_WALK_XATTR_MAX / 2 */
    char path[64 + 256];                /* of an entry, through /proc */
    size_t path_base;
} sgz_pack_walk_worker;

/* Open a directory, in its parent; it is in use until let go. dir->gone when it, or one above
 * it, is there no more. */
sgz_status sgz_pack_walk_open(sgz_pack_walk_state *state, sgz_pack_walk_dir *dir,
                              struct stat *info, sgz_error *err);
void sgz_pack_walk_let_go(sgz_pack_walk_state *state, sgz_pack_walk_dir *dir);

/* Fill the entries of an open directory; `target` is 1 where one is to be entered, 2 where it
 * is entered though ignored, else 0. */
sgz_status sgz_pack_walk_list(sgz_pack_walk_worker *worker, sgz_pack_walk_dir *dir,
                              sgz_error *err);
/* Fill dir->now. */
sgz_status sgz_pack_walk_renew(sgz_pack_walk_worker *worker, sgz_pack_walk_dir *dir,
                               const struct stat *info, sgz_error *err);

#endif
