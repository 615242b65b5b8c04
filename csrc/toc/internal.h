/* What the files of this room share. */
#ifndef SGZ_TOC_INTERNAL_H
#define SGZ_TOC_INTERNAL_H

#include "base/vec.h"
#include "toc/hash.h"

static inline const char *sgz_toc_entry_name(const sgz_toc *toc, const sgz_entry *row)
{
    return toc->arena + row->name_off;
}

/* The ancestors of a name, the nearest last, without the root. A hash each: so that the
 * deepest that exists is found without comparing the others, which for a name of a million
 * components would be a quadratic amount of work. */
typedef struct {
    struct {
        uint64_t hash;
        uint32_t len;
    } *list;
    size_t count, cap;
} sgz_toc_above;

/* Those up to the name's first `len` bytes, which are its parent. 0: no memory. */
int sgz_toc_ancestors(const sgz_toc *toc, const char *name, size_t len, sgz_toc_above *out);

/* Room for `len` more arena bytes at toc->arena + toc->arena_len; 0: no memory. */
int sgz_toc_reserve(sgz_toc *toc, size_t len);

#endif
