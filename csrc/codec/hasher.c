#include "codec/hasher.h"

#include <string.h>

#define BLOCK 64

static const uint32_t INITIAL[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>

#define TARGET __attribute__((target("sha,sse4.1,ssse3")))

/* FIPS 180-4, section 4.2.2. */
static const uint32_t K[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
    0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
    0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
    0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
    0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
    0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
    0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
    0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
    0xc67178f2};

static int have_instructions(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 9)) || !(c & (1u << 19)))
        return 0; /* SSSE3, SSE4.1 */
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & (1u << 29));
}

/* The instructions keep the state as the vectors ABEF and CDGH. */
TARGET static inline void load_state(const uint32_t *s, __m128i *abef, __m128i *cdgh)
{
    *abef = _mm_set_epi32((int)s[0], (int)s[1], (int)s[4], (int)s[5]);
    *cdgh = _mm_set_epi32((int)s[2], (int)s[3], (int)s[6], (int)s[7]);
}

TARGET static inline void store_state(uint32_t *s, __m128i abef, __m128i cdgh)
{
    uint32_t x[4], y[4];
    _mm_storeu_si128((__m128i *)x, abef);
    _mm_storeu_si128((__m128i *)y, cdgh);
    s[0] = x[3], s[1] = x[2], s[4] = x[1], s[5] = x[0];
    s[2] = y[3], s[3] = y[2], s[6] = y[1], s[7] = y[0];
}

/* `blocks` blocks of each of `lanes` streams (a constant, so that all loops unroll). */
TARGET static inline __attribute__((always_inline)) void compress(
    const int lanes, uint32_t *const state[], const uint8_t *const data[], size_t blocks)
{
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    __m128i abef[2], cdgh[2];
    const uint8_t *in[2];
    for (int k = 0; k < lanes; k++) {
        load_state(state[k], &abef[k], &cdgh[k]);
        in[k] = data[k];
    }
    while (blocks--) {
        __m128i w[2][4], abef_before[2], cdgh_before[2];
        for (int k = 0; k < lanes; k++) {
            abef_before[k] = abef[k];
            cdgh_before[k] = cdgh[k];
            for (int i = 0; i < 4; i++)
                w[k][i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)in[k] + i),
                                           big_endian);
            in[k] += BLOCK;
        }
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
#pragma GCC unroll 2
            for (int k = 0; k < lanes; k++) {
                __m128i wk =
                    _mm_add_epi32(w[k][i & 3], _mm_load_si128((const __m128i *)K + i));
                cdgh[k] = _mm_sha256rnds2_epu32(cdgh[k], abef[k], wk);
                abef[k] = _mm_sha256rnds2_epu32(abef[k], cdgh[k], _mm_shuffle_epi32(wk, 0x0e));
                if (i < 12)
                    w[k][i & 3] = _mm_sha256msg2_epu32(
                        _mm_add_epi32(_mm_sha256msg1_epu32(w[k][i & 3], w[k][(i + 1) & 3]),
                                      _mm_alignr_epi8(w[k][(i + 3) & 3], w[k][(i + 2) & 3], 4)),
                        w[k][(i + 3) & 3]);
            }
        }
        for (int k = 0; k < lanes; k++) {
            abef[k] = _mm_add_epi32(abef[k], abef_before[k]);
            cdgh[k] = _mm_add_epi32(cdgh[k], cdgh_before[k]);
        }
    }
    for (int k = 0; k < lanes; k++)
        store_state(state[k], abef[k], cdgh[k]);
}

TARGET static void compress_one(uint32_t *state, const uint8_t *data, size_t blocks)
{
    compress(1, (uint32_t *const[]){state}, (const uint8_t *const[]){data}, blocks);
}

TARGET static void compress_two(uint32_t *a, const uint8_t *a_data, uint32_t *b,
                                const uint8_t *b_data, size_t blocks)
{
    compress(2, (uint32_t *const[]){a, b}, (const uint8_t *const[]){a_data, b_data}, blocks);
}

#else

static int have_instructions(void)
{
    return 0;
}

/* Never called: have_instructions says so. */
static void compress_one(uint32_t *state, const uint8_t *data, size_t blocks)
{
    (void)state, (void)data, (void)blocks;
}

static void compress_two(uint32_t *a, const uint8_t *a_data, uint32_t *b,
                         const uint8_t *b_data, size_t blocks)
{
    (void)a, (void)a_data, (void)b, (void)b_data, (void)blocks;
}

#endif

/* The last bytes of a message with their padding: one or two blocks (FIPS 180-4, 5.1.1). */
static size_t pad(const uint8_t *data, size_t len, uint64_t total, uint8_t out[2 * BLOCK])
{
    size_t blocks = len + 9 <= BLOCK ? 1 : 2;
    if (len)
        memcpy(out, data, len);
    memset(out + len, 0, blocks * BLOCK - len);
    out[len] = 0x80;
    for (int i = 0; i < 8; i++)
        out[blocks * BLOCK - 1 - (size_t)i] = (uint8_t)(total * 8 >> (8 * i));
    return blocks;
}

static void put_digest(const uint32_t *state, uint8_t *out)
{
    for (int i = 0; i < 32; i++)
        out[i] = (uint8_t)(state[i / 4] >> (24 - 8 * (i % 4)));
}

sgz_status sgz_codec_hasher_init(sgz_hasher *h, const sgz_codecs *codecs, sgz_error *err)
{
    memset(h, 0, sizeof *h);
    h->codecs = codecs;
    memcpy(h->state, INITIAL, sizeof h->state);
    h->paired = have_instructions();
    if (h->paired)
        return SGZ_OK;
    sgz_status status = sgz_codec_sha256_new(codecs, &h->plain, err);
    if (!status)
        status = sgz_codec_sha256_new(codecs, &h->message, err);
    if (!status)
        sgz_codec_sha256_init(codecs, &h->plain);
    return status;
}

void sgz_codec_hasher_free(sgz_hasher *h)
{
    if (!h->codecs)
        return;
    sgz_codec_sha256_free(h->codecs, &h->plain);
    sgz_codec_sha256_free(h->codecs, &h->message);
}

/* Blocks of a message, beside as many of the stream as it has left. */
static void beside(sgz_hasher *h, const uint8_t **stream, size_t *stream_blocks,
                   uint32_t *state, const uint8_t *data, size_t blocks)
{
    size_t both = blocks < *stream_blocks ? blocks : *stream_blocks;
    if (both)
        compress_two(h->state, *stream, state, data, both);
    if (blocks > both)
        compress_one(state, data + both * BLOCK, blocks - both);
    *stream += both * BLOCK;
    *stream_blocks -= both;
}

static void update_paired(sgz_hasher *h, const uint8_t *data, size_t len,
                          const sgz_message *messages, size_t count)
{
    size_t held = h->len % BLOCK;
    h->len += len;
    if (held) {
        size_t fill = BLOCK - held < len ? BLOCK - held : len;
        if (fill)
            memcpy(h->partial + held, data, fill);
        data += fill;
        len -= fill;
        if (held + fill == BLOCK)
            compress_one(h->state, h->partial, 1);
        else
            len = 0;
    }
    size_t blocks = len / BLOCK, rest = len % BLOCK;
    for (size_t i = 0; i < count; i++) {
        const sgz_message *m = &messages[i];
        uint8_t last[2 * BLOCK];
        uint32_t state[8];
        size_t whole = m->len / BLOCK;
        memcpy(state, INITIAL, sizeof state);
        beside(h, &data, &blocks, state, m->data, whole);
        beside(h, &data, &blocks, state, last,
               pad(m->data + whole * BLOCK, m->len % BLOCK, m->len, last));
        put_digest(state, m->digest);
    }
    if (blocks)
        compress_one(h->state, data, blocks);
    if (rest)
        memcpy(h->partial, data + blocks * BLOCK, rest);
}

void sgz_codec_hasher_update(sgz_hasher *h, const uint8_t *data, size_t len,
                             const sgz_message *messages, size_t count)
{
    if (h->paired) {
        update_paired(h, data, len, messages, count);
        return;
    }
    sgz_codec_sha256_update(h->codecs, &h->plain, data, len);
    for (size_t i = 0; i < count; i++) {
        sgz_codec_sha256_init(h->codecs, &h->message);
        sgz_codec_sha256_update(h->codecs, &h->message, messages[i].data, messages[i].len);
        sgz_codec_sha256_final(h->codecs, &h->message, messages[i].digest);
    }
}

/* Bring a stream to the end of a block, if the data is enough for that; how much it took. */
static size_t align(sgz_hasher *h, const uint8_t *data, size_t len)
{
    size_t fill = -h->len % BLOCK;
    fill = fill < len ? fill : len;
    sgz_codec_hasher_update(h, data, fill, NULL, 0);
    return fill;
}

size_t sgz_codec_hasher_beside(sgz_hasher *h, const uint8_t *data, size_t len, sgz_hasher *other,
                               const uint8_t *other_data, size_t other_len)
{
    size_t at = 0, other_at = 0;
    if (len && other_len && h->paired && other->paired) {
        at = align(h, data, len);
        other_at = align(other, other_data, other_len);
        size_t blocks = (len - at) / BLOCK, other_blocks = (other_len - other_at) / BLOCK;
        blocks = blocks < other_blocks ? blocks : other_blocks;
        if (blocks && h->len % BLOCK == 0 && other->len % BLOCK == 0) {
            compress_two(h->state, data + at, other->state, other_data + other_at, blocks);
            h->len += blocks * BLOCK;
            other->len += blocks * BLOCK;
            at += blocks * BLOCK;
            other_at += blocks * BLOCK;
        }
    }
    sgz_codec_hasher_update(h, data + at, len - at, NULL, 0);
    return other_at;
}

void sgz_codec_hasher_final(sgz_hasher *h, uint8_t digest[32])
{
    if (!h->paired) {
        sgz_codec_sha256_final(h->codecs, &h->plain, digest);
        return;
    }
    uint8_t last[2 * BLOCK];
    size_t blocks = pad(h->partial, h->len % BLOCK, h->len, last);
    compress_one(h->state, last, blocks);
    put_digest(h->state, digest);
}

/* --- several streams -------------------------------------------------------------------- */

#define TURN ((size_t)256) /* blocks that two streams do until it is seen which are the longest */

static void begin_anew(sgz_hasher *h)
{
    memcpy(h->state, INITIAL, sizeof h->state);
    h->len = 0;
}

static const sgz_hash_piece *piece_of(const sgz_hash_stream *s)
{
    return &s->pieces[s->done];
}

static int is_ready(const sgz_hash_stream *s)
{
    return s->done < s->count &&
           (s->begun || !s->other || piece_of(s)->after <= s->other->done);
}

/* Up to the next blocks of a stream, or to a piece that waits for others. A piece has up to three
 * runs of them. */
static void advance(sgz_hash_stream *s)
{
    sgz_hasher *h = s->hasher;
    while (!s->blocks && is_ready(s)) {
        const sgz_hash_piece *piece = piece_of(s);
        size_t held = h->len % BLOCK;
        if (!s->begun) {
            s->rest = piece->data;
            s->rest_len = piece->len;
        }
        switch (s->begun++) {
        case 0: /* what is held, and the bytes that make it a block */
            if (!held)
                break;
            size_t fill = BLOCK - held < s->rest_len ? BLOCK - held : s->rest_len;
            if (fill)
                memcpy(h->partial + held, s->rest, fill);
            h->len += fill;
            s->rest += fill;
            s->rest_len -= fill;
            s->run = h->partial;
            s->blocks = held + fill == BLOCK;
            break;
        case 1:
            s->run = s->rest;
            s->blocks = s->rest_len / BLOCK;
            s->rest += s->blocks * BLOCK;
            s->rest_len -= s->blocks * BLOCK;
            h->len += s->blocks * BLOCK;
            break;
        case 2:
            if (s->rest_len)
                memcpy(h->partial, s->rest, s->rest_len);
            h->len += s->rest_len;
            if (piece->copy)
                *piece->copy = *h;
            if (piece->digest) {
                s->blocks = pad(h->partial, h->len % BLOCK, h->len, s->last);
                s->run = s->last;
            }
            break;
        default:
            if (piece->digest) {
                put_digest(h->state, piece->digest);
                begin_anew(h);
            }
            s->begun = 0;
            s->done++;
            break;
        }
    }
}

/* The two streams that have most to do, of those that can go on; NULL where there is none. */
static void pick(sgz_hash_stream *streams, size_t count, sgz_hash_stream *two[2])
{
    two[0] = two[1] = NULL;
    for (size_t i = 0; i < count; i++) {
        size_t done = streams[i].done;
        advance(&streams[i]);
        if (streams[i].done != done)
            i = (size_t)-1; /* others may have waited for that */
    }
    for (size_t i = 0; i < count; i++) {
        sgz_hash_stream *s = &streams[i];
        if (!s->blocks)
            continue;
        if (!two[0] || s->left > two[0]->left) {
            two[1] = two[0];
            two[0] = s;
        } else if (!two[1] || s->left > two[1]->left) {
            two[1] = s;
        }
    }
}

static void compressed(sgz_hash_stream *s, size_t blocks)
{
    s->run += blocks * BLOCK;
    s->blocks -= blocks;
    s->left -= blocks < s->left ? blocks : s->left;
}

/* The same by libcrypto: what another stream waits for comes first. */
static void one_after_the_other(sgz_hash_stream *streams, size_t count)
{
    for (size_t i = 0, idle = 0; idle < count; i = (i + 1) % count, idle++) {
        for (sgz_hash_stream *s = &streams[i]; is_ready(s); s->done++, idle = 0) {
            const sgz_hash_piece *piece = piece_of(s);
            sgz_hasher *h = s->hasher;
            sgz_codec_sha256_update(h->codecs, &h->plain, piece->data, piece->len);
            if (piece->copy)
                sgz_codec_sha256_copy(h->codecs, &piece->copy->plain, &h->plain);
            if (piece->digest) {
                sgz_codec_sha256_final(h->codecs, &h->plain, piece->digest);
                sgz_codec_sha256_init(h->codecs, &h->plain);
            }
        }
    }
}

void sgz_codec_hasher_streams(sgz_hash_stream *streams, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        sgz_hash_stream *s = &streams[i];
        s->done = s->blocks = s->begun = 0;
        s->left = 0;
        for (size_t k = 0; k < s->count; k++)
            s->left += s->pieces[k].len / BLOCK + 1;
    }
    if (!count || !streams->hasher->paired) {
        one_after_the_other(streams, count);
        return;
    }
    sgz_hash_stream *two[2];
    for (pick(streams, count, two); two[0]; pick(streams, count, two)) {
        /* Not to the end of the longest: then none is alone at the end. */
        size_t n = two[0]->blocks < TURN ? two[0]->blocks : TURN;
        if (two[1]) {
            n = n < two[1]->blocks ? n : two[1]->blocks;
            compress_two(two[0]->hasher->state, two[0]->run, two[1]->hasher->state, two[1]->run, n);
            compressed(two[1], n);
        } else {
            compress_one(two[0]->hasher->state, two[0]->run, n);
        }
        compressed(two[0], n);
    }
}
