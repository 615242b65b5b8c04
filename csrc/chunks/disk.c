#include "chunks/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/file.h"

/* "ab/cdef...": 256 folders, so that none is slow to list; then the rest of the digest. */
#define NAME_LEN (2 + 1 + 62)
/* Eviction goes by the time of last use. Setting it costs about what the read of a small chunk
 * does, so a file used again within this time keeps the one it has. */
#define TOUCH_AFTER 300
#define TEMP_TRIES 16

static void name_of(const uint8_t digest[32], char name[NAME_LEN + 1])
{
    char *to = sgz_put_hex(name, digest, 1);
    *to++ = '/';
    *sgz_put_hex(to, digest + 1, 31) = 0;
}

sgz_status sgz_chunks_disk_get(sgz_chunks_disk *store, const uint8_t digest[32], uint8_t *out,
                               size_t len, int *found, sgz_error *err)
{
    char name[NAME_LEN + 1];
    struct stat info;
    *found = 0;
    name_of(digest, name);
    int fd = openat(store->dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    /* One of another length is left alone: it may be the TOC that is wrong. If it is the file,
     * the chunk that comes replaces it. */
    if (fd < 0 || fstat(fd, &info) || !S_ISREG(info.st_mode) || info.st_size < 0 ||
        (uint64_t)info.st_size != len) {
        if (fd >= 0)
            close(fd);
        atomic_fetch_add(&store->misses, 1);
        return SGZ_OK;
    }
    sgz_sha256 sha;
    sgz_status st = sgz_codec_sha256_new(store->codecs, &sha, err);
    if (st) {
        close(fd);
        return st;
    }
    int good = sgz_base_read_all(fd, out, len, -1) == (int64_t)len;
    if (good) {
        uint8_t actual[32];
        sgz_codec_sha256_init(store->codecs, &sha);
        sgz_codec_sha256_update(store->codecs, &sha, out, len);
        sgz_codec_sha256_final(store->codecs, &sha, actual);
        good = !memcmp(actual, digest, 32);
    }
    sgz_codec_sha256_free(store->codecs, &sha);
    if (good) {
        if (time(NULL) - info.st_mtime > TOUCH_AFTER)
            (void)!futimens(fd, NULL);
        *found = 1;
    } else {
        (void)!unlinkat(store->dir, name, 0);
    }
    close(fd);
    atomic_fetch_add(good ? &store->hits : &store->misses, 1);
    return SGZ_OK;
}

int sgz_chunks_disk_has(sgz_chunks_disk *store, const uint8_t digest[32], int64_t len)
{
    char name[NAME_LEN + 1];
    struct stat info;
    name_of(digest, name);
    return !fstatat(store->dir, name, &info, AT_SYMLINK_NOFOLLOW) && S_ISREG(info.st_mode) &&
           info.st_size == len;
}

/* A new file in the chunk's folder, which is made when it is not there. Names begin with
 * ".tmp-": stargz/cache.py removes old ones. */
static int temporary(const sgz_chunks_disk *store, const char *name, char temp[64])
{
    for (int i = 0; i < TEMP_TRIES; i++) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        snprintf(temp, 64, "%.2s/.tmp-%lx-%lx-%lx", name, (unsigned long)getpid(),
                 (unsigned long)(uintptr_t)pthread_self(),
                 (unsigned long)now.tv_sec * 1000000000ul + (unsigned long)now.tv_nsec);
        int fd = openat(store->dir, temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
                        0600);
        if (fd >= 0)
            return fd;
        if (errno == ENOENT) {
            char folder[3] = {name[0], name[1], 0};
            if (mkdirat(store->dir, folder, 0700) && errno != EEXIST)
                return -1;
        } else if (errno != EEXIST && errno != EINTR) {
            return -1;
        }
    }
    return -1;
}

sgz_status sgz_chunks_disk_put(sgz_chunks_disk *store, const uint8_t digest[32],
                               const uint8_t *data, size_t len, int *kept, sgz_error *err)
{
    char name[NAME_LEN + 1], temp[64];
    (void)err;
    *kept = 0;
    name_of(digest, name);
    int fd = temporary(store, name, temp);
    if (fd < 0)
        return SGZ_OK;
    /* No fsync: what a crash cuts short or leaves as zeros does not have its digest. */
    int good = !sgz_base_write_all(fd, data, len, -1);
    good = !close(fd) && good;
    if (good && !renameat(store->dir, temp, store->dir, name)) {
        atomic_fetch_add(&store->added, len);
        *kept = 1;
    } else {
        (void)!unlinkat(store->dir, temp, 0);
    }
    return SGZ_OK;
}
