/* Packed extended attributes: there and back, and what is cut short or lies about its size; lists of
 * them by key. */
#include "check.h"

#include "base/xattrs.h"

/* In the order of their keys; of one key the last is left, which lies behind the others. */
static void sort_some(const char *keys, const char *expected)
{
    sgz_xattr list[8];
    size_t count = strlen(keys), kept;
    for (size_t i = 0; i < count; i++)
        list[i] = (sgz_xattr){keys + i, keys + i, 1, 1};
    kept = sgz_base_xattrs_sort(list, count);
    CHECK(kept == strlen(expected));
    for (size_t i = 0; i < kept; i++)
        CHECK(*list[i].key == expected[i] && list[i].key == strrchr(keys, expected[i]) &&
              list[i].value == list[i].key);
}

int main(void)
{
    sort_some("", "");
    sort_some("abc", "abc");
    sort_some("cab", "abc");
    sort_some("abab", "ab");
    sort_some("aa", "a");
    sort_some("bacabb", "abc");
    const sgz_xattr given[] = {
        {"security.capability", "\0\1\2", 19, 3},
        {"user.empty", NULL, 10, 0},
        {"", "of no name", 0, 10},
        {"user.x", "y", 6, 1},
    };
    const size_t count = sizeof given / sizeof *given;
    size_t size = 0, ends[5] = {0};
    for (size_t i = 0; i < count; i++)
        ends[i + 1] = size += sgz_xattrs_size(given[i].key_len, given[i].value_len);
    CHECK(size == 4 * 8 + 19 + 3 + 10 + 10 + 6 + 1);
    char *packed = malloc(size), *out = packed;
    CHECK(packed);
    for (size_t i = 0; i < count; i++) {
        sgz_xattr x = given[i];
        if (i == 0) /* in its place already */
            x.value = memcpy(sgz_xattrs_value(out, x.key_len), x.value, x.value_len);
        out = sgz_xattrs_put(out, &x);
        CHECK(out == packed + ends[i + 1]);
    }
    /* Cut at every byte: whole ones, and then none. */
    for (size_t len = 0; len <= size; len++) {
        char *part = malloc(len + 1);
        CHECK(part);
        memcpy(part, packed, len);
        part = realloc(part, len ? len : 1);
        const char *at = part, *end = part + len;
        sgz_xattr x;
        size_t n = 0;
        for (; sgz_xattrs_next(&at, end, &x); n++) {
            CHECK(x.key_len == given[n].key_len && x.value_len == given[n].value_len);
            CHECK(!memcmp(x.key, given[n].key, x.key_len));
            CHECK(!x.value_len || !memcmp(x.value, given[n].value, x.value_len));
        }
        CHECK(at == part + ends[n] && (n == count || len < ends[n + 1]));
        CHECK((at == end) == (len == ends[n]));
        free(part);
    }
    /* Sizes whose sum is none. */
    for (int i = 0; i < 3; i++) {
        uint32_t sizes[2] = {i == 1 ? 1 : UINT32_MAX, i == 2 ? 1 : UINT32_MAX};
        const char *at = packed;
        sgz_xattr x;
        memcpy(packed, sizes, sizeof sizes);
        CHECK(!sgz_xattrs_next(&at, packed + size, &x) && at == packed);
    }
    free(packed);
    return 0;
}
