#include "write/cut_internal.h"

#include <stdlib.h>
#include <string.h>

/* Read in pieces of this size after bytes were put back: see unread. */
#define REREAD_STEP (64u << 10)

/* Room to read on behind the largest member. */
#define SLAB_ROOM (2u << 20)

/* A slab is full with this much, unless one member needs more. */
#define SLAB_SOFT ((size_t)4 << 20)

size_t sgz_write_cutter_slab_size(const sgz_write_cut_options *options)
{
    /* The largest open member: a minimum not yet reached, one more chunk, a run of headers
     * and the longest single entry's headers on top of it. */
    return (size_t)(options->min_chunk_size + options->chunk_size) + SGZ_HEADER_RUN
        + 2 * SGZ_TAR_LONG_MAX + SLAB_ROOM + INSERT_ROOM;
}

sgz_write_cutter *sgz_write_cutter_new(sgz_input *input, sgz_toc *toc, pthread_mutex_t *lock,
                                       const sgz_write_cut_options *options)
{
    sgz_write_cutter *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->input = input;
    c->toc = toc;
    c->lock = lock;
    c->options = *options;
    c->tar.parser = sgz_tar_parser_new();
    c->apply = sgz_toc_rows_new(toc);
    c->landmark_done = !options->landmarks;
    if (!c->tar.parser || !c->apply) {
        sgz_write_cutter_free(c);
        return NULL;
    }
    return c;
}

void sgz_write_cutter_free(sgz_write_cutter *c)
{
    if (!c)
        return;
    sgz_tar_parser_free(c->tar.parser);
    sgz_toc_rows_free(c->apply);
    free(c->runs);
    free(c->carry);
    free(c->carry_pieces);
    free(c->back);
    free(c);
}

uint64_t sgz_write_cutter_bad_names(const sgz_write_cutter *c)
{
    return c->bad_names;
}

/* --- the input, with bytes put back -------------------------------------------------- */

sgz_status sgz_write_cut_take_in(sgz_write_cutter *c, uint8_t *out, size_t cap, size_t *got,
                                 sgz_error *err)
{
    *got = 0;
    if (c->back_pos < c->back_len) {
        size_t n = c->back_len - c->back_pos;
        n = n < cap ? n : cap;
        n = n < REREAD_STEP ? n : REREAD_STEP;
        memcpy(out, c->back + c->back_pos, n);
        c->back_pos += n;
        *got = n;
        return SGZ_OK;
    }
    c->back_pos = c->back_len = 0;
    sgz_status status = sgz_io_input_read(c->input, out, cap, got, err);
    if (!status && *got < cap)
        c->input_end = 1;
    return status;
}

static int exhausted(const sgz_write_cutter *c)
{
    return c->input_end && c->back_pos == c->back_len;
}

/* Bytes that came from here are given back by moving a position: so a million entries that
 * need it cost no more than reading them twice. */
sgz_status sgz_write_cut_unread(sgz_write_cutter *c, sgz_error *err)
{
    size_t n = c->len - c->get;
    c->len = c->get;
    if (n <= c->back_pos && c->back_len) {
        c->back_pos -= n;
        return SGZ_OK;
    }
    size_t rest = c->back_len - c->back_pos;
    if (!sgz_write_slab_grow((void **)&c->back, &c->back_cap, n + rest, 1))
        return sgz_write_cut_no_memory(err);
    if (rest)
        memmove(c->back + n, c->back + c->back_pos, rest);
    if (n)
        memcpy(c->back, c->slab->buf + c->get, n);
    c->back_pos = 0;
    c->back_len = n + rest;
    return SGZ_OK;
}

/* --- slabs ------------------------------------------------------------------------------ */

static sgz_status load_carry(sgz_write_cutter *c, sgz_error *err)
{
    sgz_write_slab *slab = c->slab;
    slab->len = slab->member_count = slab->piece_count = 0;
    if (c->carry_len)
        memcpy(slab->buf, c->carry, c->carry_len);
    c->open = c->open_piece = 0;
    c->put = c->carry_put;
    c->get = c->carry_put;
    c->len = c->carry_len;
    c->run_start = c->carry_run;
    if (!sgz_write_slab_grow((void **)&slab->pieces, &slab->piece_cap, c->carry_piece_count,
                             sizeof *slab->pieces))
        return sgz_write_cut_no_memory(err);
    if (c->carry_piece_count)
        memcpy(slab->pieces, c->carry_pieces, c->carry_piece_count * sizeof *slab->pieces);
    slab->piece_count = c->carry_piece_count;
    return SGZ_OK;
}

/* Save [open, put) and [get, len) for the next slab; positions become relative to open. */
static sgz_status save_carry(sgz_write_cutter *c, sgz_error *err)
{
    sgz_write_slab *slab = c->slab;
    size_t kept = c->put - c->open, ahead = c->len - c->get;
    if (!sgz_write_slab_grow((void **)&c->carry, &c->carry_cap, kept + ahead, 1))
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
    if (!sgz_write_slab_grow((void **)&c->carry_pieces, &c->carry_piece_cap,
                             c->carry_piece_count, sizeof *c->carry_pieces))
        return sgz_write_cut_no_memory(err);
    for (size_t i = 0; i < c->carry_piece_count; i++) {
        c->carry_pieces[i] = slab->pieces[c->open_piece + i];
        c->carry_pieces[i].start -= c->open;
    }
    slab->piece_count = c->open_piece;
    slab->len = c->open;
    slab->tar_len = (int64_t)c->open;
    return SGZ_OK;
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
    if (c->phase != IN_PAYLOAD || !c->file_size || c->put != c->get || c->get != c->len)
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

sgz_status sgz_write_cutter_fill(sgz_write_cutter *c, sgz_write_slab *slab, int *end,
                                 sgz_error *err)
{
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
        if (exhausted(c)) {
            status = sgz_write_cut_at_input_end(c, err);
            *end = 1;
            break;
        }
        size_t want = read_size(c), got;
        if (!want)
            break;
        status = sgz_write_cut_take_in(c, slab->buf + c->len, want, &got, err);
        c->len += got;
    }
    return status ? status : save_carry(c, err);
}
