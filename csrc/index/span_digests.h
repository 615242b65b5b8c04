/* The sha256 of each span's bytes in the blob, of bytes as they pass.
 *
 * Where a span ends is only known once the decoder was there, which is ahead of that place by what
 * it takes in at a time: so the last bytes are always held back. */
#ifndef SGZ_INDEX_SPAN_DIGESTS_H
#define SGZ_INDEX_SPAN_DIGESTS_H

#include "codec/codecs.h"
#include "codec/points.h"

/* No decoder takes in more bytes than this beyond a point that it tells of. */
#define SGZ_SPAN_HELD 512

typedef struct {
    const sgz_codecs *codecs;
    sgz_sha256 sha;
    uint8_t (*digests)[32];
    size_t count, cap;     /* of the spans that are over */
    int open;              /* behind the first point */
    int64_t at;            /* blob offset of the first byte that is not hashed: held[0]'s */
    uint8_t held[2 * SGZ_SPAN_HELD];
    size_t held_len;
} sgz_index_span_digests;

sgz_status sgz_index_span_digests_init(sgz_index_span_digests *s, const sgz_codecs *codecs,
                                       sgz_error *err);
void sgz_index_span_digests_free(sgz_index_span_digests *s);
/* The blob's next bytes. `points` has each point that lies SGZ_SPAN_HELD bytes or more before their
 * end; it may have more, also such that lie behind them. */
sgz_status sgz_index_span_digests_add(sgz_index_span_digests *s, const sgz_points *points,
                                      const uint8_t *data, size_t len, sgz_error *err);
/* The blob has ended, and all points are known: points->digests is set. */
sgz_status sgz_index_span_digests_finish(sgz_index_span_digests *s, sgz_points *points,
                                         sgz_error *err);

#endif
