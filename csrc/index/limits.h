/* What an index may hold, whatever file it comes from; and where its spans end. */
#ifndef SGZ_INDEX_LIMITS_H
#define SGZ_INDEX_LIMITS_H

#include "codec/points.h"
#include "tar/tar.h"

/* Of blobs and tars: so that sums with what is short do not overflow. */
#define SGZ_INDEX_SIZE_MAX ((int64_t)1 << 60)

/* Entry points: 1 TiB at the least distance of ours. In a file one may have 2 bytes, here 40. */
#define SGZ_INDEX_POINTS_MAX ((size_t)1 << 24)

/* Headers of one entry: PAX records and long names are limited together, and so is a sparse map. */
#define SGZ_INDEX_HEADER_MAX ((uint32_t)4 * SGZ_TAR_LONG_MAX + SGZ_TAR_MAP_MAX)

/* A history, deflated: never much longer than it is. */
#define SGZ_INDEX_WINDOW_MAX ((uint32_t)2 * SGZ_HISTORY_MAX)

/* Whole blocks of a tar. */
static inline int64_t sgz_index_padded(int64_t size)
{
    return size + (-size & (SGZ_TAR_BLOCK - 1));
}

/* Where span i ends in the decoded bytes. */
static inline int64_t sgz_index_span_end(const sgz_points *points, size_t i)
{
    return i + 1 < points->count ? points->at[i + 1].out : points->end;
}

#endif
