/* What a packed layer was made of: kept beside it, so that the next pack of the same tree
 * copies what has not changed.
 *
 * A layer that pack makes is a sequence of units. A unit is a run of headers (entries without
 * contents, and last the header of a file with contents), in members of their own, and then
 * that file's chunks, each a member, the last with the file's padding. The bytes of a unit's
 * headers depend on those entries alone, the bytes of its data on that file's contents alone
 * (and on the options of the pack). A unit may have headers only: the last one, and one that
 * ends because its headers grew past SGZ_HEADER_RUN. The landmark's two members stand before the
 * headers of the first unit, in the same range; of an empty tree there is one unit, without
 * entries. */
#ifndef SGZ_PACK_MANIFEST_H
#define SGZ_PACK_MANIFEST_H

#include "codec/codecs.h"
#include "pack/walk.h"

/* The options that decide a layer's bytes: a manifest made with others is of no use. */
typedef struct {
    int32_t level;
    int32_t landmarks;
    int64_t chunk_size;
    int64_t owner, group;       /* of every entry, -1: as they are */
    int64_t mtime;              /* of every entry; INT64_MIN: as they are */
    int64_t mtime_max;          /* later ones become this; INT64_MAX: none do */
    char engine[64];            /* what compresses, with its version where that matters */
} sgz_pack_manifest_options;

enum { SGZ_MANIFEST_DOUBTFUL = 1 }; /* flags: changed so shortly before the pack, or while it
                                       ran, that its times vouch for nothing */

typedef struct {
    sgz_pack_walk_entry file;   /* offsets are into the manifest's arena; known is unused */
    uint32_t unit;              /* that holds its header */
    uint32_t flags;
} sgz_pack_manifest_entry;

typedef struct {
    uint32_t first_entry;       /* up to the next unit's; the last of them has the data */
    uint32_t first_chunk;       /* up to the next unit's; none: headers only */
    uint32_t headers_crc;       /* CRC-32 of the headers' compressed bytes: no damage is copied */
    int64_t start, data, end;   /* blob offsets: [start, data) headers, [data, end) contents */
    int64_t headers_len;        /* bytes of the tar in the headers' members */
    uint8_t digest[32];         /* of the file's contents */
} sgz_pack_manifest_unit;

typedef struct {
    int64_t offset;             /* blob offset of its member */
    uint32_t crc;               /* CRC-32 of the member's bytes */
    uint8_t digest[32];
} sgz_pack_manifest_chunk;

typedef struct {
    sgz_pack_manifest_options options;
    int64_t walked_at;          /* when the walk began, nanoseconds since the epoch, by the clock
                                   that stamps files (CLOCK_REALTIME_COARSE) */
    int64_t blob_size, toc_offset;
    uint8_t blob_digest[32];
    uint8_t tail_digest[32];    /* sha256 of the blob from toc_offset on: tells the layer
                                   without reading it */
    sgz_pack_manifest_entry *entries;
    sgz_pack_manifest_unit *units;
    sgz_pack_manifest_chunk *chunks;
    char *arena;
    size_t entry_count, unit_count, chunk_count, arena_len;
    sgz_map names;              /* to entries; made by load */
    uint64_t seed;              /* of their hashes: no names can be chosen to collide */
    void *file;                 /* what load allocated */
} sgz_pack_manifest;

/* Read a manifest of `len` bytes from a descriptor at offset 0. Everything in it is checked
 * (magic, version, sha256 of the whole, every number's range, ascending offsets that lie in
 * the blob), so that its users need not: SGZ_ETOC says what is wrong. */
sgz_status sgz_pack_manifest_load(sgz_pack_manifest *m, const sgz_codecs *codecs, int fd,
                                  sgz_error *err);
/* Write one; the descriptor is at offset 0 of an empty file. Sets DOUBTFUL by walked_at: git's
 * rule for racy timestamps, with the granularity that each timestamp shows (a whole second
 * may have been cut off: such a one must be two seconds old). */
sgz_status sgz_pack_manifest_save(const sgz_pack_manifest *m, const sgz_codecs *codecs, int fd,
                                  sgz_error *err);
void sgz_pack_manifest_free(sgz_pack_manifest *m);

/* The manifest's entry of this name, or SGZ_WALK_NONE. */
uint32_t sgz_pack_manifest_lookup(const sgz_pack_manifest *m, const char *name, size_t len);
/* An sgz_pack_walk_options.known: the entry of this name when type, size, mtime, ctime, ino, dev,
 * mode, uid, gid, nlink and device numbers are those recorded, and it is not DOUBTFUL. (ctime
 * changes with contents, xattrs and names alike.) `arg` is the manifest. */
uint32_t sgz_pack_manifest_known(void *arg, const sgz_pack_walk_entry *entry, const char *name);

#endif
