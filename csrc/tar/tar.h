/* Tar headers: v7, ustar, PAX (x, g), GNU (L, K, base-256), and the sparse formats. */
#ifndef SGZ_TAR_TAR_H
#define SGZ_TAR_TAR_H

#include "base/notes.h"
#include "base/status.h"
#include "base/xattrs.h"

#define SGZ_TAR_BLOCK 512
#define SGZ_TAR_LONG_MAX (1 << 20)           /* PAX records and long names of one entry */
#define SGZ_TAR_MAP_MAX (16 << 20)           /* the sparse map of one, as it stands in the tar */
#define SGZ_TAR_SPARSE_MAX ((int64_t)1 << 40) /* expanded size of a sparse file */
#define SGZ_TAR_HOLES_MAX ((int64_t)8 << 30)  /* holes of all sparse files of a tar: a layer has
                                                 them as zeros, hashed and compressed */

/* Whether RFC 3339, and so a TOC, can say the time: of the years 1 to 9999. */
static inline int sgz_tar_time_fits(int64_t seconds)
{
    return seconds >= -62135596800 && seconds <= 253402300799;
}

typedef struct { int64_t offset, len; } sgz_tar_run; /* one run of real data */

typedef struct {
    const char *text;
    size_t len;
} sgz_tar_text;

/* One entry, everything folded in: PAX over GNU over ustar, global headers under all.
 * Pointers are good until the next call on the parser. */
typedef struct {
    char type;               /* the typeflag after the rules of format section 8:
                                '0' regular, '1' hard link, '2' symlink, '3' char, '4' block,
                                '5' directory, '6' fifo; 'S' a sparse regular file */
    int64_t header;          /* offset of the last header block, behind PAX and long names */
    const uint8_t *block;    /* that block */
    int64_t records;         /* where its PAX records stand */
    size_t records_len;      /* 0: it has none */
    const char *own;         /* these records as they stand, records_len bytes; NULL: not kept */
    const char *name, *link;
    size_t name_len, link_len;
    const char *uname, *gname;
    size_t uname_len, gname_len;
    int64_t size;            /* of the contents, expanded if sparse; 0 unless regular */
    int64_t payload;         /* bytes of payload that follow in the tar, without padding
                                (and without a PAX 1.0 map, which was fed already) */
    int64_t mtime;           /* rounded to the second, half up */
    uint32_t mtime_nsec;     /* exact time: (mtime - (mtime_nsec >= 500000000)).mtime_nsec */
    uint32_t mode, uid, gid, dev_major, dev_minor;
    unsigned notes;          /* bits: what of its headers was not taken as it stands */
    int left_out;            /* it is nothing that a tree can hold; its payload follows all the
                                same (sgz_tar_read_in_place) */
    int rewrite;             /* other readers would see another entry in its headers, or need
                                a global one: only new ones say to all what this says */
    size_t xattr_count;
    const sgz_xattr *xattrs; /* sorted by key, no key twice */
    size_t sparse_count;
    const sgz_tar_run *sparse; /* runs of real data, ascending, not overlapping */
    int64_t sparse_map_bytes;        /* PAX 1.0: bytes of map that stood before the payload */
} sgz_tar_entry;

typedef struct sgz_tar_parser sgz_tar_parser;
sgz_tar_parser *sgz_tar_parser_new(void);
void sgz_tar_parser_free(sgz_tar_parser *parser);
/* From now on also hand on the types that cannot be part of a layer, with the payload that
 * their headers state. */
void sgz_tar_take_any_type(sgz_tar_parser *parser);
/* From now on keep each entry's PAX records as they stand (`own`): of those that the parser uses,
 * names of xattrs are unescaped. And `link` is what the headers say of any type of entry. */
void sgz_tar_keep_records(sgz_tar_parser *parser);

/* From now on read as much as GNU tar does, and as it does: what is malformed, or would not be the
 * same to all readers, does not count or is left out, with a note. An error is only what leaves
 * unknown where the next header is. */
void sgz_tar_read_in_place(sgz_tar_parser *parser);
int sgz_tar_is_in_place(const sgz_tar_parser *parser);

typedef enum {
    SGZ_TAR_MORE,    /* this block belongs to the entry being read; feed the next */
    SGZ_TAR_ENTRY,   /* *entry is complete; its payload follows (entry.payload bytes, padded) */
    SGZ_TAR_GLOBAL,  /* a PAX global header is complete: nothing follows but the next header;
                        of the entry only `header` and the records are set */
    SGZ_TAR_END,     /* a block of zeros between entries: the end of the archive */
    SGZ_TAR_DATA     /* only of a stream (tar/stream.h): bytes of the entry's payload */
} sgz_tar_event;

/* Feed one 512-byte block that stands at `offset` of the tar. The parser keeps what PAX
 * and long-name blocks said until their entry is complete. (Old GNU extended sparse maps
 * and PAX 1.0 maps are fed as blocks too.) Everything malformed is SGZ_ETAR, after which
 * the parser reads no more, as behind an entry that is no layer's, SGZ_ENOTOC. */
sgz_status sgz_tar_feed(sgz_tar_parser *parser, const uint8_t block[SGZ_TAR_BLOCK],
                        int64_t offset, sgz_tar_event *event, sgz_tar_entry *entry,
                        sgz_error *err);
/* The numbers of its header block that an entry has of some types only, or not all bits of, as they
 * stand. Returns 0, or -1: one of them is no number. */
int sgz_tar_numbers(const sgz_tar_entry *entry, int64_t *mode, int64_t *dev_major,
                    int64_t *dev_minor);
/* True when the parser is between entries (a tar may end here). */
int sgz_tar_idle(const sgz_tar_parser *parser);

/* The record at *pos of the records of one PAX header that stands at `at`; *pos moves on. */
sgz_status sgz_tar_next_record(const char *records, size_t len, size_t *pos, sgz_tar_text *key,
                               sgz_tar_text *value, int64_t at, sgz_error *err);

/* The name of an xattr as a record has it, unescaped in place as GNU tar does: "%25" and "%3D" are
 * "%" and "=", which would end the key. Returns the new length. */
size_t sgz_tar_unescape(char *name, size_t len);

/* The header blocks, *len bytes, malloc'ed into *out, that say the same of the entry
 * without global headers and sparse maps: a ustar header, after a PAX header where it
 * does not suffice. A sparse file becomes a plain one of `size` bytes (its payload is then
 * the expanded contents). Records that sgz_tar_entry does not hold (atime, comments) are
 * not kept. */
sgz_status sgz_tar_expanded_header(const sgz_tar_entry *entry, uint8_t **out, size_t *len,
                                   sgz_error *err);

/* The length that this has. */
size_t sgz_tar_expanded_len(const sgz_tar_entry *entry);

/* Write a ustar header of a regular file as the reference does for the TOC and the
 * landmarks: mode, uid, gid and mtime 0. */
void sgz_tar_plain_header(uint8_t block[SGZ_TAR_BLOCK], const char *name, int64_t size);

#endif
