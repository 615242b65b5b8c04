/* TOC JSON of zstd:chunked: the same rows, or a refusal, whatever the pieces; and of what was
 * accepted the entries as they stand, one for each header's row, found by name in any order. */
#include "fuzz.h"
#include "verify/entries.h"

#define BLOB_END 100000

typedef struct {
    const uint8_t *data;
    size_t len, at, step;
} memory;

static sgz_status pull(void *arg, void *out, size_t cap, size_t *got, sgz_error *err)
{
    memory *m = arg;
    (void)err;
    *got = m->len - m->at < cap ? m->len - m->at : cap;
    if (*got)
        memcpy(out, m->data + m->at, *got);
    m->at += *got;
    return SGZ_OK;
}

/* NULL when it is refused. Every piece is a copy of its exact length. */
static sgz_toc *parse(const uint8_t *data, size_t size, size_t step, sgz_error *err)
{
    sgz_toc *toc = sgz_toc_new();
    CHECK(toc);
    sgz_toc_parser *parser = sgz_toc_parser_new(toc);
    CHECK(parser);
    sgz_toc_parser_limit(parser, BLOB_END);
    sgz_toc_parser_chunked(parser);
    sgz_status status = SGZ_OK;
    for (size_t at = 0; at < size && !status; at += step) {
        size_t len = size - at < step ? size - at : step;
        char *piece = malloc(len);
        CHECK(piece);
        memcpy(piece, data + at, len);
        status = sgz_toc_parse(parser, piece, len, err);
        free(piece);
    }
    if (!status)
        status = sgz_toc_parse_finish(parser, BLOB_END, err);
    sgz_toc_parser_free(parser);
    if (!status)
        return toc;
    CHECK(status == SGZ_ETOC && err->message[0]);
    sgz_toc_free(toc);
    return NULL;
}

typedef struct {
    char **names;
    size_t *lens;
    size_t count;
} list;

static void note(void *arg, const char *name, size_t len)
{
    list *l = arg;
    l->names = realloc(l->names, (l->count + 1) * sizeof *l->names);
    l->lens = realloc(l->lens, (l->count + 1) * sizeof *l->lens);
    CHECK(l->names && l->lens && (l->names[l->count] = malloc(len + 1)));
    if (len)
        memcpy(l->names[l->count], name, len);
    l->lens[l->count++] = len;
}

static void look_at(const sgz_verify_entry *entry)
{
    const char *at = entry->xattrs, *end = at + entry->xattr_len;
    sgz_xattr x;
    unsigned sum = 0;
    for (size_t i = 0; i < entry->link_len; i++)
        sum += (uint8_t)entry->link[i];
    for (size_t i = 0; i < entry->uname_len + entry->gname_len; i++)
        sum += (uint8_t)entry->uname[i];
    while (sgz_xattrs_next(&at, end, &x))
        sum += x.key_len + x.value_len;
    CHECK(at == end && sum != 1u << 31);
}

static void check_entries(const sgz_toc *toc, const uint8_t *data, size_t size)
{
    memory m = {data, size, 0, 0};
    sgz_verify_pull p = {pull, &m, 0};
    sgz_error err;
    sgz_verify_entry entry;
    list l = {0};
    int none;
    size_t rows = 0;
    sgz_verify_entries *e = sgz_verify_entries_new(p);
    CHECK(e && !sgz_verify_entries_rest(e, note, &l, &err));
    sgz_verify_entries_free(e);
    for (size_t i = 0; i < toc->count; i++)
        rows += !sgz_toc_is_piece(&toc->rows[i]);
    CHECK(l.count <= rows);
    m.at = 0;
    e = sgz_verify_entries_new(p);
    CHECK(e);
    for (size_t i = l.count; i-- > 0;) {
        CHECK(!sgz_verify_entries_take(e, l.names[i], l.lens[i], &entry, &none, &err) && !none);
        look_at(&entry);
        CHECK(entry.type >= SGZ_DIR && entry.type < SGZ_CHUNK);
        CHECK(!sgz_verify_entries_take(e, l.names[i], l.lens[i], &entry, &none, &err) && none);
        free(l.names[i]);
    }
    sgz_verify_entries_free(e);
    free(l.names);
    free(l.lens);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sgz_error err, again;
    sgz_toc *toc = parse(data, size, size ? size : 1, &err);
    sgz_toc *pieces = parse(data, size, 7, &again);
    CHECK(!toc == !pieces);
    if (toc) {
        CHECK(toc->count == pieces->count && toc->arena_len == pieces->arena_len);
        CHECK(toc->has_split == pieces->has_split);
        check_entries(toc, data, size);
        sgz_toc_free(toc);
        sgz_toc_free(pieces);
    }
    return 0;
}
