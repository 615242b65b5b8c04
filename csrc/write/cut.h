/* The cut: a tar stream in, slabs of the output tar out, divided into gzip members.
 *
 * Where members begin depends on the tar's content alone (format sections 1, 4 and 7),
 * never on slab sizes, threads or how the input arrives. This is the seam between inflate
 * and deflate: everything before it hands on tar bytes, everything after it sees members. */
#ifndef SGZ_WRITE_CUT_H
#define SGZ_WRITE_CUT_H

#include "toc/rows.h"
#include "io/input.h"
#include "write/slab.h"

/* A run of headers that grows past this begins a new member (format section 1). */
#define SGZ_HEADER_RUN (1u << 20)

typedef struct {
    int64_t chunk_size, min_chunk_size;
    int landmarks;          /* eStargz: write a landmark, drop those of the input */
    int64_t landmark_after; /* entries that stand before the landmark */
    int prefetch;           /* which landmark: .prefetch.landmark or .no.prefetch.landmark */
    int lossless;           /* keep every byte of the input */
} sgz_write_cut_options;

typedef struct sgz_write_cutter sgz_write_cutter;

/* `toc` is appended to under `lock`, so that others may use its rows meanwhile. */
sgz_write_cutter *sgz_write_cutter_new(sgz_input *input, sgz_toc *toc, pthread_mutex_t *lock,
                                       const sgz_write_cut_options *options);
void sgz_write_cutter_free(sgz_write_cutter *cutter);
/* The slab size that these options need: a whole member and room to read. */
size_t sgz_write_cutter_slab_size(const sgz_write_cut_options *options);
/* Fill a slab; *end is set with the last one (which may be empty). */
sgz_status sgz_write_cutter_fill(sgz_write_cutter *cutter, sgz_write_slab *slab, int *end,
                                 sgz_error *err);
/* Whether a name is that of a TOC (2) or a landmark (1) at the root: what an earlier
 * conversion left. */
int sgz_write_cut_marker(const char *name, size_t len);
/* Names that JSON cannot hold, after the end. */
uint64_t sgz_write_cutter_bad_names(const sgz_write_cutter *cutter);

#endif
