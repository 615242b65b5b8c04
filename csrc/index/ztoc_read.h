/* Read a ztoc, whoever made it: version 0.9, whose checkpoints are of version 1 or 2. */
#ifndef SGZ_INDEX_ZTOC_READ_H
#define SGZ_INDEX_ZTOC_READ_H

#include "index/index.h"

/* Into `index`, which is empty, also after a failure. Its windows are those in `data`, which must
 * outlive it. `blob_size` is the size of the blob that it is for; -1: not known, what the ztoc says
 * is believed. Malformed, or of another blob: SGZ_EINDEX. */
sgz_status sgz_index_ztoc_read(const uint8_t *data, size_t len, int64_t blob_size,
                               sgz_index *index, sgz_error *err);

#endif
