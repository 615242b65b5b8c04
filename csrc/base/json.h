/* JSON (RFC 8259) out of memory that may end anywhere. */
#ifndef SGZ_BASE_JSON_H
#define SGZ_BASE_JSON_H

#include <stddef.h>
#include <stdint.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* Brackets within brackets. Nothing recurses: a level costs a bit. */
#define SGZ_JSON_DEPTH 2048

/* JSON_MORE: all is well so far, but the memory ends inside the value. */
typedef enum { JSON_OK, JSON_MORE, JSON_BAD } sgz_json_result;

typedef struct {
    const char *p, *end; /* after JSON_BAD p is at the fault */
    const char *what;    /* after JSON_BAD: what is wrong */
} sgz_json_cursor;

/* A string as it stands between its quotes. ptr NULL: absent. */
typedef struct {
    const char *ptr;
    size_t len;
    int plain;           /* ASCII without escapes: needs no decoding */
} sgz_json_span;

static inline sgz_json_result json_bad(sgz_json_cursor *c, const char *what)
{
    c->what = what;
    return JSON_BAD;
}

static inline sgz_json_result sgz_json_space(sgz_json_cursor *c)
{
    while (c->p < c->end && (*c->p == ' ' || *c->p == '\n' || *c->p == '\t' || *c->p == '\r'))
        c->p++;
    return c->p < c->end ? JSON_OK : JSON_MORE;
}

/* The rest of a string, once it is no longer plain. */
sgz_json_result sgz_base_json_string_rest(sgz_json_cursor *c, sgz_json_span *span);

/* A string; p is at its opening quote and ends up behind the closing one. */
static inline sgz_json_result sgz_json_string(sgz_json_cursor *c, sgz_json_span *span)
{
    const char *p = c->p + 1;
    span->ptr = p;
    span->plain = 1;
#ifdef __SSE2__
    const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\');
    const __m128i space = _mm_set1_epi8(' ');
    for (; c->end - p >= 16; p += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)p);
        /* Signed: control characters and bytes above 127 are both less than a space. */
        __m128i stop = _mm_or_si128(_mm_cmplt_epi8(v, space),
                                    _mm_or_si128(_mm_cmpeq_epi8(v, quote),
                                                 _mm_cmpeq_epi8(v, backslash)));
        int mask = _mm_movemask_epi8(stop);
        if (mask) {
            p += __builtin_ctz((unsigned)mask);
            break;
        }
    }
#endif
    while (p < c->end && *p != '"' && *p != '\\' && (signed char)*p >= ' ')
        p++;
    c->p = p;
    if (p == c->end)
        return JSON_MORE;
    if (*p != '"')
        return sgz_base_json_string_rest(c, span);
    span->len = (size_t)(p - span->ptr);
    c->p = p + 1;
    return JSON_OK;
}

/* The key of a member, and its colon. */
static inline sgz_json_result sgz_json_key(sgz_json_cursor *c, sgz_json_span *key)
{
    sgz_json_result r;
    if (*c->p != '"')
        return json_bad(c, "expected a key");
    if ((r = sgz_json_string(c, key)) || (r = sgz_json_space(c)))
        return r;
    if (*c->p != ':')
        return json_bad(c, "expected a colon");
    c->p++;
    return JSON_OK;
}

/* An integer of 64 bits; no fraction, no exponent. */
sgz_json_result sgz_base_json_int(sgz_json_cursor *c, int64_t *value);

/* Any value, checked and skipped; `depth` is how deep it stands. */
sgz_json_result sgz_base_json_skip(sgz_json_cursor *c, int depth);

/* The word (null, true, false), if it stands here. */
sgz_json_result sgz_base_json_word(sgz_json_cursor *c, const char *word);

/* Decode a string into out (at least 3 * len bytes, or len if plain). Escapes are resolved;
 * lone surrogates and each byte that is not UTF-8 become U+FFFD, and *bad is set. */
size_t sgz_base_json_decode(const sgz_json_span *span, char *out, int *bad);

/* Padded base64 (RFC 4648) into out (at least len / 4 * 3 bytes, or where the text is); SIZE_MAX:
 * malformed. */
size_t sgz_base_json_base64(const char *text, size_t len, char *out);

#endif
