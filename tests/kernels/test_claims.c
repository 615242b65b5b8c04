/* Claims of an index: a file's tar header is compared before any of its content is handed out, by
 * whoever reads, wherever headers and chunks are cut by entry points. */
#include "base/vec.h"
#include "codec/gzip.h"
#include "layer.h"
#include "tar/tar.h"

#define FILES 12

typedef struct {
    sgz_toc *toc;
    sgz_points points;
    sgz_spans spans;
    sgz_read_claims *claims;
    uint8_t *tar, *blob;
    size_t tar_len, tar_cap, blob_len, blob_cap;
    uint32_t rows[FILES];
    int64_t content[FILES];
} indexed;

static void put(indexed *x, const void *data, size_t len)
{
    CHECK(SGZ_FIT(x->tar, x->tar_cap, x->tar_len + len));
    if (data)
        memcpy(x->tar + x->tar_len, data, len);
    else
        memset(x->tar + x->tar_len, 0, len);
    x->tar_len += len;
}

static sgz_tar_entry entry_of(uint32_t f, char name[16], const sgz_xattr *xattr)
{
    snprintf(name, 16, "./d/file%u", f);
    return (sgz_tar_entry){
        .type = '0', .name = name, .name_len = strlen(name), .link = "", .uname = "", .gname = "",
        .size = f ? 700 * f * f : 0, .payload = f ? 700 * f * f : 0, .mtime = 1000000000 + f,
        .mtime_nsec = f % 3 ? 0 : 250000000, .mode = 0640 + f % 8, .uid = f, .gid = 3000000 + f,
        .xattr_count = f % 4 == 1, .xattrs = xattr,
    };
}

/* The tar, in members of `span` bytes, and its index, which is true. */
static indexed *make(size_t span)
{
    static const sgz_xattr xattr = {"user.a", "value", 6, 5};
    indexed *x = calloc(1, sizeof *x);
    sgz_error err;
    sgz_deflater d;
    int64_t sizes[FILES];
    CHECK(x && (x->toc = sgz_toc_new()));
    uint32_t headers[FILES];
    for (uint32_t f = 0; f < FILES; f++) {
        char name[16];
        uint8_t *header;
        size_t len;
        sgz_tar_entry entry = entry_of(f, name, &xattr);
        CHECK(!sgz_tar_expanded_header(&entry, &header, &len, &err));
        put(x, header, len);
        free(header);
        headers[f] = (uint32_t)len;
        x->content[f] = (int64_t)x->tar_len;
        sizes[f] = entry.size;
        for (int64_t i = 0; i < entry.size; i++) {
            uint8_t c = (uint8_t)(below(4) ? 'a' + f : below(256));
            put(x, &c, 1);
        }
        put(x, NULL, (size_t)(-entry.size & 511));
    }
    put(x, NULL, 1024);
    CHECK(!sgz_codec_deflater_init(&d, &codecs, 1, &err));
    x->points.kind = SGZ_POINT_GZIP;
    for (size_t at = 0; at < x->tar_len; at += span) {
        size_t n = x->tar_len - at < span ? x->tar_len - at : span, made;
        CHECK(SGZ_FIT(x->blob, x->blob_cap, x->blob_len + sgz_codec_member_bound(n)));
        sgz_point point = {.offset = (int64_t)x->blob_len, .out = (int64_t)at};
        CHECK(!sgz_codec_points_append(&x->points, point, NULL, &err));
        CHECK(!sgz_codec_deflate_member(&d, x->tar + at, n, 0, x->blob + x->blob_len,
                                        x->blob_cap - x->blob_len, &made, &err));
        x->blob_len += made;
    }
    sgz_codec_deflater_free(&d);
    x->points.size = (int64_t)x->blob_len;
    x->points.end = (int64_t)x->tar_len;
    for (uint32_t f = 0; f < FILES; f++) {
        char name[16];
        sgz_tar_entry entry = entry_of(f, name, &xattr);
        int64_t at = 0;
        do {
            int64_t here = x->content[f] + at, left = sizes[f] - at;
            sgz_point *p = &x->points.at[sgz_codec_points_before(&x->points, here)];
            int64_t room = p->out + (int64_t)span - here;
            sgz_entry *e = sgz_toc_append(x->toc);
            uint32_t row = (uint32_t)x->toc->count - 1;
            CHECK(e && SGZ_FIT(x->toc->origins, x->toc->origin_cap, x->toc->count));
            x->toc->origins[row] = (sgz_toc_origin){0};
            *e = (sgz_entry){.type = at ? SGZ_CHUNK : SGZ_REG, .flags = SGZ_CLEAN_NAME};
            e->chunk_offset = at;
            e->chunk_size = left < room ? left : room;
            e->offset = e->chunk_size ? p->offset : 0;
            e->inner_offset = e->chunk_size ? here - p->out : 0;
            if (e->chunk_size) {
                e->flags |= SGZ_HAS_CHUNK_DIGEST;
                sha256_of(x->tar + here, (size_t)e->chunk_size, e->chunk_digest);
            }
            at += e->chunk_size;
            if (row && e->type == SGZ_CHUNK)
                continue;
            x->rows[f] = row;
            e->size = sizes[f];
            e->mtime = entry.mtime;
            e->mode = entry.mode;
            e->uid = entry.uid;
            e->gid = entry.gid;
            sgz_toc_origin *o = &x->toc->origins[row];
            *o = (sgz_toc_origin){.content = x->content[f], .header = headers[f],
                                  .ns = entry.mtime_nsec, .name_len = (uint32_t)entry.name_len};
            o->name = sgz_toc_store(x->toc, entry.name, entry.name_len);
            uint64_t name_off = sgz_toc_store(x->toc, entry.name + 2, entry.name_len - 2);
            e = &x->toc->rows[row];
            e->name_off = name_off;
            e->name_len = (uint32_t)entry.name_len - 2;
            if (entry.xattr_count) {
                char packed[64];
                size_t len = (size_t)(sgz_xattrs_put(packed, &xattr) - packed);
                e->xattr_off = sgz_toc_store(x->toc, packed, len);
                e->xattr_len = (uint32_t)len;
            }
        } while (at < sizes[f]);
    }
    CHECK(!sgz_toc_index_all(x->toc, &err));
    CHECK(!sgz_read_spans_init(&x->spans, x->toc, &x->points, x->points.size, &err));
    CHECK((x->claims = sgz_read_claims_new(x->toc)));
    x->spans.claims = x->claims;
    return x;
}

static void drop(indexed *x)
{
    sgz_read_spans_free(&x->spans);
    sgz_read_claims_free(x->claims);
    sgz_codec_points_free(&x->points);
    sgz_toc_free(x->toc);
    free(x->tar);
    free(x->blob);
    free(x);
}

static size_t first_span(const indexed *x, uint32_t f)
{
    size_t span = 0;
    while (x->spans.files[span] != x->rows[f])
        span++;
    return span;
}

/* Read all chunks, in some order, each by itself. */
static void read_all(indexed *x, int verify, int backwards)
{
    sgz_blob blob = {.data = x->blob, .fd = -1, .size = (int64_t)x->blob_len};
    sgz_reader r;
    sgz_error err;
    CHECK(!sgz_read_reader_init(&r, &codecs, &x->spans, &blob, &err));
    for (size_t i = 0; i < x->spans.count; i++) {
        size_t span = backwards ? x->spans.count - 1 - i : i;
        const sgz_entry *e = sgz_read_span_row(&x->spans, span);
        int64_t at = x->toc->origins[x->spans.files[span]].content + e->chunk_offset;
        uint8_t *out = malloc((size_t)e->chunk_size);
        CHECK(out);
        CHECK(!sgz_read_chunk(&r, span, verify, 0, (size_t)e->chunk_size, out, &err));
        CHECK(!memcmp(out, x->tar + at, (size_t)e->chunk_size));
        CHECK(sgz_read_claims_right(x->claims, x->spans.files[span]));
        CHECK(sgz_read_spans_claimed(&x->spans, x->spans.files[span]) == SGZ_NO_SPAN);
        free(out);
    }
    sgz_read_reader_free(&r);
}

static void test_right(void)
{
    static const size_t spans[] = {512, 600, 1024, 5000, 40000, 10000000};
    for (size_t i = 0; i < sizeof spans / sizeof *spans; i++)
        for (int how = 0; how < 4; how++) {
            indexed *x = make(spans[i]);
            read_all(x, how & 1, how & 2);
            drop(x);
        }
}

/* One thing of file `f` is a lie. */
static void lie(indexed *x, uint32_t f, int what)
{
    sgz_entry *e = &x->toc->rows[x->rows[f]];
    const sgz_entry *other = &x->toc->rows[x->rows[1]]; /* it has xattrs */
    sgz_toc_origin *o = &x->toc->origins[x->rows[f]];
    switch (what) {
    case 0: e->mode ^= 04000; break;
    case 1: e->uid++; break;
    case 2: e->gid--; break;
    case 3: e->mtime++; break;
    case 4: o->ns ^= 1; break;
    case 5: e->xattr_off = other->xattr_off, e->xattr_len ^= other->xattr_len; break;
    case 6: x->toc->arena[o->name] = 'x'; break;
    case 7: o->header += 512; break;
    case 8: o->header -= 512; break;
    case 9: x->toc->arena[e->name_off] = 'x'; break;
    case 10: *o = x->toc->origins[x->rows[f - 1]], o->content = x->content[f]; break;
    }
}

static void test_wrong(void)
{
    for (int what = 0; what <= 10; what++)
        for (int first = 0; first < 2; first++) {
            indexed *x = make(1500);
            sgz_blob blob = {.data = x->blob, .fd = -1, .size = (int64_t)x->blob_len};
            sgz_reader r;
            sgz_error err;
            uint32_t f = 5;
            uint8_t out[1500];
            size_t span = first_span(x, f) + (first ? 0 : 3);
            lie(x, f, what);
            CHECK(!sgz_read_reader_init(&r, &codecs, &x->spans, &blob, &err));
            for (int times = 0; times < 2; times++) {
                const sgz_entry *e = sgz_read_span_row(&x->spans, span);
                sgz_status st =
                    sgz_read_chunk(&r, span, 1, 0, (size_t)e->chunk_size, out, &err);
                CHECK(st == SGZ_ETOC && strstr(err.message, "the index does not fit"));
                CHECK(!strcmp(err.name, what == 9 ? "x/file5" : "d/file5"));
                CHECK(sgz_read_claims_wrong(x->claims, x->rows[f], &err) == SGZ_ETOC);
            }
            /* The others are as ever. */
            span = first_span(x, f + 1);
            CHECK(!sgz_read_chunk(&r, span, 1, 0, 1, out, &err));
            sgz_read_reader_free(&r);
            drop(x);
        }
}

static void ready(sgz_chunks_want *want)
{
    (void)want;
}

/* Of a blob that is fetched, whichever chunk is wanted: the first one comes, too, and with it the
 * bytes of its headers. */
static void test_fetched(void)
{
    for (int what = -1; what <= 10; what++) {
        indexed *x = make(1500);
        sgz_blob far = {.fd = -1, .size = (int64_t)x->blob_len};
        sgz_chunks *chunks;
        sgz_error err;
        uint32_t layer, f = 6;
        int parked = 0, rounds = 0;
        int64_t size = x->toc->rows[x->rows[f]].size;
        uint8_t out[700];
        if (what >= 0)
            lie(x, f, what);
        CHECK(!sgz_chunks_new(&chunks, &codecs, 1 << 20, NULL, &err));
        sgz_chunks_unasked(chunks, 0);
        CHECK(!sgz_chunks_add(chunks, &x->spans, &far, 1, 0, &layer, &err));
        sgz_chunks_want want = {.layer = layer, .file = x->rows[f], .offset = size - 700,
                                .size = 700, .ready = ready};
        sgz_status st;
        for (;; rounds++) {
            st = sgz_chunks_read(chunks, &want, out, &parked, &err);
            if (!parked)
                break;
            sgz_chunks_job job;
            int later;
            while (sgz_chunks_next(chunks, SGZ_DEMAND, 0, &job) == 1) {
                uint8_t *bytes = malloc((size_t)job.size);
                CHECK(bytes && job.offset + job.size <= (int64_t)x->blob_len);
                memcpy(bytes, x->blob + job.offset, (size_t)job.size);
                sgz_blob data = {.data = bytes, .base = job.offset, .fd = -1,
                                 .size = job.offset + job.size};
                sgz_status done = sgz_chunks_deliver(chunks, &job, &data, &later, &err);
                CHECK(!done || (done == SGZ_ETOC && what >= 0));
                if (done)
                    sgz_chunks_fail(chunks, &job, &err);
                free(bytes);
            }
        }
        if (what < 0) {
            CHECK(!st && rounds && sgz_read_claims_right(x->claims, x->rows[f]));
            CHECK(!memcmp(out, x->tar + x->content[f] + size - 700, 700));
        } else {
            CHECK(st == SGZ_ETOC && strstr(err.message, "the index does not fit"));
        }
        sgz_chunks_stop(chunks);
        sgz_chunks_free(chunks);
        drop(x);
    }
}

int main(void)
{
    load_codecs();
    test_right();
    test_wrong();
    test_fetched();
    return 0;
}
