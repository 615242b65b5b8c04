/* A tar as it comes, in pieces of any size: headers are parsed, payloads and padding counted. */
#ifndef SGZ_TAR_STREAM_H
#define SGZ_TAR_STREAM_H

#include "tar/tar.h"

typedef struct {
    sgz_tar_parser *parser;  /* made and freed by the owner of the stream */
    int64_t pos;             /* what comes next, in the tar; a header block counts once whole */
    int64_t start;           /* of the first header block of the entry or global header */
    int64_t data, padding;   /* what is still to come of the entry's payload, and behind it */
    int zeros;               /* blocks of zeros in a row: the archive ends with the second, in
                                place with a lone one too, as for GNU tar */
    size_t behind_len;       /* behind its end: the first bytes that are not zero */
    char behind[32];
    size_t block_len;        /* of a header block that is not whole yet */
    uint8_t block[SGZ_TAR_BLOCK];
} sgz_tar_stream;

/* Take the next bytes, *used of them, up to the next event. With SGZ_TAR_DATA these are bytes
 * of the payload. Behind the archive's end all is taken and means nothing. */
sgz_status sgz_tar_stream_take(sgz_tar_stream *stream, const uint8_t *data, size_t len,
                               size_t *used, sgz_tar_event *event, sgz_tar_entry *entry,
                               sgz_error *err);
/* Pass over at most n bytes of payload and padding unseen; returns how many there were. */
int64_t sgz_tar_stream_pass(sgz_tar_stream *stream, int64_t n);
/* Bytes behind the archive's end. */
void sgz_tar_stream_behind(sgz_tar_stream *stream, const uint8_t *data, size_t len);
/* The bytes have ended: may they, here? A layer of no files may be one of no bytes. Some writers
 * leave the last padding out, which is an error only if the tar must be `padded`. */
sgz_status sgz_tar_stream_end(const sgz_tar_stream *stream, int padded, sgz_error *err);

#endif
