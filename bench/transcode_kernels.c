/* Time what `--level reuse` takes beyond hashes, each alone, by one thread:
 *
 *     main(ISAL LIBDEFLATE GZIP...)
 *
 * for every GZIP of a tar: ISA-L's inflate, ours to tokens, and the members of its files (4 MiB at
 * most, each with the headers behind it) by level 1 and from the tokens; the size by libdeflate's level 6 and 9. */
#include "base/vec.h"
#include "codec/lz_read.h"
#include "codec/recode.h"
#include "tar/stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CHECK(what)                                                              \
    do {                                                                         \
        if (!(what)) {                                                           \
            fprintf(stderr, "transcode_kernels.c:%d: %s\n", __LINE__, #what);    \
            exit(1);                                                             \
        }                                                                        \
    } while (0)
#define MEMBER_MAX ((size_t)4 << 20)
#define WINDOW ((size_t)4 << 20) /* decoded bytes that are written over and over, as slabs are */
#define PIECE ((size_t)256 << 10)
#define RUNS 5

typedef struct { size_t start, len; } member;

static sgz_codecs codecs;
static uint8_t *in, *tar, *out;
static size_t in_len, tar_len, tar_cap, count, cap;
static member *members;
static sgz_lz lz;
static sgz_error err;

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
    in_len = (size_t)ftell(file);
    rewind(file);
    CHECK((in = malloc(in_len + 1)) && fread(in, 1, in_len, file) == in_len);
    fclose(file);
}

/* Decode everything, into the window or (keep) into `tar` and `lz`. */
static double tokens(int keep)
{
    static uint8_t window[WINDOW];
    sgz_lz_reader *reader;
    sgz_lz own = {0};
    const uint8_t *next = in;
    size_t left = in_len, made, at = 0;
    CHECK(!sgz_codec_lz_reader_new(&reader, &codecs, &err));
    reader->to = keep ? &lz : &own;
    double begin = now();
    do {
        if (keep)
            CHECK(SGZ_FIT(tar, tar_cap, tar_len + PIECE + SGZ_RECODE_SLACK));
        else if (at + PIECE > WINDOW)
            at = own.count = own.mark_count = 0;
        CHECK(!sgz_codec_lz_read(reader, &next, &left, keep ? tar + tar_len : window + at, PIECE,
                                 &made, &err));
        if (keep)
            tar_len += made;
        at += made;
    } while (made);
    double took = now() - begin;
    CHECK(sgz_codec_inflater_at_member_end(&reader->inflater));
    sgz_lz_free(&own);
    sgz_codec_lz_reader_free(reader);
    return took;
}

static double inflate(void)
{
    static uint8_t window[WINDOW];
    sgz_inflater z;
    const uint8_t *next = in;
    size_t left = in_len, made, at = 0;
    CHECK(!sgz_codec_inflater_init(&z, &codecs, &err));
    sgz_codec_inflater_reset(&z, 0);
    double begin = now();
    do {
        at = at + PIECE > WINDOW ? 0 : at;
        CHECK(!sgz_codec_inflate(&z, &next, &left, window + at, PIECE, &made, 0, &err));
        at += made;
    } while (made);
    double took = now() - begin;
    sgz_codec_inflater_free(&z);
    return took;
}

static void cut(size_t from, size_t to)
{
    for (size_t n; from < to; from += n) {
        n = to - from < MEMBER_MAX ? to - from : MEMBER_MAX;
        CHECK(SGZ_PUSH(members, count, cap, (member){from, n}));
    }
}

/* A file's bytes begin a member, as in eStargz. */
static void find_members(void)
{
    sgz_tar_stream stream = {.parser = sgz_tar_parser_new()};
    sgz_tar_entry entry;
    sgz_tar_event event;
    size_t used, open = 0, last = 0;
    count = 0;
    for (size_t at = 0; at < tar_len; at += used) {
        CHECK(!sgz_tar_stream_take(&stream, tar + at, tar_len - at, &used, &event, &entry, &err));
        if (event == SGZ_TAR_DATA && at != last) {
            cut(open, at);
            open = at;
        }
        last = event == SGZ_TAR_DATA ? at + used : 0;
    }
    cut(open, tar_len);
    sgz_tar_parser_free(stream.parser);
}

static double deflate(int level, size_t *total)
{
    sgz_deflater d;
    CHECK(!sgz_codec_deflater_init(&d, &codecs, level, &err));
    *total = 0;
    double begin = now();
    for (size_t i = 0; i < count; i++) {
        size_t made;
        CHECK(!sgz_codec_deflate_member(&d, tar + members[i].start, members[i].len, 0, out,
                                        sgz_codec_member_bound(MEMBER_MAX), &made, &err));
        *total += made;
    }
    double took = now() - begin;
    sgz_codec_deflater_free(&d);
    return took;
}

static double recode(size_t *total, int check)
{
    sgz_recoder *r;
    sgz_inflater z;
    sgz_lz_piece piece = {0, 0};
    uint8_t *back = malloc(MEMBER_MAX);
    CHECK(back && !sgz_codec_recoder_new(&r, &codecs, &err));
    CHECK(!sgz_codec_inflater_init(&z, &codecs, &err));
    *total = 0;
    double begin = now();
    sgz_codec_recode_begin(r, tar, &lz, &piece, 1);
    for (size_t i = 0; i < count; i++) {
        size_t made, len;
        CHECK(!sgz_codec_recode_member(r, members[i].start, members[i].len, out,
                                       sgz_codec_member_bound(MEMBER_MAX), &made, &err));
        *total += made;
        if (!check)
            continue;
        const uint8_t *next = out;
        sgz_codec_inflater_reset(&z, 0);
        CHECK(!sgz_codec_inflate(&z, &next, &made, back, MEMBER_MAX, &len, 1, &err));
        CHECK(len == members[i].len && !memcmp(back, tar + members[i].start, len));
    }
    double took = now() - begin;
    sgz_codec_recoder_free(r);
    sgz_codec_inflater_free(&z);
    free(back);
    return took;
}

static double best(double a, double b)
{
    return a < b ? a : b;
}

__attribute__((visibility("default"))) int main(int argc, char **argv)
{
    CHECK(argc > 3 && !sgz_codec_load_isal(&codecs, argv[1], &err));
    int dense = !sgz_codec_load_libdeflate(&codecs, argv[2], &err);
    CHECK((out = malloc(sgz_codec_member_bound(MEMBER_MAX))));
    printf("[");
    for (int i = 3; i < argc; i++) {
        size_t one = 0, reuse = 0, six = 0, nine = 0;
        double a = 1e9, b = 1e9, c = 1e9, d = 1e9;
        tar_len = 0;
        sgz_lz_free(&lz);
        load(argv[i]);
        tokens(1);
        find_members();
        recode(&reuse, 1);
        for (int run = 0; run < RUNS; run++) {
            a = best(a, inflate());
            b = best(b, tokens(0));
            c = best(c, deflate(1, &one));
            d = best(d, recode(&reuse, 0));
        }
        if (dense) {
            deflate(6, &six);
            deflate(9, &nine);
        }
        printf("%s{\"name\": \"%s\", \"input\": %zu, \"tar\": %zu, \"members\": %zu, \"inflate\": %.4f, "
               "\"tokens\": %.4f, \"level 1\": [%.4f, %zu], \"reuse\": [%.4f, %zu], "
               "\"level 6\": %zu, \"level 9\": %zu}",
               i > 3 ? ", " : "", argv[i], in_len, tar_len, count, a, b, c, one, d, reuse, six, nine);
        free(in);
    }
    printf("]\n");
    fflush(stdout);
    return 0;
}
