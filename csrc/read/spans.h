/* Random reads: which chunks hold a range of a file, and their bytes, checked. */
#ifndef SGZ_READ_SPANS_H
#define SGZ_READ_SPANS_H

#include "codec/decode.h"
#include "toc/toc.h"

/* Far beyond what a blob can hold, and small enough to be counted in windows (chunks/table.h). */
#define SGZ_CHUNK_MAX ((int64_t)1 << 50)

/* The rows that have data, in blob order: one span of the decoded blob each. Rows, files
 * and offsets all ascend, so every look-up is a binary search. */
typedef struct {
    const sgz_toc *toc;
    uint32_t *rows;   /* the chunk's row */
    uint32_t *files;  /* the row of the regular file it belongs to */
    size_t count;
    int64_t end;      /* where the members of chunks end in the blob */
} sgz_spans;

/* Fails with SGZ_ETOC when the rows do not ascend, overlap, or leave [0, end). */
sgz_status sgz_read_spans_init(sgz_spans *spans, const sgz_toc *toc, int64_t end,
                               sgz_error *err);
void sgz_read_spans_free(sgz_spans *spans);
/* Blob offset at which the members of span number `span` end: the next distinct offset. */
int64_t sgz_read_span_end(const sgz_spans *spans, size_t span);
/* What a span's bytes must hash to: the digest of the chunk, or, of a file's only chunk, that
 * of the file. NULL where the TOC has neither. */
const uint8_t *sgz_read_span_digest(const sgz_spans *spans, size_t span);
/* The spans [*first, *last) of a file that touch [offset, offset + size). SGZ_ETOC when the
 * chunks do not cover that range. */
sgz_status sgz_read_spans_find(const sgz_spans *spans, uint32_t file, int64_t offset,
                               int64_t size, size_t *first, size_t *last, sgz_error *err);

/* The name of a row, for errors. */
static inline const char *sgz_toc_row_name(const sgz_toc *toc, uint32_t row)
{
    return toc->arena + toc->rows[row].name_off;
}

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

/* One piece of a read that several threads share. */
typedef struct {
    size_t span;
    int64_t from;
    size_t len;
    uint8_t *out;
    const sgz_blob *blob;  /* where this chunk's bytes are */
} sgz_read_piece;

/* All pieces, on up to `threads` threads; the first error in piece order is reported. */
sgz_status sgz_read_pieces(const sgz_codecs *codecs, const sgz_spans *spans,
                           const sgz_read_piece *pieces, size_t count, int verify,
                           int threads, sgz_error *err);

#endif
