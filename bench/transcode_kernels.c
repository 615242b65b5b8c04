/* Time what `--level reuse` takes beyond hashes, each alone, on the same data, with all cores busy:
 *
 *     main(ISAL THREADS GZIP)
 *
 * Of GZIP, a tar.gz: ISA-L's inflate, ours to tokens, and the members of its files (4 MiB at most,
 * each with the headers behind it) by level 1 and from the tokens. Every thread does the whole of
 * each; what is printed is the mean processor time of a thread, and how many bytes the members are. */
#include "base/vec.h"
#include "codec/lz_read.h"
#include "codec/recode.h"
#include "tar/stream.h"

#include <pthread.h>
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


typedef struct { size_t start, len; } member;

static sgz_codecs codecs;
static uint8_t *in, *tar;
static size_t in_len, tar_len, tar_cap, count, cap;
static member *members;
static sgz_lz lz;
static pthread_barrier_t barrier;

/* What one thread writes to. */
typedef struct {
    uint8_t *window, *out;
    size_t total; /* bytes of the members */
    sgz_error err;
} worker;

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
static void decode(worker *w, int keep)
{
    sgz_lz_reader *reader;
    sgz_lz own = {0};
    const uint8_t *next = in;
    size_t left = in_len, made, at = 0;
    CHECK(!sgz_codec_lz_reader_new(&reader, &codecs, &w->err));
    reader->to = keep ? &lz : &own;
    do {
        if (keep)
            CHECK(SGZ_FIT(tar, tar_cap, tar_len + PIECE + SGZ_RECODE_SLACK));
        else if (at + PIECE > WINDOW)
            at = own.count = own.mark_count = 0;
        CHECK(!sgz_codec_lz_read(reader, &next, &left, keep ? tar + tar_len : w->window + at, PIECE,
                                 &made, &w->err));
        if (keep)
            tar_len += made;
        at += made;
    } while (made);
    CHECK(sgz_codec_inflater_at_member_end(&reader->inflater));
    sgz_lz_free(&own);
    sgz_codec_lz_reader_free(reader);
}

static void tokens(worker *w)
{
    decode(w, 0);
}

static void inflate(worker *w)
{
    sgz_inflater z;
    const uint8_t *next = in;
    size_t left = in_len, made, at = 0;
    CHECK(!sgz_codec_inflater_init(&z, &codecs, &w->err));
    sgz_codec_inflater_reset(&z, 0);
    do {
        at = at + PIECE > WINDOW ? 0 : at;
        CHECK(!sgz_codec_inflate(&z, &next, &left, w->window + at, PIECE, &made, 0, &w->err));
        at += made;
    } while (made);
    sgz_codec_inflater_free(&z);
}

static void cut(size_t from, size_t to)
{
    for (size_t n; from < to; from += n) {
        n = to - from < MEMBER_MAX ? to - from : MEMBER_MAX;
        CHECK(SGZ_PUSH(members, count, cap, (member){from, n}));
    }
}

/* A file's bytes begin a member, as in eStargz. */
static void find_members(sgz_error *err)
{
    sgz_tar_stream stream = {.parser = sgz_tar_parser_new()};
    sgz_tar_entry entry;
    sgz_tar_event event;
    size_t used, open = 0, last = 0;
    count = 0;
    for (size_t at = 0; at < tar_len; at += used) {
        CHECK(!sgz_tar_stream_take(&stream, tar + at, tar_len - at, &used, &event, &entry, err));
        if (event == SGZ_TAR_DATA && at != last) {
            cut(open, at);
            open = at;
        }
        last = event == SGZ_TAR_DATA ? at + used : 0;
    }
    cut(open, tar_len);
    sgz_tar_parser_free(stream.parser);
}

static void deflate(worker *w)
{
    sgz_deflater d;
    CHECK(!sgz_codec_deflater_init(&d, &codecs, 1, &w->err));
    w->total = 0;
    for (size_t i = 0, made; i < count; i++, w->total += made)
        CHECK(!sgz_codec_deflate_member(&d, tar + members[i].start, members[i].len, 0, w->out,
                                        sgz_codec_member_bound(MEMBER_MAX), &made, &w->err));
    sgz_codec_deflater_free(&d);
}

static void recode(worker *w)
{
    sgz_recoder *r;
    sgz_lz_piece piece = {0, 0};
    CHECK(!sgz_codec_recoder_new(&r, &codecs, &w->err));
    w->total = 0;
    sgz_codec_recode_begin(r, tar, &lz, &piece, 1);
    for (size_t i = 0, made; i < count; i++, w->total += made)
        CHECK(!sgz_codec_recode_member(r, members[i].start, members[i].len, w->out,
                                       sgz_codec_member_bound(MEMBER_MAX), &made, &w->err));
    sgz_codec_recoder_free(r);
}

static const struct { const char *name; void (*run)(worker *); } KERNELS[] = {
    {"inflate", inflate}, {"tokens", tokens}, {"level 1", deflate}, {"reuse", recode},
};
#define COUNT (sizeof KERNELS / sizeof *KERNELS)

typedef struct { double seconds[COUNT]; size_t totals[COUNT]; } figures;

static void *work(void *arg)
{
    figures *made = arg;
    size_t bound = sgz_codec_member_bound(MEMBER_MAX);
    worker w = {.window = malloc(WINDOW), .out = malloc(bound)};
    CHECK(w.window && w.out);
    memset(w.window, 1, WINDOW); /* page faults are not the kernel's */
    memset(w.out, 1, bound);
    for (size_t k = 0; k < COUNT; k++) {
        struct timespec a, b;
        pthread_barrier_wait(&barrier);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
        KERNELS[k].run(&w);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
        made->seconds[k] = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
        made->totals[k] = w.total;
    }
    free(w.window);
    free(w.out);
    return NULL;
}

__attribute__((visibility("default"))) int main(int argc, char **argv)
{
    static figures made[1024];
    pthread_t ids[1024];
    worker first = {0};
    CHECK(argc == 4 && !sgz_codec_load_isal(&codecs, argv[1], &first.err));
    int threads = atoi(argv[2]);
    CHECK(threads > 0 && threads < 1024);
    load(argv[3]);
    decode(&first, 1);
    find_members(&first.err);
    pthread_barrier_init(&barrier, NULL, (unsigned)threads);
    for (int t = 0; t < threads; t++)
        CHECK(!pthread_create(&ids[t], NULL, work, &made[t]));
    for (int t = 0; t < threads; t++)
        pthread_join(ids[t], NULL);
    for (size_t k = 0; k < COUNT; k++) {
        double sum = 0;
        for (int t = 0; t < threads; t++)
            sum += made[t].seconds[k];
        printf("%s\"%s\": %.6f", k ? ", " : "{", KERNELS[k].name, sum / threads);
    }
    printf(", \"input\": %zu, \"members\": %zu, \"level 1 bytes\": %zu, \"reuse bytes\": %zu}\n",
           in_len, count, made[0].totals[2], made[0].totals[3]);
    fflush(stdout);
    return 0;
}
