/* A read of many chunks, on many threads. */
#ifndef SGZ_READ_PIECES_H
#define SGZ_READ_PIECES_H

#include "read/spans.h"

/* One piece of a read that several threads share. */
typedef struct {
    size_t span;
    int64_t from;
    size_t len;
    uint8_t *out;
    const sgz_blob *blob;  /* where this chunk's bytes are */
} sgz_read_piece;

/* All pieces, on up to `threads` threads; the first error in piece order is reported. */
sgz_status sgz_read_pieces(const sgz_codecs *codecs, const sgz_spans *spans,
                           const sgz_read_piece *pieces, size_t count, int verify,
                           int threads, sgz_error *err);

#endif
