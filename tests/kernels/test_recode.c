/* Tokens of gzip streams, and members made of them: ISA-L's inflate is what both must agree with. */
#include "codec/lz_read.h"
#include "codec/recode.h"
#include "streams.h"

#include "codec/huffman.h"

#include <string.h>

enum { SIZE = 400000, OUT = SIZE + 4096 };

static sgz_codecs codecs;
static sgz_lz lz;
static uint8_t out[OUT + SGZ_RECODE_SLACK];

typedef struct { sgz_status status; size_t len; uint64_t members; int at_end, garbage; sgz_error err; } outcome;

/* Decode to tokens, so many bytes in and out at a time. */
static outcome read_all(const uint8_t *data, size_t size, size_t in_step, size_t out_step)
{
    sgz_lz_reader *r;
    outcome o = {0};
    size_t at = 0, given = 0, made;
    sgz_lz_free(&lz);
    CHECK(!sgz_codec_lz_reader_new(&r, &codecs, &o.err));
    r->to = &lz;
    do {
        size_t room = OUT - o.len < out_step ? OUT - o.len : out_step;
        if (at == given)
            given = size - at < in_step ? size : at + in_step;
        const uint8_t *next = data + at;
        size_t left = given - at;
        o.status = sgz_codec_lz_read(r, &next, &left, out + o.len, room, &made, &o.err);
        CHECK(made <= room);
        o.len += made;
        at = given - left;
    } while (!o.status && (made || at < size));
    o.members = r->inflater.members;
    o.at_end = sgz_codec_inflater_at_member_end(&r->inflater);
    o.garbage = r->inflater.garbage;
    sgz_codec_lz_reader_free(r);
    return o;
}

static outcome inflate_all(const uint8_t *data, size_t size, uint8_t *to)
{
    sgz_inflater z;
    outcome o = {0};
    size_t made;
    CHECK(!sgz_codec_inflater_init(&z, &codecs, &o.err));
    sgz_codec_inflater_reset(&z, 0);
    do {
        o.status = sgz_codec_inflate(&z, &data, &size, to + o.len, OUT - o.len, &made, 0, &o.err);
        o.len += made;
    } while (!o.status && made);
    o.members = z.members;
    o.at_end = sgz_codec_inflater_at_member_end(&z);
    o.garbage = z.garbage;
    sgz_codec_inflater_free(&z);
    return o;
}

/* The tokens say what the bytes are, but for literals: the marks stand where tokens begin. */
static void tokens_say(const uint8_t *text, size_t size)
{
    size_t at = 0, mark = 0;
    for (size_t i = 0; i < lz.count; i++) {
        for (; mark < lz.mark_count && lz.marks[mark].token == i; mark++)
            CHECK(lz.marks[mark].at == (int64_t)at);
        uint32_t len = sgz_lz_len(lz.tokens[i]);
        at += sgz_lz_run(lz.tokens[i]);
        CHECK(!len || (len >= SGZ_MATCH_MIN && sgz_lz_distance(lz.tokens[i]) <= at));
        for (; len; len--, at++)
            CHECK(at < size && text[at] == text[at - sgz_lz_distance(lz.tokens[i])]);
    }
    CHECK(at <= size && size);
}

/* Members of data[0, size), cut at random, with a part that is no token's, come back. The same bytes,
 * whatever the recoder made before. */
static void members_of(const uint8_t *text, size_t size)
{
    static uint8_t packed[SIZE + SIZE / 8 + 1024], again[sizeof packed], back[OUT];
    sgz_recoder *r, *fresh;
    sgz_error err;
    size_t made, len, from = below((uint32_t)size), to = from + below((uint32_t)(size - from) + 1);
    sgz_lz_piece pieces[] = {{0, 0}, {from, -1}, {to, (int64_t)to}};
    CHECK(!sgz_codec_recoder_new(&r, &codecs, &err));
    for (size_t at = 0, n; at < size; at += n) {
        n = 1 + below(below(2) ? 300 : 100000);
        n = n < size - at ? n : size - at;
        if (!at || below(4) == 0)
            sgz_codec_recode_begin(r, text, &lz, pieces, 3);
        CHECK(!sgz_codec_recode_member(r, at, n, packed, sgz_codec_member_bound(n), &made, &err));
        CHECK(made <= sgz_codec_member_bound(n));
        outcome o = inflate_all(packed, made, back);
        CHECK(!o.status && o.at_end && o.members == 1 && o.len == n && !memcmp(back, text + at, n));
        CHECK(!sgz_codec_recoder_new(&fresh, &codecs, &err));
        sgz_codec_recode_begin(fresh, text, &lz, pieces, 3);
        CHECK(!sgz_codec_recode_member(fresh, at, n, again, sgz_codec_member_bound(n), &len, &err));
        CHECK(len == made && !memcmp(again, packed, len));
        sgz_codec_recoder_free(fresh);
    }
    sgz_codec_recoder_free(r);
}

static void comes_back(int level, int strategy, size_t flush, size_t in_step, size_t out_step)
{
    stream s = new_stream(SIZE);
    memset(s.text + SIZE / 2, level, SIZE / 8); /* matches of 258 at distance 1 */
    for (size_t i = 0; i < 20000; i++) /* and what is stored */
        s.text[SIZE / 4 + i] = (uint8_t)below(256);
    size_t half = SIZE / 3;
    add_member(&s, 0, half, level, strategy, flush);
    add_member(&s, half, half, level, strategy, 0);
    add_member(&s, half, SIZE, level, strategy, flush);
    outcome o = read_all(s.blob, s.len, in_step, out_step);
    CHECK(!o.status && o.members == 3 && o.at_end && !o.garbage && o.len == SIZE);
    CHECK(!memcmp(out, s.text, SIZE));
    tokens_say(out, SIZE);
    members_of(out, SIZE);
    free_stream(&s);
}

/* Whatever happens to a stream, the verdict is ISA-L's, and what was decoded are its bytes. */
static void same_verdicts(int strategy)
{
    static uint8_t theirs[OUT];
    stream s = new_stream(9000);
    add_member(&s, 0, 5000, 6, strategy, 700);
    add_member(&s, 5000, 9000, 6, strategy, 0);
    uint8_t *copy = malloc(s.len);
    CHECK(copy);
    for (int round = 0; round < 3000; round++) {
        size_t len = below(4) ? s.len : below((uint32_t)s.len);
        memcpy(copy, s.blob, s.len);
        for (uint32_t n = below(4); n; n--)
            copy[below((uint32_t)s.len)] ^= (uint8_t)(1u << below(8));
        outcome a = inflate_all(copy, len, theirs);
        outcome b = read_all(copy, len, below(2) ? s.len : 1 + below(50), below(2) ? OUT : 1 + below(500));
        CHECK(a.status == b.status && a.members == b.members);
        CHECK(a.status ? !strcmp(a.err.message, b.err.message) && a.err.offset == b.err.offset
                       : a.at_end == b.at_end && a.garbage == b.garbage);
        CHECK(a.status || !a.at_end || a.len == b.len); /* (ISA-L gives less of what is cut off) */
        CHECK(a.len <= b.len && !memcmp(theirs, out, a.len));
    }
    free(copy);
    free_stream(&s);
}

/* No code is better: whatever package-merge makes, moving a bit between any two symbols is not. */
static void best_codes(void)
{
    uint32_t counts[SGZ_HUFFMAN_MAX];
    uint8_t lengths[SGZ_HUFFMAN_MAX];
    for (int round = 0; round < 300; round++) {
        unsigned n = 2 + below(280), max = n > 100 ? 9 + below(7) : 7 + below(9), sum = 0;
        uint32_t a = 1, b = 1;
        for (unsigned i = 0; i < n; i++) { /* as deep as they get: Fibonacci's numbers */
            counts[i] = round % 3 ? below(1u << below(20)) : a;
            uint32_t c = a + b < 1u << 21 ? a + b : 1;
            a = b;
            b = c;
        }
        sgz_codec_huffman(counts, n, max, lengths);
        for (unsigned i = 0; i < n; i++) {
            CHECK(lengths[i] <= max && (!counts[i] || lengths[i]));
            sum += lengths[i] ? 1u << (15 - lengths[i]) : 0;
        }
        CHECK(sum == 1u << 15);
        for (unsigned i = 0; i < n; i++)
            for (unsigned k = 0; k < n; k++)
                CHECK(counts[i] <= counts[k] || lengths[i] <= lengths[k] || !counts[k]);
    }
}

int main(void)
{
    static const int strategies[] = {0, 1, 2, 3, 4}; /* default, filtered, Huffman only, RLE, fixed */
    sgz_error err;
    load_streams();
    CHECK(!sgz_codec_load_isal(&codecs, "libisal.so.2", &err));
    best_codes();
    for (int level = 0; level < 10; level += 3)
        comes_back(level, 0, level ? 30000 : 0, level == 3 ? 100 : SIZE, level == 6 ? 1000 : OUT);
    for (size_t i = 1; i < sizeof strategies / sizeof *strategies; i++)
        comes_back(6, strategies[i], 5000, i == 2 ? 1 : 7000, i == 3 ? 1 : 50000);
    for (size_t i = 0; i < sizeof strategies / sizeof *strategies; i++)
        same_verdicts(strategies[i]);
    sgz_lz_free(&lz);
    return 0;
}
