#include "write/cut_internal.h"

sgz_status sgz_write_cut_close_member(sgz_write_cutter *c, sgz_error *err)
{
    sgz_write_slab *slab = c->slab;
    if (c->put == c->open)
        return SGZ_OK;
    sgz_write_member member = {
        .start = c->open,
        .len = c->put - c->open,
        .first_piece = c->open_piece,
        .piece_count = slab->piece_count - c->open_piece,
    };
    if (!SGZ_PUSH(slab->members, slab->member_count, slab->member_cap, member))
        return sgz_write_cut_no_memory(err);
    c->open = c->put;
    c->open_piece = slab->piece_count;
    c->run_start = c->put;
    return SGZ_OK;
}

static sgz_status begin_chunk(sgz_write_cutter *c, int own_member, sgz_error *err)
{
    int64_t left = c->file_size - c->file_done;
    int64_t chunk = left < c->options.chunk_size ? left : c->options.chunk_size;
    uint32_t row = c->file_row;
    sgz_status status = SGZ_OK;
    pthread_mutex_lock(&c->lock);
    if (c->file_done)
        status = sgz_toc_rows_chunk(c->apply, &row, err);
    if (!status) {
        sgz_entry *entry = &c->toc->rows[row];
        entry->chunk_offset = c->file_done;
        entry->chunk_size = chunk;
        if (left >= c->options.chunk_size)
            entry->flags |= SGZ_SET_CHUNK_SIZE;
    }
    pthread_mutex_unlock(&c->lock);
    if (!status
        && (own_member || (int64_t)(c->put - c->open) >= c->options.min_chunk_size))
        status = sgz_write_cut_close_member(c, err);
    if (status)
        return status;
    sgz_write_slab *slab = c->slab;
    sgz_write_piece piece = {
        .row = row,
        .file_row = c->file_row,
        .start = c->put,
        .len = (size_t)chunk,
        .inner = c->put - c->open,
        .whole = chunk == c->file_size,
        .last = chunk == left,
    };
    if (!SGZ_PUSH(slab->pieces, slab->piece_count, slab->piece_cap, piece))
        return sgz_write_cut_no_memory(err);
    c->chunk_left = chunk;
    return SGZ_OK;
}

sgz_status sgz_write_cut_chunk_done(sgz_write_cutter *c, size_t n, sgz_error *err)
{
    c->file_done += (int64_t)n;
    c->chunk_left -= (int64_t)n;
    if (c->chunk_left == 0 && c->file_done < c->file_size)
        return begin_chunk(c, 0, err);
    if (c->file_done < c->file_size)
        return SGZ_OK;
    c->run_start = c->put;
    return c->options.frames ? sgz_write_cut_close_member(c, err) : SGZ_OK;
}

sgz_status sgz_write_cut_begin_file(sgz_write_cutter *c, uint32_t row, int64_t size,
                                    int own_member, sgz_error *err)
{
    c->file_row = row;
    c->file_size = size;
    c->file_done = 0;
    if (size)
        return begin_chunk(c, own_member, err);
    pthread_mutex_lock(&c->lock);
    sgz_toc_rows_empty(c->apply, row);
    pthread_mutex_unlock(&c->lock);
    return SGZ_OK;
}
