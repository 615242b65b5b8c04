/* What goes by where chunks have no digest of their own: the check sum of the unit that holds them
 * has to vouch for them (read/vouched.h). A piece is a chunk, or a window of a large one. */
#ifndef SGZ_READ_WATCH_H
#define SGZ_READ_WATCH_H

#include "read/spans.h"

/* A piece without a digest that went by, and whose check sum has not. */
typedef struct {
    size_t span;
    uint32_t window, crc;
} sgz_read_seen;

/* Where what is decoded from the entry point on stands among the pieces. */
typedef struct {
    int64_t at;
    int64_t began, gap;    /* of the open unit: where it did, its bytes that are no chunk's */
    size_t span, last;     /* the piece that goes by or comes next, of spans before `last` */
    uint32_t window, crc;
    uint8_t bare;          /* it has no digest */
    uint8_t changed;       /* a piece that is wanted is not what it was */
    uint8_t far;           /* the gaps of a unit were more than can be looked at */
    sgz_read_seen *seen;
    size_t seen_count, seen_cap;
} sgz_read_watch;

/* Decoding begins at the entry point of a chunk. */
void sgz_read_watch_from(sgz_read_watch *w, const sgz_spans *spans, size_t span);
/* Bytes went by; chunk `wanted` is looked for. */
void sgz_read_watch_pass(sgz_read_watch *w, const sgz_codecs *codecs, const sgz_spans *spans,
                         size_t wanted, const uint8_t *data, size_t len);
/* A unit ended, and its check sum was right. `offset` is the entry point's. */
void sgz_read_watch_unit(sgz_read_watch *w, const sgz_spans *spans, int64_t offset);
/* Whether the open unit has too much that is no chunk's; its chunks are refused for that. */
int sgz_read_watch_lost(const sgz_read_watch *w);
sgz_status sgz_read_watch_refuse(const sgz_read_watch *w, const sgz_spans *spans, int64_t offset,
                                 sgz_error *err);

#endif
