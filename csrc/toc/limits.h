/* What a TOC may hold: the same for those that are read and those that are made, so that none is
 * written that would not be opened. */
#ifndef SGZ_TOC_LIMITS_H
#define SGZ_TOC_LIMITS_H

#include "toc/toc.h"

/* Linux makes no path of more bytes, and no component: nothing with a longer name could be
 * extracted or mounted. Of cleaned names, and of links' targets. */
#define SGZ_TOC_PATH_MAX 4095
#define SGZ_TOC_BASE_MAX 255

/* Symlinks that Linux follows in one path. */
#define SGZ_TOC_SYMLINKS_MAX 40

/* Bytes of JSON; docs/limits.md and stargz/options.py have the same. */
#define SGZ_TOC_SIZE_MAX ((uint64_t)1 << 30)

/* How many bytes of holes are hashed, of all files, to compare digests with what nobody asked to
 * read: 10 s of one core. A TOC of a few bytes can say that a file has any number; their other
 * bytes have digests or check sums of their own. */
#define SGZ_TOC_ZEROS_HASHED ((int64_t)16 << 30)

/* What a TOC takes in memory: a row with its places in the index and in lists of directories; a
 * directory that only names imply; the name of an owner, or an id that has one. */
#define SGZ_TOC_ROW_BYTES (sizeof(sgz_entry) + 40)
#define SGZ_TOC_IMPLIED_BYTES 64
#define SGZ_TOC_OWNER_BYTES 64

/* An open layer takes at most one and a half times its TOC, and 50 MB: 10 for what any open layer
 * takes, and these 40 for what is larger in memory than as JSON: half a million directories with
 * short names and nothing in them (the least that our JSON says of one is 100 bytes; of a file it is
 * 190). */
#define SGZ_TOC_MEMORY_FREE ((uint64_t)40 << 20)

typedef struct {
    uint64_t rows, bytes;   /* of names and the like */
    uint64_t owners;        /* names of users and groups, and ids that have one */
    uint64_t implied;
} sgz_toc_weight;

/* `chunked`: as of containers/storage, which says of an empty file no more than 90 bytes: twice, and
 * 90 MB, so that a million of them fit. */
static inline int sgz_toc_fits(sgz_toc_weight weight, uint64_t json, int chunked)
{
    return weight.rows * SGZ_TOC_ROW_BYTES + weight.bytes +
               weight.owners * SGZ_TOC_OWNER_BYTES + weight.implied * SGZ_TOC_IMPLIED_BYTES <=
           json + (chunked ? json + SGZ_TOC_MEMORY_FREE : json / 2) + SGZ_TOC_MEMORY_FREE;
}

#endif
