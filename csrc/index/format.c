/* The head of the file, in both directions. */
#include "index/format_internal.h"

#include <string.h>

#include "base/bytes.h"

static const sgz_point_kind KINDS[] = {
    SGZ_POINT_DEFLATE, SGZ_POINT_GZIP, SGZ_POINT_ZSTD, SGZ_POINT_STORED,
};
#define KIND_COUNT (sizeof KINDS / sizeof *KINDS)

uint32_t sgz_index_kind_number(sgz_point_kind kind)
{
    uint32_t number = KIND_COUNT;
    while (number && KINDS[number - 1] != kind)
        number--;
    return number;
}

int sgz_index_kind_of(uint32_t number)
{
    return number && number <= KIND_COUNT ? (int)KINDS[number - 1] : -1;
}

/* The fields in their order: one list for both directions. */
#define FIELDS(NUMBER, DIGEST)                                                                  \
    NUMBER(size)                                                                                \
    DIGEST(digest)                                                                              \
    NUMBER(tar_size)                                                                            \
    DIGEST(diff_id)                                                                             \
    NUMBER(archive_size)                                                                        \
    NUMBER(span_size)                                                                           \
    NUMBER(longest)                                                                             \
    NUMBER(points)                                                                              \
    NUMBER(entries)                                                                             \
    NUMBER(json_size)                                                                           \
    DIGEST(json_digest)                                                                         \
    NUMBER(points_len)                                                                          \
    NUMBER(windows_len)                                                                         \
    NUMBER(entries_len)                                                                         \
    NUMBER(entries_packed)                                                                      \
    NUMBER(toc_len)

void sgz_index_pack_head(const sgz_index_head *head, uint8_t out[SGZ_INDEX_HEAD_SIZE])
{
    memcpy(out, SGZ_INDEX_MAGIC, 8);
    sgz_put_le32(out + 8, head->version);
    sgz_put_le32(out + 12, head->kind);
    out += 16;
#define PUT_NUMBER(field) sgz_put_le64(out, (uint64_t)head->field), out += 8;
#define PUT_DIGEST(field) memcpy(out, head->field, 32), out += 32;
    FIELDS(PUT_NUMBER, PUT_DIGEST)
}

void sgz_index_unpack_head(const uint8_t data[SGZ_INDEX_HEAD_SIZE], sgz_index_head *head)
{
    head->version = sgz_get_le32(data + 8);
    head->kind = sgz_get_le32(data + 12);
    data += 16;
#define GET_NUMBER(field) head->field = (__typeof__(head->field))sgz_get_le64(data), data += 8;
#define GET_DIGEST(field) memcpy(head->field, data, 32), data += 32;
    FIELDS(GET_NUMBER, GET_DIGEST)
}
