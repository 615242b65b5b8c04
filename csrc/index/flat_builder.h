/* A flatbuffer (flatbuffers.dev), built from its end towards its beginning.
 *
 * The bytes are those of Go's builder for the same calls in the same order. Offsets are counted
 * from the end of the whole. What is built may be taken away in between, so that only a part of it is
 * in memory at a time; and the same part may be built again, in any order: a vtable is written where
 * it was written at first. Want of memory is told by `failed`, at the end. */
#ifndef SGZ_INDEX_FLAT_BUILDER_H
#define SGZ_INDEX_FLAT_BUILDER_H

#include <stddef.h>
#include <stdint.h>

#define SGZ_FLAT_FIELDS 14 /* of a table, at most */

typedef struct {
    uint8_t *buf;          /* its last `len` bytes are what is built */
    size_t len, cap;
    uint64_t behind;       /* bytes of the flatbuffer behind them, that were taken away */
    unsigned align;        /* the largest of all */
    int failed;
    uint64_t table;        /* the open one's end */
    uint64_t fields[SGZ_FLAT_FIELDS]; /* where its fields are; 0: left out */
    struct sgz_flat_vtable {
        uint64_t at;
        uint16_t count, fields[SGZ_FLAT_FIELDS];
    } *vtables;
    size_t vtable_count, vtable_cap;
} sgz_flat_builder;

static inline uint64_t sgz_flat_at(const sgz_flat_builder *b)
{
    return b->behind + b->len;
}

static inline const uint8_t *sgz_flat_data(const sgz_flat_builder *b)
{
    return b->buf + (b->cap - b->len);
}

/* What is built is taken away; the next goes before it. */
static inline void sgz_flat_take(sgz_flat_builder *b)
{
    b->behind += b->len;
    b->len = 0;
}

void sgz_index_flat_free(sgz_flat_builder *b);

/* Each returns where it is, which is what refers to it. */
uint64_t sgz_index_flat_string(sgz_flat_builder *b, const void *text, size_t len);
uint64_t sgz_index_flat_offsets(sgz_flat_builder *b, const uint64_t *refs, size_t count);
/* A vector of bytes, whose bytes are put in elsewhere, between the two calls. */
void sgz_index_flat_bytes_begin(sgz_flat_builder *b, size_t len);
uint64_t sgz_index_flat_bytes_end(sgz_flat_builder *b, size_t len);

/* A table: its fields, then its end. What it refers to was built before. */
void sgz_index_flat_table(sgz_flat_builder *b);
void sgz_index_flat_ref(sgz_flat_builder *b, int field, uint64_t ref);
/* `size` bytes; nothing if it is the default. */
void sgz_index_flat_number(sgz_flat_builder *b, int field, unsigned size, int64_t value,
                           int64_t absent);
uint64_t sgz_index_flat_table_end(sgz_flat_builder *b);

/* The beginning of the whole. */
void sgz_index_flat_finish(sgz_flat_builder *b, uint64_t root);

#endif
