#include "index/import.h"

#include <string.h>

#include "base/bytes.h"
#include "base/vec.h"
#include "index/limits.h"

#define GZIDX "GZIDX"
#define GZIDX_HEAD 35
#define GZI_HEAD 8
#define GZI_PAIR 16
/* A .gzi that tells of no member says so, instead of a number. */
#define GZI_NONE UINT64_MAX

static int is_gzidx(const uint8_t *data, size_t len)
{
    return len >= 5 && !memcmp(data, GZIDX, 5);
}

/* It has no magic, but its length tells. */
static int is_gzi(const uint8_t *data, size_t len)
{
    if (len < GZI_HEAD)
        return 0;
    uint64_t count = sgz_get_le64(data);
    return count == GZI_NONE ? len == GZI_HEAD
                             : (len - GZI_HEAD) % GZI_PAIR == 0 && count == (len - GZI_HEAD) / GZI_PAIR;
}

int sgz_index_is_import(const uint8_t *data, size_t len)
{
    return is_gzidx(data, len) || is_gzi(data, len);
}

#define FAIL(err, offset, ...)                                                                  \
    sgz_base_fail(err, SGZ_EINDEX, (int64_t)(offset), NULL, 0, __VA_ARGS__)

/* Append a point that stands at `at` in the file, if it leads to bytes that the one before does not. */
static sgz_status add(sgz_points *points, sgz_point p, size_t number, size_t at, sgz_error *err)
{
    const sgz_point *before = points->count ? &points->at[points->count - 1] : NULL;
    if (before && (p.offset < before->offset || p.out < before->out))
        return FAIL(err, at, "entry point %zu is before the one before it", number);
    if (before && p.out == before->out)
        return SGZ_OK;
    if (before && p.offset == before->offset)
        return FAIL(err, at, "entry point %zu is where the one before it is", number);
    if (!before && p.out)
        return FAIL(err, at, "its first entry point is not for the first byte");
    if (!SGZ_PUSH(points->at, points->count, points->cap, p))
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the entry points");
    return SGZ_OK;
}

/* --- indexed_gzip ------------------------------------------------------------------------ */

/* The windows of `count` points are as many as flags say, and nothing follows. */
static sgz_status check_length(const uint8_t *data, size_t len, uint64_t count, size_t each,
                               uint64_t window, sgz_error *err)
{
    if (count > (len - GZIDX_HEAD) / each)
        return FAIL(err, len, "the index ends within its %llu entry points; make it again",
                    (unsigned long long)count);
    uint64_t windows = each == 17 && count ? count - 1 : 0;
    for (uint64_t i = 0; i < count && each == 18; i++)
        windows += data[GZIDX_HEAD + i * each + 17] != 0;
    uint64_t left = len - GZIDX_HEAD - count * each;
    if (left / window < windows)
        return FAIL(err, len, "the index ends within the windows of its entry points; make it again");
    if (left != windows * window)
        return FAIL(err, len - (left - windows * window), "bytes follow on the windows of its entry "
                    "points; make it again");
    return SGZ_OK;
}

static sgz_status read_gzidx(const uint8_t *data, size_t len, sgz_points *points, sgz_error *err)
{
    if (len < GZIDX_HEAD)
        return FAIL(err, len, "the index ends within its head; make it again");
    uint64_t size = sgz_get_le64(data + 7), end = sgz_get_le64(data + 15);
    uint64_t window = sgz_get_le32(data + 27), count = sgz_get_le32(data + 31);
    if (data[5] > 1 || data[6])
        return FAIL(err, 5, "of indexed_gzip's index files only versions 0 and 1 are known, this is "
                    "version %u with flags %u", data[5], data[6]);
    if (size > (uint64_t)SGZ_INDEX_SIZE_MAX || end > (uint64_t)SGZ_INDEX_SIZE_MAX)
        return FAIL(err, 7, "a size in it is impossible");
    if (window < SGZ_HISTORY_MAX)
        return FAIL(err, 27, "its windows have %llu bytes, and 32768 are needed",
                    (unsigned long long)window);
    const size_t each = data[5] ? 18 : 17;
    sgz_status status = check_length(data, len, count, each, window, err);
    uint64_t next = GZIDX_HEAD + count * each; /* of the windows */
    points->size = (int64_t)size;
    points->end = (int64_t)end;
    points->windows = (uint8_t *)data;
    points->windows_len = len;
    for (uint64_t i = 0; i < count && !status; i++) {
        size_t at = GZIDX_HEAD + (size_t)i * each;
        uint64_t in = sgz_get_le64(data + at), out = sgz_get_le64(data + at + 8);
        unsigned bits = data[at + 16];
        int has_window = each == 18 ? data[at + 17] != 0 : i > 0;
        if (bits > 7 || in > size || in < (bits != 0) || out > (uint64_t)SGZ_INDEX_SIZE_MAX ||
            (end && out > end))
            return FAIL(err, at, "entry point %llu is outside of the blob", (unsigned long long)i);
        sgz_point p = {.offset = (int64_t)in - (bits != 0),
                       .out = (int64_t)out,
                       .skip = (uint8_t)(-bits & 7)};
        if (has_window) { /* what is in front of the first byte is zeros */
            p.history = out < SGZ_HISTORY_MAX ? (uint32_t)out : SGZ_HISTORY_MAX;
            next += window;
            p.window = next - p.history;
        }
        if (in < size && !(end && out == end))
            status = add(points, p, (size_t)i, at, err);
    }
    return status;
}

/* --- bgzip ------------------------------------------------------------------------------- */

static sgz_status read_gzi(const uint8_t *data, sgz_points *points, sgz_error *err)
{
    uint64_t count = sgz_get_le64(data);
    sgz_status status = add(points, (sgz_point){0}, 0, 0, err); /* which it goes without */
    for (uint64_t i = 0; i < (count == GZI_NONE ? 0 : count) && !status; i++) {
        size_t at = GZI_HEAD + (size_t)i * GZI_PAIR;
        uint64_t offset = sgz_get_le64(data + at), out = sgz_get_le64(data + at + 8);
        if (offset > (uint64_t)SGZ_INDEX_SIZE_MAX || out > (uint64_t)SGZ_INDEX_SIZE_MAX)
            return FAIL(err, at, "entry point %llu is impossible", (unsigned long long)i + 1);
        status = add(points, (sgz_point){.offset = (int64_t)offset, .out = (int64_t)out},
                     (size_t)i + 1, at, err);
    }
    points->kind = SGZ_POINT_GZIP;
    return status;
}

sgz_status sgz_index_import(const uint8_t *data, size_t len, sgz_points *points, sgz_error *err)
{
    sgz_status status;
    points->kind = SGZ_POINT_DEFLATE;
    if (is_gzidx(data, len))
        status = read_gzidx(data, len, points, err);
    else if (is_gzi(data, len))
        status = read_gzi(data, points, err);
    else
        status = FAIL(err, 0, "this is no index file of indexed_gzip or bgzip");
    if (!status && !points->count)
        status = FAIL(err, -1, "it has no entry point");
    if (status)
        sgz_codec_points_free(points);
    return status;
}
