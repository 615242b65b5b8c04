/* The kinds of entry points as codec/decode.c uses them. */
#ifndef SGZ_CODEC_KINDS_H
#define SGZ_CODEC_KINDS_H

#include "codec/decode.h"

struct sgz_codec_kind {
    const char *unit;  /* what begins at a point, for errors */
    int64_t ratio;     /* more bytes than this no byte makes */
    size_t look;       /* bytes that are looked at at once where none is open */
    int sums;          /* units have check sums, which vouch for all that is decoded from a point */
    /* Stand at the point at `offset`, which `at` is; NULL where none is listed. */
    sgz_status (*enter)(sgz_decoder *d, int64_t offset, const sgz_point *at, sgz_error *err);
    /* As sgz_codec_inflate does. With `ended` it stops behind a unit whose check sum was right,
     * and says so. */
    sgz_status (*decode)(sgz_decoder *d, const uint8_t **in, size_t *in_len, uint8_t *out,
                         size_t cap, size_t *made, int *ended, sgz_error *err);
    int (*between)(const sgz_decoder *d); /* whether no unit is open */
    sgz_status (*mark)(const sgz_decoder *d, sgz_decoder_mark *mark, sgz_error *err);
};

/* By sgz_point_kind. */
extern const struct sgz_codec_kind sgz_codec_kinds[];

#endif
