/* Frames of zstd, written: each with its check sum, and with its content's size where that is known
 * before. (Without it, readers make room for the level's window: 8 MiB a frame at level 3.) */
#ifndef SGZ_CODEC_FRAMES_H
#define SGZ_CODEC_FRAMES_H

#include "codec/codecs.h"

#define SGZ_ZSTD_LEVEL_MAX 19
/* What a skippable frame begins with. */
#define SGZ_SKIPPABLE_HEADER 8

/* One compressor; belongs to one thread at a time. */
typedef struct {
    const sgz_codecs *codecs;
    void *ctx;
    uint8_t *out;           /* of a frame in pieces */
} sgz_framer;

/* `f` is zero, or was freed. To be freed also when this fails. */
sgz_status sgz_codec_framer_init(sgz_framer *f, const sgz_codecs *codecs, int level,
                                 sgz_error *err);
void sgz_codec_framer_free(sgz_framer *f);

/* Compress a frame in one call. The bytes depend on these, the level and the library's version. */
sgz_status sgz_codec_frame(sgz_framer *f, const uint8_t *in, size_t len, uint8_t *out, size_t cap,
                           size_t *out_len, sgz_error *err);

/* A frame in pieces of any size, which its bytes may depend on; `take` gets the bytes.
 * How much it is is known at the end: so what comes first, a header of SGZ_FRAME_UNSIZED bytes, is to
 * be replaced then by that of a sized frame. A compressor makes such frames or the others. */
#define SGZ_FRAME_UNSIZED 6
#define SGZ_FRAME_SIZED 14
typedef sgz_status (*sgz_codec_take)(void *arg, const uint8_t *data, size_t len, sgz_error *err);
sgz_status sgz_codec_frame_begin(sgz_framer *f, sgz_error *err);
sgz_status sgz_codec_frame_piece(sgz_framer *f, const uint8_t *in, size_t len, int last,
                                 sgz_codec_take take, void *arg, sgz_error *err);
void sgz_codec_frame_sized(const uint8_t unsized[SGZ_FRAME_UNSIZED], uint64_t size,
                           uint8_t out[SGZ_FRAME_SIZED]);

/* How a skippable frame of `len` bytes begins. */
void sgz_codec_skippable(uint8_t out[SGZ_SKIPPABLE_HEADER], uint32_t len);

#endif
