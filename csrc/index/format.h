/* The file of an index, version 1: docs/index-format.md says what each byte is. */
#ifndef SGZ_INDEX_FORMAT_H
#define SGZ_INDEX_FORMAT_H

#include "index/index.h"

#define SGZ_INDEX_MAGIC "SGZINDEX"
#define SGZ_INDEX_VERSION 1

/* Write an index that was settled or read, in pieces. The bytes depend on the blob, on how its points
 * were chosen and on its chunks, on nothing else. json_digest gets that of the JSON of its TOC, which
 * is made for it (NULL: it is not asked for). */
sgz_status sgz_index_write(const sgz_index *index, const sgz_codecs *codecs, sgz_index_emit emit,
                           void *arg, uint8_t json_digest[32], sgz_error *err);

/* Read one into `index`, which is empty, also after a failure; nothing of `data` is kept. Offsets of
 * errors are those in the file. A TOC whose JSON has more than max_toc_size bytes is refused before
 * it takes memory. What the histories inflate to is not looked at. */
sgz_status sgz_index_read(const uint8_t *data, size_t len, const sgz_codecs *codecs,
                          int64_t max_toc_size, sgz_index *index, sgz_error *err);

#endif
