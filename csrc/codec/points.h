/* Entry points: the places of a blob where decoding can begin, in order. */
#ifndef SGZ_CODEC_POINTS_H
#define SGZ_CODEC_POINTS_H

#include "base/status.h"

#define SGZ_HISTORY_MAX 32768 /* of deflate: no reference reaches further back */

/* What is there. Of one blob all are of one kind.
 *
 *   gzip      a member's header
 *   deflate   a block of deflate data, at any bit, with what it may refer to
 *   zstd      a frame's header. Where none is listed the blob is zstd:chunked, and every frame is
 *             one: it has a check sum of its own, and its window takes SGZ_FRAME_MEMORY at most
 *   stored    the decoded bytes themselves: every offset is a point, and none is listed */
typedef enum { SGZ_POINT_GZIP, SGZ_POINT_DEFLATE, SGZ_POINT_ZSTD, SGZ_POINT_STORED } sgz_point_kind;

typedef struct {
    int64_t offset;   /* of the blob byte that holds its first bit */
    int64_t out;      /* decoded bytes of the blob before it */
    uint64_t window;  /* deflate: where its history stands in `windows` */
    uint32_t packed;  /* its length there, as raw deflate of `history` bytes; 0: stored as it is */
    uint32_t history; /* bytes before it that may be referred to, up to SGZ_HISTORY_MAX. 0 is only
                         where a member's deflate data begins: within it there is one at least */
    uint8_t skip;     /* low bits of the byte at `offset` that belong to what is before: 0..7 */
} sgz_point;

/* All zero is an empty list of gzip members. */
typedef struct {
    sgz_point_kind kind;
    sgz_point *at;          /* offsets and outs strictly ascend */
    size_t count, cap;
    uint8_t *windows;       /* borrowed where windows_cap is 0: then nothing is appended or freed */
    size_t windows_len, windows_cap;
    uint8_t (*digests)[32]; /* sha256 of the blob's bytes of each span, or NULL */
    int64_t size;           /* of the blob */
    int64_t end;            /* decoded bytes in all */
} sgz_points;

/* What a reader of zstd:chunked has to allow for. */
#define SGZ_FRAME_MEMORY ((int64_t)32 << 20)

/* Whether a blob is zstd:chunked. */
static inline int sgz_codec_points_frames(const sgz_points *points)
{
    return points && points->kind == SGZ_POINT_ZSTD && !points->count;
}

void sgz_codec_points_free(sgz_points *points);

/* Append a point. Its window's bytes (`packed`, or else `history` of them) are copied behind
 * those of the others, and `window` is set to where that is. */
sgz_status sgz_codec_points_append(sgz_points *points, sgz_point point, const uint8_t *window,
                                   sgz_error *err);

#define SGZ_NO_POINT ((size_t)-1)

/* The point at just this blob offset, or SGZ_NO_POINT. */
size_t sgz_codec_points_at(const sgz_points *points, int64_t offset);
/* The last point at or before this decoded position, or SGZ_NO_POINT. */
size_t sgz_codec_points_before(const sgz_points *points, int64_t out);

/* The blob's bytes [start, end) that hold span i: what is decoded from point i to the next one, or
 * to the end. Two spans of deflate may share a byte. */
static inline int64_t sgz_codec_points_start(const sgz_points *points, size_t i)
{
    return points->at[i].offset;
}

static inline int64_t sgz_codec_points_end(const sgz_points *points, size_t i)
{
    if (i + 1 >= points->count)
        return points->size;
    return points->at[i + 1].offset + (points->at[i + 1].skip != 0);
}

/* How long a point's window is where it is kept. */
static inline size_t sgz_codec_point_stored(const sgz_point *point)
{
    return point->packed ? point->packed : point->history;
}

#endif
