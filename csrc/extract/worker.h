/* One thread of an extraction; see extract/extract.c. */
#ifndef SGZ_EXTRACT_WORKER_H
#define SGZ_EXTRACT_WORKER_H

#include <sys/types.h>

#include "base/job.h"
#include "extract/plan.h"
#include "read/chunk.h"

/* Directories a thread keeps open: those of neighbours in the blob, and their parents. */
#define SGZ_DIRS 32

struct sgz_extract {
    sgz_extract_options options;
    sgz_extract_plan plan;
    uint64_t temp_seed;
    uid_t uid;               /* of this process */
    sgz_base_job *job;       /* its lock guards what follows, and the opening of shared files */
    int arrived;             /* at the barrier between two stages */
    uint64_t generation;
    sgz_extract_result result;
    _Atomic uint64_t temps;
    _Atomic uint64_t *written; /* layer << 32 | row, and 1; the list, or NULL */
    atomic_size_t written_count;
};

typedef struct sgz_extract_worker {
    struct sgz_extract *ex;
    sgz_reader reader;       /* of the layer */
    uint32_t layer;          /* that has the batch; or SGZ_NO_ROW */
    uint8_t *buffer;
    sgz_error err;
    sgz_extract_result result;
    int dirs_max;
    uint64_t clock;
    struct { uint32_t node; int fd; uint64_t used; } dirs[SGZ_DIRS];
} sgz_extract_worker;

static inline int sgz_extract_stopped(const struct sgz_extract *ex)
{
    return sgz_base_job_stopped(ex->job);
}

/* A piece is inflated, hashed and written while it is in the L2 cache; a worker's buffer
 * holds one. */
#define SGZ_PIECE ((size_t)256 << 10)

static inline const sgz_toc *sgz_extract_toc(const struct sgz_extract *ex, uint32_t layer)
{
    return ex->plan.parts[layer].toc;
}

sgz_status sgz_extract_write_batch(sgz_extract_worker *w, uint32_t batch, sgz_error *err);
sgz_status sgz_extract_write_empty(sgz_extract_worker *w, uint32_t object, sgz_error *err);
/* Whether the others are gone on with after this failure of the entry at `row`; else it ends the
 * job. */
int sgz_extract_go_on(struct sgz_extract *ex, uint32_t layer, uint32_t row,
                      const sgz_error *err);
/* An entry has its name and metadata. */
void sgz_extract_list(struct sgz_extract *ex, uint32_t layer, uint32_t row);

/* After a failure: files that were begun leave nothing behind. One thread does this. */
void sgz_extract_remove_begun(sgz_extract_plan *plan);

/* A descriptor of the node, made where it is missing; good until the next call. */
sgz_status sgz_extract_worker_dir(sgz_extract_worker *w, uint32_t node, int *fd, sgz_error *err);
void sgz_extract_worker_close_dirs(sgz_extract_worker *w);

/* A name of fixed form and length, so that any length of the target's name will do. */
#define SGZ_TEMP_NAME 32
uint64_t sgz_extract_temp_number(struct sgz_extract *ex);
void sgz_extract_temp_name(uint64_t number, char name[SGZ_TEMP_NAME]);

/* The last component of a row's name, terminated. */
void sgz_extract_base_name(const sgz_toc *toc, uint32_t row, char base[SGZ_BASE_MAX + 1]);
/* A failed system call on the entry at `row`: sys is errno or -errno. */
sgz_status sgz_extract_fail_row(const sgz_toc *toc, uint32_t row, int sys, const char *what,
                                sgz_error *err);

/* Owner, xattrs, mode and times of the entry at `row`, in the order in which none undoes
 * another, to an open file or directory. */
sgz_status sgz_extract_set_metadata(sgz_extract_worker *w, const sgz_toc *toc, uint32_t row,
                                    int fd, sgz_error *err);

sgz_status sgz_extract_write_symlink(sgz_extract_worker *w, uint32_t object, sgz_error *err);
sgz_status sgz_extract_write_special(sgz_extract_worker *w, uint32_t object, sgz_error *err);
sgz_status sgz_extract_write_hardlink(sgz_extract_worker *w, uint32_t link, sgz_error *err);
sgz_status sgz_extract_write_directory(sgz_extract_worker *w, uint32_t node, sgz_error *err);

#endif
