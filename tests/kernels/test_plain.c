/* Unwrapping under the sanitizers: members of any length, read in any steps, copied and hashed;
 * any damage ends in an error and never elsewhere. */
#include "io/plain.h"
#include "check.h"

#include <string.h>
#include <unistd.h>

enum { SIZE = 3 << 20, DAMAGES = 200 };

typedef struct { const uint8_t *data; size_t len, at, step; } memory;

static sgz_codecs codecs;
static uint8_t tar[SIZE], digest[32];
static uint8_t *packed;
static size_t packed_len;

static int64_t read_memory(void *arg, uint8_t *out, size_t cap)
{
    memory *m = arg;
    size_t n = m->len - m->at < cap ? m->len - m->at : cap;
    if (n > m->step)
        n = m->step;
    memcpy(out, m->data + m->at, n);
    m->at += n;
    return (int64_t)n;
}

static void pack(void)
{
    sgz_deflater deflater;
    sgz_error err;
    CHECK(!sgz_codec_deflater_init(&deflater, &codecs, 1, &err));
    CHECK(packed = malloc(2 * SIZE));
    for (size_t at = 0, len, made; at < SIZE; at += len) {
        len = 1 + below(300000);
        len = len < SIZE - at ? len : SIZE - at;
        CHECK(!sgz_codec_deflate_member(&deflater, tar + at, len, 0, packed + packed_len,
                                        2 * SIZE - packed_len, &made, &err));
        packed_len += made;
    }
    sgz_codec_deflater_free(&deflater);
}

static sgz_status unwrap(memory m, int sink, int64_t *size, uint8_t out[32])
{
    sgz_input input;
    sgz_hasher hasher;
    sgz_error err;
    sgz_source source = {.fd = -1, .read = read_memory, .arg = &m};
    uint8_t *buf = malloc(SGZ_PLAIN_BUF);
    int end = 0;
    CHECK(buf && !sgz_io_input_open(&input, &codecs, source, &err));
    CHECK(!sgz_codec_hasher_init(&hasher, &codecs, &err));
    sgz_status status = sgz_io_input_peek(&input, &err);
    if (!status)
        status = sgz_io_input_begin(&input, 0, &err);
    sgz_plain plain = {&input, &hasher, buf, sink, 0};
    while (!status && !end)
        status = sgz_io_plain_step(&plain, &end, &err);
    CHECK(!status || err.message[0]);
    sgz_codec_hasher_final(&hasher, out);
    *size = plain.size;
    sgz_io_input_close(&input);
    sgz_codec_hasher_free(&hasher);
    free(buf);
    return status;
}

int main(void)
{
    sgz_error err;
    uint8_t found[32];
    int64_t size;
    if (sgz_codec_load_crypto(&codecs, "libcrypto.so.3", &err) ||
        sgz_codec_load_isal(&codecs, "libisal.so.2", &err)) {
        fprintf(stderr, "%s: install libssl3 and libisal2\n", err.message);
        return 1;
    }
    for (size_t i = 0; i < SIZE; i++)
        tar[i] = (uint8_t)below(i / 1000 % 30 + 1);
    sgz_hasher h;
    CHECK(!sgz_codec_hasher_init(&h, &codecs, &err));
    sgz_codec_hasher_update(&h, tar, SIZE, NULL, 0);
    sgz_codec_hasher_final(&h, digest);
    sgz_codec_hasher_free(&h);
    pack();
    for (size_t step = 1000; step < 4 << 20; step = step * 3 + 1) {
        FILE *copy = tmpfile();
        CHECK(copy);
        CHECK(!unwrap((memory){packed, packed_len, 0, step}, fileno(copy), &size, found));
        CHECK(size == SIZE && !memcmp(found, digest, 32));
        CHECK(lseek(fileno(copy), 0, SEEK_END) == SIZE);
        fclose(copy);
        CHECK(!unwrap((memory){tar, SIZE, 0, step}, -1, &size, found));
        CHECK(size == SIZE && !memcmp(found, digest, 32));
    }
    CHECK(unwrap((memory){packed, packed_len - 1, 0, 5000}, -1, &size, found) == SGZ_EDATA);
    for (int i = 0; i < DAMAGES; i++) {
        size_t at = below((uint32_t)packed_len);
        uint8_t bit = (uint8_t)(1u << below(8));
        packed[at] ^= bit;
        if (!unwrap((memory){packed, packed_len, 0, 100000}, -1, &size, found))
            CHECK(size == SIZE && !memcmp(found, digest, 32));
        packed[at] ^= bit;
    }
    free(packed);
    printf("unwrapped %d bytes in every way, %d damages\n", SIZE, DAMAGES);
    return 0;
}
