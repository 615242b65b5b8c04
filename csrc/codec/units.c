#include "codec/units.h"

#include "codec/block.h"

#include <string.h>

#define ALWAYS static inline __attribute__((always_inline))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* The search for what a match is replaced by. */
#define SEARCH_MIN 4
#define GOOD 32 /* a match that is so long is taken at once; else the next byte's may be longer */

/* --- tokens ------------------------------------------------------------------------------ */

/* The next token, behind `run` literals that are left over. */
ALWAYS void advance(sgz_lz_cursor *c, size_t run)
{
    while (c->next < c->end) {
        uint32_t token = *c->next++;
        uint32_t len = sgz_lz_len(token);
        run += sgz_lz_run(token);
        if (LIKELY(len)) {
            c->run = run;
            c->len = len;
            c->token = token;
            return;
        }
    }
    c->run = SIZE_MAX;
    c->len = c->token = 0;
}

/* Leave out n bytes. What is left of a match may be no match any more. */
static void skip(sgz_lz_cursor *c, size_t n)
{
    while (n > c->run) {
        n -= c->run;
        if (n < c->len) {
            c->len -= (uint32_t)n;
            c->run = 0;
            if (c->len < SGZ_MATCH_MIN)
                advance(c, c->len);
            return;
        }
        n -= c->len;
        advance(c, 0);
    }
    if (c->run != SIZE_MAX)
        c->run -= n;
    if (!c->run && !c->len)
        advance(c, 0);
}

/* Go to a place in the stream: from where it was, or from a mark. */
static void seek(sgz_units *r, int64_t to)
{
    const sgz_lz *lz = r->lz;
    sgz_lz_mark *place = &r->place;
    size_t low = 0, high = lz->mark_count;
    r->at = (sgz_lz_cursor){.run = SIZE_MAX};
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (lz->marks[middle].at <= to)
            low = middle + 1;
        else
            high = middle;
    }
    if (!low || to < 0)
        return;
    const sgz_lz_mark *mark = &lz->marks[low - 1];
    if (place->at < mark->at || place->at > to)
        *place = *mark;
    for (; place->token < lz->count; place->token++) {
        uint32_t token = lz->tokens[place->token];
        int64_t n = (int64_t)sgz_lz_len(token) + sgz_lz_run(token);
        if (n > to - place->at)
            break;
        place->at += n;
    }
    r->at.next = lz->tokens + place->token;
    r->at.end = lz->tokens + lz->count;
    advance(&r->at, 0);
    skip(&r->at, (size_t)(to - place->at));
}

ALWAYS uint32_t match_unit(uint32_t len, uint32_t symbol, uint32_t extra)
{
    return (len + SGZ_UNIT_LEN) | (symbol + SGZ_UNIT_DISTANCE) << 10 | extra << SGZ_UNIT_EXTRA;
}

ALWAYS uint32_t unit_of(uint32_t token, uint32_t len)
{
    return match_unit(len, token >> 9 & 31, token >> 14 & 8191);
}

/* Without a branch on the distance: where these come from near and far they are hard to foresee. */
ALWAYS uint32_t unit_at(uint32_t len, uint32_t distance)
{
    uint32_t d = distance - 1, log = 31 - (uint32_t)__builtin_clz(d | 2);
    uint32_t extra = log - 1, symbol = 2 * extra + (d >> extra);
    return match_unit(len, symbol, d & ((1u << extra) - 1));
}

/* n literals (or none), in twos: up to 16 bytes are read too far, 8 units written. */
ALWAYS uint32_t *put_literals(uint32_t *u, const uint8_t *p, size_t n)
{
    typedef uint16_t twos __attribute__((vector_size(16)));
    typedef uint32_t units __attribute__((vector_size(32)));
    for (;;) {
        twos v;
        memcpy(&v, p, sizeof v);
        units x = __builtin_convertvector(v, units);
        x = (x & 0xff) | (x & 0xff00) << 2;
        memcpy(u, &x, sizeof x);
        if (LIKELY(n <= 16))
            break;
        u += 8;
        p += 16;
        n -= 16;
    }
    u += n / 2;
    *u = p[(n - 1) & 15] | SGZ_UNIT_NONE;
    return u + n % 2;
}

/* --- what matches are replaced by -------------------------------------------------------- */

ALWAYS uint32_t load4(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Where four bytes were last, of this member. (Of its own, so that it stays in registers.) */
typedef struct {
    const uint8_t *data;
    uint32_t base, *seen;
} search;

ALWAYS uint32_t *seen(const search *s, size_t at)
{
    return &s->seen[load4(s->data + at) * 2654435761u >> (32 - SGZ_UNITS_HASH_BITS)];
}

ALWAYS void note(const search *s, size_t at)
{
    *seen(s, at) = s->base + (uint32_t)at;
}

ALWAYS uint32_t match_length(const uint8_t *a, const uint8_t *b, uint32_t max)
{
    uint32_t n = SEARCH_MIN;
    while (n + 8 <= max) {
        uint64_t x, y;
        memcpy(&x, a + n, sizeof x);
        memcpy(&y, b + n, sizeof y);
        if (x != y) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
            return n + (uint32_t)(__builtin_ctzll(x ^ y) >> 3);
#else
            return n + (uint32_t)(__builtin_clzll(x ^ y) >> 3);
#endif
        }
        n += 8;
    }
    while (n < max && a[n] == b[n])
        n++;
    return n;
}

/* The length of a match at `at`, or 0; there are four bytes at least. */
ALWAYS uint32_t find(const search *s, size_t at, size_t end, size_t *from)
{
    uint32_t *place = seen(s, at), found = *place - s->base, here = (uint32_t)at;
    *place = s->base + here;
    /* (A place of another member is further away: see sgz_codec_units_member.) */
    if (LIKELY(here - found - 1 >= SGZ_DISTANCE_MAX || load4(s->data + found) != load4(s->data + at)))
        return 0;
    *from = found;
    return match_length(s->data + found, s->data + at,
                        end - at < SGZ_MATCH_MAX ? (uint32_t)(end - at) : SGZ_MATCH_MAX);
}

/* The cursor stands at a match that begins at `at` and whose source begins before the floor. Replace as
 * much as must be, or more where a match is found that goes on; returns where it ends. */
ALWAYS size_t replace(sgz_units *r, const search *given, uint32_t **u, size_t at, uint32_t distance)
{
    const search s = *given;
    size_t piece_end = r->piece_end;
    size_t missing = distance - (at - r->floor), end = at + r->at.len, from = 0;
    if (end > piece_end)
        end = piece_end;
    size_t until = missing + SGZ_MATCH_MIN <= end - at ? at + missing : end;
    size_t literals = at, z = at;
    size_t last = piece_end - at < SEARCH_MIN ? at : piece_end - SEARCH_MIN + 1;
    size_t scanned = until < last ? until : last;
    while (z < scanned) {
        uint32_t len = find(&s, z, piece_end, &from);
        if (!len) {
            z++;
            continue;
        }
        while (len < GOOD && z + 1 < scanned) {
            size_t other;
            uint32_t longer = find(&s, z + 1, piece_end, &other);
            if (longer <= len)
                break;
            z++;
            len = longer;
            from = other;
        }
        if (z > literals)
            *u = put_literals(*u, s.data + literals, z - literals);
        *(*u)++ = unit_at(len, (uint32_t)(z - from));
        /* Noting the bytes behind its first one, too, takes 1/20 longer and finds a 700th. */
        for (size_t k = SEARCH_MIN; k; k--)
            note(&s, z + len - k);
        z += len;
        literals = z;
    }
    if (z < until)
        z = until;
    if (z >= end) {
        if (z > literals) /* to the end, and none was found there */
            *u = put_literals(*u, s.data + literals, z - literals);
        skip(&r->at, z - at);
        return z;
    }
    uint32_t rest = (uint32_t)(end - z);
    if (z > literals)
        *u = put_literals(*u, s.data + literals, z - literals);
    if (rest >= SGZ_MATCH_MIN) {
        *(*u)++ = unit_of(r->at.token, rest);
        z = end;
    }
    skip(&r->at, z - at);
    return z;
}

typedef size_t replacer(sgz_units *r, const search *s, uint32_t **u, size_t at, uint32_t distance);

/* --- one step ---------------------------------------------------------------------------- */

/* Units for data[at, stop) at least; a match may go on behind it, but not behind the piece. Returns
 * where they end. Near the floor each match may have to be replaced, and what it is replaced by has to be
 * found. */
ALWAYS size_t units_of(sgz_units *r, size_t at, size_t stop, int near_floor, replacer *replacer)
{
    uint32_t *u = r->to + r->count;
    sgz_lz_cursor c = r->at;
    const search s = {r->data, r->base, r->seen};
    while (at < stop) {
        if (near_floor && c.run)
            note(&s, at);
        if (UNLIKELY(c.run >= stop - at)) {
            u = put_literals(u, r->data + at, stop - at);
            c.run -= c.run == SIZE_MAX ? 0 : stop - at;
            at = stop;
            break;
        }
        u = put_literals(u, r->data + at, c.run);
        at += c.run;
        c.run = 0;
        if (near_floor) {
            uint32_t distance = sgz_lz_distance(c.token);
            if (distance > at - r->floor) {
                r->at = c;
                at = replacer(r, &s, &u, at, distance);
                c = r->at;
                continue;
            }
            note(&s, at);
        }
        uint32_t len = c.len;
        if (UNLIKELY(len > r->piece_end - at)) {
            len = (uint32_t)(r->piece_end - at);
            if (len < SGZ_MATCH_MIN) {
                u = put_literals(u, r->data + at, len);
                at += len;
                break;
            }
        }
        *u++ = unit_of(c.token, len);
        at += len;
        advance(&c, 0);
    }
    r->at = c;
    r->count = (size_t)(u - r->to);
    return at;
}

ALWAYS size_t step(sgz_units *r, size_t at, size_t stop, replacer *replacer)
{
    return at - r->floor < SGZ_DISTANCE_MAX ? units_of(r, at, stop, 1, replacer)
                                            : units_of(r, at, stop, 0, replacer);
}

/* The same for any processor, and for those of the last ten years: these take 1/25 less time with theirs. */
#define STEP(name, ...)                                                                       \
    __attribute__((__VA_ARGS__)) static size_t replace_##name(                                \
        sgz_units *r, const search *s, uint32_t **u, size_t at, uint32_t distance)            \
    {                                                                                         \
        return replace(r, s, u, at, distance);                                                \
    }                                                                                         \
    __attribute__((__VA_ARGS__)) static size_t step_##name(sgz_units *r, size_t at, size_t stop) \
    {                                                                                         \
        return step(r, at, stop, replace_##name);                                             \
    }
STEP(any, noinline)
#ifdef __x86_64__
STEP(avx2, noinline, target("avx2,bmi,bmi2"))
#endif

void sgz_codec_units_begin(sgz_units *r, const uint8_t *data, const sgz_lz *lz,
                           const sgz_lz_piece *pieces, size_t piece_count)
{
    r->all = data;
    r->lz = lz;
    r->pieces = pieces;
    r->piece_count = piece_count;
    r->piece = 0;
    r->place = (sgz_lz_mark){-1, 0};
}

void sgz_codec_units_member(sgz_units *r, size_t begin, size_t len)
{
    /* What was noted before is too far below. The last place that is noted of a member is its end. */
    r->base += (uint32_t)r->len + SGZ_DISTANCE_MAX + 1;
    if (r->base > SGZ_UNITS_PLACES) {
        memset(r->seen, 0, sizeof r->seen);
        r->base = SGZ_DISTANCE_MAX + 1;
    }
    r->begin = begin;
    r->data = r->all + begin;
    r->len = len;
    r->count = r->piece_end = 0;
    if (r->piece && r->pieces[r->piece].at > begin)
        r->piece = 0;
}

static void begin_piece(sgz_units *r, size_t at)
{
    size_t place = r->begin + at;
    while (r->piece + 1 < r->piece_count && r->pieces[r->piece + 1].at <= place)
        r->piece++;
    const sgz_lz_piece *piece = &r->pieces[r->piece];
    size_t end = r->piece + 1 < r->piece_count ? piece[1].at - r->begin : r->len;
    r->floor = at;
    r->piece_end = end < r->len ? end : r->len;
    seek(r, piece->from < 0 ? -1 : piece->from + (int64_t)(place - piece->at));
}

size_t sgz_codec_units_step(sgz_units *r, size_t at)
{
    if (at >= r->piece_end)
        begin_piece(r, at);
    size_t stop = r->piece_end - at < SGZ_UNITS_STEP ? r->piece_end : at + SGZ_UNITS_STEP;
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi")
        && __builtin_cpu_supports("bmi2"))
        return step_avx2(r, at, stop);
#endif
    return step_any(r, at, stop);
}
