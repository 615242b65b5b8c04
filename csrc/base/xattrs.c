#include "base/xattrs.h"

#include <stdlib.h>

#include "base/bytes.h"

static int compare_keys(const sgz_xattr *a, const sgz_xattr *b)
{
    return sgz_compare(a->key, a->key_len, b->key, b->key_len);
}

static int by_key(const void *left, const void *right)
{
    const sgz_xattr *a = left, *b = right;
    int order = compare_keys(a, b);
    return order ? order : a->key < b->key ? -1 : a->key > b->key;
}

size_t sgz_base_xattrs_sort(sgz_xattr *xattrs, size_t count)
{
    size_t sorted = 1, kept = 0;
    while (sorted < count && compare_keys(&xattrs[sorted - 1], &xattrs[sorted]) < 0)
        sorted++;
    if (sorted >= count)
        return count;
    qsort(xattrs, count, sizeof *xattrs, by_key);
    for (size_t i = 0; i < count; i++)
        if (i + 1 == count || compare_keys(&xattrs[i], &xattrs[i + 1]))
            xattrs[kept++] = xattrs[i];
    return kept;
}
