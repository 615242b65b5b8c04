#include "io/plain.h"

#include "base/file.h"

#define STEP (8 << 20) /* bytes between two looks at signals: some 10 ms */

sgz_status sgz_io_plain_step(sgz_plain *plain, int *end, sgz_error *err)
{
    *end = 0;
    for (int64_t stop = plain->size + STEP; plain->size < stop;) {
        size_t got;
        sgz_status status = sgz_io_input_read(plain->input, plain->buf, SGZ_PLAIN_BUF, &got,
                                              err);
        int interrupted = status == SGZ_ECANCELLED;
        if (status && !interrupted)
            return status;
        sgz_codec_hasher_update(plain->hasher, plain->buf, got, NULL, 0);
        plain->size += (int64_t)got;
        int bad = plain->sink < 0 ? 0 : sgz_base_write_all(plain->sink, plain->buf, got, -1);
        if (bad)
            return sgz_base_fail_errno(err, -bad, "writing the temporary copy failed", NULL, 0);
        if (interrupted)
            return SGZ_OK;
        if (got < SGZ_PLAIN_BUF) {
            *end = 1;
            return SGZ_OK;
        }
    }
    return SGZ_OK;
}
