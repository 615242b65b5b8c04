/* Shared by the parts of the pass: index/build.c (who does what when), index/build_take.c (what
 * becomes of decoded bytes). */
#ifndef SGZ_INDEX_BUILD_INTERNAL_H
#define SGZ_INDEX_BUILD_INTERNAL_H

#include "codec/hasher.h"
#include "index/build.h"
#include "tar/stream.h"
#include "toc/rows.h"

/* Bytes on their way between two stages. Positions count from the stream's beginning. */
typedef struct {
    uint8_t *buf;
    size_t cap;             /* a power of two */
} sgz_index_ring;

static inline uint8_t *sgz_index_ring_at(const sgz_index_ring *ring, int64_t pos)
{
    return ring->buf + ((size_t)pos & (ring->cap - 1));
}

/* How many of the `len` bytes from pos on lie in a row. */
static inline size_t sgz_index_ring_run(const sgz_index_ring *ring, int64_t pos, int64_t len)
{
    size_t run = ring->cap - ((size_t)pos & (ring->cap - 1));
    return (int64_t)run < len ? run : (size_t)len;
}

/* Pieces of a stream to be hashed, and whose digest each one's is. */
typedef struct {
    sgz_hasher hasher;
    sgz_hash_piece *pieces;
    uint64_t *whose;        /* SGZ_NOBODY, or: of chunks a row, of files a place in the arena, of spans
                               its number */
    size_t count, cap, whose_cap;
} sgz_index_digests;

#define SGZ_NOBODY UINT64_MAX

/* What takes decoded bytes, in order: rows, and digests of everything. */
typedef struct {
    const sgz_codecs *codecs;
    const sgz_index_build_options *options;
    sgz_index *index;
    sgz_toc_rows *rows;
    sgz_tar_stream tar;
    int64_t pos;            /* decoded bytes taken */
    sgz_points known;       /* all points up to there, and perhaps more; without windows */
    size_t point;           /* the next one that lies at pos or behind */
    int stored;             /* every offset is a point (but where there are spans all the same) */

    uint32_t file;          /* whose contents come; SGZ_NO_ROW: nobody's */
    int64_t size, done;     /* of it */
    const sgz_tar_run *runs; /* of data */
    size_t run_count, run_at;
    sgz_tar_run whole;      /* the one of a file without holes */
    sgz_tar_run *map;       /* those of one that has some */
    size_t map_cap;
    int64_t chunk_left;     /* of the open chunk; 0: none is open */
    uint32_t chunk;         /* its row */
    enum { FILE_PLAIN, FILE_HASHED, FILE_UNHASHED } digest; /* the file's: that of its chunk so far;
                               in `files`; not made */
    int64_t holes;          /* of all files so far */

    sgz_index_digests chunks, files;
    size_t after;           /* pieces of chunks that the next one of files waits for */
    sgz_hasher tar_sha, blob_sha;
    sgz_index_digests spans;    /* for SOCI */
    uint8_t (*span_digests)[32];
    size_t span_count, span_cap; /* that have begun */
    int64_t blob_pos;       /* bytes of the blob taken */
} sgz_index_taker;

/* With soci: what the decoder may take in beyond a point until it tells of it. */
#define SGZ_INDEX_HELD 512

sgz_status sgz_index_taker_init(sgz_index_taker *t, const sgz_codecs *codecs, sgz_wrap wrap,
                                const sgz_index_build_options *options, sgz_index *index,
                                sgz_error *err);
void sgz_index_taker_free(sgz_index_taker *t);
/* The next decoded bytes, before which all points are known; and the blob's next bytes, which the
 * decoder has behind it by SGZ_INDEX_HELD, or all (of a plain tar: none, they are the same). */
sgz_status sgz_index_take(sgz_index_taker *t, const uint8_t *data, size_t len,
                          const uint8_t *blob, size_t blob_len, sgz_error *err);
/* Nothing comes any more. points: those of the index, which get digests of spans. */
sgz_status sgz_index_take_end(sgz_index_taker *t, sgz_points *points, sgz_error *err);

#endif
