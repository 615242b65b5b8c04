/* Opening a blob: its table of contents, inflated, hashed and parsed in one pass. */
#ifndef SGZ_TOC_OPEN_H
#define SGZ_TOC_OPEN_H

#include "codec/decode.h"
#include "toc/toc.h"

/* Read the tar entry "stargz.index.json" whose member begins at `offset`; its members end
 * before `end`. `blob_end` bounds the offsets in it. Refuses JSON of more than max_size
 * bytes, whatever the members inflate to: nothing is inflated beyond the JSON. *json_size is
 * its length, digest its sha256. `texts` may be NULL. */
sgz_status sgz_toc_read(const sgz_codecs *codecs, const sgz_blob *blob, int64_t offset,
                        int64_t end, int64_t max_size, int64_t blob_end,
                        const sgz_toc_texts *texts, sgz_toc *toc, int64_t *json_size,
                        uint8_t digest[32], sgz_error *err);

/* Place a decoder at the first byte of the JSON. */
sgz_status sgz_toc_seek(sgz_decoder *d, int64_t offset, int64_t end, int64_t *json_size,
                        sgz_error *err);

#endif
