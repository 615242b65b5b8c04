/* What makes the slabs that write/pipeline.c writes: of a tar (write/cut.h), or of a directory
 * (pack/pack.h). The pipeline's threads call these functions; those of one at a time may come
 * from another thread each time. */
#ifndef SGZ_WRITE_FILLER_H
#define SGZ_WRITE_FILLER_H

#include "toc/kept.h"
#include "write/slab.h"

#include <pthread.h>

typedef struct {
    void *arg;
    size_t slab_size;       /* bytes of buffer that a slab needs (its cap) */
    pthread_mutex_t *lock;  /* of the TOC's rows and arena */
    int crcs;               /* whether members' CRCs are wanted */
    /* Fill a slab; *end becomes 1 with the last one (which may be empty). One at a time. */
    sgz_status (*fill)(void *arg, sgz_write_slab *slab, int *end, sgz_error *err);
    /* Bytes of the source so far; between calls of fill. */
    int64_t (*progress)(void *arg);
    /* After the last fill. */
    const sgz_notes *(*notes)(void *arg);

    /* The rest may be NULL. The rows of a tar that is kept, and after the last fill, why the layer
     * cannot have them: it is written without a TOC then. */
    sgz_toc_kept *kept;
    int strict;             /* which is an error, then */
    const sgz_error *(*unfit)(void *arg);
    /* worker_new makes what one thread needs for loading. */
    void *(*worker_new)(void *arg, sgz_error *err);
    void (*worker_free)(void *arg, void *worker);
    /* Load part n of the slab's load_count. Parts are loaded side by side. */
    sgz_status (*load)(void *arg, void *worker, sgz_write_slab *slab, size_t n, sgz_error *err);
    /* Give the compressed bytes of a member that is not among the copied ones, if they can be
     * had: *len is their length, else 0, and the member is compressed. */
    sgz_status (*reuse)(void *arg, void *worker, const sgz_write_slab *slab, size_t member,
                        uint8_t *out, size_t cap, size_t *len, sgz_error *err);
    /* The slab, finished, begins at this blob offset. In order, one at a time. */
    sgz_status (*placed)(void *arg, const sgz_write_slab *slab, int64_t offset, sgz_error *err);
} sgz_write_filler;

#endif
