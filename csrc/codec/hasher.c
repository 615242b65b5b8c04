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

static void begin_anew(sgz_hasher *h)
{
    memcpy(h->state, INITIAL, sizeof h->state);
    h->len = 0;
}

/* What a lane does: a piece in up to three runs of blocks. */
typedef struct {
    sgz_hash_stream *stream;    /* NULL: nothing */
    enum { HEAD, BODY, TAIL, END } next;
    const uint8_t *run;         /* to be compressed now */
    size_t blocks;
    const uint8_t *rest;        /* of the piece, behind that */
    size_t rest_len;
    uint8_t last[2 * BLOCK];
} lane;

static const sgz_hash_piece *piece_of(const sgz_hash_stream *s)
{
    return &s->pieces[s->done];
}

static int is_ready(const sgz_hash_stream *s)
{
    return s->done < s->count && (!s->other || piece_of(s)->after <= s->other->done);
}

/* The stream with most to do that the other lane has not. */
static void pick(lane *l, const lane *other, sgz_hash_stream *streams, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (&streams[i] != other->stream && is_ready(&streams[i]) &&
            (!l->stream || streams[i].left > l->stream->left))
            l->stream = &streams[i];
    if (l->stream) {
        l->next = HEAD;
        l->rest = piece_of(l->stream)->data;
        l->rest_len = piece_of(l->stream)->len;
    }
}

/* Up to the next run of blocks, or the end of the piece. */
static void step(lane *l)
{
    while (l->stream && !l->blocks) {
        sgz_hash_stream *s = l->stream;
        sgz_hasher *h = s->hasher;
        const sgz_hash_piece *piece = piece_of(s);
        size_t held = h->len % BLOCK;
        switch (l->next++) {
        case HEAD: /* what is held, and the bytes that make it a block */
            if (!held)
                break;
            size_t fill = BLOCK - held < l->rest_len ? BLOCK - held : l->rest_len;
            if (fill)
                memcpy(h->partial + held, l->rest, fill);
            h->len += fill;
            l->rest += fill;
            l->rest_len -= fill;
            l->run = h->partial;
            l->blocks = held + fill == BLOCK;
            break;
        case BODY:
            l->run = l->rest;
            l->blocks = l->rest_len / BLOCK;
            l->rest += l->blocks * BLOCK;
            l->rest_len -= l->blocks * BLOCK;
            h->len += l->blocks * BLOCK;
            break;
        case TAIL:
            if (l->rest_len)
                memcpy(h->partial, l->rest, l->rest_len);
            h->len += l->rest_len;
            if (piece->copy)
                *piece->copy = *h;
            if (piece->digest) {
                l->blocks = pad(h->partial, h->len % BLOCK, h->len, l->last);
                l->run = l->last;
            }
            break;
        case END:
            if (piece->digest) {
                put_digest(h->state, piece->digest);
                begin_anew(h);
            }
            s->left -= piece->len;
            s->done++;
            l->stream = NULL;
            break;
        }
    }
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
    lane a = {0}, b = {0};
    for (size_t i = 0; i < count; i++) {
        streams[i].done = streams[i].left = 0;
        for (size_t k = 0; k < streams[i].count; k++)
            streams[i].left += streams[i].pieces[k].len;
    }
    if (!count || !streams->hasher->paired) {
        one_after_the_other(streams, count);
        return;
    }
    for (;;) {
        if (!a.stream)
            pick(&a, &b, streams, count);
        if (!b.stream)
            pick(&b, &a, streams, count);
        if (!a.stream && !b.stream)
            return;
        step(&a);
        step(&b);
        if (a.stream && b.stream) {
            size_t both = a.blocks < b.blocks ? a.blocks : b.blocks;
            compress_two(a.stream->hasher->state, a.run, b.stream->hasher->state, b.run, both);
            a.run += both * BLOCK;
            b.run += both * BLOCK;
            a.blocks -= both;
            b.blocks -= both;
            continue;
        }
        lane *one = a.stream ? &a : &b;
        pick(one == &a ? &b : &a, one, streams, count);
        if (a.stream && b.stream)
            continue;
        if (one->stream) {
            compress_one(one->stream->hasher->state, one->run, one->blocks);
            one->blocks = 0;
        }
    }
}
