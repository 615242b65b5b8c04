/* Slabs: the tar in pieces of some MiB, divided into gzip members, on their way through the
 * stages of write/pipeline.c. */
#ifndef SGZ_WRITE_SLAB_H
#define SGZ_WRITE_SLAB_H

#include "base/status.h"
#include "base/vec.h"
#include "codec/recode.h"

/* A run of headers that grows past this begins a new member (format section 1). */
#define SGZ_HEADER_RUN (1u << 20)

/* One chunk of a regular file, in a slab. */
typedef struct {
    uint32_t row;           /* of the chunk */
    uint32_t file_row;      /* of its file; equal for the first chunk */
    size_t start, len;      /* in the slab */
    size_t inner;           /* distance from the member's start */
    int64_t at;             /* blob bytes from the start of a copied run to the chunk's member */
    int whole;              /* the file's only chunk */
    int last;               /* the file's last chunk */
    int hashed;             /* the digest is there already */
    int file_hashed;        /* so is that of the whole file, in the TOC */
    uint8_t digest[32];
} sgz_write_piece;

typedef struct {
    size_t start, len;
    size_t first_piece, piece_count;
    size_t out_len;         /* compressed */
    size_t copied;          /* not 0: a run of that many members, compressed already: the next
                               out_len bytes of the slab's `packed` */
    int reused;             /* made of the input's tokens */
    uint32_t crc;           /* of the compressed bytes, if the filler wants it; not of runs */
} sgz_write_member;

/* Where an entry's headers end, in the slab: of a tar that is kept (cut_kept.c). */
typedef struct {
    size_t at;
    uint32_t row;           /* of the entry; SGZ_NO_ROW: this is the archive's end */
    int64_t size;           /* bytes of contents that follow */
} sgz_write_mark;

typedef struct {
    uint8_t *buf;
    size_t cap, len;        /* len bytes of whole members */
    int64_t tar_len;        /* what that is in the tar: copied runs need not be in buf */
    sgz_write_member *members;
    size_t member_count, member_cap;
    sgz_write_piece *pieces;
    size_t piece_count, piece_cap;
    sgz_write_mark *marks;
    size_t mark_count, mark_cap;
    uint32_t rows_done;     /* of a tar that is kept: all rows before it are, with this slab */
    sgz_lz lz;              /* of an input whose tokens are wanted, and which piece of the slab has */
    sgz_lz_piece *lz_pieces; /* what place in its stream */
    size_t lz_piece_count, lz_piece_cap;
    int unfit;              /* the filler has found (sgz_write_filler.unfit) */
    uint8_t *packed;        /* copied runs, in order */
    size_t packed_len, packed_cap;
    size_t load_count;      /* parts to be loaded before buf and packed are complete */
    void *plan;             /* the filler's */
} sgz_write_slab;

sgz_status sgz_write_slab_init(sgz_write_slab *slab, size_t cap, sgz_error *err);
void sgz_write_slab_free(sgz_write_slab *slab);

#endif
