/* Hash tables: every number is found again, whatever collides. */
#include "check.h"

#include "base/map.h"
#include "toc/hash.h"

#define COUNT 5000

static uint64_t keys[COUNT];

static size_t slot_of(const sgz_map *map, uint64_t hash, uint64_t key)
{
    size_t at = sgz_map_first(map, hash);
    while (sgz_map_taken(map, at) && keys[sgz_map_number(map, at)] != key)
        at = sgz_map_next(map, hash, at);
    return at;
}

/* `bits`: how many of a key its hash has. */
static void fill(uint64_t bits, uint32_t count)
{
    sgz_map map = {0};
    for (uint32_t i = 0; i < count; i++) {
        keys[i] = (uint64_t)below(UINT32_MAX) << 32 | i;
        uint64_t hash = keys[i] & bits;
        CHECK(sgz_map_number(&map, slot_of(&map, hash, keys[i])) == SGZ_MAP_NONE);
        CHECK(sgz_map_reserve(&map, 1));
        sgz_map_put(&map, slot_of(&map, hash, keys[i]), hash, i);
        CHECK(map.used == i + 1 && !(map.size & (map.size - 1)));
        CHECK(map.used + map.used / 2 <= map.size);
    }
    for (uint32_t i = 0; i < count; i++) {
        size_t at = slot_of(&map, keys[i] & bits, keys[i]);
        CHECK(sgz_map_number(&map, at) == i);
        sgz_map_put(&map, at, keys[i] & bits, count - 1 - i); /* in place of it */
        CHECK(map.used == count && sgz_map_number(&map, at) == count - 1 - i);
    }
    sgz_map_free(&map);
    CHECK(!map.slots && !map.size && !map.used);
}

/* Ids have no keys beside the table: their hashes must be different ones. */
static void ids(uint64_t seed)
{
    sgz_toc_id_map map = {.seed = seed};
    CHECK(!sgz_toc_id_map_get(&map, 0) && !sgz_toc_id_map_get(&map, UINT32_MAX));
    for (uint32_t i = 0; i < 1u << 16; i++)
        CHECK(sgz_toc_id_map_put(&map, i, i + 1) &&
              sgz_toc_id_map_put(&map, i << 16 | 1, i + 9));
    for (uint32_t i = 2; i < 1u << 16; i++) {
        CHECK(sgz_toc_id_map_get(&map, i) == i + 1);
        CHECK(sgz_toc_id_map_get(&map, i << 16 | 1) == i + 9);
        CHECK(!sgz_toc_id_map_get(&map, i << 16));
    }
    CHECK(sgz_toc_id_map_put(&map, 7, 70) && sgz_toc_id_map_get(&map, 7) == 70);
    CHECK(sgz_toc_id_map_get(&map, 8) == 9);
    sgz_toc_id_map_free(&map);
}

int main(void)
{
    ids(0);
    ids(0x9e3779b97f4a7c15u);
    fill(UINT64_MAX, COUNT);
    fill(0xffff, COUNT);
    fill(0xffffffff00000000u, 500); /* those bits do not count: all collide */
    fill(0, 500);

    sgz_map map = {0};
    CHECK(sgz_map_reserve(&map, 0) && !sgz_map_taken(&map, sgz_map_first(&map, 7)));
    CHECK(sgz_map_reserve(&map, 1000) && map.size == 2048);
    uint64_t *slots = map.slots;
    for (uint32_t i = 0; i < 1000; i++) {
        size_t at = sgz_map_first(&map, i);
        CHECK(sgz_map_reserve(&map, 1) && map.slots == slots && !sgz_map_taken(&map, at));
        sgz_map_prefetch(&map, i);
        sgz_map_put(&map, at, i, UINT32_MAX - 1 - i); /* the largest numbers that there are */
    }
    CHECK(sgz_map_number(&map, sgz_map_first(&map, 0)) == UINT32_MAX - 1);
    CHECK(sgz_map_number(&map, sgz_map_first(&map, 999)) == UINT32_MAX - 1000);
    CHECK(!sgz_map_taken(&map, sgz_map_first(&map, 1000)));
    sgz_map_free(&map);
    return 0;
}
