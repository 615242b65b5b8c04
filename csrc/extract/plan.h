/* What extraction writes, laid out before anything is written. */
#ifndef SGZ_EXTRACT_PLAN_H
#define SGZ_EXTRACT_PLAN_H

#include <stdatomic.h>

#include "base/map.h"
#include "base/vec.h"
#include "extract/extract.h"
#include "read/spans.h"

#define SGZ_PATH_MAX 4095 /* the kernel's PATH_MAX without the final NUL */
#define SGZ_BASE_MAX 255

/* A directory that is made, or that something is written into. Node 0 is the root. */
typedef struct {
    const char *path;       /* in a TOC's arena; not terminated */
    uint32_t path_len, base; /* the last component begins at path + base */
    uint32_t cut;           /* bytes of the entry's name before it: --strip-components */
    uint32_t parent, depth;
    uint64_t hash;          /* of the path, as TOCs hash names */
    uint32_t layer, row;    /* its entry, when its metadata is to be set; or SGZ_NO_ROW */
    uint8_t used;           /* it, or something in it, is written */
    uint8_t empty;          /* nothing is, and it is made all the same */
    _Atomic uint8_t made;   /* it was there once, so it can be opened by its whole path */
} sgz_extract_node;

/* A file, symlink, fifo or device that is written. */
typedef struct {
    uint32_t layer, row;    /* its entry: contents, metadata */
    uint32_t dest;          /* whose name it gets: `row`, or the first selected hard link to
                               it when the entry itself is not selected */
    uint32_t node;          /* the directory it goes into */
    _Atomic uint32_t left;  /* chunks not yet written */
    int fd;                 /* of the temporary file, while several threads may write it; -1 */
    int dir;                /* then of the directory that it is in */
    _Atomic uint8_t holes;  /* runs of zeros were or are left out */
    uint8_t unhashed;       /* too many for the file's digest to be compared */
    _Atomic uint8_t failed; /* and the others were gone on with */
    uint64_t temp;          /* number of its temporary name */
} sgz_extract_object;

typedef struct {
    uint32_t object, layer, dest, node;
} sgz_extract_hardlink;

/* A name that is no directory's, and whose it is: where names lose their first components. */
typedef struct {
    const char *base;
    uint32_t len, node, layer, row;
} sgz_extract_claim;

/* Spans [first, last) of a layer. */
typedef struct {
    uint32_t layer, first, last;
} sgz_extract_batch;

/* Stages are run one after the other, each by all threads: tasks [0, count). */
typedef enum {
    SGZ_STAGE_DATA,    /* batches of spans */
    SGZ_STAGE_EMPTY,   /* files without contents in the blob */
    SGZ_STAGE_SPECIAL, /* fifos and devices */
    SGZ_STAGE_LINK,    /* hard links to all those */
    SGZ_STAGE_SYMLINK,
    SGZ_STAGE_SYMLINK_LINK, /* hard links to symlinks */
    SGZ_STAGE_DIRECTORY     /* directories: made if nothing was written into them, and their
                               metadata, one stage a depth, deepest first */
} sgz_extract_stage_kind;

typedef struct {
    sgz_extract_stage_kind kind;
    uint32_t first, last;   /* of the list that the kind stands for */
    uint32_t grain;         /* tasks taken at a time */
    _Atomic uint32_t next;
} sgz_extract_stage;

/* One layer. By row: */
typedef struct {
    const sgz_toc *toc;
    sgz_spans spans;
    uint32_t *object_of;    /* its object, or SGZ_NO_ROW */
    uint32_t *node_of;      /* while the work is laid out: of what is written and no directory, the
                               one that it goes into; or SGZ_NO_ROW */
} sgz_extract_part;

typedef struct {
    sgz_error errors[SGZ_EXTRACT_ERRORS];
    uint64_t places[SGZ_EXTRACT_ERRORS]; /* of the entries: layer << 32 | row */
    size_t kept;
    uint64_t count, damaged;
} sgz_extract_failures;

typedef struct {
    sgz_extract_part *parts;
    uint32_t part_count;
    sgz_extract_node *nodes;
    uint32_t node_count;
    uint32_t cut;           /* of the name whose nodes are added */
    size_t most_nodes;      /* each row may be a directory itself, beside what names imply */
    size_t node_cap;
    sgz_map names; /* of nodes */
    sgz_extract_object *objects;
    uint32_t object_count;
    size_t object_cap;
    sgz_extract_hardlink *links; /* those to symlinks last */
    uint32_t link_count, resolved;
    size_t link_cap;
    uint32_t *order;        /* objects and nodes, as the stages take them */
    sgz_extract_claim *claims;
    uint32_t claim_count;
    size_t claim_cap;
    sgz_map claimed;
    sgz_extract_batch *batches;
    uint32_t batch_count;
    size_t batch_cap;
    sgz_extract_stage *stages;
    uint32_t stage_count;
    int64_t total;          /* bytes of contents, without holes */
    int64_t hashed;         /* of holes, for files' digests */
    uint64_t devices, setid; /* left out */
    int keep_going;
    sgz_extract_failures failures;
} sgz_extract_plan;

/* Fails, before anything is written, for names that cannot be written safely, unless the others
 * are to be gone on with. */
sgz_status sgz_extract_plan_init(sgz_extract_plan *plan, const sgz_extract_options *options,
                                 sgz_error *err);
void sgz_extract_plan_free(sgz_extract_plan *plan);

/* Note that the entry at a row failed. Not SGZ_OK: it is no matter of this entry alone, and the
 * end. */
sgz_status sgz_extract_tell(sgz_extract_failures *failures, uint32_t layer, uint32_t row,
                            const sgz_error *err);

/* Its parts. Cut the spans into batches at entry points; what nobody wants is left out. */
sgz_status sgz_extract_plan_batches(sgz_extract_plan *plan, sgz_error *err);
sgz_status sgz_extract_plan_stages(sgz_extract_plan *plan, sgz_error *err);

#endif
