/* JSON as the two formats of a TOC are written with: of rows, in pieces, without a tree. Each function
 * exists twice in who includes this: see BOTH. */
#ifndef SGZ_TOC_JSON_OUT_H
#define SGZ_TOC_JSON_OUT_H

#include "base/bytes.h"
#include "base/time.h"
#include "base/xattrs.h"
#include "toc/internal.h"

/* Output is handed out in pieces of about this size. */
#define PIECE ((size_t)64 << 10)
/* Room for everything of an entry that has a fixed bound, between two reserves. */
#define SLACK ((size_t)1 << 10)
/* Text is escaped in runs of this many bytes, each at most six times as long. */
#define RUN ((size_t)1 << 10)
#define BASE64_RUN ((size_t)300) /* bytes, whose text is within SLACK */

typedef struct {
    char *buf, *p;
    uint64_t total;
    sgz_toc_emit emit;
    void *arg;
    int stopped;
} sgz_json_out;

/* Every function below exists twice: `counting` is a constant in each, and what only
 * counts touches no memory but the rows. So the length and the text cannot disagree. */
#define BOTH static inline __attribute__((always_inline))

static inline void flush(sgz_json_out *w)
{
    size_t len = (size_t)(w->p - w->buf);
    if (len && !w->stopped)
        w->stopped = w->emit(w->arg, w->buf, len);
    w->total += len;
    w->p = w->buf;
}

BOTH void reserve(sgz_json_out *w, int counting, size_t len)
{
    if (!counting && (size_t)(w->p - w->buf) + len > PIECE)
        flush(w);
}

BOTH void put(sgz_json_out *w, int counting, const char *text, size_t len)
{
    if (counting) {
        w->total += len;
    } else {
        memcpy(w->p, text, len);
        w->p += len;
    }
}

#define PUT(text) put(w, counting, text, sizeof(text) - 1)

BOTH void put_int(sgz_json_out *w, int counting, uint64_t value)
{
    char digits[20];
    int at = 20;
    do
        digits[--at] = (char)('0' + value % 10);
    while (value /= 10);
    put(w, counting, digits + at, (size_t)(20 - at));
}

/* --- text ------------------------------------------------------------------------------- */

/* Whether JSON, as Go writes it, holds the bytes as they are. No exit from the loop: the
 * compiler makes vector code of it. */
static inline int is_plain(const char *text, size_t len)
{
    uint8_t odd = 0;
    for (size_t i = 0; i < len; i++) {
        uint8_t c = (uint8_t)text[i];
        odd |= (uint8_t)((c < 0x20) | (c >= 0x80) | (c == '"') | (c == '\\') | (c == '<') |
                         (c == '>') | (c == '&'));
    }
    return !odd;
}

/* Escape one character at text[0..len); returns how many bytes it has. */
BOTH size_t put_char(sgz_json_out *w, int counting, const char *text, size_t len)
{
    uint8_t c = (uint8_t)text[0];
    if (c >= 0x80) {
        unsigned n = sgz_utf8_len(text, len);
        if (!n) {
            PUT("\\ufffd");
            return 1;
        }
        if (n == 3 && !memcmp(text, "\xe2\x80\xa8", 3))
            PUT("\\u2028");
        else if (n == 3 && !memcmp(text, "\xe2\x80\xa9", 3))
            PUT("\\u2029");
        else
            put(w, counting, text, n);
        return n;
    }
    switch (c) {
    case '"':
        PUT("\\\"");
        break;
    case '\\':
        PUT("\\\\");
        break;
    case '\b':
        PUT("\\b");
        break;
    case '\f':
        PUT("\\f");
        break;
    case '\n':
        PUT("\\n");
        break;
    case '\r':
        PUT("\\r");
        break;
    case '\t':
        PUT("\\t");
        break;
    default:
        if (c < 0x20 || c == '<' || c == '>' || c == '&') {
            char escape[6] = "\\u00";
            sgz_put_hex(escape + 4, &c, 1);
            put(w, counting, escape, 6);
        } else {
            put(w, counting, text, 1);
        }
    }
    return 1;
}

BOTH void put_text(sgz_json_out *w, int counting, const char *text, size_t len)
{
    PUT("\"");
    for (size_t at = 0; at < len;) {
        size_t n = len - at < RUN ? len - at : RUN;
        if (is_plain(text + at, n)) {
            reserve(w, counting, n + SLACK);
            put(w, counting, text + at, n);
            at += n;
        } else {
            reserve(w, counting, 6 * (n + 4) + SLACK);
            for (size_t end = at + n; at < end;)
                at += put_char(w, counting, text + at, len - at);
        }
    }
    PUT("\"");
}

BOTH void put_digest(sgz_json_out *w, int counting, const uint8_t digest[32])
{
    if (counting) {
        w->total += 73;
        return;
    }
    PUT("\"sha256:");
    w->p = sgz_put_hex(w->p, digest, 32);
    PUT("\"");
}

BOTH void put_base64(sgz_json_out *w, int counting, const uint8_t *data, size_t len)
{
    if (counting) {
        w->total += 2 + sgz_base64_len(len);
        return;
    }
    PUT("\"");
    for (size_t at = 0, n; at < len; at += n) {
        n = len - at < BASE64_RUN ? len - at : BASE64_RUN;
        reserve(w, counting, SLACK);
        w->p = sgz_put_base64(w->p, data + at, n);
    }
    PUT("\"");
}

/* --- time ------------------------------------------------------------------------------- */

BOTH void put_time(sgz_json_out *w, int counting, int64_t seconds, uint32_t nanoseconds)
{
    char text[SGZ_TIME_MAX];
    size_t len = sgz_base_time_format(seconds, nanoseconds, text);
    PUT("\"");
    put(w, counting, text, len);
    PUT("\"");
}

#endif
