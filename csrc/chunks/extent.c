/* Where the bytes of chunks are in the blob, and how much one request takes. */
#include "chunks/internal.h"

/* What is fetched for one chunk in one piece at most. */
#define WHOLE ((int64_t)64 << 20)

int64_t sgz_chunks_span_start(const sgz_chunks_layer *layer, size_t span)
{
    return span < layer->spans->count ? sgz_chunks_span_entry(layer, span)->offset
                                      : layer->spans->end;
}

/* Bytes from an entry point on that hold a chunk, even if it is only stored. */
static int64_t packed_bound(const sgz_chunks_layer *layer, const sgz_entry *e)
{
    return sgz_codec_bound(layer->spans->points, e->inner_offset + e->chunk_size);
}

/* Where the bytes that a chunk needs end. Any number of headers may be behind it, and anything
 * may follow; only a check sum that has to vouch for it, and has not yet, is needed too. */
int64_t sgz_chunks_packed_end(const sgz_chunks_layer *layer, size_t span)
{
    const sgz_entry *e = sgz_chunks_span_entry(layer, span);
    int64_t end = sgz_read_span_end(layer->spans, span), bound = packed_bound(layer, e);
    uint8_t sum[32];
    if (layer->verify && !sgz_read_span_digest(layer->spans, span) &&
        !sgz_read_vouched_get(layer->spans->vouched, span, 0, sum))
        return end;
    return end - e->offset < bound ? end : e->offset + bound;
}

int sgz_chunks_alone(const sgz_chunks_layer *layer, size_t span)
{
    const sgz_entry *e = sgz_chunks_span_entry(layer, span);
    int64_t size = sgz_chunks_packed_end(layer, span) - e->offset;
    return size > WHOLE || size > packed_bound(layer, e) || e->chunk_size > SGZ_WINDOW;
}

size_t sgz_chunks_advance(const sgz_chunks_layer *layer, size_t span, size_t bound, int64_t bytes)
{
    int64_t end = sgz_chunks_span_start(layer, span) + bytes, decoded = 0;
    size_t at = span + 1;
    if (span < bound && sgz_chunks_packed_end(layer, span) > end)
        end = sgz_chunks_packed_end(layer, span); /* what is fetched for it has others, too */
    while (at < bound && at - span < SGZ_REQUEST_SPANS) {
        int64_t size = sgz_chunks_span_entry(layer, at)->chunk_size;
        if (size > SGZ_WINDOW || sgz_chunks_packed_end(layer, at) > end ||
            (decoded += size) > SGZ_REQUEST_DECODED)
            break;
        at++;
    }
    return at < bound ? at : bound;
}
