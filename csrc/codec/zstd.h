/* Frames of zstd (RFC 8878), by libzstd. */
#ifndef SGZ_CODEC_ZSTD_H
#define SGZ_CODEC_ZSTD_H

#include "codec/codecs.h"

/* Bytes that a frame's header has at most. */
#define SGZ_ZSTD_HEADER 18
/* The memory for the window of a frame, unless another is asked for: as zstd -d --long=29. */
#define SGZ_ZSTD_MEMORY ((int64_t)1 << 29)

/* Where the blocks of a frame lie, followed while libzstd takes its bytes. */
typedef struct {
    int64_t skip;    /* bytes to the next block's header */
    uint32_t header; /* `have` bytes of it */
    unsigned have;
} sgz_zstd_blocks;

/* A stream that decodes frames whose windows take at most `memory`. */
sgz_status sgz_codec_zstd_new(const sgz_codecs *codecs, int64_t memory, void **stream,
                              sgz_error *err);
/* Look at the header of the frame at blob offset `offset`: its window fits into `memory`, it needs
 * no dictionary, and is of the format of RFC 8878. What is no header, or not all of one, is left to
 * libzstd. `blocks` is made ready for the frame. */
sgz_status sgz_codec_zstd_check(const uint8_t *data, size_t len, int64_t memory, int64_t offset,
                                sgz_zstd_blocks *blocks, sgz_error *err);
/* The next bytes of the frame at `offset`, which libzstd took: it refuses a compressed block of no
 * bytes, as it has to (RFC 8878, 3.1.1.2.3: two sections, neither of which is empty), where it has
 * the frame as a whole, and takes it where it has it in pieces. */
sgz_status sgz_codec_zstd_follow(sgz_zstd_blocks *blocks, const uint8_t *data, size_t len,
                                 int64_t offset, sgz_error *err);
/* Whether a frame ends in a check sum of its contents, or has none (skippable ones). */
int sgz_codec_zstd_has_sum(const uint8_t *data, size_t len);

#endif
