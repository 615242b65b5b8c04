/* The parts of the TOC parser: toc/parse.c reads the outer object, toc/parse_fields.c one
 * entry, toc/parse_entry.c makes a row of it, toc/parse_data.c of its contents, toc/parse_check.c
 * looks at the whole. */
#ifndef SGZ_TOC_PARSER_H
#define SGZ_TOC_PARSER_H

#include "base/json.h"
#include "toc/internal.h"

/* Text of one entry (or of one unknown value beside the entries). */
#define SGZ_TOC_TEXT_MAX ((size_t)16 << 20)

/* No decoder makes more bytes of one: deflate stops at 1032, a zstd frame of runs at about
 * 43,000. A size beyond that is impossible, not just unlikely. */
#define SGZ_TOC_RATIO 65536

/* Each tar entry has a header of 512 bytes, of which deflate leaves at least half a byte. */
#define SGZ_TOC_ROWS_PER_BYTE 4
#define SGZ_TOC_ROWS_FREE 65536

/* Keys of an entry: texts, then numbers, then the others. */
enum {
    KEY_NAME, KEY_TYPE, KEY_MODTIME, KEY_LINK, KEY_UNAME, KEY_GNAME, KEY_DIGEST,
    KEY_CHUNK_DIGEST, KEY_CHUNK_TYPE, KEY_ACCESSED, KEY_CHANGED, KEY_TEXTS,
    KEY_SIZE = KEY_TEXTS, KEY_MODE, KEY_UID, KEY_GID, KEY_OFFSET, KEY_INNER_OFFSET,
    KEY_DEV_MAJOR, KEY_DEV_MINOR, KEY_CHUNK_OFFSET, KEY_CHUNK_SIZE, KEY_END_OFFSET, KEY_NUMBERS,
    KEY_XATTRS = KEY_NUMBERS, KEY_NUM_LINK, KEY_COUNT, KEY_UNKNOWN = KEY_COUNT, KEY_DISPUTED
};

/* One entry as its text says; spans point into the text. */
typedef struct {
    sgz_json_span texts[KEY_TEXTS];
    int64_t numbers[KEY_NUMBERS - KEY_TEXTS];
    sgz_json_span xattrs; /* the object, braces included */
    uint32_t seen;
    int key;             /* being read: for errors */
    int chunked;
} sgz_toc_fields;

/* One xattr as its text says. */
typedef struct {
    const char *key;
    size_t key_at, key_len;
    sgz_json_span value;
} sgz_toc_pair;

#define FIELD(fields, key) ((fields)->numbers[(key) - KEY_TEXTS])

/* Who wants entries as they stand in the place of rows; chunks too. The texts are good during the
 * call. */
typedef sgz_status (*sgz_toc_take_fields)(void *arg, const sgz_toc_fields *fields, sgz_error *err);

struct sgz_toc_parser {
    sgz_toc *toc;
    sgz_toc_take_fields take; /* NULL: rows are made */
    void *take_arg;
    int state, failed;
    int64_t consumed;    /* bytes of JSON before the next piece */

    /* A unit (key, value or entry) that goes over the end of a piece is collected here. */
    char *carry;
    size_t carry_len, carry_cap;
    int64_t carry_at;
    int collecting;
    size_t scan_depth;
    int scan_string, scan_escape;

    int top_key, seen_version, seen_entries, seen_split;

    /* Where the rows stand. */
    uint32_t owner;      /* the last row that is no chunk */
    int64_t covered;     /* bytes of the owner that its chunks cover so far */
    uint32_t data_row;   /* the last row with data */
    int64_t data_offset, data_end; /* its member, and where it ends in there, decoded */
    int64_t total;       /* bytes of all chunks */
    uint64_t max_rows;
    uint64_t json_size;  /* as far as it is known */
    sgz_toc_id_map users, groups;
    int chunked;         /* of zstd:chunked: see sgz_toc_parser_chunked */

    sgz_toc_texts texts; /* next NULL: none, or no more */
    sgz_toc_text text;   /* that comes next */
    int has_text;
    uint64_t named;      /* entries so far, without rows that go with a file */

    char *scratch;       /* decoded texts of one entry */
    size_t scratch_cap;
    sgz_toc_pair *pairs; /* xattrs of one entry */
    size_t pair_cap;
};

#define SGZ_TOC_KEY_MAX 14 /* bytes of the longest key that is known */

const char *sgz_toc_key_name(int key);
/* Its number among the types of rows; 0: it is none. */
int sgz_toc_read_type(const sgz_json_span *span);
/* Fold as Go matches keys: ASCII letters to lower case, and the two letters beyond ASCII
 * that fold to one: U+212A to k, U+017F to s. Returns the length, 0 when it is too long.
 * Of zstd:chunked there is a reader that has U+0130 for i, and not U+017F for s: `disputed`, NULL for
 * eStargz, says whether any of the three is in the key. */
size_t sgz_toc_fold_key(const sgz_json_span *span, char out[SGZ_TOC_KEY_MAX + 1], int *disputed);
/* What is said of a key that is known by such a letter. */
#define SGZ_TOC_DISPUTED "readers do not agree which key this is"
/* Read one entry; the cursor is at its opening brace. */
sgz_json_result sgz_toc_read_fields(sgz_json_cursor *c, sgz_toc_fields *fields);

/* What the rows so far take, without the directories that they imply. */
static inline sgz_toc_weight sgz_toc_parser_weight(const sgz_toc_parser *parser)
{
    return (sgz_toc_weight){.rows = parser->toc->count,
                            .bytes = parser->toc->arena_len,
                            .owners = parser->toc->string_count + parser->users.map.used +
                                      parser->groups.map.used};
}

/* Fail with the row's name. */
#define FAIL(parser, row, err, ...)                                                             \
    sgz_base_fail(err, SGZ_ETOC, -1, sgz_toc_entry_name((parser)->toc, row), (row)->name_len,   \
                  __VA_ARGS__)

/* "sha256:" and 64 lower-case hex digits (OCI image spec, descriptor.md); 0: it is something else. */
int sgz_toc_read_digest(const sgz_json_span *span, uint8_t out[32]);

/* A short text, decoded into buf if it must be; NULL when it is too long for that. */
static inline const char *sgz_toc_short_text(const sgz_json_span *span, char *buf, size_t cap,
                                             size_t *len)
{
    *len = span->len;
    if (span->plain)
        return span->ptr;
    if (span->len > cap / 3)
        return NULL;
    int bad = 0;
    *len = sgz_base_json_decode(span, buf, &bad);
    return buf;
}

/* Errors of the parser count bytes of the JSON; say so, and say where in the blob the TOC is. */
sgz_status sgz_toc_in_json(sgz_status status, int64_t offset, sgz_error *err);
/* The error for one of more bytes than are allowed. */
sgz_status sgz_toc_too_large(int64_t offset, int64_t size, int64_t max_size, sgz_error *err);

/* Append the row of an entry. */
sgz_status sgz_toc_add_entry(sgz_toc_parser *parser, sgz_toc_fields *fields,
                             sgz_error *err);
/* Fill in a chunk's row. */
sgz_status sgz_toc_add_chunk(sgz_toc_parser *parser, const sgz_toc_fields *fields,
                             sgz_entry *row, sgz_error *err);
/* Fill in what the row of a regular file has of its contents; its rows may move. */
sgz_status sgz_toc_add_contents(sgz_toc_parser *parser, const sgz_toc_fields *fields,
                                uint32_t number, sgz_error *err);
/* The last file is covered by its chunks. */
sgz_status sgz_toc_close_file(sgz_toc_parser *parser, sgz_error *err);
/* Everything that takes all rows. */
sgz_status sgz_toc_check(sgz_toc_parser *parser, int64_t blob_end, sgz_error *err);

#endif
