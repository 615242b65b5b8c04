#include "write/slab.h"

#include "base/buffer.h"

#include <stdlib.h>
#include <string.h>

sgz_status sgz_write_slab_init(sgz_write_slab *slab, size_t cap, sgz_error *err)
{
    memset(slab, 0, sizeof *slab);
    slab->buf = sgz_base_buffer_new(cap + SGZ_RECODE_SLACK);
    slab->cap = cap;
    return slab->buf ? SGZ_OK : sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
}

void sgz_write_slab_free(sgz_write_slab *slab)
{
    free(slab->buf);
    free(slab->members);
    free(slab->pieces);
    free(slab->marks);
    free(slab->packed);
    sgz_lz_free(&slab->lz);
    free(slab->lz_pieces);
    memset(slab, 0, sizeof *slab);
}
