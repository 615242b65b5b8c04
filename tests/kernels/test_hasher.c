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

enum { STREAMS = 4, PIECES = 30 };

/* Streams of several messages; what a stream forks to another one is that one's beginning. */
static void many_streams(int paired)
{
    static sgz_hash_piece pieces[STREAMS][PIECES];
    static uint8_t digests[STREAMS][PIECES][32], buffer[DATA * 2];
    sgz_hasher h[STREAMS];
    sgz_hash_stream streams[STREAMS] = {0};
    sgz_error err;
    uint8_t good[32];
    size_t at[STREAMS] = {0}, count = 1 + below(STREAMS);
    for (size_t k = 0; k < STREAMS; k++) {
        CHECK(!sgz_codec_hasher_init(&h[k], &codecs, &err));
        if (!paired)
            without_instructions(&h[k]);
        streams[k].hasher = &h[k];
        streams[k].pieces = pieces[k];
    }
    for (int call = 0; call < 3; call++) { /* messages go on from one call to the next */
        memset(pieces, 0, sizeof pieces);
        for (size_t k = 0; k < count; k++) {
            streams[k].count = below(PIECES);
            for (size_t i = 0; i < streams[k].count; i++) {
                size_t len = below(3) ? below(200) : below(900);
                len = at[k] + len < DATA ? len : 0;
                pieces[k][i].data = data + at[k];
                pieces[k][i].len = len;
                at[k] += len;
                if (!below(3) || at[k] > DATA - 900 || (call == 2 && i + 1 == streams[k].count)) {
                    pieces[k][i].digest = digests[k][i];
                    at[k] = 0;
                }
            }
        }
        sgz_codec_hasher_streams(streams, count);
        for (size_t k = 0; k < count; k++)
            for (size_t i = 0; i < streams[k].count; i++)
                if (pieces[k][i].digest) {
                    expected(data, (size_t)(pieces[k][i].data - data) + pieces[k][i].len, good);
                    CHECK(!memcmp(good, digests[k][i], 32));
                }
    }
    for (size_t k = 0; k < STREAMS; k++)
        sgz_codec_hasher_free(&h[k]);

    /* Files of chunks: the second stream has the digests of the files, from their second chunk on. */
    sgz_hash_stream pair[2] = {{.hasher = &h[0], .pieces = pieces[0], .other = &pair[1]},
                               {.hasher = &h[1], .pieces = pieces[1], .other = &pair[0]}};
    size_t used = 0, after = 0;
    memcpy(buffer, data, DATA);
    memset(pieces, 0, sizeof pieces);
    for (int k = 0; k < 2; k++) {
        CHECK(!sgz_codec_hasher_init(&h[k], &codecs, &err));
        if (!paired)
            without_instructions(&h[k]);
    }
    struct { size_t start, len; } files[PIECES];
    size_t file_count = 0;
    while (pair[0].count < PIECES - 4 && pair[1].count < PIECES - 4) {
        size_t chunks = 1 + below(3);
        files[file_count].start = used;
        for (size_t i = 0; i < chunks; i++) {
            size_t n = pair[0].count++, len = below(300);
            pieces[0][n] = (sgz_hash_piece){buffer + used, len, digests[0][n], NULL, 0};
            if (!i && chunks > 1) {
                pieces[0][n].copy = &h[1];
                pieces[0][n].after = pair[1].count;
                after = pair[0].count;
            } else if (i) {
                pieces[1][pair[1].count++] = (sgz_hash_piece){
                    buffer + used, len, i + 1 == chunks ? digests[2][file_count] : NULL, NULL,
                    after};
            }
            used += len;
        }
        files[file_count].len = used - files[file_count].start;
        file_count += chunks > 1;
    }
    sgz_codec_hasher_streams(pair, 2);
    for (size_t i = 0; i < pair[0].count; i++) {
        expected(pieces[0][i].data, pieces[0][i].len, good);
        CHECK(!memcmp(good, digests[0][i], 32));
    }
    for (size_t i = 0; i < file_count; i++) {
        expected(buffer + files[i].start, files[i].len, good);
        CHECK(!memcmp(good, digests[2][i], 32));
    }
    for (int k = 0; k < 2; k++)
        sgz_codec_hasher_free(&h[k]);
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
        many_streams(i % 2);
    }
    printf("%d passed, 0 failed\n", 3 * ROUNDS);
    return 0;
}
