/* What extraction writes, laid out before anything is written. */
#ifndef SGZ_EXTRACT_PLAN_H
#define SGZ_EXTRACT_PLAN_H

#include <stdatomic.h>

#include "base/vec.h"
#include "extract/extract.h"
#include "read/spans.h"

#define SGZ_PATH_MAX 4095 /* the kernel's PATH_MAX without the final NUL */
#define SGZ_BASE_MAX 255

/* A directory that is made, or that something is written into. Node 0 is the root. */
typedef struct {
    const char *path;       /* in the TOC's arena or of a selection; not terminated */
    uint32_t path_len, base; /* the last component begins at path + base */
    uint32_t parent, depth;
    uint64_t hash;          /* of the path, as the TOC hashes names */
    uint32_t row;           /* its entry, when its metadata is to be set; or SGZ_NO_ROW */
    uint8_t wanted, used;   /* everything below is selected; something in it is written */
    uint8_t seen;           /* the TOC names it, or something in it */
    _Atomic uint8_t made;   /* it was there once, so it can be opened by its whole path */
} sgz_extract_node;

/* A file, symlink, fifo or device that is written. */
typedef struct {
    uint32_t row;           /* its entry: contents, metadata */
    uint32_t dest;          /* whose name it gets: `row`, or the first selected hard link to
                               it when the entry itself is not selected */
    uint32_t node;          /* the directory it goes into */
    _Atomic uint32_t left;  /* chunks not yet written */
    int fd;                 /* of the temporary file, while several threads may write it; -1 */
    _Atomic uint8_t holes;  /* runs of zeros were left out */
    uint64_t temp;          /* number of its temporary name */
} sgz_extract_object;

typedef struct {
    uint32_t object, dest, node;
} sgz_extract_hardlink;

/* Stages are run one after the other, each by all threads: tasks [0, count). */
typedef enum {
    SGZ_STAGE_DATA,    /* batches of spans */
    SGZ_STAGE_EMPTY,   /* files without contents */
    SGZ_STAGE_SPECIAL, /* fifos and devices */
    SGZ_STAGE_LINK,    /* hard links to all those */
    SGZ_STAGE_SYMLINK,
    SGZ_STAGE_SYMLINK_LINK, /* hard links to symlinks */
    SGZ_STAGE_DIRECTORY     /* metadata of directories, one stage a depth, deepest first */
} sgz_extract_stage_kind;

typedef struct {
    sgz_extract_stage_kind kind;
    uint32_t first, last;   /* of the list that the kind stands for */
    uint32_t grain;         /* tasks taken at a time */
    _Atomic uint32_t next;
} sgz_extract_stage;

typedef struct {
    const sgz_toc *toc;
    sgz_spans spans;
    sgz_extract_node *nodes;
    uint32_t node_count;
    size_t asked;           /* bytes of the members that were asked for: directories at most */
    size_t node_cap;
    sgz_map names; /* of nodes */
    sgz_extract_object *objects;
    uint32_t object_count;
    size_t object_cap;
    uint32_t *object_of;    /* by row: its object, or SGZ_NO_ROW */
    sgz_extract_hardlink *links; /* those to symlinks last */
    uint32_t link_count;
    size_t link_cap;
    uint32_t *order;        /* objects and nodes, as the stages take them */
    uint32_t *batches;      /* spans [batches[2 i], batches[2 i + 1]) */
    uint32_t batch_count;
    size_t batch_cap;
    sgz_extract_stage *stages;
    uint32_t stage_count;
    int64_t total;          /* bytes of contents */
    uint64_t devices, setid; /* left out */
} sgz_extract_plan;

typedef struct {
    char *name;
    uint32_t len;
    uint32_t node;
} sgz_extract_member;

/* `members` select; none select everything. Fails, before anything is written, for names
 * that cannot be written safely. */
sgz_status sgz_extract_plan_init(sgz_extract_plan *plan, const sgz_extract_options *options,
                                 sgz_extract_member *members, size_t member_count,
                                 sgz_error *err);
void sgz_extract_plan_free(sgz_extract_plan *plan);

/* Its parts. Cut the spans into batches at entry points; what nobody wants is left out. */
sgz_status sgz_extract_plan_batches(sgz_extract_plan *plan, sgz_error *err);
sgz_status sgz_extract_plan_stages(sgz_extract_plan *plan, sgz_error *err);

#endif
