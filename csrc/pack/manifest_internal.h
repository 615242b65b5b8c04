/* How a manifest lies in its file: the head, the rows as they are in memory, the arena, and the
 * sha256 of all that. It is a cache of its machine: another byte order or other sizes of rows
 * make it another version. */
#ifndef SGZ_PACK_MANIFEST_INTERNAL_H
#define SGZ_PACK_MANIFEST_INTERNAL_H

#include "pack/manifest.h"

#define SGZ_MANIFEST_MAGIC "SGZMANIF"
#define SGZ_MANIFEST_VERSION 1
#define SGZ_MANIFEST_ORDER 0x01020304u
#define SGZ_MANIFEST_ADVICE "pack without it (--base) once"

typedef struct {
    char magic[8];
    uint32_t version, order;
    uint32_t head_size, entry_size, unit_size, chunk_size;
    uint64_t entry_count, unit_count, chunk_count, arena_len;
    sgz_pack_manifest_options options;
    int64_t walked_at, blob_size, toc_offset;
    uint8_t blob_digest[32], tail_digest[32];
} sgz_pack_manifest_head;

/* Every number of a manifest whose sections are in memory. */
sgz_status sgz_pack_manifest_check(const sgz_pack_manifest *m, sgz_error *err);
/* Make m->names. Two equal ones: SGZ_ETOC. */
sgz_status sgz_pack_manifest_index(sgz_pack_manifest *m, sgz_error *err);

#endif
