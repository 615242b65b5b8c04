/* The cut as a filler of slabs: how much is read, and what is carried over from one to the next. */
#include "write/cut_internal.h"

/* Room to read on behind the largest member. */
#define SLAB_ROOM (2u << 20)

/* A slab is full with this much, unless one member needs more. */
#define SLAB_SOFT ((size_t)4 << 20)

static sgz_status load_carry(sgz_write_cutter *c, sgz_error *err)
{
    sgz_write_slab *slab = c->slab;
    slab->len = slab->member_count = slab->piece_count = slab->mark_count = 0;
    if (c->carry_len)
        memcpy(slab->buf, c->carry, c->carry_len);
    c->open = c->open_piece = 0;
    c->put = c->carry_put;
    c->get = c->carry_put;
    c->len = c->carry_len;
    c->run_start = c->carry_run;
    if (!SGZ_FIT(slab->pieces, slab->piece_cap, c->carry_piece_count))
        return sgz_write_cut_no_memory(err);
    if (c->carry_piece_count)
        memcpy(slab->pieces, c->carry_pieces, c->carry_piece_count * sizeof *slab->pieces);
    slab->piece_count = c->carry_piece_count;
    if (!SGZ_FIT(slab->marks, slab->mark_cap, c->carry_mark_count))
        return sgz_write_cut_no_memory(err);
    if (c->carry_mark_count)
        memcpy(slab->marks, c->carry_marks, c->carry_mark_count * sizeof *slab->marks);
    slab->mark_count = c->carry_mark_count;
    return sgz_write_cut_load_lz(c, err);
}

/* All rows but those of a file that is not complete, and of entries that are carried over. */
static uint32_t rows_done(sgz_write_cutter *c)
{
    if (c->carry_mark_count && c->carry_marks[0].row != SGZ_NO_ROW)
        return c->carry_marks[0].row;
    if (c->phase == IN_PAYLOAD)
        return c->file_row;
    pthread_mutex_lock(&c->lock);
    uint32_t count = c->kept.rows.first + (uint32_t)c->toc->count;
    pthread_mutex_unlock(&c->lock);
    return count;
}

/* Save [open, put) and [get, len) for the next slab; positions become relative to open. */
static sgz_status save_carry(sgz_write_cutter *c, sgz_error *err)
{
    sgz_write_slab *slab = c->slab;
    size_t kept = c->put - c->open, ahead = c->len - c->get;
    if (!SGZ_FIT(c->carry, c->carry_cap, kept + ahead))
        return sgz_write_cut_no_memory(err);
    if (kept)
        memcpy(c->carry, slab->buf + c->open, kept);
    if (ahead)
        memcpy(c->carry + kept, slab->buf + c->get, ahead);
    c->carry_put = kept;
    c->carry_len = kept + ahead;
    c->carry_run = c->run_start - c->open;
    c->header_start = c->header_start > c->open ? c->header_start - c->open : 0;
    c->carry_piece_count = slab->piece_count - c->open_piece;
    if (!SGZ_FIT(c->carry_pieces, c->carry_piece_cap, c->carry_piece_count))
        return sgz_write_cut_no_memory(err);
    for (size_t i = 0; i < c->carry_piece_count; i++) {
        c->carry_pieces[i] = slab->pieces[c->open_piece + i];
        c->carry_pieces[i].start -= c->open;
    }
    slab->piece_count = c->open_piece;
    /* A mark where the open member begins is the end of what is before. */
    size_t marks = slab->mark_count;
    while (marks && slab->marks[marks - 1].at > c->open)
        marks--;
    c->carry_mark_count = slab->mark_count - marks;
    if (!SGZ_FIT(c->carry_marks, c->carry_mark_cap, c->carry_mark_count))
        return sgz_write_cut_no_memory(err);
    for (size_t i = 0; i < c->carry_mark_count; i++) {
        c->carry_marks[i] = slab->marks[marks + i];
        c->carry_marks[i].at -= c->open;
    }
    slab->mark_count = marks;
    slab->unfit = c->unfit;
    slab->rows_done = rows_done(c);
    slab->len = c->open;
    slab->tar_len = (int64_t)c->open;
    return sgz_write_cut_save_lz(c, err);
}

/* How much to read: to the slab's end, but in the middle of a large file only to the end
 * of its last whole chunk, so that little is carried over. 0: this slab is done. */
static size_t read_size(const sgz_write_cutter *c)
{
    size_t limit = c->slab->cap - INSERT_ROOM;
    size_t room = c->len < limit ? limit - c->len : 0;
    /* Enough for every thread, and still in the third-level cache when it is compressed. */
    if (c->len >= SLAB_SOFT && c->open)
        return 0;
    if (c->len < SLAB_SOFT && room > SLAB_SOFT - c->len)
        room = SLAB_SOFT - c->len;
    if (c->phase != IN_PAYLOAD || c->options.kept || !c->file_size || c->put != c->get ||
        c->get != c->len)
        return room;
    if (c->tar.data <= (int64_t)room)
        return room;
    if (c->chunk_left > (int64_t)room) {
        if (c->open)
            return 0;
        return c->chunk_left < (int64_t)(limit - c->len) ? (size_t)c->chunk_left : limit - c->len;
    }
    return (size_t)(c->chunk_left
                    + ((int64_t)room - c->chunk_left) / c->options.chunk_size
                        * c->options.chunk_size);
}

static sgz_status fill(void *arg, sgz_write_slab *slab, int *end, sgz_error *err)
{
    sgz_write_cutter *c = arg;
    c->slab = slab;
    *end = 0;
    sgz_status status = load_carry(c, err);
    while (!status) {
        int full = 0;
        status = sgz_write_cut_parse(c, &full, err);
        if (status || full)
            break;
        if (c->len == c->get && c->put < c->get)
            c->get = c->len = c->put;  /* nothing ahead: read right behind what is kept */
        if (c->input_end && c->back_pos == c->back_len) {
            status = sgz_write_cut_at_input_end(c, err);
            *end = 1;
            break;
        }
        size_t want = read_size(c), got;
        if (!want || (status = sgz_write_cut_thin_lz(c, err)))
            break;
        status = sgz_write_cut_take_in(c, slab->buf + c->len, want, &got, err);
        c->len += got;
    }
    return status ? status : save_carry(c, err);
}

static int64_t progress(void *arg)
{
    return ((sgz_write_cutter *)arg)->input->source_pos;
}

static const sgz_notes *notes(void *arg)
{
    return &((sgz_write_cutter *)arg)->notes;
}

static const sgz_error *unfit(void *arg)
{
    const sgz_write_cutter *c = arg;
    return c->unfit ? &c->why : NULL;
}

const sgz_write_filler *sgz_write_cutter_filler(sgz_write_cutter *c)
{
    /* The largest open member: a minimum not yet reached, one more chunk, a run of headers
     * and the longest single entry's headers on top of it. */
    size_t open = (size_t)(c->options.min_chunk_size + c->options.chunk_size) + SGZ_HEADER_RUN
        + 2 * SGZ_TAR_LONG_MAX;
    c->filler = (sgz_write_filler){.arg = c,
                                   .slab_size = open + SLAB_ROOM + INSERT_ROOM,
                                   .lock = &c->lock,
                                   .fill = fill,
                                   .progress = progress,
                                   .notes = notes,
                                   .kept = c->options.kept ? &c->kept : NULL,
                                   .strict = c->options.strict,
                                   .unfit = unfit};
    return &c->filler;
}
