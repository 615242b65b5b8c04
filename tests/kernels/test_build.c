/* The pass that makes an index, under the sanitizers: on any threads, of input that comes in any
 * steps, of blobs that are damaged anywhere or cut off. */
#include "index/build.h"
#include "codec/gzip.h"
#include "codec/hasher.h"
#include "check.h"

#include <string.h>

enum { SIZE = 3 << 19, DAMAGES = 30, SPAN = 64 << 10 };

typedef struct { const uint8_t *data; size_t len, at, step, fail; } memory;

static sgz_codecs codecs;
static uint8_t tar[SIZE], blob[2 * SIZE];
static size_t tar_len, blob_len;

static int64_t read_memory(void *arg, uint8_t *out, size_t cap)
{
    memory *m = arg;
    size_t n = m->len - m->at < cap ? m->len - m->at : cap;
    n = n > m->step ? m->step : n;
    if (m->fail && m->at + n > m->fail)
        return -1;
    memcpy(out, m->data + m->at, n);
    m->at += n;
    return (int64_t)n;
}

static void digest(const uint8_t *data, size_t len, uint8_t out[32])
{
    sgz_hasher h;
    sgz_error err;
    CHECK(!sgz_codec_hasher_init(&h, &codecs, &err));
    sgz_codec_hasher_update(&h, data, len, NULL, 0);
    sgz_codec_hasher_final(&h, out);
    sgz_codec_hasher_free(&h);
}

static void make_tar(void)
{
    for (int n = 0; tar_len < SIZE - 700000; n++) {
        char name[20];
        size_t size = below(4) ? below(3000) : below(400000), kind = below(3);
        snprintf(name, sizeof name, "f%d", n);
        sgz_tar_plain_header(tar + tar_len, name, (int64_t)size);
        tar_len += SGZ_TAR_BLOCK;
        for (size_t i = 0; i < size; i++)
            tar[tar_len + i] = (uint8_t)(kind ? below(kind == 1 ? 4 : 256) : 'x');
        tar_len += (size + SGZ_TAR_BLOCK - 1) / SGZ_TAR_BLOCK * SGZ_TAR_BLOCK;
    }
    tar_len += 2 * SGZ_TAR_BLOCK;
}

static void pack(void)
{
    sgz_deflater deflater;
    sgz_error err;
    CHECK(!sgz_codec_deflater_init(&deflater, &codecs, 1, &err));
    for (size_t at = 0, len, made; at < tar_len; at += len) {
        len = 1 + below(below(2) ? 900000 : 5000);
        len = len < tar_len - at ? len : tar_len - at;
        CHECK(!sgz_codec_deflate_member(&deflater, tar + at, len, 0, blob + blob_len,
                                        sizeof blob - blob_len, &made, &err));
        blob_len += made;
    }
    sgz_codec_deflater_free(&deflater);
}

static sgz_status build(memory m, int threads, int soci, sgz_index *index)
{
    sgz_index_build_options options = {
        .span_size = SPAN, .chunk_size = 100000, .soci = soci, .threads = threads};
    sgz_source source = {.fd = -1, .read = read_memory, .arg = &m};
    sgz_index_build *b = sgz_index_build_new(&codecs, source, &options);
    sgz_base_job job;
    sgz_wrap wrap;
    sgz_error err = {0};
    memset(index, 0, sizeof *index);
    sgz_base_job_init(&job);
    CHECK(b);
    sgz_status status = sgz_index_build_peek(b, &wrap, &err);
    if (!status)
        status = sgz_index_build_start(b, &job, &err);
    if (!status)
        status = sgz_index_build_finish(b, index, &err);
    CHECK(!status || err.message[0]);
    CHECK(!status || !index->toc);
    sgz_index_build_free(b);
    sgz_base_job_free(&job);
    return status;
}

/* Everything that the index says of the blob. */
static void check_index(const sgz_index *index, const uint8_t *data, size_t len)
{
    uint8_t good[32];
    sgz_error err;
    int64_t end = -1;
    CHECK(index->points.digests || !sgz_index_check(index, &err)); /* of SOCI no histories are kept */
    CHECK(index->points.size == (int64_t)len && index->points.end == (int64_t)tar_len);
    digest(data, len, good);
    CHECK(!memcmp(good, index->digest, 32));
    digest(tar, tar_len, good);
    CHECK(!memcmp(good, index->diff_id, 32));
    for (size_t i = 0; i < index->toc->count; i++) {
        const sgz_entry *row = &index->toc->rows[i];
        if (!sgz_toc_has_data(row))
            continue;
        size_t point = sgz_codec_points_at(&index->points, row->offset);
        int64_t at = row->inner_offset + (point == SGZ_NO_POINT ? row->offset
                                                                : index->points.at[point].out);
        CHECK(at + row->chunk_size <= (int64_t)tar_len && at > end);
        digest(tar + at, (size_t)row->chunk_size, good);
        CHECK(!memcmp(good, row->chunk_digest, 32));
        end = at;
    }
    for (size_t i = 0; index->points.digests && i < index->points.count; i++) {
        int64_t start = sgz_codec_points_start(&index->points, i);
        digest(data + start, (size_t)(sgz_codec_points_end(&index->points, i) - start), good);
        CHECK(!memcmp(good, index->points.digests[i], 32));
    }
}

int main(void)
{
    sgz_error err;
    sgz_index index;
    if (sgz_codec_load_crypto(&codecs, "libcrypto.so.3", &err) ||
        sgz_codec_load_isal(&codecs, "libisal.so.2", &err)) {
        fprintf(stderr, "%s: install libssl3 and libisal2\n", err.message);
        return 1;
    }
    make_tar();
    pack();
    for (int i = 0; i < 12; i++) {
        memory packed = {.data = blob, .len = blob_len, .step = i < 2 ? 1000 : 1 + below(1 << 20)};
        CHECK(!build(packed, 1 + i % 3, i % 2, &index));
        check_index(&index, blob, blob_len);
        sgz_index_free(&index);
        memory plain = {.data = tar, .len = tar_len, .step = packed.step};
        CHECK(!build(plain, 1 + i % 3, i % 2, &index));
        check_index(&index, tar, tar_len);
        sgz_index_free(&index);
    }
    for (int i = 0; i < DAMAGES; i++) {
        size_t at = below((uint32_t)blob_len);
        uint8_t bit = (uint8_t)(1u << below(8));
        memory m = {.data = blob, .len = blob_len, .step = 100000};
        blob[at] ^= bit;
        if (!build(m, 1 + i % 3, i % 2, &index))
            check_index(&index, blob, blob_len);
        sgz_index_free(&index);
        blob[at] ^= bit;
        m.len = at;
        if (!build(m, 1 + i % 3, i % 2, &index)) /* between two members */
            CHECK(index.notes.count[SGZ_NOTE_NO_END]);
        sgz_index_free(&index);
        m.len = blob_len;
        m.fail = 1 + at;
        CHECK(build(m, 1 + i % 3, i % 2, &index) == SGZ_ECALLBACK);
    }
    printf("%zu bytes indexed in every way, %d damages\n", blob_len, DAMAGES);
    return 0;
}
