/* io/spool.c: what was put is read again, from memory and from a file. */
#include "io/spool.h"

#include "check.h"

#include <string.h>

#define LEN (3 * SGZ_SPOOL_MEMORY + 12345)

static uint8_t data[LEN];

typedef struct {
    size_t at, len;
} progress;

static sgz_status compare(void *arg, const uint8_t *bytes, size_t len, sgz_error *err)
{
    progress *p = arg;
    (void)err;
    CHECK(p->at + len <= p->len && !memcmp(bytes, data + p->at, len));
    p->at += len;
    return SGZ_OK;
}

static void check_spool(size_t len, int is_file)
{
    sgz_error err;
    sgz_spool spool = {.dir = "/tmp", .fd = -1};
    progress p = {0, len};
    for (size_t at = 0, n; at < len; at += n) {
        n = 1 + below(300000);
        n = n < len - at ? n : len - at;
        CHECK(!sgz_io_spool_put(&spool, data + at, n, &err));
    }
    CHECK(spool.size == len && (spool.fd >= 0) == is_file && spool.cap <= 2 * SGZ_SPOOL_MEMORY);
    uint8_t kept[14];
    memcpy(kept, data, sizeof kept);
    memset(data, 7, sizeof kept);
    CHECK(!sgz_io_spool_patch(&spool, 0, data, sizeof kept, &err));
    for (int round = 0; round < 2; round++, p.at = 0)
        CHECK(!sgz_io_spool_read(&spool, compare, &p, &err) && p.at == len);
    memcpy(data, kept, sizeof kept);
    sgz_io_spool_free(&spool);
    CHECK(spool.fd == -1 && !spool.buf);
}

int main(void)
{
    sgz_error err;
    for (size_t i = 0; i < LEN; i++)
        data[i] = (uint8_t)below(256);
    check_spool(14, 0);
    check_spool(SGZ_SPOOL_MEMORY - 1, 0);
    check_spool(SGZ_SPOOL_MEMORY, 1);
    check_spool(LEN, 1);
    sgz_spool none = {.dir = "/dev/null/none", .fd = -1};
    CHECK(sgz_io_spool_put(&none, data, LEN, &err) == SGZ_EIO);
    CHECK(strstr(err.message, "temporary file"));
    sgz_io_spool_free(&none);
    return 0;
}
