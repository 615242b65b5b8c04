/* The frames of a patch (patch/format.h), one at a time, checked as far as a frame goes. */
#ifndef SGZ_PATCH_FRAMES_H
#define SGZ_PATCH_FRAMES_H

#include "io/input.h"
#include "patch/format.h"

typedef struct {
    const sgz_codecs *codecs;
    sgz_source source;
    const char *name;           /* of the patch, for errors of reading; may be NULL */
    sgz_isal_inflate_state *state;
    sgz_sha256 sha;             /* of the frames before the current one */
    uint8_t *buf, *raw;         /* bytes as stored; a payload inflated */
    size_t pos, len;            /* of buf: where the next frame begins, and what is there */
    int64_t size;               /* bytes of the frames so far */
    int source_end;
    /* The current frame. */
    int64_t offset;             /* of the frame in the patch */
    uint8_t type;
    const uint8_t *payload;     /* inflated; good until the next call */
    size_t payload_len;
} sgz_patch_reader;

/* What a TOC's JSON may have at most. */
#define SGZ_PATCH_JSON_MAX ((uint64_t)1 << 30)

sgz_status sgz_patch_open(sgz_patch_reader *r, const sgz_codecs *codecs, sgz_source source,
                          const char *name, sgz_error *err);
void sgz_patch_close(sgz_patch_reader *r);
/* Read magic and head; to be called first, and again after SGZ_ECANCELLED. Its numbers are
 * checked against each other. */
sgz_status sgz_patch_read_head(sgz_patch_reader *r, sgz_patch_head *head, sgz_error *err);
/* Go to the next frame. Behind 'E', whose digest and place are checked here, there is none. */
sgz_status sgz_patch_next(sgz_patch_reader *r, sgz_error *err);
/* SGZ_EPATCH at the current frame. */
__attribute__((format(printf, 3, 4)))
sgz_status sgz_patch_fail(const sgz_patch_reader *r, sgz_error *err, const char *format, ...);

#endif
