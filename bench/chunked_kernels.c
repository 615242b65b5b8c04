/* Time what zstd:chunked takes beyond hashes, each alone, by one thread:
 *
 *     main(ZSTD TAR LEVEL...)
 *
 * the cut of every file of TAR, its CRC-64, and its frames at each LEVEL. */
#include "base/vec.h"
#include "codec/crc64.h"
#include "codec/frames.h"
#include "tar/stream.h"
#include "write/chunker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CHECK(what)                                                             \
    do {                                                                        \
        if (!(what)) {                                                          \
            fprintf(stderr, "chunked_kernels.c:%d: %s\n", __LINE__, #what);     \
            exit(1);                                                            \
        }                                                                       \
    } while (0)
#define MAX ((int64_t)4 << 20)

typedef struct { size_t start, len; int is_chunk; } piece;

static uint8_t *tar;
static size_t tar_len, count, cap, contents;
static piece *pieces;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void load(const char *path)
{
    FILE *file = fopen(path, "rb");
    CHECK(file && !fseek(file, 0, SEEK_END));
    tar_len = (size_t)ftell(file);
    rewind(file);
    CHECK((tar = malloc(tar_len + 1)) && fread(tar, 1, tar_len, file) == tar_len);
    fclose(file);
}

static void add(size_t start, size_t end, int is_chunk)
{
    if (start < end)
        CHECK(SGZ_PUSH(pieces, count, cap, (piece){start, end - start, is_chunk}));
}

/* Where files are, as pieces of one chunk each. */
static void find_files(void)
{
    sgz_tar_stream stream = {.parser = sgz_tar_parser_new()};
    sgz_tar_entry entry;
    sgz_tar_event event;
    sgz_error err;
    size_t used, open = 0;
    for (size_t at = 0; at < tar_len; at += used) {
        CHECK(!sgz_tar_stream_take(&stream, tar + at, tar_len - at, &used, &event, &entry, &err));
        if (event != SGZ_TAR_DATA)
            continue;
        add(open, at, 0);
        add(at, at + used, 1);
        open = at + used;
        contents += used;
    }
    add(open, tar_len, 0);
    sgz_tar_parser_free(stream.parser);
}

/* And again with chunks. */
static double cut(void)
{
    piece *files = pieces;
    size_t file_count = count;
    static sgz_chunker c;
    pieces = NULL;
    count = cap = 0;
    double begin = now();
    for (size_t i = 0; i < file_count; i++) {
        size_t at = files[i].start, end = at + files[i].len, len;
        int zeros;
        if (files[i].is_chunk) {
            sgz_write_chunker_begin(&c, (int64_t)files[i].len, MAX);
            for (; (len = sgz_write_chunker_next(&c, tar + at, end - at, &zeros)); at += len)
                add(at, at + len, 1);
        }
        add(at, end, 0);
    }
    free(files);
    return now() - begin;
}

__attribute__((visibility("default"))) int main(int argc, char **argv)
{
    sgz_codecs codecs = {0};
    sgz_error err;
    uint64_t sum = 0;
    uint8_t *out = malloc(sgz_codec_frame_bound((size_t)MAX + (64 << 20)));
    CHECK(argc >= 3 && out && !sgz_codec_load_zstd(&codecs, argv[1], &err));
    load(argv[2]);
    find_files();
    double took = cut();
    printf("{\"frames\": %zu, \"cut\": %.4f", count, took);
    took = now();
    for (size_t i = 0; i < count; i++)
        if (pieces[i].is_chunk)
            sum ^= sgz_codec_crc64(0, tar + pieces[i].start, pieces[i].len);
    printf(", \"crc64\": %.4f, \"contents\": %zu, \"zstd\": {", now() - took, contents);
    for (int i = 3; i < argc; i++) {
        sgz_framer framer = {0};
        size_t total = 0, made;
        CHECK(!sgz_codec_framer_init(&framer, &codecs, atoi(argv[i]), &err));
        took = now();
        for (size_t k = 0; k < count; k++) {
            CHECK(!sgz_codec_frame(&framer, tar + pieces[k].start, pieces[k].len, out,
                                   sgz_codec_frame_bound(pieces[k].len), &made, &err));
            total += made;
        }
        printf("%s\"%s\": [%.4f, %zu]", i > 3 ? ", " : "", argv[i], now() - took, total);
        sgz_codec_framer_free(&framer);
    }
    printf("}}\n");
    fflush(stdout);
    return (int)(sum & 0);
}
