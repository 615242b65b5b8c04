#include "index/index.h"

#include "index/limits.h"
#include "tar/tar.h"

static sgz_status bad_point(const sgz_point *p, size_t number, const char *what, sgz_error *err)
{
    return sgz_base_fail(err, SGZ_EINDEX, -1, NULL, 0,
                         "entry point %zu, at offset %lld of the blob, %s", number,
                         (long long)p->offset, what);
}

static const char *wrong_window(const sgz_points *points, const sgz_point *p)
{
    size_t stored = sgz_codec_point_stored(p);
    if (points->kind != SGZ_POINT_DEFLATE)
        return p->skip || stored ? "has bits and a history, which is for gzip" : NULL;
    if (p->skip > 7 || p->history > SGZ_HISTORY_MAX || p->packed > SGZ_INDEX_WINDOW_MAX)
        return "has bits or a history beyond what deflate knows";
    if (p->history > p->out)
        return "has more history than there are bytes before it";
    if (!p->history && (p->skip || p->packed))
        return "has no history, but does not begin a member";
    if (stored > points->windows_len || p->window > points->windows_len - stored)
        return "has a history that is not there";
    return NULL;
}

static sgz_status check_points(const sgz_points *points, sgz_error *err)
{
    int stored = points->kind == SGZ_POINT_STORED;
    if (points->size < 0 || points->size > SGZ_INDEX_SIZE_MAX || points->end < 0 ||
        points->end > SGZ_INDEX_SIZE_MAX)
        return sgz_base_fail(err, SGZ_EINDEX, -1, NULL, 0, "a size in it is impossible");
    if (stored && points->end > points->size)
        return sgz_base_fail(err, SGZ_EINDEX, -1, NULL, 0,
                             "the blob is a tar of %lld bytes and yet has %lld",
                             (long long)points->end, (long long)points->size);
    if (!stored && !points->count && points->end)
        return sgz_base_fail(err, SGZ_EINDEX, -1, NULL, 0, "it has no entry point");
    for (size_t i = 0; i < points->count; i++) {
        const sgz_point *p = &points->at[i], *before = i ? p - 1 : NULL;
        if (p->offset < 0 || p->offset >= points->size || p->out < 0 || p->out > points->end)
            return bad_point(p, i, "is outside of the blob or of its tar", err);
        if (before ? p->offset <= before->offset || p->out <= before->out : p->out != 0)
            return bad_point(p, i, before ? "is not behind the one before it"
                                          : "is the first, but not for the tar's first byte", err);
        if (stored && p->offset != p->out)
            return bad_point(p, i, "is not where its bytes are", err);
        const char *what = wrong_window(points, p);
        if (what)
            return bad_point(p, i, what, err);
    }
    return SGZ_OK;
}

static sgz_status bad_row(const sgz_toc *toc, const sgz_entry *row, const char *what,
                          sgz_error *err)
{
    return sgz_base_fail(err, SGZ_EINDEX, -1, toc->arena + row->name_off, row->name_len, "%s", what);
}

/* Decoded position of a chunk that lies in one span; -1: it does not. */
static int64_t position(const sgz_points *points, const sgz_entry *row)
{
    int64_t out = row->offset, end = points->end;
    if (points->count) {
        size_t i = sgz_codec_points_at(points, row->offset);
        if (i == SGZ_NO_POINT)
            return -1;
        out = points->at[i].out;
        end = sgz_index_span_end(points, i);
    }
    if (row->inner_offset < 0 || row->inner_offset > end - out ||
        row->chunk_size > end - out - row->inner_offset)
        return -1;
    return out + row->inner_offset;
}

static sgz_status check_rows(const sgz_index *index, sgz_error *err)
{
    const sgz_toc *toc = index->toc;
    int64_t at = 0; /* where an entry's headers may begin, or a file's next chunk must */
    for (size_t i = 0; i < toc->count; i++) {
        const sgz_entry *row = &toc->rows[i];
        const sgz_toc_origin *place = &index->toc->origins[i];
        if (!sgz_toc_is_piece(row)) {
            if (!place->header || place->header % SGZ_TAR_BLOCK ||
                place->header > SGZ_INDEX_HEADER_MAX)
                return bad_row(toc, row, "the length of its tar headers is impossible", err);
            at = sgz_index_padded(at);
            if (place->content < 0 || place->content > index->points.end ||
                place->content % SGZ_TAR_BLOCK ||
                place->content - place->header < at)
                return bad_row(toc, row, "its place in the tar is taken, or outside", err);
            if (place->ns >= 1000000000)
                return bad_row(toc, row, "its time has a fraction of a second and more", err);
            if (place->name > toc->arena_len || place->name_len > toc->arena_len - place->name)
                return bad_row(toc, row, "its name in the tar is not there", err);
            at = place->content;
        }
        if (!sgz_toc_has_data(row))
            continue;
        int64_t here = position(&index->points, row);
        if (here < 0)
            return bad_row(toc, row, "a chunk of it is not in the span of an entry point", err);
        if (here != at)
            return bad_row(toc, row, "a chunk of it is not where the file is in the tar", err);
        at += row->chunk_size;
    }
    return SGZ_OK;
}

sgz_status sgz_index_check(const sgz_index *index, sgz_error *err)
{
    sgz_status status = check_points(&index->points, err);
    if (!status && (index->archive_size < 0 || index->archive_size > index->points.end))
        status = sgz_base_fail(err, SGZ_EINDEX, -1, NULL, 0,
                               "the archive ends at %lld of the tar's %lld bytes",
                               (long long)index->archive_size, (long long)index->points.end);
    return status ? status : check_rows(index, err);
}
