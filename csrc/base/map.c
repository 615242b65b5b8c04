#include "base/map.h"

int sgz_base_map_grow(sgz_map *map, size_t need)
{
    sgz_map grown = {.size = map->size ? map->size : 16, .used = map->used};
    while (grown.size < need)
        grown.size *= 2;
    if (!(grown.slots = calloc(grown.size, sizeof *grown.slots)))
        return 0;
    for (size_t i = 0; i < map->size; i++) {
        size_t at = map->slots[i] >> 32 & (grown.size - 1);
        if (!map->slots[i])
            continue;
        while (grown.slots[at])
            at = (at + 1) & (grown.size - 1);
        grown.slots[at] = map->slots[i];
    }
    free(map->slots);
    *map = grown;
    return 1;
}
