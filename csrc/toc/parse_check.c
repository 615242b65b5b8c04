#include "toc/parser.h"
#include "toc/place.h"

#define RESOLVING (SGZ_NO_ROW - 1)

static sgz_status fail_row(const sgz_toc *toc, const sgz_entry *row, sgz_error *err,
                           const char *what)
{
    return sgz_base_fail(err, SGZ_ETOC, -1, sgz_toc_entry_name(toc, row), row->name_len, "%s",
                         what);
}

/* Offsets ascend: so the last tells whether any is outside, and the first is named. */
static sgz_status check_offsets(sgz_toc_parser *parser, int64_t blob_end, sgz_error *err)
{
    const sgz_toc *toc = parser->toc;
    if (parser->data_row == SGZ_NO_ROW)
        return SGZ_OK;
    const sgz_entry *last = &toc->rows[parser->data_row];
    if (last->offset >= blob_end) {
        const sgz_entry *row = toc->rows;
        while (!row->chunk_size || row->offset < blob_end)
            row++;
        return sgz_base_fail(err, SGZ_ETOC, -1, sgz_toc_entry_name(toc, row), row->name_len,
                             "its offset %lld is not inside the %lld bytes before the TOC",
                             (long long)row->offset, (long long)blob_end);
    }
    if ((parser->data_end - 1) / SGZ_TOC_RATIO >= blob_end - last->offset)
        return sgz_base_fail(err, SGZ_ETOC, -1, sgz_toc_entry_name(toc, last), last->name_len,
                             "%lld bytes cannot come of the %lld before the TOC",
                             (long long)parser->data_end, (long long)(blob_end - last->offset));
    return SGZ_OK;
}

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to check the TOC");
}

/* Note the directories that the name implies, up to one that is noted already or (the first
 * `there` ancestors) has a row. */
static sgz_status note_implied(const sgz_toc_parser *parser, const sgz_entry *row,
                               const sgz_toc_above *ancestors, size_t there, sgz_toc_dirs *dirs,
                               sgz_error *err)
{
    const sgz_toc *toc = parser->toc;
    const char *name = sgz_toc_entry_name(toc, row);
    for (size_t i = ancestors->count; i-- > there;) {
        uint64_t hash = ancestors->list[i].hash;
        sgz_toc_dir dir = {row->name_off, ancestors->list[i].len};
        if (sgz_toc_dirs_have(dirs, toc, hash, name, dir.len))
            break;
        if (!sgz_toc_dirs_add(dirs, toc, hash, dir))
            return no_memory(err);
    }
    sgz_toc_weight weight = sgz_toc_parser_weight(parser);
    weight.implied = dirs->count;
    if (sgz_toc_fits(weight, parser->json_size, parser->chunked))
        return SGZ_OK;
    return fail_row(toc, row, err,
                    "the names to here imply too many directories: more memory than one and a "
                    "half times the TOC and 50 MB, which is the limit");
}

/* No ancestor of the name is anything but a directory. Only the nearest that has a row is
 * looked at: its own row is checked as well. */
static sgz_status check_parents(const sgz_toc_parser *parser, const sgz_entry *row,
                                size_t parent_len, sgz_toc_above *ancestors, sgz_toc_dirs *dirs,
                                sgz_error *err)
{
    const sgz_toc *toc = parser->toc;
    const char *name = sgz_toc_entry_name(toc, row);
    uint32_t found = sgz_toc_find(toc, sgz_toc_hash_name(toc->seed, name, parent_len), name,
                                  parent_len);
    if (found == SGZ_NO_ROW) {
        if (!sgz_toc_ancestors(toc, name, parent_len, ancestors))
            return no_memory(err);
        size_t there = ancestors->count;
        for (; there && found == SGZ_NO_ROW; there -= found == SGZ_NO_ROW)
            found = sgz_toc_find(toc, ancestors->list[there - 1].hash, name,
                                 ancestors->list[there - 1].len);
        sgz_status status = note_implied(parser, row, ancestors, there, dirs, err);
        if (status)
            return status;
    }
    if (found == SGZ_NO_ROW || toc->rows[found].type == SGZ_DIR)
        return SGZ_OK;
    return fail_row(toc, &toc->rows[found], err,
                    "it is no directory, but other entries are in it");
}

static uint32_t link_target(const sgz_toc *toc, const sgz_entry *row)
{
    return sgz_toc_lookup(toc, toc->arena + row->link_off, row->link_len);
}

static int is_open_link(const sgz_entry *row, uint64_t mark)
{
    return row->type == SGZ_HARDLINK && row->target == mark;
}

/* Follow a chain of links to its end and note that in each of them, so that a long chain
 * is walked once. */
static sgz_status resolve_link(sgz_toc *toc, uint32_t number, sgz_error *err)
{
    uint32_t at = number;
    while (is_open_link(&toc->rows[at], SGZ_NO_ROW)) {
        sgz_entry *row = &toc->rows[at];
        row->target = RESOLVING;
        at = link_target(toc, row);
        if (at == SGZ_NO_ROW)
            return fail_row(toc, row, err, "a hard link to a name that is not there");
    }
    if (is_open_link(&toc->rows[at], RESOLVING))
        return fail_row(toc, &toc->rows[number], err, "a hard link that leads back to itself");
    uint32_t end = sgz_toc_resolve(toc, at);
    if (toc->rows[end].type == SGZ_DIR)
        return fail_row(toc, &toc->rows[number], err, "a hard link to a directory");
    for (at = number; is_open_link(&toc->rows[at], RESOLVING);) {
        toc->rows[at].target = end;
        at = link_target(toc, &toc->rows[at]);
    }
    return SGZ_OK;
}

sgz_status sgz_toc_check(sgz_toc_parser *parser, int64_t blob_end, sgz_error *err)
{
    sgz_toc *toc = parser->toc;
    sgz_toc_parser_limit(parser, blob_end);
    if (toc->count > parser->max_rows)
        return sgz_base_fail(err, SGZ_ETOC, -1, NULL, 0,
                             "the TOC has %zu entries, more than a blob "
                             "of this size can hold",
                             toc->count);
    sgz_status status = check_offsets(parser, blob_end, err);
    if (!status)
        status = sgz_toc_index_all(toc, err);
    const char *last = NULL; /* the parent that was found good last */
    size_t last_len = 0;
    sgz_toc_above ancestors = {0};
    sgz_toc_dirs dirs = {0};
    for (size_t i = 0; i < toc->count && !status; i++) {
        const sgz_entry *row = &toc->rows[i];
        if (sgz_toc_is_piece(row) || row->flags & SGZ_DROPPED)
            continue;
        const char *name = sgz_toc_entry_name(toc, row);
        size_t len = sgz_toc_parent_len(name, row->name_len);
        if (!row->name_len && row->type != SGZ_DIR)
            status = fail_row(toc, row, err, "the root is no directory");
        else if (len && (!last || len != last_len || memcmp(name, last, len))) {
            status = check_parents(parser, row, len, &ancestors, &dirs, err);
            last = name;
            last_len = len;
        }
        if (!status && is_open_link(row, SGZ_NO_ROW))
            status = resolve_link(toc, (uint32_t)i, err);
    }
    toc->implied = dirs.count;
    sgz_toc_dirs_free(&dirs);
    free(ancestors.list);
    return status;
}
