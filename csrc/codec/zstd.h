/* Frames of zstd (RFC 8878), by libzstd. */
#ifndef SGZ_CODEC_ZSTD_H
#define SGZ_CODEC_ZSTD_H

#include "codec/codecs.h"

/* Bytes that a frame's header has at most. */
#define SGZ_ZSTD_HEADER 18
/* The memory for the window of a frame, unless another is asked for: as zstd -d --long=29. */
#define SGZ_ZSTD_MEMORY ((int64_t)1 << 29)

/* A stream that decodes frames whose windows take at most `memory`. */
sgz_status sgz_codec_zstd_new(const sgz_codecs *codecs, int64_t memory, void **stream,
                              sgz_error *err);
/* Look at the header of the frame at blob offset `offset`: its window fits into `memory`, it needs
 * no dictionary, and is of the format of RFC 8878. What is no header, or not all of one, is left to libzstd. */
sgz_status sgz_codec_zstd_check(const uint8_t *data, size_t len, int64_t memory, int64_t offset,
                                sgz_error *err);
/* Whether a frame ends in a check sum of its contents, or has none (skippable ones). */
int sgz_codec_zstd_has_sum(const uint8_t *data, size_t len);

#endif
