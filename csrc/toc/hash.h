/* How the TOC hashes names, for all who look names up by hash; a map from ids to numbers. */
#ifndef SGZ_TOC_HASH_H
#define SGZ_TOC_HASH_H

#include "base/bytes.h"
#include "toc/toc.h"

#include <stdlib.h>
#include <string.h>

/* --- hashing -------------------------------------------------------------------------- */

static inline uint64_t sgz_toc_mix(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t sgz_toc_hash_bytes(uint64_t h, const char *s, size_t n)
{
    uint64_t tail = 0, size = n;
    for (; n > 8; s += 8, n -= 8)
        h = sgz_toc_mix(h ^ sgz_load64(s), 0x9e3779b97f4a7c15u);
    if (n >= 4)
        tail = sgz_load32(s) | (uint64_t)sgz_load32(s + n - 4) << 32;
    else if (n)
        tail = (uint64_t)(uint8_t)s[0] | (uint64_t)(uint8_t)s[n >> 1] << 8 |
               (uint64_t)(uint8_t)s[n - 1] << 16;
    return sgz_toc_mix(h ^ tail, 0xd6e8feb86659fd93u ^ size);
}

/* Of a cleaned name, component by component: so the hashes of all its ancestors fall out
 * of one pass, and a name of a million components is not a quadratic amount of work. */
static inline uint64_t sgz_toc_hash_name(uint64_t h, const char *s, size_t n)
{
    const char *end = s + n;
    while (s < end) {
        const char *slash = memchr(s, '/', (size_t)(end - s));
        if (!slash)
            slash = end;
        h = sgz_toc_hash_bytes(h, s, (size_t)(slash - s));
        s = slash + 1;
    }
    return h;
}

/* Length of the parent directory's name; the root's is 0. */
static inline size_t sgz_toc_parent_len(const char *name, size_t len)
{
    while (len && name[len - 1] != '/')
        len--;
    return len ? len - 1 : 0;
}

/* The row of a cleaned name whose hash is known; SGZ_NO_ROW. */
uint32_t sgz_toc_find(const sgz_toc *toc, uint64_t hash, const char *name, size_t len);

/* More implied directories than this is no layer but an attack on memory. */
static inline uint64_t sgz_toc_implied_max(uint64_t rows)
{
    return rows * 16 + 65536;
}

/* --- ids ------------------------------------------------------------------------------ */

/* uid or gid -> number of the name last seen for it. All zero but the seed is empty. */
typedef struct {
    uint64_t seed;
    uint32_t *keys, *values; /* value 0: free */
    uint32_t cap, used;
    uint32_t last_key, last_value; /* most rows have the id of the row before */
} sgz_toc_id_map;

static inline void sgz_toc_id_map_free(sgz_toc_id_map *map)
{
    free(map->keys);
    free(map->values);
    memset(map, 0, sizeof *map); /* also the seed */
}

static inline uint32_t sgz_toc_id_map_slot(const sgz_toc_id_map *map, uint32_t key)
{
    uint32_t i = (uint32_t)sgz_toc_mix(key ^ map->seed, 0x9e3779b97f4a7c15u) & (map->cap - 1);
    while (map->values[i] && map->keys[i] != key)
        i = (i + 1) & (map->cap - 1);
    return i;
}

static inline uint32_t sgz_toc_id_map_get(const sgz_toc_id_map *map, uint32_t key)
{
    if (map->last_value && map->last_key == key)
        return map->last_value;
    return map->cap ? map->values[sgz_toc_id_map_slot(map, key)] : 0;
}

/* 0: no memory. `value` is not 0. */
static inline int sgz_toc_id_map_put(sgz_toc_id_map *map, uint32_t key, uint32_t value)
{
    if (map->used * 2 >= map->cap) {
        sgz_toc_id_map grown = {.seed = map->seed};
        grown.cap = map->cap ? map->cap * 2 : 16;
        grown.keys = calloc(grown.cap, sizeof *grown.keys);
        grown.values = calloc(grown.cap, sizeof *grown.values);
        if (!grown.keys || !grown.values) {
            sgz_toc_id_map_free(&grown);
            return 0;
        }
        for (uint32_t i = 0; i < map->cap; i++)
            if (map->values[i]) {
                uint32_t slot = sgz_toc_id_map_slot(&grown, map->keys[i]);
                grown.keys[slot] = map->keys[i];
                grown.values[slot] = map->values[i];
            }
        grown.used = map->used;
        sgz_toc_id_map_free(map);
        *map = grown;
    }
    uint32_t slot = sgz_toc_id_map_slot(map, key);
    map->used += !map->values[slot];
    map->keys[slot] = key;
    map->values[slot] = value;
    map->last_key = key;
    map->last_value = value;
    return 1;
}

#endif
