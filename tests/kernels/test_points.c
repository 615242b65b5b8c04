/* Reading layers whose chunks are at entry points of other kinds than members. */
#include <fcntl.h>
#include <unistd.h>

#include "chunks/internal.h"
#include "layer.h"
#include "read/pieces.h"
#include "streams.h"

enum { CHUNK_DIGESTS, SPAN_DIGESTS, NO_DIGESTS };

static void digest_spans(layer *l)
{
    sgz_points *p = &l->points;
    p->digests = malloc(p->count * sizeof *p->digests);
    CHECK(p->digests);
    for (size_t i = 0; i < p->count; i++) {
        size_t from = (size_t)sgz_codec_points_start(p, i);
        sha256_of(l->data + from, (size_t)sgz_codec_points_end(p, i) - from, p->digests[i]);
    }
}

static sgz_entry *add_row(layer *l, int type, size_t at, size_t len, size_t chunk_offset)
{
    const sgz_points *p = &l->points;
    sgz_entry *e = sgz_toc_append(l->toc);
    e->type = (uint8_t)type;
    e->offset = (int64_t)at;
    if (p->count) {
        const sgz_point *point = &p->at[sgz_codec_points_before(p, (int64_t)at)];
        e->offset = point->offset;
        e->inner_offset = (int64_t)at - point->out;
    }
    e->chunk_offset = (int64_t)chunk_offset;
    e->chunk_size = (int64_t)len;
    return e;
}

/* How many bytes from `at` on are of its span. */
static size_t left_of(const sgz_points *p, size_t at)
{
    size_t i = sgz_codec_points_before(p, (int64_t)at);
    return (size_t)(i + 1 < p->count ? p->at[i + 1].out : p->end) - at;
}

/* Files of up to `largest` bytes, with gaps, cut at points and each `chunk` bytes. */
static void layer_of(layer *l, stream *s, size_t largest, size_t chunk, int digests)
{
    *l = (layer){.toc = sgz_toc_new(), .data = s->blob, .len = s->len, .points = s->points};
    sgz_error err;
    size_t cap = 2 * s->size / 512 + 1;
    l->contents = calloc(cap, sizeof *l->contents);
    l->sizes = calloc(cap, sizeof *l->sizes);
    l->rows = calloc(cap, sizeof *l->rows);
    for (size_t at = 512; at < s->size;) {
        size_t size = 1 + below((uint32_t)largest);
        size = size < s->size - at ? size : s->size - at;
        uint32_t f = l->files++;
        l->sizes[f] = size;
        l->rows[f] = (uint32_t)l->toc->count;
        l->contents[f] = malloc(size);
        memcpy(l->contents[f], s->text + at, size);
        for (size_t done = 0, n; done < size; done += n) {
            n = size - done < chunk ? size - done : chunk;
            size_t left = l->points.count ? left_of(&l->points, at + done) : n;
            n = n < left ? n : left;
            sgz_entry *e = add_row(l, done ? SGZ_CHUNK : SGZ_REG, at + done, n, done);
            if (digests == CHUNK_DIGESTS) {
                sha256_of(s->text + at + done, n, e->chunk_digest);
                e->flags = SGZ_HAS_CHUNK_DIGEST;
            }
            if (!done) {
                char name[32];
                uint32_t len = (uint32_t)snprintf(name, sizeof name, "file%u", f);
                e->size = (int64_t)size;
                e->name_len = len;
                l->toc->rows[l->rows[f]].name_off = sgz_toc_store(l->toc, name, len);
            }
        }
        at += size + 512;
    }
    if (digests == SPAN_DIGESTS)
        digest_spans(l);
    CHECK(!sgz_read_spans_init(&l->spans, l->toc, &l->points, (int64_t)l->len, &err));
    free(s->text);
}

static stream deflate_stream(size_t size)
{
    stream s = new_stream(size);
    add_member(&s, 0, size / 4, 6, 0, 20000);
    add_member(&s, size / 4, size, 6, 0, 7001);
    find_points(&s, 32768);
    return s;
}

static stream zstd_stream(size_t size)
{
    stream s = new_stream(size);
    sgz_error err;
    s.points.kind = SGZ_POINT_ZSTD;
    for (size_t at = 0, n; at < s.size; at += n) {
        n = 1 + below(30000);
        n = n < s.size - at ? n : s.size - at;
        sgz_point p = {.offset = (int64_t)s.len, .out = (int64_t)at};
        CHECK(!sgz_codec_points_append(&s.points, p, NULL, &err));
        add_frame(&s, at, at + n);
    }
    s.points.size = (int64_t)s.len;
    s.points.end = (int64_t)s.size;
    return s;
}

/* `slices`: each of them is a point, as where each has a digest. */
static stream stored_stream(size_t size, size_t slice)
{
    stream s = new_stream(size);
    sgz_error err;
    s.points.kind = SGZ_POINT_STORED;
    for (size_t at = 0; slice && at < size; at += slice) {
        sgz_point p = {.offset = (int64_t)at, .out = (int64_t)at};
        CHECK(!sgz_codec_points_append(&s.points, p, NULL, &err));
    }
    memcpy(s.blob, s.text, size);
    s.len = size;
    s.points.size = s.points.end = (int64_t)size;
    return s;
}

static int64_t asked; /* bytes of the blob */

static int read_at(void *arg, int64_t offset, uint8_t *out, size_t len)
{
    const layer *l = arg;
    CHECK(offset >= 0 && offset + (int64_t)len <= (int64_t)l->len);
    memcpy(out, l->data + offset, len);
    asked += (int64_t)len;
    return 0;
}

static void read_one(sgz_reader *r, const layer *l, size_t span, int verify)
{
    const sgz_entry *e = sgz_read_span_row(&l->spans, span);
    uint32_t f = 0;
    while (l->rows[f] != l->spans.files[span])
        f++;
    size_t len = (size_t)e->chunk_size, from = below((uint32_t)len), n = len - from;
    uint8_t *out = malloc(len);
    sgz_error err;
    if (sgz_read_chunk(r, span, verify, (int64_t)from, n, out, &err)) {
        fprintf(stderr, "%s: %s\n", err.name, err.message);
        CHECK(0);
    }
    CHECK(!memcmp(out, l->contents[f] + e->chunk_offset + from, n));
    free(out);
}

static void check_layer(stream (*make)(size_t), size_t size, int digests)
{
    stream s = make(size);
    layer l;
    layer_of(&l, &s, 9000, 4000, digests);
    sgz_blob memory = {.data = l.data, .fd = -1, .size = (int64_t)l.len};
    sgz_blob far = {.fd = -1, .read_at = read_at, .arg = &l, .size = (int64_t)l.len};
    sgz_error err;
    for (int i = 0; i < 4; i++) {
        sgz_reader r;
        int verify = i < 2;
        CHECK(!sgz_read_reader_init(&r, &codecs, &l.spans, i % 2 ? &far : &memory, &err));
        if (digests == NO_DIGESTS && verify) {
            uint8_t byte;
            CHECK(sgz_read_chunk(&r, 3, 1, 0, 1, &byte, &err) == SGZ_EDATA);
            CHECK(strstr(err.message, "nothing else tells") && !strncmp(err.name, "file", 4));
            sgz_read_reader_free(&r);
            continue;
        }
        asked = 0;
        for (size_t span = 0; span < l.spans.count; span++)
            read_one(&r, &l, span, verify);
        /* In order nothing is read twice, but for what two spans share, and a frame's header. */
        CHECK(asked <= (int64_t)(l.len + 20 * l.points.count));
        for (int n = 0; n < 200; n++)
            read_one(&r, &l, below((uint32_t)l.spans.count), verify);
        sgz_read_reader_free(&r);
    }
    free_layer(&l);
}

static stream sliced(size_t size)
{
    return stored_stream(size, 20000);
}

static stream unsliced(size_t size)
{
    return stored_stream(size, 0);
}

/* Nothing of a span that is not what its digest says is handed out. */
static void wrong_spans(void)
{
    for (int kind = 0; kind < 2; kind++) {
        stream s = kind ? sliced(400000) : deflate_stream(400000);
        layer l;
        layer_of(&l, &s, 9000, 4000, SPAN_DIGESTS);
        sgz_blob blob = {.data = l.data, .fd = -1, .size = (int64_t)l.len};
        sgz_reader r;
        sgz_error err;
        uint8_t out[4000];
        CHECK(!sgz_read_reader_init(&r, &codecs, &l.spans, &blob, &err));
        size_t bad = l.points.count / 2, failed = 0;
        l.data[sgz_codec_points_end(&l.points, bad) - 2] ^= 0x10;
        for (size_t span = 0; span < l.spans.count; span++) {
            const sgz_entry *e = sgz_read_span_row(&l.spans, span);
            int st = sgz_read_chunk(&r, span, 1, 0, (size_t)e->chunk_size, out, &err);
            if (e->offset == l.points.at[bad].offset) {
                CHECK(st == SGZ_EDIGEST && err.offset == e->offset);
                CHECK(!strncmp(err.name, "file", 4));
                failed++;
            } else {
                CHECK(!st);
            }
        }
        CHECK(failed);
        sgz_read_reader_free(&r);
        free_layer(&l);
    }
}

/* Spans too large to be held: they are decoded to their end, as what is in a member is. */
static void large_spans(void)
{
    size_t size = 30 << 20;
    stream s = {.size = size, .cap = size + 65536};
    s.text = malloc(size);
    s.blob = malloc(s.cap);
    CHECK(s.text && s.blob);
    for (size_t i = 0; i < size; i++)
        s.text[i] = (uint8_t)below(256);
    add_member(&s, 0, size, 0, 0, 0);
    find_points(&s, 32768);
    s.points.count = 1;
    layer l;
    layer_of(&l, &s, 1 << 20, 400000, SPAN_DIGESTS);
    sgz_blob far = {.fd = -1, .read_at = read_at, .arg = &l, .size = (int64_t)l.len};
    sgz_reader r;
    sgz_error err;
    uint8_t *out = malloc(400000);
    CHECK(!sgz_read_reader_init(&r, &codecs, &l.spans, &far, &err));
    asked = 0;
    for (size_t span = 3; span < l.spans.count; span += 5)
        read_one(&r, &l, span, 1);
    CHECK(asked < 3 * (int64_t)l.len);
    read_one(&r, &l, 1, 1);
    /* What is known to be right is not another later. */
    const sgz_entry *e = sgz_read_span_row(&l.spans, 1);
    l.data[e->inner_offset + 1000] ^= 1;
    CHECK(sgz_read_chunk(&r, 1, 1, 0, 1000, out, &err) == SGZ_EDATA);
    CHECK(strstr(err.message, "another now"));
    sgz_read_reader_free(&r);
    /* And where nothing is known yet, it is the wrong digest. */
    sgz_spans again;
    CHECK(!sgz_read_spans_init(&again, l.toc, &l.points, (int64_t)l.len, &err));
    CHECK(!sgz_read_reader_init(&r, &codecs, &again, &far, &err));
    l.data[e->inner_offset + 1000] ^= 1;
    l.points.digests[0][0] ^= 1;
    CHECK(sgz_read_chunk(&r, 0, 1, 0, 100, out, &err) == SGZ_EDIGEST);
    CHECK(!strncmp(err.name, "file", 4));
    sgz_read_reader_free(&r);
    sgz_read_spans_free(&again);
    free(out);
    free_layer(&l);
}

/* Rows that do not fit the table. */
static void wrong_rows(void)
{
    stream s = deflate_stream(300000);
    layer l;
    layer_of(&l, &s, 9000, 4000, CHUNK_DIGESTS);
    sgz_spans spans;
    sgz_error err;
    uint32_t row = l.spans.rows[l.spans.count - 1];
    sgz_entry *file = &l.toc->rows[l.spans.files[l.spans.count - 1]];
    for (int i = 0; i < 3; i++) {
        sgz_entry *e = &l.toc->rows[row], was = *e, file_was = *file;
        if (i == 0)
            e->offset++;
        else if (i == 1)
            e->inner_offset += 400000;
        else
            file->size += (e->chunk_size += 400000) - was.chunk_size;
        CHECK(sgz_read_spans_init(&spans, l.toc, &l.points, (int64_t)l.len, &err) == SGZ_ETOC);
        CHECK(strstr(err.message, i ? "beyond the span" : "no entry point"));
        *file = file_was;
        *e = was;
    }
    /* A span that is to hold more than it does. */
    l.points.end += 1000;
    l.toc->rows[row].chunk_size += 1000;
    file->size += 1000;
    CHECK(!sgz_read_spans_init(&spans, l.toc, &l.points, (int64_t)l.len, &err));
    sgz_blob blob = {.data = l.data, .fd = -1, .size = (int64_t)l.len};
    sgz_reader r;
    uint8_t *out = malloc(100000);
    CHECK(!sgz_read_reader_init(&r, &codecs, &spans, &blob, &err));
    CHECK(sgz_read_chunk(&r, spans.count - 1, 1, 0, (size_t)l.toc->rows[row].chunk_size, out,
                         &err) == SGZ_EDATA);
    CHECK(strstr(err.message, "ends before") && err.name[0]);
    sgz_read_reader_free(&r);
    sgz_read_spans_free(&spans);
    free(out);
    free_layer(&l);
}

static void woken(sgz_chunks_want *want)
{
    (void)want;
}

/* Read all of a file through the table; what has to be fetched is brought by this thread, too. */
static void read_file(sgz_chunks *c, const layer *l, uint32_t f)
{
    sgz_chunks_want want = {.file = l->rows[f], .size = l->sizes[f], .ready = woken};
    uint8_t *out = malloc(l->sizes[f]);
    int parked = 1, later;
    sgz_error err;
    sgz_chunks_job job;
    while (parked) {
        CHECK(!sgz_chunks_read(c, &want, out, &parked, &err));
        if (!parked)
            break;
        CHECK(sgz_chunks_next(c, SGZ_DEMAND, 0, &job) == 1);
        uint8_t *bytes = malloc((size_t)job.size);
        memcpy(bytes, l->data + job.offset, (size_t)job.size);
        sgz_blob data = {.data = bytes, .base = job.offset, .fd = -1,
                         .size = job.offset + job.size};
        CHECK(!sgz_chunks_deliver(c, &job, &data, &later, &err) && !later);
        free(bytes);
    }
    CHECK(!memcmp(out, l->contents[f], l->sizes[f]));
    free(out);
}

/* In any order: what is fetched of a span is kept, and what is decoded of it a second time. */
static void through_the_table(stream (*make)(size_t), int digests)
{
    stream s = make(600000);
    layer l;
    layer_of(&l, &s, 900, 4000, digests);
    for (int far = 0; far < 2; far++) {
        sgz_blob blob = {.data = far ? NULL : l.data, .fd = -1, .size = (int64_t)l.len};
        sgz_chunks *c;
        sgz_error err;
        sgz_chunks_stats stats;
        uint32_t number;
        CHECK(!sgz_chunks_new(&c, &codecs, 64 << 20, NULL, &err));
        CHECK(!sgz_chunks_add(c, &l.spans, &blob, 1, 0, &number, &err));
        for (uint32_t n = 0; n < 3 * l.files; n++)
            read_file(c, &l, n * 101 % l.files);
        sgz_chunks_get_stats(c, &stats);
        CHECK(stats.fetched_requests <= l.points.count);
        sgz_chunks_free(c);
    }
    free_layer(&l);
}

/* A second entry decodes all of it. */
static void entered_again(void)
{
    stream s = deflate_stream(600000);
    layer l;
    layer_of(&l, &s, 900, 4000, CHUNK_DIGESTS);
    sgz_blob blob = {.data = l.data, .fd = -1, .size = (int64_t)l.len};
    sgz_chunks *c;
    sgz_error err;
    uint32_t number, f = 0;
    CHECK(!sgz_chunks_new(&c, &codecs, 64 << 20, NULL, &err));
    CHECK(!sgz_chunks_add(c, &l.spans, &blob, 1, 0, &number, &err));
    size_t first = 0, next = sgz_read_span_next(&l.spans, 0);
    CHECK(next > 8);
    for (int i = 0; i < 2; i++) {
        while (l.rows[f] != l.spans.files[first + 3 * (size_t)i])
            f++;
        read_file(c, &l, f);
        CHECK((c->layers[0]->heads[next - 1] != NULL) == i);
        while (c->pooled) /* its decoder is gone */
            sgz_chunks_free_reader(c->pool[--c->pooled].reader);
    }
    sgz_chunks_free(c);
    free_layer(&l);
}

int main(void)
{
    sgz_error err;
    load_codecs();
    load_streams();
    CHECK(!sgz_codec_load_zstd(&codecs, "libzstd.so.1", &err));
    for (int digests = CHUNK_DIGESTS; digests <= NO_DIGESTS; digests++) {
        check_layer(deflate_stream, 600000, digests);
        check_layer(sliced, 300000, digests);
        check_layer(zstd_stream, 300000, digests);
    }
    check_layer(unsliced, 300000, CHUNK_DIGESTS);
    through_the_table(deflate_stream, CHUNK_DIGESTS);
    through_the_table(deflate_stream, SPAN_DIGESTS);
    through_the_table(zstd_stream, CHUNK_DIGESTS);
    entered_again();
    wrong_spans();
    large_spans();
    wrong_rows();
    return 0;
}
