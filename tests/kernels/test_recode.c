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

/* A member comes back: the same bytes as of a recoder that made none before. */
static void one_member(sgz_recoder *r, const uint8_t *text, size_t begin, size_t size,
                       const sgz_lz_piece pieces[3])
{
    static uint8_t packed[SIZE + SIZE / 8 + 1024], again[sizeof packed], back[OUT];
    sgz_recoder *fresh;
    sgz_error err;
    size_t made, len, bound = sgz_codec_member_bound(size);
    CHECK(!sgz_codec_recode_member(r, begin, size, packed, bound, &made, &err));
    CHECK(made <= bound);
    outcome o = inflate_all(packed, made, back);
    CHECK(!o.status && o.at_end && o.members == 1 && o.len == size && !memcmp(back, text + begin, size));
    CHECK(!sgz_codec_recoder_new(&fresh, &codecs, &err));
    sgz_codec_recode_begin(fresh, text, &lz, pieces, 3);
    CHECK(!sgz_codec_recode_member(fresh, begin, size, again, bound, &len, &err));
    CHECK(len == made && !memcmp(again, packed, len));
    sgz_codec_recoder_free(fresh);
}

/* Members of data[0, size), cut at random, with a part that is no token's; and what lies before them, the
 * end and all of it. */
static void members_of(const uint8_t *text, size_t size)
{
    static sgz_recoder *r;
    sgz_error err;
    size_t from = below((uint32_t)size), to = from + below((uint32_t)(size - from) + 1);
    sgz_lz_piece pieces[] = {{0, 0}, {from, -1}, {to, (int64_t)to}};
    CHECK(r || !sgz_codec_recoder_new(&r, &codecs, &err));
    sgz_codec_recode_begin(r, text, &lz, pieces, 3);
    one_member(r, text, size - 3000, 3000, pieces);
    for (size_t at = 0, n; at < size; at += n) {
        n = 1 + below(below(2) ? 300 : 100000);
        n = n < size - at ? n : size - at;
        if (!at || below(4) == 0)
            sgz_codec_recode_begin(r, text, &lz, pieces, 3);
        one_member(r, text, at, n, pieces);
        one_member(r, text, below((uint32_t)at + 1), 1 + below((uint32_t)(n < 300 ? n : 300)), pieces);
    }
    one_member(r, text, 0, size, pieces);
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
    CHECK(out_step > 1000 || lz.mark_count > SIZE / 131072); /* what is looked for is not far from one */
    members_of(out, SIZE);
    free_stream(&s);
}

/* Codes of 15 bits, and longer ones that are cut to that: as often as Fibonacci's numbers, and others in
 * each section, so that it is a block. */
static void deep_codes(void)
{
    enum { SECTION = 16384, SYMBOLS = 20 };
    stream s = new_stream(SIZE);
    for (size_t begin = 0; begin < SIZE; begin += SECTION) {
        size_t end = begin + SECTION < SIZE ? begin + SECTION : SIZE, at = begin;
        uint8_t first = begin / SECTION % 2 ? 'a' : 'A';
        for (uint32_t a = 1, b = 1, n = 0; n < SYMBOLS && at + a < end; n++) {
            memset(s.text + at, first + (int)n, a);
            at += a;
            b += a;
            a = b - a;
        }
        memset(s.text + at, first + SYMBOLS, end - at);
        for (size_t n = end - begin; n > 1; n--) {
            size_t other = begin + below((uint32_t)n);
            uint8_t c = s.text[begin + n - 1];
            s.text[begin + n - 1] = s.text[other];
            s.text[other] = c;
        }
    }
    add_member(&s, 0, SIZE, 6, 2, 0);
    CHECK(!read_all(s.blob, s.len, s.len, OUT).status);
    static uint8_t packed[SIZE + SIZE / 8 + 1024], back[OUT];
    const sgz_lz_piece piece = {0, 0};
    sgz_recoder *r;
    sgz_error err;
    size_t made;
    CHECK(!sgz_codec_recoder_new(&r, &codecs, &err));
    for (size_t at = 0; at < SECTION; at += 1000) {
        sgz_codec_recode_begin(r, out, &lz, &piece, 1);
        CHECK(!sgz_codec_recode_member(r, at, SIZE - at, packed, sizeof packed, &made, &err));
        outcome o = inflate_all(packed, made, back);
        CHECK(!o.status && o.len == SIZE - at && !memcmp(back, out + at, o.len));
    }
    sgz_codec_recoder_free(r);
    free_stream(&s);
}

/* More literals before a match than a token counts: given by one call, and by many, which do not leave
 * them all to the match. */
static void long_run(size_t step)
{
    enum { LONG = SGZ_LZ_LITERALS_MAX + 5000, MATCH = 3, BLOCK = 65535 };
    static const uint8_t head[] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}, match[] = {3, 2, 0};
    stream s = new_stream(LONG + MATCH);
    uint8_t *to = malloc(LONG + MATCH);
    sgz_lz_reader *r;
    sgz_error err;
    size_t size = 0, said = 0, made;
    memset(s.text + LONG - 1, 'x', MATCH + 1);
    memcpy(s.blob, head, s.len = sizeof head);
    for (size_t at = 0, n; at < LONG; at += n) { /* stored, then a match in the same member */
        n = LONG - at < BLOCK ? LONG - at : BLOCK;
        const uint8_t size_of[] = {0, (uint8_t)n, (uint8_t)(n >> 8), (uint8_t)~n, (uint8_t)(~n >> 8)};
        memcpy(s.blob + s.len, size_of, sizeof size_of);
        memcpy(s.blob + s.len + sizeof size_of, s.text + at, n);
        s.len += sizeof size_of + n;
    }
    memcpy(s.blob + s.len, match, sizeof match);
    s.len += sizeof match;
    s.len += sgz_codec_member_trailer(sgz_codec_crc32(&codecs, 0, s.text, LONG + MATCH), LONG + MATCH,
                                      s.blob + s.len);
    sgz_lz_free(&lz);
    CHECK(to && !sgz_codec_lz_reader_new(&r, &codecs, &err));
    r->to = &lz;
    for (const uint8_t *next = s.blob; size < LONG + MATCH; size += made) {
        size_t room = LONG + MATCH - size < step ? LONG + MATCH - size : step;
        CHECK(!sgz_codec_lz_read(r, &next, &s.len, to + size, room, &made, &err) && made);
        CHECK(r->out - r->covered < 1 << 20);
    }
    CHECK(!memcmp(to, s.text, size));
    tokens_say(to, size);
    for (size_t i = 0; i < lz.count; i++)
        said += sgz_lz_run(lz.tokens[i]) + sgz_lz_len(lz.tokens[i]);
    CHECK((int64_t)said == r->covered);
    sgz_codec_lz_reader_free(r);
    free(to);
    free_stream(&s);
}

/* --- tokens that are made up ------------------------------------------------------------- */

static uint32_t match_of(uint32_t len, uint32_t distance)
{
    uint32_t symbol = SGZ_DISTANCES - 1;
    while (sgz_codec_distance_base[symbol] > distance)
        symbol--;
    return sgz_lz_match(len, symbol, distance - sgz_codec_distance_base[symbol], 0);
}

/* How long text[begin, end) is as a member, which comes back; made by a recoder that made one of the first
 * half by other tokens before, if they are given. */
static size_t recoded(const uint8_t *text, size_t begin, size_t end, const sgz_lz *before,
                      const sgz_lz *from, const sgz_lz_piece *pieces, size_t piece_count)
{
    static uint8_t packed[SIZE + SIZE / 8 + 1024], back[OUT];
    sgz_recoder *r;
    sgz_error err;
    size_t made = 0;
    CHECK(!sgz_codec_recoder_new(&r, &codecs, &err));
    for (int again = before == NULL; again < 2; again++) {
        size_t len = again ? end - begin : (end - begin) / 2;
        sgz_codec_recode_begin(r, text, again ? from : before, pieces, piece_count);
        CHECK(!sgz_codec_recode_member(r, begin, len, packed, sizeof packed, &made, &err));
        outcome o = inflate_all(packed, made, back);
        CHECK(!o.status && o.at_end && o.len == len && !memcmp(back, text + begin, len));
    }
    sgz_codec_recoder_free(r);
    return made;
}

static void noise(uint8_t *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        text[i] = (uint8_t)('a' + below(16));
}

/* Matches with as many bits as there can be, beside such of few: of one byte all that there is, so that any
 * match is right. */
static void long_matches(void)
{
    enum { BEGIN = SGZ_DISTANCE_MAX };
    static uint32_t tokens[SIZE];
    static uint8_t text[SIZE + 64];
    sgz_lz_mark marks[] = {{0, 0}};
    sgz_lz made_up = {.tokens = tokens, .marks = marks, .mark_count = 1};
    const sgz_lz_piece piece = {0, 0};
    size_t at = BEGIN;
    memset(text, 'a', sizeof text);
    tokens[made_up.count++] = sgz_lz_literals(BEGIN);
    while (at + SGZ_MATCH_MAX < SIZE) {
        static const uint32_t all[] = {SGZ_LENGTHS, SGZ_DISTANCES};
        uint32_t symbols[2], rare = made_up.count % 64 < 4;
        for (unsigned i = 0; i < 2; i++) {
            symbols[i] = rare ? all[i] - 8 : 0;
            while (below(3) && symbols[i] < all[i] - 1)
                symbols[i]++;
        }
        uint32_t len = sgz_codec_length_base[symbols[0]] + below(1u << sgz_codec_length_extra[symbols[0]]);
        uint32_t more = below(1u << sgz_codec_distance_extra[symbols[1]]);
        tokens[made_up.count++] = sgz_lz_match(len, symbols[1], more, 0);
        at += len;
    }
    recoded(text, 0, at, NULL, &made_up, &piece, 1);
}

/* What is stored takes as many blocks as its length does. */
static void stored(void)
{
    static const size_t sizes[] = {1, 65535, 65536, 65537, 131070, 131071, 200000};
    static uint8_t text[200000 + 64];
    const sgz_lz none = {0};
    const sgz_lz_piece piece = {0, -1};
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (uint8_t)below(256);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        CHECK(recoded(text, 0, sizes[i], NULL, &none, &piece, 1) < sizes[i] + sizes[i] / 8192 + 64);
}

/* A match that is found again as far back as can be, and one byte further, where a byte that is not the
 * stream's was put between. */
static void farthest(void)
{
    enum { FAR = SGZ_DISTANCE_MAX, LEN = 8, AT = 30000 };
    uint32_t tokens[] = {sgz_lz_literals(FAR), match_of(LEN, FAR)};
    sgz_lz_mark marks[] = {{0, 0}};
    const sgz_lz made_up = {.tokens = tokens, .count = 2, .marks = marks, .mark_count = 1};
    uint8_t text[FAR + LEN + 64];
    size_t made[2];
    noise(text, sizeof text);
    memcpy(text, "ONLYHERE", LEN);
    for (size_t more = 0; more < 2; more++) {
        const sgz_lz_piece pieces[] = {{0, 0}, {AT, -1}, {AT + 1, (int64_t)(AT + 1 - more)}};
        text[FAR] = 'a';
        memcpy(text + FAR + more, "ONLYHERE", LEN);
        made[more] = recoded(text, 0, FAR + LEN + more, NULL, &made_up, pieces, 3);
    }
    CHECK(made[0] < made[1]);
}

/* A match that begins before the member, and is found again so far that much or little is left of it. */
static void left_over(void)
{
    enum { BEGIN = 1000, FOUND = 2000, AT = 3000, END = 3500, LEN = 10, BEFORE = 4 };
    uint32_t far = AT - (BEGIN - BEFORE);
    uint32_t tokens[] = {sgz_lz_literals(FOUND - 3), match_of(3, 500), sgz_lz_literals(AT - FOUND),
                         match_of(LEN, far), sgz_lz_literals(END - AT - LEN)};
    uint32_t others[] = {sgz_lz_literals(FOUND), match_of(8, 500), sgz_lz_literals(AT - FOUND - 8),
                         match_of(LEN, far), sgz_lz_literals(END - AT - LEN)};
    uint32_t fewer[] = {sgz_lz_literals(AT), match_of(LEN, far), sgz_lz_literals(END - AT - LEN)};
    sgz_lz_mark marks[] = {{0, 0}};
    const sgz_lz made_up = {.tokens = tokens, .count = 5, .marks = marks, .mark_count = 1};
    const sgz_lz a_match = {.tokens = others, .count = 5, .marks = marks, .mark_count = 1};
    const sgz_lz not_found = {.tokens = fewer, .count = 3, .marks = marks, .mark_count = 1};
    const sgz_lz_piece piece = {0, 0};
    uint8_t text[END + 64];
    noise(text, sizeof text);
    memcpy(text + BEGIN - BEFORE, "0123456789", LEN);
    memcpy(text + FOUND - 3, text + FOUND - 3 - 500, 3);
    memcpy(text + AT, "0123456789", LEN);
    for (size_t len = SGZ_MATCH_MIN; len <= LEN; len++) {
        memcpy(text + FOUND, "0123456789", len);
        text[FOUND + len] = '#';
        recoded(text, BEGIN, END, NULL, &made_up, &piece, 1);
    }
    memcpy(text + FOUND - 500, text + FOUND, 8);
    size_t literals = recoded(text, BEGIN, END, NULL, &not_found, &piece, 1);
    CHECK(recoded(text, BEGIN, END, NULL, &made_up, &piece, 1) < literals);
    CHECK(recoded(text, BEGIN, END, NULL, &a_match, &piece, 1) + 8 < literals); /* two matches fewer */
    CHECK(recoded(text, BEGIN, END, &made_up, &not_found, &piece, 1) == literals);
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
    deep_codes();
    farthest();
    left_over();
    stored();
    long_matches();
    long_run(SIZE_MAX);
    long_run(300000);
    for (int level = 0; level < 10; level += 3)
        comes_back(level, 0, level ? 30000 : 0, level == 3 ? 100 : SIZE, level == 6 ? 1000 : OUT);
    for (size_t i = 1; i < sizeof strategies / sizeof *strategies; i++)
        comes_back(6, strategies[i], 5000, i == 2 ? 1 : 7000, i == 3 ? 1 : 50000);
    for (size_t i = 0; i < sizeof strategies / sizeof *strategies; i++)
        same_verdicts(strategies[i]);
    sgz_lz_free(&lz);
    return 0;
}
