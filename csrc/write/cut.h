/* The cut: a tar stream in, slabs of the output tar out, divided into gzip members.
 *
 * Where members begin depends on the tar's content alone (format sections 1, 4 and 7),
 * never on slab sizes, threads or how the input arrives. This is the seam between inflate
 * and deflate: everything before it hands on tar bytes, everything after it sees members. */
#ifndef SGZ_WRITE_CUT_H
#define SGZ_WRITE_CUT_H

#include "toc/rows.h"
#include "io/input.h"
#include "write/filler.h"

typedef struct {
    int64_t chunk_size, min_chunk_size;
    int landmarks;          /* eStargz: write a landmark, drop those of the input */
    int64_t landmark_after; /* entries that stand before the landmark */
    int prefetch;           /* which landmark: .prefetch.landmark or .no.prefetch.landmark */
    int lossless;           /* keep every byte of the input */
    int apart;              /* the TOC is kept apart: no such entry of the input is kept */
    int frames;             /* contents are in members of their own, and the archive has its end */
    int kept;               /* the tar is kept, and cut as containers/storage does; with lossless */
    int strict;             /* what that cannot hold is an error */
    int64_t max_sparse;     /* holes of all sparse files together; 0: SGZ_TAR_HOLES_MAX */
} sgz_write_cut_options;

typedef struct sgz_write_cutter sgz_write_cutter;

/* Input and TOC must live as long as the cutter. */
sgz_write_cutter *sgz_write_cutter_new(sgz_input *input, sgz_toc *toc,
                                       const sgz_write_cut_options *options);
void sgz_write_cutter_free(sgz_write_cutter *cutter);
/* What fills the slabs of a conversion; good as long as the cutter. */
const sgz_write_filler *sgz_write_cutter_filler(sgz_write_cutter *cutter);

#endif
