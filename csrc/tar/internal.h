/* What tar.c (headers), pax.c (records), number.c, sparse.c and write.c of this room share. */
#ifndef SGZ_TAR_INTERNAL_H
#define SGZ_TAR_INTERNAL_H

#include "base/vec.h"
#include "tar/tar.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Whose a file is that has no owner of any system. */
#define TAR_NOBODY 65534
/* Kept strings of PAX global headers. Every entry gets them, so the limit is small. */
#define TAR_GLOBAL_MAX (64 << 10)

/* The longest name of an owner, as in toc/rows.h. */
#define TAR_OWNER_MAX UINT16_MAX

/* Where the fields of a header block stand (offset, length). */
#define TAR_NAME 0, 100
#define TAR_MODE 100, 8
#define TAR_UID 108, 8
#define TAR_GID 116, 8
#define TAR_SIZE 124, 12
#define TAR_MTIME 136, 12
#define TAR_CHKSUM 148
#define TAR_TYPE 156
#define TAR_LINK 157, 100
#define TAR_MAGIC 257
#define TAR_UNAME 265, 32
#define TAR_GNAME 297, 32
#define TAR_DEVMAJOR 329, 8
#define TAR_DEVMINOR 337, 8
#define TAR_PREFIX 345
#define TAR_ATIME 345            /* of GNU tar */
#define TAR_CTIME 357
#define TAR_GNU_SPARSE 386       /* 4 pairs of 12-byte numbers */
#define TAR_GNU_EXTENDED 482
#define TAR_GNU_REALSIZE 483, 12
#define TAR_EXT_PAIRS 21         /* in an extension block, from 0 */
#define TAR_EXT_EXTENDED 504

/* Fields that PAX can give, as bits of sgz_tar_fields.set and .reset. */
enum {
    TAR_F_PATH = 1, TAR_F_LINK = 2, TAR_F_UNAME = 4, TAR_F_GNAME = 8,
    TAR_F_SIZE = 16, TAR_F_UID = 32, TAR_F_GID = 64, TAR_F_MTIME = 128
};

typedef struct {
    unsigned set;   /* given */
    unsigned reset; /* given empty: the header block's value, whatever a global one says */
    sgz_tar_text path, link, uname, gname;
    int64_t size, uid, gid, mtime; /* mtime: floor of the seconds */
    uint32_t mtime_nsec;
} sgz_tar_fields;

/* GNU.sparse.* of one PAX header; -1 is "not given". */
typedef struct {
    int seen, map_seen, pair_seen;
    int64_t major, minor, size, real_size, blocks;
    sgz_tar_text name, map;
} sgz_tar_sparse_keys;

typedef struct {
    char *data;
    size_t len, cap;
} sgz_tar_buffer;

typedef enum { TAR_V7, TAR_USTAR, TAR_STAR, TAR_GNU } sgz_tar_format;

typedef enum { TAR_AT_HEADER, TAR_AT_BODY, TAR_AT_OLD_MAP, TAR_AT_MAP } sgz_tar_state;

struct sgz_tar_parser {
    sgz_tar_state state;
    int any_type, keep_records, in_place;
    int failed;             /* nothing more is read after an error */
    int pending;            /* a PAX or long-name header waits for its entry */
    uint8_t header[SGZ_TAR_BLOCK];
    char prefixed[260];     /* prefix "/" name */

    /* The body being read: an 'x', 'g', 'L' or 'K'. */
    char body_type;
    sgz_tar_buffer *body;
    size_t body_size;       /* of which is kept; */
    int64_t body_left;      /* of which is still to come, kept or not */
    int64_t body_at;        /* offset of its header block */
    int64_t header_at, records_at; /* see sgz_tar_entry */
    int64_t meta_bytes;     /* all bodies of this entry so far, but for */
    int64_t map_bytes;      /* its sparse map, in whichever form */
    int over_limit;         /* one of these is too large, or the sparse file is */
    sgz_tar_buffer records, own, long_name, long_link, unused;
    int has_records, has_long_name, has_long_link;
    unsigned notes;         /* on the extended headers of this entry */
    unsigned global_notes;  /* on a global one: for the next entry */

    sgz_tar_fields local, global;
    sgz_tar_sparse_keys sparse;
    sgz_xattr *xattrs; /* of this entry's PAX header; strings in records */
    size_t xattr_count, xattr_cap;
    sgz_xattr *globals; /* of the global headers; each string owned */
    size_t global_count, global_cap, global_bytes;
    char *global_uname, *global_gname;
    sgz_xattr *merged; /* both */
    size_t merged_cap;

    sgz_tar_run *runs;
    size_t run_count, run_cap;

    /* A PAX 1.0 map being read: "count\n" then "offset\nlength\n" each. */
    int64_t map_left;       /* bytes of payload not yet fed */
    int64_t map_value, map_count;
    uint64_t map_tokens;
    int map_digits;

    sgz_tar_entry entry;    /* under construction while maps are read */
};

/* What leaves the headers as they are: all readers see the same, or only new ones do not. */
#define TAR_KEPT (SGZ_NOTE_BIT(TIME) | SGZ_NOTE_BIT(XATTR))

static inline int same_text(sgz_tar_text a, sgz_tar_text b)
{
    return a.len == b.len && !memcmp(a.text, b.text, a.len);
}

/* Whether a fault of the entry is no error; then it is noted. */
static inline int forgiven(sgz_tar_parser *p, unsigned note)
{
    if (p->in_place)
        p->entry.notes |= note;
    return p->in_place;
}

/* The same of one for which the entry is left out. */
static inline int left_out(sgz_tar_parser *p, unsigned note)
{
    p->entry.left_out |= p->in_place;
    return forgiven(p, note);
}

/* Too much for this entry: an error, or it is left out when its header has come. */
sgz_status sgz_tar_over_limit(sgz_tar_parser *p, int64_t at, sgz_tar_text name, sgz_error *err);

static inline sgz_status bad_entry(const sgz_tar_entry *entry, int64_t offset, const char *what,
                                   sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ETAR, offset, entry->name, entry->name_len, "%s", what);
}

static inline sgz_tar_text field_text(const uint8_t *header, size_t at, size_t len)
{
    const char *text = (const char *)header + at;
    const char *nul = memchr(text, 0, len);
    return (sgz_tar_text){text, nul ? (size_t)(nul - text) : len};
}

static inline sgz_tar_format header_format(const uint8_t *header)
{
    if (!memcmp(header + TAR_MAGIC, "ustar  ", 8))
        return TAR_GNU;
    if (memcmp(header + TAR_MAGIC, "ustar", 6))
        return TAR_V7;
    return memcmp(header + 508, "tar", 4) ? TAR_USTAR : TAR_STAR;
}

/* tar/entry.c: p->entry is what the header and the extended ones before it say. */
sgz_status sgz_tar_set_entry(sgz_tar_parser *p, int64_t offset, sgz_error *err);

/* tar/pax.c */
/* Decimal digits with an optional minus. 0 when well formed and in range. */
int sgz_tar_decimal(const char *text, size_t len, int64_t *value);
/* Seconds, rounded down, and a fraction that may be left out; digits past the ninth are cut, as Go
 * does. */
int sgz_tar_parse_time(const char *text, size_t len, int64_t *seconds, uint32_t *nsec);
void sgz_tar_reset_records(sgz_tar_parser *p);
/* Parse p->records as one PAX header, into p->local or p->global. */
sgz_status sgz_tar_parse_records(sgz_tar_parser *p, int global, sgz_error *err);
/* Set entry->xattrs from this entry's and the global ones. */
sgz_status sgz_tar_merge_xattrs(sgz_tar_parser *p, sgz_tar_entry *entry, sgz_error *err);
sgz_status sgz_tar_add_run(sgz_tar_parser *p, int64_t offset, int64_t len, sgz_error *err);

/* tar/number.c: an octal or base-256 number; blanks and NULs around it, and an empty field, as
 * GNU tar and Go accept them. */
int sgz_tar_number(const uint8_t *header, size_t at, size_t len, int64_t *value);

/* tar/sparse.c: the pairs of an old GNU header or extension block, up to an empty one. */
sgz_status sgz_tar_add_old_runs(sgz_tar_parser *p, const uint8_t *block, size_t at, int pairs,
                                int64_t offset, sgz_error *err);
/* PAX sparse: which version it is, the expanded size, and the map when it is here. */
sgz_status sgz_tar_start_pax_sparse(sgz_tar_parser *p, int64_t offset, sgz_error *err);
/* PAX sparse 1.0: one block of the map. *done when it was the last. */
sgz_status sgz_tar_feed_map(sgz_tar_parser *p, const uint8_t *block, int64_t at, int *done,
                            sgz_error *err);
/* Check the runs against entry.size and entry.payload and hang them on the entry. */
sgz_status sgz_tar_finish_map(sgz_tar_parser *p, int64_t at, sgz_error *err);

#endif
