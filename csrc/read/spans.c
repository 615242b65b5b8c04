#include "read/spans.h"

#include <stdlib.h>
#include <string.h>

static sgz_status bad_span(const sgz_toc *toc, uint32_t row, const char *what, sgz_error *err)
{
    const sgz_entry *e = &toc->rows[row];
    return sgz_base_fail(err, SGZ_ETOC, e->offset, sgz_toc_row_name(toc, row), e->name_len, "%s",
                         what);
}

/* What claims to decode to more than the bytes up to `end` can is refused before memory is asked
 * for it. */
static sgz_status check_fits(const sgz_toc *toc, const sgz_points *points, uint32_t row,
                             int64_t end, sgz_error *err)
{
    const sgz_entry *e = &toc->rows[row];
    if (sgz_codec_point_fits(points, end - e->offset, e->inner_offset + e->chunk_size))
        return SGZ_OK;
    return sgz_base_fail(err, SGZ_ETOC, e->offset, sgz_toc_row_name(toc, row), e->name_len,
                         "its %s is too small for it", sgz_codec_point_unit(points));
}

/* The points of a blob say where what is decoded from each of them ends. */
static sgz_status check_point(const sgz_toc *toc, const sgz_points *points, uint32_t row,
                              sgz_error *err)
{
    const sgz_entry *e = &toc->rows[row];
    size_t i = sgz_codec_points_at(points, e->offset);
    if (i == SGZ_NO_POINT)
        return bad_span(toc, row, "the index of the blob has no entry point where its data is",
                        err);
    int64_t out = i + 1 < points->count ? points->at[i + 1].out : points->end;
    if (e->inner_offset + e->chunk_size > out - points->at[i].out)
        return bad_span(toc, row, "its data goes on beyond the span of the index that holds it",
                        err);
    return check_fits(toc, points, row, sgz_codec_points_end(points, i), err);
}

static sgz_status init(sgz_spans *spans, const sgz_toc *toc, const sgz_points *points, int64_t end,
                       int all, sgz_error *err)
{
    int listed = points && points->count;
    memset(spans, 0, sizeof *spans);
    spans->toc = toc;
    spans->points = points;
    spans->end = end;
    size_t count = 0;
    for (size_t i = 0; i < toc->count; i++)
        count += all || sgz_toc_has_data(&toc->rows[i]);
    spans->rows = malloc((count + 1) * sizeof *spans->rows);
    spans->files = malloc((count + 1) * sizeof *spans->files);
    if (!spans->rows || !spans->files) {
        sgz_read_spans_free(spans);
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the chunk index");
    }
    uint32_t file = SGZ_NO_ROW;
    int64_t left = 0; /* of the file, behind the pieces so far */
    const sgz_entry *last = NULL;
    sgz_status st = SGZ_OK;
    for (uint32_t i = 0; i < toc->count && !st; i++) {
        const sgz_entry *e = &toc->rows[i];
        if (!sgz_toc_is_piece(e)) {
            if (left)
                break;
            file = e->type == SGZ_REG ? i : SGZ_NO_ROW;
            left = e->type == SGZ_REG ? e->size : 0;
        }
        if (e->chunk_size <= 0)
            continue;
        if (file == SGZ_NO_ROW) {
            st = bad_span(toc, i, "a chunk that belongs to no regular file", err);
            break;
        }
        if (e->chunk_size > left || e->chunk_offset != toc->rows[file].size - left)
            st = bad_span(toc, file, "its chunks do not follow each other", err);
        left -= e->chunk_size;
        if (st || (e->type == SGZ_ZEROS && !(all && e->offset)))
            continue;
        if (e->offset < 0 || e->offset >= end || e->inner_offset < 0 ||
            e->inner_offset > INT64_MAX - e->chunk_size)
            st = bad_span(toc, i, "its data lies outside of the blob", err);
        else if (e->chunk_size > SGZ_CHUNK_MAX)
            st = bad_span(toc, i, "its chunk is too large; convert the layer again", err);
        else if (last && (e->offset < last->offset ||
                          (e->offset == last->offset &&
                           e->inner_offset < last->inner_offset + last->chunk_size)))
            st = bad_span(toc, i, "its data overlaps or precedes that of the entry before", err);
        else if (listed)
            st = check_point(toc, points, i, err);
        else if (last && e->offset != last->offset)
            st = check_fits(toc, points, spans->rows[spans->count - 1], e->offset, err);
        last = e;
        spans->rows[spans->count] = i;
        spans->files[spans->count++] = file;
    }
    if (!st && left)
        st = bad_span(toc, file, "its chunks are not all of it", err);
    int vouched = 0;
    for (size_t i = 0; i < spans->count && !vouched; i++)
        vouched = !sgz_read_span_digest(spans, i) ||
                  sgz_read_span_row(spans, i)->chunk_size > SGZ_WINDOW;
    if (!st && vouched && !(spans->vouched = sgz_read_vouched_new()))
        st = sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the chunk index");
    if (!st && last && !listed)
        st = check_fits(toc, points, spans->rows[spans->count - 1], end, err);
    if (st)
        sgz_read_spans_free(spans);
    return st;
}

sgz_status sgz_read_spans_init(sgz_spans *spans, const sgz_toc *toc, const sgz_points *points,
                               int64_t end, sgz_error *err)
{
    return init(spans, toc, points, end, 0, err);
}

sgz_status sgz_read_spans_init_all(sgz_spans *spans, const sgz_toc *toc, const sgz_points *points,
                                   int64_t end, sgz_error *err)
{
    return init(spans, toc, points, end, 1, err);
}

void sgz_read_spans_free(sgz_spans *spans)
{
    free(spans->rows);
    free(spans->files);
    sgz_read_vouched_free(spans->vouched);
    memset(spans, 0, sizeof *spans);
}

size_t sgz_read_span_first(const sgz_spans *spans, size_t span)
{
    const sgz_entry *rows = spans->toc->rows;
    size_t low = 0, high = span;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (rows[spans->rows[middle]].offset < rows[spans->rows[span]].offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

size_t sgz_read_span_next(const sgz_spans *spans, size_t span)
{
    const sgz_entry *rows = spans->toc->rows;
    int64_t offset = rows[spans->rows[span]].offset;
    /* Mostly the next one: gallop, then bisect. */
    size_t low = span, step = 1;
    while (low + step < spans->count && rows[spans->rows[low + step]].offset == offset) {
        low += step;
        step *= 2;
    }
    size_t high = low + step < spans->count ? low + step : spans->count;
    while (low + 1 < high) {
        size_t middle = low + (high - low) / 2;
        if (rows[spans->rows[middle]].offset == offset)
            low = middle;
        else
            high = middle;
    }
    return high;
}

int64_t sgz_read_span_end(const sgz_spans *spans, size_t span)
{
    const sgz_points *points = spans->points;
    if (points && points->count)
        return sgz_codec_points_end(points, sgz_codec_points_at(
                                                points, sgz_read_span_row(spans, span)->offset));
    size_t next = sgz_read_span_next(spans, span);
    return next < spans->count ? spans->toc->rows[spans->rows[next]].offset : spans->end;
}

int sgz_read_span_is_file(const sgz_spans *spans, size_t span)
{
    const sgz_entry *e = sgz_read_span_row(spans, span);
    return spans->rows[span] == spans->files[span] && e->chunk_size == e->size;
}

const uint8_t *sgz_read_span_digest(const sgz_spans *spans, size_t span)
{
    const sgz_entry *e = sgz_read_span_row(spans, span);
    if (e->flags & SGZ_HAS_CHUNK_DIGEST)
        return e->chunk_digest;
    return sgz_read_span_is_file(spans, span) ? sgz_toc_digest(spans->toc, spans->files[span])
                                              : NULL;
}

int sgz_read_span_contradicts(const sgz_spans *spans, size_t span)
{
    const uint8_t *digest = sgz_read_span_digest(spans, span);
    const uint8_t *whole = sgz_read_span_is_file(spans, span)
                               ? sgz_toc_digest(spans->toc, spans->files[span])
                               : NULL;
    return digest && whole && memcmp(digest, whole, 32) != 0;
}

/* First span whose file is >= `file`. */
static size_t file_bound(const sgz_spans *spans, uint64_t file)
{
    size_t low = 0, high = spans->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (spans->files[middle] < file)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

sgz_status sgz_read_spans_find(const sgz_spans *spans, uint32_t file, int64_t offset,
                               int64_t size, size_t *first, size_t *last, sgz_error *err)
{
    const sgz_entry *rows = spans->toc->rows;
    if (file >= spans->toc->count)
        return sgz_base_fail(err, SGZ_ETOC, -1, NULL, 0, "the TOC has no row %u", (unsigned)file);
    if (offset < 0 || size > rows[file].size - offset)
        return sgz_base_fail(err, SGZ_ETOC, -1, sgz_toc_row_name(spans->toc, file),
                             rows[file].name_len, "this file has not %lld bytes from %lld on",
                             (long long)size, (long long)offset);
    size_t low = file_bound(spans, file), high = file_bound(spans, (uint64_t)file + 1);
    size_t stop = high;
    while (low < high) { /* the first chunk that ends beyond `offset` */
        size_t middle = low + (high - low) / 2;
        const sgz_entry *e = &rows[spans->rows[middle]];
        if (e->chunk_size > offset - e->chunk_offset)
            high = middle;
        else
            low = middle + 1;
    }
    *first = low;
    while (low < stop && rows[spans->rows[low]].chunk_offset - offset < size)
        low++;
    *last = low;
    return SGZ_OK;
}

size_t sgz_read_spans_claimed(const sgz_spans *spans, uint32_t file)
{
    if (!spans->claims || sgz_read_claims_right(spans->claims, file))
        return SGZ_NO_SPAN;
    size_t first = file_bound(spans, file);
    return first < spans->count && spans->files[first] == file ? first : SGZ_NO_SPAN;
}

int64_t sgz_read_span_start(const sgz_spans *spans, size_t span)
{
    const sgz_entry *e = sgz_read_span_row(spans, span);
    uint32_t header;
    if (sgz_read_spans_claimed(spans, spans->files[span]) != span)
        return e->offset;
    int64_t at = sgz_read_claims_place(spans->claims, spans->files[span], &header) - header;
    if (!spans->points->count)
        return at;
    int64_t point = sgz_codec_points_start(spans->points,
                                           sgz_codec_points_before(spans->points, at));
    return point < e->offset ? point : e->offset;
}

void sgz_read_spans_zeros(const sgz_spans *spans, size_t first, size_t last, int64_t offset,
                          int64_t size, uint8_t *out)
{
    int64_t at = offset, end = offset + size;
    for (; first < last; first++) {
        const sgz_entry *e = sgz_read_span_row(spans, first);
        if (e->chunk_offset > at)
            memset(out + (at - offset), 0, (size_t)(e->chunk_offset - at));
        at = e->chunk_offset + e->chunk_size;
    }
    if (at < end)
        memset(out + (at - offset), 0, (size_t)(end - at));
}
