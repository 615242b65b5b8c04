/* One chunk of a blob: decoded, and checked against its digest or its member's CRC. */
#ifndef SGZ_READ_CHUNK_H
#define SGZ_READ_CHUNK_H

#include "read/spans.h"

/* How far a member may go on behind a chunk that only its CRC vouches for: headers of two
 * million entries without data. More is refused rather than decoded without end. */
#define SGZ_RUN_MAX ((int64_t)1 << 30)

/* What one thread needs to read chunks. */
typedef struct {
    const sgz_spans *spans;
    sgz_decoder decoder;
    sgz_sha256 sha;
    uint8_t *sink;    /* for decoded bytes that nobody wants */
    /* Where the decoder stands: `inner` bytes from the start of the member at `member`, or
     * anywhere (-1). A later chunk of the same member goes on from there. */
    int64_t member, inner;
} sgz_reader;

sgz_status sgz_read_reader_init(sgz_reader *r, const sgz_codecs *codecs, const sgz_spans *spans,
                                const sgz_blob *blob, sgz_error *err);
void sgz_read_reader_free(sgz_reader *r);

/* Copy bytes [from, from + len) of the chunk into out. With `verify` the whole chunk is
 * decoded and must match its digest (SGZ_EDIGEST); where the TOC has none, the member that
 * holds its end is decoded on to the trailer, so that the CRC vouches for the bytes. Without
 * `verify` nothing is decoded beyond the last byte wanted. Missing bytes are SGZ_EGZIP with
 * the entry's name. */
sgz_status sgz_read_chunk(sgz_reader *r, size_t span, int verify, int64_t from, size_t len,
                          uint8_t *out, sgz_error *err);

/* The error for a chunk whose member goes on for longer than SGZ_RUN_MAX. */
sgz_status sgz_read_fail_run(const sgz_toc *toc, const sgz_entry *file, const sgz_entry *chunk,
                             sgz_error *err);

#endif
