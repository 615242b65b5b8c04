/* The cut of a tar that is kept byte for byte, with contents in chunks as containers/storage has them:
 * each is a member of its own. Nothing is left out or put in, so `put` and `get` are one. */
#include "write/cut_internal.h"

/* From here on it is bytes. */
sgz_status sgz_write_cut_kept_unfit(sgz_write_cutter *c, sgz_status status, sgz_error *err)
{
    if (status != SGZ_ENOTOC || c->options.strict)
        return status;
    c->unfit = 1;
    c->why = *err;
    c->phase = IN_TAIL;
    return SGZ_OK;
}

static sgz_status mark(sgz_write_cutter *c, uint32_t row, int64_t size, sgz_error *err)
{
    sgz_write_mark here = {c->put, row, size};
    sgz_write_slab *slab = c->slab;
    return SGZ_PUSH(slab->marks, slab->mark_count, slab->mark_cap, here)
               ? SGZ_OK : sgz_write_cut_no_memory(err);
}

sgz_status sgz_write_cut_kept_entry(sgz_write_cutter *c, const sgz_tar_entry *entry,
                                    sgz_error *err)
{
    uint32_t row;
    pthread_mutex_lock(&c->lock);
    sgz_status status = sgz_toc_kept_entry(&c->kept, entry, c->tar.start, &row, err);
    pthread_mutex_unlock(&c->lock);
    if (status)
        return sgz_write_cut_kept_unfit(c, status, err);
    c->entries++;
    /* Its xattrs and times are as Go has them. */
    sgz_base_note(&c->notes, entry->notes & ~(SGZ_NOTE_BIT(XATTR) | SGZ_NOTE_BIT(TIME)),
                  entry->name, entry->name_len);
    status = mark(c, row, c->tar.data, err);
    c->file_row = row;
    c->file_size = c->tar.data;
    c->file_done = 0;
    if (status || !c->tar.data)
        return status;
    sgz_write_chunker_begin(&c->chunker, c->file_size, c->options.chunk_size);
    c->phase = IN_PAYLOAD;
    return sgz_write_cut_close_member(c, err);
}

sgz_status sgz_write_cut_kept_end(sgz_write_cutter *c, sgz_error *err)
{
    return mark(c, SGZ_NO_ROW, 0, err);
}

/* Readers of the tar-split look for headers there. */
sgz_status sgz_write_cut_kept_tail(sgz_write_cutter *c, size_t n, sgz_error *err)
{
    const uint8_t *tail = c->slab->buf + c->get;
    if (c->unfit || !n || (!tail[0] && !memcmp(tail, tail + 1, n - 1)))
        return SGZ_OK;
    return sgz_write_cut_kept_unfit(
        c, sgz_base_fail(err, SGZ_ENOTOC, c->tar.pos, NULL, 0,
                         "bytes other than zeros behind the end of the archive"), err);
}

sgz_status sgz_write_cut_kept_finish(sgz_write_cutter *c, sgz_error *err)
{
    if (c->tar.padding)
        return sgz_write_cut_kept_unfit(
            c, sgz_base_fail(err, SGZ_ENOTOC, c->tar.pos, NULL, 0,
                             "the tar ends in the padding of its last file"), err);
    pthread_mutex_lock(&c->lock);
    sgz_status status = sgz_toc_kept_finish(&c->kept, err);
    pthread_mutex_unlock(&c->lock);
    return status ? sgz_write_cut_kept_unfit(c, status, err) : SGZ_OK;
}

static sgz_status add_chunk(sgz_write_cutter *c, size_t len, int zeros, sgz_error *err)
{
    sgz_write_slab *slab = c->slab;
    uint32_t row = c->file_row;
    sgz_status status = SGZ_OK;
    pthread_mutex_lock(&c->lock);
    if (c->file_done)
        status = sgz_toc_kept_chunk(&c->kept, &row, err);
    if (!status) {
        sgz_entry *entry = sgz_kept_row(&c->kept.rows, row);
        entry->chunk_offset = c->file_done;
        entry->chunk_size = (int64_t)len;
        entry->flags |= zeros ? SGZ_KEPT_ZEROS : 0;
    }
    pthread_mutex_unlock(&c->lock);
    sgz_write_piece piece = {.row = row, .file_row = c->file_row, .start = c->put, .len = len,
                             .whole = (int64_t)len == c->file_size,
                             .last = c->file_done + (int64_t)len == c->file_size};
    if (!status && !SGZ_PUSH(slab->pieces, slab->piece_count, slab->piece_cap, piece))
        status = sgz_write_cut_no_memory(err);
    return status;
}

sgz_status sgz_write_cut_kept_chunks(sgz_write_cutter *c, int *more, sgz_error *err)
{
    int zeros;
    size_t len = sgz_write_chunker_next(&c->chunker, c->slab->buf + c->get, c->len - c->get,
                                        &zeros);
    *more = !len;
    if (!len)
        return SGZ_OK;
    sgz_status status = add_chunk(c, len, zeros, err);
    if (status)
        return status;
    c->put = c->get += len;
    sgz_tar_stream_pass(&c->tar, (int64_t)len);
    c->file_done += (int64_t)len;
    if (!c->tar.data)
        c->phase = IN_PADDING;
    return sgz_write_cut_close_member(c, err);
}
