/* From hashes to the numbers of things that stand elsewhere: open addressing.
 *
 * A slot has 32 bits of the hash, so that most of what is something else is passed without a
 * look at it; what has the same ones is told apart by whoever looks up:
 *
 *     size_t at = sgz_map_first(map, hash);
 *     while (sgz_map_taken(map, at) && !is_it(sgz_map_number(map, at)))
 *         at = sgz_map_next(map, hash, at);
 *
 * leads to the slot of what is sought, or to the free one where it belongs. Nothing is taken
 * out again. All zero is an empty map. What fails returns 0 for want of memory, else 1. */
#ifndef SGZ_BASE_MAP_H
#define SGZ_BASE_MAP_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SGZ_MAP_NONE UINT32_MAX /* no number */

typedef struct {
    uint64_t *slots;   /* hash << 32 | number + 1; 0: free */
    size_t size, used; /* a power of two, or 0; at most two thirds of them */
} sgz_map;

static inline void sgz_map_free(sgz_map *map)
{
    free(map->slots);
    *map = (sgz_map){0};
}

/* Forget all. What is much larger than it had to be is given back: else who fills and forgets it
 * often would clear its largest size each time. */
static inline void sgz_map_clear(sgz_map *map)
{
    if (map->used < map->size / 16)
        sgz_map_free(map);
    else if (map->size)
        memset(map->slots, 0, map->size * sizeof *map->slots);
    map->used = 0;
}

/* Where to look first: for those who know many hashes before they look. */
static inline void sgz_map_prefetch(const sgz_map *map, uint64_t hash)
{
    __builtin_prefetch(&map->slots[(uint32_t)hash & (map->size - 1)], 1);
}

/* From `at` on the first slot that has the hash or is free. */
static inline size_t sgz_map_scan(const sgz_map *map, uint64_t hash, size_t at)
{
    at &= map->size - 1;
    while (map->slots[at] && map->slots[at] >> 32 != (uint32_t)hash)
        at = (at + 1) & (map->size - 1);
    return at;
}

static inline size_t sgz_map_first(const sgz_map *map, uint64_t hash)
{
    return map->size ? sgz_map_scan(map, hash, (uint32_t)hash) : 0;
}

static inline size_t sgz_map_next(const sgz_map *map, uint64_t hash, size_t at)
{
    return sgz_map_scan(map, hash, at + 1);
}

/* Of a free slot SGZ_MAP_NONE. */
static inline uint32_t sgz_map_number(const sgz_map *map, size_t at)
{
    return map->size ? (uint32_t)map->slots[at] - 1 : SGZ_MAP_NONE;
}

static inline int sgz_map_taken(const sgz_map *map, size_t at)
{
    return sgz_map_number(map, at) != SGZ_MAP_NONE;
}

int sgz_base_map_grow(sgz_map *map, size_t need);

/* Room for `more` numbers. Slots move. */
static inline int sgz_map_reserve(sgz_map *map, size_t more)
{
    size_t need = (map->used + more) + (map->used + more) / 2;
    return need <= map->size || sgz_base_map_grow(map, need);
}

/* Put a number into a slot that a look-up led to, after sgz_map_reserve. */
static inline void sgz_map_put(sgz_map *map, size_t at, uint64_t hash, uint32_t number)
{
    map->used += !map->slots[at];
    map->slots[at] = hash << 32 | (number + 1);
}

#endif
