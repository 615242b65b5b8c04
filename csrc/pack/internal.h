/* Shared by the parts of the packer: pack.c (what is known of the tree), header.c, fill.c (the
 * layout), load.c (contents). */
#ifndef SGZ_PACK_INTERNAL_H
#define SGZ_PACK_INTERNAL_H

#include "toc/rows.h"
#include "pack/pack.h"

#include <string.h>

#define CHANGED_NAMES 16

static inline size_t sgz_pack_padding(int64_t size)
{
    return (size_t)(-(uint64_t)size % SGZ_TAR_BLOCK);
}

/* One part of a unit that has to be had from somewhere: its headers, or a chunk. */
typedef struct {
    int copied;             /* as it is in the base, at base_at; else from the tree */
    uint32_t entry;         /* whose chunk it is; of headers the first */
    uint32_t headers;       /* how many entries' headers; 0: a chunk */
    uint32_t piece;         /* of the slab, of a chunk */
    int64_t at;             /* of a chunk: in the file */
    size_t start;           /* in the slab's buf, if the tar's bytes are wanted */
    size_t len, tar_len;    /* without and with padding */
    int64_t base_at;
    size_t packed, packed_len;
    uint32_t crc;
} sgz_pack_part;

/* What a member, or a part of a run of copied ones, is in the manifest. */
typedef struct {
    uint32_t member;        /* of the slab */
    uint32_t unit;
    uint32_t chunk;         /* SGZ_WALK_NONE: the unit's headers */
    uint32_t piece;
    uint32_t crc;           /* if it is copied */
    int64_t at;             /* blob bytes from the member's start */
} sgz_pack_mark;

/* What is known of a slab besides the slab. */
typedef struct sgz_pack_plan {
    struct sgz_pack_plan *next; /* all of them, to be freed */
    sgz_pack_part *parts;
    size_t part_count, part_cap;
    size_t *jobs;           /* the first part of each */
    size_t job_count, job_cap;
    size_t job_bytes;       /* of the last one, in work */
    sgz_pack_mark *marks;
    size_t mark_count, mark_cap;
    int64_t base_end;       /* where the last member's copied run ends in the base; -1: none */
} sgz_pack_plan;

/* An entry as the tar writer wants it. */
typedef struct {
    sgz_tar_entry entry;
    char *name;
    size_t name_cap;
    sgz_xattr *xattrs;
    size_t xattr_cap;
} sgz_pack_made_header;

struct sgz_pack {
    const sgz_codecs *codecs;
    sgz_pack_options options;
    const sgz_pack_manifest *base;
    int same_headers;           /* the base's entries were written as these are to be */
    int root;
    sgz_write_filler filler;
    sgz_toc *toc;
    sgz_toc_rows *apply;
    pthread_mutex_t toc_lock;
    sgz_pack_manifest m;        /* of the layer that is made; its entries are what is packed */
    uint32_t *unit_rows;        /* of each unit's file, in the TOC */

    /* Filling. */
    sgz_pack_plan *plans;
    sgz_pack_made_header header;
    int landmark_done;
    size_t next;                /* the entry that comes next */
    uint32_t file;              /* the entry whose chunks come next */
    int64_t file_size, file_done; /* none: equal */
    uint32_t file_row;
    uint32_t copy_chunk;        /* of the base, the next one's; SGZ_WALK_NONE: not copied */
    int64_t progress;
    sgz_notes notes;
    sgz_pack_counts counts;     /* as far as the layout tells */

    pthread_mutex_t lock;       /* of everything below, and entries' flags */
    sgz_pack_counts found;      /* while loading */
    struct { uint32_t entry; int cut; } changed[CHANGED_NAMES];
    sgz_map chunks; /* the base's, by digest */
};

static inline sgz_status sgz_pack_no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to pack");
}

/* Fill in `header->entry` for an entry of the tree. */
sgz_status sgz_pack_header(const sgz_pack *p, size_t number, sgz_pack_made_header *header,
                           sgz_error *err);
void sgz_pack_header_free(sgz_pack_made_header *header);

/* Units of a manifest. */
static inline uint32_t sgz_pack_unit_entries(const sgz_pack_manifest *m, uint32_t unit)
{
    size_t end = unit + 1 < m->unit_count ? m->units[unit + 1].first_entry : m->entry_count;
    return (uint32_t)(end - m->units[unit].first_entry);
}

static inline uint32_t sgz_pack_unit_chunks(const sgz_pack_manifest *m, uint32_t unit)
{
    size_t end = unit + 1 < m->unit_count ? m->units[unit + 1].first_chunk : m->chunk_count;
    return (uint32_t)(end - m->units[unit].first_chunk);
}

/* Where the member of a unit's chunk ends. */
static inline int64_t sgz_pack_chunk_end(const sgz_pack_manifest *m, uint32_t unit,
                                         uint32_t chunk)
{
    size_t next = (size_t)chunk + 1;
    int more = next < (size_t)m->units[unit].first_chunk + sgz_pack_unit_chunks(m, unit);
    return more ? m->chunks[next].offset : m->units[unit].end;
}

static inline int64_t sgz_pack_chunk_count(int64_t size, int64_t chunk_size)
{
    return size / chunk_size + (size % chunk_size != 0);
}

/* The parts that write/pipeline.c calls. */
sgz_status sgz_pack_fill(void *arg, sgz_write_slab *slab, int *end, sgz_error *err);
void *sgz_pack_worker_new(void *arg, sgz_error *err);
void sgz_pack_worker_free(void *arg, void *worker);
sgz_status sgz_pack_load(void *arg, void *worker, sgz_write_slab *slab, size_t n,
                         sgz_error *err);
sgz_status sgz_pack_reuse(void *arg, void *worker, const sgz_write_slab *slab, size_t member,
                          uint8_t *out, size_t cap, size_t *len, sgz_error *err);
sgz_status sgz_pack_placed(void *arg, const sgz_write_slab *slab, int64_t offset,
                           sgz_error *err);

#endif
