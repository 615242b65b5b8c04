/* Frames of zstd (RFC 8878), by libzstd. */
#ifndef SGZ_CODEC_ZSTD_H
#define SGZ_CODEC_ZSTD_H

#include "codec/codecs.h"

/* Bytes that a frame's header has at most. */
#define SGZ_ZSTD_HEADER 18
/* The memory for the window of a frame, unless another is asked for: as zstd -d --long=29. */
#define SGZ_ZSTD_MEMORY ((int64_t)1 << 29)

/* Where the blocks of a frame lie, and what it decodes to, followed while libzstd takes its bytes. */
typedef struct {
    int64_t skip;    /* bytes to the next block's header */
    uint32_t header; /* `have` bytes of it */
    unsigned have;
    int sized; /* the frame says how many bytes its content has */
    uint64_t content, made;
} sgz_zstd_blocks;

/* A stream that decodes frames whose windows take at most `memory`. */
sgz_status sgz_codec_zstd_new(const sgz_codecs *codecs, int64_t memory, void **stream,
                              sgz_error *err);
/* Look at the header of the frame at blob offset `offset`: its window fits into `memory`, it needs
 * no dictionary, and is of the format of RFC 8878. What is no header, or not all of one, is left to
 * libzstd. `blocks` is made ready for the frame. */
sgz_status sgz_codec_zstd_check(const uint8_t *data, size_t len, int64_t memory, int64_t offset,
                                sgz_zstd_blocks *blocks, sgz_error *err);
/* What libzstd took and made of the frame at `offset`, and whether that is its end. A frame that it
 * has as a whole it refuses, as it has to, if a compressed block has no bytes (RFC 8878, 3.1.1.2.3:
 * two sections, neither of which is empty), or if the content has not the size that is stated; of
 * one that it has in pieces it takes the former, and the latter behind an empty block. */
sgz_status sgz_codec_zstd_follow(sgz_zstd_blocks *blocks, const uint8_t *data, size_t len,
                                 size_t made, int ended, int64_t offset, sgz_error *err);
/* Whether a frame ends in a check sum of its contents, or has none (skippable ones). */
int sgz_codec_zstd_has_sum(const uint8_t *data, size_t len);

#endif
