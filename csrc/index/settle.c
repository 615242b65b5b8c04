/* Rows as a tar makes them become rows as a TOC has them: their JSON goes right into the parser. */
#include "index/index.h"

#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/vec.h"
#include "index/texts.h"
#include "toc/rows.h"

/* What is given back at a time of the rows that were read again. */
#define STEP ((size_t)1 << 20)

typedef struct {
    sgz_toc_parser *parser;
    sgz_index_texts texts;
    sgz_entry *rows;            /* as they were made */
    size_t given_back;          /* of these */
    const sgz_toc *made;
    sgz_status status;
    sgz_error err;
} reader;

/* The rows are never all there twice. Of n that were read again at least n were written. */
static void give_back(reader *r)
{
    if (r->made->count < r->given_back + STEP / sizeof *r->rows)
        return;
    sgz_base_buffer_drop(r->rows + r->given_back, r->rows + r->made->count - 1);
    r->given_back = r->made->count - 1;
}

static int take_json(void *arg, const char *data, size_t len)
{
    reader *r = arg;
    r->status = sgz_toc_parse(r->parser, data, len, &r->err);
    give_back(r);
    return r->status != SGZ_OK;
}

static sgz_status next_text(void *arg, sgz_toc_text *text, int *none, sgz_error *err)
{
    (void)err;
    reader *r = arg;
    *none = !sgz_index_next_text(&r->texts, text);
    return SGZ_OK;
}

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the index");
}

/* Nothing is found by name in the rows as they were made any more, nor are they all there. */
static sgz_status read_again(sgz_index *index, sgz_toc *toc, sgz_error *err)
{
    reader r = {.parser = sgz_toc_parser_new(toc), .texts = {.toc = index->toc},
                .rows = index->toc->rows, .made = toc};
    const sgz_toc_texts texts = {next_text, &r};
    uint64_t len;
    if (!r.parser)
        return no_memory(err);
    sgz_map_free(&index->toc->names);
    sgz_status status = sgz_toc_format(index->toc, 0, NULL, NULL, &len, err);
    if (!status)
        status = sgz_toc_check_size(index->toc, len, err);
    sgz_toc_parser_limit(r.parser, index->points.size);
    sgz_toc_parser_expect(r.parser, (int64_t)len);
    sgz_toc_parser_texts(r.parser, &texts);
    if (!status)
        status = sgz_toc_format(index->toc, 0, take_json, &r, &len, err);
    if (r.status) {
        status = r.status;
        *err = r.err;
    }
    if (!status)
        status = sgz_toc_parse_finish(r.parser, index->points.size, err);
    sgz_toc_parser_free(r.parser);
    return status;
}

/* The name in the tar is kept where it leads elsewhere than the row's. */
static sgz_status move_name(const sgz_toc *from, sgz_toc *toc, const sgz_entry *row,
                            char **scratch, size_t *cap, sgz_toc_origin *place, sgz_error *err)
{
    const char *name = from->arena + place->name;
    size_t len;
    if (!SGZ_FIT(*scratch, *cap, place->name_len + (size_t)1))
        return no_memory(err);
    const char *clean = sgz_toc_clean_name(name, place->name_len, *scratch, &len);
    place->name = row->name_off;
    place->name_len = row->name_len;
    if (!sgz_compare(clean, len, toc->arena + row->name_off, row->name_len))
        return SGZ_OK;
    place->name = sgz_toc_store(toc, clean, len);
    place->name_len = (uint32_t)len;
    return place->name == UINT64_MAX ? no_memory(err) : SGZ_OK;
}

static sgz_status move_names(const sgz_toc *from, sgz_toc *toc, sgz_error *err)
{
    char *scratch = NULL;
    size_t cap = 0;
    sgz_status status = SGZ_OK;
    for (size_t i = 0; i < toc->count && !status; i++)
        if (!sgz_toc_is_piece(&toc->rows[i]))
            status = move_name(from, toc, &toc->rows[i], &scratch, &cap, &toc->origins[i], err);
    free(scratch);
    return status;
}

/* Those of the entries that are left, one behind the other; how many. */
static size_t pack_places(sgz_toc *toc)
{
    size_t count = 0;
    for (size_t i = 0; i < toc->count; i++)
        if (!sgz_toc_is_piece(&toc->rows[i]) && !(toc->rows[i].flags & SGZ_DROPPED))
            toc->origins[count++] = toc->origins[i];
    return count;
}

/* To the rows that are left, which come in the same order. */
static sgz_status spread_places(sgz_toc *from, sgz_toc *toc, size_t count, sgz_error *err)
{
    toc->origins = from->origins;
    toc->origin_cap = from->origin_cap;
    from->origins = NULL;
    from->origin_cap = 0;
    if (!SGZ_FIT(toc->origins, toc->origin_cap, toc->count))
        return no_memory(err);
    for (size_t i = toc->count; i--;)
        if (sgz_toc_is_piece(&toc->rows[i]))
            toc->origins[i] = (sgz_toc_origin){0};
        else /* never before the first: the JSON has no other entries */
            toc->origins[i] = toc->origins[--count];
    return SGZ_OK;
}

sgz_status sgz_index_settle(sgz_index *index, sgz_error *err)
{
    sgz_toc *toc = sgz_toc_new();
    if (!toc)
        return no_memory(err);
    size_t count = pack_places(index->toc);
    sgz_status status = read_again(index, toc, err);
    if (!status)
        status = spread_places(index->toc, toc, count, err);
    if (!status)
        status = move_names(index->toc, toc, err);
    if (status) {
        sgz_toc_free(toc);
        return status;
    }
    sgz_toc_free(index->toc);
    index->toc = toc;
    return SGZ_OK;
}
