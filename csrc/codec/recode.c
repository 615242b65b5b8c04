#include "codec/recode.h"

#include "codec/block.h"

#include <stdlib.h>
#include <string.h>

#define ALWAYS static inline __attribute__((always_inline))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* A block may end at each so many bytes. */
#define STEP ((size_t)16 << 10)
/* It does where that saves what another block's header takes: about so many 1024ths of a bit. */
#define HEADER_COST (700 * 1024)
#define BLOCK_UNITS ((size_t)64 << 10)
/* Units of one step, and what is written too far. */
#define STEP_UNITS (STEP + SGZ_MATCH_MAX + 16)

/* The search for what a match is replaced by. */
#define HASH_BITS 14
#define SEARCH_MIN 4
#define GOOD 16 /* a match that is so long is taken at once; else the next byte's may be longer */

/* Where the tokens' stream is gone through: literals, then a match. */
typedef struct {
    const uint32_t *next, *end;
    size_t run;
    uint32_t len, token; /* 0: there is no more but literals */
} cursor;

struct sgz_recoder {
    const sgz_codecs *codecs;
    const uint8_t *all;
    const sgz_lz *lz;
    const sgz_lz_piece *pieces;
    size_t piece_count, piece; /* the last member began in it */
    sgz_lz_mark place;      /* of the token that this was in */

    const uint8_t *data;    /* of the member */
    size_t len;
    cursor at;
    size_t floor;           /* matches that stand in the stream reach no further back */
    size_t piece_end;

    uint32_t *units;        /* of the open block, and then of this step */
    size_t unit_count, block_units;
    size_t block_begin;
    int open;               /* there is an open block */
    uint64_t cost;          /* of its symbols; UINT64_MAX: not known yet */
    sgz_block_counts counts;
    sgz_block_writer writer;

    uint32_t base;          /* positions of the member in `seen`; what is below is of others */
    uint32_t seen[1 << HASH_BITS];
    uint8_t near[257], far[257];   /* symbols of distances */
    uint8_t length_symbols[SGZ_MATCH_MAX + 1];
};

sgz_status sgz_codec_recoder_new(sgz_recoder **recoder, const sgz_codecs *codecs, sgz_error *err)
{
    sgz_recoder *r = calloc(1, sizeof *r);
    *recoder = r;
    if (r)
        r->units = malloc((BLOCK_UNITS + 2 * STEP_UNITS) * sizeof *r->units);
    if (!r || !r->units) {
        free(r);
        *recoder = NULL;
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
    }
    r->codecs = codecs;
    r->base = 1;
    for (unsigned s = 0; s < SGZ_DISTANCES; s++)
        for (uint32_t x = 0; x < 1u << sgz_codec_distance_extra[s]; x++) {
            uint32_t distance = sgz_codec_distance_base[s] + x;
            if (distance <= 256)
                r->near[distance] = (uint8_t)s;
            else
                r->far[(distance - 1) >> 7] = (uint8_t)s;
        }
    for (unsigned s = 0; s < SGZ_LENGTHS; s++)
        for (unsigned x = 0; x < 1u << sgz_codec_length_extra[s]; x++)
            if (sgz_codec_length_base[s] + x <= SGZ_MATCH_MAX)
                r->length_symbols[sgz_codec_length_base[s] + x] = (uint8_t)s;
    return SGZ_OK;
}

void sgz_codec_recoder_free(sgz_recoder *r)
{
    if (r)
        free(r->units);
    free(r);
}

/* --- tokens ------------------------------------------------------------------------------ */

/* The next token, behind `run` literals that are left over. */
ALWAYS void advance(cursor *c, size_t run)
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
static void skip(cursor *c, size_t n)
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
static void seek(sgz_recoder *r, int64_t to)
{
    const sgz_lz *lz = r->lz;
    sgz_lz_mark *place = &r->place;
    size_t low = 0, high = lz->mark_count;
    r->at = (cursor){.run = SIZE_MAX};
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

ALWAYS uint32_t unit_at(const sgz_recoder *r, uint32_t len, uint32_t distance)
{
    uint32_t symbol = distance <= 256 ? r->near[distance] : r->far[(distance - 1) >> 7];
    return match_unit(len, symbol, distance - sgz_codec_distance_base[symbol]);
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
    size_t len;
    uint32_t base, *seen;
} search;

ALWAYS uint32_t *seen(const search *s, size_t at)
{
    return &s->seen[load4(s->data + at) * 2654435761u >> (32 - HASH_BITS)];
}

ALWAYS void note(const search *s, size_t at)
{
    if (LIKELY(at + SEARCH_MIN <= s->len))
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
    if (LIKELY(found >= here || here - found > SGZ_DISTANCE_MAX
               || load4(s->data + found) != load4(s->data + at)))
        return 0;
    *from = found;
    return match_length(s->data + found, s->data + at,
                        end - at < SGZ_MATCH_MAX ? (uint32_t)(end - at) : SGZ_MATCH_MAX);
}

/* The cursor stands at a match that begins at `at` and whose source begins before the floor. Replace as
 * much as must be, or more where a match is found that goes on; returns where it ends. */
__attribute__((noinline)) static size_t replace(sgz_recoder *r, const search *given, uint32_t **u, size_t at,
                      uint32_t distance)
{
    const search s = *given;
    size_t piece_end = r->piece_end;
    size_t missing = distance - (at - r->floor), end = at + r->at.len, from = 0;
    if (end > piece_end)
        end = piece_end;
    size_t until = missing + SGZ_MATCH_MIN <= end - at ? at + missing : end;
    size_t literals = at, z = at;
    size_t last = piece_end - at < SEARCH_MIN ? at : piece_end - SEARCH_MIN + 1;
    while (z < until) {
        if (z >= last) {
            z = until;
            break;
        }
        uint32_t len = find(&s, z, piece_end, &from);
        if (!len) {
            z++;
            continue;
        }
        while (len < GOOD && z + 1 < until && z + 1 < last) {
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
        *(*u)++ = unit_at(r, len, (uint32_t)(z - from));
        z += len;
        literals = z;
    }
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

/* --- one step ---------------------------------------------------------------------------- */

/* Units for data[at, stop) at least; a match may go on behind it, but not behind the piece. Returns
 * where they end. Near the floor each match may have to be replaced, and what it is replaced by has to be
 * found. */
ALWAYS size_t step(sgz_recoder *r, size_t at, size_t stop, int near_floor)
{
    uint32_t *u = r->units + r->unit_count;
    cursor c = r->at;
    const search s = {r->data, r->len, r->base, r->seen};
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
                at = replace(r, &s, &u, at, distance);
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
    r->unit_count = (size_t)(u - r->units);
    return at;
}

/* What occurs in units. */
static void count(const sgz_recoder *r, const uint32_t *units, size_t n, sgz_block_counts *counts)
{
    uint32_t firsts[2][SGZ_UNIT_FIRSTS], seconds[2][SGZ_UNIT_SECONDS];
    memset(firsts, 0, sizeof firsts);
    memset(seconds, 0, sizeof seconds);
    size_t i = 0;
    for (; i + 1 < n; i += 2) {
        uint32_t a = units[i], b = units[i + 1];
        firsts[0][a & 1023]++;
        seconds[0][a >> 10 & 511]++;
        firsts[1][b & 1023]++;
        seconds[1][b >> 10 & 511]++;
    }
    if (i < n) {
        firsts[0][units[i] & 1023]++;
        seconds[0][units[i] >> 10 & 511]++;
    }
    for (unsigned k = 0; k < 256; k++)
        counts->litlen[k] = firsts[0][k] + firsts[1][k] + seconds[0][k] + seconds[1][k];
    for (unsigned k = SGZ_END_OF_BLOCK; k < SGZ_LITLENS + 2; k++)
        counts->litlen[k] = 0;
    for (unsigned len = SGZ_MATCH_MIN; len <= SGZ_MATCH_MAX; len++)
        counts->litlen[SGZ_END_OF_BLOCK + 1 + r->length_symbols[len]] +=
            firsts[0][SGZ_UNIT_LEN + len] + firsts[1][SGZ_UNIT_LEN + len];
    for (unsigned k = 0; k < SGZ_DISTANCES; k++)
        counts->distance[k] = seconds[0][SGZ_UNIT_DISTANCE + k] + seconds[1][SGZ_UNIT_DISTANCE + k];
    counts->distance[SGZ_DISTANCES] = counts->distance[SGZ_DISTANCES + 1] = 0;
}

/* --- blocks ------------------------------------------------------------------------------ */

/* Write the open block, which ends at `end`; what behind it was counted is the next. */
static void end_block(sgz_recoder *r, size_t end, int last)
{
    sgz_codec_block_write(&r->writer, r->units, r->block_units, &r->counts,
                          r->data + r->block_begin, end - r->block_begin, last);
    r->unit_count -= r->block_units;
    memmove(r->units, r->units + r->block_units, r->unit_count * sizeof *r->units);
    r->block_units = 0;
    r->block_begin = end;
}

ALWAYS void add_counts(sgz_block_counts *sum, const sgz_block_counts *a, const sgz_block_counts *b)
{
    for (unsigned i = 0; i < SGZ_LITLENS + 2; i++)
        sum->litlen[i] = a->litlen[i] + b->litlen[i];
    for (unsigned i = 0; i < SGZ_DISTANCES + 2; i++)
        sum->distance[i] = a->distance[i] + b->distance[i];
}

/* The units behind the open block's go on with it, or begin another. */
static void end_step(sgz_recoder *r, size_t begin)
{
    sgz_block_counts now, both;
    count(r, r->units + r->block_units, r->unit_count - r->block_units, &now);
    if (!r->open) {
        r->counts = now;
        r->cost = UINT64_MAX;
        r->open = 1;
    } else {
        add_counts(&both, &r->counts, &now);
        if (r->cost == UINT64_MAX)
            r->cost = sgz_codec_block_cost(&r->counts);
        uint64_t apart = sgz_codec_block_cost(&now), together = sgz_codec_block_cost(&both);
        if (together > r->cost + apart + HEADER_COST || r->unit_count > BLOCK_UNITS) {
            end_block(r, begin, 0);
            r->counts = now;
            r->cost = apart;
        } else {
            r->counts = both;
            r->cost = together;
        }
    }
    r->block_units = r->unit_count;
}

static size_t units_of_piece(sgz_recoder *r, size_t at)
{
    while (at < r->piece_end) {
        size_t begin = at, stop = r->piece_end - at < STEP ? r->piece_end : at + STEP;
        at = at - r->floor < SGZ_DISTANCE_MAX ? step(r, at, stop, 1) : step(r, at, stop, 0);
        end_step(r, begin);
    }
    return at;
}

void sgz_codec_recode_begin(sgz_recoder *r, const uint8_t *data, const sgz_lz *lz,
                            const sgz_lz_piece *pieces, size_t piece_count)
{
    r->all = data;
    r->lz = lz;
    r->pieces = pieces;
    r->piece_count = piece_count;
    r->piece = 0;
    r->place = (sgz_lz_mark){-1, 0};
}

static void begin_member(sgz_recoder *r, size_t begin, size_t len)
{
    if (r->base > UINT32_MAX / 2) {
        memset(r->seen, 0, sizeof r->seen);
        r->base = 1;
    }
    r->data = r->all + begin;
    r->len = len;
    r->unit_count = r->block_units = r->block_begin = 0;
    r->open = 0;
    memset(&r->counts, 0, sizeof r->counts);
    r->writer.bits = r->writer.bit_count = 0;
    if (r->piece && r->pieces[r->piece].at > begin)
        r->piece = 0;
}

sgz_status sgz_codec_recode_member(sgz_recoder *r, size_t begin, size_t len, uint8_t *out,
                                   size_t out_cap, size_t *out_len, sgz_error *err)
{
    if (len > UINT32_MAX / 4 || out_cap < sgz_codec_member_bound(len))
        return sgz_base_fail(err, SGZ_ECODEC, -1, NULL, 0, "a member of %zu bytes is too large",
                             len);
    begin_member(r, begin, len);
    r->writer.at = out + sgz_codec_member_header(0, 0, out);
    for (size_t at = 0; at < len;) {
        while (r->piece + 1 < r->piece_count && r->pieces[r->piece + 1].at <= begin + at)
            r->piece++;
        const sgz_lz_piece *piece = &r->pieces[r->piece];
        size_t end = r->piece + 1 < r->piece_count ? piece[1].at - begin : len;
        r->floor = at;
        r->piece_end = end < len ? end : len;
        seek(r, piece->from < 0 ? -1 : piece->from + (int64_t)(begin + at - piece->at));
        at = units_of_piece(r, at);
    }
    end_block(r, len, 1);
    sgz_codec_block_align(&r->writer);
    uint8_t *end = r->writer.at;
    end += sgz_codec_member_trailer(sgz_codec_crc32(r->codecs, 0, r->data, len), (uint32_t)len, end);
    *out_len = (size_t)(end - out);
    r->base += (uint32_t)len;
    return SGZ_OK;
}
