/* The texts of a tar entry, of which a TOC holds UTF-8 alone, into its row. */
#include "toc/rows_internal.h"

/* Different names of bad bytes (and links to such) that one TOC may hold. */
#define BAD_NAMES_MAX ((size_t)1 << 20)

/* --- UTF-8 ---------------------------------------------------------------------------- */

#define REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

int sgz_toc_rows_scan(const char *text, size_t len)
{
    size_t i = 0;
    int found = 0;
    for (; i + 8 <= len && !(sgz_load64(text + i) & 0x8080808080808080u); i += 8)
        ;
    while (i < len) {
        size_t n = sgz_utf8_len(text + i, len - i);
        if (!n)
            found |= SGZ_TOC_BAD_BYTES;
        else if (n == 3 && !memcmp(text + i, REPLACEMENT, 3))
            found |= SGZ_TOC_REPLACEMENT;
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

static sgz_status add_bad_path(sgz_toc_rows *a, sgz_toc_bad_path path, int *same, sgz_error *err)
{
    if (!sgz_map_reserve(&a->bad_names, 1))
        return sgz_toc_rows_no_memory(err);
    size_t at = sgz_map_first(&a->bad_names, path.shown);
    for (; sgz_map_taken(&a->bad_names, at); at = sgz_map_next(&a->bad_names, path.shown, at)) {
        const sgz_toc_bad_path *other = &a->bad[sgz_map_number(&a->bad_names, at)];
        if (other->shown != path.shown)
            continue;
        *same = other->raw == path.raw;
        return SGZ_OK;
    }
    if (!SGZ_PUSH(a->bad, a->bad_count, a->bad_cap, path))
        return sgz_toc_rows_no_memory(err);
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
        return sgz_toc_rows_no_memory(err);
    const char *path = sgz_toc_clean_name(raw, len, a->clean, &len);
    const char *end = path + len;
    uint64_t shown_hash = a->toc->seed, raw_hash = a->raw_seed;
    while (path < end && *same) {
        const char *slash = memchr(path, '/', (size_t)(end - path));
        size_t n = slash ? (size_t)(slash - path) : (size_t)(end - path);
        size_t shown_len = replace_bad(path, n, a->text);
        shown_hash = sgz_toc_hash_bytes(shown_hash, a->text, shown_len);
        raw_hash = sgz_toc_hash_bytes(raw_hash, path, n);
        if (sgz_toc_rows_scan(path, n)) {
            if (a->bad_count >= BAD_NAMES_MAX)
                return sgz_base_fail(err, SGZ_ETAR, -1, raw, len,
                                     "over %zu names are not UTF-8, which is the limit",
                                     BAD_NAMES_MAX);
            sgz_toc_bad_path found = {shown_hash, raw_hash};
            sgz_status status = add_bad_path(a, found, same, err);
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
        return sgz_toc_rows_no_memory(err);
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
    if (bad & SGZ_TOC_BAD_BYTES) {
        if (!SGZ_FIT(a->text, a->text_cap, 3 * len))
            return sgz_toc_rows_no_memory(err);
        len = replace_bad(text, len, a->text);
        text = a->text;
    }
    *at = sgz_toc_store(a->toc, text, len);
    *stored = (uint32_t)len;
    return *at == UINT64_MAX ? sgz_toc_rows_no_memory(err) : SGZ_OK;
}

static sgz_status store_user(sgz_toc_rows *a, const sgz_tar_entry *entry, const char *text,
                             size_t len, int64_t offset, uint32_t *number, sgz_error *err)
{
    if (!len)
        return SGZ_OK;
    if (len <= UINT16_MAX && !a->keep_bytes && sgz_toc_rows_scan(text, len) & SGZ_TOC_BAD_BYTES) {
        if (!SGZ_FIT(a->text, a->text_cap, 3 * len))
            return sgz_toc_rows_no_memory(err);
        len = replace_bad(text, len, a->text);
        text = a->text;
    }
    if (len > UINT16_MAX)
        return sgz_base_fail(err, SGZ_ETAR, offset, entry->name, entry->name_len,
                             "a user or group name over the limit of 64 KiB");
    *number = sgz_toc_intern(a->toc, text, len);
    return *number == SGZ_NO_ROW ? sgz_toc_rows_no_memory(err) : SGZ_OK;
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
        const sgz_toc_stored_xattrs *x = &a->xattrs[sgz_map_number(&a->xattr_names, at)];
        if (x->len == len && !memcmp(a->toc->arena + x->off, packed, len))
            return x->off;
    }
    sgz_toc_stored_xattrs stored = {sgz_toc_store(a->toc, packed, len), len};
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
        if (xattr->key_len > SGZ_XATTR_KEY_MAX)
            return sgz_base_fail(err, SGZ_ETAR, offset, entry->name, entry->name_len,
                                 "the name of an xattr has %u bytes, over the limit of %d",
                                 xattr->key_len, SGZ_XATTR_KEY_MAX);
        if (!sgz_is_utf8(xattr->key, xattr->key_len))
            return sgz_base_fail(err, SGZ_ENOTOC, offset, entry->name, entry->name_len,
                                 "the name of an xattr is not UTF-8, which a TOC cannot hold");
        total += sgz_xattrs_size(xattr->key_len, xattr->value_len);
    }
    if (entry->xattr_count > SGZ_XATTRS_MAX)
        return sgz_base_fail(err, SGZ_ETAR, offset, entry->name, entry->name_len,
                             "it has more than %d xattrs", SGZ_XATTRS_MAX);
    if (total > UINT32_MAX)
        return sgz_base_fail(err, SGZ_ETAR, offset, entry->name, entry->name_len,
                             "the xattrs of one entry are over 4 GiB");
    if (!SGZ_FIT(a->text, a->text_cap, total))
        return sgz_toc_rows_no_memory(err);
    char *out = a->text;
    for (size_t i = 0; i < entry->xattr_count; i++)
        out = sgz_xattrs_put(out, &entry->xattrs[i]);
    *stored = (uint32_t)total;
    *at = intern_xattrs(a, a->text, (uint32_t)total);
    return *at == UINT64_MAX ? sgz_toc_rows_no_memory(err) : SGZ_OK;
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

/* The same for a row that may be left out; what a symlink says is no name. */
static int fits(const sgz_tar_entry *entry, const sgz_entry *row)
{
    size_t base, link_base = 0, len = sgz_toc_path_len(entry->name, entry->name_len, &base);
    size_t link = row->type == SGZ_HARDLINK
                      ? sgz_toc_path_len(entry->link, entry->link_len, &link_base)
                      : entry->link_len;
    return len <= SGZ_TOC_PATH_MAX && base <= SGZ_TOC_BASE_MAX && link <= SGZ_TOC_PATH_MAX &&
           link_base <= SGZ_TOC_BASE_MAX;
}

sgz_status sgz_toc_rows_texts(sgz_toc_rows *a, const sgz_tar_entry *entry, sgz_entry *row,
                              int64_t offset, sgz_toc_bad *bad, sgz_error *err)
{
    const sgz_toc *toc = a->toc;
    sgz_status status;
    int same = 1;
    int is_link = row->type == SGZ_HARDLINK || row->type == SGZ_SYMLINK;
    int bad_name = bad->name = sgz_toc_rows_scan(entry->name, entry->name_len);
    int bad_link = bad->link = is_link ? sgz_toc_rows_scan(entry->link, entry->link_len) : 0;
    if ((bad_name | bad_link) & SGZ_TOC_BAD_BYTES)
        row->flags |= SGZ_BAD_UTF8;
    if (a->keep_bytes)
        bad_name = bad_link = bad->name = bad->link = 0;
    if (bad_name) {
        if ((status = note_path(a, entry->name, entry->name_len, &same, err)))
            return status;
        if (!same)
            return collision(entry->name, entry->name_len, "this name", offset, err);
    }
    if (bad_link || (row->type == SGZ_SYMLINK && bad_name)) {
        if ((status = note_target(a, entry, &same, err)))
            return status;
        if (!same)
            return collision(entry->name, entry->name_len, "the target of this link", offset,
                             err);
    }
    if ((status = store_text(a, entry->name, entry->name_len, bad_name, &row->name_off,
                             &row->name_len, err)))
        return status;
    if (is_link && (status = store_text(a, entry->link, entry->link_len, bad_link,
                                        &row->link_off, &row->link_len, err)))
        return status;
    if (a->leave_out && !fits(entry, row)) {
        sgz_toc_rows_left_out(a, entry, row, SGZ_NOTE_BIT(NO_PATH));
        return SGZ_OK;
    }
    if (!a->leave_out && ((status = check_length(entry, toc->arena + row->name_off, row->name_len,
                                                 "the name", offset, err))
        || (status = check_length(entry, toc->arena + row->link_off, row->link_len,
                                  "the link's target", offset, err))))
        return status;
    if (row->type == SGZ_SYMLINK && !row->link_len)
        return sgz_base_fail(err, SGZ_ENOTOC, offset, entry->name, entry->name_len,
                             "a symlink without a target, which no system can make");
    if ((status = store_user(a, entry, entry->uname, entry->uname_len, offset, &row->uname, err))
        || (status = store_user(a, entry, entry->gname, entry->gname_len, offset, &row->gname,
                                err))
        || (status = store_xattrs(a, entry, offset, &row->xattr_off, &row->xattr_len, err)))
        return status;
    return SGZ_OK;
}

/* --- names that layers have for themselves ------------------------------------------------ */

int sgz_toc_rows_marker(const char *name, size_t len)
{
    char scratch[4096]; /* more is no path of Linux */
    if (len > sizeof scratch)
        return 0;
    name = sgz_toc_clean_name(name, len, scratch, &len);
    const char *slash = len ? memchr(name, '/', len) : NULL;
    return sgz_toc_marker(name, slash ? (size_t)(slash - name) : len);
}

int sgz_toc_rows_is_own(const sgz_tar_entry *entry)
{
    /* sgz_tar_plain_header, as all writers of layers have it: no file of a user looks so. */
    int marker = sgz_toc_marker(entry->name, entry->name_len);
    return marker && entry->type == '0' && !entry->mode && !entry->uid && !entry->gid &&
        !entry->mtime && (marker == 2 || entry->size == 1);
}

unsigned sgz_toc_rows_marker_note(const sgz_tar_entry *entry, int marker)
{
    return sgz_toc_rows_is_own(entry) ? 0
         : marker == 2 ? SGZ_NOTE_BIT(TOC) : SGZ_NOTE_BIT(LANDMARK);
}

unsigned sgz_toc_rows_behind_note(const sgz_tar_stream *tar)
{
    const size_t len = strlen(SGZ_TOC_NAME);
    if (!tar->behind_len || (tar->behind_len >= len && !memcmp(tar->behind, SGZ_TOC_NAME, len)))
        return 0;
    return SGZ_NOTE_BIT(BEHIND);
}
