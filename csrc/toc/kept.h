/* The TOC of containers/storage's zstd:chunked, of a tar that is kept byte for byte: an entry for each
 * header, in the tar's order, nothing merged and nothing left out. Its readers compare the TOC with
 * the tar's headers as Go reads them, and fail where they differ: so what the two could differ in is
 * refused. It is written while the tar is read: there are rows only of what is not written yet, and
 * of all other entries a hash of the name.
 *
 * Rows are those of an sgz_toc, but for these: name, link, size, mode and devices are the header's
 * own; mtime is rounded down; pieces that are zeros have bytes in the blob, and so the flag
 * SGZ_KEPT_ZEROS in place of SGZ_ZEROS; inner_offset of a file's own row is where its last frame
 * ends; and each row of a header has room for a digest at digest_off. */
#ifndef SGZ_TOC_KEPT_H
#define SGZ_TOC_KEPT_H

#include "base/xattrs.h"
#include "tar/stated.h"
#include "toc/limits.h"

#define SGZ_KEPT_ZEROS SGZ_PINNED

/* What a row has no room for, of those that have it. */
typedef struct {
    uint32_t row, nanoseconds; /* of the mtime */
    sgz_tar_time atime, ctime;
} sgz_kept_times;

/* Rows one behind the other, which are numbered through from the tar's first entry on. */
typedef struct {
    sgz_toc *toc;           /* no more than rows and texts */
    uint32_t first;         /* the number of its first row */
    sgz_kept_times *times;  /* in the order of the rows */
    size_t time_count, time_cap;
} sgz_kept_rows;

static inline sgz_entry *sgz_kept_row(const sgz_kept_rows *rows, uint32_t number)
{
    return &rows->toc->rows[number - rows->first];
}

/* The first rows, up to this number, become those of `done`, which are over. */
sgz_status sgz_toc_kept_take(sgz_kept_rows *rows, uint32_t until, sgz_kept_rows *done,
                              sgz_error *err);

/* A cleaned name. */
typedef struct {
    uint64_t hash, other;   /* of two seeds: no two names have the same */
    uint8_t kind;
} sgz_kept_name;

/* A hard link to what has not come yet. */
typedef struct {
    sgz_kept_name target;
    uint64_t name_off;      /* among `texts` */
    uint32_t name_len;
} sgz_kept_link;

typedef struct {
    sgz_kept_rows rows;
    sgz_kept_name *names;
    size_t name_count, name_cap;
    sgz_map by_name;
    sgz_kept_link *links;
    size_t link_count, link_cap;
    char *texts;
    size_t text_len, text_cap;
    sgz_xattr *xattrs;      /* scratch */
    size_t xattr_cap;
    char *clean;            /* scratch */
    size_t clean_cap;
    uint32_t last;          /* the file that chunks are added to */
    uint64_t json;          /* about what the TOC has so far, rather less */
    sgz_toc_weight weight;
} sgz_toc_kept;

/* All zero, but for rows.toc, is an empty one. */
void sgz_toc_kept_free(sgz_toc_kept *kept);
/* What the headers of an entry say, of a parser that keeps records, and the type of its row.
 * SGZ_ENOTOC: this dialect cannot hold it, or its readers would refuse the layer. */
sgz_status sgz_toc_kept_header(const sgz_tar_entry *entry, int64_t offset, sgz_tar_stated *stated,
                               uint8_t *type, sgz_error *err);
/* Its xattrs, in kept->xattrs: `used` of them, sorted, with their names as the records have them. */
sgz_status sgz_toc_kept_xattrs(sgz_toc_kept *kept, const sgz_tar_entry *entry, int64_t offset,
                               size_t *used, sgz_error *err);
/* Append the row of an entry; SGZ_ENOTOC as above. */
sgz_status sgz_toc_kept_entry(sgz_toc_kept *kept, const sgz_tar_entry *entry, int64_t offset,
                              uint32_t *row, sgz_error *err);
/* Append a chunk of the file last added. */
sgz_status sgz_toc_kept_chunk(sgz_toc_kept *kept, uint32_t *row, sgz_error *err);
/* After the last one: SGZ_ENOTOC where a hard link leads to nothing, which no one can extract. */
sgz_status sgz_toc_kept_finish(const sgz_toc_kept *kept, sgz_error *err);
/* Whether a TOC that was written as `json` bytes will be opened again: else SGZ_ENOTOC. */
sgz_status sgz_toc_kept_check_size(const sgz_toc_kept *kept, uint64_t json, sgz_error *err);

/* The JSON, in pieces, as sgz_toc_format has it: rows of whole files, as often as there are some, and
 * then its end. `split` is the sha256 of the compressed tar-split. */
typedef struct sgz_kept_json sgz_kept_json;
sgz_kept_json *sgz_toc_kept_json_new(sgz_toc_emit emit, void *arg);  /* NULL: no memory */
void sgz_toc_kept_json_free(sgz_kept_json *json);
void sgz_toc_kept_json_rows(sgz_kept_json *json, const sgz_kept_rows *rows);
/* SGZ_ECALLBACK: `emit` had it stop, here or before. */
sgz_status sgz_toc_kept_json_end(sgz_kept_json *json, const uint8_t split[32], uint64_t *len,
                             sgz_error *err);

#endif
