#include "read/watch.h"

#include <string.h>

#include "base/vec.h"

/* How many bytes that are no chunk's may be in one unit whose check sum has to vouch for chunks:
 * headers of two million entries without data. More is refused rather than decoded without end. */
#define RUN_MAX ((int64_t)1 << 30)

static void piece(sgz_read_watch *w, const sgz_spans *spans, size_t span, uint32_t window)
{
    w->span = span;
    w->window = window;
    w->crc = 0;
    w->bare = span < w->last && !sgz_read_span_digest(spans, span);
}

void sgz_read_watch_from(sgz_read_watch *w, const sgz_spans *spans, size_t span)
{
    w->at = w->began = w->gap = 0;
    w->seen_count = 0;
    w->last = sgz_read_span_next(spans, span);
    piece(w, spans, sgz_read_span_first(spans, span), 0);
}

/* A piece went by. It is the one that was right before, or has to wait for its check sum. */
static void piece_ended(sgz_read_watch *w, const sgz_spans *spans, size_t wanted)
{
    sgz_read_seen seen = {.span = w->span, .window = w->window, .crc = w->crc};
    uint8_t sum[32];
    if (sgz_read_vouched_get(spans->vouched, w->span, w->window, sum))
        w->changed |= w->span == wanted && memcmp(sum, &seen.crc, sizeof seen.crc) != 0;
    else if (!SGZ_PUSH(w->seen, w->seen_count, w->seen_cap, seen))
        w->seen_count = 0; /* forgotten */
}

void sgz_read_watch_pass(sgz_read_watch *w, const sgz_codecs *codecs, const sgz_spans *spans,
                         size_t wanted, const uint8_t *data, size_t len)
{
    for (size_t n; len; data += n, len -= n) {
        const sgz_entry *e = w->span < w->last ? sgz_read_span_row(spans, w->span) : NULL;
        int64_t start = e ? e->inner_offset + w->window * SGZ_WINDOW : INT64_MAX;
        int inside = w->at >= start;
        int64_t left = inside ? start + sgz_read_window_len(e, w->window) - w->at : start - w->at;
        n = left < (int64_t)len ? (size_t)left : len;
        w->at += (int64_t)n;
        if (!inside) {
            w->gap += (int64_t)n;
            continue;
        }
        if (w->bare)
            w->crc = sgz_codec_crc32(codecs, w->crc, data, n);
        if ((int64_t)n < left)
            continue;
        if (w->bare)
            piece_ended(w, spans, wanted);
        int more = (w->window + 1) * SGZ_WINDOW < e->chunk_size;
        piece(w, spans, more ? w->span : w->span + 1, more ? w->window + 1 : 0);
    }
}

int sgz_read_watch_lost(const sgz_read_watch *w)
{
    return w->gap > RUN_MAX;
}

sgz_status sgz_read_watch_refuse(const sgz_read_watch *w, const sgz_spans *spans, int64_t offset,
                                 sgz_error *err)
{
    sgz_base_fail(err, SGZ_EDATA, offset, NULL, 0,
                  "this chunk has no digest, and its %s goes on for too long to check the CRC; "
                  "read it without verification",
                  sgz_codec_point_unit(spans->points));
    sgz_read_vouched_refuse(spans->vouched, offset, w->began, w->at, err);
    return SGZ_EDATA;
}

void sgz_read_watch_unit(sgz_read_watch *w, const sgz_spans *spans, int64_t offset)
{
    sgz_error err;
    uint8_t sum[32] = {0};
    if (sgz_read_watch_lost(w)) {
        sgz_read_watch_refuse(w, spans, offset, &err);
        w->far = 1;
        w->bare = 0; /* of what goes on in the next unit, this one's part is not checked */
        w->seen_count = 0;
    }
    for (size_t i = 0; i < w->seen_count; i++) {
        memcpy(sum, &w->seen[i].crc, sizeof w->seen[i].crc);
        sgz_read_vouched_put(spans->vouched, w->seen[i].span, w->seen[i].window, sum);
    }
    w->seen_count = 0;
    w->gap = 0;
    w->began = w->at;
}
