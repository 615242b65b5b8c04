/* A frame of zstd that is made while the tar goes by, and is written behind it: the TOC's and the
 * tar-split's. Compressed it waits in a spool, so that memory has a bound. */
#ifndef SGZ_WRITE_FRAME_H
#define SGZ_WRITE_FRAME_H

#include "codec/frames.h"
#include "io/spool.h"
#include "write/blob_writer.h"

typedef struct {
    const sgz_codecs *codecs;
    sgz_framer framer;
    sgz_spool spool;
    uint64_t size;          /* of what was put */
    uint8_t head[SGZ_FRAME_UNSIZED];
    size_t head_len;
} sgz_write_frame;

/* `dir` is where a file would be. To be freed also when this fails. */
sgz_status sgz_write_frame_init(sgz_write_frame *f, const sgz_codecs *codecs, int level,
                                const char *dir, sgz_error *err);
void sgz_write_frame_free(sgz_write_frame *f);
sgz_status sgz_write_frame_put(sgz_write_frame *f, const void *data, size_t len, sgz_error *err);
/* It is complete: how long it is, and its sha256. */
sgz_status sgz_write_frame_finish(sgz_write_frame *f, int64_t *len, uint8_t digest[32],
                                  sgz_error *err);
/* Append it to the blob, in a skippable frame; *offset is where it is. */
sgz_status sgz_write_frame_append(sgz_write_frame *f, sgz_write_blob *w, int64_t *offset,
                                  sgz_error *err);
/* A skippable frame with these bytes. */
sgz_status sgz_write_skippable(sgz_write_blob *w, const uint8_t *data, size_t len, sgz_error *err);

#endif
