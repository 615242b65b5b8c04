/* Reading a blob: bytes in, decoded tar bytes out. */
#ifndef SGZ_CODEC_DECODE_H
#define SGZ_CODEC_DECODE_H

#include "codec/gzip.h"

/* Where a blob's bytes come from: memory, a file (pread, never mmap: a file truncated
 * under a mapping is a SIGBUS), or a callback. Any number of threads may read. */
typedef struct {
    const uint8_t *data;   /* memory, or NULL */
    int64_t base;          /* blob offset of data[0]: memory may hold just [base, size) */
    int fd;                /* or a file, or -1 */
    int (*read_at)(void *arg, int64_t offset, uint8_t *out, size_t len); /* 0, or stops */
    void *arg;
    int64_t size;
} sgz_blob;

/* Read exactly len bytes; a range outside the blob is SGZ_EGZIP, a failing callback
 * SGZ_ECALLBACK. */
sgz_status sgz_codec_blob_read(const sgz_blob *blob, int64_t offset, uint8_t *out, size_t len,
                               sgz_error *err);

/* A position in the decoded stream of a blob. Belongs to one thread at a time. */
typedef struct {
    const sgz_blob *blob;
    sgz_inflater inflater;
    uint8_t *in;           /* blob bytes [in_base, in_base + in_len); unused for memory */
    size_t in_cap, in_len;
    int64_t in_base;
    size_t step;           /* how much the next refill asks for */
    int64_t next, end;     /* blob range not yet decoded */
    int64_t ahead;         /* refills may read on to here when that is beyond `end` */
} sgz_decoder;

sgz_status sgz_codec_decoder_init(sgz_decoder *d, const sgz_codecs *codecs, const sgz_blob *blob,
                                  sgz_error *err);
void sgz_codec_decoder_free(sgz_decoder *d);
/* Go to the member that begins at `offset`; members are decoded up to blob offset `end`.
 * Bytes already read are kept: going on at a following member reads nothing twice. */
void sgz_codec_decoder_seek(sgz_decoder *d, int64_t offset, int64_t end);
/* Allow reads ahead up to `ahead`, for a caller that will seek on through neighbours: tiny
 * members then share one read. Stays until it is set again; 0 is none. */
void sgz_codec_decoder_read_ahead(sgz_decoder *d, int64_t ahead);
/* Decode across members until out is full or the members end (*got < cap). CRCs are
 * checked as trailers pass. A member that `end` cuts off is SGZ_EGZIP; what was decoded of
 * it is still counted in *got. Nothing is inflated beyond `cap` bytes. */
sgz_status sgz_codec_decoder_read(sgz_decoder *d, uint8_t *out, size_t cap, size_t *got,
                                  sgz_error *err);
/* The same, but stops behind the first trailer: *got < cap also when a member ended. So an
 * error is always about a member that bytes of *got are from. */
sgz_status sgz_codec_decoder_read_member(sgz_decoder *d, uint8_t *out, size_t cap, size_t *got,
                                         sgz_error *err);
/* Decode and drop the rest of the open member, if there is one, so that its CRC is checked.
 * *ended is 0 when it has more than `limit` bytes left. */
sgz_status sgz_codec_decoder_finish(sgz_decoder *d, int64_t limit, int *ended, sgz_error *err);
/* Decode `len` bytes and drop them; *got < len when the members end first. */
sgz_status sgz_codec_decoder_skip(sgz_decoder *d, int64_t len, int64_t *got, sgz_error *err);

#endif
