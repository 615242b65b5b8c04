/* The TOC as rows: one fixed struct an entry, names and other strings in one arena.
 *
 * numpy sees the rows as a structured array; Python objects are made when asked for.
 * A row costs sizeof(sgz_entry) bytes, its strings, and 12 to 24 bytes of index. */
#ifndef SGZ_TOC_TOC_H
#define SGZ_TOC_TOC_H

#include "base/map.h"
#include "codec/codecs.h"
#include "toc/origin.h"

#define SGZ_TOC_NAME "stargz.index.json"
#define SGZ_LANDMARK ".prefetch.landmark"
#define SGZ_NO_LANDMARK ".no.prefetch.landmark"

/* The time that a TOC goes without: Go's zero one, the first second of the year 1. Of a TOC that
 * was read it is the epoch. */
#define SGZ_NO_TIME (-62135596800LL)

/* Values of sgz_entry.type; sgz_toc_type_name gives the TOC's word. A file's pieces are its own row,
 * if its chunk_size is not 0, and the rows of the last two types behind it: they follow each other
 * from 0 to its size. Zeros are a piece of which no bytes are read: the blob has none, and there is no
 * digest, but in zstd:chunked of containers/storage, where `offset` is that of their frame. */
enum {
    SGZ_DIR = 1, SGZ_REG, SGZ_SYMLINK, SGZ_HARDLINK, SGZ_CHAR, SGZ_BLOCK, SGZ_FIFO, SGZ_CHUNK,
    SGZ_ZEROS
};

/* Bits of sgz_entry.flags. */
enum {
    SGZ_HAS_DIGEST = 1,        /* the whole file's digest is known: see digest_off */
    SGZ_DIGEST_IS_CHUNK = 2,   /* and equals chunk_digest (a file of one chunk) */
    SGZ_HAS_CHUNK_DIGEST = 4,
    SGZ_BAD_UTF8 = 8,          /* name or link had bytes that JSON cannot hold */
    SGZ_DROPPED = 16,          /* replaced by a later entry: not part of the TOC */
    SGZ_SET_CHUNK_SIZE = 32,   /* chunkSize is (to be) written for this row (format: section 2) */
    SGZ_CLEAN_NAME = 64,       /* name is known to be in its cleaned form */
    SGZ_PINNED = 128           /* a hard link depends on where this entry stands in the tar */
};

typedef struct {
    int64_t size;          /* of a regular file; 0 for everything else */
    int64_t mtime;         /* seconds since the epoch, rounded: see sgz_toc_mtime */
    int64_t offset;        /* of the entry point in the blob from which the chunk is decoded */
    int64_t inner_offset;  /* decoded bytes from there to the chunk */
    int64_t chunk_offset;  /* where the chunk begins in the file */
    int64_t chunk_size;    /* bytes of this chunk; always filled in, 0 only for no data */
    uint64_t name_off, link_off, xattr_off; /* into the arena; xattrs as in base/xattrs.h */
    union {
        uint64_t digest_off; /* into the arena */
        uint64_t target;     /* of a hard link: the row it leads to */
        struct {             /* while a tar is read: */
            uint32_t in_use; /* a directory has entries; entries were put below a symlink */
            uint32_t since;  /* the row that made the directory in the place of something else,
                                0: it always was one */
        };
    };
    uint32_t name_len, link_len, xattr_len;
    uint32_t uname, gname; /* string numbers, 0 = none; sgz_toc_string */
    uint32_t mode, uid, gid, dev_major, dev_minor;
    uint8_t type, flags;
    /* Where the cleaned name stands, of a row that is indexed and not SGZ_CLEAN_NAME: */
    uint16_t clean_skip : 14;  /* so many bytes into the name, */
    uint16_t clean_behind : 1; /* or behind it in the arena; */
    uint16_t clean_known : 1;  /* worked out */
    uint32_t clean_len;
    uint8_t chunk_digest[32];
} sgz_entry;

#define SGZ_NO_ROW SGZ_MAP_NONE

/* Whether a row belongs to the file before it. */
static inline int sgz_toc_is_piece(const sgz_entry *row)
{
    return row->type >= SGZ_CHUNK;
}

/* Whether the blob has bytes of it. */
static inline int sgz_toc_has_data(const sgz_entry *row)
{
    return row->chunk_size > 0 && row->type != SGZ_ZEROS;
}

typedef struct {
    sgz_entry *rows;
    size_t count, cap;
    sgz_toc_origin *origins; /* of each row, of an ordinary tar; NULL: of a seekable layer */
    size_t origin_cap;
    uint32_t *fractions;     /* of mtimes, as sgz_toc_origin.ns: of the first rows, up to the last */
    size_t fraction_count, fraction_cap; /* that has one; of zstd:chunked alone */
    int holes;               /* some rows are zeros */
    int has_split;           /* containers/storage: there is a tar-split, and the sha256 of its */
    uint8_t split_digest[32]; /* frame */
    char *arena;
    size_t arena_len, arena_cap;
    uint64_t *strings;     /* interned user and group names: offset << 16 | length */
    uint32_t string_count;
    size_t string_cap;
    sgz_map names;        /* cleaned: to rows */
    sgz_map string_names; /* to numbers of strings */
    uint64_t implied;     /* directories that only names imply; once all is there */
    uint64_t seed;        /* of the hashes: hostile names must not collide at will */
} sgz_toc;

sgz_toc *sgz_toc_new(void);              /* NULL: no memory */
void sgz_toc_free(sgz_toc *toc);

/* Append a zeroed row; its address is good until the next append. NULL: no memory. */
sgz_entry *sgz_toc_append(sgz_toc *toc);
/* Copy bytes into the arena. UINT64_MAX: no memory. */
uint64_t sgz_toc_store(sgz_toc *toc, const void *data, size_t len);
/* The number of an interned string (at most 65535 bytes). SGZ_NO_ROW: no memory. */
uint32_t sgz_toc_intern(sgz_toc *toc, const char *text, size_t len);
const char *sgz_toc_string(const sgz_toc *toc, uint32_t number, size_t *len);

/* The mtime of a row: of an index's and of zstd:chunked to the nanosecond, as the tar has it. */
typedef struct {
    int64_t seconds;
    uint32_t ns;
} sgz_toc_time;
sgz_toc_time sgz_toc_mtime(const sgz_toc *toc, uint32_t row);

/* The digest of a file without bytes. */
extern const uint8_t sgz_toc_empty_digest[32];
/* The whole file's digest of a row, or NULL where it is not known. */
const uint8_t *sgz_toc_digest(const sgz_toc *toc, uint32_t row);

/* The cleaned form of a name for look-ups: joined to "/", normalised, leading "/"
 * stripped, ".." clamped at the root; the root is "". Returns a pointer into `name` when
 * that is possible, else into `scratch` (at least len bytes). Idempotent. */
const char *sgz_toc_clean_name(const char *name, size_t len, char *scratch, size_t *clean_len);

/* What the format put into the root, which is no part of the files: 1 for a landmark, 2 for
 * the TOC, 0 for all other names (cleaned). */
int sgz_toc_marker(const char *name, size_t len);

/* The row of a name (cleaned on the fly), or SGZ_NO_ROW. Only indexed rows are found. */
uint32_t sgz_toc_lookup(const sgz_toc *toc, const char *name, size_t len);
/* Point the name of `row` at it; *previous is the row it pointed at before, or
 * SGZ_NO_ROW. Pieces are never indexed. */
sgz_status sgz_toc_index(sgz_toc *toc, uint32_t row, uint32_t *previous, sgz_error *err);

/* Index every row that is neither piece nor dropped, in one batch; of rows with the same
 * name the last stays, the earlier ones and their pieces become SGZ_DROPPED. */
sgz_status sgz_toc_index_all(sgz_toc *toc, sgz_error *err);
/* The row whose data a row stands for: itself, or where a chain of hard links ends. Only
 * after sgz_toc_parse_finish. */
uint32_t sgz_toc_resolve(const sgz_toc *toc, uint32_t row);

const char *sgz_toc_type_name(int type);

/* --- directories ---------------------------------------------------------------------- */

/* The children of every directory, also of those that only other names imply. A node is a row,
 * or from row_count on an implied directory: a prefix of some row's name. 8 bytes a node, and
 * about 26 more an implied one. Good as long as the TOC does not change; names must be clean (a
 * parsed TOC). */
typedef struct {
    uint32_t row_count, implied_count;
    struct sgz_toc_implied { /* the first len bytes of a row's name */
        uint32_t row, len, parent;
    } *implied;
    size_t implied_cap;
    sgz_map implied_names;
    uint32_t *starts;      /* of each node its first child in kids; one more at the end */
    uint32_t *kids;        /* nodes, sorted by base name (bytes) within each directory */
    uint32_t root;
} sgz_toc_children;

sgz_status sgz_toc_children_build(const sgz_toc *toc, sgz_toc_children *tree, sgz_error *err);
void sgz_toc_children_free(sgz_toc_children *tree);
/* The node of a name (cleaned on the fly; "" is the root), or SGZ_NO_ROW. */
uint32_t sgz_toc_children_find(const sgz_toc *toc, const sgz_toc_children *tree,
                               const char *name, size_t len);
/* The full name of a node. */
const char *sgz_toc_children_name(const sgz_toc *toc, const sgz_toc_children *tree,
                                  uint32_t node, size_t *len);

/* --- JSON (format: section 2) --------------------------------------------------------- */

/* A text of an entry that is not UTF-8, as it is. */
typedef enum { SGZ_TEXT_NAME, SGZ_TEXT_LINK, SGZ_TEXT_USER, SGZ_TEXT_GROUP } sgz_toc_text_kind;
typedef struct {
    uint64_t entry;     /* counted from 0 without rows that go with a file */
    sgz_toc_text_kind kind;
    const char *text;
    size_t len;
} sgz_toc_text;
/* Where such texts come from, in the order of the entries. `next` gives one, or *none. */
typedef struct {
    sgz_status (*next)(void *arg, sgz_toc_text *text, int *none, sgz_error *err);
    void *arg;
} sgz_toc_texts;

/* A reader of TOC JSON from pieces of any size. Rows get cleaned names, filled-in chunk
 * sizes and user and group names, and (after finish) are checked and indexed. Memory is
 * the rows plus one entry's text. */
typedef struct sgz_toc_parser sgz_toc_parser;
sgz_toc_parser *sgz_toc_parser_new(sgz_toc *toc);
void sgz_toc_parser_free(sgz_toc_parser *parser);
/* Tell the parser early how large the blob is: a TOC with more entries than the blob has
 * room for then fails before it takes the memory (finish checks the same too late). */
void sgz_toc_parser_limit(sgz_toc_parser *parser, int64_t blob_end);
/* Tell it how long the JSON is: it bounds the memory that the rows may take (toc/limits.h). */
void sgz_toc_parser_expect(sgz_toc_parser *parser, int64_t json_size);
/* It is that of zstd:chunked: fractions of mtimes are kept, which of eStargz are cut off, and keys
 * that its readers do not match alike are refused. */
void sgz_toc_parser_chunked(sgz_toc_parser *parser);
/* Give it texts that JSON cannot hold, in the place of those that the JSON has. */
void sgz_toc_parser_texts(sgz_toc_parser *parser, const sgz_toc_texts *texts);
sgz_status sgz_toc_parse(sgz_toc_parser *parser, const char *data, size_t len, sgz_error *err);
/* End of the JSON: complete value, nothing after it but white space; then every check of
 * format section 9 that needs no blob content. blob_end bounds the offsets (the TOC's own
 * offset, or the blob's size less the footer when the TOC is external). */
sgz_status sgz_toc_parse_finish(sgz_toc_parser *parser, int64_t blob_end, sgz_error *err);

/* The name of a row, for errors. */
static inline const char *sgz_toc_row_name(const sgz_toc *toc, uint32_t row)
{
    return toc->arena + toc->rows[row].name_off;
}

/* Format the rows that are not dropped as the reference does, in pieces; `emit` returns
 * non-zero to stop. With `legacy` no chunkDigest is written (google/crfs). *len is the
 * total. emit may be NULL to count only. */
typedef int (*sgz_toc_emit)(void *arg, const char *data, size_t len);
sgz_status sgz_toc_format(const sgz_toc *toc, int legacy, sgz_toc_emit emit, void *arg,
                          uint64_t *len, sgz_error *err);

#endif
