/* The table of contents of zstd:chunked, in one pass: out of its frame, hashed and parsed. */
#ifndef SGZ_TOC_OPEN_FRAME_H
#define SGZ_TOC_OPEN_FRAME_H

#include "codec/decode.h"
#include "toc/toc.h"

/* Where it is: `packed` bytes from blob offset `offset` on, which decode to `size`. */
typedef struct {
    int64_t offset, packed, size;
} sgz_toc_frame;

/* Read it: the frame must decode to just its size, of which max_size are allowed, and is read once.
 * `blob_end` bounds the offsets in it. A chunk of zeros whose digest is another is SGZ_EDIGEST.
 * `digest` is the sha256 of the JSON, `checksum` that of the frame. */
sgz_status sgz_toc_read_frame(const sgz_codecs *codecs, const sgz_blob *blob,
                              const sgz_toc_frame *frame, int64_t max_size, int64_t blob_end,
                              sgz_toc *toc, uint8_t digest[32], uint8_t checksum[32],
                              sgz_error *err);

#endif
