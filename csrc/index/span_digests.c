#include "index/span_digests.h"

#include "base/vec.h"

#include <string.h>

sgz_status sgz_index_span_digests_init(sgz_index_span_digests *s, const sgz_codecs *codecs,
                                       sgz_error *err)
{
    memset(s, 0, sizeof *s);
    s->codecs = codecs;
    return sgz_codec_sha256_new(codecs, &s->sha, err);
}

void sgz_index_span_digests_free(sgz_index_span_digests *s)
{
    if (s->sha.ctx)
        sgz_codec_sha256_free(s->codecs, &s->sha);
    free(s->digests);
    memset(s, 0, sizeof *s);
}

static sgz_status end_span(sgz_index_span_digests *s, sgz_error *err)
{
    if (!SGZ_FIT(s->digests, s->cap, s->count + 1))
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the digests of spans");
    sgz_codec_sha256_final(s->codecs, &s->sha, s->digests[s->count++]);
    return SGZ_OK;
}

/* Hash `data`, which begins at s->at, up to the blob offset `end`: of each span its own. */
static sgz_status hash(sgz_index_span_digests *s, const sgz_points *points, const uint8_t *data,
                       int64_t end, sgz_error *err)
{
    int64_t base = s->at;
    for (;;) {
        size_t next = s->count + (size_t)s->open;
        const sgz_point *point = next < points->count ? &points->at[next] : NULL;
        int64_t cut = point ? point->offset + (point->skip != 0) : INT64_MAX;
        int64_t to = cut < end ? cut : end;
        if (point && point->offset < s->at)
            return sgz_base_fail(err, SGZ_ECODEC, point->offset, NULL, 0,
                                 "an entry point was found too late to hash its span");
        if (s->open)
            sgz_codec_sha256_update(s->codecs, &s->sha, data + (s->at - base),
                                    (size_t)(to - s->at));
        s->at = to;
        if (cut > end)
            return SGZ_OK;
        sgz_status status = s->open ? end_span(s, err) : SGZ_OK;
        if (status)
            return status;
        sgz_codec_sha256_init(s->codecs, &s->sha);
        s->open = 1;
        s->at = point->offset; /* once more, where the spans share a byte */
    }
}

sgz_status sgz_index_span_digests_add(sgz_index_span_digests *s, const sgz_points *points,
                                      const uint8_t *data, size_t len, sgz_error *err)
{
    sgz_status status = SGZ_OK;
    if (len >= SGZ_SPAN_HELD) {
        status = hash(s, points, s->held, s->at + (int64_t)s->held_len, err);
        size_t now = len - SGZ_SPAN_HELD;
        if (!status)
            status = hash(s, points, data, s->at + (int64_t)now, err);
        memcpy(s->held, data + now, s->held_len = SGZ_SPAN_HELD);
        return status;
    }
    if (len)
        memcpy(s->held + s->held_len, data, len);
    s->held_len += len;
    if (s->held_len > SGZ_SPAN_HELD) {
        size_t now = s->held_len - SGZ_SPAN_HELD;
        status = hash(s, points, s->held, s->at + (int64_t)now, err);
        memmove(s->held, s->held + now, s->held_len = SGZ_SPAN_HELD);
    }
    return status;
}

sgz_status sgz_index_span_digests_finish(sgz_index_span_digests *s, sgz_points *points,
                                         sgz_error *err)
{
    sgz_status status = hash(s, points, s->held, s->at + (int64_t)s->held_len, err);
    s->held_len = 0;
    if (!status && s->open)
        status = end_span(s, err);
    if (status)
        return status;
    free(points->digests);
    points->digests = s->digests;
    s->digests = NULL;
    s->count = s->cap = 0;
    return SGZ_OK;
}
