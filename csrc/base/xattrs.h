/* The extended attributes of one file: one behind the other, sorted by key, each as u32 key
 * length, u32 value length, key, value. */
#ifndef SGZ_BASE_XATTRS_H
#define SGZ_BASE_XATTRS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    const char *key, *value;
    uint32_t key_len, value_len;
} sgz_xattr;

/* Linux's own, of one file: the length of a name, and how many names of one byte behind their
 * namespace go into a list of 64 KiB. */
#define SGZ_XATTR_KEY_MAX 255
#define SGZ_XATTRS_MAX 8192

/* Sort by key; of one key the last is kept: keys lie in memory in the order of the list. Returns
 * how many are left. */
size_t sgz_base_xattrs_sort(sgz_xattr *xattrs, size_t count);

/* Take the one at *at, which moves on. 0: there is none: then *at is `end` unless what is left
 * is not one. */
static inline int sgz_xattrs_next(const char **at, const char *end, sgz_xattr *x)
{
    uint32_t sizes[2];
    if ((size_t)(end - *at) < sizeof sizes)
        return 0;
    memcpy(sizes, *at, sizeof sizes);
    const char *key = *at + sizeof sizes;
    if ((uint64_t)sizes[0] + sizes[1] > (uint64_t)(end - key))
        return 0;
    *x = (sgz_xattr){key, key + sizes[0], sizes[0], sizes[1]};
    *at = x->value + x->value_len;
    return 1;
}

static inline size_t sgz_xattrs_size(size_t key_len, size_t value_len)
{
    return 2 * sizeof(uint32_t) + key_len + value_len;
}

/* Where sgz_xattrs_put puts the value. */
static inline char *sgz_xattrs_value(char *out, size_t key_len)
{
    return out + sgz_xattrs_size(key_len, 0);
}

/* Returns what follows it. The value may be in its place already. */
static inline char *sgz_xattrs_put(char *out, const sgz_xattr *x)
{
    uint32_t sizes[2] = {x->key_len, x->value_len};
    char *value = sgz_xattrs_value(out, x->key_len);
    memcpy(out, sizes, sizeof sizes);
    if (x->key_len)
        memcpy(out + sizeof sizes, x->key, x->key_len);
    if (x->value_len)
        memmove(value, x->value, x->value_len);
    return value + x->value_len;
}

#endif
