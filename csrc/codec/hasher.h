/* SHA-256 of a long stream and of many messages, side by side.
 *
 * The SHA instructions of a core are pipelined, but one digest cannot use that: each round
 * waits for the last. Two digests in turn take the time of one: measured 1,780 MB/s for
 * libcrypto's and 3,300 MB/s for two (Zen 4). A conversion hashes every byte of the tar for
 * the DiffID and nearly every one again for its chunk, so the chunks come for nothing. */
#ifndef SGZ_CODEC_HASHER_H
#define SGZ_CODEC_HASHER_H

#include "codec/codecs.h"

typedef struct {
    const uint8_t *data;
    size_t len;
    uint8_t *digest;        /* 32 bytes */
} sgz_message;

typedef struct {
    const sgz_codecs *codecs;
    int paired;             /* the processor has what two lanes need */
    sgz_sha256 plain, message; /* without: libcrypto's */
    uint32_t state[8];
    uint64_t len;
    uint8_t partial[64];    /* the stream's last bytes that are no whole block yet */
} sgz_hasher;

sgz_status sgz_codec_hasher_init(sgz_hasher *h, const sgz_codecs *codecs, sgz_error *err);
void sgz_codec_hasher_free(sgz_hasher *h);
/* Advance the stream, and digest the messages meanwhile. */
void sgz_codec_hasher_update(sgz_hasher *h, const uint8_t *data, size_t len,
                             const sgz_message *messages, size_t count);
/* Advance the stream by len bytes, and `other` by as many of its own as go beside them, in whole
 * blocks; returns how many that were. */
size_t sgz_codec_hasher_beside(sgz_hasher *h, const uint8_t *data, size_t len, sgz_hasher *other,
                               const uint8_t *other_data, size_t other_len);
void sgz_codec_hasher_final(sgz_hasher *h, uint8_t digest[32]);

/* The next bytes of a stream. */
typedef struct {
    const uint8_t *data;
    size_t len;
    uint8_t *digest;        /* not NULL: a message ends here, and the next one begins */
    sgz_hasher *copy;       /* not NULL: gets the stream as it is here, before that */
    size_t after;           /* begin once so many pieces of the stream's `other` are done */
} sgz_hash_piece;

typedef struct sgz_hash_stream {
    sgz_hasher *hasher;
    const sgz_hash_piece *pieces;
    size_t count;
    const struct sgz_hash_stream *other; /* whose pieces some of these wait for, or NULL */
    /* Private. */
    size_t done;            /* pieces */
    size_t left;            /* blocks, about */
    int begun;              /* the next piece: where it stands */
    const uint8_t *run, *rest; /* blocks to be done now, and what is behind them */
    size_t blocks, rest_len;
    uint8_t last[128];
} sgz_hash_stream;

/* Advance several streams, each by all of its pieces: at any time the two that have most to do, side
 * by side. */
void sgz_codec_hasher_streams(sgz_hash_stream *streams, size_t count);

#endif
