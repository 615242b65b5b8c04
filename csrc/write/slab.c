#include "write/slab.h"

#include "base/buffer.h"

#include <stdlib.h>
#include <string.h>

int sgz_write_slab_grow(void **array, size_t *cap, size_t want, size_t item)
{
    if (want <= *cap)
        return 1;
    size_t bigger = *cap + *cap / 2 > want ? *cap + *cap / 2 : want;
    void *grown = realloc(*array, bigger * item);
    if (!grown)
        return 0;
    *array = grown;
    *cap = bigger;
    return 1;
}

sgz_status sgz_write_slab_init(sgz_write_slab *slab, size_t cap, sgz_error *err)
{
    memset(slab, 0, sizeof *slab);
    slab->buf = sgz_base_buffer_new(cap);
    slab->cap = cap;
    return slab->buf ? SGZ_OK : sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
}

void sgz_write_slab_free(sgz_write_slab *slab)
{
    free(slab->buf);
    free(slab->members);
    free(slab->pieces);
    free(slab->packed);
    memset(slab, 0, sizeof *slab);
}
