/* The outer object of a TOC, piece by piece: keys, values and entries as units. */
#include "toc/parser.h"

/* States of the outer object; each says what comes next. */
enum {
    OUTER_START,      /* { */
    OUTER_FIRST_KEY,  /* a key or } */
    OUTER_KEY,
    OUTER_COLON,
    OUTER_VALUE,
    OUTER_COMMA,      /* , or } */
    OUTER_FIRST_ENTRY,/* an entry or ] */
    OUTER_ENTRY,
    OUTER_ENTRY_COMMA,/* , or ] */
    OUTER_DONE
};

enum { TOP_UNKNOWN, TOP_VERSION, TOP_ENTRIES, TOP_SPLIT };

/* --- units: what is read at once, out of a piece or out of the carry ------------------- */

static sgz_status syntax_error(sgz_toc_parser *parser, const sgz_json_cursor *c,
                               const char *start, int64_t at, const sgz_toc_fields *f,
                               sgz_error *err)
{
    int64_t where = at + (c->p - start);
    if (!f)
        return sgz_base_fail(err, SGZ_ETOC, where, NULL, 0, "the TOC is not valid: %s", c->what);
    const sgz_json_span *name = &f->texts[KEY_NAME];
    const char *key = sgz_toc_key_name(f->key);
    return sgz_base_fail(err, SGZ_ETOC, where, name->ptr, name->ptr ? name->len : 0,
                         "entry %zu of the TOC: %s%s%s", parser->toc->count, key,
                         *key ? ": " : "", c->what);
}

static sgz_json_result read_key(sgz_toc_parser *parser, sgz_json_cursor *c)
{
    sgz_json_span key;
    if (*c->p != '"')
        return json_bad(c, "expected a key");
    const char *start = c->p;
    sgz_json_result r = sgz_json_string(c, &key);
    if (r)
        return r;
    char folded[SGZ_TOC_KEY_MAX + 1];
    int disputed = 0;
    size_t len = sgz_toc_fold_key(&key, folded, parser->chunked ? &disputed : NULL);
    int *seen = NULL;
    parser->top_key = TOP_UNKNOWN;
    if (len == 7 && !memcmp(folded, "version", 7)) {
        parser->top_key = TOP_VERSION;
        seen = &parser->seen_version;
    } else if (len == 7 && !memcmp(folded, "entries", 7)) {
        parser->top_key = TOP_ENTRIES;
        seen = &parser->seen_entries;
    } else if (len == 14 && !memcmp(folded, "tarsplitdigest", 14)) {
        parser->top_key = TOP_SPLIT;
        seen = &parser->seen_split;
    }
    if (seen && (*seen || disputed)) {
        c->p = start;
        return json_bad(c, disputed ? SGZ_TOC_DISPUTED : "the key is given twice");
    }
    if (seen)
        *seen = 1;
    parser->state = OUTER_COLON;
    return JSON_OK;
}

static sgz_json_result read_top_value(sgz_toc_parser *parser, sgz_json_cursor *c)
{
    sgz_json_result r;
    const char *start = c->p;
    int64_t version;
    if (parser->top_key == TOP_VERSION) {
        r = sgz_base_json_int(c, &version);
        if (!r && version != 1) {
            c->p = start;
            return json_bad(c, "only version 1 is known");
        }
    } else if (parser->top_key == TOP_ENTRIES) {
        /* The reference writes null when there is not one entry. */
        if (*c->p != 'n')
            return json_bad(c, "expected an array of entries");
        r = sgz_base_json_word(c, "null");
    } else if (parser->top_key == TOP_SPLIT && parser->chunked && *c->p != 'n') {
        sgz_json_span digest;
        if (*c->p != '"')
            return json_bad(c, "tarSplitDigest: expected a string");
        r = sgz_json_string(c, &digest);
        parser->toc->has_split = !r && digest.len;
        if (!r && digest.len && !sgz_toc_read_digest(&digest, parser->toc->split_digest)) {
            c->p = start;
            return json_bad(c, "tarSplitDigest: expected sha256: and 64 hex digits");
        }
    } else {
        r = sgz_base_json_skip(c, 1);
    }
    if (!r)
        parser->state = OUTER_COMMA;
    return r;
}

static sgz_status read_unit(sgz_toc_parser *parser, sgz_json_cursor *c, int64_t at,
                            sgz_json_result *result, sgz_error *err)
{
    const char *start = c->p;
    if (parser->state == OUTER_ENTRY) {
        sgz_toc_fields fields;
        memset(&fields, 0, sizeof fields);
        fields.key = KEY_UNKNOWN;
        fields.chunked = parser->chunked;
        *result = *c->p == '{' ? sgz_toc_read_fields(c, &fields)
                               : json_bad(c, "expected an object");
        if (*result == JSON_BAD)
            return syntax_error(parser, c, start, at, &fields, err);
        if (*result == JSON_OK) {
            if ((size_t)(c->p - start) > SGZ_TOC_TEXT_MAX)
                return sgz_base_fail(err, SGZ_ETOC, at, NULL, 0,
                                     "entry %zu of the TOC is longer than %zu bytes",
                                     parser->toc->count, SGZ_TOC_TEXT_MAX);
            parser->state = OUTER_ENTRY_COMMA;
            return parser->take ? parser->take(parser->take_arg, &fields, err)
                                : sgz_toc_add_entry(parser, &fields, err);
        }
        return SGZ_OK;
    }
    *result = parser->state == OUTER_KEY ? read_key(parser, c) : read_top_value(parser, c);
    if (*result == JSON_OK && (size_t)(c->p - start) > SGZ_TOC_TEXT_MAX) {
        c->p = start;
        *result = json_bad(c, "a value beside the entries is too long");
    }
    if (*result == JSON_BAD)
        return syntax_error(parser, c, start, at, NULL, err);
    return SGZ_OK;
}

/* Find the end of the unit that is being collected. Returns how many bytes of p belong to
 * the carry; *complete says that the unit can be read (a number or word has its delimiter
 * with it). Brackets are only counted: read_unit checks what they are. */
static size_t scan_unit(sgz_toc_parser *parser, const char *p, size_t len, int *complete)
{
    *complete = 0;
    for (size_t i = 0; i < len; i++) {
        char c = p[i];
        if (parser->scan_string) {
            if (parser->scan_escape) {
                parser->scan_escape = 0;
            } else if (c == '\\') {
                parser->scan_escape = 1;
            } else if (c == '"') {
                parser->scan_string = 0;
                *complete = !parser->scan_depth;
            }
        } else if (c == '"') {
            /* Behind a number or word it is its delimiter. */
            *complete = !parser->scan_depth && parser->carry_len + i > 0;
            parser->scan_string = 1;
        } else if (c == '{' || c == '[') {
            parser->scan_depth++;
        } else if (c == '}' || c == ']') {
            parser->scan_depth -= parser->scan_depth > 0;
            *complete = !parser->scan_depth;
        } else if (!parser->scan_depth) {
            *complete = c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == ',' || c == ':';
        }
        if (*complete)
            return i + 1;
    }
    return len;
}

static sgz_status add_to_carry(sgz_toc_parser *parser, const char *p, size_t len, sgz_error *err)
{
    if (!SGZ_FIT(parser->carry, parser->carry_cap, parser->carry_len + len))
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for an entry of the TOC");
    memcpy(parser->carry + parser->carry_len, p, len);
    parser->carry_len += len;
    return SGZ_OK;
}

/* One unit out of the carry and [p, end); *used is what was taken of the latter. */
static sgz_status collect(sgz_toc_parser *parser, const char *p, const char *end, size_t *used,
                          sgz_error *err)
{
    int complete;
    size_t n = scan_unit(parser, p, (size_t)(end - p), &complete);
    *used = n;
    if (n > SGZ_TOC_TEXT_MAX + 1 || parser->carry_len + n > SGZ_TOC_TEXT_MAX + 1)
        return sgz_base_fail(err, SGZ_ETOC, parser->carry_at, NULL, 0,
                             "an entry or value of the TOC is longer than %zu bytes",
                             SGZ_TOC_TEXT_MAX);
    size_t before = parser->carry_len;
    sgz_status status = add_to_carry(parser, p, n, err);
    if (status || !complete)
        return status;
    sgz_json_cursor c = {parser->carry, parser->carry + parser->carry_len, NULL};
    sgz_json_result result;
    status = read_unit(parser, &c, parser->carry_at, &result, err);
    if (status)
        return status;
    if (result == JSON_MORE) {
        c.what = "the brackets do not match";
        return syntax_error(parser, &c, parser->carry, parser->carry_at, NULL, err);
    }
    /* A delimiter that came along goes back; anything else behind a number or word ("1x")
     * is an error. */
    size_t read = (size_t)(c.p - parser->carry);
    parser->collecting = 0;
    if (read < before) {
        c.what = "expected a comma or the end of the object";
        return syntax_error(parser, &c, parser->carry, parser->carry_at, NULL, err);
    }
    *used = read - before;
    return SGZ_OK;
}

static sgz_status punctuation(sgz_toc_parser *parser, char c, int64_t at, sgz_error *err)
{
    const char *expected;
    switch (parser->state) {
    case OUTER_START:
        if (c == '{') {
            parser->state = OUTER_FIRST_KEY;
            return SGZ_OK;
        }
        expected = "expected an object";
        break;
    case OUTER_COLON:
        if (c == ':') {
            parser->state = OUTER_VALUE;
            return SGZ_OK;
        }
        expected = "expected a colon";
        break;
    case OUTER_COMMA:
        if (c == ',' || c == '}') {
            parser->state = c == ',' ? OUTER_KEY : OUTER_DONE;
            return SGZ_OK;
        }
        expected = "expected a comma or the end of the object";
        break;
    case OUTER_ENTRY_COMMA:
        if (c == ',' || c == ']') {
            parser->state = c == ',' ? OUTER_ENTRY : OUTER_COMMA;
            return SGZ_OK;
        }
        expected = "expected a comma or the end of the entries";
        break;
    default:
        expected = "more follows after its end";
        break;
    }
    return sgz_base_fail(err, SGZ_ETOC, at, NULL, 0, "the TOC is not valid: %s", expected);
}

static sgz_status parse_piece(sgz_toc_parser *parser, const char *data, size_t len,
                              sgz_error *err)
{
    const char *p = data, *end = data + len;
    while (p < end) {
        int64_t at = parser->consumed + (p - data);
        sgz_status status;
        if (parser->collecting) {
            size_t used;
            status = collect(parser, p, end, &used, err);
            if (status)
                return status;
            p += used;
            continue;
        }
        char c = *p;
        if (c == ' ' || c == '\n' || c == '\t' || c == '\r') {
            p++;
            continue;
        }
        if (parser->state == OUTER_FIRST_KEY || parser->state == OUTER_FIRST_ENTRY) {
            int first_key = parser->state == OUTER_FIRST_KEY;
            if (c == (first_key ? '}' : ']')) {
                parser->state = first_key ? OUTER_DONE : OUTER_COMMA;
                p++;
                continue;
            }
            parser->state = first_key ? OUTER_KEY : OUTER_ENTRY;
        }
        if (parser->state == OUTER_VALUE && parser->top_key == TOP_ENTRIES && c == '[') {
            parser->state = OUTER_FIRST_ENTRY;
            p++;
            continue;
        }
        if (parser->state != OUTER_KEY && parser->state != OUTER_VALUE &&
            parser->state != OUTER_ENTRY) {
            if ((status = punctuation(parser, c, at, err)))
                return status;
            p++;
            continue;
        }
        sgz_json_cursor cursor = {p, end, NULL};
        sgz_json_result result;
        status = read_unit(parser, &cursor, at, &result, err);
        if (status)
            return status;
        if (result == JSON_OK) {
            p = cursor.p;
            continue;
        }
        parser->collecting = 1;
        parser->carry_at = at;
        parser->carry_len = 0;
        parser->scan_depth = 0;
        parser->scan_string = parser->scan_escape = 0;
    }
    parser->consumed += (int64_t)len;
    return SGZ_OK;
}

static sgz_status after_failure(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ETOC, -1, NULL, 0, "the TOC was refused before");
}

sgz_status sgz_toc_parse(sgz_toc_parser *parser, const char *data, size_t len, sgz_error *err)
{
    if (parser->failed)
        return after_failure(err);
    sgz_status status = parse_piece(parser, data, len, err);
    parser->failed = status != SGZ_OK;
    return status;
}

static sgz_status finish(sgz_toc_parser *parser, int64_t blob_end, sgz_error *err)
{
    if (parser->collecting && parser->carry_len) {
        /* An error in what is there says more than that the end is missing. */
        sgz_json_cursor c = {parser->carry, parser->carry + parser->carry_len, NULL};
        sgz_json_result result;
        sgz_status status = read_unit(parser, &c, parser->carry_at, &result, err);
        if (status)
            return status;
    }
    if (parser->state != OUTER_DONE)
        return sgz_base_fail(err, SGZ_ETOC, parser->consumed, NULL, 0, "the TOC ends too early");
    if (!parser->seen_version)
        return sgz_base_fail(err, SGZ_ETOC, -1, NULL, 0, "the TOC has no version");
    if (!parser->seen_entries)
        return sgz_base_fail(err, SGZ_ETOC, -1, NULL, 0, "the TOC has no entries");
    if (parser->has_text)
        return sgz_base_fail(err, SGZ_ETOC, -1, NULL, 0, "texts follow of more than its %llu entries",
                             (unsigned long long)parser->named);
    sgz_toc_parser_expect(parser, parser->consumed);
    sgz_status status = sgz_toc_close_file(parser, err);
    return status ? status : sgz_toc_check(parser, blob_end, err);
}

sgz_status sgz_toc_parse_finish(sgz_toc_parser *parser, int64_t blob_end, sgz_error *err)
{
    if (parser->failed)
        return after_failure(err);
    sgz_status status = finish(parser, blob_end, err);
    parser->failed = 1; /* nothing can follow */
    return status;
}
