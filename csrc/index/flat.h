/* Read a flatbuffer (flatbuffers.dev) that anyone may have made: every access is checked, nothing is
 * aligned, and what leads outside is an error. Nothing is followed more often than it is asked for,
 * so loops are no matter; but tables and texts may be shared, and so mean more than the file has. */
#ifndef SGZ_INDEX_FLAT_H
#define SGZ_INDEX_FLAT_H

#include "base/bytes.h"

typedef struct {
    const uint8_t *data;
    size_t len;
    int bad;             /* something led outside */
} sgz_flat;

typedef struct {
    size_t at;           /* 0: it is absent, and so is all that is in it */
    size_t vtable, vtable_len;
} sgz_flat_table;

/* A vector, and where its first item is; absent ones have none. */
typedef struct {
    size_t at, count;
} sgz_flat_vector;

static inline int sgz_flat_has(sgz_flat *f, uint64_t at, uint64_t len)
{
    int has = at <= f->len && len <= f->len - at;
    f->bad |= !has;
    return has;
}

static inline uint64_t sgz_flat_get(sgz_flat *f, uint64_t at, unsigned size)
{
    uint64_t value = 0;
    if (sgz_flat_has(f, at, size))
        for (unsigned i = size; i--;)
            value = value << 8 | f->data[at + i];
    return value;
}

/* Where an offset at `at` leads to; never 0. */
static inline size_t sgz_flat_follow(sgz_flat *f, size_t at)
{
    uint64_t to = at + sgz_flat_get(f, at, 4);
    sgz_flat_has(f, to, 4);
    return f->bad ? 0 : (size_t)to;
}

static inline sgz_flat_table sgz_flat_table_at(sgz_flat *f, size_t at)
{
    int64_t vtable = (int64_t)at - (int32_t)sgz_flat_get(f, at, 4);
    uint64_t len = f->bad || vtable < 0 ? 0 : sgz_flat_get(f, (uint64_t)vtable, 2);
    if (vtable < 0 || !sgz_flat_has(f, (uint64_t)vtable, len) || f->bad) {
        f->bad = 1;
        return (sgz_flat_table){0};
    }
    return (sgz_flat_table){at, (size_t)vtable, (size_t)len};
}

static inline sgz_flat_table sgz_flat_root(sgz_flat *f)
{
    return sgz_flat_table_at(f, sgz_flat_follow(f, 0));
}

/* Where a field is; 0: it is absent. */
static inline size_t sgz_flat_field(sgz_flat *f, const sgz_flat_table *table, int field)
{
    size_t slot = 4 + 2 * (size_t)field;
    if (!table->at || slot + 2 > table->vtable_len)
        return 0;
    uint64_t offset = sgz_flat_get(f, table->vtable + slot, 2);
    return offset ? table->at + (size_t)offset : 0;
}

static inline int64_t sgz_flat_number(sgz_flat *f, const sgz_flat_table *table, int field,
                                      unsigned size, int64_t absent)
{
    size_t at = sgz_flat_field(f, table, field);
    uint64_t value = at ? sgz_flat_get(f, at, size) : 0;
    if (!at)
        return absent;
    return size == 8 ? (int64_t)value : size == 4 ? (int64_t)(int32_t)value : (int8_t)value;
}

static inline sgz_flat_table sgz_flat_sub(sgz_flat *f, const sgz_flat_table *table, int field)
{
    size_t at = sgz_flat_field(f, table, field);
    return at ? sgz_flat_table_at(f, sgz_flat_follow(f, at)) : (sgz_flat_table){0};
}

/* Of items that have `size` bytes. */
static inline sgz_flat_vector sgz_flat_items(sgz_flat *f, const sgz_flat_table *table, int field,
                                             unsigned size)
{
    size_t at = sgz_flat_field(f, table, field);
    if (!at || !(at = sgz_flat_follow(f, at)))
        return (sgz_flat_vector){0};
    uint64_t count = sgz_flat_get(f, at, 4);
    if (!sgz_flat_has(f, at + 4, count * size))
        return (sgz_flat_vector){0};
    return (sgz_flat_vector){at + 4, (size_t)count};
}

/* The table that an item of a vector of tables is. */
static inline sgz_flat_table sgz_flat_item(sgz_flat *f, const sgz_flat_vector *v, size_t i)
{
    return sgz_flat_table_at(f, sgz_flat_follow(f, v->at + 4 * i));
}

static inline const char *sgz_flat_text(sgz_flat *f, const sgz_flat_table *table, int field,
                                        size_t *len)
{
    sgz_flat_vector v = sgz_flat_items(f, table, field, 1);
    *len = v.count;
    return (const char *)f->data + v.at;
}

#endif
