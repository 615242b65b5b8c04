/* Index files of other programs: points that are taken are in order, and their windows are there. */
#include "fuzz.h"

#include "index/import.h"
#include "index/limits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sgz_error err = {0};
    sgz_points points = {0};
    uint8_t *copy = malloc(size ? size : 1); /* of just this length */
    CHECK(copy);
    if (size)
        memcpy(copy, data, size);
    if (sgz_index_import(copy, size, &points, &err)) {
        CHECK(err.code == SGZ_EINDEX && err.message[0]);
        CHECK(err.offset >= -1 && err.offset <= (int64_t)size && !points.at);
    } else {
        CHECK(sgz_index_is_import(copy, size) && points.count && !points.at[0].out);
        CHECK(points.size >= 0 && points.end >= 0 && points.end <= SGZ_INDEX_SIZE_MAX);
    }
    uint8_t seen = 0;
    for (size_t i = 0; i < points.count; i++) {
        const sgz_point *p = &points.at[i];
        CHECK(p->offset >= 0 && p->skip < 8 && !p->packed && p->history <= SGZ_HISTORY_MAX);
        CHECK(p->history <= p->out && (!points.end || p->out < points.end));
        CHECK(!i || (p->offset > p[-1].offset && p->out > p[-1].out));
        CHECK(!p->history || p->window + p->history <= points.windows_len);
        for (uint32_t k = 0; k < p->history; k++)
            seen ^= points.windows[p->window + k];
    }
    static volatile uint8_t sink;
    sink = seen;
    (void)sink;
    sgz_codec_points_free(&points);
    free(copy);
    return 0;
}
