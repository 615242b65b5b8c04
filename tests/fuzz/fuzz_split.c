/* A tar, its TOC and its tar-split: the same errors whatever the pieces. The input: a byte with the
 * blocks of the tar, these (headers get the right checksum), the TOC's JSON, a NUL, the lines. */
#include "fuzz.h"
#include "tar/stream.h"
#include "verify/split.h"

#define BLOB_END 100000

typedef struct {
    const uint8_t *data;
    size_t len, at;
} memory;

typedef struct {
    size_t count;
    char first[sizeof((sgz_error *)0)->message];
} found;

typedef struct {
    const sgz_spans *spans;
    const uint8_t *tar;
    size_t len;
} layer;

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

static void report(void *arg, const sgz_error *err)
{
    found *f = arg;
    CHECK(err->message[0] && !strchr(err->message, '\n'));
    if (!f->count++)
        memcpy(f->first, err->message, sizeof f->first);
}

/* The chunks are where the tar has contents of their size, and as many as fit. */
static void feed(sgz_verify_split *s, const layer *l, size_t step)
{
    sgz_tar_stream at = {.parser = sgz_tar_parser_new()};
    size_t span = 0;
    CHECK(at.parser);
    for (size_t pos = 0, n; pos < l->len; pos += n) {
        sgz_tar_event event;
        sgz_tar_entry entry;
        sgz_error err;
        const sgz_entry *e = span < l->spans->count ? sgz_read_span_row(l->spans, span) : NULL;
        if (e && at.data >= e->chunk_size && l->len - pos >= (size_t)e->chunk_size) {
            for (size_t k = 0, m; k < (size_t)e->chunk_size; k += m) {
                m = (size_t)e->chunk_size - k < step ? (size_t)e->chunk_size - k : step;
                sgz_verify_split_data(s, span, l->tar + pos + k, m);
            }
            sgz_verify_split_span(s, span++, e->offset + 1);
            sgz_tar_stream_pass(&at, e->chunk_size);
            n = (size_t)e->chunk_size;
            continue;
        }
        if (sgz_tar_stream_take(&at, l->tar + pos, l->len - pos, &n, &event, &entry, &err))
            n = l->len - pos;
        for (size_t k = 0, m; k < n; k += m) {
            m = n - k < step ? n - k : step;
            sgz_verify_split_gap(s, l->tar + pos + k, m, 0);
        }
    }
    sgz_tar_parser_free(at.parser);
}

static found verify(const layer *l, memory toc, memory lines, size_t step)
{
    found f = {0};
    sgz_error err;
    sgz_verify_split *s = sgz_verify_split_new(l->spans, (sgz_verify_pull){pull, &toc, 1},
                                               (sgz_verify_pull){pull, &lines, 2}, report, &f);
    CHECK(s);
    feed(s, l, step);
    CHECK(!sgz_verify_split_finish(s, &err));
    sgz_verify_split_free(s);
    return f;
}

static void verify_twice(uint8_t *tar, size_t tar_len, memory json, memory lines)
{
    static const sgz_points frames = {.kind = SGZ_POINT_ZSTD};
    sgz_spans spans;
    sgz_error err;
    sgz_toc *toc = sgz_toc_new();
    sgz_toc_parser *parser = toc ? sgz_toc_parser_new(toc) : NULL;
    CHECK(parser);
    sgz_toc_parser_limit(parser, BLOB_END);
    sgz_toc_parser_chunked(parser);
    sgz_status status = sgz_toc_parse(parser, (const char *)json.data, json.len, &err);
    if (!status)
        status = sgz_toc_parse_finish(parser, BLOB_END, &err);
    sgz_toc_parser_free(parser);
    if (!status && !sgz_read_spans_init_all(&spans, toc, &frames, BLOB_END, &err)) {
        layer l = {&spans, tar, tar_len};
        found whole = verify(&l, json, lines, tar_len + 1), pieces = verify(&l, json, lines, 13);
        CHECK(whole.count == pieces.count && !strcmp(whole.first, pieces.first));
        sgz_read_spans_free(&spans);
    }
    sgz_toc_free(toc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t tar_len = size ? data[0] * (size_t)SGZ_TAR_BLOCK : 0;
    if (!size || tar_len > size - 1)
        return 0;
    uint8_t *tar = malloc(tar_len + 1);
    CHECK(tar);
    memcpy(tar, data + 1, tar_len);
    for (size_t at = 0; at < tar_len; at += SGZ_TAR_BLOCK)
        if (!memcmp(tar + at + 257, "ustar", 5))
            repair_checksum(tar + at);
    const uint8_t *text = data + 1 + tar_len, *end = data + size;
    const uint8_t *nul = text < end ? memchr(text, 0, (size_t)(end - text)) : NULL;
    if (nul)
        verify_twice(tar, tar_len, (memory){text, (size_t)(nul - text), 0},
                     (memory){nul + 1, (size_t)(end - nul - 1), 0});
    free(tar);
    return 0;
}
