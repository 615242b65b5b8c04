/* The lines of BASE's TOC, streamed, and put together anew: the operations of a frame 'T'. */
#ifndef SGZ_PATCH_TOC_H
#define SGZ_PATCH_TOC_H

#include "base/job.h"
#include "codec/decode.h"

/* Takes the text that comes next. */
typedef sgz_status (*sgz_patch_take_text)(void *arg, const uint8_t *text, size_t len,
                                          sgz_error *err);

typedef struct {
    sgz_decoder decoder;
    uint64_t left;              /* bytes of JSON that are still in the decoder */
    uint8_t *buf;
    size_t taken, pos, len;     /* of buf: what was passed and not yet taken begins at `taken` */
    int taking;
    sgz_patch_take_text take;
    void *arg;
} sgz_patch_lines;

/* Begin with the TOC in blob's [offset, end), whose JSON must have json_size bytes. */
sgz_status sgz_patch_lines_init(sgz_patch_lines *t, const sgz_codecs *codecs,
                                const sgz_blob *blob, int64_t offset, int64_t end,
                                uint64_t json_size, const sgz_base_stop *stop,
                                sgz_patch_take_text take, void *arg, sgz_error *err);
void sgz_patch_lines_free(sgz_patch_lines *t);
/* Go past `count` lines, or take them with `add` added to the number of each offset line. More
 * than there are, and numbers that leave 63 bits, are SGZ_EPATCH. */
sgz_status sgz_patch_lines_pass(sgz_patch_lines *t, uint64_t count, sgz_error *err);
sgz_status sgz_patch_lines_take(sgz_patch_lines *t, uint64_t count, int64_t add, sgz_error *err);

#endif
