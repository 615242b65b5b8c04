/* Members made of tokens that are there already: no search for matches, but Huffman codes of their
 * own. The bytes depend on the data and the tokens alone. */
#ifndef SGZ_CODEC_RECODE_H
#define SGZ_CODEC_RECODE_H

#include "codec/gzip.h"
#include "codec/units.h"

/* Bytes behind the data that are read (not used), whatever they are. */
#define SGZ_RECODE_SLACK 32

/* Part of a member. */
typedef struct { size_t at, len; } sgz_recode_range;

/* Belongs to one thread at a time. */
typedef struct sgz_recoder sgz_recoder;

sgz_status sgz_codec_recoder_new(sgz_recoder **recoder, const sgz_codecs *codecs, sgz_error *err);
void sgz_codec_recoder_free(sgz_recoder *recoder);

/* The data that members are of, until the next call, with the tokens and the pieces: in order, the
 * first one at 0. */
void sgz_codec_recode_begin(sgz_recoder *recoder, const uint8_t *data, const sgz_lz *lz,
                            const sgz_lz_piece *pieces, size_t piece_count);
/* As sgz_codec_deflate_member, of data[begin, begin + len). A match that reaches back before the
 * member or its piece is replaced. It is fastest with members one after the other. */
sgz_status sgz_codec_recode_member(sgz_recoder *recoder, size_t begin, size_t len, uint8_t *out,
                                   size_t out_cap, size_t *out_len, sgz_error *err);
/* Of the member made last: where a search for matches would tell whether the tokens are poor. All of it
 * where literals are more than what they are coded with, as those of good tokens hardly ever are, or
 * where hardly a match reaches far, as of a compressor with a small window; a part where literals are
 * all there is, as of what is compressed already; or (len 0) nowhere. */
sgz_recode_range sgz_codec_recode_doubt(const sgz_recoder *recoder);

#endif
