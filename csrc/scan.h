/* The first pass of a conversion with prioritized files: where each entry of the tar
 * stands, and the order in which the second pass reads them. */
#ifndef SGZ_SCAN_H
#define SGZ_SCAN_H

#include "apply.h"
#include "input.h"

typedef struct sgz_scan sgz_scan;

/* `spool` receives the tar as it is read, or is -1 when the input is a plain tar that can
 * be read again. */
sgz_scan *sgz_scan_new(sgz_input *input, int spool);
void sgz_scan_free(sgz_scan *scan);
/* Read on for some milliseconds, or until a signal comes; *end once the tar was read to its
 * end. */
sgz_status sgz_scan_step(sgz_scan *scan, int *end, sgz_error *err);

typedef struct {
    sgz_extent *extents;     /* malloc'ed: the tar in its new order */
    size_t extent_count;
    int64_t prioritized;     /* entries before the landmark */
} sgz_scan_order;

/* Order the entries: each prioritized name after its parent directories and, for a hard
 * link, its target (format section 4); then the rest as they stood. Entries that a later
 * one replaces are left out. missing[i] is set for names that are not there. */
sgz_status sgz_scan_sort(sgz_scan *scan, const char *const *names, size_t count,
                         uint8_t *missing, sgz_scan_order *order, sgz_error *err);

#endif
