/* The tar-split of a layer: all of its tar but the contents of files, in JSON lines, as one frame of
 * zstd. With the files, it gives the tar back (github.com/vbatts/tar-split). */
#ifndef SGZ_WRITE_SPLIT_H
#define SGZ_WRITE_SPLIT_H

#include <pthread.h>

#include "toc/kept.h"
#include "write/frame.h"
#include "write/slab.h"

typedef struct {
    const sgz_kept_rows *rows;
    pthread_mutex_t *lock;  /* of the rows */
    sgz_write_frame frame;
    int64_t left;           /* bytes of the file's contents that are still to come */
    uint64_t crc;           /* of those that came */
    uint32_t row;           /* of the file */
    int64_t file_size;
    uint64_t lines;
    int in_tail;            /* behind the archive's end */
    uint8_t *pending;       /* bytes of the tar that no line has yet */
    size_t pending_len, pending_cap;
    char *line;             /* to be compressed */
    size_t line_len, line_cap;
} sgz_write_split;

/* `dir` is where a temporary file would be. To be freed also when this fails. */
sgz_status sgz_write_split_init(sgz_write_split *s, const sgz_codecs *codecs, int level,
                                const char *dir, const sgz_kept_rows *rows, pthread_mutex_t *lock,
                                sgz_error *err);
void sgz_write_split_free(sgz_write_split *s);
/* The next slab. */
sgz_status sgz_write_split_slab(sgz_write_split *s, const sgz_write_slab *slab, sgz_error *err);
/* After the last one: the frame is complete, so long, with this sha256. */
sgz_status sgz_write_split_finish(sgz_write_split *s, int64_t *len, uint8_t digest[32],
                                  sgz_error *err);

#endif
