/* Names against patterns of any states: refused, or matched within their memory, and the same again.
 *
 * The input: the numbers of states, ranges and starts, 8 bytes for each state, 4 for each range, 2
 * for each start, and then the name, a byte for a character. */
#include "fuzz.h"
#include "pack/pattern.h"

#define MOST 64
#define NAME_MOST 1000

static uint32_t number(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sgz_error err = {0};
    if (size < 3)
        return 0;
    uint32_t count = data[0] % (MOST + 1), ranges = data[1] % (MOST + 1);
    uint32_t starts = data[2] % (MOST + 1);
    size_t need = 3 + (size_t)count * 8 + ranges * 4 + starts * 2;
    if (size < need)
        return 0;
    const uint8_t *at = data + 3;
    /* Of their exact lengths, so that a step beyond is seen. */
    sgz_pack_pattern_state *states = calloc(count ? count : 1, sizeof *states);
    uint32_t *range = malloc((ranges ? ranges : 1) * 2 * sizeof *range);
    uint32_t *start = malloc((starts ? starts : 1) * sizeof *start);
    CHECK(states && range && start);
    for (uint32_t i = 0; i < count; i++, at += 8) {
        states[i].kind = at[0] % (SGZ_PATTERN_FOUND + 2);
        states[i].skip = at[1] == 255 ? UINT32_MAX : at[1];
        states[i].ranges = number(at + 2);
        states[i].count = number(at + 4);
    }
    for (uint32_t i = 0; i < 2 * ranges; i++, at += 2)
        range[i] = number(at);
    for (uint32_t i = 0; i < starts; i++, at += 2)
        start[i] = number(at);
    sgz_pack_pattern p = {.states = states, .count = count, .ranges = range, .starts = start,
                          .start_count = starts};
    size_t len = size - need < NAME_MOST ? size - need : NAME_MOST;
    uint32_t *name = malloc((len ? len : 1) * sizeof *name);
    CHECK(name);
    for (size_t i = 0; i < len; i++)
        name[i] = at[i] == 255 ? 0x10ffff : at[i];
    sgz_status status = sgz_pack_pattern_init(&p, ranges, &err);
    CHECK(!status || err.message[0]);
    if (!status) {
        int found = sgz_pack_pattern_match(&p, name, len);
        CHECK(found == 0 || found == 1);
        CHECK(found == sgz_pack_pattern_match(&p, name, len));
        sgz_pack_pattern_free(&p);
    }
    free(name);
    free(start);
    free(range);
    free(states);
    return 0;
}
