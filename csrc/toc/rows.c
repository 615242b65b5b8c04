/* Tar entries to TOC rows: replacement by name, hard links, what is right at the end. */
#include "toc/rows_internal.h"

sgz_toc_rows *sgz_toc_rows_new(sgz_toc *toc)
{
    sgz_toc_rows *a = calloc(1, sizeof *a);
    if (a) {
        a->toc = a->place.toc = toc;
        a->last = SGZ_NO_ROW;
        a->raw_seed = sgz_toc_mix(toc->seed, 0xe7037ed1a0b428dbu);
    }
    return a;
}

void sgz_toc_rows_free(sgz_toc_rows *a)
{
    if (!a)
        return;
    free(a->links);
    free(a->bad);
    sgz_map_free(&a->bad_names);
    free(a->xattrs);
    sgz_map_free(&a->xattr_names);
    free(a->text);
    free(a->clean);
    free(a->joined);
    sgz_toc_place_free(&a->place);
    free(a);
}

void sgz_toc_rows_keep_bytes(sgz_toc_rows *a)
{
    a->keep_bytes = 1;
}

void sgz_toc_rows_leave_out(sgz_toc_rows *a)
{
    a->leave_out = 1;
}

/* --- replacement and hard links ------------------------------------------------------- */

static sgz_status reserve_links(sgz_toc_rows *a, sgz_error *err)
{
    size_t had = a->link_cap;
    if (!SGZ_FIT(a->links, a->link_cap, a->toc->cap))
        return sgz_toc_rows_no_memory(err);
    memset(a->links + had, 0, (a->link_cap - had) * sizeof *a->links);
    return SGZ_OK;
}

static void drop(sgz_toc *toc, uint32_t row)
{
    toc->rows[row].flags |= SGZ_DROPPED;
    while (++row < toc->count && sgz_toc_is_piece(&toc->rows[row]))
        toc->rows[row].flags |= SGZ_DROPPED;
}

/* The name of `row` now leads elsewhere. */
static sgz_status replaced(sgz_toc_rows *a, uint32_t row, sgz_error *err)
{
    sgz_toc *toc = a->toc;
    sgz_entry *entry = &toc->rows[row];
    uint32_t link = 0;
    if (entry->type == SGZ_HARDLINK || row >= a->link_cap) {
        drop(toc, row); /* a link stays in its target's chain until it is come across */
        return SGZ_OK;
    }
    do {
        link = a->links[row].next;
        if (link)
            a->links[row].next = a->links[link - 1].next;
    } while (link && toc->rows[link - 1].flags & SGZ_DROPPED);
    if (!link) {
        drop(toc, row);
        return SGZ_OK;
    }
    sgz_entry *heir = &toc->rows[link - 1];
    const uint8_t of_name = SGZ_BAD_UTF8 | SGZ_CLEAN_NAME;
    uint32_t previous;
    entry->name_off = heir->name_off;
    entry->name_len = heir->name_len;
    entry->clean_skip = heir->clean_skip;
    entry->clean_behind = heir->clean_behind;
    entry->clean_known = heir->clean_known;
    entry->clean_len = heir->clean_len;
    entry->flags = (uint8_t)((entry->flags & ~of_name) | (heir->flags & of_name));
    entry->flags |= SGZ_PINNED;
    heir->flags |= SGZ_DROPPED | SGZ_PINNED;
    return sgz_toc_index(toc, row, &previous, err);
}

/* No more than what is read again (toc/limits.h): the exact check is made when the JSON is there,
 * this one before memory is gone. */
static sgz_status check_room(sgz_toc_rows *a, const sgz_tar_entry *entry, const sgz_entry *row,
                             int64_t offset, sgz_error *err)
{
    a->json += 85 + row->name_len + row->link_len + row->xattr_len / 3 * 4;
    if (row->type == SGZ_REG)
        a->json += 88 + (row->size ? 120 : 0);
    if (a->json > SGZ_TOC_SIZE_MAX)
        return sgz_base_fail(err, SGZ_ETAR, offset, entry->name, entry->name_len,
                             "the TOC of the entries to here has more than %llu bytes, which is "
                             "the limit", (unsigned long long)SGZ_TOC_SIZE_MAX);
    sgz_toc_weight weight = {.rows = a->toc->count, .bytes = a->toc->arena_len,
                             .owners = a->toc->string_count, .implied = a->place.implied.count};
    if (!sgz_toc_fits(weight, a->json, 0))
        return sgz_base_fail(err, SGZ_ETAR, offset, entry->name, entry->name_len,
                             "the entries to here take more memory than one and a half times "
                             "their TOC and 50 MB, which is the limit");
    return SGZ_OK;
}

static uint8_t row_type(char type)
{
    switch (type) {
    case '0': case 'S': return SGZ_REG;
    case '1': return SGZ_HARDLINK;
    case '2': return SGZ_SYMLINK;
    case '3': return SGZ_CHAR;
    case '4': return SGZ_BLOCK;
    case '5': return SGZ_DIR;
    case '6': return SGZ_FIFO;
    default: return 0;
    }
}

sgz_status sgz_toc_rows_entry(sgz_toc_rows *a, const sgz_tar_entry *entry, int64_t offset,
                              uint32_t *number, sgz_error *err)
{
    sgz_toc *toc = a->toc;
    sgz_entry row = {0};
    sgz_status status;

    a->last = SGZ_NO_ROW;
    if (!(row.type = row_type(entry->type)))
        return sgz_base_fail(err, SGZ_ENOTOC, offset, entry->name, entry->name_len,
                             "a tar entry of a type that a TOC cannot hold");
    sgz_toc_bad bad;
    if ((status = sgz_toc_rows_texts(a, entry, &row, offset, &bad, err)))
        return status;
    row.size = row.type == SGZ_REG ? entry->size : 0;
    row.mtime = sgz_tar_time_fits(entry->mtime) ? entry->mtime : SGZ_NO_TIME;
    row.mode = entry->mode;
    row.uid = entry->uid;
    row.gid = entry->gid;
    row.dev_major = entry->dev_major;
    row.dev_minor = entry->dev_minor;
    uint32_t target = SGZ_NO_ROW, previous = SGZ_NO_ROW;
    if (!(row.flags & SGZ_DROPPED) &&
        (status = sgz_toc_rows_place(a, entry, &row, bad.name, offset, err)))
        return status;
    if (!(row.flags & SGZ_DROPPED) && row.type == SGZ_HARDLINK &&
        (status = sgz_toc_rows_target(a, entry, &row, bad.link, offset, &target, err)))
        return status;
    if (!(row.flags & SGZ_DROPPED) &&
        (status = sgz_toc_rows_previous(a, entry, &row, offset, &previous, err)))
        return status;
    if (row.flags & SGZ_DROPPED)
        target = previous = SGZ_NO_ROW;
    if (row.type == SGZ_DIR && previous != SGZ_NO_ROW && toc->rows[previous].type != SGZ_DIR) {
        a->made_anew = 1;
        if (sgz_toc_rows_has_dots(entry->name, entry->name_len, 0))
            sgz_base_note(&a->notes, SGZ_NOTE_BIT(DOTS), entry->name, entry->name_len);
    }
    if (target != SGZ_NO_ROW) {
        row.target = target;
        /* A name linked to the file that it has already: GNU tar leaves it alone. */
        if (previous != SGZ_NO_ROW && sgz_toc_resolve(toc, previous) == target) {
            row.flags |= SGZ_DROPPED;
            sgz_base_note(&a->notes, SGZ_NOTE_BIT(SAME_FILE), entry->name, entry->name_len);
        }
    }
    if ((status = check_room(a, entry, &row, offset, err)))
        return status;
    sgz_entry *added = sgz_toc_append(toc);
    if (!added)
        return sgz_toc_rows_no_memory(err);
    *added = row;
    *number = (uint32_t)(toc->count - 1);
    if (row.type == SGZ_REG)
        a->last = *number;
    if (row.flags & SGZ_DROPPED)
        return SGZ_OK;
    if ((target != SGZ_NO_ROW || a->links) && (status = reserve_links(a, err)))
        return status;
    if (target != SGZ_NO_ROW) {
        sgz_toc_link_chain *chain = &a->links[target];
        if (chain->next)
            a->links[chain->last - 1].next = *number + 1;
        else
            chain->next = *number + 1;
        chain->last = *number + 1;
    }
    if ((status = sgz_toc_index(toc, *number, &previous, err)))
        return status;
    if (previous == SGZ_NO_ROW)
        return SGZ_OK;
    sgz_toc_place_forget(&a->place);
    if (toc->rows[previous].type == SGZ_SYMLINK && toc->rows[previous].in_use)
        toc->rows[previous].flags |= SGZ_PINNED;
    status = replaced(a, previous, err);
    toc->rows[*number].flags |= toc->rows[previous].flags & SGZ_PINNED;
    return status;
}

sgz_status sgz_toc_rows_chunk(sgz_toc_rows *a, uint32_t *number, sgz_error *err)
{
    sgz_toc *toc = a->toc;
    if (a->last == SGZ_NO_ROW)
        return sgz_base_fail(err, SGZ_ETAR, -1, NULL, 0, "a chunk without its file");
    sgz_entry *row = sgz_toc_append(toc);
    if (!row)
        return sgz_toc_rows_no_memory(err);
    const sgz_entry *file = &toc->rows[a->last];
    a->json += 250 + file->name_len;
    row->type = SGZ_CHUNK;
    row->name_off = file->name_off;
    row->name_len = file->name_len;
    row->flags = file->flags & (SGZ_DROPPED | SGZ_CLEAN_NAME);
    *number = (uint32_t)(toc->count - 1);
    return SGZ_OK;
}

/* --- the end -------------------------------------------------------------------------- */

/* Whether a directory on the way to the place found was made anew since this row was read: the
 * row went with what was there before. */
static int is_gone(const sgz_toc_place *place, uint32_t number)
{
    const sgz_toc *toc = place->toc;
    for (size_t i = place->depth; i--;) {
        const sgz_toc_step *step = &place->steps[i];
        uint32_t row = sgz_toc_find(toc, step->hash, place->path, step->len);
        if (row != SGZ_NO_ROW && toc->rows[row].type == SGZ_DIR && toc->rows[row].since > number)
            return 1;
    }
    return 0;
}

/* A whiteout below what became a file or a symlink since: what it hides is hidden by that. */
static sgz_status place_whiteout(sgz_toc_rows *a, uint32_t number, sgz_error *err)
{
    sgz_toc *toc = a->toc;
    const sgz_entry *row = &toc->rows[number];
    const char *raw = toc->arena + row->name_off;
    size_t len;
    if (!SGZ_FIT(a->clean, a->clean_cap, row->name_len + (size_t)1))
        return sgz_toc_rows_no_memory(err);
    const char *name = sgz_toc_clean_name(raw, row->name_len, a->clean, &len);
    if (row->type == SGZ_DIR || !sgz_toc_is_whiteout(name, len))
        return SGZ_OK;
    sgz_toc_placed placed = sgz_toc_place_find(&a->place, name, sgz_toc_parent_len(name, len));
    int gone = placed != SGZ_PLACE_FOUND || a->place.followed ||
               (a->made_anew && is_gone(&a->place, number));
    if (!gone)
        placed = sgz_toc_place_enter(&a->place);
    else if (placed != SGZ_PLACE_NO_MEMORY) {
        sgz_base_note(&a->notes, SGZ_NOTE_BIT(NOT_BELOW), raw, row->name_len);
        a->lost = 1;
        return replaced(a, number, err); /* it may have been linked to */
    }
    return placed == SGZ_PLACE_NO_MEMORY ? sgz_toc_rows_no_memory(err) : SGZ_OK;
}

/* The link's name was taken by something else since: name the target itself. A name that was
 * linked later is not good either, since its link may lead here. */
static void retarget(const sgz_toc_rows *a, uint32_t number)
{
    sgz_toc *toc = a->toc;
    sgz_entry *row = &toc->rows[number];
    uint32_t found = a->lost ? SGZ_NO_ROW
                             : sgz_toc_lookup(toc, toc->arena + row->link_off, row->link_len);
    if (found == row->target)
        return;
    if (found < number && toc->rows[found].type == SGZ_HARDLINK &&
        toc->rows[found].target == row->target)
        return;
    const sgz_entry *target = &toc->rows[row->target];
    row->link_off = target->name_off;
    row->link_len = target->name_len;
}

void sgz_toc_rows_empty(sgz_toc_rows *a, uint32_t row)
{
    static const uint8_t sha256_of_nothing[32] = {
        0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9,
        0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52,
        0xb8, 0x55};
    memcpy(a->toc->rows[row].chunk_digest, sha256_of_nothing, 32);
    a->toc->rows[row].flags |= SGZ_HAS_DIGEST | SGZ_DIGEST_IS_CHUNK;
}

sgz_status sgz_toc_rows_finish(sgz_toc_rows *a, sgz_notes *notes, sgz_error *err)
{
    sgz_toc *toc = a->toc;
    const sgz_entry *file = NULL;
    for (size_t i = 0; i < toc->count; i++) {
        if (sgz_toc_is_piece(&toc->rows[i]) || toc->rows[i].flags & SGZ_DROPPED)
            continue;
        uint64_t name; /* an heir's may be a whiteout again */
        do {
            name = toc->rows[i].name_off;
            sgz_status status = place_whiteout(a, (uint32_t)i, err);
            if (status)
                return status;
        } while (!(toc->rows[i].flags & SGZ_DROPPED) && toc->rows[i].name_off != name);
    }
    for (size_t i = 0; i < toc->count; i++) {
        sgz_entry *row = &toc->rows[i];
        if (sgz_toc_is_piece(row) && file) { /* the file may have got another name */
            row->name_off = file->name_off;
            row->name_len = file->name_len;
            row->flags = (uint8_t)((row->flags & ~SGZ_CLEAN_NAME)
                                   | (file->flags & SGZ_CLEAN_NAME));
            continue;
        }
        file = row;
        if (row->flags & SGZ_DROPPED)
            continue;
        if (row->flags & SGZ_BAD_UTF8 && !a->keep_bytes)
            sgz_base_note(&a->notes, SGZ_NOTE_BIT(NAME), toc->arena + row->name_off,
                          row->name_len);
        if (row->type == SGZ_HARDLINK)
            retarget(a, (uint32_t)i);
    }
    toc->implied = a->place.implied.count;
    sgz_base_notes_add(notes, &a->notes);
    return SGZ_OK;
}

sgz_toc_weight sgz_toc_weigh(const sgz_toc *toc)
{
    sgz_toc_weight weight = {.implied = toc->implied};
    sgz_toc_id_map users = {.seed = toc->seed}, groups = {.seed = toc->seed};
    for (size_t i = 0; i < toc->count; i++) {
        const sgz_entry *row = &toc->rows[i];
        if (row->flags & SGZ_DROPPED)
            continue;
        weight.rows++;
        if (!sgz_toc_is_piece(row))
            weight.bytes += row->name_len + row->link_len + row->xattr_len;
        if (row->type == SGZ_REG)
            weight.bytes += 32; /* a digest of its own */
        if ((row->uname && !sgz_toc_id_map_put(&users, row->uid, row->uname)) ||
            (row->gname && !sgz_toc_id_map_put(&groups, row->gid, row->gname)))
            break; /* no memory, which others will say */
    }
    weight.owners = toc->string_count + users.map.used + groups.map.used;
    sgz_toc_id_map_free(&users);
    sgz_toc_id_map_free(&groups);
    return weight;
}

sgz_status sgz_toc_check_size(const sgz_toc *toc, uint64_t json, sgz_error *err)
{
    if (json > SGZ_TOC_SIZE_MAX)
        return sgz_base_fail(err, SGZ_ETAR, -1, NULL, 0,
                             "its TOC would have %llu bytes, more than the limit of %llu",
                             (unsigned long long)json, (unsigned long long)SGZ_TOC_SIZE_MAX);
    if (sgz_toc_fits(sgz_toc_weigh(toc), json, 0))
        return SGZ_OK;
    return sgz_base_fail(err, SGZ_ETAR, -1, NULL, 0,
                         "its TOC of %llu bytes would take more memory than one and a half times "
                         "that and 50 MB, which is the limit",
                         (unsigned long long)json);
}
