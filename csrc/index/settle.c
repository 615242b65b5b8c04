/* Rows as a tar makes them become rows as a TOC has them: their JSON goes right into the parser. */
#include "index/index.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/vec.h"
#include "index/texts.h"
#include "toc/rows.h"

typedef struct {
    sgz_toc_parser *parser;
    sgz_index_texts texts;
    sgz_status status;
    sgz_error err;
} reader;

static int take_json(void *arg, const char *data, size_t len)
{
    reader *r = arg;
    r->status = sgz_toc_parse(r->parser, data, len, &r->err);
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

static sgz_status read_again(const sgz_index *index, sgz_toc *toc, sgz_error *err)
{
    reader r = {.parser = sgz_toc_parser_new(toc), .texts = {.toc = index->toc}};
    const sgz_toc_texts texts = {next_text, &r};
    uint64_t len;
    if (!r.parser)
        return no_memory(err);
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
static sgz_status move_name(const sgz_index *from, const sgz_index_place *old, sgz_toc *toc,
                            const sgz_entry *row, char **scratch, size_t *cap,
                            sgz_index_place *place, sgz_error *err)
{
    const char *name = from->toc->arena + old->name;
    size_t len;
    if (!SGZ_FIT(*scratch, *cap, old->name_len + (size_t)1))
        return no_memory(err);
    const char *clean = sgz_toc_clean_name(name, old->name_len, *scratch, &len);
    place->name = row->name_off;
    place->name_len = row->name_len;
    if (!sgz_compare(clean, len, toc->arena + row->name_off, row->name_len))
        return SGZ_OK;
    place->name = sgz_toc_store(toc, clean, len);
    place->name_len = (uint32_t)len;
    return place->name == UINT64_MAX ? no_memory(err) : SGZ_OK;
}

/* The entries that are left come in the same order. */
static sgz_status move_places(const sgz_index *from, sgz_toc *toc, sgz_index_place *places,
                              sgz_error *err)
{
    char *scratch = NULL;
    size_t cap = 0, at = 0;
    sgz_status status = SGZ_OK;
    for (size_t i = 0; i < toc->count && !status; i++) {
        if (sgz_toc_is_piece(&toc->rows[i]))
            continue;
        while (sgz_toc_is_piece(&from->toc->rows[at]) || from->toc->rows[at].flags & SGZ_DROPPED)
            at++; /* never beyond the last: the JSON has no other entries */
        const sgz_index_place *old = &from->places[at++];
        places[i] = *old;
        status = move_name(from, old, toc, &toc->rows[i], &scratch, &cap, &places[i], err);
    }
    free(scratch);
    return status;
}

sgz_status sgz_index_settle(sgz_index *index, sgz_error *err)
{
    sgz_toc *toc = sgz_toc_new();
    sgz_index_place *places = NULL;
    if (!toc)
        return no_memory(err);
    sgz_status status = read_again(index, toc, err);
    if (!status && toc->count && !(places = calloc(toc->count, sizeof *places)))
        status = no_memory(err);
    if (!status)
        status = move_places(index, toc, places, err);
    if (status) {
        sgz_toc_free(toc);
        free(places);
        return status;
    }
    sgz_toc_free(index->toc);
    free(index->places);
    index->toc = toc;
    index->places = places;
    index->place_cap = toc->count;
    return SGZ_OK;
}
