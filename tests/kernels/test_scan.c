/* Entry points: where zlib finds the ends of blocks, by the rule that scan.h states, however the
 * input comes; decoding from each gives the same bytes, also where its window has other bytes in
 * the place of unneeded ones. Streams that are broken or cut off: as sgz_codec_inflate has them. */
#include "codec/blocks.h"
#include "codec/scan.h"
#include "check.h"

#include <dlfcn.h>
#include <string.h>

enum { TEXT = 5 << 18, POINTS = 8192, FAR = 512 << 10, WHOLE = 1 << 30 };

/* zlib as it is everywhere: the test makes streams of all kinds with it. */
typedef struct {
    const uint8_t *next_in;
    unsigned avail_in;
    unsigned long total_in;
    uint8_t *next_out;
    unsigned avail_out;
    unsigned long total_out;
    const char *msg;
    void *state, *zalloc, *zfree, *opaque;
    int data_type;
    unsigned long adler, reserved;
} z_stream;

enum { PARTIAL_FLUSH = 1, SYNC_FLUSH, FULL_FLUSH, FINISH, BLOCK };
enum { FILTERED = 1, HUFFMAN_ONLY, RLE, FIXED };

static struct {
    int (*deflateInit2_)(z_stream *, int level, int method, int bits, int memory, int strategy,
                         const char *version, int size);
    int (*deflate)(z_stream *, int flush);
    int (*deflateEnd)(z_stream *);
    int (*inflateInit2_)(z_stream *, int bits, const char *version, int size);
    int (*inflate)(z_stream *, int flush);
    int (*inflateReset)(z_stream *);
    int (*inflateEnd)(z_stream *);
} zlib;

static sgz_codecs codecs;
static uint8_t *text;
static uint8_t *packed, *plain; /* the stream, and what it decodes to */
static size_t packed_len, plain_len, packed_cap = 40 << 20, plain_cap = 40 << 20;

static void load_zlib(void)
{
    void *z = dlopen("libz.so.1", RTLD_NOW);
    CHECK(z && "install zlib1g");
    *(void **)&zlib.deflateInit2_ = dlsym(z, "deflateInit2_");
    *(void **)&zlib.deflate = dlsym(z, "deflate");
    *(void **)&zlib.deflateEnd = dlsym(z, "deflateEnd");
    *(void **)&zlib.inflateInit2_ = dlsym(z, "inflateInit2_");
    *(void **)&zlib.inflate = dlsym(z, "inflate");
    *(void **)&zlib.inflateReset = dlsym(z, "inflateReset");
    *(void **)&zlib.inflateEnd = dlsym(z, "inflateEnd");
}

/* Words of a vocabulary that changes; runs of bytes, and some noise. */
static void fill_text(void)
{
    static uint8_t words[256][12];
    CHECK(text = malloc(TEXT));
    for (size_t at = 0; at < TEXT;) {
        uint8_t *word = words[below(256)];
        if (!below(40))
            for (int i = 0; i < 12; i++)
                word[i] = (uint8_t)below(below(9) ? 64 : 256);
        size_t n = 2 + below(10), times = below(3000) ? 1 : below(4000);
        for (; times && at < TEXT; times--, at += n)
            memcpy(text + at, word, n < TEXT - at ? n : TEXT - at);
    }
}

/* --- streams ----------------------------------------------------------------------------- */

typedef struct {
    int level, strategy, bits, memory, flush;
    size_t every, times; /* flush so often, and so many times */
} kind;

static void add_member(const uint8_t *data, size_t len, kind k)
{
    z_stream z = {0};
    CHECK(!zlib.deflateInit2_(&z, k.level, 8, 16 + (k.bits ? k.bits : 15), k.memory ? k.memory : 8,
                              k.strategy, "1.2.11", sizeof z));
    CHECK(plain_len + len <= plain_cap);
    memcpy(plain + plain_len, data, len);
    plain_len += len;
    z.next_in = data;
    z.next_out = packed + packed_len;
    z.avail_out = (unsigned)(packed_cap - packed_len);
    for (size_t at = 0; k.every && at < len; at += k.every) {
        z.avail_in = (unsigned)(k.every < len - at ? k.every : len - at);
        for (size_t i = 0; i < (k.times ? k.times : 1); i++)
            zlib.deflate(&z, k.flush);
    }
    z.avail_in = (unsigned)(data + len - z.next_in);
    CHECK(zlib.deflate(&z, FINISH) == 1);
    packed_len = packed_cap - z.avail_out;
    zlib.deflateEnd(&z);
}

/* A member of stored blocks: zlib does not end one at any place. Empty ones between them. */
static void add_stored(const uint8_t *data, size_t len, size_t block, int empty)
{
    static const uint8_t header[SGZ_GZIP_HEADER] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255};
    uint8_t *out = packed + packed_len;
    memcpy(out, header, sizeof header);
    out += sizeof header;
    for (size_t at = 0, n; at < len; at += n) {
        n = block < len - at ? block : len - at;
        for (int i = 0; i < empty; i++, out += 5)
            memcpy(out, "\0\0\0\xff\xff", 5);
        *out++ = at + n == len;
        *out++ = (uint8_t)n;
        *out++ = (uint8_t)(n >> 8);
        *out++ = (uint8_t)~n;
        *out++ = (uint8_t)(~n >> 8);
        memcpy(out, data + at, n);
        out += n;
    }
    uint32_t trailer[2] = {sgz_codec_crc32(&codecs, 0, data, len), (uint32_t)len};
    memcpy(out, trailer, sizeof trailer);
    packed_len = (size_t)(out + sizeof trailer - packed);
    memcpy(plain + plain_len, data, len);
    plain_len += len;
}

static void add_noise(size_t len)
{
    uint8_t *noise = malloc(len);
    CHECK(noise);
    for (size_t i = 0; i < len; i++)
        noise[i] = (uint8_t)below(256);
    add_member(noise, len, (kind){.level = 6});
    free(noise);
}

static void add_isal(int level, size_t len)
{
    sgz_deflater d;
    sgz_error err;
    size_t made;
    CHECK(!sgz_codec_deflater_init(&d, &codecs, level, &err));
    CHECK(!sgz_codec_deflate_member(&d, text, len, 1, packed + packed_len, packed_cap - packed_len,
                                    &made, &err));
    sgz_codec_deflater_free(&d);
    packed_len += made;
    memcpy(plain + plain_len, text, len);
    plain_len += len;
}

static void add_zeros(size_t len)
{
    uint8_t *zeros = calloc(1, len);
    CHECK(zeros);
    add_member(zeros, len, (kind){.level = 6});
    free(zeros);
}

enum { KINDS = 40 };

/* The stream of kind i; 0 where there is none. */
static int make(int i)
{
    static const kind kinds[] = {
        {.level = 0},
        {.level = 1},
        {.level = 6},
        {.level = 9},
        {.level = 6, .strategy = HUFFMAN_ONLY},
        {.level = 6, .strategy = RLE},
        {.level = 6, .strategy = FIXED},
        {.level = 6, .strategy = FILTERED},
        {.level = 6, .flush = SYNC_FLUSH, .every = 5000},
        {.level = 6, .flush = FULL_FLUSH, .every = 70000},
        {.level = 6, .flush = SYNC_FLUSH, .every = 37},
        {.level = 6, .flush = PARTIAL_FLUSH, .every = 3000},
        {.level = 6, .flush = BLOCK, .every = 9000},
        {.level = 6, .flush = BLOCK, .every = 61},
        {.level = 6, .flush = FULL_FLUSH, .every = 20000, .times = 6},
        {.level = 6, .flush = PARTIAL_FLUSH, .every = 16384, .times = 9},
        {.level = 6, .bits = 9},
        {.level = 6, .bits = 12},
        {.level = 6, .memory = 1},
        {.level = 9, .memory = 9},
    };
    const int simple = sizeof kinds / sizeof *kinds;
    packed_len = plain_len = 0;
    if (i < simple) {
        add_member(text, kinds[i].every && kinds[i].every < 100 ? TEXT / 8 : TEXT, kinds[i]);
        return 1;
    }
    switch (i - simple) {
    case 0: add_zeros(9 << 20); break;
    case 1: add_noise(1 << 20); break;
    case 2: /* members of all sizes */
        for (size_t at = 0, n; at + 9000 < TEXT; at += n) {
            n = below(9) ? below(9000) : below((uint32_t)(TEXT - at));
            add_member(text + at, n, (kind){.level = (int)below(10)});
        }
        break;
    case 3: /* as bgzip has them */
        for (size_t at = 0; at < TEXT; at += 65280)
            add_member(text + at, TEXT - at < 65280 ? TEXT - at : 65280, (kind){.level = 6});
        break;
    case 4: /* large ones */
        for (size_t at = 0; at + TEXT / 3 <= TEXT; at += TEXT / 3)
            add_member(text + at, TEXT / 3, (kind){.level = 6});
        break;
    case 5: add_member(text, 0, (kind){.level = 6}); break;
    case 6: add_member(text, 1, (kind){.level = 6}); break;
    case 7: /* empty members, also before and behind */
        for (int m = 0; m < 40; m++)
            add_member(text, m % 3 == 1 ? 100000 : 0, (kind){.level = 6});
        break;
    case 8: add_stored(text, TEXT, 65535, 0); break;
    case 9: add_stored(text, TEXT / 2, 1000, 3); break;
    case 10: add_isal(1, TEXT); break;
    case 11: add_isal(2, TEXT); break;
    case 12: add_isal(6, TEXT); break;
    case 13: add_isal(12, TEXT); break;
    case 14: /* members whose first blocks are stored and small, or empty */
        for (size_t at = 0; at + 40000 < TEXT; at += 40000) {
            add_stored(text + at, 20000, 7000, (int)below(3));
            add_member(text + at + 20000, 20000,
                       (kind){.level = 6, .flush = SYNC_FLUSH, .every = 15000});
        }
        break;
    case 15: /* a member that repeats the one before: nothing may be shared */
        for (int m = 0; m < 6; m++)
            add_member(text, 300000, (kind){.level = 9});
        break;
    default: return 0;
    }
    return 1;
}

/* --- what zlib says ---------------------------------------------------------------------- */

typedef struct { int64_t bit, out; int member; } place;
static place places[1 << 20]; /* beginnings of blocks */
static size_t place_count;

static void find_places(void)
{
    static uint8_t out[1 << 18];
    z_stream z = {.next_in = packed, .avail_in = (unsigned)packed_len};
    int64_t done = 0;
    int member = 1;
    place_count = 0;
    CHECK(!zlib.inflateInit2_(&z, 31, "1.2.11", sizeof z));
    for (;;) {
        z.next_out = out;
        z.avail_out = sizeof out;
        int code = zlib.inflate(&z, BLOCK);
        done += (int64_t)(sizeof out - z.avail_out);
        if (code == 1) {
            if (!z.avail_in)
                break;
            CHECK(!zlib.inflateReset(&z));
            member = 1;
            continue;
        }
        CHECK(code == 0 || code == -5);
        if (!(z.data_type & 128) || z.data_type & 64)
            continue;
        CHECK(place_count < sizeof places / sizeof *places);
        places[place_count++] =
            (place){8 * (z.next_in - packed) - (z.data_type & 7), done, member};
        member = 0;
    }
    zlib.inflateEnd(&z);
    CHECK((size_t)done == plain_len);
}

/* --- what the scanner says --------------------------------------------------------------- */

typedef struct {
    sgz_point at[POINTS];
    uint8_t *windows[POINTS]; /* as they were handed over */
    size_t count;
    int raw;
    sgz_scanner *scanner;
    int64_t settled;
} result;

static sgz_status found(void *arg, const sgz_point *point, const uint8_t *window, sgz_error *err)
{
    result *r = arg;
    (void)err;
    CHECK(r->count < POINTS && point->out >= r->settled);
    size_t len = r->raw ? SGZ_HISTORY_MAX : sgz_codec_point_stored(point);
    CHECK(r->windows[r->count] = malloc(len + 1));
    memcpy(r->windows[r->count], window, len);
    r->at[r->count++] = *point;
    return SGZ_OK;
}

static void forget(result *r)
{
    for (size_t i = 0; i < r->count; i++)
        free(r->windows[i]);
    r->count = 0;
}

/* Scan all of it in pieces: input of at most `in_step` bytes, output of at most `out_step`; compare
 * the bytes. Steps are random below these, unless they are as long as it gets. */
static void scan(result *r, int64_t span, unsigned tries, int raw, size_t in_step, size_t out_step)
{
    static uint8_t out[1 << 20];
    sgz_error err;
    sgz_scan_options options = {.span = span, .tries = tries, .raw = raw, .found = found, .arg = r};
    forget(r);
    r->raw = raw;
    r->settled = 0;
    CHECK(!sgz_codec_scanner_new(&r->scanner, &codecs, &options, &err));
    size_t at = 0, done = 0, made;
    do {
        size_t left = packed_len - at, given = 1 + below((uint32_t)in_step);
        given = given < left && in_step < packed_len ? given : left;
        size_t room = out_step < sizeof out ? below((uint32_t)out_step + 1) : sizeof out;
        uint8_t *copy = NULL; /* so that reading too far is seen */
        const uint8_t *in = packed + at;
        if (given <= 5000) {
            CHECK(copy = malloc(given + 1));
            in = memcpy(copy, in, given);
        }
        const uint8_t *from = in;
        left = given;
        CHECK(!sgz_codec_scan(r->scanner, &in, &left, out, room, &made, &err));
        CHECK(made <= room && (size_t)(in - from) == given - left);
        CHECK(!memcmp(out, plain + done, made));
        done += made;
        at += given - left;
        free(copy);
        int64_t settled = sgz_codec_scan_settled(r->scanner);
        CHECK(settled >= r->settled);
        r->settled = settled;
        CHECK(sgz_codec_scan_in(r->scanner) == (int64_t)at);
        CHECK(sgz_codec_scan_out(r->scanner) == (int64_t)done);
    } while (at < packed_len || done < plain_len);
    CHECK(!sgz_codec_scan_end(r->scanner, &err));
    CHECK(done == plain_len && sgz_codec_scan_settled(r->scanner) == INT64_MAX);
    sgz_codec_scanner_free(r->scanner);
}

static int64_t bit_of(const sgz_point *point)
{
    return point->offset * 8 + point->skip;
}

/* SOCI's rule. */
static void check_first_places(const result *r, int64_t span)
{
    size_t n = 0;
    for (size_t i = 0; i < place_count; i++) {
        if (n && places[i].out - r->at[n - 1].out <= span)
            continue;
        CHECK(n < r->count && bit_of(&r->at[n]) == places[i].bit && r->at[n].out == places[i].out);
        n++;
    }
    CHECK(n == r->count);
}

/* Each is one of the candidates: so many places behind the span, none too far behind the first,
 * and none behind a member's beginning. The next ones are behind what was decoded to choose. */
static void check_best_places(const result *r, int64_t span, unsigned tries)
{
    int64_t next = -1;
    size_t n = 0;
    for (size_t i = 0; i < place_count;) {
        if (places[i].out <= next) {
            i++;
            continue;
        }
        int chosen = 0, open = 1;
        int64_t first = places[i].out, last = first;
        CHECK(n < r->count);
        for (unsigned seen = 0; open && i < place_count && places[i].out - first <= FAR; i++) {
            last = places[i].out;
            if (places[i].bit == bit_of(&r->at[n]) && last == r->at[n].out)
                chosen = 1;
            open = !places[i].member && ++seen < tries;
        }
        CHECK(chosen);
        next = r->at[n++].out + span;
        if (next < last + SGZ_HISTORY_MAX)
            next = last + SGZ_HISTORY_MAX;
    }
    CHECK(n == r->count);
}

static void check_raw(const result *r)
{
    for (size_t i = 0; i < r->count; i++) {
        size_t out = (size_t)r->at[i].out;
        size_t have = out < SGZ_HISTORY_MAX ? out : SGZ_HISTORY_MAX;
        for (size_t k = 0; k < SGZ_HISTORY_MAX - have; k++)
            CHECK(!r->windows[i][k]);
        CHECK(!memcmp(r->windows[i] + SGZ_HISTORY_MAX - have, plain + out - have, have));
    }
}

static void inflate_raw(sgz_isal_inflate_state *s, const uint8_t *in, size_t len, uint8_t *out,
                        size_t want)
{
    s->next_in = (uint8_t *)in;
    s->avail_in = (uint32_t)len;
    s->next_out = out;
    s->avail_out = (uint32_t)want;
    CHECK(!codecs.isal.inflate(s) && !s->avail_out);
}

/* From each point to its member's end or 100 KiB on, with other bytes for those of its window that
 * are zero and should not be, had they been needed. */
static void check_entering(const result *r)
{
    static uint8_t out[100 << 10], window[SGZ_HISTORY_MAX];
    sgz_isal_inflate_state *s = malloc(sizeof *s);
    CHECK(s);
    codecs.isal.inflate_init(s);
    for (size_t i = 0; i < r->count; i++) {
        const sgz_point *point = &r->at[i];
        uint32_t n = point->history;
        CHECK(n <= SGZ_HISTORY_MAX && n <= point->out && point->packed < (n ? n : 1));
        if (point->packed) {
            codecs.isal.inflate_reset(s);
            inflate_raw(s, r->windows[i], point->packed, window, n);
            CHECK(s->block_state == SGZ_ISAL_BLOCK_FINISH);
        } else {
            memcpy(window, r->windows[i], n);
        }
        for (uint32_t k = 0; k < n; k++)
            if (window[k] != plain[point->out - n + k]) {
                CHECK(!window[k]);
                window[k] = 0xa5;
            }
        size_t end = plain_len, k = place_count; /* of the member */
        while (places[--k].bit > bit_of(point))
            if (places[k].member)
                end = (size_t)places[k].out;
        CHECK(places[k].bit == bit_of(point) && (n == 0) == places[k].member);
        size_t want = end - (size_t)point->out < sizeof out ? end - (size_t)point->out : sizeof out;
        const uint8_t *in = packed + point->offset;
        sgz_isal_enter(&codecs.isal, s, point->skip ? *in >> point->skip : 0,
                       point->skip ? 8 - point->skip : 0, window, n);
        in += point->skip != 0;
        inflate_raw(s, in, (size_t)(packed + packed_len - in), out, want);
        CHECK(!memcmp(out, plain + point->out, want));
    }
    free(s);
}

static void same(const result *a, const result *b)
{
    CHECK(a->count == b->count);
    for (size_t i = 0; i < a->count; i++) {
        const sgz_point *p = &a->at[i], *q = &b->at[i];
        CHECK(p->offset == q->offset && p->out == q->out && p->skip == q->skip);
        CHECK(p->history == q->history && p->packed == q->packed);
        CHECK(!memcmp(a->windows[i], b->windows[i], a->raw ? SGZ_HISTORY_MAX
                                                           : sgz_codec_point_stored(p)));
    }
}

static void scans_alike(void)
{
    static const struct { int64_t span; unsigned tries; int raw; } ways[] = {
        {64 << 10, 1, 1}, {64 << 10, 1, 0}, {64 << 10, 4, 0}, {256 << 10, 1, 0},
        {256 << 10, 3, 0}, {1 << 20, 4, 1}};
    static const size_t steps[][2] = {{5000, WHOLE}, {1000, 9000}, {WHOLE, 5000}};
    static result whole, pieces;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        scan(&whole, ways[i].span, ways[i].tries, ways[i].raw, WHOLE, WHOLE);
        if (below(2)) {
            const size_t *step = steps[below(3)];
            scan(&pieces, ways[i].span, ways[i].tries, ways[i].raw, step[0], step[1]);
            same(&whole, &pieces);
        }
        if (ways[i].tries == 1)
            check_first_places(&whole, ways[i].span);
        else
            check_best_places(&whole, ways[i].span, ways[i].tries);
        if (ways[i].raw)
            check_raw(&whole);
        else
            check_entering(&whole);
    }
    if (packed_len < 60000) { /* byte by byte */
        scan(&whole, 64 << 10, 4, 0, WHOLE, WHOLE);
        scan(&pieces, 64 << 10, 4, 0, 1, WHOLE);
        same(&whole, &pieces);
    }
    forget(&whole);
    forget(&pieces);
}

/* --- streams that are not right ---------------------------------------------------------- */

typedef struct {
    sgz_status status;
    size_t len;
    int garbage;
    sgz_error err;
} outcome;

/* All of `data`, by the scanner or without one. */
static outcome outcome_of(const uint8_t *data, size_t len, size_t step, uint8_t *out, size_t cap,
                          int scans)
{
    outcome o = {0};
    sgz_scan_options options = {.span = SGZ_SPAN_MIN, .tries = below(2) ? 1 : 4};
    sgz_scanner *s = NULL;
    sgz_inflater z;
    size_t made;
    if (scans)
        CHECK(!sgz_codec_scanner_new(&s, &codecs, &options, &o.err));
    else
        CHECK(!sgz_codec_inflater_init(&z, &codecs, &o.err));
    if (!scans)
        sgz_codec_inflater_reset(&z, 0);
    for (size_t at = 0; !o.status;) {
        size_t given = len - at < step ? len - at : step, left = given;
        const uint8_t *in = data + at;
        o.status = scans ? sgz_codec_scan(s, &in, &left, out + o.len, cap - o.len, &made, &o.err)
                         : sgz_codec_inflate(&z, &in, &left, out + o.len, cap - o.len, &made, 0,
                                             &o.err);
        o.len += made;
        at += given - left;
        if (at == len && !made)
            break;
    }
    o.garbage = scans ? sgz_codec_scan_garbage(s) : z.garbage;
    if (!o.status && scans)
        o.status = sgz_codec_scan_end(s, &o.err);
    if (!o.status && !scans && !sgz_codec_inflater_at_member_end(&z))
        o.status = sgz_base_fail(&o.err, SGZ_EDATA, z.base, NULL, 0,
                                 "truncated: the input ends inside a gzip member");
    if (scans)
        sgz_codec_scanner_free(s);
    else
        sgz_codec_inflater_free(&z);
    return o;
}

static void same_outcome(const uint8_t *data, size_t len)
{
    static uint8_t one[2 << 20], other[2 << 20];
    size_t step = below(3) ? len : 1 + below(3000);
    outcome a = outcome_of(data, len, step, one, sizeof one, 0);
    outcome b = outcome_of(data, len, step, other, sizeof other, 1);
    CHECK(a.status == b.status && a.garbage == b.garbage);
    CHECK(!a.status || (!strcmp(a.err.message, b.err.message) && a.err.offset == b.err.offset));
    size_t common = a.len < b.len ? a.len : b.len;
    CHECK(!memcmp(one, other, common));
    CHECK(a.len - common <= (a.status ? 259 : 0) && b.len == common);
}

static void wrong_alike(void)
{
    enum { ROUNDS = 400 };
    static const uint8_t tails[][4] = {{0}, {'x'}, {0x1f}, {0x1f, 0x8b, 8, 0xff}, {0x1f, 0x8b, 9}};
    uint8_t *data = malloc(packed_len + 64);
    CHECK(data);
    for (int n = 0; n < ROUNDS; n++) {
        memcpy(data, packed, packed_len + 64);
        size_t len = packed_len;
        if (n % 4 == 0)
            len = below((uint32_t)packed_len);
        else if (n % 4 == 1)
            memcpy(data + len, tails[below(5)], 4), len += 1 + below(12);
        else
            data[below((uint32_t)packed_len)] ^= (uint8_t)(1u << below(8));
        same_outcome(data, len);
    }
    free(data);
}

int main(void)
{
    sgz_error err;
    if (sgz_codec_load_isal(&codecs, "libisal.so.2", &err) ||
        sgz_codec_load_libdeflate(&codecs, "libdeflate.so.0", &err)) {
        fprintf(stderr, "%s: install libisal2 and libdeflate0\n", err.message);
        return 1;
    }
    CHECK(codecs.isal.blocks);
    load_zlib();
    fill_text();
    CHECK((packed = malloc(packed_cap)) && (plain = malloc(plain_cap)));
    int made = 0;
    for (int i = 0; i < KINDS; i++)
        if (make(i)) {
            find_places();
            scans_alike();
            made++;
        }
    CHECK(made > 30);
    packed_len = plain_len = 0;
    add_member(text, 100000, (kind){.level = 6, .flush = SYNC_FLUSH, .every = 7000});
    add_stored(text, 30000, 9000, 1);
    add_member(text, 0, (kind){.level = 6});
    add_member(text, 130000, (kind){.level = 6, .memory = 1});
    wrong_alike();
    free(packed);
    free(plain);
    free(text);
    return 0;
}
