/* What the files that make rows of a tar share. */
#ifndef SGZ_TOC_ROWS_INTERNAL_H
#define SGZ_TOC_ROWS_INTERNAL_H

#include "base/bytes.h"
#include "toc/place.h"
#include "toc/rows.h"

/* Hard links by target. A target that is replaced while links to it are left lives on
 * under the first one's name; so each target needs its links in order. */
typedef struct {
    uint32_t next; /* of a target: its first link; of a link: the next one; row + 1, 0 none */
    uint32_t last; /* of a target: its last link */
} sgz_toc_link_chain;

/* A cleaned path, up to a component with bad bytes: as the TOC shows it, as it was. */
typedef struct {
    uint64_t shown, raw;
} sgz_toc_bad_path;

/* Packed xattrs in the arena: equal ones are stored once. */
typedef struct {
    uint64_t off;
    uint32_t len;
} sgz_toc_stored_xattrs;

struct sgz_toc_rows {
    sgz_toc *toc;
    int keep_bytes;       /* of texts that are not UTF-8 */
    int leave_out;        /* what would be refused */
    uint32_t last;        /* row of the file last added, for its chunks */
    sgz_toc_link_chain *links;    /* one a row, from the first hard link on */
    size_t link_cap;
    sgz_toc_bad_path *bad;
    size_t bad_count, bad_cap;
    sgz_map bad_names; /* by what is shown */
    uint64_t raw_seed;
    char *text;           /* scratch */
    size_t text_cap;
    char *clean;          /* scratch */
    size_t clean_cap;
    char *joined;         /* scratch */
    size_t joined_cap;
    sgz_toc_place place;  /* where the entry goes, and then, where its hard link leads */
    sgz_notes notes;
    int made_anew;        /* a directory took the place of something else */
    int lost;             /* whiteouts: the index has names that are nobody's */
    uint64_t json;        /* about what the rows so far take as JSON, rather less */
    sgz_toc_stored_xattrs *xattrs;
    size_t xattr_count, xattr_cap;
    sgz_map xattr_names; /* by contents */
};

static inline sgz_status sgz_toc_rows_no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the TOC");
}

/* Whether a row that cannot be added is left out, and noted. */
static inline int sgz_toc_rows_left_out(sgz_toc_rows *a, const sgz_tar_entry *entry, sgz_entry *row,
                                        unsigned note)
{
    if (!a->leave_out)
        return 0;
    row->flags |= SGZ_DROPPED;
    sgz_base_note(&a->notes, note, entry->name, entry->name_len);
    return 1;
}

/* --- texts (rows_text.c) ---------------------------------------------------------------- */

/* What is not plain UTF-8 in a text; U+FFFD itself may be in a good name. */
enum { SGZ_TOC_BAD_BYTES = 1, SGZ_TOC_REPLACEMENT = 2 };

typedef struct {
    int name, link;
} sgz_toc_bad;

int sgz_toc_rows_scan(const char *text, size_t len);
/* Check and store the texts of an entry, as its row shows them; *bad says what they had. */
sgz_status sgz_toc_rows_texts(sgz_toc_rows *a, const sgz_tar_entry *entry, sgz_entry *row,
                              int64_t offset, sgz_toc_bad *bad, sgz_error *err);

/* --- places (rows_place.c) -------------------------------------------------------------- */

/* Whether GNU tar extracts nothing of this name. */
int sgz_toc_rows_has_dots(const char *name, size_t len, int is_dir);
/* The entry's name is that of the place where it goes; SGZ_DROPPED if that is nowhere. */
sgz_status sgz_toc_rows_place(sgz_toc_rows *a, const sgz_tar_entry *entry, sgz_entry *row,
                              int bad, int64_t offset, sgz_error *err);
/* The row that a hard link ends at. */
sgz_status sgz_toc_rows_target(sgz_toc_rows *a, const sgz_tar_entry *entry, sgz_entry *row,
                               int bad, int64_t offset, uint32_t *target, sgz_error *err);
/* What stands at the cleaned name of a row that is to be added, which may not take the place of
 * each. */
sgz_status sgz_toc_rows_previous(sgz_toc_rows *a, const sgz_tar_entry *entry, sgz_entry *row,
                                 int64_t offset, uint32_t *previous, sgz_error *err);

#endif
