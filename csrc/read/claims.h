/* What an index that nothing vouches for claims of the files in a blob: before content of one is
 * handed out, the tar header that stands before it must say the same as its row.
 *
 * A claim is checked once, with the file's first chunk: the header is right before that. It is
 * kept by row, for all that read the layer; any number of threads may use it. Errors have no
 * name. */
#ifndef SGZ_READ_CLAIMS_H
#define SGZ_READ_CLAIMS_H

#include "codec/decode.h"
#include "toc/toc.h"

typedef struct sgz_read_claims sgz_read_claims;

/* Of the rows of an index whose origins were found to fit them and its points; they stay the
 * caller's. NULL: no memory. */
sgz_read_claims *sgz_read_claims_new(const sgz_toc *toc);
void sgz_read_claims_free(sgz_read_claims *claims);

/* Decode bytes [at, end) of all that a blob decodes to, from the points that they take. */
sgz_status sgz_read_claims_decode(sgz_decoder *decoder, int64_t at, int64_t end, uint8_t *out,
                                  sgz_error *err);
/* Take in the PAX global headers, of which each header behind them is to be understood; once, before
 * anything is checked. They are looked for where there is room for them between the entries. */
sgz_status sgz_read_claims_begin(sgz_read_claims *claims, const sgz_codecs *codecs,
                                 const sgz_blob *blob, const sgz_points *points, sgz_error *err);

/* Whether that of a file was found right. */
int sgz_read_claims_right(const sgz_read_claims *claims, uint32_t file);
/* Fails if it was found wrong: as it did then. */
sgz_status sgz_read_claims_wrong(sgz_read_claims *claims, uint32_t file, sgz_error *err);
/* Where a file's content is in the decoded blob, and how many bytes of headers are before it. */
int64_t sgz_read_claims_place(const sgz_read_claims *claims, uint32_t file, uint32_t *header);
/* Compare the row of a file with its headers. Bytes that were `fetched` may be right the next time:
 * these are found wrong only after some. SGZ_ETOC. */
sgz_status sgz_read_claims_check(sgz_read_claims *claims, uint32_t file, const uint8_t *header,
                                 int fetched, sgz_error *err);

#endif
