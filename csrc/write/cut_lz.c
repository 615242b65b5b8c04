/* The input's tokens, and which bytes of a slab are which place in the input's stream. */
#include "write/cut_internal.h"

/* So many are no matter, needed or not. */
#define TOKENS_FREE ((size_t)64 << 10)

/* Where the input has `get`. */
static int64_t position(const sgz_write_cutter *c)
{
    return c->input->lz->out - (int64_t)(c->back_len - c->back_pos) - (int64_t)(c->len - c->get);
}

/* So many pieces at most: a sparse file may have a run for every other byte. */
static size_t pieces_max(const sgz_write_slab *slab)
{
    return slab->cap / 64;
}

sgz_status sgz_write_cut_put(sgz_write_cutter *c, int from_input, sgz_error *err)
{
    sgz_write_slab *slab = c->slab;
    if (!c->input->lz)
        return SGZ_OK;
    size_t n = slab->lz_piece_count;
    while (n && slab->lz_pieces[n - 1].at >= c->put) /* taken out again */
        n--;
    slab->lz_piece_count = n;
    int64_t from = from_input && n < pieces_max(slab) ? position(c) : -1;
    const sgz_lz_piece *last = n ? &slab->lz_pieces[n - 1] : NULL;
    if (last && from == (last->from < 0 ? -1 : last->from + (int64_t)(c->put - last->at)))
        return SGZ_OK;
    return SGZ_PUSH(slab->lz_pieces, slab->lz_piece_count, slab->lz_piece_cap,
                    (sgz_lz_piece){c->put, from})
               ? SGZ_OK
               : sgz_write_cut_no_memory(err);
}

/* --- copies, with gaps ------------------------------------------------------------------- */

typedef struct {
    const sgz_lz *from;
    sgz_lz *to;
    size_t token, mark;     /* the next ones */
    int64_t at;             /* where that token begins */
    int gap;                /* it does not follow on what was copied last */
} copy;

/* Marks of the next token, and of those before it; 1: it has one. There may be a gap before it. */
static int pass_marks(copy *c)
{
    int marked = 0;
    for (; c->mark < c->from->mark_count; c->mark++) {
        const sgz_lz_mark *mark = &c->from->marks[c->mark];
        if (mark->token > c->token)
            break;
        marked = mark->token == c->token;
        if (marked && mark->at != c->at) {
            c->at = mark->at;
            c->gap = 1;
        }
    }
    return marked;
}

static int put_mark(copy *c)
{
    c->gap = 0;
    return SGZ_PUSH(c->to->marks, c->to->mark_count, c->to->mark_cap,
                    (sgz_lz_mark){c->at, c->to->count});
}

/* All from the next token on, as it is. */
static int copy_rest(copy *c, int marked)
{
    const sgz_lz *from = c->from;
    sgz_lz *to = c->to;
    size_t tokens = from->count - c->token, marks = from->mark_count - c->mark;
    if ((c->gap || marked) && !put_mark(c))
        return 0;
    if (!SGZ_FIT(to->tokens, to->cap, to->count + tokens)
        || !SGZ_FIT(to->marks, to->mark_cap, to->mark_count + marks))
        return 0;
    memcpy(to->tokens + to->count, from->tokens + c->token, tokens * sizeof *to->tokens);
    for (size_t i = 0; i < marks; i++) {
        sgz_lz_mark mark = from->marks[c->mark + i];
        mark.token = mark.token - c->token + to->count;
        to->marks[to->mark_count++] = mark;
    }
    to->count += tokens;
    c->token = from->count;
    return 1;
}

/* The tokens of [begin, end) of the stream, which is not before those that were copied last. There is a
 * mark where they begin, even if that is behind the last token. */
static int copy_range(copy *c, int64_t begin, int64_t end)
{
    const sgz_lz *from = c->from;
    sgz_lz *to = c->to;
    for (size_t i = c->mark; i < from->mark_count && from->marks[i].at <= begin; i++)
        if (from->marks[i].token > c->token) {
            c->token = from->marks[i].token;
            c->at = from->marks[i].at;
            c->gap = 1;
        }
    for (;; c->token++) {
        int marked = pass_marks(c);
        if (c->token == from->count || c->at >= end)
            break;
        if (end == INT64_MAX && c->at >= begin)
            return copy_rest(c, marked);
        uint32_t token = from->tokens[c->token];
        int64_t next = c->at + sgz_lz_len(token) + sgz_lz_run(token);
        if (next <= begin)
            c->gap = 1;
        else if (((c->gap || marked) && !put_mark(c))
                 || !SGZ_PUSH(to->tokens, to->count, to->cap, token))
            return 0;
        c->at = next;
    }
    return !c->gap || c->token < from->count || put_mark(c);
}

/* What these pieces need, which end at `end`, and all from where the input has `get` on. */
static sgz_status copy_lz(sgz_write_cutter *c, const sgz_lz_piece *pieces, size_t count, size_t end,
                          sgz_error *err)
{
    copy how = {.from = &c->slab->lz, .to = &c->carry_lz, .gap = 1};
    int64_t rest = position(c);
    int fits = 1;
    if (how.from->mark_count)
        how.at = how.from->marks[0].at;
    c->carry_lz.count = c->carry_lz.mark_count = 0;
    for (size_t i = 0; i < count && fits; i++) {
        int64_t from = pieces[i].from;
        int64_t stop = from + (int64_t)((i + 1 < count ? pieces[i + 1].at : end) - pieces[i].at);
        if (from >= 0 && i + 1 == count && stop == rest) /* it goes on with the rest, mostly */
            rest = from;
        else
            fits = from < 0 || copy_range(&how, from, stop);
    }
    return fits && copy_range(&how, rest, INT64_MAX) ? SGZ_OK : sgz_write_cut_no_memory(err);
}

static void swap(sgz_lz *a, sgz_lz *b)
{
    sgz_lz c = *a;
    *a = *b;
    *b = c;
}

sgz_status sgz_write_cut_load_lz(sgz_write_cutter *c, sgz_error *err)
{
    sgz_write_slab *slab = c->slab;
    size_t n = c->carry_lz_piece_count;
    if (!c->input->lz)
        return SGZ_OK;
    if (!SGZ_FIT(slab->lz_pieces, slab->lz_piece_cap, n))
        return sgz_write_cut_no_memory(err);
    if (n)
        memcpy(slab->lz_pieces, c->carry_lz_pieces, n * sizeof *slab->lz_pieces);
    slab->lz_piece_count = n;
    swap(&slab->lz, &c->carry_lz);
    c->input->lz->to = &slab->lz;
    return SGZ_OK;
}

/* Of the open member, and of the bytes ahead. */
sgz_status sgz_write_cut_save_lz(sgz_write_cutter *c, sgz_error *err)
{
    const sgz_write_slab *slab = c->slab;
    if (!c->input->lz)
        return SGZ_OK;
    c->carry_lz_piece_count = 0;
    for (size_t i = 0; i < slab->lz_piece_count; i++) {
        sgz_lz_piece piece = slab->lz_pieces[i];
        size_t end = i + 1 < slab->lz_piece_count ? slab->lz_pieces[i + 1].at : c->put;
        if (end <= c->open || piece.at >= c->put)
            continue;
        size_t cut = piece.at < c->open ? c->open - piece.at : 0;
        piece.at = piece.at + cut - c->open;
        piece.from += piece.from < 0 ? 0 : (int64_t)cut;
        if (!SGZ_PUSH(c->carry_lz_pieces, c->carry_lz_piece_count, c->carry_lz_piece_cap, piece))
            return sgz_write_cut_no_memory(err);
    }
    return copy_lz(c, c->carry_lz_pieces, c->carry_lz_piece_count, c->put - c->open, err);
}

sgz_status sgz_write_cut_thin_lz(sgz_write_cutter *c, sgz_error *err)
{
    sgz_write_slab *slab = c->slab;
    size_t n = slab->lz_piece_count;
    /* What the slab needs is less: a token for three bytes, two marks for a piece. */
    if (!c->input->lz
        || (slab->lz.count <= c->len / 2 + TOKENS_FREE && slab->lz.mark_count <= c->len / 16 + TOKENS_FREE))
        return SGZ_OK;
    while (n && slab->lz_pieces[n - 1].at >= c->put) /* taken out again */
        n--;
    sgz_status status = copy_lz(c, slab->lz_pieces, n, c->put, err);
    swap(&slab->lz, &c->carry_lz);
    c->input->lz->to = &slab->lz;
    return status;
}
