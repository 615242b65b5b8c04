/* What the files of this room share. */
#ifndef SGZ_TOC_INTERNAL_H
#define SGZ_TOC_INTERNAL_H

#include "base/vec.h"
#include "toc/hash.h"
#include "toc/limits.h"

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

/* Bytes of a path, and of its longest component, as they were before what is no UTF-8 became
 * U+FFFD: each of those was one. */
static inline size_t sgz_toc_path_len(const char *path, size_t len, size_t *longest)
{
    size_t count = 0, base = 0;
    *longest = len;
    if (len <= SGZ_TOC_BASE_MAX)
        return len;
    *longest = 0;
    for (size_t at = 0; at < len; count++) {
        int bad = len - at >= 3 && !memcmp(path + at, "\xef\xbf\xbd", 3);
        base = path[at] == '/' ? 0 : base + 1;
        *longest = base > *longest ? base : *longest;
        at += bad ? 3 : 1;
    }
    return count;
}

/* What the base names of whiteouts begin with. */
#define SGZ_TOC_WH ".wh."
#define SGZ_TOC_WH_LEN (sizeof SGZ_TOC_WH - 1)

/* Whether a cleaned name is that of a whiteout, which is about the layers below. */
static inline int sgz_toc_is_whiteout(const char *name, size_t len)
{
    size_t parent = sgz_toc_parent_len(name, len), base = parent ? parent + 1 : 0;
    return len - base >= SGZ_TOC_WH_LEN && !memcmp(name + base, SGZ_TOC_WH, SGZ_TOC_WH_LEN);
}

/* Room for `len` more arena bytes at toc->arena + toc->arena_len; 0: no memory. */
int sgz_toc_reserve(sgz_toc *toc, size_t len);

#endif
