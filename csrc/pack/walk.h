/* A directory tree as entries in the order of a layer: parents before children, the names of
 * a directory sorted by their bytes. Directories are read in parallel. */
#ifndef SGZ_PACK_WALK_H
#define SGZ_PACK_WALK_H

#include "base/job.h"
#include "base/map.h"

#define SGZ_WALK_NONE SGZ_MAP_NONE

/* One file, directory, link or device, as lstat saw it. */
typedef struct {
    int64_t size;                   /* of a regular file, else 0 */
    int64_t mtime, ctime;           /* seconds since the epoch, rounded down */
    uint64_t ino, dev;              /* dev: of the file system */
    uint64_t name_off, link_off, xattr_off; /* into the arena */
    uint32_t mtime_nsec, ctime_nsec;
    uint32_t name_len;              /* relative to the root of the tree, no "./", no final "/" */
    uint32_t link_len;              /* a symlink's target */
    uint32_t xattr_len;             /* packed as base/xattrs.h says */
    uint32_t mode;                  /* the permission bits: st_mode & 07777 */
    uint32_t uid, gid, nlink;
    uint32_t dev_major, dev_minor;  /* of a device node */
    uint32_t target;                /* type '1': the number of the entry whose second name this
                                       is; else SGZ_WALK_NONE */
    uint32_t known;                 /* what the known callback returned */
    char type;                      /* as in tar/tar.h: '0' '1' '2' '3' '4' '5' '6' */
} sgz_pack_walk_entry;

typedef struct {
    sgz_pack_walk_entry *entries;
    size_t count;
    char *arena;
    size_t arena_len;
    uint64_t sockets;               /* left out: a tar cannot hold them */
    char first_socket[256];         /* the name of one, for the warning */
} sgz_pack_walk;

typedef struct {
    int threads;
    int one_file_system;            /* do not enter directories on other file systems */
    /* 0: keep; 1: leave it out, but look into it if it is a directory (it is kept after all
     * when something in it is); 2: leave it out with all that is in it; -1: stop, an exception
     * is stored. Called with full relative names, from one thread at a time, parents first.
     * NULL: keep all. */
    int (*ignore)(void *arg, const char *name, size_t len, int is_dir);
    /* Whether an entry is known to be unchanged: its number there, else SGZ_WALK_NONE. For a
     * known entry neither link target nor xattrs are read. Called from any thread, with all of
     * lstat's fields filled in. NULL: nothing is known. */
    uint32_t (*known)(void *arg, const sgz_pack_walk_entry *entry, const char *name);
    void *ignore_arg, *known_arg;
} sgz_pack_walk_options;

typedef struct sgz_pack_walk_state sgz_pack_walk_state;

/* Start the job's threads, which walk the tree under the open directory `root`. Nothing outside
 * of it is looked at: every step is by descriptor and follows no symlink. An entry that vanishes
 * meanwhile is left out, as if it had gone before; what cannot be read is SGZ_EIO with its name.
 * Second names of one regular file become type '1'. Sub-second times are kept. The options must
 * stay. */
sgz_status sgz_pack_walk_start(sgz_pack_walk_state **state, sgz_base_job *job, int root,
                               const sgz_pack_walk_options *options, sgz_error *err);
/* Wait to the end, and put the entries in order. */
sgz_status sgz_pack_walk_finish(sgz_pack_walk_state *state, sgz_pack_walk *walk,
                                sgz_error *err);
void sgz_pack_walk_free(sgz_pack_walk *walk);

#endif
