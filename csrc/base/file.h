/* Reads and writes of all that is wanted: what was interrupted or came short goes on.
 *
 * `at` is where in the file; -1: at the descriptor's position, as in a pipe. As in
 * base/beneath.h a failure is -errno. */
#ifndef SGZ_BASE_FILE_H
#define SGZ_BASE_FILE_H

#include <stddef.h>
#include <stdint.h>

/* 0, or -errno. */
int sgz_base_write_all(int fd, const void *data, size_t len, int64_t at);

/* How many bytes there were, fewer than `len` only where the file ends; or -errno. */
int64_t sgz_base_read_all(int fd, void *out, size_t len, int64_t at);

/* A file that is opened whenever it is read: one of many, which shall not take a descriptor each.
 * It is the same as long as nobody changed or replaced it. */
typedef struct {
    const char *path;
    uint64_t dev, ino;
    int64_t size, mtime_ns;
} sgz_base_named;

/* A descriptor to read it; or -errno, of which -ESTALE says that it is not the same any more. */
int sgz_base_open_named(const sgz_base_named *file);

#endif
