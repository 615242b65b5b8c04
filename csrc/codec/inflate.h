/* The steps of sgz_codec_inflate, for who decodes deflate data in a way of its own. */
#ifndef SGZ_CODEC_INFLATE_H
#define SGZ_CODEC_INFLATE_H

#include "codec/gzip.h"

/* sgz_inflater.phase */
enum {
    SGZ_PHASE_HEADER,
    SGZ_PHASE_BITS, /* those of the byte that the data begins in */
    SGZ_PHASE_DATA,
    SGZ_PHASE_TRAILER,
    SGZ_PHASE_GARBAGE,
    SGZ_PHASE_BROKEN
};

/* sgz_inflater.broken: ISA-L's numbers. */
enum { SGZ_BROKEN_BLOCK = -1, SGZ_BROKEN_SYMBOL = -2, SGZ_BROKEN_DISTANCE = -3 };

/* Decode deflate data until the output is full, the input used up or another phase begins. */
typedef sgz_status sgz_inflate_data(sgz_inflater *z, const uint8_t **in, size_t *in_len,
                                    uint8_t *out, size_t cap, size_t *made, sgz_error *err);

sgz_inflate_data sgz_codec_inflate_data;
/* sgz_codec_inflate, with that step done by `data`. */
sgz_status sgz_codec_inflate_by(sgz_inflate_data *data, sgz_inflater *z, const uint8_t **in,
                                size_t *in_len, uint8_t *out, size_t out_cap, size_t *out_len,
                                int stop_at_member_end, sgz_error *err);
/* What it does besides: n bytes of the input were given to ISA-L, and output was made. */
void sgz_codec_inflate_took(sgz_inflater *z, const uint8_t **in, size_t *in_len, size_t n);
void sgz_codec_inflate_made(sgz_inflater *z, const uint8_t *data, size_t len);

#endif
