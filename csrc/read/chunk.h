/* The one checker of chunks: begin, the bytes in order, end.
 *
 * What vouches for a chunk is its digest, or, of a file's only chunk, the file's. Where the TOC
 * has neither, the check sum that the blob itself has behind the bytes must: decoding goes on
 * until it has passed, unless more than 1 GiB of the member is no chunk's: then its chunks are
 * refused. All chunks that go by are remembered with its verdict (read/vouched.h), and the reader
 * comes back to where it was: so nothing is decoded more than twice in a row of reads, and that is
 * how windows of a large chunk are read, too.
 *
 * A sgz_reader enters the blob where a chunk asks for. Who decodes all of the blob anyway, so
 * that every check sum passes, lets the bytes go by (sgz_read_pass). */
#ifndef SGZ_READ_CHUNK_H
#define SGZ_READ_CHUNK_H

#include "read/watch.h"

/* --- digests ---------------------------------------------------------------------------- */

typedef struct {
    const sgz_codecs *codecs;
    const sgz_spans *spans;
    sgz_sha256 sha;
    uint8_t actual[32]; /* of the chunk that ended last */
} sgz_read_check;

sgz_status sgz_read_check_init(sgz_read_check *c, const sgz_codecs *codecs,
                               const sgz_spans *spans, sgz_error *err);
/* Also of one that is all zeros. */
void sgz_read_check_free(sgz_read_check *c);
/* Whether the chunk that ended, number `span`, is right: its digest and that of the whole file,
 * which is `whole` unless it is all of it. SGZ_EDIGEST has the name of row `named`. */
sgz_status sgz_read_verdict(const sgz_read_check *c, size_t span, const uint8_t *whole,
                            uint32_t named, sgz_error *err);
/* The error for a chunk of which bytes are missing. */
sgz_status sgz_read_cut_off(const sgz_spans *spans, size_t span, uint32_t named, sgz_error *err);

/* --- bytes that go by ------------------------------------------------------------------- */

/* What is decoded from one entry point on, and its chunks. */
typedef struct {
    size_t span, last; /* the chunk that goes by or comes next; `last` is behind the last one */
    int64_t at;        /* decoded bytes that went by */
    int open;          /* `span` has begun */
} sgz_read_passing;

/* What sgz_read_pass says of the bytes: of a chunk, its first ones, its last ones. */
enum { SGZ_PASS_CHUNK = 1, SGZ_PASS_FIRST = 2, SGZ_PASS_LAST = 4 };

/* The next bytes: *n of them are of one chunk (SGZ_PASS_CHUNK, its first, its last), or of none
 * (0). After the last ones of a chunk its digest is c->actual, and p->span the next chunk. */
int sgz_read_pass(sgz_read_check *c, sgz_read_passing *p, const uint8_t *data, size_t len,
                  size_t *n);

/* --- a chunk by itself ------------------------------------------------------------------ */

/* What one thread needs to read chunks. */
typedef struct {
    sgz_read_check check;
    sgz_decoder decoder;
    uint8_t *sink;          /* for decoded bytes that nobody wants */
    /* Where the decoder stands: `at` bytes from the entry point at blob offset `entered`, or
     * anywhere (-1). A later chunk of the same entry point goes on from there. */
    int64_t entered, at;
    size_t span; /* the chunk under way, and which of its bytes are wanted */
    int64_t from, len;
    uint32_t named;
    uint8_t hash, sum; /* what is to vouch for it: its digest, the blob's check sum */
    uint8_t known;     /* which has passed before */
    uint8_t watching;
    uint8_t fetched;   /* set by who has the blob's bytes fetched: they may be right next time */
    uint8_t with_first; /* set by who has a file's first chunk read before anything of the file is
                           used: that alone checks what an index claims */
    int64_t refused;   /* blob offset of the entry point that failed last; -1 */
    sgz_read_watch watch;
    sgz_sha256 part;   /* of a window */
    sgz_decoder_mark mark;
    uint8_t marked;
    int64_t marked_at;
    sgz_read_watch marked_watch;
} sgz_reader;

sgz_status sgz_read_reader_init(sgz_reader *r, const sgz_codecs *codecs, const sgz_spans *spans,
                                const sgz_blob *blob, sgz_error *err);
/* Also of one that is all zeros. */
void sgz_read_reader_free(sgz_reader *r);
/* How near it is to byte `from` of a chunk: 2, it goes on decoding; 1, the chunk begins in bytes
 * that it has; 0, neither. */
int sgz_read_reader_near(const sgz_reader *r, const sgz_entry *e, int64_t from);

/* Errors have the name of row `named`: the chunk's file, or a hard link to it. Without `verify`
 * decoded bytes are the ones wanted, even if what follows on them is broken. */
sgz_status sgz_read_begin(sgz_reader *r, size_t span, uint32_t named, int verify,
                          sgz_error *err);
/* The next `len` bytes of the chunk; fewer are an error. */
sgz_status sgz_read_bytes(sgz_reader *r, uint8_t *out, size_t len, sgz_error *err);
/* After the chunk's last byte: whether they are right (sgz_read_verdict). */
sgz_status sgz_read_end(sgz_reader *r, const uint8_t *whole, sgz_error *err);

/* Copy bytes [from, from + len) of the chunk into out. With `verify` all of the chunk is decoded
 * and checked, or, if they are one window of it, that was done once; without it nothing beyond the
 * last byte wanted is decoded. */
sgz_status sgz_read_chunk(sgz_reader *r, size_t span, int verify, int64_t from, size_t len,
                          uint8_t *out, sgz_error *err);

#endif
