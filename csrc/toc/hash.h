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

/* --- ids ------------------------------------------------------------------------------ */

/* uid or gid -> number of the name last seen for it, not 0. All zero but the seed is empty. */
typedef struct {
    uint64_t seed;
    sgz_map map;
    uint32_t last_key, last_value; /* most rows have the id of the row before */
} sgz_toc_id_map;

static inline void sgz_toc_id_map_free(sgz_toc_id_map *map)
{
    sgz_map_free(&map->map);
}

/* No two ids have the same: whose a slot is, its hash tells. */
static inline uint32_t sgz_toc_id_hash(const sgz_toc_id_map *map, uint32_t id)
{
    id ^= (uint32_t)map->seed;
    id = (id ^ id >> 16) * 0x85ebca6bu;
    id ^= (uint32_t)(map->seed >> 32);
    id = (id ^ id >> 13) * 0xc2b2ae35u;
    return id ^ id >> 16;
}

static inline uint32_t sgz_toc_id_map_get(const sgz_toc_id_map *map, uint32_t key)
{
    if (map->last_value && map->last_key == key)
        return map->last_value;
    uint32_t value = sgz_map_number(&map->map,
                                    sgz_map_first(&map->map, sgz_toc_id_hash(map, key)));
    return value == SGZ_MAP_NONE ? 0 : value;
}

/* 0: no memory. */
static inline int sgz_toc_id_map_put(sgz_toc_id_map *map, uint32_t key, uint32_t value)
{
    uint32_t hash = sgz_toc_id_hash(map, key);
    if (!sgz_map_reserve(&map->map, 1))
        return 0;
    sgz_map_put(&map->map, sgz_map_first(&map->map, hash), hash, value);
    map->last_key = key;
    map->last_value = value;
    return 1;
}

#endif
