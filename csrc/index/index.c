#include "index/index.h"

#include <stdlib.h>
#include <string.h>

#include "index/limits.h"

int64_t sgz_index_longest(const sgz_index *index)
{
    const sgz_points *points = &index->points;
    int64_t longest = 0;
    for (size_t i = 0; i < points->count; i++) {
        int64_t len = sgz_index_span_end(points, i) - points->at[i].out;
        longest = len > longest ? len : longest;
    }
    return longest;
}

void sgz_index_free(sgz_index *index)
{
    sgz_codec_points_free(&index->points);
    sgz_toc_free(index->toc);
    memset(index, 0, sizeof *index);
}
