/* Time every kernel that a conversion or a verification needs, each alone, on the same data,
 * with all cores busy:
 *
 *     main(ISAL CRYPTO LIBDEFLATE ZSTD INPUT BLOB LEVEL THREADS) < CHUNKS
 *
 * INPUT is the gzip or tar that was converted to BLOB, of gzip members or zstd frames; each line of
 * CHUNKS is one chunk of BLOB's TOC: member's blob offset, innerOffset, length, and the number of
 * its file. Every thread does the whole of each kernel; what is printed is the mean processor time of a
 * thread, so the core-seconds that the kernel alone costs; and how many bytes there are. */
#include "base/vec.h"
#include "codec/crc64.h"
#include "codec/frames.h"
#include "codec/gzip.h"
#include "codec/roll.h"
#include "codec/zstd.h"
#include "write/chunker.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CHECK(what)                                                    \
    do {                                                               \
        if (!(what)) {                                                 \
            fprintf(stderr, "kernels.c:%d: %s\n", __LINE__, #what);    \
            exit(1);                                                   \
        }                                                              \
    } while (0)
#define WINDOW (1 << 20) /* inflated bytes at a time, as the engine's: they stay in cache */
#define CHUNK_MAX ((int64_t)4 << 20)

typedef struct { uint8_t *data; size_t len; } bytes;
typedef struct { size_t blob, start, len; } member;
typedef struct { size_t start, len, file; } chunk;

static sgz_codecs codecs;
static bytes input, blob, tar;
static member *members;
static chunk *chunks;
static size_t member_count, chunk_count;
static int level, threads, input_is_gzip, blob_is_zstd;
static pthread_barrier_t barrier;

static bytes load(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0 && !fstat(fd, &st));
    bytes b = {malloc((size_t)st.st_size + 1), (size_t)st.st_size};
    CHECK(b.data);
    for (size_t at = 0; at < b.len;) {
        ssize_t n = read(fd, b.data + at, b.len - at);
        CHECK(n > 0);
        at += (size_t)n;
    }
    close(fd);
    return b;
}

/* Inflate the blob once, to have the members' payloads. */
static void find_members(void)
{
    sgz_inflater z;
    size_t cap = blob.len * 4 + WINDOW, member_cap = 1024;
    tar.data = malloc(cap);
    members = malloc(member_cap * sizeof *members);
    CHECK(tar.data && members && !sgz_codec_inflater_init(&z, &codecs, NULL));
    sgz_codec_inflater_reset(&z, 0);
    const uint8_t *in = blob.data;
    size_t left = blob.len, begin = 0, blob_begin = 0;
    while (left && !z.garbage) {
        size_t made;
        if (tar.len == cap)
            CHECK((tar.data = realloc(tar.data, cap *= 2)));
        CHECK(!sgz_codec_inflate(&z, &in, &left, tar.data + tar.len, cap - tar.len, &made, 1,
                                 NULL));
        tar.len += made;
        if (!sgz_codec_inflater_at_member_end(&z))
            continue;
        if (member_count == member_cap)
            CHECK((members = realloc(members, (member_cap *= 2) * sizeof *members)));
        members[member_count++] = (member){blob_begin, begin, tar.len - begin};
        begin = tar.len;
        blob_begin = blob.len - left;
    }
    sgz_codec_inflater_free(&z);
}

/* The same of frames; the first skippable one is of the TOC. */
static void find_frames(void)
{
    void *stream;
    size_t cap = blob.len * 4 + WINDOW, member_cap = 0, begin = 0;
    sgz_zstd_in in = {blob.data, blob.len, 0};
    tar.data = malloc(cap);
    CHECK(tar.data && !sgz_codec_zstd_new(&codecs, SGZ_ZSTD_MEMORY, &stream, NULL));
    for (size_t left, at = 0; in.size - in.pos > 4 && memcmp(blob.data + at + 1, "\x2a\x4d\x18", 3);
         at = in.pos) {
        do {
            if (cap - tar.len < WINDOW)
                CHECK((tar.data = realloc(tar.data, cap *= 2)));
            sgz_zstd_out out = {tar.data + tar.len, cap - tar.len, 0};
            left = codecs.zstd.decompress_stream(stream, &out, &in);
            CHECK(!codecs.zstd.is_error(left));
            tar.len += out.pos;
        } while (left);
        CHECK(SGZ_PUSH(members, member_count, member_cap, (member){at, begin, tar.len - begin}));
        begin = tar.len;
    }
    codecs.zstd.free_dstream(stream);
}

static void read_chunks(void)
{
    size_t cap = 1024, offset, inner, len, file, at = 0;
    CHECK((chunks = malloc(cap * sizeof *chunks)));
    while (scanf("%zu %zu %zu %zu", &offset, &inner, &len, &file) == 4) {
        while (at < member_count && members[at].blob < offset)
            at++;
        CHECK(at < member_count && members[at].blob == offset);
        if (chunk_count == cap)
            CHECK((chunks = realloc(chunks, (cap *= 2) * sizeof *chunks)));
        chunks[chunk_count++] = (chunk){members[at].start + inner, len, file};
        CHECK(chunks[chunk_count - 1].start + len <= tar.len);
    }
}

static void inflate_stream(bytes source)
{
    sgz_inflater z;
    uint8_t *window = malloc(WINDOW);
    CHECK(window && !sgz_codec_inflater_init(&z, &codecs, NULL));
    sgz_codec_inflater_reset(&z, 0);
    const uint8_t *in = source.data;
    size_t left = source.len, made;
    while (left && !z.garbage)
        CHECK(!sgz_codec_inflate(&z, &in, &left, window, WINDOW, &made, 0, NULL));
    sgz_codec_inflater_free(&z);
    free(window);
}

static void inflate_input(void)
{
    if (input_is_gzip)
        inflate_stream(input);
}

static void inflate_blob(void)
{
    if (!blob_is_zstd)
        inflate_stream(blob);
}

static void hash(const uint8_t *data, size_t len)
{
    sgz_sha256 sha;
    uint8_t out[32];
    CHECK(!sgz_codec_sha256_new(&codecs, &sha, NULL));
    sgz_codec_sha256_init(&codecs, &sha);
    sgz_codec_sha256_update(&codecs, &sha, data, len);
    sgz_codec_sha256_final(&codecs, &sha, out);
    sgz_codec_sha256_free(&codecs, &sha);
}

static void hash_tar(void) { hash(tar.data, tar.len); }
static void hash_blob(void) { hash(blob.data, blob.len); }

static void hash_chunks(void)
{
    sgz_sha256 sha;
    uint8_t out[32];
    CHECK(!sgz_codec_sha256_new(&codecs, &sha, NULL));
    for (size_t i = 0; i < chunk_count; i++) {
        sgz_codec_sha256_init(&codecs, &sha);
        sgz_codec_sha256_update(&codecs, &sha, tar.data + chunks[i].start, chunks[i].len);
        sgz_codec_sha256_final(&codecs, &sha, out);
    }
    sgz_codec_sha256_free(&codecs, &sha);
}

/* Files of one chunk share its digest; only the others are hashed once more. */
static void hash_files(void)
{
    sgz_sha256 sha;
    uint8_t out[32];
    CHECK(!sgz_codec_sha256_new(&codecs, &sha, NULL));
    for (size_t i = 0, n; i < chunk_count; i += n) {
        for (n = 1; i + n < chunk_count && chunks[i + n].file == chunks[i].file; n++) {}
        if (n == 1)
            continue;
        sgz_codec_sha256_init(&codecs, &sha);
        for (size_t k = i; k < i + n; k++)
            sgz_codec_sha256_update(&codecs, &sha, tar.data + chunks[k].start, chunks[k].len);
        sgz_codec_sha256_final(&codecs, &sha, out);
    }
    sgz_codec_sha256_free(&codecs, &sha);
}

static void deflate_members(void)
{
    sgz_deflater d;
    size_t cap = 0, made;
    CHECK(!sgz_codec_deflater_init(&d, &codecs, level, NULL));
    for (size_t i = 0; i < member_count; i++)
        cap = members[i].len > cap ? members[i].len : cap;
    cap = sgz_codec_member_bound(cap);
    uint8_t *out = malloc(cap);
    CHECK(out);
    memset(out, 1, cap); /* page faults are not the kernel's */
    for (size_t i = 0; i < member_count; i++)
        CHECK(!sgz_codec_deflate_member(&d, tar.data + members[i].start, members[i].len, 0, out,
                                        cap, &made, NULL));
    free(out);
    sgz_codec_deflater_free(&d);
}

static void frame_members(void)
{
    sgz_framer f = {0};
    size_t cap = 0, made;
    CHECK(!sgz_codec_framer_init(&f, &codecs, level, NULL));
    for (size_t i = 0; i < member_count; i++)
        cap = members[i].len > cap ? members[i].len : cap;
    cap = sgz_codec_frame_bound(cap);
    uint8_t *out = malloc(cap);
    CHECK(out);
    memset(out, 1, cap);
    for (size_t i = 0; i < member_count; i++)
        CHECK(!sgz_codec_frame(&f, tar.data + members[i].start, members[i].len, out, cap, &made,
                               NULL));
    free(out);
    sgz_codec_framer_free(&f);
}

static void pack_members(void)
{
    if (blob_is_zstd)
        frame_members();
    else
        deflate_members();
}

static void crc_tar(void)
{
    volatile uint32_t sink = sgz_codec_crc32(&codecs, 0, tar.data, tar.len);
    (void)sink;
}

/* --- of zstd:chunked: each file at a time --------------------------------------------------- */

static void each_file(void (*run)(const uint8_t *data, size_t len))
{
    for (size_t i = 0, n, len; i < chunk_count; i += n) {
        for (n = len = 0; i + n < chunk_count && chunks[i + n].file == chunks[i].file; n++)
            len += chunks[i + n].len;
        run(tar.data + chunks[i].start, len);
    }
}

static void cut(const uint8_t *data, size_t len)
{
    sgz_chunker c;
    int zeros;
    sgz_write_chunker_begin(&c, (int64_t)len, CHUNK_MAX);
    for (size_t n; len; data += n, len -= n)
        CHECK((n = sgz_write_chunker_next(&c, data, len, &zeros)));
}

static void crc64(const uint8_t *data, size_t len)
{
    volatile uint64_t sink = sgz_codec_crc64(0, data, len);
    (void)sink;
}

static void cut_files(void) { each_file(cut); }
static void crc64_files(void) { each_file(crc64); }

/* Where chunks may end, alone, and what memory allows. */
static void roll_tar(void)
{
    uint64_t bits[SGZ_ROLL_BLOCK / 64];
    for (size_t at = SGZ_ROLL_WINDOW; at < tar.len; at += SGZ_ROLL_BLOCK)
        sgz_codec_roll_scan(tar.data + at,
                            tar.len - at < SGZ_ROLL_BLOCK ? tar.len - at : SGZ_ROLL_BLOCK, bits);
}

static void copy_tar(void)
{
    uint8_t *out = malloc(WINDOW);
    CHECK(out);
    memset(out, 1, WINDOW);
    for (size_t at = 0; at + WINDOW <= tar.len; at += WINDOW) {
        memcpy(out, tar.data + at, WINDOW);
        __asm__ volatile("" : : "r"(out) : "memory"); /* it is needed */
    }
    free(out);
}

static const struct { const char *name; void (*run)(void); } KERNELS[] = {
    {"inflate", inflate_input}, {"diff_id", hash_tar},       {"chunks", hash_chunks},
    {"files", hash_files},      {"pack", pack_members},      {"blob", hash_blob},
    {"inflate_blob", inflate_blob}, {"crc", crc_tar},       {"cut", cut_files},
    {"crc64", crc64_files},     {"roll", roll_tar},         {"copy", copy_tar},
};
#define COUNT (sizeof KERNELS / sizeof *KERNELS)

static void *work(void *arg)
{
    double *seconds = arg;
    struct timespec a, b;
    for (size_t k = 0; k < COUNT; k++) {
        pthread_barrier_wait(&barrier);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
        KERNELS[k].run();
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
        seconds[k] = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    CHECK(argc == 9);
    sgz_error err;
    CHECK(!sgz_codec_load_isal(&codecs, argv[1], &err) &&
          !sgz_codec_load_crypto(&codecs, argv[2], &err));
    level = atoi(argv[7]);
    threads = atoi(argv[8]);
    CHECK(threads > 0 && threads < 1024);
    input = load(argv[5]);
    input_is_gzip = input.len > 2 && input.data[0] == 0x1f && input.data[1] == 0x8b;
    blob = load(argv[6]);
    blob_is_zstd = blob.len > 4 && !memcmp(blob.data, "\x28\xb5\x2f\xfd", 4);
    if (blob_is_zstd)
        CHECK(!sgz_codec_load_zstd(&codecs, argv[4], &err));
    else if (level > SGZ_LEVEL_ISAL_MAX)
        CHECK(!sgz_codec_load_libdeflate(&codecs, argv[3], &err));
    if (blob_is_zstd)
        find_frames();
    else
        find_members();
    read_chunks();

    pthread_t ids[1024];
    double seconds[1024][COUNT];
    pthread_barrier_init(&barrier, NULL, (unsigned)threads);
    for (int t = 0; t < threads; t++)
        CHECK(!pthread_create(&ids[t], NULL, work, seconds[t]));
    for (int t = 0; t < threads; t++)
        pthread_join(ids[t], NULL);
    for (size_t k = 0; k < COUNT; k++) {
        double sum = 0;
        for (int t = 0; t < threads; t++)
            sum += seconds[t][k];
        printf("%s\"%s\": %.6f", k ? ", " : "{", KERNELS[k].name, sum / threads);
    }
    printf(", \"bytes\": %zu}\n", tar.len);
    return 0;
}
