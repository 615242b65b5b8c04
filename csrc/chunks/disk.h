/* The disk cache: verified chunks, each a file named by the sha256 of its bytes.
 *
 * Any number of processes of one owner may use a folder at once: a chunk appears complete by
 * rename or not at all, and is hashed again when it is read, so that what a crash or a bad disk
 * left is found and removed. Size and eviction are stargz/cache.py's. */
#ifndef SGZ_CHUNKS_DISK_H
#define SGZ_CHUNKS_DISK_H

#include <stdatomic.h>

#include "codec/codecs.h"

typedef struct {
    int dir;                   /* descriptor of the folder; not owned */
    const sgz_codecs *codecs;
    _Atomic uint64_t added;    /* bytes written by this process */
    _Atomic uint64_t hits, misses;
} sgz_chunks_disk;

/* Read the chunk of this digest and length into out. *found is 0 when it is not there, cannot
 * be read, or was damaged (it is then removed): the chunk is to be had elsewhere. Only want of
 * memory is an error. Marks the file as recently used. */
sgz_status sgz_chunks_disk_get(sgz_chunks_disk *store, const uint8_t digest[32], uint8_t *out,
                               size_t len, int *found, sgz_error *err);
/* Whether it is there with that length, unread and unverified. */
int sgz_chunks_disk_has(sgz_chunks_disk *store, const uint8_t digest[32], int64_t len);
/* Keep a chunk whose bytes the caller has just checked against the digest, in place of whatever
 * has its name. A disk that is full or fails is no error: *kept is 0 then, and nothing is left
 * behind. */
sgz_status sgz_chunks_disk_put(sgz_chunks_disk *store, const uint8_t digest[32],
                               const uint8_t *data, size_t len, int *kept, sgz_error *err);

#endif
