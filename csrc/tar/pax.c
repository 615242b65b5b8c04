/* PAX records. */
#include "tar/internal.h"

#include "base/bytes.h"

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for tar headers");
}

int sgz_tar_parse_time(const char *text, size_t len, int64_t *seconds, uint32_t *nsec)
{
    const char *dot = memchr(text, '.', len);
    size_t whole = dot ? (size_t)(dot - text) : len;
    if (sgz_tar_decimal(text, whole, seconds))
        return -1;
    uint32_t fraction = 0, scale = 100000000;
    for (size_t i = whole + 1; i < len; i++) {
        unsigned digit = (unsigned char)text[i] - '0';
        if (digit > 9)
            return -1;
        fraction += digit * scale;
        scale /= 10;
    }
    if (text[0] == '-' && fraction && *seconds > INT64_MIN) {
        *seconds -= 1;
        fraction = 1000000000 - fraction;
    }
    *nsec = *seconds < INT64_MAX ? fraction : 0; /* the rounded one is to be a number, too */
    return 0;
}

void sgz_tar_reset_records(sgz_tar_parser *p)
{
    p->local.set = p->local.reset = 0;
    p->xattr_count = 0;
    p->run_count = 0;
    if (p->sparse.seen || !p->sparse.major) { /* the second: never initialised */
        memset(&p->sparse, 0, sizeof p->sparse);
        p->sparse.major = p->sparse.minor = -1;
        p->sparse.size = p->sparse.real_size = p->sparse.blocks = -1;
    }
}

/* --- xattrs --------------------------------------------------------------------------- */

static int compare_keys(const sgz_xattr *a, const sgz_xattr *b)
{
    return sgz_compare(a->key, a->key_len, b->key, b->key_len);
}

size_t sgz_tar_unescape(char *name, size_t len)
{
    size_t used = 0;
    for (size_t i = 0; i < len; i++) {
        int whole = len - i > 2 && name[i] == '%';
        if (whole && name[i + 1] == '2' && name[i + 2] == '5')
            name[used++] = '%', i += 2;
        else if (whole && name[i + 1] == '3' && name[i + 2] == 'D')
            name[used++] = '=', i += 2;
        else
            name[used++] = name[i];
    }
    return used;
}

static char *copy_text(const char *text, size_t len)
{
    char *copy = malloc(len + 1);
    if (copy) {
        memcpy(copy, text, len);
        copy[len] = '\0';
    }
    return copy;
}

/* Into the sorted list of global xattrs, over one of the same key. */
static sgz_status add_global_xattr(sgz_tar_parser *p, const sgz_xattr *xattr, sgz_error *err)
{
    size_t low = 0, high = p->global_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (compare_keys(&p->globals[middle], xattr) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    sgz_xattr item = *xattr;
    size_t cost = sizeof item + item.key_len + item.value_len;
    int same = low < p->global_count && !compare_keys(&p->globals[low], xattr);
    if (same)
        p->global_bytes -= sizeof item + p->globals[low].key_len + p->globals[low].value_len;
    if (cost > TAR_GLOBAL_MAX - p->global_bytes)
        return sgz_base_fail(err, SGZ_ETAR, p->body_at, NULL, 0,
                             "PAX global headers hold over %d KiB of xattrs, which is the limit",
                             TAR_GLOBAL_MAX >> 10);
    char *text = malloc(item.key_len + (size_t)item.value_len + 1);
    if (!text)
        return no_memory(err);
    memcpy(text, item.key, item.key_len);
    memcpy(text + item.key_len, item.value, item.value_len);
    item.key = text;
    item.value = text + item.key_len;
    if (same) {
        free((char *)p->globals[low].key);
    } else {
        if (!SGZ_FIT(p->globals, p->global_cap, p->global_count + 1)) {
            free(text);
            return no_memory(err);
        }
        memmove(p->globals + low + 1, p->globals + low,
                (p->global_count - low) * sizeof item);
        p->global_count++;
    }
    p->globals[low] = item;
    p->global_bytes += cost;
    return SGZ_OK;
}

sgz_status sgz_tar_merge_xattrs(sgz_tar_parser *p, sgz_tar_entry *entry, sgz_error *err)
{
    entry->xattrs = p->xattrs;
    entry->xattr_count = p->xattr_count;
    if (!p->global_count)
        return SGZ_OK;
    if (!SGZ_FIT(p->merged, p->merged_cap, p->xattr_count + p->global_count))
        return no_memory(err);
    size_t i = 0, k = 0, count = 0;
    while (i < p->xattr_count || k < p->global_count) {
        int order = i == p->xattr_count ? 1
                  : k == p->global_count ? -1
                  : compare_keys(&p->xattrs[i], &p->globals[k]);
        if (order > 0)
            entry->notes |= SGZ_NOTE_BIT(GLOBAL);
        else if (order == 0)
            k++;
        p->merged[count++] = order <= 0 ? p->xattrs[i++] : p->globals[k++];
    }
    entry->xattrs = p->merged;
    entry->xattr_count = count;
    return SGZ_OK;
}

/* --- records -------------------------------------------------------------------------- */

static sgz_status bad_record(sgz_tar_parser *p, const char *key, size_t len, const char *what,
                             sgz_error *err)
{
    const char *name = p->local.set & TAR_F_PATH ? p->local.path.text : NULL;
    return sgz_base_fail(err, SGZ_ETAR, p->body_at, name, name ? p->local.path.len : 0,
                         "PAX record '%.*s' %s", len > 80 ? 80 : (int)len, key, what);
}

sgz_status sgz_tar_add_run(sgz_tar_parser *p, int64_t offset, int64_t len, sgz_error *err)
{
    sgz_tar_run run = {offset, len};
    return SGZ_PUSH(p->runs, p->run_count, p->run_cap, run) ? SGZ_OK : no_memory(err);
}

static sgz_status sparse_record(sgz_tar_parser *p, const char *key, size_t key_len,
                                const char *value, size_t len, sgz_error *err)
{
    sgz_tar_sparse_keys *sparse = &p->sparse;
    const char *name = key + strlen("GNU.sparse.");
    size_t name_len = key_len - strlen("GNU.sparse.");
    static const struct {
        const char *name;
        size_t field;
    } numbers[] = {
        {"major", offsetof(sgz_tar_sparse_keys, major)},
        {"minor", offsetof(sgz_tar_sparse_keys, minor)},
        {"size", offsetof(sgz_tar_sparse_keys, size)},
        {"realsize", offsetof(sgz_tar_sparse_keys, real_size)},
        {"numblocks", offsetof(sgz_tar_sparse_keys, blocks)},
    };
    int64_t number;
    sparse->seen = 1;
    if (sgz_is(name, name_len, "name")) {
        if (!len || memchr(value, 0, len))
            return bad_record(p, key, key_len, "is not a file name", err);
        sparse->name = (sgz_tar_text){value, len};
        return SGZ_OK;
    }
    if (sgz_is(name, name_len, "map")) {
        sparse->map = (sgz_tar_text){value, len};
        sparse->map_seen = 1;
        return SGZ_OK;
    }
    if (sgz_tar_decimal(value, len, &number) || number < 0)
        return bad_record(p, key, key_len, "is not a number", err);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (sgz_is(name, name_len, numbers[i].name)) {
            memcpy((char *)sparse + numbers[i].field, &number, sizeof number);
            return SGZ_OK;
        }
    /* Version 0.0: pairs of records, kept half open in between. */
    if (sgz_is(name, name_len, "offset")) {
        if (sparse->pair_seen == 1)
            return bad_record(p, key, key_len, "comes twice in a row", err);
        sparse->pair_seen = 1;
        return sgz_tar_add_run(p, number, 0, err);
    }
    if (sgz_is(name, name_len, "numbytes")) {
        if (sparse->pair_seen != 1)
            return bad_record(p, key, key_len, "comes without its offset", err);
        sparse->pair_seen = 2;
        p->runs[p->run_count - 1].len = number;
        return SGZ_OK;
    }
    return bad_record(p, key, key_len, "belongs to no known sparse format", err);
}

static int can_have(const sgz_tar_parser *p, const sgz_xattr *xattr)
{
    return xattr->key_len <= SGZ_XATTR_KEY_MAX && sgz_is_utf8(xattr->key, xattr->key_len)
        && p->xattr_count < SGZ_XATTRS_MAX;
}

/* One that cannot hold for every entry. */
static sgz_status bad_global(sgz_tar_parser *p, const char *key, size_t len, sgz_error *err)
{
    if (p->in_place) {
        p->global_notes |= SGZ_NOTE_BIT(GLOBAL_NAME);
        return SGZ_OK;
    }
    return bad_record(p, key, len, "in a PAX global header cannot hold for every entry", err);
}

static sgz_status one_record(sgz_tar_parser *p, int global, const char *key, size_t key_len,
                             const char *value, size_t len, sgz_error *err)
{
    static const char xattr_prefix[] = "SCHILY.xattr.";
    sgz_tar_fields *fields = global ? &p->global : &p->local;
    unsigned bit = 0;
    sgz_tar_text *text = NULL;

    if (memchr(key, 0, key_len))
        return bad_record(p, key, key_len, "has a NUL in its key", err);
    switch (key[0]) {
    case 'S':
        if (key_len < sizeof xattr_prefix - 1
            || memcmp(key, xattr_prefix, sizeof xattr_prefix - 1))
            return SGZ_OK;
        if (key_len == sizeof xattr_prefix - 1)
            return bad_record(p, key, key_len, "names no attribute", err);
        char *name = p->records.data + (key - p->records.data) + sizeof xattr_prefix - 1;
        size_t name_len = key_len - (sizeof xattr_prefix - 1);
        sgz_xattr xattr = {name, value, (uint32_t)sgz_tar_unescape(name, name_len), (uint32_t)len};
        if (xattr.key_len != name_len)
            p->notes |= SGZ_NOTE_BIT(XATTR);
        if (p->in_place && !can_have(p, &xattr))
            return bad_record(p, key, key_len, "is of no xattr that Linux can have", err);
        if (global)
            return add_global_xattr(p, &xattr, err);
        return SGZ_PUSH(p->xattrs, p->xattr_count, p->xattr_cap, xattr) ? SGZ_OK
                                                                        : no_memory(err);
    case 'G':
        if (key_len < 11 || memcmp(key, "GNU.sparse.", 11))
            return SGZ_OK;
        if (global)
            return bad_global(p, key, key_len, err);
        return sparse_record(p, key, key_len, value, len, err);
    case 'p':
        if (sgz_is(key, key_len, "path"))
            bit = TAR_F_PATH, text = &fields->path;
        break;
    case 'l':
        if (sgz_is(key, key_len, "linkpath"))
            bit = TAR_F_LINK, text = &fields->link;
        break;
    case 'u':
        if (sgz_is(key, key_len, "uname"))
            bit = TAR_F_UNAME, text = &fields->uname;
        else if (sgz_is(key, key_len, "uid"))
            bit = TAR_F_UID;
        break;
    case 'g':
        if (sgz_is(key, key_len, "gname"))
            bit = TAR_F_GNAME, text = &fields->gname;
        else if (sgz_is(key, key_len, "gid"))
            bit = TAR_F_GID;
        break;
    case 's':
        if (sgz_is(key, key_len, "size"))
            bit = TAR_F_SIZE;
        break;
    case 'm':
        if (sgz_is(key, key_len, "mtime"))
            bit = TAR_F_MTIME;
        break;
    }
    if (!bit)
        return SGZ_OK;
    if (global && bit & (TAR_F_PATH | TAR_F_LINK | TAR_F_SIZE))
        return bad_global(p, key, key_len, err);
    const char *nul = p->in_place && text ? memchr(value, 0, len) : NULL;
    if (nul) {
        len = (size_t)(nul - value);
        *(global ? &p->global_notes : &p->notes) |= SGZ_NOTE_BIT(FIELD);
    }
    if (!len) {
        fields->set &= ~bit;
        fields->reset |= bit;
        return SGZ_OK;
    }
    int64_t number = 0;
    if (text) {
        if (memchr(value, 0, len))
            return bad_record(p, key, key_len, "has a NUL in its value", err);
        if (p->in_place && len > TAR_OWNER_MAX && bit & (TAR_F_UNAME | TAR_F_GNAME))
            return bad_record(p, key, key_len, "is too long", err);
        *text = (sgz_tar_text){value, len};
    } else if (bit == TAR_F_MTIME) {
        if (sgz_tar_parse_time(value, len, &fields->mtime, &fields->mtime_nsec))
            return bad_record(p, key, key_len, "is not a time", err);
    } else {
        if (sgz_tar_decimal(value, len, &number) || (bit == TAR_F_SIZE && number < 0))
            return bad_record(p, key, key_len, "is not a number", err);
        *(bit == TAR_F_SIZE ? &fields->size : bit == TAR_F_UID ? &fields->uid : &fields->gid)
            = number;
    }
    fields->set |= bit;
    fields->reset &= ~bit;
    return SGZ_OK;
}

/* Global names outlive the buffer of records. */
static sgz_status keep_global_name(sgz_tar_parser *p, sgz_tar_text *text, char **owned,
                                   sgz_error *err)
{
    if (text->text == *owned)
        return SGZ_OK;
    if (text->len > TAR_GLOBAL_MAX)
        return sgz_base_fail(err, SGZ_ETAR, p->body_at, NULL, 0,
                             "a name in a PAX global header is over %d KiB, which is the limit",
                             TAR_GLOBAL_MAX >> 10);
    char *copy = copy_text(text->text, text->len);
    if (!copy)
        return no_memory(err);
    free(*owned);
    text->text = *owned = copy;
    return SGZ_OK;
}

sgz_status sgz_tar_next_record(const char *data, size_t len, size_t *pos, sgz_tar_text *key,
                               sgz_tar_text *value, int64_t offset, sgz_error *err)
{
    size_t at = *pos, size = 0;
    while (at < len && data[at] >= '0' && data[at] <= '9' && at - *pos < 8)
        size = size * 10 + (size_t)(data[at++] - '0');
    if (at == *pos || at == len || data[at] != ' ' || size > len - *pos
        || size < at - *pos + 4 /* space, key, "=", newline */
        || data[*pos + size - 1] != '\n')
        return sgz_base_fail(err, SGZ_ETAR, offset, NULL, 0,
                             "malformed PAX record at byte %zu of the PAX header", *pos);
    const char *start = data + at + 1, *last = data + *pos + size - 1;
    const char *equals = memchr(start, '=', (size_t)(last - start));
    if (!equals || equals == start)
        return sgz_base_fail(err, SGZ_ETAR, offset, NULL, 0,
                             "PAX record without a key at byte %zu of the PAX header", *pos);
    *key = (sgz_tar_text){start, (size_t)(equals - start)};
    *value = (sgz_tar_text){equals + 1, (size_t)(last - equals - 1)};
    *pos += size;
    return SGZ_OK;
}

sgz_status sgz_tar_over_limit(sgz_tar_parser *p, int64_t at, sgz_tar_text name, sgz_error *err)
{
    p->over_limit = 1;
    if (p->in_place)
        return SGZ_OK;
    return sgz_base_fail(err, SGZ_ETAR, at, name.text, name.len,
                         "PAX records and long names of one entry are over the limit of 1 MiB, or "
                         "the sparse map among them over that of 16 MiB");
}

static int is_map(sgz_tar_text key)
{
    return sgz_is(key.text, key.len, "GNU.sparse.map")
        || sgz_is(key.text, key.len, "GNU.sparse.offset")
        || sgz_is(key.text, key.len, "GNU.sparse.numbytes");
}

sgz_status sgz_tar_parse_records(sgz_tar_parser *p, int global, sgz_error *err)
{
    sgz_tar_text key, value;
    int64_t map = 0;
    for (size_t pos = 0, next = 0; pos < p->records.len; pos = next) {
        sgz_status status = sgz_tar_next_record(p->records.data, p->records.len, &next, &key,
                                                &value, p->body_at, err);
        if (!status)
            status = one_record(p, global, key.text, key.len, value.text, value.len, err);
        if (next > pos && !global && is_map(key))
            map += (int64_t)(next - pos);
        if (status == SGZ_ETAR && p->in_place) {
            if (next > pos || !p->over_limit) /* else it may have been cut off */
                *(global ? &p->global_notes : &p->notes) |= SGZ_NOTE_BIT(FIELD);
            if (next == pos) /* no more are found behind it */
                break;
        } else if (status) {
            return status;
        }
    }
    if (!global) {
        p->xattr_count = sgz_base_xattrs_sort(p->xattrs, p->xattr_count);
        p->meta_bytes -= map;
        p->map_bytes += map;
        if (p->meta_bytes > SGZ_TAR_LONG_MAX || p->map_bytes > SGZ_TAR_MAP_MAX)
            return sgz_tar_over_limit(p, p->body_at, field_text(p->header, TAR_NAME), err);
        return SGZ_OK;
    }
    sgz_status status = SGZ_OK;
    if (p->global.set & TAR_F_UNAME)
        status = keep_global_name(p, &p->global.uname, &p->global_uname, err);
    if (!status && p->global.set & TAR_F_GNAME)
        status = keep_global_name(p, &p->global.gname, &p->global_gname, err);
    return status;
}
