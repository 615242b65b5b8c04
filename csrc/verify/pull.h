/* What is read on as it is asked for: a frame of the blob beside its tar. */
#ifndef SGZ_VERIFY_PULL_H
#define SGZ_VERIFY_PULL_H

#include "toc/open_frame.h"

typedef struct {
    /* *got < cap: there is no more. */
    sgz_status (*read)(void *arg, void *out, size_t cap, size_t *got, sgz_error *err);
    void *arg;
    int64_t offset; /* in the blob, for errors */
} sgz_verify_pull;

/* One that is open: at `place`, whose size is -1 where it is not known to how many bytes it
 * decodes. */
typedef struct {
    sgz_decoder decoder;
    sgz_toc_frame place;
    int64_t made;
} sgz_verify_frame;

/* Belongs to one thread at a time. `frame` is zero; to be freed also when this fails. */
sgz_status sgz_verify_frame_open(sgz_verify_frame *frame, const sgz_codecs *codecs,
                                 const sgz_blob *blob, const sgz_points *points,
                                 sgz_toc_frame place, sgz_error *err);
void sgz_verify_frame_free(sgz_verify_frame *frame);
/* A sgz_verify_pull of one that is open. */
sgz_verify_pull sgz_verify_frame_pull(sgz_verify_frame *frame);
/* The sha256 of its bytes as they stand in the blob. */
sgz_status sgz_verify_frame_digest(const sgz_codecs *codecs, const sgz_blob *blob,
                                   sgz_toc_frame place, uint8_t digest[32], sgz_error *err);

#endif
