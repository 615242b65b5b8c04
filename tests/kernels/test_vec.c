/* Growing arrays: what is in them stays, and no memory leaves them as they were. */
#include "check.h"

#include "base/vec.h"

#include <string.h>

typedef struct {
    uint64_t number;
    char text[16];
} item;

int main(void)
{
    struct {
        item *items;
        uint32_t count;
        size_t cap;
    } v = {0};
    for (uint32_t i = 0; i < 10000; i++) {
        CHECK(SGZ_PUSH(v.items, v.count, v.cap, (item){.number = i, .text = "x"}));
        CHECK(v.count == i + 1 && v.cap >= v.count && v.cap < 2 * (size_t)v.count);
    }
    for (uint32_t i = 0; i < 10000; i++)
        CHECK(v.items[i].number == i && v.items[i].text[0] == 'x' && !v.items[i].text[1]);

    /* Room that is there is not asked for again; what is not there comes exactly or doubles. */
    item *before = v.items;
    size_t cap = v.cap;
    CHECK(SGZ_FIT(v.items, v.cap, cap) && v.items == before && v.cap == cap);
    CHECK(SGZ_FIT(v.items, v.cap, cap + 1) && v.cap == 2 * cap);
    CHECK(SGZ_FIT(v.items, v.cap, 7 * cap) && v.cap == 7 * cap);
    memset(v.items + 10000, 1, (v.cap - 10000) * sizeof *v.items);
    CHECK(v.items[9999].number == 9999);

    /* More than there can be. */
    before = v.items;
    CHECK(!SGZ_FIT(v.items, v.cap, SIZE_MAX / sizeof *v.items) && v.items == before);
    CHECK(!SGZ_FIT(v.items, v.cap, SIZE_MAX) && v.cap == 7 * cap);
    free(v.items);

    char *none = NULL;
    size_t nothing = 0;
    CHECK(SGZ_FIT(none, nothing, 0) && !none && !nothing);
    return 0;
}
