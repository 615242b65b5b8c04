/* What writing and reading the file of an index share. */
#ifndef SGZ_INDEX_FORMAT_INTERNAL_H
#define SGZ_INDEX_FORMAT_INTERNAL_H

#include "base/varint.h"
#include "index/format.h"

/* The numbers in the head, by name; digests are sha256. */
typedef struct {
    uint32_t version, kind;
    int64_t size;                       /* of the blob */
    uint8_t digest[32];
    int64_t tar_size;                   /* decoded */
    uint8_t diff_id[32];
    int64_t archive_size, span_size, longest;
    uint64_t points, entries;           /* how many */
    int64_t json_size;
    uint8_t json_digest[32];
    uint64_t points_len, windows_len;   /* of the sections, in their order */
    uint64_t entries_len, entries_packed; /* inflated, and in the file */
    uint64_t toc_len;
} sgz_index_head;

#define SGZ_INDEX_HEAD_SIZE (8 + 2 * 4 + 8 + 32 + 8 + 32 + 3 * 8 + 2 * 8 + 8 + 32 + 5 * 8)
#define SGZ_INDEX_SUM_SIZE 32

/* More no file has; so sums of lengths do not overflow. */
#define SGZ_INDEX_SECTION_MAX ((uint64_t)1 << 48)

/* What the section of the entries may inflate to, beside a TOC of so much JSON. */
static inline uint64_t sgz_index_entries_max(int64_t json_size)
{
    return 2 * (uint64_t)json_size + ((uint64_t)40 << 20);
}

/* Kinds of texts in that section: those of toc.h come first. */
#define SGZ_INDEX_TAR_NAME (SGZ_TEXT_GROUP + 1)

void sgz_index_pack_head(const sgz_index_head *head, uint8_t out[SGZ_INDEX_HEAD_SIZE]);
void sgz_index_unpack_head(const uint8_t data[SGZ_INDEX_HEAD_SIZE], sgz_index_head *head);

/* The number of a kind in the file, and back; 0 and -1: there is none. */
uint32_t sgz_index_kind_number(sgz_point_kind kind);
int sgz_index_kind_of(uint32_t number);

#endif
