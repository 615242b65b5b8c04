/* Indexes made in memory, of blobs that are not there. */
#ifndef SGZ_TEST_INDEX_PARTS_H
#define SGZ_TEST_INDEX_PARTS_H

#include <string.h>

#include "check.h"
#include "index/format.h"
#include "index/limits.h"

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

typedef struct {
    uint8_t *data;
    size_t len, cap;
} text;

static inline sgz_status take(void *arg, const uint8_t *data, size_t len, sgz_error *err)
{
    (void)err;
    text *t = arg;
    if (t->cap - t->len < len) {
        t->cap = 2 * (t->len + len);
        CHECK((t->data = realloc(t->data, t->cap)));
    }
    memcpy(t->data + t->len, data, len);
    t->len += len;
    return SGZ_OK;
}

static inline void sum_of(const uint8_t *data, size_t len, uint8_t out[32])
{
    sgz_sha256 sha;
    CHECK(!sgz_codec_sha256_new(&codecs, &sha, NULL));
    sgz_codec_sha256_init(&codecs, &sha);
    sgz_codec_sha256_update(&codecs, &sha, data, len);
    sgz_codec_sha256_final(&codecs, &sha, out);
    sgz_codec_sha256_free(&codecs, &sha);
}

/* Points each 64 KiB or so of `end` bytes, with histories of nothing much. */
static inline void make_points(sgz_points *points, sgz_point_kind kind, int64_t end)
{
    static uint8_t window[SGZ_HISTORY_MAX];
    points->kind = kind;
    points->end = points->size = end;
    if (kind == SGZ_POINT_STORED)
        return;
    sgz_point p = {.offset = kind == SGZ_POINT_DEFLATE ? 10 : 0};
    while (p.out < end) {
        for (size_t i = 0; i < sizeof window; i++)
            window[i] = (uint8_t)below(256);
        CHECK(!sgz_codec_points_append(points, p, window, NULL));
        p.offset += 1 + below(50000);
        p.out += 60000 + below(20000);
        if (kind != SGZ_POINT_DEFLATE)
            continue;
        p.skip = (uint8_t)below(8);
        p.history = 1 + below(below(2) ? 30 : SGZ_HISTORY_MAX);
        p.packed = below(2) ? 0 : 1 + below(p.history);
        if (!below(10))
            p.skip = 0, p.history = p.packed = 0;
    }
    points->size = p.offset + 100;
}

static inline uint64_t store(sgz_index *index, const char *string, uint32_t *len)
{
    *len = (uint32_t)strlen(string);
    uint64_t at = sgz_toc_store(index->toc, string, *len);
    CHECK(at != UINT64_MAX);
    return at;
}

/* Cut a file into pieces at points, and some with holes; returns the rows' number. */
static inline void add_pieces(sgz_index *index, uint32_t row, int64_t content, int64_t size)
{
    sgz_toc *toc = index->toc;
    int64_t done = 0, data = 0;
    int begins = !below(5), first = 1;
    for (; done < size; first = 0) {
        int hole = first ? begins : !below(4) && toc->rows[toc->count - 1].type != SGZ_ZEROS;
        int64_t n = 1 + below(100000);
        n = n < size - done ? n : size - done;
        sgz_entry piece = {.type = hole ? SGZ_ZEROS : SGZ_CHUNK, .chunk_offset = done};
        if (!hole) {
            int64_t out = content + data, start = out;
            piece.offset = out;
            if (index->points.count) {
                size_t i = sgz_codec_points_before(&index->points, out);
                int64_t end = sgz_index_span_end(&index->points, i);
                n = n < end - out ? n : end - out;
                piece.offset = index->points.at[i].offset;
                start = index->points.at[i].out;
            }
            piece.inner_offset = out - start;
            piece.flags = SGZ_SET_CHUNK_SIZE | SGZ_HAS_CHUNK_DIGEST;
            memset(piece.chunk_digest, (int)below(256), 32);
            data += n;
        }
        piece.chunk_size = n;
        done += n;
        sgz_entry *to = first && !hole ? &toc->rows[row] : sgz_toc_append(toc);
        CHECK(to);
        const sgz_entry *owner = &toc->rows[row];
        piece.name_off = owner->name_off;
        piece.name_len = owner->name_len;
        piece.flags |= owner->flags & SGZ_DROPPED;
        if (to == owner) {
            piece.type = SGZ_REG;
            piece.size = size;
            piece.mode = owner->mode;
            piece.mtime = owner->mtime;
            piece.uname = owner->uname;
            piece.uid = owner->uid;
        }
        *to = piece;
    }
}

static inline int64_t add_entry(sgz_index *index, int type, const char *name, const char *link,
                                const char *user, int64_t begin, int64_t size)
{
    sgz_toc *toc = index->toc;
    sgz_entry row = {.type = (uint8_t)type, .size = size, .mode = 0644, .uid = below(4),
                     .mtime = (int64_t)below(2000000000) - 500000000};
    uint32_t number = (uint32_t)toc->count;
    row.name_off = store(index, name, &row.name_len);
    row.link_off = store(index, link, &row.link_len);
    row.uname = sgz_toc_intern(toc, user, strlen(user));
    row.flags = type == SGZ_REG && !below(20) ? SGZ_DROPPED : 0;
    sgz_entry *to = sgz_toc_append(toc);
    CHECK(to);
    *to = row;
    sgz_toc_origin place = {.name = row.name_off, .name_len = row.name_len, .ns = below(3)};
    place.ns *= below(500000000);
    if (!below(8))
        place.name = store(index, below(2) ? "elsewhere/in the tar" : "o\xffther", &place.name_len);
    place.header = SGZ_TAR_BLOCK * (1 + below(4));
    place.content = begin + SGZ_TAR_BLOCK * (int64_t)below(3) + place.header;
    if (type == SGZ_REG)
        add_pieces(index, number, place.content, size);
    toc->origins = realloc(toc->origins, toc->count * sizeof place);
    CHECK(toc->origins);
    memset(toc->origins + number, 0, (toc->count - number) * sizeof place);
    toc->origins[number] = place;
    toc->origin_cap = toc->count;
    return sgz_index_padded(place.content + size);
}

/* As a pass over a blob would leave it, not settled yet. */
static inline sgz_index make_index(sgz_point_kind kind, int entries)
{
    static const char *const users[] = {"", "root", "us\xe9r", "\xff"};
    sgz_index index = {.toc = sgz_toc_new(), .span_size = 65536};
    char name[64], link[64];
    CHECK(index.toc);
    make_points(&index.points, kind, (int64_t)entries * 400000 + 20000);
    memset(index.digest, 1, 32);
    memset(index.diff_id, 2, 32);
    int64_t at = add_entry(&index, SGZ_DIR, "./", "", "", 0, 0);
    for (int i = 0; i < entries; i++) {
        const char *user = users[below(4)];
        snprintf(name, sizeof name, below(3) ? "./d%d/f\xff%d" : "d%d//f%d", i % 7, i);
        snprintf(link, sizeof link, "\xc3\x28%d", i);
        if (i % 5 == 3)
            at = add_entry(&index, SGZ_SYMLINK, name, link, user, at, 0);
        else
            at = add_entry(&index, SGZ_REG, name, "", user, at, below(8) ? below(200000) : 0);
    }
    /* Two names that JSON cannot tell apart. */
    at = add_entry(&index, SGZ_FIFO, "same\xfe", "", "", at, 0);
    at = add_entry(&index, SGZ_FIFO, "same\xff", "", "", at, 0);
    index.archive_size = at + 2 * SGZ_TAR_BLOCK;
    CHECK(index.archive_size <= index.points.end);
    return index;
}

static inline text write_index(const sgz_index *index)
{
    text t = {0};
    sgz_error err = {0};
    sgz_status status = sgz_index_write(index, &codecs, take, &t, NULL, &err);
    if (status)
        fprintf(stderr, "%s: %s\n", err.name, err.message);
    CHECK(!status);
    return t;
}

#endif
