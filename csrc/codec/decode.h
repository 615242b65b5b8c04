/* Reading a blob: bytes in, decoded tar bytes out. */
#ifndef SGZ_CODEC_DECODE_H
#define SGZ_CODEC_DECODE_H

#include "base/file.h"
#include "base/job.h"
#include "codec/gzip.h"
#include "codec/points.h"
#include "codec/zstd.h"

/* Where a blob's bytes come from: memory, a file (pread, never mmap: a file truncated
 * under a mapping is a SIGBUS), or a callback. Any number of threads may read. */
typedef struct {
    const uint8_t *data;   /* memory, or NULL */
    int64_t base;          /* blob offset of data[0]: memory may hold just [base, size) */
    int fd;                /* or a file, or -1 */
    const sgz_base_named *named; /* or one without a descriptor, or NULL */
    int (*read_at)(void *arg, int64_t offset, uint8_t *out, size_t len); /* 0, or stops */
    void *arg;
    int64_t size;
    int (*poll)(void);     /* asked after each SGZ_POLL bytes that a thread decodes of it: non-zero
                              ends that with SGZ_ECANCELLED; may be NULL */
} sgz_blob;

#define SGZ_POLL ((size_t)16 << 20)

/* Whether it is read at once: there is nothing to be gained by asking for much of it. */
static inline int sgz_codec_blob_direct(const sgz_blob *blob)
{
    return blob->data || blob->fd >= 0 || blob->named;
}

/* Read exactly len bytes; a range outside the blob is SGZ_EDATA, a failing callback
 * SGZ_ECALLBACK. */
sgz_status sgz_codec_blob_read(const sgz_blob *blob, int64_t offset, uint8_t *out, size_t len,
                               sgz_error *err);

/* Only the decoder knows the kinds of entry points: whoever reads chunks has the offset of one, and
 * how many decoded bytes from there a chunk is. `points` are those of a blob; NULL: its gzip
 * members, each of which is one. */

/* What begins at a point, for errors. */
const char *sgz_codec_point_unit(const sgz_points *points);
/* Whether `packed` bytes from a point on can decode to `size` bytes. */
int sgz_codec_point_fits(const sgz_points *points, int64_t packed, int64_t size);
/* Whether anything vouches for what is decoded: a check sum of the blob's own, a span's digest. */
int sgz_codec_points_vouch(const sgz_points *points);
/* How many bytes of a blob from a point on hold `size` decoded bytes at most. */
int64_t sgz_codec_bound(const sgz_points *points, int64_t size);

/* A position in the decoded stream of a blob. Belongs to one thread at a time. */
typedef struct {
    const sgz_codecs *codecs;
    const sgz_blob *blob;
    const sgz_points *points;
    const struct sgz_codec_kind *kind;
    sgz_inflater inflater;
    void *zstd;
    sgz_zstd_blocks blocks;
    int frame_open;
    int64_t frame_offset;
    /* Of a span whose bytes have a digest: */
    uint8_t compare;       /* set by the caller before it enters one: compare it */
    uint8_t need_sum;      /* likewise, of zstd:chunked: refuse a frame without a check sum */
    uint8_t strict;        /* likewise, of zstd:chunked: refuse what stands between frames and decodes
                              to nothing */
    uint8_t vouched;       /* it was right, before anything was decoded */
    const uint8_t *digest; /* it is compared at `end`, by what is taken in until then; or NULL */
    sgz_sha256 sha;
    uint8_t *in;           /* blob bytes [in_base, in_base + in_len); unused for memory */
    size_t in_cap, in_len;
    int64_t in_base;
    size_t step;           /* how much the next refill asks for */
    int64_t entered;       /* the point */
    int64_t next, end;     /* blob range not yet decoded */
    int64_t ahead;         /* refills may read on to here when that is beyond `end` */
    const sgz_base_stop *stop; /* SGZ_ECANCELLED once this is not 0; may be NULL */
    size_t unpolled;       /* bytes since the blob's poll was asked */
    int64_t budget;        /* bytes that may still be read or made, then SGZ_ECANCELLED; 0: any
                              number; -1: it is spent */
} sgz_decoder;

sgz_status sgz_codec_decoder_init(sgz_decoder *d, const sgz_codecs *codecs, const sgz_blob *blob,
                                  const sgz_points *points, sgz_error *err);
void sgz_codec_decoder_free(sgz_decoder *d);
/* Go to the point at `offset`, or fail with SGZ_ETOC where none is; what is there is decoded up to
 * blob offset `end`. Bytes already read are kept: going on at a following point reads nothing
 * twice. */
sgz_status sgz_codec_decoder_enter(sgz_decoder *d, int64_t offset, int64_t end, sgz_error *err);
/* Allow reads ahead up to `ahead`, for a caller that will go on through neighbours: tiny units
 * then share one read. Stays until it is set again; 0 is none. */
void sgz_codec_decoder_read_ahead(sgz_decoder *d, int64_t ahead);
/* Decode across units until out is full or they end (*got < cap). A unit is what one check sum
 * covers: a gzip member, a zstd frame, a span whose digest is compared. Check sums are compared as
 * they pass. A unit that `end` cuts off is SGZ_EDATA; what was decoded of it is still counted in
 * *got. Nothing is decoded beyond `cap` bytes. */
sgz_status sgz_codec_decoder_read(sgz_decoder *d, uint8_t *out, size_t cap, size_t *got,
                                  sgz_error *err);
/* The same, but stops behind a unit that ends, whose check sum was right then (*ended). An error
 * is about the unit of these bytes. */
sgz_status sgz_codec_decoder_read_unit(sgz_decoder *d, uint8_t *out, size_t cap, size_t *got,
                                       int *ended, sgz_error *err);
/* Whether what is decoded from here on is vouched for by a check sum or digest that is compared
 * when its unit ends, or was when it was entered (d->vouched). */
int sgz_codec_decoder_vouches(const sgz_decoder *d);
/* Whether no unit is open. */
int sgz_codec_decoder_between(const sgz_decoder *d);
/* Decode and drop the rest of the open unit, if there is one, so that its check sum is
 * compared. *ended is 0 when it has more than `limit` bytes left. */
sgz_status sgz_codec_decoder_finish(sgz_decoder *d, int64_t limit, int *ended, sgz_error *err);
/* Decode `len` bytes and drop them; *got < len when the units end first. */
sgz_status sgz_codec_decoder_skip(sgz_decoder *d, int64_t len, int64_t *got, sgz_error *err);
/* A place to come back to. All zero is an unused one. */
typedef struct {
    sgz_inflater inflater;
    int64_t next, end;
} sgz_decoder_mark;
/* Note where the decoder stands; to return there, once, for each time it was noted. */
sgz_status sgz_codec_decoder_mark(const sgz_decoder *d, sgz_decoder_mark *mark, sgz_error *err);
void sgz_codec_decoder_return(sgz_decoder *d, sgz_decoder_mark *mark);
void sgz_codec_decoder_mark_free(sgz_decoder_mark *mark);
/* Whether bytes that are no unit followed on one: they are ignored. */
static inline int sgz_codec_decoder_garbage(const sgz_decoder *d)
{
    return d->inflater.garbage;
}
/* Whether the byte at `offset` is among those already read. */
static inline int sgz_codec_decoder_holds(const sgz_decoder *d, int64_t offset)
{
    return offset >= d->in_base && offset < d->in_base + (int64_t)d->in_len;
}

#endif
