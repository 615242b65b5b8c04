/* The two lanes against libcrypto, and the path without the instructions: any lengths, fed
 * in any pieces. */
#include "codec/hasher.h"
#include "check.h"

#include <string.h>

enum { DATA = 40000, MESSAGES = 40, ROUNDS = 3000 };

static sgz_codecs codecs;
static uint8_t data[DATA];

static void expected(const uint8_t *in, size_t len, uint8_t out[32])
{
    sgz_sha256 sha;
    sgz_error err;
    CHECK(!sgz_codec_sha256_new(&codecs, &sha, &err));
    sgz_codec_sha256_init(&codecs, &sha);
    sgz_codec_sha256_update(&codecs, &sha, in, len);
    sgz_codec_sha256_final(&codecs, &sha, out);
    sgz_codec_sha256_free(&codecs, &sha);
}

/* As on a processor that has none for two lanes. */
static void without_instructions(sgz_hasher *h)
{
    sgz_error err;
    h->paired = 0;
    if (h->plain.ctx)
        return;
    CHECK(!sgz_codec_sha256_new(&codecs, &h->plain, &err));
    CHECK(!sgz_codec_sha256_new(&codecs, &h->message, &err));
    sgz_codec_sha256_init(&codecs, &h->plain);
}

static void one_round(int paired)
{
    sgz_message messages[MESSAGES];
    uint8_t digests[MESSAGES][32], digest[32], good[32];
    sgz_hasher h;
    sgz_error err;
    size_t len = below(2) ? below(DATA) : below(300), at = 0;
    CHECK(!sgz_codec_hasher_init(&h, &codecs, &err));
    if (!paired)
        without_instructions(&h);
    while (at < len) {
        size_t step = 1 + below((uint32_t)(len - at)), count = below(MESSAGES);
        for (size_t i = 0; i < count; i++) {
            size_t size = below(3) ? below(200) : below(3000);
            messages[i] = (sgz_message){data + below(DATA - 3000), size, digests[i]};
        }
        sgz_codec_hasher_update(&h, data + at, step, messages, count);
        for (size_t i = 0; i < count; i++) {
            expected(messages[i].data, messages[i].len, good);
            CHECK(!memcmp(good, digests[i], 32));
        }
        at += step;
    }
    sgz_codec_hasher_final(&h, digest);
    expected(data, len, good);
    CHECK(!memcmp(good, digest, 32));
    sgz_codec_hasher_free(&h);
}

/* Two streams, each fed in pieces of its own. */
static void two_streams(int paired)
{
    uint8_t digest[32], good[32];
    sgz_hasher h[2];
    sgz_error err;
    size_t len[2] = {below(2) ? below(DATA) : below(300), below(2) ? below(DATA) : below(300)};
    size_t at[2] = {0};
    for (int k = 0; k < 2; k++) {
        CHECK(!sgz_codec_hasher_init(&h[k], &codecs, &err));
        if (!paired && !k)
            without_instructions(&h[k]);
    }
    while (at[0] < len[0]) {
        size_t step = 1 + below((uint32_t)(len[0] - at[0]));
        size_t offered = below((uint32_t)(len[1] - at[1]) + 1);
        size_t taken = sgz_codec_hasher_beside(&h[0], data + at[0], step, &h[1], data + at[1],
                                               offered);
        CHECK(taken <= offered);
        at[0] += step;
        at[1] += taken;
    }
    sgz_codec_hasher_update(&h[1], data + at[1], len[1] - at[1], NULL, 0);
    for (int k = 0; k < 2; k++) {
        sgz_codec_hasher_final(&h[k], digest);
        expected(data, len[k], good);
        CHECK(!memcmp(good, digest, 32));
        sgz_codec_hasher_free(&h[k]);
    }
}

int main(void)
{
    sgz_error err;
    if (sgz_codec_load_crypto(&codecs, "libcrypto.so.3", &err)) {
        fprintf(stderr, "%s: install libssl3\n", err.message);
        return 1;
    }
    for (size_t i = 0; i < DATA; i++)
        data[i] = (uint8_t)below(256);
    for (int i = 0; i < ROUNDS; i++) {
        one_round(i % 2);
        two_streams(i % 2);
    }
    printf("%d passed, 0 failed\n", 2 * ROUNDS);
    return 0;
}
