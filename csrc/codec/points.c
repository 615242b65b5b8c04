#include "codec/points.h"

#include "base/vec.h"

#include <string.h>

void sgz_codec_points_free(sgz_points *points)
{
    free(points->at);
    if (points->windows_cap)
        free(points->windows);
    free(points->digests);
    memset(points, 0, sizeof *points);
}

sgz_status sgz_codec_points_append(sgz_points *points, sgz_point point, const uint8_t *window,
                                   sgz_error *err)
{
    size_t len = sgz_codec_point_stored(&point);
    if (!SGZ_FIT(points->at, points->cap, points->count + 1) ||
        (len && !SGZ_FIT(points->windows, points->windows_cap, points->windows_len + len)))
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the entry points");
    point.window = points->windows_len;
    if (len)
        memcpy(points->windows + points->windows_len, window, len);
    points->windows_len += len;
    points->at[points->count++] = point;
    return SGZ_OK;
}

/* How many points stand at or before `value`, an offset or a decoded position. */
static size_t count_to(const sgz_points *points, int64_t value, int decoded)
{
    size_t low = 0, high = points->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int64_t here = decoded ? points->at[mid].out : points->at[mid].offset;
        if (here <= value)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

size_t sgz_codec_points_at(const sgz_points *points, int64_t offset)
{
    size_t n = count_to(points, offset, 0);
    return n && points->at[n - 1].offset == offset ? n - 1 : SGZ_NO_POINT;
}

size_t sgz_codec_points_before(const sgz_points *points, int64_t out)
{
    return count_to(points, out, 1) - 1;
}
