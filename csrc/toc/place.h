/* Where extraction puts the entries of a tar: symlinks of the layer lead on, below the root that it
 * is extracted to, as for containerd and umoci (and GNU tar, where a link does not leave). */
#ifndef SGZ_TOC_PLACE_H
#define SGZ_TOC_PLACE_H

#include "toc/internal.h"

/* A cleaned name in the arena, of a directory that no entry names; and a set of them. */
typedef struct {
    uint64_t off;
    uint32_t len;
} sgz_toc_dir;

typedef struct {
    sgz_toc_dir *list;
    size_t count, cap;
    sgz_map names;
} sgz_toc_dirs;

void sgz_toc_dirs_free(sgz_toc_dirs *dirs);
int sgz_toc_dirs_have(const sgz_toc_dirs *dirs, const sgz_toc *toc, uint64_t hash,
                      const char *name, size_t len);
/* Add one that is not there. 0: no memory. */
int sgz_toc_dirs_add(sgz_toc_dirs *dirs, const sgz_toc *toc, uint64_t hash, sgz_toc_dir dir);

/* A directory on the way to another. */
typedef struct {
    uint64_t hash;
    uint32_t len;           /* of its path */
    uint32_t row, row_len;  /* the nearest row up to here, and the length of its name */
    int known;              /* whether that was looked up */
} sgz_toc_step;

typedef struct {
    sgz_toc *toc;
    sgz_toc_dirs implied;
    sgz_toc_step *steps;    /* of `path`, itself the last: what is known of them is not looked up
                               again for each ".." */
    size_t depth, step_cap;
    char *rest;             /* scratch: what is still to be walked */
    size_t rest_cap;
    char *next;             /* scratch */
    size_t next_cap;

    /* The directory that was asked for last, cleaned; kept for its neighbours. */
    char *asked;
    size_t asked_len, asked_cap;
    int kept;

    /* The answer: */
    char *path;             /* of the directory */
    size_t len, path_cap;
    uint32_t row;           /* its row; SGZ_NO_ROW: it is implied */
    uint32_t followed;      /* so many symlinks led here: */
    uint32_t links[SGZ_TOC_SYMLINKS_MAX]; /* the rows of their names */
} sgz_toc_place;

typedef enum {
    SGZ_PLACE_FOUND,
    SGZ_PLACE_NO_MEMORY,
    SGZ_PLACE_NO_DIR,       /* path[0..len) is no directory */
    SGZ_PLACE_LOOP,         /* too many symlinks */
    SGZ_PLACE_TOO_LONG
} sgz_toc_placed;

void sgz_toc_place_free(sgz_toc_place *place);
/* Find the directory of this cleaned name. */
sgz_toc_placed sgz_toc_place_find(sgz_toc_place *place, const char *dir, size_t len);
/* Something is put into the directory found last: it is there from now on. */
sgz_toc_placed sgz_toc_place_enter(sgz_toc_place *place);
/* A name leads elsewhere now: what was kept is not good any more. */
static inline void sgz_toc_place_forget(sgz_toc_place *place)
{
    place->kept = 0;
}
/* Whether entries imply a directory of this cleaned name, which no entry names. */
int sgz_toc_place_implied(const sgz_toc_place *place, uint64_t hash, const char *name, size_t len);

#endif
