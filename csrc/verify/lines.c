#include "verify/lines.h"

#include "base/json.h"
#include "base/vec.h"
#include "toc/parser.h"

#include <stdlib.h>
#include <string.h>

#define PIECE ((size_t)256 << 10)

enum { KEY_OF_TYPE, KEY_OF_NAME, KEY_OF_RAW, KEY_OF_SIZE, KEY_OF_PAYLOAD, KEY_OF_POSITION, KEYS };

typedef struct {
    sgz_json_span name, raw, payload;
    int64_t type, size, position;
    unsigned seen;
} fields;

void sgz_verify_lines_free(sgz_verify_lines *lines)
{
    free(lines->text);
    free(lines->name);
    free(lines->payload);
    *lines = (sgz_verify_lines){.pull = lines->pull};
}

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for a line of the tar-split");
}

static sgz_status malformed(const sgz_verify_lines *lines, const char *what, sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ETAR, lines->pull.offset, NULL, 0, "the tar-split: %s", what);
}

/* As Go matches keys. */
static int find_key(const sgz_json_span *key)
{
    static const char *const names[KEYS] = {"type", "name", "name_raw", "size", "payload",
                                            "position"};
    char folded[SGZ_TOC_KEY_MAX + 1];
    size_t len = sgz_toc_fold_key(key, folded, NULL);
    for (int i = 0; i < KEYS; i++)
        if (len == strlen(names[i]) && !memcmp(folded, names[i], len))
            return i;
    return KEYS;
}

static sgz_json_result read_value(sgz_json_cursor *c, int key, fields *f)
{
    sgz_json_span *const texts[KEYS] = {[KEY_OF_NAME] = &f->name, [KEY_OF_RAW] = &f->raw,
                                        [KEY_OF_PAYLOAD] = &f->payload};
    int64_t *const numbers[KEYS] = {[KEY_OF_TYPE] = &f->type, [KEY_OF_SIZE] = &f->size,
                                    [KEY_OF_POSITION] = &f->position};
    if (key == KEYS)
        return sgz_base_json_skip(c, 1);
    if (*c->p == 'n')
        return sgz_base_json_word(c, "null");
    if (numbers[key])
        return sgz_base_json_int(c, numbers[key]);
    return *c->p == '"' ? sgz_json_string(c, texts[key]) : json_bad(c, "expected a string");
}

static sgz_json_result read_fields(sgz_json_cursor *c, fields *f)
{
    sgz_json_result r;
    sgz_json_span key;
    if (*c->p != '{')
        return json_bad(c, "expected an object");
    c->p++;
    if ((r = sgz_json_space(c)))
        return r;
    if (*c->p == '}') {
        c->p++;
        return JSON_OK;
    }
    for (;;) {
        if ((r = sgz_json_key(c, &key)) || (r = sgz_json_space(c)))
            return r;
        int number = find_key(&key);
        if (number < KEYS && f->seen & 1u << number)
            return json_bad(c, "a key is given twice");
        f->seen |= number < KEYS ? 1u << number : 0;
        if ((r = read_value(c, number, f)) || (r = sgz_json_space(c)))
            return r;
        if (*c->p == '}') {
            c->p++;
            return JSON_OK;
        }
        if (*c->p != ',')
            return json_bad(c, "expected a comma or the end of the object");
        c->p++;
        if ((r = sgz_json_space(c)))
            return r;
    }
}

/* Have more text, and more than a line that goes on took. */
static sgz_status fill(sgz_verify_lines *lines, sgz_error *err)
{
    size_t left = lines->len - lines->at, got = 0, more = left > PIECE ? left : PIECE;
    if (left > SGZ_VERIFY_LINE_MAX)
        return malformed(lines, "a line is longer than 32 MiB", err);
    if (left)
        memmove(lines->text, lines->text + lines->at, left);
    lines->at = 0;
    lines->len = left;
    if (!SGZ_FIT(lines->text, lines->cap, left + more))
        return no_memory(err);
    sgz_status st = lines->pull.read(lines->pull.arg, lines->text + left, more, &got, err);
    if (st == SGZ_EDATA || st == SGZ_ETAR) {
        char what[sizeof err->message - sizeof "the tar-split: "];
        memcpy(what, err->message, sizeof what - 1);
        what[sizeof what - 1] = '\0';
        return malformed(lines, what, err);
    }
    lines->len += got;
    lines->ended = got < more;
    return st;
}

/* Base64 of a string, in its place where that can be. */
static sgz_status decode(sgz_verify_lines *lines, sgz_json_span *span, char **out, size_t *cap,
                         const char **data, size_t *len, sgz_error *err)
{
    char *to = (char *)span->ptr;
    int bad = 0;
    if (!span->plain) {
        if (!SGZ_FIT(*out, *cap, 3 * span->len))
            return no_memory(err);
        to = *out;
        *span = (sgz_json_span){to, sgz_base_json_decode(span, to, &bad), 1};
    }
    *data = to;
    *len = sgz_base_json_base64(span->ptr, span->len, to);
    return *len != SIZE_MAX ? SGZ_OK : malformed(lines, "a text is not padded base64", err);
}

static sgz_status take(sgz_verify_lines *lines, fields *f, sgz_verify_line *line, sgz_error *err)
{
    sgz_status st = SGZ_OK;
    *line = (sgz_verify_line){.size = f->size, .position = f->position};
    if (f->type != SGZ_LINE_FILE && f->type != SGZ_LINE_SEGMENT)
        return malformed(lines, "a line is neither of a file nor of a segment", err);
    if (f->size < 0)
        return malformed(lines, "a file has a negative size", err);
    line->type = (int)f->type;
    if (f->payload.len) {
        const char *payload;
        st = decode(lines, &f->payload, &lines->payload, &lines->payload_cap, &payload,
                    &line->payload_len, err);
        line->payload = (const uint8_t *)payload;
    }
    if (!st && f->name.len && f->name.plain) {
        line->name = f->name.ptr;
        line->name_len = f->name.len;
    } else if (!st && f->name.len) {
        int bad = 0;
        if (!SGZ_FIT(lines->name, lines->name_cap, 3 * f->name.len))
            return no_memory(err);
        line->name = lines->name;
        line->name_len = sgz_base_json_decode(&f->name, lines->name, &bad);
    } else if (!st && f->raw.len) {
        st = decode(lines, &f->raw, &lines->name, &lines->name_cap, &line->name, &line->name_len,
                    err);
    }
    return st;
}

sgz_status sgz_verify_lines_next(sgz_verify_lines *lines, sgz_verify_line *line, int *none,
                                 sgz_error *err)
{
    sgz_status st = lines->text ? SGZ_OK : fill(lines, err);
    *none = 0;
    while (!st) {
        sgz_json_cursor c = {lines->text + lines->at, lines->text + lines->len, NULL};
        fields f = {0};
        sgz_json_result r = sgz_json_space(&c);
        lines->at = (size_t)(c.p - lines->text);
        int blank = r == JSON_MORE;
        if (!blank)
            r = read_fields(&c, &f);
        if (r == JSON_BAD)
            return malformed(lines, c.what, err);
        if (r == JSON_OK) {
            if ((size_t)(c.p - lines->text) - lines->at > SGZ_VERIFY_LINE_MAX)
                return malformed(lines, "a line is longer than 32 MiB", err);
            lines->at = (size_t)(c.p - lines->text);
            return take(lines, &f, line, err);
        }
        if (lines->ended && blank) {
            *none = 1;
            return SGZ_OK;
        }
        if (lines->ended)
            return malformed(lines, "it ends within a line", err);
        st = fill(lines, err);
    }
    return st;
}
