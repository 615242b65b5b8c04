/* Shared by the two files that make rows of a tar that is kept. */
#ifndef SGZ_TOC_KEPT_INTERNAL_H
#define SGZ_TOC_KEPT_INTERNAL_H

#include "toc/kept.h"

#define SGZ_KEPT_REFUSE(entry, offset, err, why)                                               \
    sgz_base_fail(err, SGZ_ENOTOC, offset, (entry)->name, (entry)->name_len, why)

static inline sgz_status sgz_kept_no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the TOC");
}

/* Take note of an entry's name, and where a hard link leads; SGZ_ENOTOC for names that no one can
 * extract, or that are there already. */
sgz_status sgz_toc_kept_name(sgz_toc_kept *kept, const sgz_tar_entry *entry, uint8_t type,
                               int64_t offset, sgz_error *err);

#endif
