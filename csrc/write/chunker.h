/* Where containers/storage ends the chunks of a file: behind bytes that the rolling sum chooses
 * (codec/roll.h), and around runs of 1024 zeros and more. It sets no bounds, so that a file may be one
 * chunk, or have one for each byte; here there are two, so that memory and the TOC have one, too.
 *
 * No chunk is longer than `max`. At 4 MiB that is 64 times the mean: what the sum does not choose for
 * as long is no noise, but zeros or something as regular, and short when compressed.
 *
 * Behind SGZ_CHUNKER_FREE places that the sum chose, the next one counts only where the file has
 * SGZ_CHUNKER_LEAST bytes for each. Of noise one of 65,536 is chosen, so that this is out of reach;
 * there are data of which 63 of 64 are, where TOC and frames would take 200 times as much as they.
 *
 * Readers take any cut. Chunks that end elsewhere are only not found in a layer that another writer
 * made, and files whose digest is the same are found whatever their chunks are. */
#ifndef SGZ_WRITE_CHUNKER_H
#define SGZ_WRITE_CHUNKER_H

#include "codec/roll.h"

/* So many bytes behind a chunk of the largest size are needed to tell that it ends there. */
#define SGZ_CHUNKER_AHEAD 1024

#define SGZ_CHUNKER_FREE 4
#define SGZ_CHUNKER_LEAST 512

typedef struct {
    int64_t size;           /* of the file */
    int64_t max;            /* of a chunk */
    int64_t start;          /* of the next chunk */
    /* Private; all counted from the file's start. */
    int64_t searched;       /* no run of zeros begins before it that was not cut off already */
    int64_t block, scanned; /* what `bits` tell of */
    int64_t chosen;         /* places that the sum chose */
    int any;                /* of them are set */
    int in_run;             /* start is in a run of zeros */
    uint64_t bits[SGZ_ROLL_BLOCK / 64];
    uint8_t before[SGZ_ROLL_WINDOW]; /* the bytes before `scanned` */
} sgz_chunker;

/* Begin a file of `size` bytes, whose chunks have at most `max`. */
void sgz_write_chunker_begin(sgz_chunker *c, int64_t size, int64_t max);
/* The length of the next chunk, and whether it is of zeros: data[0..have) is the file from where the
 * last one ended. 0: more bytes are needed, or the file is at its end. max + SGZ_CHUNKER_AHEAD
 * bytes are always enough. */
size_t sgz_write_chunker_next(sgz_chunker *c, const uint8_t *data, size_t have, int *zeros);

#endif
