/* A layer made in memory, for the tests of what reads chunks. */
#ifndef SGZ_TEST_LAYER_H
#define SGZ_TEST_LAYER_H

#include <string.h>

#include "check.h"
#include "chunks/table.h"

typedef struct {
    sgz_toc *toc;
    sgz_spans spans;
    uint8_t *data;         /* the blob */
    size_t len, cap;
    uint8_t **contents;    /* of each file */
    size_t *sizes;
    uint32_t *rows;
    uint32_t files;
    sgz_points points;     /* of one that test_points.c makes */
} layer;

static sgz_codecs codecs;

static inline void load_codecs(void)
{
    sgz_error err;
    if (sgz_codec_load_isal(&codecs, "libisal.so.2", &err) ||
        sgz_codec_load_crypto(&codecs, "libcrypto.so.3", &err)) {
        fprintf(stderr, "%s: install libisal2 and libssl3\n", err.message);
        exit(1);
    }
}

static inline void sha256_of(const void *data, size_t len, uint8_t out[32])
{
    sgz_sha256 sha;
    CHECK(!sgz_codec_sha256_new(&codecs, &sha, NULL));
    sgz_codec_sha256_init(&codecs, &sha);
    sgz_codec_sha256_update(&codecs, &sha, data, len);
    sgz_codec_sha256_final(&codecs, &sha, out);
    sgz_codec_sha256_free(&codecs, &sha);
}

/* `files` files of up to `largest` bytes, in chunks of `chunk` bytes, `share` of them to a
 * member; the files whose number is a multiple of `bare` have no digest (0: all have one). */
static inline layer make_layer(uint32_t files, size_t largest, size_t chunk, int share, int bare)
{
    layer l = {.toc = sgz_toc_new(), .files = files};
    sgz_deflater d;
    sgz_error err;
    l.contents = calloc(files, sizeof *l.contents);
    l.sizes = calloc(files, sizeof *l.sizes);
    l.rows = calloc(files, sizeof *l.rows);
    size_t room = (largest + chunk) * (size_t)(share + 1), held = 0, start = 0;
    uint8_t *open = malloc(room);
    int in_member = 0;
    CHECK(open && l.toc && !sgz_codec_deflater_init(&d, &codecs, 1, &err));
    for (uint32_t f = 0; f <= files; f++) {
        size_t size = f < files ? 1 + below((uint32_t)largest) : 0;
        uint8_t *text = malloc(size + 1);
        for (size_t i = 0; i < size; i++)
            text[i] = (uint8_t)(below(3) ? 'a' + f % 20 : below(256));
        for (size_t at = 0; at < size || f == files; at += chunk) {
            if (in_member == share || f == files) { /* the member is full */
                size_t made;
                if (l.cap - l.len < sgz_codec_member_bound(held)) {
                    l.cap = 2 * l.cap + sgz_codec_member_bound(held);
                    l.data = realloc(l.data, l.cap);
                }
                CHECK(!sgz_codec_deflate_member(&d, open, held, 0, l.data + l.len, l.cap - l.len,
                                                &made, &err));
                l.len += made;
                start = l.len;
                held = 0;
                in_member = 0;
                if (f == files)
                    break;
            }
            size_t n = size - at < chunk ? size - at : chunk;
            sgz_entry *e = sgz_toc_append(l.toc);
            if (!at) {
                char name[32];
                l.rows[f] = (uint32_t)l.toc->count - 1;
                e->name_len = (uint32_t)snprintf(name, sizeof name, "file%u", f);
                e->name_off = sgz_toc_store(l.toc, name, e->name_len);
                e = &l.toc->rows[l.toc->count - 1];
                e->type = SGZ_REG;
                e->size = (int64_t)size;
            } else {
                e->type = SGZ_CHUNK;
            }
            e->offset = (int64_t)start;
            e->inner_offset = (int64_t)held;
            e->chunk_offset = (int64_t)at;
            e->chunk_size = (int64_t)n;
            if (!bare || f % (uint32_t)bare) {
                sha256_of(text + at, n, e->chunk_digest);
                e->flags = SGZ_HAS_CHUNK_DIGEST;
            }
            memcpy(open + held, text + at, n);
            held += n;
            in_member++;
        }
        if (f < files) {
            l.contents[f] = text;
            l.sizes[f] = size;
        } else {
            free(text);
        }
    }
    free(open);
    sgz_codec_deflater_free(&d);
    CHECK(!sgz_read_spans_init(&l.spans, l.toc, NULL, (int64_t)l.len, &err));
    return l;
}

static inline void free_layer(layer *l)
{
    for (uint32_t i = 0; i < l->files; i++)
        free(l->contents[i]);
    free(l->contents);
    free(l->sizes);
    free(l->rows);
    sgz_read_spans_free(&l->spans);
    sgz_codec_points_free(&l->points);
    sgz_toc_free(l->toc);
    free(l->data);
}

static inline sgz_blob memory_blob(const layer *l)
{
    return (sgz_blob){.data = l->data, .fd = -1, .size = (int64_t)l->len};
}

/* A blob that has to be fetched. */
static inline sgz_blob far_blob(const layer *l)
{
    return (sgz_blob){.fd = -1, .size = (int64_t)l->len};
}

#endif
