#include "toc/parser.h"

#include "base/bytes.h"
#include "base/time.h"
#include "base/xattrs.h"

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the TOC");
}

/* --- values ----------------------------------------------------------------------------- */

int sgz_toc_read_type(const sgz_json_span *span)
{
    char buf[256];
    size_t len;
    const char *text = sgz_toc_short_text(span, buf, sizeof buf, &len);
    for (int type = SGZ_DIR; text && type <= SGZ_CHUNK; type++) {
        const char *name = sgz_toc_type_name(type);
        if (sgz_is(text, len, name))
            return type;
    }
    return 0;
}

/* What is no time counts as the epoch, as for the reference's reader. */
static sgz_status read_time(sgz_toc_parser *parser, const sgz_json_span *span, sgz_entry *row,
                            sgz_error *err)
{
    sgz_toc *toc = parser->toc;
    char buf[256];
    size_t len;
    const char *text = sgz_toc_short_text(span, buf, sizeof buf, &len);
    uint32_t ns = 0;
    if (text && !sgz_base_time_read(text, len, &row->mtime, &ns))
        row->mtime = 0;
    if (row->mtime == SGZ_NO_TIME)
        row->mtime = 0;
    if (!ns || !parser->chunked)
        return SGZ_OK;
    if (!SGZ_FIT(toc->fractions, toc->fraction_cap, toc->count))
        return no_memory(err);
    memset(toc->fractions + toc->fraction_count, 0,
           (toc->count - toc->fraction_count) * sizeof *toc->fractions);
    toc->fraction_count = toc->count;
    toc->fractions[toc->count - 1] = ns;
    row->mtime += ns >= 500000000;
    return SGZ_OK;
}

/* What Linux can have: see toc/limits.h. */
static sgz_status check_length(sgz_toc_parser *parser, const sgz_entry *row, const char *text,
                               size_t len, const char *what, sgz_error *err)
{
    size_t base;
    len = sgz_toc_path_len(text, len, &base);
    if (len > SGZ_TOC_PATH_MAX)
        return FAIL(parser, row, err, "%s has %zu bytes, over the limit of %d", what, len,
                    SGZ_TOC_PATH_MAX);
    if (base > SGZ_TOC_BASE_MAX)
        return FAIL(parser, row, err, "%s has a component of %zu bytes, over the limit of %d",
                    what, base, SGZ_TOC_BASE_MAX);
    return SGZ_OK;
}

/* --- names ------------------------------------------------------------------------------ */

static sgz_status store_name(sgz_toc_parser *parser, const sgz_json_span *span, sgz_entry *row,
                             sgz_error *err)
{
    sgz_toc *toc = parser->toc;
    size_t room = span->plain ? span->len : 3 * span->len;
    if (!sgz_toc_reserve(toc, 2 * room)) /* the second half for cleaning */
        return no_memory(err);
    char *name = toc->arena + toc->arena_len;
    int bad = 0;
    size_t len = sgz_base_json_decode(span, name, &bad);
    row->name_off = toc->arena_len;
    row->name_len = (uint32_t)len;
    if (len && memchr(name, 0, len))
        return FAIL(parser, row, err, "the name has a NUL in it");
    sgz_status status = check_length(parser, row, name, len, "the name", err);
    if (status)
        return status;
    const char *clean = sgz_toc_clean_name(name, len, name + room, &len);
    if (clean != name)
        memmove(name, clean, len);
    row->name_len = (uint32_t)len;
    row->flags |= SGZ_CLEAN_NAME | (bad ? SGZ_BAD_UTF8 : 0);
    toc->arena_len += len;
    return SGZ_OK;
}

static sgz_status store_link(sgz_toc_parser *parser, const sgz_json_span *span, sgz_entry *row,
                             sgz_error *err)
{
    sgz_toc *toc = parser->toc;
    if (!span->ptr)
        return SGZ_OK;
    if (!sgz_toc_reserve(toc, 3 * span->len))
        return no_memory(err);
    char *link = toc->arena + toc->arena_len;
    int bad = 0;
    size_t len = sgz_base_json_decode(span, link, &bad);
    if (len && memchr(link, 0, len))
        return FAIL(parser, row, err, "the link name has a NUL in it");
    row->link_off = toc->arena_len;
    row->link_len = (uint32_t)len;
    row->flags |= bad ? SGZ_BAD_UTF8 : 0;
    toc->arena_len += len;
    if (len > SGZ_TOC_PATH_MAX) /* as it stands: a symlink can say anything else */
        return FAIL(parser, row, err, "the link's target has %zu bytes, over the limit of %d", len,
                    SGZ_TOC_PATH_MAX);
    return SGZ_OK;
}

/* A user or group name; without one, the last that the same id had. */
static sgz_status store_owner(sgz_toc_parser *parser, const sgz_json_span *span,
                              sgz_toc_id_map *map, uint32_t id, const sgz_entry *row,
                              uint32_t *number, sgz_error *err)
{
    uint32_t last = sgz_toc_id_map_get(map, id);
    *number = last;
    if (!span->ptr || !span->len)
        return SGZ_OK;
    const char *text = span->ptr;
    size_t len = span->len;
    if (!span->plain) {
        int bad = 0;
        if (!SGZ_FIT(parser->scratch, parser->scratch_cap, 3 * len))
            return no_memory(err);
        len = sgz_base_json_decode(span, parser->scratch, &bad);
        text = parser->scratch;
    }
    if (len > UINT16_MAX || memchr(text, 0, len))
        return FAIL(parser, row, err, "the user or group name is too long or has a NUL in it");
    *number = sgz_toc_intern(parser->toc, text, len);
    if (*number == SGZ_NO_ROW || (*number != last && !sgz_toc_id_map_put(map, id, *number)))
        return no_memory(err);
    return SGZ_OK;
}

/* --- extended attributes ---------------------------------------------------------------- */

static int by_key(const void *left, const void *right)
{
    const sgz_toc_pair *a = left, *b = right;
    return sgz_compare(a->key, a->key_len, b->key, b->key_len);
}

/* The pairs of an object that sgz_base_json_skip has passed already. Keys are decoded into the
 * scratch. */
static sgz_status read_pairs(sgz_toc_parser *parser, const sgz_json_span *object,
                             const sgz_entry *row, size_t *pair_count, sgz_error *err)
{
    sgz_json_cursor c = {object->ptr + 1, object->ptr + object->len, NULL};
    size_t count = 0, used = 0;
    if (!SGZ_FIT(parser->scratch, parser->scratch_cap, 3 * object->len))
        return no_memory(err);
    for (sgz_json_space(&c); *c.p != '}'; sgz_json_space(&c)) {
        if (count == SGZ_XATTRS_MAX)
            return FAIL(parser, row, err, "it has more than %d xattrs", SGZ_XATTRS_MAX);
        if (!SGZ_FIT(parser->pairs, parser->pair_cap, count + 1))
            return no_memory(err);
        sgz_toc_pair *pair = &parser->pairs[count++];
        sgz_json_span key;
        int bad = 0;
        memset(pair, 0, sizeof *pair);
        sgz_json_string(&c, &key);
        pair->key_at = used;
        pair->key_len = sgz_base_json_decode(&key, parser->scratch + used, &bad);
        used += pair->key_len;
        sgz_json_space(&c);
        c.p++; /* the colon */
        sgz_json_space(&c);
        if (*c.p == '"')
            sgz_json_string(&c, &pair->value);
        else if (*c.p == 'n')
            sgz_base_json_word(&c, "null");
        else
            return FAIL(parser, row, err, "an xattr is not a base64 string");
        sgz_json_space(&c);
        if (*c.p == ',')
            c.p++;
    }
    *pair_count = count;
    for (size_t i = 0; i < count; i++) {
        sgz_toc_pair *pair = &parser->pairs[i];
        pair->key = parser->scratch + pair->key_at;
        if (pair->key_len && memchr(pair->key, 0, pair->key_len))
            return FAIL(parser, row, err, "an xattr's key has a NUL in it");
        if (pair->key_len > SGZ_XATTR_KEY_MAX)
            return FAIL(parser, row, err, "an xattr's key has %zu bytes, over the limit of %d",
                        pair->key_len, SGZ_XATTR_KEY_MAX);
    }
    return SGZ_OK;
}

static sgz_status store_xattrs(sgz_toc_parser *parser, const sgz_json_span *object,
                               sgz_entry *row, sgz_error *err)
{
    sgz_toc *toc = parser->toc;
    size_t count = 0;
    sgz_status status = read_pairs(parser, object, row, &count, err);
    if (status || !count)
        return status;
    sgz_toc_pair *pairs = parser->pairs;
    qsort(pairs, count, sizeof *pairs, by_key);
    row->xattr_off = toc->arena_len;
    for (size_t i = 0; i < count; i++) {
        const sgz_toc_pair *pair = &pairs[i];
        if (i && !by_key(pair - 1, pair))
            return FAIL(parser, row, err, "an xattr is given twice");
        size_t room = sgz_xattrs_size(pair->key_len, 6 * pair->value.len + 4);
        if (!sgz_toc_reserve(toc, room))
            return no_memory(err);
        char *out = toc->arena + toc->arena_len;
        char *value = sgz_xattrs_value(out, pair->key_len);
        const char *text = pair->value.ptr;
        size_t len = pair->value.len;
        int bad = 0;
        if (len && !pair->value.plain) {
            /* Decoded behind where the value will stand. */
            text = value + 3 * len;
            len = sgz_base_json_decode(&pair->value, value + 3 * len, &bad);
        }
        if ((len = sgz_base_json_base64(text, len, value)) == SIZE_MAX)
            return FAIL(parser, row, err, "an xattr is not padded base64");
        sgz_xattr x = {pair->key, value, (uint32_t)pair->key_len, (uint32_t)len};
        toc->arena_len = (size_t)(sgz_xattrs_put(out, &x) - toc->arena);
    }
    row->xattr_len = (uint32_t)(toc->arena_len - row->xattr_off);
    return SGZ_OK;
}

/* --- rows ------------------------------------------------------------------------------- */

static sgz_status add_named(sgz_toc_parser *parser, const sgz_toc_fields *f, sgz_entry *row,
                            sgz_error *err)
{
    uint32_t number = (uint32_t)(row - parser->toc->rows);
    sgz_status status = sgz_toc_close_file(parser, err);
    if (status)
        return status;
    parser->owner = SGZ_NO_ROW;
    if (!f->texts[KEY_NAME].ptr)
        return sgz_base_fail(err, SGZ_ETOC, -1, NULL, 0, "entry %u of the TOC has no name",
                             number);
    if ((status = store_name(parser, &f->texts[KEY_NAME], row, err)))
        return status;
    for (int key = KEY_MODE; key <= KEY_DEV_MINOR; key++) {
        if (key == KEY_OFFSET || key == KEY_INNER_OFFSET)
            continue;
        if (FIELD(f, key) > UINT32_MAX)
            return FAIL(parser, row, err, "%s is beyond 32 bits", sgz_toc_key_name(key));
    }
    row->mode = (uint32_t)FIELD(f, KEY_MODE);
    row->uid = (uint32_t)FIELD(f, KEY_UID);
    row->gid = (uint32_t)FIELD(f, KEY_GID);
    row->dev_major = (uint32_t)FIELD(f, KEY_DEV_MAJOR);
    row->dev_minor = (uint32_t)FIELD(f, KEY_DEV_MINOR);
    if (f->texts[KEY_MODTIME].ptr && (status = read_time(parser, &f->texts[KEY_MODTIME], row, err)))
        return status;
    if ((status = store_owner(parser, &f->texts[KEY_UNAME], &parser->users, row->uid, row,
                              &row->uname, err)) ||
        (status = store_owner(parser, &f->texts[KEY_GNAME], &parser->groups, row->gid, row,
                              &row->gname, err)))
        return status;
    if (f->xattrs.ptr && (status = store_xattrs(parser, &f->xattrs, row, err)))
        return status;
    if (row->type == SGZ_SYMLINK || row->type == SGZ_HARDLINK) {
        if (row->type == SGZ_HARDLINK)
            row->target = SGZ_NO_ROW; /* until it is resolved */
        if ((status = store_link(parser, &f->texts[KEY_LINK], row, err)))
            return status;
    }
    parser->covered = 0;
    parser->owner = number;
    return row->type == SGZ_REG ? sgz_toc_add_contents(parser, f, number, err) : SGZ_OK;
}

/* Whether a text of the JSON is what this one becomes there: each bad byte is U+FFFD. Directories
 * end in a slash. */
static int stands_for(const char *shown, size_t len, const char *raw, size_t raw_len)
{
    size_t at = 0;
    for (size_t i = 0; i < raw_len;) {
        size_t n = sgz_utf8_len(raw + i, raw_len - i), width = n ? n : 3;
        if (len - at < width || memcmp(shown + at, n ? raw + i : "\xef\xbf\xbd", width))
            return 0;
        at += width;
        i += n ? n : 1;
    }
    return at == len || (at + 1 == len && shown[at] == '/');
}

/* A TOC's digest is about its JSON, and so vouches for no other name beside it. */
static sgz_status check_text(sgz_toc_parser *parser, const sgz_json_span *span,
                             const sgz_toc_text *text, const sgz_entry *row, sgz_error *err)
{
    sgz_toc *toc = parser->toc;
    int bad = 0;
    if (!sgz_toc_reserve(toc, 3 * span->len))
        return no_memory(err);
    char *shown = toc->arena + toc->arena_len;
    size_t len = span->ptr ? sgz_base_json_decode(span, shown, &bad) : 0;
    if (stands_for(shown, len, text->text, text->len))
        return SGZ_OK;
    return FAIL(parser, row, err, "a text beside the TOC is not the one that stands in it");
}

/* Put the texts that JSON could not hold in the place of those that stand in the JSON. */
static sgz_status put_texts(sgz_toc_parser *parser, sgz_toc_fields *f, sgz_entry *row,
                            sgz_error *err)
{
    static const int keys[] = {
        [SGZ_TEXT_NAME] = KEY_NAME, [SGZ_TEXT_LINK] = KEY_LINK,
        [SGZ_TEXT_USER] = KEY_UNAME, [SGZ_TEXT_GROUP] = KEY_GNAME,
    };
    for (;; parser->has_text = 0) {
        if (!parser->has_text && parser->texts.next) {
            int none = 0;
            sgz_status status = parser->texts.next(parser->texts.arg, &parser->text, &none, err);
            if (status)
                return status;
            if (none)
                parser->texts.next = NULL;
            parser->has_text = !none;
        }
        if (!parser->has_text || parser->text.entry != parser->named)
            break;
        if (parser->text.kind <= SGZ_TEXT_LINK) {
            sgz_status status = check_text(parser, &f->texts[keys[parser->text.kind]],
                                           &parser->text, row, err);
            if (status)
                return status;
        }
        f->texts[keys[parser->text.kind]] =
            (sgz_json_span){parser->text.text, parser->text.len, 1};
        if (parser->text.kind <= SGZ_TEXT_LINK)
            row->flags |= SGZ_BAD_UTF8;
    }
    parser->named++;
    return SGZ_OK;
}

sgz_status sgz_toc_add_entry(sgz_toc_parser *parser, sgz_toc_fields *f, sgz_error *err)
{
    sgz_toc *toc = parser->toc;
    const sgz_json_span *name = &f->texts[KEY_NAME];
    int type = f->texts[KEY_TYPE].ptr ? sgz_toc_read_type(&f->texts[KEY_TYPE]) : 0;
    if (!type)
        return sgz_base_fail(err, SGZ_ETOC, -1, name->ptr, name->len,
                             "entry %zu of the TOC has %s "
                             "type",
                             toc->count, f->texts[KEY_TYPE].ptr ? "an unknown" : "no");
    if (toc->count >= parser->max_rows)
        return sgz_base_fail(err, SGZ_ETOC, -1, NULL, 0,
                             "the TOC has more than the %zu entries that "
                             "a blob of this size can hold",
                             toc->count);
    sgz_entry *row = sgz_toc_append(toc);
    if (!row)
        return no_memory(err);
    row->type = (uint8_t)type;
    sgz_status status = type == SGZ_CHUNK ? SGZ_OK : put_texts(parser, f, row, err);
    if (!status)
        status = type == SGZ_CHUNK ? sgz_toc_add_chunk(parser, f, row, err)
                                   : add_named(parser, f, row, err);
    if (!status && !sgz_toc_fits(sgz_toc_parser_weight(parser), parser->json_size,
                                 parser->chunked))
        status = FAIL(parser, &toc->rows[toc->count - 1], err,
                      "the entries to here take more memory than %s times the TOC's %llu bytes and "
                      "%d MB, which is the limit", parser->chunked ? "two" : "one and a half",
                      (unsigned long long)parser->json_size, parser->chunked ? 90 : 50);
    return status;
}
