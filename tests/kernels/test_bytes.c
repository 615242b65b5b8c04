/* Numbers, hex, UTF-8 and order of bytes. */
#include "check.h"

#include "base/bytes.h"

static const struct {
    const char *text;
    unsigned len; /* of the sequence that it begins with */
} sequences[] = {
    {"a", 1},
    {"\x7f", 1},
    {"\x80", 0},             /* a continuation */
    {"\xbf", 0},
    {"\xc0\x80", 0},         /* NUL, overlong */
    {"\xc1\xbf", 0},
    {"\xc2\x80", 2},
    {"\xc2", 0},             /* cut short */
    {"\xc2\x7f", 0},
    {"\xc2\xc0", 0},
    {"\xdf\xbf", 2},
    {"\xe0\x9f\xbf", 0},     /* overlong */
    {"\xe0\xa0\x80", 3},
    {"\xe2\x82", 0},
    {"\xe2\x82\xac", 3},
    {"\xe2\x82\x2c", 0},
    {"\xe2\x28\xac", 0},
    {"\xed\x9f\xbf", 3},
    {"\xed\xa0\x80", 0},     /* a surrogate */
    {"\xed\xbf\xbf", 0},
    {"\xee\x80\x80", 3},
    {"\xef\xbf\xbd", 3},
    {"\xef\xbf\xbf", 3},
    {"\xf0\x8f\xbf\xbf", 0}, /* overlong */
    {"\xf0\x90\x80\x80", 4},
    {"\xf0\x9f\x98\x80", 4},
    {"\xf0\x9f\x98", 0},
    {"\xf0\x9f\x98\x28", 0},
    {"\xf0\x9f\x28\x80", 0},
    {"\xf4\x8f\xbf\xbf", 4},
    {"\xf4\x90\x80\x80", 0}, /* above U+10FFFF */
    {"\xf5\x80\x80\x80", 0},
    {"\xff", 0},
};

static void check_utf8(void)
{
    for (size_t i = 0; i < sizeof sequences / sizeof *sequences; i++) {
        size_t len = strlen(sequences[i].text);
        /* In memory of just that size, so that the sanitizer sees who reads on. */
        char *text = malloc(len + 1);
        CHECK(text);
        memcpy(text, sequences[i].text, len);
        CHECK(sgz_utf8_len(text, len) == sequences[i].len);
        CHECK(sgz_is_utf8(text, len) == (sequences[i].len == len));
        text[len] = 'z';
        CHECK(sgz_is_utf8(text, len + 1) == (sequences[i].len == len));
        char *copy = malloc(len);
        CHECK(copy);
        for (size_t cut = 1; cut < sequences[i].len; cut++) {
            copy = realloc(copy, cut);
            CHECK(copy);
            memcpy(copy, text, cut);
            CHECK(!sgz_utf8_len(copy, cut));
        }
        free(copy);
        free(text);
    }
    CHECK(sgz_is_utf8("", 0) && sgz_is_utf8("gr\xc3\xbc\xc3\x9f", 6));
    CHECK(!sgz_is_utf8("gr\xc3\xbc\xc3", 5));
    /* All there is of two bytes. */
    for (unsigned a = 0x80; a < 0x100; a++)
        for (unsigned b = 0; b < 0x100; b++) {
            char text[2] = {(char)a, (char)b};
            CHECK(sgz_utf8_len(text, 2) == (a >= 0xc2 && a < 0xe0 && b >> 6 == 2 ? 2u : 0u));
        }
}

static void check_order(void)
{
    CHECK(!sgz_compare("", 0, "", 0) && !sgz_compare(NULL, 0, "", 0));
    CHECK(sgz_compare("abc", 3, "abd", 3) < 0 && !sgz_compare("abc", 3, "abc", 3));
    CHECK(sgz_compare("ab", 2, "abc", 3) < 0 && sgz_compare("abc", 3, "ab", 2) > 0);
    CHECK(sgz_compare("abd", 3, "abcd", 4) > 0 && sgz_compare("\xff", 1, "a", 1) > 0);
    CHECK(!sgz_compare("abx", 2, "aby", 2));
    CHECK(sgz_is("name", 4, "name") && !sgz_is("names", 5, "name") && !sgz_is("nam", 3, "name"));
    CHECK(!sgz_is("nine", 4, "name") && sgz_is("", 0, ""));
}

int main(void)
{
    uint8_t bytes[9] = {0x78, 0x56, 0x34, 0x92, 0xf0, 0xde, 0xbc, 0x9a, 0x11};
    CHECK(sgz_get_le32(bytes) == 0x92345678u);
    CHECK(sgz_get_le64(bytes) == 0x9abcdef092345678u && sgz_get_le32(bytes + 5) == 0x119abcdeu);
    sgz_put_le32(bytes + 5, 0x01020304);
    CHECK(bytes[4] == 0xf0 && bytes[5] == 4 && bytes[6] == 3 && bytes[7] == 2 && bytes[8] == 1);
    sgz_put_be64(bytes + 1, 0x0123456789abcdefu);
    CHECK(bytes[0] == 0x78 && bytes[1] == 0x01 && bytes[2] == 0x23 && bytes[8] == 0xef);
    uint64_t wide = 0x0123456789abcdefu;
    uint32_t narrow = 0x89abcdef;
    memcpy(bytes + 1, &wide, 8);
    CHECK(sgz_load64(bytes + 1) == wide);
    memcpy(bytes + 3, &narrow, 4);
    CHECK(sgz_load32(bytes + 3) == narrow);

    char hex[17];
    sgz_put_be64(bytes, 0x0123456789abcdefu);
    CHECK(sgz_put_hex(hex, bytes, 8) == hex + 16 && !memcmp(hex, "0123456789abcdef", 16));
    for (int c = 0; c < 256; c++) {
        const char *at = c ? strchr(SGZ_HEX_DIGITS, c) : NULL;
        CHECK(sgz_hex_value((char)c) == (at ? at - SGZ_HEX_DIGITS : 0x80));
    }
    check_utf8();
    check_order();
    return 0;
}
