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

typedef struct {
    char *buf, *p;
    uint64_t total;
    sgz_toc_emit emit;
    void *arg;
    int stopped;
} writer;

/* Every function below exists twice: `counting` is a constant in each, and what only
 * counts touches no memory but the rows. So the length and the text cannot disagree. */
#define BOTH static inline __attribute__((always_inline))

static void flush(writer *w)
{
    size_t len = (size_t)(w->p - w->buf);
    if (len && !w->stopped)
        w->stopped = w->emit(w->arg, w->buf, len);
    w->total += len;
    w->p = w->buf;
}

BOTH void reserve(writer *w, int counting, size_t len)
{
    if (!counting && (size_t)(w->p - w->buf) + len > PIECE)
        flush(w);
}

BOTH void put(writer *w, int counting, const char *text, size_t len)
{
    if (counting) {
        w->total += len;
    } else {
        memcpy(w->p, text, len);
        w->p += len;
    }
}

#define PUT(text) put(w, counting, text, sizeof(text) - 1)

BOTH void put_int(writer *w, int counting, uint64_t value)
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
static int is_plain(const char *text, size_t len)
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
BOTH size_t put_char(writer *w, int counting, const char *text, size_t len)
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

BOTH void put_text(writer *w, int counting, const char *text, size_t len)
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

BOTH void put_digest(writer *w, int counting, const uint8_t digest[32])
{
    if (counting) {
        w->total += 73;
        return;
    }
    PUT("\"sha256:");
    w->p = sgz_put_hex(w->p, digest, 32);
    PUT("\"");
}

BOTH void put_base64(writer *w, int counting, const uint8_t *data, size_t len)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if (counting) {
        w->total += 2 + (len + 2) / 3 * 4;
        return;
    }
    PUT("\"");
    for (size_t i = 0; i < len; i += 3) {
        size_t n = len - i < 3 ? len - i : 3;
        uint32_t v = (uint32_t)data[i] << 16;
        v |= n > 1 ? (uint32_t)data[i + 1] << 8 : 0;
        v |= n > 2 ? data[i + 2] : 0;
        reserve(w, counting, SLACK);
        *w->p++ = digits[v >> 18];
        *w->p++ = digits[v >> 12 & 63];
        *w->p++ = n > 1 ? digits[v >> 6 & 63] : '=';
        *w->p++ = n > 2 ? digits[v & 63] : '=';
    }
    PUT("\"");
}

/* --- time ------------------------------------------------------------------------------- */

BOTH void put_time(writer *w, int counting, int64_t mtime)
{
    char text[SGZ_TIME_MAX];
    size_t len = sgz_base_time_format(mtime, 0, text);
    PUT("\"");
    put(w, counting, text, len);
    PUT("\"");
}

/* --- entries ---------------------------------------------------------------------------- */

#define KEY(name) PUT(",\n\t\t\t\"" name "\": ")
#define NUMBER(name, value)                                                                \
    do {                                                                                   \
        if (value) {                                                                       \
            KEY(name);                                                                     \
            put_int(w, counting, (uint64_t)(value));                                       \
        }                                                                                  \
    } while (0)

BOTH void put_xattrs(writer *w, int counting, const char *at, size_t len)
{
    const char *end = at + len;
    KEY("xattrs");
    sgz_xattr x;
    for (int first = 1; sgz_xattrs_next(&at, end, &x); first = 0) {
        reserve(w, counting, SLACK);
        if (first)
            PUT("{\n\t\t\t\t");
        else
            PUT(",\n\t\t\t\t");
        put_text(w, counting, x.key, x.key_len);
        PUT(": ");
        put_base64(w, counting, (const uint8_t *)x.value, x.value_len);
    }
    PUT("\n\t\t\t}");
}

/* The name of an owner, unless it is the last one seen for the id. 0: no memory. */
BOTH int name_if_changed(sgz_toc_id_map *map, uint32_t id, uint32_t number, int *changed)
{
    *changed = number && sgz_toc_id_map_get(map, id) != number;
    return !*changed || sgz_toc_id_map_put(map, id, number);
}

/* The first piece of such a file is written on its own entry. */
static inline int begins_with_zeros(const sgz_toc *toc, size_t number)
{
    const sgz_entry *row = &toc->rows[number];
    return row->type == SGZ_REG && !row->chunk_size && number + 1 < toc->count &&
           row[1].type == SGZ_ZEROS;
}

/* 0: no memory. */
BOTH int put_row(writer *w, int counting, const sgz_toc *toc, uint32_t number,
                 const char *name, size_t name_len, int legacy, sgz_toc_id_map *users,
                 sgz_toc_id_map *groups)
{
    const sgz_entry *row = &toc->rows[number];
    const sgz_entry *piece = begins_with_zeros(toc, number) ? row + 1 : row;
    const char *type = sgz_toc_type_name(row->type);
    const char *text;
    size_t len;
    int changed;
    reserve(w, counting, SLACK);
    PUT("\n\t\t{\n\t\t\t\"name\": ");
    put_text(w, counting, name, name_len);
    KEY("type");
    PUT("\"");
    put(w, counting, type, strlen(type));
    PUT("\"");
    if (row->type == SGZ_REG)
        NUMBER("size", row->size);
    if (!sgz_toc_is_piece(row)) {
        /* Of the epoch, too, which the reference leaves out: its reader then shows the year 1. */
        if (row->mtime != SGZ_NO_TIME) {
            KEY("modtime");
            put_time(w, counting, row->mtime);
        }
        if (row->link_len) {
            KEY("linkName");
            put_text(w, counting, toc->arena + row->link_off, row->link_len);
        }
        reserve(w, counting, SLACK);
        NUMBER("mode", row->mode);
        NUMBER("uid", row->uid);
        NUMBER("gid", row->gid);
        if (!name_if_changed(users, row->uid, row->uname, &changed))
            return 0;
        if (changed) {
            KEY("userName");
            text = sgz_toc_string(toc, row->uname, &len);
            put_text(w, counting, text, len);
        }
        if (!name_if_changed(groups, row->gid, row->gname, &changed))
            return 0;
        if (changed) {
            KEY("groupName");
            text = sgz_toc_string(toc, row->gname, &len);
            put_text(w, counting, text, len);
        }
    }
    reserve(w, counting, SLACK);
    NUMBER("offset", piece->offset);
    NUMBER("innerOffset", piece->inner_offset);
    if (row->type == SGZ_CHAR || row->type == SGZ_BLOCK) {
        NUMBER("devMajor", row->dev_major);
        NUMBER("devMinor", row->dev_minor);
    }
    if (row->xattr_len) {
        put_xattrs(w, counting, toc->arena + row->xattr_off, row->xattr_len);
        reserve(w, counting, SLACK);
    }
    const uint8_t *digest = sgz_toc_digest(toc, number);
    if (digest) {
        KEY("digest");
        put_digest(w, counting, digest);
    }
    NUMBER("chunkOffset", piece->chunk_offset);
    if (piece->flags & SGZ_SET_CHUNK_SIZE || piece->type == SGZ_ZEROS)
        NUMBER("chunkSize", piece->chunk_size);
    if (!legacy && piece->flags & SGZ_HAS_CHUNK_DIGEST) {
        KEY("chunkDigest");
        put_digest(w, counting, piece->chunk_digest);
    }
    if (piece->type == SGZ_ZEROS) {
        KEY("chunkType");
        PUT("\"zeros\"");
    }
    PUT("\n\t\t}");
    return 1;
}

BOTH int put_toc(writer *w, int counting, const sgz_toc *toc, int legacy, sgz_toc_id_map *users,
                 sgz_toc_id_map *groups)
{
    const char *name = NULL; /* of the last entry: a chunk carries it */
    size_t name_len = 0;
    int first = 1;
    PUT("{\n\t\"version\": 1,\n\t\"entries\": ");
    for (size_t i = 0; i < toc->count && (counting || !w->stopped); i++) {
        const sgz_entry *row = &toc->rows[i];
        if (!sgz_toc_is_piece(row) || !name) {
            name = sgz_toc_entry_name(toc, row);
            name_len = row->name_len;
        }
        if (row->flags & SGZ_DROPPED || (i && begins_with_zeros(toc, i - 1)))
            continue;
        if (first)
            PUT("[");
        else
            PUT(",");
        first = 0;
        if (!put_row(w, counting, toc, (uint32_t)i, name, name_len, legacy, users, groups))
            return 0;
    }
    /* The reference marshals a list that it never appended to. */
    if (first)
        PUT("null");
    else
        PUT("\n\t]");
    PUT("\n}");
    return 1;
}

static int count_toc(writer *w, const sgz_toc *toc, int legacy, sgz_toc_id_map *users,
                     sgz_toc_id_map *groups)
{
    return put_toc(w, 1, toc, legacy, users, groups);
}

static int write_toc(writer *w, const sgz_toc *toc, int legacy, sgz_toc_id_map *users,
                     sgz_toc_id_map *groups)
{
    int ok = put_toc(w, 0, toc, legacy, users, groups);
    flush(w);
    return ok;
}

sgz_status sgz_toc_format(const sgz_toc *toc, int legacy, sgz_toc_emit emit, void *arg,
                          uint64_t *len, sgz_error *err)
{
    writer w = {.emit = emit, .arg = arg};
    sgz_toc_id_map users = {.seed = toc->seed}, groups = {.seed = toc->seed};
    int ok;
    if (emit) {
        w.p = w.buf = malloc(PIECE + SLACK);
        ok = w.buf && write_toc(&w, toc, legacy, &users, &groups);
    } else {
        ok = count_toc(&w, toc, legacy, &users, &groups);
    }
    free(w.buf);
    sgz_toc_id_map_free(&users);
    sgz_toc_id_map_free(&groups);
    *len = w.total;
    if (!ok)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to format the TOC");
    if (w.stopped)
        return sgz_base_fail(err, SGZ_ECALLBACK, -1, NULL, 0, "writing the TOC was stopped");
    return SGZ_OK;
}
