/* write/chunker.c against the rule as containers/storage follows it, byte by byte, with its bounds. */
#include "write/chunker.h"

#include "check.h"

#include <string.h>

#define LEN (600 << 10)

typedef struct {
    size_t len;
    int zeros;
} chunk;

static size_t plain(const uint8_t *data, size_t size, size_t max, chunk *out)
{
    uint32_t s1 = 64 * 31, s2 = 64 * 63 * 31;
    uint8_t window[64] = {0};
    size_t count = 0, start = 0, chosen = 0;
    for (size_t i = 0; i < size;) {
        size_t zeros = 0;
        while (i + zeros < size && !data[i + zeros])
            zeros++;
        int run = zeros >= 1024;
        if (run && i > start)
            out[count++] = (chunk){i - start, 0};
        if (run)
            start = i;
        for (size_t end = i + (zeros ? zeros : 1); i < end; i++) {
            uint32_t old = window[i % 64];
            s1 += data[i] - old;
            s2 += s1 - 64 * (old + 31);
            window[i % 64] = data[i];
            int hit = !run && (s2 & 0xffff) == 0xffff &&
                      (chosen < SGZ_CHUNKER_FREE ||
                       i + 1 >= (chosen - SGZ_CHUNKER_FREE + 1) * SGZ_CHUNKER_LEAST);
            chosen += (size_t)hit;
            if (hit || i + 1 - start == max) {
                out[count++] = (chunk){i + 1 - start, run};
                start = i + 1;
            }
        }
        if (run && start < i)
            out[count++] = (chunk){i - start, 1};
        if (run)
            start = i;
    }
    if (start < size)
        out[count++] = (chunk){size - start, 0};
    return count;
}

/* Noise with runs of zeros, of which many are about as long as they must be, and of what hits; or
 * what hits at nearly each byte. */
static void fill(uint8_t *data, size_t size, int kind)
{
    for (size_t i = 0; i < size && kind == 4; i++)
        data[i] = i % 64 == 0 ? 32 : i % 64 == 1 ? 226 : 129;
    for (size_t i = 0; i < size && kind != 4; i++)
        data[i] = kind == 3 ? (uint8_t)(i % 7) : (uint8_t)below(kind == 2 ? 4 : 256);
    for (size_t i = 0; kind && i < size / (kind == 4 ? 2 : 1); i += below(kind == 1 ? 6000 : 40000)) {
        size_t n = below(4) ? 1015 + below(20) : below(4) ? below(3000) : below(200000);
        n = n < size - i ? n : size - i;
        memset(data + i, 0, n);
        i += n;
    }
}

int main(void)
{
    uint8_t *data = malloc(LEN);
    chunk *expected = malloc(LEN * sizeof *expected);
    size_t hits = 0, runs = 0, dense = 0;
    sgz_chunker c;
    CHECK(data && expected);
    for (int round = 0; round < 250; round++) {
        size_t size = below(round % 3 ? 20000 : LEN);
        size_t max = round % 4 ? 4 << 20 : 1024 + below(70000);
        int kind = round % 25 == 24 ? 4 : round % 5 < 4 ? round % 5 : 0;
        fill(data, size, kind);
        size_t count = plain(data, size, max, expected), at = 0, have = 0;
        sgz_write_chunker_begin(&c, (int64_t)size, (int64_t)max);
        for (size_t i = 0; i < count; i++) {
            int zeros;
            size_t len;
            /* Bytes come in pieces of any size, and what was told is not in the buffer any more. */
            while (!(len = sgz_write_chunker_next(&c, data + at, have - at, &zeros))) {
                CHECK(have < size && have - at < max + SGZ_CHUNKER_AHEAD);
                size_t n = 1 + below(round & 1 ? 300 : 50000);
                have += n < size - have ? n : size - have;
            }
            CHECK(len == expected[i].len && zeros == expected[i].zeros);
            at += len;
            hits += !zeros && len < max && at < size;
            runs += (size_t)zeros;
        }
        int zeros;
        dense += kind == 4 && count > size / 2000;
        CHECK(kind != 4 || count <= SGZ_CHUNKER_FREE + size / SGZ_CHUNKER_LEAST + size / 500 + 2);
        CHECK(at == size && !sgz_write_chunker_next(&c, data + at, 0, &zeros));
    }
    CHECK(hits > 500 && runs > 500 && dense > 5);
    free(data);
    free(expected);
    return 0;
}
