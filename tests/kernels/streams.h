/* Streams made by zlib and libzstd, and their entry points, for tests of what enters blobs. */
#ifndef SGZ_TEST_STREAMS_H
#define SGZ_TEST_STREAMS_H

#include <dlfcn.h>
#include <string.h>

#include "check.h"
#include "codec/points.h"

typedef struct {
    const uint8_t *next_in;
    unsigned avail_in;
    unsigned long total_in;
    uint8_t *next_out;
    unsigned avail_out;
    unsigned long total_out;
    const char *msg;
    void *state, *(*zalloc)(void *, unsigned, unsigned);
    void (*zfree)(void *, void *);
    void *opaque;
    int data_type;
    unsigned long adler, reserved;
} z_stream;

enum { Z_SYNC_FLUSH = 2, Z_FULL_FLUSH = 3, Z_FINISH = 4, Z_BLOCK = 5 };

static struct {
    int (*deflate_init)(z_stream *, int, int, int, int, int, const char *, int);
    int (*deflate)(z_stream *, int);
    int (*deflate_end)(z_stream *);
    int (*inflate_init)(z_stream *, int, const char *, int);
    int (*inflate)(z_stream *, int);
    int (*inflate_reset)(z_stream *);
    int (*inflate_end)(z_stream *);
    size_t (*zstd_compress)(void *, size_t, const void *, size_t, int);
} libs;

static inline void *symbol(void *lib, const char *name)
{
    void *found = lib ? dlsym(lib, name) : NULL;
    if (!found) {
        fprintf(stderr, "%s: install zlib1g and libzstd1\n", name);
        exit(1);
    }
    return found;
}

static inline void load_streams(void)
{
    void *z = dlopen("libz.so.1", RTLD_NOW), *zstd = dlopen("libzstd.so.1", RTLD_NOW);
    *(void **)&libs.deflate_init = symbol(z, "deflateInit2_");
    *(void **)&libs.deflate = symbol(z, "deflate");
    *(void **)&libs.deflate_end = symbol(z, "deflateEnd");
    *(void **)&libs.inflate_init = symbol(z, "inflateInit2_");
    *(void **)&libs.inflate = symbol(z, "inflate");
    *(void **)&libs.inflate_reset = symbol(z, "inflateReset");
    *(void **)&libs.inflate_end = symbol(z, "inflateEnd");
    *(void **)&libs.zstd_compress = symbol(zstd, "ZSTD_compress");
}

/* A blob, and what it decodes to. */
typedef struct {
    uint8_t *blob, *text;
    size_t len, cap, size;
    sgz_points points;
} stream;

static inline stream new_stream(size_t size)
{
    stream s = {.size = size, .cap = 2 * size + 65536};
    s.text = malloc(size + 1);
    s.blob = malloc(s.cap);
    CHECK(s.text && s.blob);
    for (size_t i = 0; i < size; i++) /* matches near and far, and noise */
        s.text[i] = i > 40000 && below(4) ? s.text[i - 20000 - below(2)]
                                          : (uint8_t)('a' + below(1 + (uint32_t)(i >> 12) % 60));
    return s;
}

static inline void free_stream(stream *s)
{
    sgz_codec_points_free(&s->points);
    free(s->text);
    free(s->blob);
}

/* text[from, to) as one more gzip member, flushed each `flush` bytes (0: never) in turn by
 * Z_SYNC_FLUSH, Z_BLOCK and Z_FULL_FLUSH. */
static inline void add_member(stream *s, size_t from, size_t to, int level, int strategy,
                              size_t flush)
{
    static const int flushes[] = {Z_SYNC_FLUSH, Z_BLOCK, Z_FULL_FLUSH, Z_BLOCK};
    z_stream z = {0};
    CHECK(!libs.deflate_init(&z, level, 8, 15 + 16, 8, strategy, "1.2.11", (int)sizeof z));
    z.next_out = s->blob + s->len;
    z.avail_out = (unsigned)(s->cap - s->len);
    int turn = 0;
    for (size_t at = from; at < to || at == from;) {
        size_t n = flush && to - at > flush ? flush : to - at;
        z.next_in = s->text + at;
        z.avail_in = (unsigned)n;
        at += n;
        int st = libs.deflate(&z, at == to ? Z_FINISH : flushes[turn++ % 4]);
        CHECK(at == to ? st == 1 : st == 0 || st == -5);
        CHECK(!z.avail_in);
        if (at == to)
            break;
    }
    s->len = (size_t)(z.next_out - s->blob);
    libs.deflate_end(&z);
}

static inline void add_frame(stream *s, size_t from, size_t to)
{
    s->len += libs.zstd_compress(s->blob + s->len, s->cap - s->len, s->text + from, to - from, 3);
}

/* A point wherever zlib sees a block begin, but for those that decode to nothing; with at most
 * `window` bytes of history. */
static inline void find_points(stream *s, size_t window)
{
    z_stream z = {.next_in = s->blob, .avail_in = (unsigned)s->len, .next_out = s->text,
                  .avail_out = (unsigned)s->size};
    uint8_t *copy = malloc(s->size + 1);
    size_t member = 0;
    int64_t last = -1;
    sgz_error err;
    s->points.kind = SGZ_POINT_DEFLATE;
    s->points.size = (int64_t)s->len;
    s->points.end = (int64_t)s->size;
    CHECK(copy && !libs.inflate_init(&z, 15 + 16, "1.2.11", (int)sizeof z));
    z.next_out = copy;
    for (;;) {
        int st = libs.inflate(&z, Z_BLOCK);
        size_t out = (size_t)(z.next_out - copy);
        if (st == 1) {
            if (!z.avail_in)
                break;
            const uint8_t *in = z.next_in;
            unsigned left = z.avail_in, room = z.avail_out;
            uint8_t *to = z.next_out;
            libs.inflate_reset(&z);
            z.next_in = in;
            z.avail_in = left;
            z.next_out = to;
            z.avail_out = room;
            member = out;
            continue;
        }
        CHECK(st == 0);
        if (!(z.data_type & 128) || z.data_type & 64 || (int64_t)out == last)
            continue;
        unsigned bits = z.data_type & 7;
        size_t history = out - member < window ? out - member : window;
        if (out > member && !history)
            history = 1;
        sgz_point p = {.offset = (int64_t)(z.next_in - s->blob) - (bits != 0),
                       .out = (int64_t)out, .history = (uint32_t)history,
                       .skip = (uint8_t)(8 - bits) & 7};
        CHECK(!sgz_codec_points_append(&s->points, p, s->text + out - history, &err));
        last = (int64_t)out;
    }
    CHECK((size_t)(z.next_out - copy) == s->size && !memcmp(copy, s->text, s->size));
    libs.inflate_end(&z);
    free(copy);
}

#endif
