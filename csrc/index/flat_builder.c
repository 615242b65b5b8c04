#include "index/flat_builder.h"

#include "base/vec.h"

#include <string.h>

void sgz_index_flat_free(sgz_flat_builder *b)
{
    free(b->buf);
    free(b->vtables);
    memset(b, 0, sizeof *b);
}

/* Room for `size` more bytes before the others; NULL: there is none. */
static uint8_t *put(sgz_flat_builder *b, size_t size)
{
    if (size > b->cap - b->len) {
        size_t cap = b->cap * 2 > b->len + size ? b->cap * 2 : b->len + size;
        uint8_t *buf = b->failed ? NULL : malloc(cap);
        if (!buf) {
            b->failed = 1;
            return NULL;
        }
        if (b->len)
            memcpy(buf + cap - b->len, sgz_flat_data(b), b->len);
        free(b->buf);
        b->buf = buf;
        b->cap = cap;
    }
    b->len += size;
    return b->buf + (b->cap - b->len);
}

static void put_zeros(sgz_flat_builder *b, size_t size)
{
    uint8_t *out = size ? put(b, size) : NULL;
    if (out)
        memset(out, 0, size);
}

static void put_bytes(sgz_flat_builder *b, const void *data, size_t size)
{
    uint8_t *out = size ? put(b, size) : NULL;
    if (out)
        memcpy(out, data, size);
}

static void set_number(uint8_t *out, unsigned size, uint64_t value)
{
    for (unsigned i = 0; i < size; i++)
        out[i] = (uint8_t)(value >> 8 * i);
}

static void put_number(sgz_flat_builder *b, unsigned size, uint64_t value)
{
    uint8_t *out = put(b, size);
    if (out)
        set_number(out, size, value);
}

/* What comes is aligned to `size` once `more` bytes are before it. */
static void align(sgz_flat_builder *b, unsigned size, size_t more)
{
    if (size > b->align)
        b->align = size;
    put_zeros(b, (size_t)(-(sgz_flat_at(b) + more) & (size - 1)));
}

static void put_ref(sgz_flat_builder *b, uint64_t ref)
{
    align(b, 4, 0);
    put_number(b, 4, sgz_flat_at(b) - ref + 4);
}

void sgz_index_flat_bytes_begin(sgz_flat_builder *b, size_t len)
{
    align(b, 4, len);
}

uint64_t sgz_index_flat_bytes_end(sgz_flat_builder *b, size_t len)
{
    put_number(b, 4, len);
    return sgz_flat_at(b);
}

uint64_t sgz_index_flat_string(sgz_flat_builder *b, const void *text, size_t len)
{
    sgz_index_flat_bytes_begin(b, len + 1);
    put_zeros(b, 1);
    put_bytes(b, text, len);
    return sgz_index_flat_bytes_end(b, len);
}

uint64_t sgz_index_flat_offsets(sgz_flat_builder *b, const uint64_t *refs, size_t count)
{
    align(b, 4, 4 * count);
    for (size_t i = count; i--;)
        put_ref(b, refs[i]);
    return sgz_index_flat_bytes_end(b, count);
}

void sgz_index_flat_table(sgz_flat_builder *b)
{
    b->table = sgz_flat_at(b);
    memset(b->fields, 0, sizeof b->fields);
}

void sgz_index_flat_ref(sgz_flat_builder *b, int field, uint64_t ref)
{
    put_ref(b, ref);
    b->fields[field] = sgz_flat_at(b);
}

void sgz_index_flat_number(sgz_flat_builder *b, int field, unsigned size, int64_t value,
                           int64_t absent)
{
    if (value == absent)
        return;
    align(b, size, 0);
    put_number(b, size, (uint64_t)value);
    b->fields[field] = sgz_flat_at(b);
}

static void put_vtable(sgz_flat_builder *b, const struct sgz_flat_vtable *vtable, uint64_t size)
{
    for (size_t i = vtable->count; i--;)
        put_number(b, 2, vtable->fields[i]);
    put_number(b, 2, size);
    put_number(b, 2, 2 * (vtable->count + 2u));
}

uint64_t sgz_index_flat_table_end(sgz_flat_builder *b)
{
    align(b, 4, 0);
    put_zeros(b, 4);
    uint64_t at = sgz_flat_at(b);
    size_t in_part = b->len;
    struct sgz_flat_vtable vtable = {0};
    for (uint16_t i = 0; i < SGZ_FLAT_FIELDS; i++)
        if (b->fields[i]) {
            vtable.fields[i] = (uint16_t)(at - b->fields[i]);
            vtable.count = i + 1;
        }
    size_t found = b->vtable_count;
    while (found && (b->vtables[found - 1].count != vtable.count ||
                     memcmp(b->vtables[found - 1].fields, vtable.fields, sizeof vtable.fields)))
        found--;
    if (found)
        vtable.at = b->vtables[found - 1].at;
    if (!found || vtable.at > at) {
        put_vtable(b, &vtable, at - b->table);
        vtable.at = sgz_flat_at(b);
    }
    if (!found && !SGZ_PUSH(b->vtables, b->vtable_count, b->vtable_cap, vtable))
        b->failed = 1;
    if (!b->failed)
        set_number(b->buf + (b->cap - in_part), 4, vtable.at - at);
    return at;
}

void sgz_index_flat_finish(sgz_flat_builder *b, uint64_t root)
{
    align(b, b->align, 4);
    put_ref(b, root);
}
