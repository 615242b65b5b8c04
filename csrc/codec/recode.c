#include "codec/recode.h"

#include "codec/block.h"

#include <stdlib.h>
#include <string.h>

#define ALWAYS static inline __attribute__((always_inline))

/* A block may end behind each step of units. It does where that saves what another block's header takes:
 * about so many 1024ths of a bit. */
#define HEADER_COST (700 * 1024)
#define BLOCK_UNITS ((size_t)64 << 10)

/* Of what is coded, so much must look poor: see sgz_codec_recode_doubt. Literals may be 1/8 more than the
 * bytes they are coded with before the member is (small members of gzip -6 often have 1/32); blocks of
 * literals alone must be 1/32. (A part that is shorter than the minimum is not: of what is compressed
 * already a layer may have much in small files, of Debian's every other one, and it hardly ever repeats
 * itself.) */
#define EXCESS_SHIFT 3
#define POOR_SHIFT 5
#define DOUBT_MIN ((size_t)16 << 10)
#define DOUBT_BYTES ((size_t)32 << 10)
/* Hardly a match reaches back more than 8 KiB (1/256; of text a third does), where one could. */
#define NARROW_BYTES ((size_t)32 << 10)
#define FAR_SYMBOL 26
#define NARROW_SHIFT 8

struct sgz_recoder {
    const sgz_codecs *codecs;
    sgz_units units;        /* of the open block, and then of this step */
    const uint8_t *data;    /* of the member */
    size_t block_units;
    size_t block_begin;
    int open;               /* there is an open block */
    uint64_t cost;          /* of its symbols; UINT64_MAX: not known yet */
    sgz_block_counts counts;
    sgz_block_writer writer;
    uint8_t length_symbols[SGZ_MATCH_MAX + 1];

    size_t len, made;       /* the member's bytes, and coded */
    size_t excess;          /* by which literals are more than the bytes they are coded with */
    size_t matches, far;    /* where one could reach far, and those that do */
    size_t dense;           /* bytes of blocks that are little but literals, each about a byte */
    sgz_recode_range longest; /* of those */
};

sgz_status sgz_codec_recoder_new(sgz_recoder **recoder, const sgz_codecs *codecs, sgz_error *err)
{
    sgz_recoder *r = calloc(1, sizeof *r);
    *recoder = r;
    if (r)
        r->units.to = malloc((BLOCK_UNITS + 2 * SGZ_UNITS_OF_STEP) * sizeof *r->units.to);
    if (!r || !r->units.to) {
        free(r);
        *recoder = NULL;
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
    }
    r->codecs = codecs;
    for (unsigned s = 0; s < SGZ_LENGTHS; s++)
        for (unsigned x = 0; x < 1u << sgz_codec_length_extra[s]; x++)
            if (sgz_codec_length_base[s] + x <= SGZ_MATCH_MAX)
                r->length_symbols[sgz_codec_length_base[s] + x] = (uint8_t)s;
    return SGZ_OK;
}

void sgz_codec_recoder_free(sgz_recoder *r)
{
    if (r)
        free(r->units.to);
    free(r);
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

/* Whether the block may be of poor tokens. */
static void judge(sgz_recoder *r, size_t end, size_t coded)
{
    size_t len = end - r->block_begin, literals = 0;
    for (unsigned i = 0; i < SGZ_END_OF_BLOCK; i++)
        literals += r->counts.litlen[i];
    if (literals > coded)
        r->excess += literals - coded;
    for (unsigned i = 0; end >= NARROW_BYTES && i < SGZ_DISTANCES; i++) {
        r->matches += r->counts.distance[i];
        r->far += i >= FAR_SYMBOL ? r->counts.distance[i] : 0;
    }
    if (len - literals > len / 512) /* (even noise has some matches) */
        return;
    r->dense += len;
    if (len > r->longest.len)
        r->longest = (sgz_recode_range){r->block_begin, len};
}

/* Write the open block, which ends at `end`; what behind it was counted is the next. */
static void end_block(sgz_recoder *r, size_t end, int last)
{
    const uint8_t *begin = r->writer.at;
    sgz_codec_block_write(&r->writer, r->units.to, r->block_units, &r->counts,
                          r->data + r->block_begin, end - r->block_begin, last);
    judge(r, end, (size_t)(r->writer.at - begin));
    r->units.count -= r->block_units;
    memmove(r->units.to, r->units.to + r->block_units, r->units.count * sizeof *r->units.to);
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
    count(r, r->units.to + r->block_units, r->units.count - r->block_units, &now);
    if (!r->open) {
        r->counts = now;
        r->cost = UINT64_MAX;
        r->open = 1;
    } else {
        add_counts(&both, &r->counts, &now);
        if (r->cost == UINT64_MAX)
            r->cost = sgz_codec_block_cost(&r->counts);
        uint64_t apart = sgz_codec_block_cost(&now), together = sgz_codec_block_cost(&both);
        if (together > r->cost + apart + HEADER_COST || r->units.count > BLOCK_UNITS) {
            end_block(r, begin, 0);
            r->counts = now;
            r->cost = apart;
        } else {
            r->counts = both;
            r->cost = together;
        }
    }
    r->block_units = r->units.count;
}

void sgz_codec_recode_begin(sgz_recoder *r, const uint8_t *data, const sgz_lz *lz,
                            const sgz_lz_piece *pieces, size_t piece_count)
{
    sgz_codec_units_begin(&r->units, data, lz, pieces, piece_count);
}

sgz_status sgz_codec_recode_member(sgz_recoder *r, size_t begin, size_t len, uint8_t *out,
                                   size_t out_cap, size_t *out_len, sgz_error *err)
{
    if (len > SGZ_UNITS_MEMBER_MAX || out_cap < sgz_codec_member_bound(len))
        return sgz_base_fail(err, SGZ_ECODEC, -1, NULL, 0, "a member of %zu bytes is too large",
                             len);
    sgz_codec_units_member(&r->units, begin, len);
    r->data = r->units.data;
    r->len = len;
    r->block_units = r->block_begin = 0;
    r->open = 0;
    memset(&r->counts, 0, sizeof r->counts);
    r->excess = r->matches = r->far = r->dense = r->longest.len = 0;
    r->writer.bits = r->writer.bit_count = 0;
    r->writer.at = out + sgz_codec_member_header(0, 0, out);
    for (size_t at = 0, step; at < len;) {
        step = at;
        at = sgz_codec_units_step(&r->units, at);
        end_step(r, step);
    }
    end_block(r, len, 1);
    sgz_codec_block_align(&r->writer);
    uint8_t *end = r->writer.at;
    end += sgz_codec_member_trailer(sgz_codec_crc32(r->codecs, 0, r->data, len), (uint32_t)len, end);
    *out_len = r->made = (size_t)(end - out);
    return SGZ_OK;
}

sgz_recode_range sgz_codec_recode_doubt(const sgz_recoder *r)
{
    if (r->excess > r->made >> EXCESS_SHIFT || r->far < r->matches >> NARROW_SHIFT)
        return (sgz_recode_range){0, r->len};
    if (r->dense <= r->made >> POOR_SHIFT || r->longest.len < DOUBT_MIN)
        return (sgz_recode_range){0, 0};
    size_t len = r->longest.len < DOUBT_BYTES ? r->longest.len : DOUBT_BYTES;
    return (sgz_recode_range){r->longest.at, len};
}
