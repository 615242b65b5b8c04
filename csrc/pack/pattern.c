#include "pack/pattern.h"

#include <stdlib.h>
#include <string.h>

#define WORD 64

static size_t words(const sgz_pack_pattern *p)
{
    return (p->count + WORD - 1) / WORD;
}

static int check(sgz_pack_pattern *p, uint32_t range_count)
{
    if (!p->count || p->states[p->count - 1].kind != SGZ_PATTERN_FOUND)
        return 0;
    p->roams = 0;
    for (uint32_t i = 0; i < p->start_count; i++) {
        if (p->starts[i] >= p->count)
            return 0;
        const sgz_pack_pattern_state *s = &p->states[p->starts[i]];
        p->roams |= s->kind != SGZ_PATTERN_BEGIN || s->skip;
    }
    for (uint32_t i = 0; i < p->count; i++) {
        sgz_pack_pattern_state *s = &p->states[i];
        if (s->kind > SGZ_PATTERN_FOUND || s->skip >= p->count - i ||
            s->ranges > range_count || s->count > range_count - s->ranges)
            return 0;
        memset(s->ascii, 0, sizeof s->ascii);
        for (uint32_t k = 0; k < s->count; k++) {
            const uint32_t *range = p->ranges + 2 * (size_t)(s->ranges + k);
            for (uint32_t c = range[0]; c <= range[1] && c < 2 * WORD; c++)
                s->ascii[c / WORD] |= (uint64_t)1 << c % WORD;
        }
    }
    return 1;
}

/* The state that takes the last character of every name that matches; 0: there is none. It tells
 * most names from those that match. */
static uint32_t last_state(const sgz_pack_pattern *p)
{
    uint32_t end = p->count - 2, last = end - 1;
    if (p->start_count != 1 || p->count < 3 || p->starts[0] >= last ||
        p->states[end].kind != SGZ_PATTERN_END || p->states[last].kind != SGZ_PATTERN_ONE)
        return 0;
    for (uint32_t i = 0; i <= end; i++)
        if (p->states[i].skip && i + p->states[i].skip > last)
            return 0;
    return last;
}

sgz_status sgz_pack_pattern_init(sgz_pack_pattern *p, uint32_t range_count, sgz_error *err)
{
    p->now = p->next = NULL;
    if (!check(p, range_count))
        return sgz_base_fail(err, SGZ_EDATA, -1, NULL, 0, "a pattern that leaves its states");
    p->now = calloc(2 * words(p), sizeof *p->now);
    if (!p->now)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
    p->next = p->now + words(p);
    p->last = last_state(p);
    return SGZ_OK;
}

void sgz_pack_pattern_free(sgz_pack_pattern *p)
{
    free(p->now);
    p->now = p->next = NULL;
}

static int in_class(const sgz_pack_pattern *p, const sgz_pack_pattern_state *s, uint32_t c)
{
    if (c < 2 * WORD)
        return (int)(s->ascii[c / WORD] >> c % WORD & 1);
    const uint32_t *range = p->ranges + 2 * (size_t)s->ranges;
    for (uint32_t k = 0; k < s->count && range[0] <= c; k++, range += 2)
        if (c <= range[1])
            return 1;
    return 0;
}

static int in_word(const uint32_t *name, size_t len, size_t at)
{
    uint32_t c = at < len ? name[at] : ' '; /* also before the name, at SIZE_MAX */
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
}

static int holds(uint8_t kind, const uint32_t *name, size_t len, size_t at)
{
    switch (kind) {
    case SGZ_PATTERN_ALWAYS: return 1;
    case SGZ_PATTERN_BEGIN: return at == 0;
    case SGZ_PATTERN_END: return at == len;
    default: break;
    }
    return (in_word(name, len, at - 1) != in_word(name, len, at)) == (kind == SGZ_PATTERN_EDGE);
}

static void enter(uint64_t *set, uint32_t state)
{
    set[state / WORD] |= (uint64_t)1 << state % WORD;
}

int sgz_pack_pattern_match(const sgz_pack_pattern *p, const uint32_t *name, size_t len)
{
    uint64_t *now = p->now, *next = p->next;
    size_t count = words(p);
    int any = 1;
    if (p->last && (!len || !in_class(p, &p->states[p->last], name[len - 1])))
        return 0;
    memset(now, 0, count * sizeof *now);
    for (size_t at = 0; at <= len && (any || p->roams); at++) {
        memset(next, 0, count * sizeof *next);
        for (uint32_t i = 0; i < p->start_count && (!at || p->roams); i++)
            enter(now, p->starts[i]);
        any = 0;
        for (size_t w = 0; w < count; w++) {
            /* What is entered for nothing lies ahead, so one pass sees it all. */
            for (uint64_t done = 0, left; (left = now[w] & ~done);) {
                uint64_t bit = left & -left;
                uint32_t i = (uint32_t)(w * WORD) + (uint32_t)__builtin_ctzll(left);
                const sgz_pack_pattern_state *s = &p->states[i];
                done |= bit;
                if (s->kind == SGZ_PATTERN_FOUND)
                    return 1;
                if (s->skip)
                    enter(now, i + s->skip);
                if (s->kind > SGZ_PATTERN_MANY) {
                    if (holds(s->kind, name, len, at))
                        enter(now, i + 1);
                } else if (at < len && in_class(p, s, name[at])) {
                    enter(next, i + (s->kind == SGZ_PATTERN_ONE));
                    any = 1;
                }
            }
        }
        uint64_t *spare = now;
        now = next;
        next = spare;
    }
    return 0;
}
