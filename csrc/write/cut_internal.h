/* Shared by the parts of the cut: write/cut.c (life and input), write/cut_fill.c (slabs),
 * write/cut_members.c, write/cut_parse.c. */
#ifndef SGZ_WRITE_CUT_INTERNAL_H
#define SGZ_WRITE_CUT_INTERNAL_H

#include "tar/stream.h"
#include "write/chunker.h"
#include "write/cut.h"

#include <string.h>

/* The end of a slab is kept for what is put in (landmark, rewritten headers): one entry's
 * headers always fit behind the last byte read. */
#define INSERT_ROOM (2 * SGZ_TAR_LONG_MAX)

/* Headers of one entry that are kept as they come. What is longer is a sparse map, or many headers
 * of which the last counts. */
#define HEADERS_KEPT (SGZ_TAR_LONG_MAX + SGZ_TAR_LONG_MAX / 2)

typedef enum {
    AT_HEADER, /* a header block comes next */
    IN_PAYLOAD,
    IN_SPARSE, /* a payload that is written out expanded */
    IN_PADDING,
    IN_SKIP, /* an entry that is left out */
    IN_TAIL, /* everything behind the end of the archive */
    AT_END
} sgz_write_phase;

/* Positions in the slab: [0, open) whole members, [open, put) the open member, [put, get)
 * nothing (bytes left out), [get, len) read and not yet parsed. */
struct sgz_write_cutter {
    sgz_input *input;
    sgz_toc *toc;
    pthread_mutex_t lock;   /* of the TOC */
    sgz_write_filler filler;
    sgz_write_cut_options options;
    sgz_tar_stream tar;     /* of `get`, in the input tar */
    sgz_toc_rows *apply;

    sgz_write_slab *slab;
    size_t open, put, get, len;
    size_t open_piece;      /* the open member's first piece */
    size_t header_start;    /* where the entry's first header block was put */
    size_t run_start;       /* where the run of headers in the open member began */

    sgz_write_phase phase;
    int64_t entries;        /* entries written */
    int64_t chunk_left;
    int64_t file_size, file_done;
    uint32_t file_row;
    int input_end, landmark_done;
    int headers_dropped;    /* of the entry some are not in the slab: they are written anew */

    sgz_toc_kept kept;      /* only of a tar that is kept */
    sgz_chunker chunker;
    int unfit;              /* why is in `why` */
    sgz_error why;

    sgz_tar_run *runs;      /* IN_SPARSE: the file's map */
    size_t run_count, run_at;
    int64_t holes;          /* of all sparse files so far */

    uint8_t *carry;         /* between slabs: the open member and what was read */
    size_t carry_put, carry_len, carry_cap, carry_run;
    sgz_write_piece *carry_pieces;
    size_t carry_piece_count, carry_piece_cap;
    sgz_write_mark *carry_marks;
    size_t carry_mark_count, carry_mark_cap;

    sgz_lz carry_lz;        /* between two slabs; else room for what is made anew */
    sgz_lz_piece *carry_lz_pieces;
    size_t carry_lz_piece_count, carry_lz_piece_cap;

    uint8_t *back;          /* bytes put back to the input */
    size_t back_pos, back_len, back_cap;
    sgz_notes notes;
};

static inline sgz_status sgz_write_cut_no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
}

/* Read on, first what was put back; *got is 0 only at the end. */
sgz_status sgz_write_cut_take_in(sgz_write_cutter *c, uint8_t *out, size_t cap, size_t *got,
                                 sgz_error *err);
/* Give what was read and not parsed back to the input, so that something can be put into
 * the slab at this place. */
sgz_status sgz_write_cut_unread(sgz_write_cutter *c, sgz_error *err);

/* The tokens of the input, if they are wanted (cut_lz.c). */

/* What is put next is that of `get`; or (not `from_input`) bytes of our own. */
sgz_status sgz_write_cut_put(sgz_write_cutter *c, int from_input, sgz_error *err);
/* With the carried bytes, from slab to slab. */
sgz_status sgz_write_cut_load_lz(sgz_write_cutter *c, sgz_error *err);
sgz_status sgz_write_cut_save_lz(sgz_write_cutter *c, sgz_error *err);
/* Before more is read: drop the tokens of what was skipped, when they are many. */
sgz_status sgz_write_cut_thin_lz(sgz_write_cutter *c, sgz_error *err);

/* End the open member where the output stands. */
sgz_status sgz_write_cut_close_member(sgz_write_cutter *c, sgz_error *err);
/* A regular file of `size` bytes begins; with own_member whatever the minimum is. */
sgz_status sgz_write_cut_begin_file(sgz_write_cutter *c, uint32_t row, int64_t size,
                                    int own_member, sgz_error *err);
/* n bytes of the file were put; begins the next chunk where one ends. */
sgz_status sgz_write_cut_chunk_done(sgz_write_cutter *c, size_t n, sgz_error *err);

/* Of a tar that is kept: an entry's headers are complete; the archive's end is; n bytes behind that;
 * there is no more (may that be so here?); the next chunk of the file that is read (*more: it does
 * not end here). `status` tells what cannot be held: it ends the TOC, or, with strict, the
 * conversion. */
sgz_status sgz_write_cut_kept_entry(sgz_write_cutter *c, const sgz_tar_entry *entry,
                                    sgz_error *err);
sgz_status sgz_write_cut_kept_end(sgz_write_cutter *c, sgz_error *err);
sgz_status sgz_write_cut_kept_tail(sgz_write_cutter *c, size_t n, sgz_error *err);
sgz_status sgz_write_cut_kept_finish(sgz_write_cutter *c, sgz_error *err);
sgz_status sgz_write_cut_kept_chunks(sgz_write_cutter *c, int *more, sgz_error *err);
sgz_status sgz_write_cut_kept_unfit(sgz_write_cutter *c, sgz_status status, sgz_error *err);

/* Parse what was read; returns when more must be read, or *full. */
sgz_status sgz_write_cut_parse(sgz_write_cutter *c, int *full, sgz_error *err);
/* The input has ended: may it, here? */
sgz_status sgz_write_cut_at_input_end(sgz_write_cutter *c, sgz_error *err);

#endif
