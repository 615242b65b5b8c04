/* Tar entries to TOC rows: replacement by name, hard links, names that are not UTF-8. */
#include "toc/rows.h"
#include "base/bytes.h"
#include "toc/place.h"

/* Different names of bad bytes (and links to such) that one TOC may hold. */
#define BAD_NAMES_MAX ((size_t)1 << 20)

/* Hard links by target. A target that is replaced while links to it are left lives on
 * under the first one's name; so each target needs its links in order. */
typedef struct {
    uint32_t next; /* of a target: its first link; of a link: the next one; row + 1, 0 none */
    uint32_t last; /* of a target: its last link */
} link_chain;

/* A cleaned path, up to a component with bad bytes: as the TOC shows it, as it was. */
typedef struct {
    uint64_t shown, raw;
} bad_path;

/* Packed xattrs in the arena: equal ones are stored once. */
typedef struct {
    uint64_t off;
    uint32_t len;
} stored_xattrs;

struct sgz_toc_rows {
    sgz_toc *toc;
    uint32_t last;        /* row of the file last added, for its chunks */
    link_chain *links;    /* one a row, from the first hard link on */
    size_t link_cap;
    bad_path *bad;
    size_t bad_count, bad_cap;
    sgz_map bad_names; /* by what is shown */
    uint64_t raw_seed;
    char *text;           /* scratch */
    size_t text_cap;
    char *clean;          /* scratch */
    size_t clean_cap;
    char *joined;         /* scratch */
    size_t joined_cap;
    sgz_toc_place place;  /* where the entry goes, and then, where its hard link leads */
    sgz_notes notes;
    int made_anew;        /* a directory took the place of something else */
    int lost;             /* whiteouts: the index has names that are nobody's */
    uint64_t json;        /* about what the rows so far take as JSON, rather less */
    stored_xattrs *xattrs;
    size_t xattr_count, xattr_cap;
    sgz_map xattr_names; /* by contents */
};

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

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the TOC");
}

/* --- UTF-8 ---------------------------------------------------------------------------- */

#define REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

enum { HAS_BAD_BYTES = 1, HAS_REPLACEMENT = 2 }; /* that itself may be in a good name */

static int scan_utf8(const char *text, size_t len)
{
    size_t i = 0;
    int found = 0;
    for (; i + 8 <= len && !(sgz_load64(text + i) & 0x8080808080808080u); i += 8)
        ;
    while (i < len) {
        size_t n = sgz_utf8_len(text + i, len - i);
        if (!n)
            found |= HAS_BAD_BYTES;
        else if (n == 3 && !memcmp(text + i, REPLACEMENT, 3))
            found |= HAS_REPLACEMENT;
        i += n ? n : 1;
    }
    return found;
}

/* Each bad byte becomes U+FFFD, as in Go's JSON; `out` has room for 3 * len. */
static size_t replace_bad(const char *text, size_t len, char *out)
{
    size_t used = 0;
    for (size_t i = 0; i < len;) {
        size_t n = sgz_utf8_len(text + i, len - i);
        memcpy(out + used, n ? text + i : REPLACEMENT, n ? n : 3);
        used += n ? n : 3;
        i += n ? n : 1;
    }
    return used;
}

static sgz_status add_bad_path(sgz_toc_rows *a, bad_path path, int *same, sgz_error *err)
{
    if (!sgz_map_reserve(&a->bad_names, 1))
        return no_memory(err);
    size_t at = sgz_map_first(&a->bad_names, path.shown);
    for (; sgz_map_taken(&a->bad_names, at); at = sgz_map_next(&a->bad_names, path.shown, at)) {
        const bad_path *other = &a->bad[sgz_map_number(&a->bad_names, at)];
        if (other->shown != path.shown)
            continue;
        *same = other->raw == path.raw;
        return SGZ_OK;
    }
    if (!SGZ_PUSH(a->bad, a->bad_count, a->bad_cap, path))
        return no_memory(err);
    sgz_map_put(&a->bad_names, at, path.shown, (uint32_t)a->bad_count - 1);
    return SGZ_OK;
}

/* Remember what a path with bad bytes (or U+FFFD) stands for. *same: nothing else that was
 * seen is shown as the same text, neither the path nor a directory on it. */
static sgz_status note_path(sgz_toc_rows *a, const char *raw, size_t len, int *same,
                            sgz_error *err)
{
    *same = 1;
    if (!SGZ_FIT(a->clean, a->clean_cap, len + 1) || !SGZ_FIT(a->text, a->text_cap, 3 * len))
        return no_memory(err);
    const char *path = sgz_toc_clean_name(raw, len, a->clean, &len);
    const char *end = path + len;
    uint64_t shown_hash = a->toc->seed, raw_hash = a->raw_seed;
    while (path < end && *same) {
        const char *slash = memchr(path, '/', (size_t)(end - path));
        size_t n = slash ? (size_t)(slash - path) : (size_t)(end - path);
        size_t shown_len = replace_bad(path, n, a->text);
        shown_hash = sgz_toc_hash_bytes(shown_hash, a->text, shown_len);
        raw_hash = sgz_toc_hash_bytes(raw_hash, path, n);
        if (scan_utf8(path, n)) {
            if (a->bad_count >= BAD_NAMES_MAX)
                return sgz_base_fail(err, SGZ_ETAR, -1, raw, len,
                                     "over %zu names are not UTF-8, which is the limit",
                                     BAD_NAMES_MAX);
            sgz_status status = add_bad_path(a, (bad_path){shown_hash, raw_hash}, same, err);
            if (status)
                return status;
        }
        path += n + 1;
    }
    return SGZ_OK;
}

static sgz_status collision(const char *name, size_t len, const char *what, int64_t offset,
                            sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOTOC, offset, name, len,
                         "%s is not UTF-8 and reads like another name once its bad bytes are "
                         "replaced; rename one of them",
                         what);
}

/* A link's target: of a symlink relative to the link's directory. */
static sgz_status note_target(sgz_toc_rows *a, const sgz_tar_entry *entry, int *same,
                              sgz_error *err)
{
    if (entry->type == '1' || entry->link[0] == '/')
        return note_path(a, entry->link, entry->link_len, same, err);
    size_t parent = entry->name_len;
    while (parent && entry->name[parent - 1] == '/')
        parent--;
    parent = sgz_toc_parent_len(entry->name, parent);
    char *joined = malloc(parent + 1 + entry->link_len);
    if (!joined)
        return no_memory(err);
    memcpy(joined, entry->name, parent);
    joined[parent] = '/';
    memcpy(joined + parent + 1, entry->link, entry->link_len);
    sgz_status status = note_path(a, joined, parent + 1 + entry->link_len, same, err);
    free(joined);
    return status;
}

/* --- strings of a row ----------------------------------------------------------------- */

static sgz_status store_text(sgz_toc_rows *a, const char *text, size_t len, int bad,
                             uint64_t *at, uint32_t *stored, sgz_error *err)
{
    if (bad & HAS_BAD_BYTES) {
        if (!SGZ_FIT(a->text, a->text_cap, 3 * len))
            return no_memory(err);
        len = replace_bad(text, len, a->text);
        text = a->text;
    }
    *at = sgz_toc_store(a->toc, text, len);
    *stored = (uint32_t)len;
    return *at == UINT64_MAX ? no_memory(err) : SGZ_OK;
}

static sgz_status store_user(sgz_toc_rows *a, const sgz_tar_entry *entry, const char *text,
                             size_t len, int64_t offset, uint32_t *number, sgz_error *err)
{
    if (!len)
        return SGZ_OK;
    if (len <= UINT16_MAX && scan_utf8(text, len) & HAS_BAD_BYTES) {
        if (!SGZ_FIT(a->text, a->text_cap, 3 * len))
            return no_memory(err);
        len = replace_bad(text, len, a->text);
        text = a->text;
    }
    if (len > UINT16_MAX)
        return sgz_base_fail(err, SGZ_ETAR, offset, entry->name, entry->name_len,
                             "a user or group name over the limit of 64 KiB");
    *number = sgz_toc_intern(a->toc, text, len);
    return *number == SGZ_NO_ROW ? no_memory(err) : SGZ_OK;
}

/* Few xattrs differ (one label for all), and a global header would otherwise cost its size
 * for every entry. UINT64_MAX: no memory. */
static uint64_t intern_xattrs(sgz_toc_rows *a, const char *packed, uint32_t len)
{
    if (!sgz_map_reserve(&a->xattr_names, 1))
        return UINT64_MAX;
    uint64_t hash = sgz_toc_hash_bytes(a->toc->seed, packed, len);
    size_t at = sgz_map_first(&a->xattr_names, hash);
    for (; sgz_map_taken(&a->xattr_names, at); at = sgz_map_next(&a->xattr_names, hash, at)) {
        const stored_xattrs *x = &a->xattrs[sgz_map_number(&a->xattr_names, at)];
        if (x->len == len && !memcmp(a->toc->arena + x->off, packed, len))
            return x->off;
    }
    stored_xattrs stored = {sgz_toc_store(a->toc, packed, len), len};
    if (stored.off == UINT64_MAX || !SGZ_PUSH(a->xattrs, a->xattr_count, a->xattr_cap, stored))
        return UINT64_MAX;
    sgz_map_put(&a->xattr_names, at, hash, (uint32_t)a->xattr_count - 1);
    return stored.off;
}

static sgz_status store_xattrs(sgz_toc_rows *a, const sgz_tar_entry *entry, int64_t offset,
                               uint64_t *at, uint32_t *stored, sgz_error *err)
{
    size_t total = 0;
    if (!entry->xattr_count)
        return SGZ_OK;
    for (size_t i = 0; i < entry->xattr_count; i++) {
        const sgz_xattr *xattr = &entry->xattrs[i];
        if (xattr->key_len > SGZ_TOC_XATTR_KEY_MAX)
            return sgz_base_fail(err, SGZ_ETAR, offset, entry->name, entry->name_len,
                                 "the name of an xattr has %u bytes, over the limit of %d",
                                 xattr->key_len, SGZ_TOC_XATTR_KEY_MAX);
        if (!sgz_is_utf8(xattr->key, xattr->key_len))
            return sgz_base_fail(err, SGZ_ENOTOC, offset, entry->name, entry->name_len,
                                 "the name of an xattr is not UTF-8, which a TOC cannot hold");
        total += sgz_xattrs_size(xattr->key_len, xattr->value_len);
    }
    if (entry->xattr_count > SGZ_TOC_XATTRS_MAX)
        return sgz_base_fail(err, SGZ_ETAR, offset, entry->name, entry->name_len,
                             "it has more than %d xattrs", SGZ_TOC_XATTRS_MAX);
    if (total > UINT32_MAX)
        return sgz_base_fail(err, SGZ_ETAR, offset, entry->name, entry->name_len,
                             "the xattrs of one entry are over 4 GiB");
    if (!SGZ_FIT(a->text, a->text_cap, total))
        return no_memory(err);
    char *out = a->text;
    for (size_t i = 0; i < entry->xattr_count; i++)
        out = sgz_xattrs_put(out, &entry->xattrs[i]);
    *stored = (uint32_t)total;
    *at = intern_xattrs(a, a->text, (uint32_t)total);
    return *at == UINT64_MAX ? no_memory(err) : SGZ_OK;
}

/* --- replacement and hard links ------------------------------------------------------- */

static sgz_status reserve_links(sgz_toc_rows *a, sgz_error *err)
{
    size_t had = a->link_cap;
    if (!SGZ_FIT(a->links, a->link_cap, a->toc->cap))
        return no_memory(err);
    memset(a->links + had, 0, (a->link_cap - had) * sizeof *a->links);
    return SGZ_OK;
}

static void drop(sgz_toc *toc, uint32_t row)
{
    toc->rows[row].flags |= SGZ_DROPPED;
    while (++row < toc->count && toc->rows[row].type == SGZ_CHUNK)
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

/* What Linux can extract: see toc/limits.h. */
static sgz_status check_length(const sgz_tar_entry *entry, const char *text, size_t len,
                               const char *what, int64_t offset, sgz_error *err)
{
    size_t base;
    len = sgz_toc_path_len(text, len, &base);
    if (len > SGZ_TOC_PATH_MAX)
        return sgz_base_fail(err, SGZ_ETAR, offset, entry->name, entry->name_len,
                             "%s has %zu bytes, over the limit of %d", what, len,
                             SGZ_TOC_PATH_MAX);
    if (base > SGZ_TOC_BASE_MAX)
        return sgz_base_fail(err, SGZ_ETAR, offset, entry->name, entry->name_len,
                             "%s has a component of %zu bytes, over the limit of %d", what, base,
                             SGZ_TOC_BASE_MAX);
    return SGZ_OK;
}

/* --- where entries go ------------------------------------------------------------------ */

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
        return no_memory(err);
    case SGZ_PLACE_NO_DIR:
        row = sgz_toc_resolve(a->toc, sgz_toc_lookup(a->toc, place->path, place->len));
        return sgz_base_fail(err, SGZ_ENOTOC, offset, entry->name, entry->name_len,
                             "'%.*s' is used as a directory by %s, but is a %s",
                             place->len > 120 ? 120 : (int)place->len, place->path, what,
                             sgz_toc_type_name(a->toc->rows[row].type));
    case SGZ_PLACE_LOOP:
        return sgz_base_fail(err, SGZ_ENOTOC, offset, entry->name, entry->name_len,
                             "%s leads through more than %d symlinks of the tar", what,
                             SGZ_TOC_SYMLINKS_MAX);
    case SGZ_PLACE_TOO_LONG:
        break;
    }
    return too_long(entry, what, offset, err);
}

/* A cleaned name whose directory was found behind symlinks: in the arena, as it is without. */
static sgz_status store_placed(sgz_toc_rows *a, const sgz_tar_entry *entry, const char *name,
                               size_t len, int bad, int64_t offset, uint64_t *at,
                               uint32_t *stored, sgz_error *err)
{
    size_t parent = sgz_toc_parent_len(name, len), base = parent ? parent + 1 : 0;
    size_t dir = a->place.len, start = dir ? dir + 1 : 0, total = start + len - base;
    if (total > SGZ_TOC_PATH_MAX)
        return too_long(entry, "this name", offset, err);
    if (!SGZ_FIT(a->joined, a->joined_cap, total))
        return no_memory(err);
    memcpy(a->joined, a->place.path, dir);
    if (dir)
        a->joined[dir] = '/';
    memcpy(a->joined + start, name + base, len - base);
    /* Which of the names that read like it is meant cannot be told behind a link. */
    if (bad || scan_utf8(a->joined, total))
        return sgz_base_fail(err, SGZ_ENOTOC, offset, entry->name, entry->name_len,
                             "a path through a symlink that is not UTF-8; rename it");
    if (sgz_toc_marker(a->joined, total))
        return sgz_base_fail(err, SGZ_ENOTOC, offset, entry->name, entry->name_len,
                             "a path through a symlink that leads to a name which a seekable "
                             "layer has for itself; rename it");
    *at = sgz_toc_store(a->toc, a->joined, total);
    *stored = (uint32_t)total;
    return *at == UINT64_MAX ? no_memory(err) : SGZ_OK;
}

/* The row that a hard link ends at. */
static sgz_status find_target(sgz_toc_rows *a, const sgz_tar_entry *entry, sgz_entry *row,
                              int bad, int64_t offset, uint32_t *target, sgz_error *err)
{
    const sgz_toc *toc = a->toc;
    size_t len;
    sgz_toc_placed placed;
    if (!SGZ_FIT(a->clean, a->clean_cap, row->link_len + (size_t)1))
        return no_memory(err);
    const char *link = sgz_toc_clean_name(toc->arena + row->link_off, row->link_len, a->clean,
                                          &len);
    sgz_status status = find_dir(a, entry, link, len, "the target of this hard link", offset,
                                 &placed, err);
    if (!status && a->place.followed) {
        sgz_base_note(&a->notes, SGZ_NOTE_BIT(BELOW_LINK), entry->name, entry->name_len);
        row->flags |= SGZ_PINNED;
        status = store_placed(a, entry, link, len, bad, offset, &row->link_off, &row->link_len,
                              err);
    }
    if (status)
        return status;
    link = toc->arena + row->link_off;
    uint32_t found = sgz_toc_lookup(toc, link, row->link_len);
    int shown = row->link_len > 150 ? 150 : (int)row->link_len;
    if (found == SGZ_NO_ROW)
        return sgz_base_fail(err, SGZ_ENOTOC, offset, entry->name, entry->name_len,
                             "hard link to '%.*s', which is not in the tar before it", shown,
                             link);
    *target = sgz_toc_resolve(toc, found);
    if (toc->rows[*target].type == SGZ_DIR)
        return sgz_base_fail(err, SGZ_ENOTOC, offset, entry->name, entry->name_len,
                             "hard link to '%.*s', which is a directory", shown, link);
    return SGZ_OK;
}

/* Whether GNU tar extracts nothing of this name. */
static int has_dots(const char *name, size_t len, int is_dir)
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
static sgz_status place_row(sgz_toc_rows *a, const sgz_tar_entry *entry, sgz_entry *row, int bad,
                            int64_t offset, sgz_error *err)
{
    sgz_toc *toc = a->toc;
    size_t len;
    sgz_toc_placed placed;
    const char *name = toc->arena + row->name_off;
    if (!SGZ_FIT(a->clean, a->clean_cap, row->name_len + (size_t)1))
        return no_memory(err);
    const char *clean = sgz_toc_clean_name(name, row->name_len, a->clean, &len);
    if (clean == name && len == row->name_len)
        row->flags |= SGZ_CLEAN_NAME;
    else if (has_dots(name, row->name_len, row->type == SGZ_DIR))
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
    if (status)
        return status;
    if (a->place.followed) {
        sgz_base_note(&a->notes, SGZ_NOTE_BIT(BELOW_LINK), entry->name, entry->name_len);
        row->flags |= SGZ_PINNED | SGZ_CLEAN_NAME;
        status = store_placed(a, entry, clean, len, bad, offset, &row->name_off, &row->name_len,
                              err);
    }
    if (!status && !whiteout && sgz_toc_place_enter(&a->place))
        status = no_memory(err);
    return status;
}

/* What stands at the cleaned name of a row that is to be added, which may not take the place of
 * each. */
static sgz_status see_previous(sgz_toc_rows *a, const sgz_tar_entry *entry, sgz_entry *row,
                               int64_t offset, uint32_t *previous, sgz_error *err)
{
    sgz_toc *toc = a->toc;
    size_t len;
    if (!SGZ_FIT(a->clean, a->clean_cap, row->name_len + (size_t)1))
        return no_memory(err);
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
    } else if (in_use)
        return sgz_base_fail(err, SGZ_ENOTOC, offset, entry->name, entry->name_len,
                             "a %s takes the place of a directory with entries, of which some "
                             "tools keep the one, some the other",
                             sgz_toc_type_name(row->type));
    return SGZ_OK;
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
    if (!sgz_toc_fits(weight, a->json))
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
    int same = 1;

    a->last = SGZ_NO_ROW;
    if (!(row.type = row_type(entry->type)))
        return sgz_base_fail(err, SGZ_ENOTOC, offset, entry->name, entry->name_len,
                             "a tar entry of a type that a TOC cannot hold");
    int is_link = row.type == SGZ_HARDLINK || row.type == SGZ_SYMLINK;
    int bad_name = scan_utf8(entry->name, entry->name_len);
    int bad_link = is_link ? scan_utf8(entry->link, entry->link_len) : 0;
    if (bad_name) {
        if ((status = note_path(a, entry->name, entry->name_len, &same, err)))
            return status;
        if (!same)
            return collision(entry->name, entry->name_len, "this name", offset, err);
    }
    if (bad_link || (row.type == SGZ_SYMLINK && bad_name)) {
        if ((status = note_target(a, entry, &same, err)))
            return status;
        if (!same)
            return collision(entry->name, entry->name_len, "the target of this link", offset,
                             err);
    }
    if ((bad_name | bad_link) & HAS_BAD_BYTES)
        row.flags |= SGZ_BAD_UTF8;

    row.size = row.type == SGZ_REG ? entry->size : 0;
    row.mtime = entry->mtime < SGZ_TAR_TIME_MIN || entry->mtime > SGZ_TAR_TIME_MAX
                    ? SGZ_NO_TIME : entry->mtime;
    row.mode = entry->mode;
    row.uid = entry->uid;
    row.gid = entry->gid;
    row.dev_major = entry->dev_major;
    row.dev_minor = entry->dev_minor;
    if ((status = store_text(a, entry->name, entry->name_len, bad_name, &row.name_off,
                             &row.name_len, err)))
        return status;
    if (is_link && (status = store_text(a, entry->link, entry->link_len, bad_link,
                                        &row.link_off, &row.link_len, err)))
        return status;
    if ((status = check_length(entry, toc->arena + row.name_off, row.name_len, "the name", offset,
                               err)) ||
        (status = check_length(entry, toc->arena + row.link_off, row.link_len,
                               "the link's target", offset, err)))
        return status;
    if (row.type == SGZ_SYMLINK && !row.link_len)
        return sgz_base_fail(err, SGZ_ENOTOC, offset, entry->name, entry->name_len,
                             "a symlink without a target, which no system can make");
    if ((status = store_user(a, entry, entry->uname, entry->uname_len, offset, &row.uname, err))
        || (status = store_user(a, entry, entry->gname, entry->gname_len, offset, &row.gname,
                                err))
        || (status = store_xattrs(a, entry, offset, &row.xattr_off, &row.xattr_len, err)))
        return status;

    uint32_t target = SGZ_NO_ROW, previous = SGZ_NO_ROW;
    if ((status = place_row(a, entry, &row, bad_name, offset, err)))
        return status;
    if (!(row.flags & SGZ_DROPPED)) {
        if (row.type == SGZ_HARDLINK &&
            (status = find_target(a, entry, &row, bad_link, offset, &target, err)))
            return status;
        if ((status = see_previous(a, entry, &row, offset, &previous, err)))
            return status;
    }
    if (row.type == SGZ_DIR && previous != SGZ_NO_ROW && toc->rows[previous].type != SGZ_DIR) {
        a->made_anew = 1;
        if (has_dots(entry->name, entry->name_len, 0))
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
        return no_memory(err);
    *added = row;
    *number = (uint32_t)(toc->count - 1);
    if (row.type == SGZ_REG)
        a->last = *number;
    if (row.flags & SGZ_DROPPED)
        return SGZ_OK;
    if ((target != SGZ_NO_ROW || a->links) && (status = reserve_links(a, err)))
        return status;
    if (target != SGZ_NO_ROW) {
        link_chain *chain = &a->links[target];
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
        return no_memory(err);
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

/* Whether a directory on the way to the place found was made anew since this row was read: the row
 * went with what was there before. *gone is the answer; 0: no memory. */
static int find_gone(sgz_toc_place *place, uint32_t number, int *gone)
{
    const sgz_toc *toc = place->toc;
    *gone = 0;
    if (!sgz_toc_ancestors(toc, place->path, place->len, &place->above))
        return 0;
    for (size_t i = place->above.count; i-- && !*gone;) {
        uint32_t row = sgz_toc_find(toc, place->above.list[i].hash, place->path,
                                    place->above.list[i].len);
        *gone = row != SGZ_NO_ROW && toc->rows[row].type == SGZ_DIR
             && toc->rows[row].since > number;
    }
    return 1;
}

/* A whiteout below what became a file or a symlink since: what it hides is hidden by that. */
static sgz_status place_whiteout(sgz_toc_rows *a, uint32_t number, sgz_error *err)
{
    sgz_toc *toc = a->toc;
    const sgz_entry *row = &toc->rows[number];
    const char *raw = toc->arena + row->name_off;
    size_t len;
    if (!SGZ_FIT(a->clean, a->clean_cap, row->name_len + (size_t)1))
        return no_memory(err);
    const char *name = sgz_toc_clean_name(raw, row->name_len, a->clean, &len);
    if (row->type == SGZ_DIR || !sgz_toc_is_whiteout(name, len))
        return SGZ_OK;
    sgz_toc_placed placed = sgz_toc_place_find(&a->place, name, sgz_toc_parent_len(name, len));
    int gone = placed != SGZ_PLACE_FOUND || a->place.followed;
    if (!gone && a->made_anew && !find_gone(&a->place, number, &gone))
        placed = SGZ_PLACE_NO_MEMORY;
    if (!gone && placed == SGZ_PLACE_FOUND)
        placed = sgz_toc_place_enter(&a->place);
    else if (placed != SGZ_PLACE_NO_MEMORY) {
        sgz_base_note(&a->notes, SGZ_NOTE_BIT(NOT_BELOW), raw, row->name_len);
        a->lost = 1;
        return replaced(a, number, err); /* it may have been linked to */
    }
    return placed == SGZ_PLACE_NO_MEMORY ? no_memory(err) : SGZ_OK;
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
        if (toc->rows[i].type == SGZ_CHUNK || toc->rows[i].flags & SGZ_DROPPED)
            continue;
        sgz_status status = place_whiteout(a, (uint32_t)i, err);
        if (status)
            return status;
    }
    for (size_t i = 0; i < toc->count; i++) {
        sgz_entry *row = &toc->rows[i];
        if (row->type == SGZ_CHUNK && file) { /* the file may have got another name */
            row->name_off = file->name_off;
            row->name_len = file->name_len;
            row->flags = (uint8_t)((row->flags & ~SGZ_CLEAN_NAME)
                                   | (file->flags & SGZ_CLEAN_NAME));
            continue;
        }
        file = row;
        if (row->flags & SGZ_DROPPED)
            continue;
        if (row->flags & SGZ_BAD_UTF8)
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
        if (row->type != SGZ_CHUNK)
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
