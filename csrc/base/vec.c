#include "base/vec.h"

#include <stdint.h>
#include <string.h>

int sgz_base_vec_grow(void *array, size_t *cap, size_t need, size_t size)
{
    size_t more = need > 2 * *cap ? need : 2 * *cap;
    void *items;
    if (more > SIZE_MAX / 2 / size)
        return 0;
    memcpy(&items, array, sizeof items);
    if (!(items = realloc(items, more * size)))
        return 0;
    memcpy(array, &items, sizeof items);
    *cap = more;
    return 1;
}
