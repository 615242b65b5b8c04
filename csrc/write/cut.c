#include "write/cut_internal.h"

#include <stdlib.h>
#include <string.h>

/* Read in pieces of this size after bytes were put back: see unread. */
#define REREAD_STEP (64u << 10)

sgz_write_cutter *sgz_write_cutter_new(sgz_input *input, sgz_toc *toc,
                                       const sgz_write_cut_options *options)
{
    sgz_write_cutter *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->input = input;
    c->toc = toc;
    pthread_mutex_init(&c->lock, NULL);
    c->options = *options;
    c->tar.parser = sgz_tar_parser_new();
    c->apply = sgz_toc_rows_new(toc);
    c->kept.rows.toc = toc;
    c->landmark_done = !options->landmarks;
    if (!c->tar.parser || !c->apply) {
        sgz_write_cutter_free(c);
        return NULL;
    }
    if (options->kept)
        sgz_tar_keep_records(c->tar.parser);
    return c;
}

void sgz_write_cutter_free(sgz_write_cutter *c)
{
    if (!c)
        return;
    pthread_mutex_destroy(&c->lock);
    sgz_tar_parser_free(c->tar.parser);
    sgz_toc_rows_free(c->apply);
    free(c->runs);
    free(c->carry);
    free(c->carry_pieces);
    free(c->carry_marks);
    sgz_lz_free(&c->carry_lz);
    free(c->carry_lz_pieces);
    sgz_toc_kept_free(&c->kept);
    free(c->back);
    free(c);
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
    if (!SGZ_FIT(c->back, c->back_cap, n + rest))
        return sgz_write_cut_no_memory(err);
    if (rest)
        memmove(c->back + n, c->back + c->back_pos, rest);
    if (n)
        memcpy(c->back, c->slab->buf + c->get, n);
    c->back_pos = 0;
    c->back_len = n + rest;
    return SGZ_OK;
}
