/* The whole conversion, threads and all, under the sanitizers: the same bytes for every
 * number of threads, and a clean end when source, sink or caller stop it anywhere. */
#include "write/cut.h"
#include "write/pipeline.h"
#include "check.h"

#include <string.h>

enum { FILES = 400, LARGEST = 300000, SLABS = 12 };

typedef struct { uint8_t *data; size_t len, cap, at, fail_after; } memory;

static sgz_codecs codecs;
static memory tar;

static void add(memory *m, const void *data, size_t len)
{
    if (m->len + len > m->cap) {
        m->cap = 2 * (m->len + len);
        CHECK(m->data = realloc(m->data, m->cap));
    }
    if (len)
        memcpy(m->data + m->len, data, len);
    m->len += len;
}

static void make_tar(int twice)
{
    static uint8_t content[LARGEST];
    uint8_t block[SGZ_TAR_BLOCK];
    free(tar.data);
    tar = (memory){0};
    char name[32];
    for (size_t i = 0; i < LARGEST; i++)
        content[i] = (uint8_t)below(i / 1000 % 30 + 1);
    for (int i = 0; i < FILES * SLABS; i++) {
        size_t size = below(8) ? below(4000) : below(LARGEST);
        snprintf(name, sizeof name, "d/file-%d", i % 5 || !twice ? i : i / 2); /* some twice */
        sgz_tar_plain_header(block, name, (int64_t)size);
        add(&tar, block, sizeof block);
        add(&tar, content, size);
        memset(block, 0, sizeof block);
        add(&tar, block, (SGZ_TAR_BLOCK - size % SGZ_TAR_BLOCK) % SGZ_TAR_BLOCK);
    }
}

static int64_t read_memory(void *arg, uint8_t *out, size_t cap)
{
    memory *m = arg;
    size_t n = tar.len - m->at < cap ? tar.len - m->at : cap;
    if (m->fail_after && m->at >= m->fail_after)
        return -1;
    memcpy(out, tar.data + m->at, n);
    m->at += n;
    return (int64_t)n;
}

static int write_memory(void *arg, const uint8_t *data, size_t len)
{
    memory *m = arg;
    if (m->fail_after && m->len >= m->fail_after)
        return -1;
    add(m, data, len);
    return 0;
}

static sgz_status convert_as(sgz_write_format format, int threads, int level, size_t read_fails,
                             size_t write_fails, int cancel_after, memory *out)
{
    int zstd = format >= SGZ_WRITE_CHUNKED, kept = format == SGZ_WRITE_CHUNKED;
    sgz_base_job job;
    memory in = {.fail_after = read_fails};
    memset(out, 0, sizeof *out);
    out->fail_after = write_fails;
    sgz_source source = {.fd = -1, .read = read_memory, .arg = &in, .stop = &job.stop};
    sgz_sink sink = {.fd = -1, .write = write_memory, .arg = out, .stop = &job.stop};
    sgz_write_options options = {.format = format, .level = level, .threads = threads};
    sgz_write_cut_options cut = {.chunk_size = 65536, .landmarks = !kept, .frames = zstd,
                                 .kept = kept, .lossless = kept};
    sgz_write_result result;
    sgz_error err;
    sgz_input input;
    sgz_write_pipeline *c;
    sgz_base_job_init(&job);
    sgz_toc *toc = sgz_toc_new();
    CHECK(toc && !sgz_io_input_open(&input, &codecs, source, &err));
    CHECK(!sgz_io_input_peek(&input, &err) && !sgz_io_input_begin(&input, 0, &err));
    sgz_write_cutter *cutter = sgz_write_cutter_new(&input, toc, &cut);
    CHECK(cutter && !sgz_write_pipeline_start(&c, &job, &codecs, sgz_write_cutter_filler(cutter),
                                              &sink, toc, &options, &err));
    for (int waits = 0; !sgz_base_job_wait(&job, 1); waits++)
        if (cancel_after && waits == cancel_after)
            sgz_base_job_cancel(&job);
    sgz_status status = sgz_write_pipeline_finish(c, &result, &err);
    sgz_write_cutter_free(cutter);
    sgz_base_job_free(&job);
    CHECK(status || result.size == (int64_t)out->len);
    sgz_io_input_close(&input);
    sgz_toc_free(toc);
    return status;
}

static sgz_status convert(int threads, int level, size_t read_fails, size_t write_fails,
                          int cancel_after, memory *out)
{
    return convert_as(SGZ_WRITE_ESTARGZ, threads, level, read_fails, write_fails, cancel_after,
                      out);
}

/* zstd:chunked, of a tar that it can hold, and of one that it finds not to. */
static int check_chunked(int twice)
{
    memory one, many;
    int passed = 0;
    make_tar(twice);
    for (sgz_write_format f = SGZ_WRITE_CHUNKED; f <= SGZ_WRITE_CHUNKED_STARGZ; f++) {
        CHECK(!convert_as(f, 1, 3, 0, 0, 0, &one));
        CHECK((f == SGZ_WRITE_CHUNKED && twice) !=
              !memcmp(one.data + one.len - 8, "GnUlInUx", 8));
        CHECK(!convert_as(f, 5, 3, 0, 0, 0, &many));
        CHECK(one.len == many.len && !memcmp(one.data, many.data, one.len));
        free(one.data);
        free(many.data);
        CHECK(convert_as(f, 4, 1, tar.len / 3, 0, 0, &many) == SGZ_ECALLBACK);
        free(many.data);
        CHECK(convert_as(f, 4, 1, 0, 1 + tar.len / 20, 0, &many) == SGZ_ECALLBACK);
        free(many.data);
        sgz_status status = convert_as(f, 4, 3, 0, 0, 9, &many);
        CHECK(status == SGZ_ECANCELLED || status == SGZ_OK);
        free(many.data);
        passed += 5;
    }
    return passed;
}

int main(void)
{
    sgz_error err;
    memory one, many;
    int passed = 0;
    if (sgz_codec_load_isal(&codecs, "libisal.so.2", &err) ||
        sgz_codec_load_crypto(&codecs, "libcrypto.so.3", &err) ||
        sgz_codec_load_libdeflate(&codecs, "libdeflate.so.0", &err) ||
        sgz_codec_load_zstd(&codecs, "libzstd.so.1", &err)) {
        fprintf(stderr, "%s: install libisal2, libssl3, libdeflate0 and libzstd1\n", err.message);
        return 1;
    }
    make_tar(1);
    static const int levels[] = {1, 2, 3};
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        CHECK(!convert(1, levels[i], 0, 0, 0, &one));
        for (int threads = 2; threads <= 9; threads += 7) {
            CHECK(!convert(threads, levels[i], 0, 0, 0, &many));
            CHECK(one.len == many.len && !memcmp(one.data, many.data, one.len));
            free(many.data);
            passed++;
        }
        free(one.data);
    }
    for (size_t share = 1; share < 8; share++) {
        CHECK(convert(4, 1, tar.len * share / 8, 0, 0, &many) == SGZ_ECALLBACK);
        free(many.data);
        CHECK(convert(4, 1, 0, 1 + tar.len * share / 64, 0, &many) == SGZ_ECALLBACK);
        free(many.data);
        sgz_status status = convert(4, 3, 0, 0, (int)share * 3, &many);
        CHECK(status == SGZ_ECANCELLED || status == SGZ_OK);
        free(many.data);
        passed += 3;
    }
    passed += check_chunked(0) + check_chunked(1);
    free(tar.data);
    printf("%d passed, 0 failed\n", passed);
    return 0;
}
