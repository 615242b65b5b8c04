/* Whole numbers in as many bytes as they need: LEB128, ten at most; signed ones zigzag. */
#ifndef SGZ_BASE_VARINT_H
#define SGZ_BASE_VARINT_H

#include <stdint.h>

#define SGZ_VARINT_MAX 10

/* Bytes that are taken one after the other. */
typedef struct {
    const uint8_t *at, *end;
} sgz_cursor;

/* 0 when the bytes end first or the number has more than 64 bits. */
static inline int sgz_get_varint(sgz_cursor *c, uint64_t *value)
{
    *value = 0;
    for (unsigned shift = 0; shift < 70 && c->at < c->end; shift += 7) {
        uint8_t byte = *c->at++;
        if (shift == 63 && byte > 1)
            return 0;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return 1;
    }
    return 0;
}

static inline int sgz_get_zigzag(sgz_cursor *c, int64_t *value)
{
    uint64_t bits;
    if (!sgz_get_varint(c, &bits))
        return 0;
    *value = (int64_t)(bits >> 1) ^ -(int64_t)(bits & 1);
    return 1;
}

/* A varint of a length, and so many bytes. */
static inline int sgz_get_counted(sgz_cursor *c, const uint8_t **data, uint64_t *len)
{
    if (!sgz_get_varint(c, len) || *len > (uint64_t)(c->end - c->at))
        return 0;
    *data = c->at;
    c->at += *len;
    return 1;
}

/* Returns what follows it; `out` has room for SGZ_VARINT_MAX bytes. */
static inline uint8_t *sgz_put_varint(uint8_t *out, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        *out++ = (uint8_t)(value | 0x80);
    *out++ = (uint8_t)value;
    return out;
}

#endif
