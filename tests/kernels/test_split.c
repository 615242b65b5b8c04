/* write/split.c: its lines and the files give the tar back, however it is cut into slabs. */
#include "write/split.h"

#include "check.h"
#include "codec/crc64.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#define SLABS 40

static sgz_codecs codecs;
static size_t (*zstd_decompress)(void *, size_t, const void *, size_t);

typedef struct {
    uint8_t *data;
    size_t len;
} bytes;

static size_t from_base64(const char *text, uint8_t *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t len = 0;
    for (uint32_t v = 0, bits = 0; *text != '"' && *text != '='; text++) {
        v = v << 6 | (uint32_t)(strchr(digits, *text) - digits);
        bits += 6;
        if (bits >= 8)
            out[len++] = (uint8_t)(v >> (bits -= 8));
    }
    return len;
}

/* Put the tar together; contents are taken from it, as their check sums say that they are the same. */
static void check_lines(const char *lines, size_t len, const bytes *tar, size_t files)
{
    static uint8_t piece[4 << 20];
    size_t at = 0, position = 0, seen = 0;
    for (const char *line = lines; line < lines + len;) {
        const char *end = strchr(line, '\n'), *payload = strstr(line, "\"payload\":\"");
        char expected[48];
        snprintf(expected, sizeof expected, ",\"position\":%zu}", position++);
        CHECK(end && !strncmp(end - strlen(expected), expected, strlen(expected)));
        if (!strncmp(line, "{\"type\":2,", 10)) {
            CHECK(payload && payload < end);
            size_t n = from_base64(payload + 11, piece);
            CHECK(n && at + n <= tar->len && !memcmp(piece, tar->data + at, n));
            at += n;
        } else {
            char name[64];
            const char *size = strstr(line, ",\"size\":");
            snprintf(name, sizeof name, "{\"type\":1,\"name\":\"d/file \\u0022%zu\"", seen++);
            CHECK(!strncmp(line, name, strlen(name)));
            if (!size || size > end) {
                CHECK(strstr(line, "\"payload\":null") < end);
            } else {
                uint64_t n = strtoull(size + 8, NULL, 10), crc = 0;
                CHECK(from_base64(payload + 11, piece) == 8);
                for (int i = 0; i < 8; i++)
                    crc = crc << 8 | piece[i];
                CHECK(at + n <= tar->len && sgz_codec_crc64(0, tar->data + at, n) == crc);
                at += n;
            }
        }
        line = end + 1;
    }
    CHECK(at == tar->len && seen == files);
}

int main(void)
{
    sgz_error err;
    int64_t packed;
    uint8_t digest[32];
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    void *zstd = dlopen("libzstd.so.1", RTLD_NOW);
    CHECK(zstd && !sgz_codec_load_zstd(&codecs, "libzstd.so.1", &err));
    CHECK(!sgz_codec_load_crypto(&codecs, "libcrypto.so.3", &err));
    *(void **)&zstd_decompress = dlsym(zstd, "ZSTD_decompress");
    for (int round = 0; round < 8; round++) {
        sgz_toc *toc = sgz_toc_new();
        sgz_kept_rows rows = {.toc = toc};
        sgz_write_split split;
        bytes tar = {malloc(8 << 20), 0};
        sgz_write_mark marks[400];
        size_t files = below(300), count = 0;
        CHECK(toc && tar.data);
        for (size_t i = 0; i < files; i++) {
            char name[32];
            sgz_entry *row = sgz_toc_append(toc);
            row->name_len = (uint32_t)snprintf(name, sizeof name, "d/file \"%zu", i);
            row->name_off = sgz_toc_store(toc, name, row->name_len);
            tar.len += 512 * (1 + below(3));
            size_t size = below(3) ? below(3000) : below(20) ? 0 : below(200000);
            marks[count++] = (sgz_write_mark){tar.len, (uint32_t)i, (int64_t)size};
            tar.len += size + -size % 512;
        }
        tar.len += 1024;
        if (round & 1)
            marks[count++] = (sgz_write_mark){tar.len, SGZ_NO_ROW, 0};
        tar.len += round % 3 ? 0 : below(3 << 20);
        for (size_t i = 0; i < tar.len; i++)
            tar.data[i] = (uint8_t)below(256);
        CHECK(!sgz_write_split_init(&split, &codecs, 3, "/tmp", &rows, &lock, &err));
        /* Slabs end anywhere but in an entry's headers. */
        for (size_t at = 0, mark = 0; at < tar.len;) {
            size_t end = below(5) ? at + below((uint32_t)(tar.len / SLABS + 2)) : tar.len;
            end = end < tar.len ? end : tar.len;
            sgz_write_slab slab = {.buf = tar.data + at, .len = end - at, .marks = marks + mark};
            while (mark < count && marks[mark].at <= end) {
                marks[mark++].at -= at;
                slab.mark_count++;
            }
            CHECK(!sgz_write_split_slab(&split, &slab, &err));
            at = end;
        }
        CHECK(!sgz_write_split_finish(&split, &packed, digest, &err));
        size_t size = split.frame.size;
        char *lines = malloc(size + 1);
        CHECK(zstd_decompress(lines, size, split.frame.spool.buf, (size_t)packed) == size);
        lines[size] = '\0';
        check_lines(lines, size, &tar, files);
        sgz_write_split_free(&split);
        sgz_toc_free(toc);
        free(tar.data);
        free(lines);
    }
    return 0;
}
