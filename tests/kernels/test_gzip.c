/* Members: the same bytes from every deflater, whatever its address; and back again. Damaged
 * ones: only bytes that are theirs, whatever the inflater and the buffer held before. */
#include "codec/gzip.h"
#include "check.h"

#include <string.h>

enum { DEFLATERS = 16, TEXT = 1 << 20, LARGEST = 1500 };

static sgz_codecs codecs;
static uint8_t text[TEXT];

/* Words of a small vocabulary: matches at all distances, the first bytes' among them. */
static void fill_text(void)
{
    uint8_t words[64][8];
    for (int i = 0; i < 64; i++)
        for (int k = 0; k < 8; k++)
            words[i][k] = (uint8_t)("0123456789abcdef "[below(17)]);
    for (size_t at = 0; at + 8 < TEXT; at += 3 + below(6))
        memcpy(text + at, words[below(64)], 8);
}

static void same_bytes_anywhere(int level)
{
    static sgz_deflater deflaters[DEFLATERS];
    static uint8_t first[LARGEST * 2], out[LARGEST * 2];
    size_t first_len, len;
    sgz_error err;
    for (int i = 0; i < DEFLATERS; i++)
        CHECK(!sgz_codec_deflater_init(&deflaters[i], &codecs, level, &err));
    for (int n = 0; n < 40000; n++) {
        size_t size = 1 + below(n % 2 ? 70 : LARGEST), at = below(TEXT - LARGEST);
        sgz_deflater *other = &deflaters[1 + below(DEFLATERS - 1)];
        CHECK(!sgz_codec_deflate_member(&deflaters[0], text + at, size, 0, first, sizeof first,
                                        &first_len, &err));
        CHECK(!sgz_codec_deflate_member(other, text + at, size, 0, out, sizeof out, &len, &err));
        CHECK(len == first_len && !memcmp(out, first, len));
    }
    for (int i = 0; i < DEFLATERS; i++)
        sgz_codec_deflater_free(&deflaters[i]);
}

static void comes_back(int level)
{
    static const size_t sizes[] = {0, 1, 16, 17, 65535, 65536, TEXT};
    sgz_deflater d;
    sgz_inflater z;
    sgz_error err;
    uint8_t *member = malloc(sgz_codec_member_bound(TEXT)), *back = malloc(TEXT);
    CHECK(member && back && !sgz_codec_deflater_init(&d, &codecs, level, &err));
    CHECK(!sgz_codec_inflater_init(&z, &codecs, &err));
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t len, made;
        CHECK(!sgz_codec_deflate_member(&d, text, sizes[i], 0, member,
                                        sgz_codec_member_bound(sizes[i]), &len, &err));
        sgz_codec_inflater_reset(&z, 0);
        const uint8_t *in = member;
        CHECK(!sgz_codec_inflate(&z, &in, &len, back, TEXT, &made, 0, &err));
        /* A full buffer ends the call: the trailer is left for the next one. */
        size_t more;
        CHECK(!sgz_codec_inflate(&z, &in, &len, back, 0, &more, 0, &err) && !more && !len);
        CHECK(made == sizes[i] && !memcmp(back, text, made));
        CHECK(z.members == 1 && sgz_codec_inflater_at_member_end(&z));
    }
    free(member);
    free(back);
    sgz_codec_deflater_free(&d);
    sgz_codec_inflater_free(&z);
}

typedef struct {
    sgz_status status;
    size_t len;
    char message[sizeof ((sgz_error *)0)->message];
} outcome;

/* Inflate all of it, `step` bytes of input at a time. */
static outcome inflate(sgz_inflater *z, const uint8_t *in, size_t len, size_t step, uint8_t *out,
                       size_t cap)
{
    outcome o = {0};
    sgz_error err = {0};
    sgz_codec_inflater_reset(z, 0);
    for (size_t at = 0; at < len && !o.status;) {
        size_t given = len - at < step ? len - at : step, left = given, made;
        const uint8_t *next = in + at;
        o.status = sgz_codec_inflate(z, &next, &left, out + o.len, cap - o.len, &made, 0, &err);
        o.len += made;
        CHECK(o.status || made || left < given);
        at += given - left;
    }
    memcpy(o.message, err.message, sizeof err.message);
    if (o.status == SGZ_EDATA && z->broken) {
        size_t made;
        CHECK(sgz_codec_inflate(z, &in, &len, out, cap, &made, 0, &err) == SGZ_EDATA && !made);
        CHECK(!strcmp(o.message, err.message));
    }
    return o;
}

static void same_outcome(const outcome *a, const outcome *b)
{
    CHECK(a->status == b->status && a->len == b->len && !strcmp(a->message, b->message));
}

/* The state and the output buffer hold zeros, or what the member was before the damage. */
static void damaged_alike(int level)
{
    enum { MEMBER = 3 * LARGEST };
    static uint8_t good[MEMBER * 2], bad[MEMBER * 2];
    static uint8_t one[MEMBER * 300], other[MEMBER * 300], slow[MEMBER * 300];
    sgz_deflater d;
    sgz_inflater a, b, c;
    sgz_error err;
    int broken = 0;
    CHECK(!sgz_codec_deflater_init(&d, &codecs, level, &err));
    CHECK(!sgz_codec_inflater_init(&a, &codecs, &err) &&
          !sgz_codec_inflater_init(&b, &codecs, &err));
    CHECK(!sgz_codec_inflater_init(&c, &codecs, &err));
    for (int n = 0; n < 4000; n++) {
        size_t size = 1 + below(MEMBER), at = below(TEXT - MEMBER), len;
        CHECK(!sgz_codec_deflate_member(&d, text + at, size, 0, good, sizeof good, &len, &err));
        memcpy(bad, good, len);
        bad[SGZ_GZIP_HEADER + below((unsigned)(len - SGZ_GZIP_HEADER))] ^= 1u << below(8);
        memset(a.state->tmp_out, 0, sizeof a.state->tmp_out);
        memset(one, 0, MEMBER);
        inflate(&b, good, len, len, other, sizeof other);
        outcome o1 = inflate(&a, bad, len, len, one, sizeof one);
        outcome o2 = inflate(&b, bad, len, len, other, sizeof other);
        same_outcome(&o1, &o2);
        CHECK(!memcmp(one, other, o1.len));
        /* A byte at a time ISA-L decodes in another way, and to the same bytes. */
        outcome o3 = inflate(&c, bad, len, 1, slow, sizeof slow);
        size_t common = o1.len < o3.len ? o1.len : o3.len;
        CHECK(o1.status == o3.status && !memcmp(one, slow, common));
        CHECK(o1.len - common <= 258 && o3.len - common <= 258);
        broken += a.broken != 0;
    }
    CHECK(broken > 100);
    sgz_codec_deflater_free(&d);
    sgz_codec_inflater_free(&a);
    sgz_codec_inflater_free(&b);
    sgz_codec_inflater_free(&c);
}

typedef struct {
    uint8_t bytes[4096];
    size_t count; /* bits */
} bits;

static void put_bits(bits *b, unsigned value, int count)
{
    for (int i = 0; i < count; i++, b->count++)
        b->bytes[b->count / 8] |= (uint8_t)((value >> i & 1) << b->count % 8);
}

/* A Huffman code of the fixed block, as RFC 1951 writes it: its first bit first. */
static void put_code(bits *b, unsigned code, int count)
{
    while (count--)
        put_bits(b, code >> count, 1);
}

/* A run of `a`, long enough for ISA-L to leave its own buffer, then a match with a distance
 * code that does not exist. */
static void broken_far_behind(int matches)
{
    static uint8_t out[1 << 20];
    static bits b;
    memset(&b, 0, sizeof b);
    static const uint8_t header[SGZ_GZIP_HEADER] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255};
    memcpy(b.bytes, header, sizeof header);
    b.count = sizeof header * 8;
    put_bits(&b, 1, 1);
    put_bits(&b, 1, 2);
    put_code(&b, 0x30 + 'a', 8);
    for (int i = 0; i <= matches; i++) {
        put_code(&b, 0xc5, 8); /* 258 bytes */
        put_code(&b, i < matches ? 0 : 30, 5);
    }
    size_t len = b.count / 8 + 64, real = 1 + 258 * (size_t)matches;
    sgz_inflater z;
    sgz_error err;
    CHECK(!sgz_codec_inflater_init(&z, &codecs, &err));
    /* In one piece, and in pieces: also where only the state holds the rest. */
    for (size_t cap = sizeof out; cap > 4000; cap = cap / 2 - 1) {
        size_t left = len, total = 0, made;
        const uint8_t *in = b.bytes;
        sgz_status st;
        memset(out, 'a', sizeof out);
        memset(z.state->tmp_out, 'a', sizeof z.state->tmp_out);
        sgz_codec_inflater_reset(&z, 0);
        do {
            st = sgz_codec_inflate(&z, &in, &left, out, cap, &made, 0, &err);
            total += made;
            CHECK(st || made);
        } while (!st);
        CHECK(st == SGZ_EDATA && strstr(err.message, "invalid deflate symbol"));
        CHECK(total <= real && total + 258 >= real);
    }
    sgz_codec_inflater_free(&z);
}

int main(void)
{
    sgz_error err;
    if (sgz_codec_load_isal(&codecs, "libisal.so.2", &err) ||
        sgz_codec_load_libdeflate(&codecs, "libdeflate.so.0", &err)) {
        fprintf(stderr, "%s: install libisal2 and libdeflate0\n", err.message);
        return 1;
    }
    fill_text();
    for (int level = 1; level <= SGZ_LEVEL_ISAL_MAX; level++)
        same_bytes_anywhere(level);
    for (int level = SGZ_LEVEL_MIN; level <= SGZ_LEVEL_MAX; level++)
        comes_back(level);
    for (int level = 1; level <= 6; level++)
        damaged_alike(level);
    for (int matches = 1; matches < 2000; matches += 1 + matches / 4)
        broken_far_behind(matches);
    return 0;
}
