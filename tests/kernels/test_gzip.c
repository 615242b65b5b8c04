/* Members: the same bytes from every deflater, whatever its address; and back again. */
#include "gzip.h"
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
        CHECK(!sgz_deflater_init(&deflaters[i], &codecs, level, &err));
    for (int n = 0; n < 40000; n++) {
        size_t size = 1 + below(n % 2 ? 70 : LARGEST), at = below(TEXT - LARGEST);
        sgz_deflater *other = &deflaters[1 + below(DEFLATERS - 1)];
        CHECK(!sgz_deflate_member(&deflaters[0], text + at, size, 0, first, sizeof first,
                                  &first_len, &err));
        CHECK(!sgz_deflate_member(other, text + at, size, 0, out, sizeof out, &len, &err));
        CHECK(len == first_len && !memcmp(out, first, len));
    }
    for (int i = 0; i < DEFLATERS; i++)
        sgz_deflater_free(&deflaters[i]);
}

static void comes_back(int level)
{
    static const size_t sizes[] = {0, 1, 16, 17, 65535, 65536, TEXT};
    sgz_deflater d;
    sgz_inflater z;
    sgz_error err;
    uint8_t *member = malloc(sgz_member_bound(TEXT)), *back = malloc(TEXT);
    CHECK(member && back && !sgz_deflater_init(&d, &codecs, level, &err));
    CHECK(!sgz_inflater_init(&z, &codecs, &err));
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t len, made;
        CHECK(!sgz_deflate_member(&d, text, sizes[i], 0, member, sgz_member_bound(sizes[i]), &len,
                                  &err));
        sgz_inflater_reset(&z, 0);
        const uint8_t *in = member;
        CHECK(!sgz_inflate(&z, &in, &len, back, TEXT, &made, 0, &err));
        /* A full buffer ends the call: the trailer is left for the next one. */
        size_t more;
        CHECK(!sgz_inflate(&z, &in, &len, back, 0, &more, 0, &err) && !more && !len);
        CHECK(made == sizes[i] && !memcmp(back, text, made));
        CHECK(z.members == 1 && sgz_inflater_at_member_end(&z));
    }
    free(member);
    free(back);
    sgz_deflater_free(&d);
    sgz_inflater_free(&z);
}

int main(void)
{
    sgz_error err;
    if (sgz_load_isal(&codecs, "libisal.so.2", &err)
        || sgz_load_libdeflate(&codecs, "libdeflate.so.0", &err)) {
        fprintf(stderr, "%s: install libisal2 and libdeflate0\n", err.message);
        return 1;
    }
    fill_text();
    for (int level = 1; level <= SGZ_LEVEL_ISAL_MAX; level++)
        same_bytes_anywhere(level);
    for (int level = SGZ_LEVEL_MIN; level <= SGZ_LEVEL_MAX; level++)
        comes_back(level);
    return 0;
}
