/* Where an entry of a tar goes, and its hard link leads: see toc/place.h. */
#include "toc/rows_internal.h"

static const char *kind(int type)
{
    return type == SGZ_REG ? "file" : sgz_toc_type_name(type);
}

static sgz_status too_long(const sgz_tar_entry *entry, const char *what, int64_t offset,
                           sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ETAR, offset, entry->name, entry->name_len,
                         "%s leads to a path of more than %d bytes", what, SGZ_TOC_PATH_MAX);
}

/* Find the directory of a cleaned name. `what` the name is, for errors. */
static sgz_status find_dir(sgz_toc_rows *a, const sgz_tar_entry *entry, const char *name,
                           size_t len, const char *what, int64_t offset, sgz_toc_placed *found,
                           sgz_error *err)
{
    sgz_toc_place *place = &a->place;
    *found = sgz_toc_place_find(place, name, sgz_toc_parent_len(name, len));
    uint32_t row;
    switch (*found) {
    case SGZ_PLACE_FOUND:
        return SGZ_OK;
    case SGZ_PLACE_NO_MEMORY:
        return sgz_toc_rows_no_memory(err);
    case SGZ_PLACE_NO_DIR:
        row = sgz_toc_resolve(a->toc, sgz_toc_lookup(a->toc, place->path, place->len));
        return sgz_base_fail(err, SGZ_ENOTOC, offset, entry->name, entry->name_len,
                             "'%.*s' is used as a directory by %s, but is a %s",
                             place->len > 120 ? 120 : (int)place->len, place->path, what,
                             kind(a->toc->rows[row].type));
    case SGZ_PLACE_LOOP:
        return sgz_base_fail(err, SGZ_ENOTOC, offset, entry->name, entry->name_len,
                             "%s leads through more than %d symlinks of the tar", what,
                             SGZ_TOC_SYMLINKS_MAX);
    case SGZ_PLACE_TOO_LONG:
        break;
    }
    return too_long(entry, what, offset, err);
}

/* Whether it is the entry's fault. */
static int is_entrys(sgz_status status)
{
    return status == SGZ_ETAR || status == SGZ_ENOTOC;
}

/* A cleaned name whose directory was found behind symlinks: in the arena, as it is without. */
static sgz_status store_placed(sgz_toc_rows *a, const sgz_tar_entry *entry, sgz_entry *row,
                               const char *name, size_t len, int bad, int64_t offset, uint64_t *at,
                               uint32_t *stored, sgz_error *err)
{
    size_t parent = sgz_toc_parent_len(name, len), base = parent ? parent + 1 : 0;
    size_t dir = a->place.len, start = dir ? dir + 1 : 0, total = start + len - base;
    if (total > SGZ_TOC_PATH_MAX && sgz_toc_rows_left_out(a, entry, row, SGZ_NOTE_BIT(NO_PATH)))
        return SGZ_OK;
    if (total > SGZ_TOC_PATH_MAX)
        return too_long(entry, "this name", offset, err);
    if (!SGZ_FIT(a->joined, a->joined_cap, total))
        return sgz_toc_rows_no_memory(err);
    memcpy(a->joined, a->place.path, dir);
    if (dir)
        a->joined[dir] = '/';
    memcpy(a->joined + start, name + base, len - base);
    /* Which of the names that read like it is meant cannot be told behind a link. */
    if (bad || (!a->keep_bytes && sgz_toc_rows_scan(a->joined, total)))
        return sgz_base_fail(err, SGZ_ENOTOC, offset, entry->name, entry->name_len,
                             "a path through a symlink that is not UTF-8; rename it");
    if (!a->keep_bytes && sgz_toc_marker(a->joined, total))
        return sgz_base_fail(err, SGZ_ENOTOC, offset, entry->name, entry->name_len,
                             "a path through a symlink that leads to a name which a seekable "
                             "layer has for itself; rename it");
    sgz_base_note(&a->notes, SGZ_NOTE_BIT(BELOW_LINK), entry->name, entry->name_len);
    *at = sgz_toc_store(a->toc, a->joined, total);
    *stored = (uint32_t)total;
    return *at == UINT64_MAX ? sgz_toc_rows_no_memory(err) : SGZ_OK;
}

/* The row that a hard link ends at. */
sgz_status sgz_toc_rows_target(sgz_toc_rows *a, const sgz_tar_entry *entry, sgz_entry *row,
                               int bad, int64_t offset, uint32_t *target, sgz_error *err)
{
    const sgz_toc *toc = a->toc;
    size_t len;
    sgz_toc_placed placed;
    if (!SGZ_FIT(a->clean, a->clean_cap, row->link_len + (size_t)1))
        return sgz_toc_rows_no_memory(err);
    const char *link = sgz_toc_clean_name(toc->arena + row->link_off, row->link_len, a->clean,
                                          &len);
    sgz_status status = find_dir(a, entry, link, len, "the target of this hard link", offset,
                                 &placed, err);
    if (status && is_entrys(status) &&
        sgz_toc_rows_left_out(a, entry, row, SGZ_NOTE_BIT(NO_TARGET)))
        return SGZ_OK;
    if (!status && a->place.followed) {
        row->flags |= SGZ_PINNED;
        status = store_placed(a, entry, row, link, len, bad, offset, &row->link_off, &row->link_len,
                              err);
    }
    if (status || row->flags & SGZ_DROPPED)
        return status;
    link = toc->arena + row->link_off;
    uint32_t found = sgz_toc_lookup(toc, link, row->link_len);
    int shown = row->link_len > 150 ? 150 : (int)row->link_len;
    *target = found == SGZ_NO_ROW ? found : sgz_toc_resolve(toc, found);
    /* Who applies layers makes no file of a whiteout, so that it cannot be linked to. */
    int whiteout = sgz_toc_is_whiteout(link, row->link_len);
    if ((found == SGZ_NO_ROW || whiteout || toc->rows[*target].type == SGZ_DIR) &&
        sgz_toc_rows_left_out(a, entry, row, SGZ_NOTE_BIT(NO_TARGET)))
        return SGZ_OK;
    if (found == SGZ_NO_ROW)
        return sgz_base_fail(err, SGZ_ENOTOC, offset, entry->name, entry->name_len,
                             "hard link to '%.*s', which is not in the tar before it", shown,
                             link);
    if (whiteout)
        return sgz_base_fail(err, SGZ_ENOTOC, offset, entry->name, entry->name_len,
                             "hard link to '%.*s', which is a whiteout and no file", shown, link);
    if (toc->rows[*target].type == SGZ_DIR)
        return sgz_base_fail(err, SGZ_ENOTOC, offset, entry->name, entry->name_len,
                             "hard link to '%.*s', which is a directory", shown, link);
    return SGZ_OK;
}

/* Whether GNU tar extracts nothing of this name. */
int sgz_toc_rows_has_dots(const char *name, size_t len, int is_dir)
{
    while (len && name[len - 1] == '/')
        len--;
    for (size_t at = 0; at < len;) {
        const char *slash = memchr(name + at, '/', len - at);
        size_t n = slash ? (size_t)(slash - name) - at : len - at;
        if (n == 2 && name[at] == '.' && name[at + 1] == '.')
            return 1;
        if (n == 1 && name[at] == '.' && at + n == len && !is_dir)
            return 1;
        at += n + 1;
    }
    return 0;
}

/* The entry's name is that of the place where it goes; SGZ_DROPPED if that is nowhere. */
sgz_status sgz_toc_rows_place(sgz_toc_rows *a, const sgz_tar_entry *entry, sgz_entry *row,
                              int bad, int64_t offset, sgz_error *err)
{
    sgz_toc *toc = a->toc;
    size_t len;
    sgz_toc_placed placed;
    const char *name = toc->arena + row->name_off;
    if (!SGZ_FIT(a->clean, a->clean_cap, row->name_len + (size_t)1))
        return sgz_toc_rows_no_memory(err);
    const char *clean = sgz_toc_clean_name(name, row->name_len, a->clean, &len);
    if (!len && row->type != SGZ_DIR &&
        sgz_toc_rows_left_out(a, entry, row, SGZ_NOTE_BIT(OVER_DIR)))
        return SGZ_OK;
    if (clean == name && len == row->name_len)
        row->flags |= SGZ_CLEAN_NAME;
    else if (sgz_toc_rows_has_dots(name, row->name_len, row->type == SGZ_DIR))
        sgz_base_note(&a->notes, SGZ_NOTE_BIT(DOTS), entry->name, entry->name_len);
    if (!len)
        return row->type == SGZ_DIR
                   ? SGZ_OK
                   : sgz_base_fail(err, SGZ_ENOTOC, offset, entry->name, entry->name_len,
                                   "the root of the layer is not a directory");
    int whiteout = row->type != SGZ_DIR && sgz_toc_is_whiteout(clean, len);
    sgz_status status = find_dir(a, entry, clean, len, "this name", offset, &placed, err);
    if (placed == SGZ_PLACE_NO_DIR && whiteout) {
        row->flags |= SGZ_DROPPED;
        sgz_base_note(&a->notes, SGZ_NOTE_BIT(NOT_BELOW), entry->name, entry->name_len);
        return SGZ_OK;
    }
    if (status && is_entrys(status) &&
        sgz_toc_rows_left_out(a, entry, row,
                              placed == SGZ_PLACE_NO_DIR ? SGZ_NOTE_BIT(BELOW_FILE)
                                                         : SGZ_NOTE_BIT(NO_PATH)))
        return SGZ_OK;
    if (status)
        return status;
    if (a->place.followed) {
        row->flags |= SGZ_PINNED | SGZ_CLEAN_NAME;
        status = store_placed(a, entry, row, clean, len, bad, offset, &row->name_off, &row->name_len,
                              err);
    }
    if (!status && !whiteout && !(row->flags & SGZ_DROPPED) && sgz_toc_place_enter(&a->place))
        status = sgz_toc_rows_no_memory(err);
    return status;
}

/* What stands at the cleaned name of a row that is to be added, which may not take the place of
 * each. */
sgz_status sgz_toc_rows_previous(sgz_toc_rows *a, const sgz_tar_entry *entry, sgz_entry *row,
                                 int64_t offset, uint32_t *previous, sgz_error *err)
{
    sgz_toc *toc = a->toc;
    size_t len;
    if (!SGZ_FIT(a->clean, a->clean_cap, row->name_len + (size_t)1))
        return sgz_toc_rows_no_memory(err);
    const char *name = sgz_toc_clean_name(toc->arena + row->name_off, row->name_len, a->clean,
                                          &len);
    uint64_t hash = sgz_toc_hash_name(toc->seed, name, len);
    *previous = sgz_toc_find(toc, hash, name, len);
    int in_use = *previous == SGZ_NO_ROW
                     ? sgz_toc_place_implied(&a->place, hash, name, len)
                     : toc->rows[*previous].type == SGZ_DIR && toc->rows[*previous].in_use;
    if (row->type == SGZ_DIR) {
        row->in_use = (uint32_t)in_use;
        if (*previous != SGZ_NO_ROW)
            row->since = toc->rows[*previous].type == SGZ_DIR ? toc->rows[*previous].since
                                                              : (uint32_t)toc->count;
    } else if (in_use && !sgz_toc_rows_left_out(a, entry, row, SGZ_NOTE_BIT(OVER_DIR)))
        return sgz_base_fail(err, SGZ_ENOTOC, offset, entry->name, entry->name_len,
                             "a %s takes the place of a directory with entries, which some "
                             "tools keep and others remove; leave one of them out",
                             kind(row->type));
    return SGZ_OK;
}
