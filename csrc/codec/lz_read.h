/* Inflating gzip members in a way of our own, for the sake of the tokens. */
#ifndef SGZ_CODEC_LZ_READ_H
#define SGZ_CODEC_LZ_READ_H

#include "codec/gzip.h"
#include "codec/lz_tables.h"

typedef struct {
    sgz_inflater inflater;  /* first: sgz_codec_inflate_by hands it to lz_read.c */
    sgz_lz *to;             /* tokens are appended here; the caller's, who may empty it or take
                               another between two calls */
    int64_t out;            /* bytes given so far, of all members */
    int64_t covered;        /* where the next token begins */

    /* Private: where it stands in the deflate data. */
    int step;
    int last;               /* the present block is the last */
    uint64_t bits;          /* taken from the input and not yet decoded: */
    unsigned bit_count;     /* so many, the bits above are zeros */
    uint32_t stored;        /* bytes that a stored block has left */
    uint32_t copy, distance; /* bytes of a match for which there was no room */
    unsigned litlens, distances, precodes, at; /* of a block's header, as far as it was read */
    uint8_t lengths[SGZ_LITLENS + SGZ_DISTANCES];
    int fixed;              /* the tables are those of fixed blocks */
    sgz_lz_tables tables;
    size_t history;         /* bytes of the member in `window`, at its end the last ones */
    uint8_t window[2 * SGZ_DISTANCE_MAX];
} sgz_lz_reader;

sgz_status sgz_codec_lz_reader_new(sgz_lz_reader **reader, const sgz_codecs *codecs,
                                   sgz_error *err);
void sgz_codec_lz_reader_free(sgz_lz_reader *reader);

/* As sgz_codec_inflate, of a stream that begins at offset 0: the same verdicts and errors. (What
 * comes before broken data is given whole.) The tokens of what is given are appended to reader->to.
 * A member's matches reach no further back than its beginning. */
sgz_status sgz_codec_lz_read(sgz_lz_reader *reader, const uint8_t **in, size_t *in_len,
                             uint8_t *out, size_t out_cap, size_t *out_len, sgz_error *err);

#endif
