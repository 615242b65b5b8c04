/* Gzip members (RFC 1952) over raw deflate. */
#ifndef SGZ_CODEC_GZIP_H
#define SGZ_CODEC_GZIP_H

#include "codec/codecs.h"

#define SGZ_GZIP_HEADER 10 /* what sgz_codec_deflate_member writes before the deflate data */
#define SGZ_GZIP_TRAILER 8
#define SGZ_DEFLATE_RATIO 1032 /* deflate has 258 bytes in two bits at best */
#define SGZ_LEVEL_MIN 1
#define SGZ_LEVEL_MAX 12
#define SGZ_LEVEL_ISAL_MAX 2 /* 1..2 are ISA-L's, above are libdeflate's */

/* --- writing ----------------------------------------------------------------------- */

/* One compressor; belongs to one thread at a time. */
typedef struct {
    const sgz_codecs *codecs;
    int level;
    sgz_isal_zstream *stream;
    uint8_t *level_buf;
    void *libdeflate;
} sgz_deflater;

sgz_status sgz_codec_deflater_init(sgz_deflater *d, const sgz_codecs *codecs, int level,
                                   sgz_error *err);
void sgz_codec_deflater_free(sgz_deflater *d);

/* Room that any member of `len` input bytes fits in. */
static inline size_t sgz_codec_member_bound(size_t len)
{
    return len + (len >> 3) + 512;
}

/* Compress one member in one call. Header: mtime 0, OS 255, XFL by level; no name. With
 * `toc_extra` the header carries the Extra field "stargz.toc" of google/crfs. */
sgz_status sgz_codec_deflate_member(sgz_deflater *d, const uint8_t *in, size_t len,
                                    int toc_extra, uint8_t *out, size_t out_cap, size_t *out_len,
                                    sgz_error *err);

/* What is before and behind a member's deflate data; `out` has room for 22 and 8 bytes. */
size_t sgz_codec_member_header(int level, int toc_extra, uint8_t *out);
size_t sgz_codec_member_trailer(uint32_t crc, uint32_t size, uint8_t *out);

/* A member too large to hold, in pieces; levels 1 and 2. The bytes depend on where the
 * pieces end, so callers use pieces of one fixed length. `out` has room for
 * sgz_codec_member_bound(len) at each call. */
typedef struct {
    sgz_deflater *deflater;
    uint32_t crc, size;
} sgz_codec_member_stream;

void sgz_codec_member_begin(sgz_codec_member_stream *m, sgz_deflater *d, int toc_extra,
                            uint8_t *out, size_t *out_len);
sgz_status sgz_codec_member_piece(sgz_codec_member_stream *m, const uint8_t *in, size_t len,
                                  int last, uint8_t *out, size_t out_cap, size_t *out_len,
                                  sgz_error *err);

/* --- reading ----------------------------------------------------------------------- */

/* Parse the member header at data[0..len), and check its own CRC if it has one (RFC 1952, 2.3.1).
 * Returns SGZ_OK and *header_len = 0 when more bytes are needed; SGZ_EDATA when it is not a gzip
 * member, or one that cannot be decoded (*is_member). */
sgz_status sgz_codec_gzip_header(const sgz_codecs *codecs, const uint8_t *data, size_t len,
                                 size_t *header_len, int *is_member, sgz_error *err);

#define SGZ_GARBAGE 2

/* A streaming decoder of concatenated members. Belongs to one thread at a time. */
typedef struct {
    const sgz_codecs *codecs;
    sgz_isal_inflate_state *state;
    int phase;              /* private: header, first bits, deflate data, trailer, garbage,
                               broken */
    int broken;             /* ISA-L's error, once the deflate data is broken */
    uint32_t crc;
    uint32_t size;          /* of the member so far, modulo 2^32 */
    int64_t member_offset;  /* where the current member began, for errors */
    uint64_t members;       /* members finished */
    int64_t base;           /* offset of the next input byte, for errors */
    uint8_t pending[8];     /* trailer bytes seen so far */
    unsigned pending_len;
    uint8_t tail[8];        /* the last deflate bytes taken in */
    unsigned tail_len;
    uint8_t *header;        /* header bytes seen so far, when split between inputs */
    size_t header_len, header_cap;
    int garbage;            /* bytes that are no member follow the last one, and are ignored: zeros
                               alone, or SGZ_GARBAGE */
    uint8_t skip;           /* bits of the first byte that are not this stream's */
    uint8_t partial;        /* the current member was entered in its midst: its check sum is not
                               compared */
} sgz_inflater;

sgz_status sgz_codec_inflater_init(sgz_inflater *z, const sgz_codecs *codecs, sgz_error *err);
void sgz_codec_inflater_free(sgz_inflater *z);
/* Make `to`, which was initialised, stand where `from` does. Fails only for want of memory. */
sgz_status sgz_codec_inflater_copy(sgz_inflater *to, const sgz_inflater *from, sgz_error *err);
/* Begin a new stream whose first byte stands at `offset` of the blob. */
void sgz_codec_inflater_reset(sgz_inflater *z, int64_t offset);

/* Begin within the deflate data of a member, at a block: `offset` is that of the byte which holds
 * its first bit, above the `skip` lowest ones; the `history` bytes at `window` (32 KiB at most)
 * were decoded before it. Without history it is the member's first block, which is checked. */
sgz_status sgz_codec_inflater_resume(sgz_inflater *z, int64_t offset, unsigned skip,
                                     const uint8_t *window, size_t history, sgz_error *err);

/* Decode from *in (advanced, *in_len lessened) into out[0..out_cap). Stops when the
 * output is full or the input is used up; *out_len is what was written. CRC and length of
 * each member are checked as its trailer passes. With stop_at_member_end it also stops
 * after a trailer (z->phase says so: sgz_codec_inflater_at_member_end).
 * Where deflate data is broken, what comes before is still given, but for up to 258 bytes,
 * and the error is told only after that, as often as it is asked for. */
sgz_status sgz_codec_inflate(sgz_inflater *z, const uint8_t **in, size_t *in_len, uint8_t *out,
                             size_t out_cap, size_t *out_len, int stop_at_member_end,
                             sgz_error *err);

/* True between members (also before the first): a clean place to end. */
int sgz_codec_inflater_at_member_end(const sgz_inflater *z);

#endif
