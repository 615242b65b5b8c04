/* The disk cache's files: wrong bytes neither enter nor leave, whoever writes at once. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "layer.h"

static sgz_chunks_disk store;
static sgz_error err;

static void path_of(const uint8_t digest[32], char path[80])
{
    for (int i = 0, n = 0; i < 32; i++)
        n += sprintf(path + n, i ? "%02x" : "%02x/", digest[i]);
}

/* What get says of a chunk; its bytes are checked. */
static int there(const uint8_t digest[32], const uint8_t *data, size_t len)
{
    uint8_t *out = calloc(len + 1, 1);
    int found;
    CHECK(!sgz_chunks_disk_get(&store, digest, out, len, &found, &err));
    CHECK(!found || !memcmp(out, data, len));
    free(out);
    return found;
}

static void put(const uint8_t digest[32], const uint8_t *data, size_t len, int expected)
{
    int kept;
    CHECK(!sgz_chunks_disk_put(&store, digest, data, len, &kept, &err) && kept == expected);
}

static void overwrite(const char *path, const void *data, size_t len, int flags)
{
    int fd = openat(store.dir, path, O_WRONLY | O_CREAT | flags, 0600);
    CHECK(fd >= 0 && write(fd, data, len) == (ssize_t)len && !close(fd));
}

static void damage(void)
{
    uint8_t data[5000], digest[32];
    char path[80], link[90];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)below(256);
    sha256_of(data, sizeof data, digest);
    path_of(digest, path);
    CHECK(!there(digest, data, sizeof data) &&
          !sgz_chunks_disk_has(&store, digest, sizeof data));
    put(digest, data, sizeof data, 1);
    CHECK(there(digest, data, sizeof data) && sgz_chunks_disk_has(&store, digest, sizeof data));
    CHECK(store.added == sizeof data && store.hits == 1 && store.misses == 1);
    /* Another length is the TOC's fault: the chunk stays. */
    CHECK(!there(digest, data, sizeof data - 1) && there(digest, data, sizeof data));

    overwrite(path, "x", 1, 0); /* a flipped byte */
    CHECK(sgz_chunks_disk_has(&store, digest, sizeof data));
    CHECK(!there(digest, data, sizeof data));
    CHECK(!sgz_chunks_disk_has(&store, digest, sizeof data)); /* removed */
    put(digest, data, sizeof data, 1);
    overwrite(path, data, 100, O_TRUNC); /* cut short */
    CHECK(!there(digest, data, sizeof data) &&
          !sgz_chunks_disk_has(&store, digest, sizeof data));
    put(digest, data, sizeof data, 1);
    CHECK(there(digest, data, sizeof data));

    CHECK(!unlinkat(store.dir, path, 0)); /* a symlink to good bytes is not followed */
    overwrite("elsewhere", data, sizeof data, 0);
    sprintf(link, "../elsewhere");
    CHECK(!symlinkat(link, store.dir, path));
    CHECK(!there(digest, data, sizeof data) &&
          !sgz_chunks_disk_has(&store, digest, sizeof data));
    put(digest, data, sizeof data, 1);
    CHECK(there(digest, data, sizeof data));
    CHECK(!unlinkat(store.dir, path, 0)); /* a pipe, which must not block */
    CHECK(!mkfifoat(store.dir, path, 0600));
    CHECK(!there(digest, data, sizeof data));
    put(digest, data, sizeof data, 1);
    CHECK(!unlinkat(store.dir, path, 0)); /* a folder cannot be replaced: no harm */
    CHECK(!mkdirat(store.dir, path, 0700));
    CHECK(!there(digest, data, sizeof data));
    put(digest, data, sizeof data, 0);
    CHECK(!unlinkat(store.dir, path, AT_REMOVEDIR));

    /* Use is noted, once in a while. */
    put(digest, data, sizeof data, 1);
    struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    struct stat info;
    CHECK(!utimensat(store.dir, path, old, 0) && there(digest, data, sizeof data));
    CHECK(!fstatat(store.dir, path, &info, 0) && info.st_mtime > time(NULL) - 100);
    old[1].tv_sec = time(NULL) - 100;
    CHECK(!utimensat(store.dir, path, old, 0) && there(digest, data, sizeof data));
    CHECK(!fstatat(store.dir, path, &info, 0) && info.st_mtime == old[1].tv_sec);
    CHECK((info.st_mode & 0777) == 0600);
}

static void fails_quietly(void)
{
    uint8_t digest[32] = {0};
    sgz_chunks_disk none = {.dir = open("/dev/null", O_RDONLY), .codecs = &codecs};
    int found, kept;
    uint8_t byte;
    CHECK(!sgz_chunks_disk_get(&none, digest, &byte, 1, &found, &err) && !found);
    CHECK(!sgz_chunks_disk_put(&none, digest, &byte, 1, &kept, &err) && !kept);
    CHECK(!sgz_chunks_disk_has(&none, digest, 1));
    close(none.dir);
}

enum { CHUNKS = 60, LARGEST = 20000 };
static uint8_t chunks[CHUNKS][LARGEST], digests[CHUNKS][32];
static size_t sizes[CHUNKS];

static void *writer(void *arg)
{
    uint32_t seed = (uint32_t)(uintptr_t)arg;
    for (int n = 0; n < 1000; n++) {
        seed = seed * 1664525 + 1013904223;
        uint32_t i = (seed >> 8) % CHUNKS;
        char path[80];
        path_of(digests[i], path);
        if (seed >> 28 == 1)
            unlinkat(store.dir, path, 0);
        else if (seed >> 28 == 2) {
            int fd = openat(store.dir, path, O_WRONLY);
            if (fd >= 0)
                CHECK(pwrite(fd, "?", 1, (off_t)(seed % sizes[i])) == 1 && !close(fd));
        } else if (!there(digests[i], chunks[i], sizes[i])) {
            put(digests[i], chunks[i], sizes[i], 1);
        }
    }
    return NULL;
}

static void at_once(void)
{
    pthread_t ids[4];
    pid_t child;
    int status;
    for (int i = 0; i < CHUNKS; i++) {
        sizes[i] = 1 + below(LARGEST);
        for (size_t k = 0; k < sizes[i]; k++)
            chunks[i][k] = (uint8_t)below(256);
        sha256_of(chunks[i], sizes[i], digests[i]);
    }
    CHECK((child = fork()) >= 0);
    for (uintptr_t i = 0; i < 4; i++)
        CHECK(!pthread_create(&ids[i], NULL, writer, (void *)(i + (child ? 1 : 77))));
    for (int i = 0; i < 4; i++)
        pthread_join(ids[i], NULL);
    if (!child)
        _exit(0);
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && !WEXITSTATUS(status));
    CHECK(store.hits > 500);
}

int main(void)
{
    char path[] = "/tmp/stargz-store-XXXXXX", command[128];
    load_codecs();
    CHECK(mkdtemp(path));
    store.codecs = &codecs;
    store.dir = open(path, O_RDONLY | O_DIRECTORY);
    damage();
    fails_quietly();
    at_once();
    close(store.dir);
    snprintf(command, sizeof command, "test -z \"$(find %s -name '.tmp-*')\" && rm -rf %s", path,
             path);
    CHECK(!system(command));
    return 0;
}
