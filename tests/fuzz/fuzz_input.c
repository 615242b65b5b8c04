/* What a tar is wrapped in (gzip, zstd, or nothing): the same bytes and the same verdict whatever
 * pieces the source gives and reads ask for; and of frames of zstd what libzstd makes of them.
 *
 * The first byte chooses the pieces. fuzz_recode compares gzip with zlib. */
#include "fuzz.h"
#include "io/input.h"

#define OUT_MAX ((size_t)1 << 20)
#define MEMORY ((int64_t)8 << 20)

static uint8_t whole[OUT_MAX], pieces[OUT_MAX], theirs[OUT_MAX];

typedef struct {
    const uint8_t *data;
    size_t size, at, step;
} source;

typedef struct {
    sgz_status status;
    sgz_error err;
    size_t len;
    sgz_wrap wrap;
    int64_t used;
    unsigned note;
} outcome;

static int64_t give(void *arg, uint8_t *out, size_t cap)
{
    source *s = arg;
    size_t n = s->size - s->at;
    n = n < cap ? n : cap;
    n = n < s->step ? n : s->step;
    if (n)
        memcpy(out, s->data + s->at, n);
    s->at += n;
    return (int64_t)n;
}

static outcome decode(const uint8_t *data, size_t size, uint8_t *out, size_t given, size_t asked)
{
    source from = {data, size, 0, given};
    outcome o = {0};
    sgz_input input;
    sgz_source s = {.fd = -1, .read = give, .arg = &from};
    CHECK(!sgz_io_input_open(&input, fuzz_codecs_with_zstd(), s, &o.err));
    CHECK(!sgz_io_input_peek(&input, &o.err));
    o.wrap = input.wrap;
    o.status = sgz_io_input_begin(&input, MEMORY, &o.err);
    for (size_t got = 1; !o.status && got && o.len < OUT_MAX; o.len += got) {
        size_t cap = OUT_MAX - o.len < asked ? OUT_MAX - o.len : asked;
        got = 0;
        o.status = sgz_io_input_read(&input, out + o.len, cap, &got, &o.err);
        CHECK(got <= cap);
    }
    o.used = sgz_io_input_used(&input);
    CHECK(o.used >= 0 && (size_t)o.used <= size);
    o.note = sgz_io_input_note(&input);
    sgz_io_input_close(&input);
    return o;
}

/* Frames, one after the other: what libzstd takes and we do not is refused for a reason. */
static void like_libzstd(const uint8_t *data, size_t size, const outcome *o)
{
    const sgz_zstd *z = &fuzz_codecs_with_zstd()->zstd;
    sgz_zstd_in in = {data, size, 0};
    sgz_zstd_out out = {theirs, OUT_MAX, 0};
    size_t left = 1;
    void *stream = z->create_dstream();
    CHECK(stream && !z->is_error(z->init_dstream(stream)));
    for (size_t in_before = 1, out_before = 1; in_before != in.pos || out_before != out.pos;) {
        in_before = in.pos;
        out_before = out.pos;
        left = z->decompress_stream(stream, &out, &in);
        if (z->is_error(left) || out.pos == OUT_MAX)
            break;
    }
    z->free_dstream(stream);
    size_t common = out.pos < o->len ? out.pos : o->len;
    CHECK(!memcmp(theirs, whole, common));
    if (!o->status && o->len < OUT_MAX)
        CHECK(o->len <= out.pos); /* nothing that it does not make */
    if (!z->is_error(left) && !left && in.pos == size && out.pos < OUT_MAX && o->status) {
        static const char *const words[] = {"window", "dictionary", "version", "format", "memory"};
        int known = 0;
        for (size_t i = 0; i < sizeof words / sizeof *words; i++)
            known |= strstr(o->err.message, words[i]) != NULL;
        CHECK(known);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t steps[] = {1, 2, 3, 5, 16, 100, 4096, OUT_MAX};
    if (size < 1)
        return 0;
    size_t given = steps[data[0] & 7], asked = steps[data[0] >> 3 & 7];
    data++;
    size--;
    outcome a = decode(data, size, whole, OUT_MAX, OUT_MAX);
    outcome b = decode(data, size, pieces, given, asked < 16 ? 16 : asked);
    CHECK(a.wrap == b.wrap);
    size_t common = a.len < b.len ? a.len : b.len;
    CHECK(!memcmp(whole, pieces, common));
    if (a.len < OUT_MAX && b.len < OUT_MAX) {
        CHECK(a.status == b.status);
        CHECK(a.status || (a.len == b.len && a.note == b.note && a.used == b.used));
        /* libzstd has other words for a frame that it has as a whole. */
        CHECK(!a.status || a.wrap == SGZ_WRAP_ZSTD || !strcmp(a.err.message, b.err.message));
    }
    if (a.wrap == SGZ_WRAP_ZSTD)
        like_libzstd(data, size, &a);
    else if (a.wrap == SGZ_WRAP_NONE && !a.status)
        CHECK(a.len == (size < OUT_MAX ? size : OUT_MAX) && !memcmp(whole, data, a.len));
    return 0;
}
