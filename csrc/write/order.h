/* The first pass of a conversion with prioritized files: where each entry of the tar
 * stands, and the order in which the second pass reads them. */
#ifndef SGZ_WRITE_ORDER_H
#define SGZ_WRITE_ORDER_H

#include "toc/rows.h"
#include "io/input.h"

typedef struct sgz_write_order sgz_write_order;

/* `spool` receives the tar as it is read, or is -1 when the input is a plain tar that can
 * be read again. */
sgz_write_order *sgz_write_order_new(sgz_input *input, int spool);
void sgz_write_order_free(sgz_write_order *scan);
/* Read on for some milliseconds, or until a signal comes; *end once the tar was read to its
 * end. */
sgz_status sgz_write_order_step(sgz_write_order *scan, int *end, sgz_error *err);

typedef struct {
    sgz_extent *extents;     /* malloc'ed: the tar in its new order */
    size_t extent_count;
    int64_t prioritized;     /* entries before the landmark */
    sgz_notes notes;         /* on what is left out, which the cut does not see */
} sgz_write_ordered;

/* Order the entries: each prioritized name after its parent directories and, for a hard
 * link, its target (format section 4); then the rest as they stood. A name that is not there,
 * but behind symlinked directories, stands for the one that it leads to, after those symlinks.
 * Entries that a later one replaces are left out. missing[i] is set for names that are not there. */
sgz_status sgz_write_order_sort(sgz_write_order *scan, const char *const *names, size_t count,
                                uint8_t *missing, sgz_write_ordered *order, sgz_error *err);

#endif
