/* Directories below a root, walked by descriptor; no symbolic link is ever followed.
 *
 * Every function takes single names or clean relative paths (no "", "." or ".."), and
 * returns a descriptor or 0, or -errno. */
#ifndef SGZ_BASE_BENEATH_H
#define SGZ_BASE_BENEATH_H

#include <sys/types.h>

/* Open the directory at `path` below `root` ("" is the root itself). Fails with -ELOOP or
 * -ENOTDIR where a component is a link or a file. Without use_openat2, or where the kernel
 * has no openat2 or forbids it, the path is walked one component at a time. */
int sgz_base_beneath_open(int root, const char *path, int use_openat2);

/* Open the directory `name` in `parent`, made with `mode`, whatever the umask, where it
 * is missing. Anything else in its place, a link above all, is unlinked. *made says whether it is
 * new. */
int sgz_base_beneath_make(int parent, const char *name, mode_t mode, int *made);

/* Rename `from` to `to`, both in `dir`. A file or link in the way is replaced, an empty
 * directory is removed; a directory with something in it is -EEXIST. */
int sgz_base_beneath_rename(int dir, const char *from, const char *to);

#endif
