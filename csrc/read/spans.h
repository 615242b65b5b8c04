/* Which chunks hold a range of a file, and where in the blob they are. */
#ifndef SGZ_READ_SPANS_H
#define SGZ_READ_SPANS_H

#include "codec/decode.h"
#include "read/claims.h"
#include "read/vouched.h"
#include "toc/toc.h"

/* Chunks of more bytes than this are read by windows of so many, so that memory is bounded whatever
 * a layer's chunk size is. */
#define SGZ_WINDOW ((int64_t)64 << 20)
/* Far beyond what a blob can hold, and small enough to be counted in windows. */
#define SGZ_CHUNK_MAX ((int64_t)1 << 50)

/* The rows that have data, in blob order. Each is a span: `offset` is that of an entry point (see
 * codec/decode.h), `inner_offset` and `chunk_size` say which of the bytes decoded from there it
 * is. Rows, files and offsets all ascend, so every look-up is a binary search. */
typedef struct {
    const sgz_toc *toc;
    const sgz_points *points; /* what offsets mean, or NULL: see codec/decode.h */
    uint32_t *rows;   /* the chunk's row */
    uint32_t *files;  /* the row of the regular file it belongs to */
    size_t count;
    int64_t end;      /* where the bytes of chunks end in the blob */
    sgz_read_vouched *vouched; /* NULL: every chunk is told by one digest, and no window */
    sgz_read_claims *claims;   /* that are to be checked, or NULL; not owned: set by the caller */
} sgz_spans;

#define SGZ_NO_SPAN ((size_t)-1)

/* Fails with SGZ_ETOC when the rows do not ascend, overlap, leave [0, end) or what is decoded from
 * one of `points`, or a file's pieces are not all of it. */
sgz_status sgz_read_spans_init(sgz_spans *spans, const sgz_toc *toc, const sgz_points *points,
                               int64_t end, sgz_error *err);
/* The same with zeros that have a frame among the spans: for who looks at the whole blob. */
sgz_status sgz_read_spans_init_all(sgz_spans *spans, const sgz_toc *toc, const sgz_points *points,
                                   int64_t end, sgz_error *err);
void sgz_read_spans_free(sgz_spans *spans);
/* Blob offset at which the bytes of span number `span` end: that of the next entry point, or one
 * byte further. */
int64_t sgz_read_span_end(const sgz_spans *spans, size_t span);
/* The spans of the same entry point: the first, and the one behind the last. */
size_t sgz_read_span_first(const sgz_spans *spans, size_t span);
size_t sgz_read_span_next(const sgz_spans *spans, size_t span);
static inline const sgz_entry *sgz_read_span_row(const sgz_spans *spans, size_t span)
{
    return &spans->toc->rows[spans->rows[span]];
}
/* Whether a span is the first one of its entry point. */
static inline int sgz_read_span_enters(const sgz_spans *spans, size_t span)
{
    return !span || sgz_read_span_row(spans, span)->offset !=
                        sgz_read_span_row(spans, span - 1)->offset;
}
/* The bytes of window `window` of a chunk. */
static inline int64_t sgz_read_window_len(const sgz_entry *e, uint32_t window)
{
    int64_t left = e->chunk_size - window * SGZ_WINDOW;
    return left < SGZ_WINDOW ? left : SGZ_WINDOW;
}
/* Whether the blob's bytes have digests, which cover chunks that have none. */
static inline int sgz_read_spans_covered(const sgz_spans *spans)
{
    return spans->points && spans->points->digests;
}
/* Whether a span is all of its file. */
int sgz_read_span_is_file(const sgz_spans *spans, size_t span);
/* What a span's bytes must hash to: the digest of the chunk, or, of a file's only chunk, that
 * of the file. NULL where the TOC has neither. */
const uint8_t *sgz_read_span_digest(const sgz_spans *spans, size_t span);
/* Whether the file that it is all of has another digest than it: then no bytes are right. */
int sgz_read_span_contradicts(const sgz_spans *spans, size_t span);
/* The spans [*first, *last) of a file that touch [offset, offset + size); what none of them holds
 * of that is zeros. SGZ_ETOC when the file has no such bytes. */
sgz_status sgz_read_spans_find(const sgz_spans *spans, uint32_t file, int64_t offset,
                               int64_t size, size_t *first, size_t *last, sgz_error *err);
/* The first chunk of a file, if the index claims things of it that were not found right so far:
 * nothing of it may be handed out before this chunk was read. SGZ_NO_SPAN: all is well. */
size_t sgz_read_spans_claimed(const sgz_spans *spans, uint32_t file);
/* Where the bytes that a chunk needs begin in the blob: with the headers of its file, if it is such
 * a chunk. */
int64_t sgz_read_span_start(const sgz_spans *spans, size_t span);
/* Write those zeros to `out`, which has room for the whole range. */
void sgz_read_spans_zeros(const sgz_spans *spans, size_t first, size_t last, int64_t offset,
                          int64_t size, uint8_t *out);

#endif
