/* Entry points of gzip out of the index files of other programs: indexed_gzip's .gzidx (rapidgzip
 * writes them too) and bgzip's .gzi. They have no list of files and no digests, so a pass over the
 * blob makes those, and sees that decoding may begin at these points (codec/scan.h: wanted). */
#ifndef SGZ_INDEX_IMPORT_H
#define SGZ_INDEX_IMPORT_H

#include "codec/points.h"

/* Whether these bytes look like one. */
int sgz_index_is_import(const uint8_t *data, size_t len);

/* Read one into `points`, which is empty, also after a failure; its windows stay in `data`. Sizes
 * that the file does not tell are 0. Points that no reader needs are left out: at the blob's end, and
 * behind empty members. Anything malformed is SGZ_EINDEX. */
sgz_status sgz_index_import(const uint8_t *data, size_t len, sgz_points *points, sgz_error *err);

#endif
