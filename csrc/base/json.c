#include "base/json.h"

#include "base/bytes.h"

/* Of either case; 0x80 for anything else. */
static uint8_t hex_digit(char c)
{
    return sgz_hex_value(c >= 'A' && c <= 'F' ? (char)(c | 0x20) : c);
}

sgz_json_result sgz_base_json_string_rest(sgz_json_cursor *c, sgz_json_span *span)
{
    span->plain = 0;
    for (; c->p < c->end; c->p++) {
        if (*c->p == '"') {
            span->len = (size_t)(c->p - span->ptr);
            c->p++;
            return JSON_OK;
        }
        if ((uint8_t)*c->p < ' ')
            return json_bad(c, "a control character stands in a string");
        if (*c->p != '\\')
            continue;
        if (++c->p == c->end)
            return JSON_MORE;
        if (*c->p == 'u') {
            for (int i = 0; i < 4; i++) {
                if (++c->p == c->end)
                    return JSON_MORE;
                if (hex_digit(*c->p) & 0x80)
                    return json_bad(c, "a \\u escape needs four hex digits");
            }
        } else if (!memchr("\"\\/bfnrt", *c->p, 8)) {
            return json_bad(c, "an escape that JSON does not have");
        }
    }
    return JSON_MORE;
}

sgz_json_result sgz_base_json_int(sgz_json_cursor *c, int64_t *value)
{
    const char *p = c->p;
    int negative = p < c->end && *p == '-';
    p += negative;
    const char *digits = p;
    uint64_t v = 0;
    for (; p < c->end && (uint8_t)(*p - '0') < 10; p++)
        v = v * 10 + (uint64_t)(*p - '0');
    if (p == c->end)
        return JSON_MORE;
    if (p == digits)
        return json_bad(c, "expected an integer");
    if (*p == '.' || *p == 'e' || *p == 'E')
        return json_bad(c, "expected an integer without fraction or exponent");
    if (*digits == '0' && p - digits > 1)
        return json_bad(c, "a number begins with 0");
    /* 19 digits fit into 64 bits without a sign. */
    if (p - digits > 19 || v > (uint64_t)INT64_MAX + (unsigned)negative)
        return json_bad(c, "the integer does not fit into 64 bits");
    *value = negative ? (int64_t)(0 - v) : (int64_t)v;
    c->p = p;
    return JSON_OK;
}

sgz_json_result sgz_base_json_word(sgz_json_cursor *c, const char *word)
{
    const char *p = c->p;
    for (; *word; word++, p++) {
        if (p == c->end)
            return JSON_MORE;
        if (*p != *word)
            return json_bad(c, "expected a value");
    }
    c->p = p;
    return JSON_OK;
}

static sgz_json_result skip_digits(sgz_json_cursor *c)
{
    const char *start = c->p;
    while (c->p < c->end && (uint8_t)(*c->p - '0') < 10)
        c->p++;
    if (c->p == c->end)
        return JSON_MORE;
    return c->p > start ? JSON_OK : json_bad(c, "a number lacks a digit");
}

static sgz_json_result skip_number(sgz_json_cursor *c)
{
    sgz_json_result r;
    c->p += *c->p == '-';
    const char *start = c->p;
    if ((r = skip_digits(c)))
        return r;
    if (*start == '0' && c->p - start > 1)
        return json_bad(c, "a number begins with 0");
    if (*c->p == '.') {
        c->p++;
        if ((r = skip_digits(c)))
            return r;
    }
    if (*c->p == 'e' || *c->p == 'E') {
        c->p++;
        if (c->p < c->end && (*c->p == '+' || *c->p == '-'))
            c->p++;
        if ((r = skip_digits(c)))
            return r;
    }
    return JSON_OK;
}

/* A value that holds no others, or the opening of one that does: *opens is its bracket. */
static sgz_json_result skip_scalar(sgz_json_cursor *c, char *opens)
{
    sgz_json_span span;
    *opens = 0;
    switch (*c->p) {
    case '"':
        return sgz_json_string(c, &span);
    case '{':
    case '[':
        *opens = *c->p++;
        return JSON_OK;
    case 'n':
        return sgz_base_json_word(c, "null");
    case 't':
        return sgz_base_json_word(c, "true");
    case 'f':
        return sgz_base_json_word(c, "false");
    default:
        if (*c->p != '-' && (uint8_t)(*c->p - '0') > 9)
            return json_bad(c, "expected a value");
        return skip_number(c);
    }
}

static sgz_json_result skip_key(sgz_json_cursor *c)
{
    sgz_json_span key;
    sgz_json_result r = sgz_json_key(c, &key);
    return r ? r : sgz_json_space(c);
}

sgz_json_result sgz_base_json_skip(sgz_json_cursor *c, int depth)
{
    uint8_t objects[SGZ_JSON_DEPTH / 8] = {0}; /* of each level, whether it is one */
    int level = depth;
    sgz_json_result r = sgz_json_space(c);
    while (!r) {
        char opens;
        if ((r = skip_scalar(c, &opens)))
            return r;
        if (opens) {
            if (level >= SGZ_JSON_DEPTH) {
                c->p--;
                return json_bad(c, "the JSON is nested too deeply");
            }
            uint8_t bit = (uint8_t)(1 << level % 8);
            objects[level / 8] = (uint8_t)(opens == '{' ? objects[level / 8] | bit
                                                        : objects[level / 8] & ~bit);
            level++;
            if ((r = sgz_json_space(c)))
                return r;
            if (*c->p != (opens == '{' ? '}' : ']')) {
                r = opens == '{' ? skip_key(c) : JSON_OK;
                continue;
            }
            c->p++;
            level--;
        }
        /* Behind a value: the ends of what holds it, or the next one. */
        for (;;) {
            if (level == depth)
                return JSON_OK;
            int object = objects[(level - 1) / 8] >> (level - 1) % 8 & 1;
            if ((r = sgz_json_space(c)))
                return r;
            if (*c->p == (object ? '}' : ']')) {
                c->p++;
                level--;
                continue;
            }
            if (*c->p != ',')
                return json_bad(c, "expected a comma or the end of the object or array");
            c->p++;
            if (!(r = sgz_json_space(c)) && object)
                r = skip_key(c);
            break;
        }
    }
    return r;
}

static size_t put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 63));
        out[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 63));
    out[2] = (char)(0x80 | (c >> 6 & 63));
    out[3] = (char)(0x80 | (c & 63));
    return 4;
}

static uint32_t hex4(const char *p)
{
    uint32_t v = 0;
    for (int i = 0; i < 4; i++)
        v = v << 4 | hex_digit(p[i]);
    return v;
}

/* The escape at p (behind the backslash; checked before); returns what follows it. */
static const char *put_escape(const char *p, const char *end, char **out, int *bad)
{
    static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
    if (*p != 'u') {
        const char *at = memchr(from, *p, 5);
        *(*out)++ = at ? to[at - from] : *p;
        return p + 1;
    }
    uint32_t c = hex4(p + 1);
    p += 5;
    if (c >= 0xd800 && c < 0xe000) {
        uint32_t low = 0;
        if (c < 0xdc00 && end - p >= 6 && p[0] == '\\' && p[1] == 'u')
            low = hex4(p + 2);
        if (low >= 0xdc00 && low < 0xe000) {
            c = 0x10000 + ((c - 0xd800) << 10 | (low - 0xdc00));
            p += 6;
        } else {
            c = 0xfffd;
            *bad = 1;
        }
    }
    *out += put_utf8(*out, c);
    return p;
}

size_t sgz_base_json_decode(const sgz_json_span *span, char *out, int *bad)
{
    if (span->plain) {
        if (span->len)
            memcpy(out, span->ptr, span->len);
        return span->len;
    }
    char *start = out;
    const char *p = span->ptr, *end = p + span->len;
    while (p < end) {
        if (*p == '\\') {
            p = put_escape(p + 1, end, &out, bad);
            continue;
        }
        unsigned n = sgz_utf8_len(p, (size_t)(end - p));
        if (n) {
            for (; n; n--)
                *out++ = *p++;
        } else {
            out += put_utf8(out, 0xfffd);
            *bad = 1;
            p++;
        }
    }
    return (size_t)(out - start);
}

/* Of each character its value, 0x80 for what has none. */
static const uint8_t base64_digits[256] = {
#define NONE8 128, 128, 128, 128, 128, 128, 128, 128
    NONE8, NONE8, NONE8, NONE8, NONE8,
    128, 128, 128, 62, 128, 128, 128, 63,
    52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 128, 128, 128, 128, 128, 128,
    128, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
    15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 128, 128, 128, 128, 128,
    128, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40,
    41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 128, 128, 128, 128, 128,
    NONE8, NONE8, NONE8, NONE8, NONE8, NONE8, NONE8, NONE8,
    NONE8, NONE8, NONE8, NONE8, NONE8, NONE8, NONE8, NONE8,
#undef NONE8
};

size_t sgz_base_json_base64(const char *text, size_t len, char *out)
{
    if (len % 4)
        return SIZE_MAX;
    size_t pad = 0;
    while (pad < 2 && pad < len && text[len - 1 - pad] == '=')
        pad++;
    const uint8_t *in = (const uint8_t *)text;
    size_t whole = pad ? len - 4 : len;
    char *start = out;
    unsigned bad = 0;
    for (size_t i = 0; i < whole; i += 4, out += 3) {
        uint8_t a = base64_digits[in[i]], b = base64_digits[in[i + 1]];
        uint8_t c = base64_digits[in[i + 2]], d = base64_digits[in[i + 3]];
        bad |= a | b | c | d;
        out[0] = (char)(a << 2 | b >> 4);
        out[1] = (char)(b << 4 | c >> 2);
        out[2] = (char)(c << 6 | d);
    }
    if (pad) {
        uint8_t a = base64_digits[in[whole]], b = base64_digits[in[whole + 1]];
        uint8_t c = pad == 1 ? base64_digits[in[whole + 2]] : 0;
        bad |= a | b | c;
        *out++ = (char)(a << 2 | b >> 4);
        if (pad == 1)
            *out++ = (char)(b << 4 | c >> 2);
    }
    return bad & 0x80 ? SIZE_MAX : (size_t)(out - start);
}
