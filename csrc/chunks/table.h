/* Decoded chunks of any number of layers: held in memory, kept in the disk cache, decoded from
 * a local blob, or fetched by workers (threads of the caller's) from where the blob is.
 *
 * Every chunk is in the table at most once, whoever wants it: what is being decoded or fetched
 * is waited for, never done twice. A want that cannot be met at once is parked, and its owner
 * told when to try again; no thread waits in here but the workers, in sgz_chunks_next and
 * sgz_chunks_slow.
 *
 * Chunks of more than SGZ_WINDOW bytes are held by windows of that size, so that memory is
 * bounded whatever a layer's chunk size is. */
#ifndef SGZ_CHUNKS_TABLE_H
#define SGZ_CHUNKS_TABLE_H

#include "read/chunk.h"
#include "chunks/disk.h"

typedef struct sgz_chunks sgz_chunks;

/* `memory` is how many bytes of decoded chunks to hold on to; `store` may be NULL. */
sgz_status sgz_chunks_new(sgz_chunks **chunks, const sgz_codecs *codecs, size_t memory,
                          sgz_chunks_disk *store, sgz_error *err);
/* All parked wants are woken with SGZ_ECANCELLED, and so are later ones; workers get -1, and
 * SGZ_ECANCELLED for what they deliver meanwhile and was not decoded yet. */
void sgz_chunks_stop(sgz_chunks *chunks);
/* Only once no thread uses it; the layers may be gone by then. */
void sgz_chunks_free(sgz_chunks *chunks);

/* Add a layer; what it points to is there for as long as the table is used. A blob with a
 * descriptor or memory is decoded by the thread that wants a chunk; any other is fetched.
 * [0, prefetch_end) of the blob holds the prioritized files. *layer numbers the layers from 0
 * up. */
sgz_status sgz_chunks_add(sgz_chunks *chunks, const sgz_spans *spans, const sgz_blob *blob,
                          int verify, int64_t prefetch_end, uint32_t *layer, sgz_error *err);

/* --- reading -------------------------------------------------------------------------- */

typedef struct sgz_chunks_want {
    uint32_t layer, file;      /* the row of a regular file */
    int64_t offset;            /* the caller clamps to the file's size */
    size_t size;
    void (*ready)(struct sgz_chunks_want *want); /* from any thread, without locks */
    /* the table's own, zeroed by the caller before the first call: */
    struct sgz_chunks_want *next;
    void *parked_on;
    sgz_error error;           /* of the chunk it was parked on, code SGZ_OK if none */
} sgz_chunks_want;

/* Copy the bytes to `out`. *parked is 1 when some of them must be fetched, or are on their way:
 * `ready` will then be called once, and the caller calls this again with the same want (bytes
 * copied so far mean nothing). A failed fetch is the error of that second call, and is forgotten
 * by then: the next want tries anew. */
sgz_status sgz_chunks_read(sgz_chunks *chunks, sgz_chunks_want *want, uint8_t *out, int *parked,
                           sgz_error *err);
/* A thread that has nothing better to do may decode ahead of reads of a direct blob that go
 * forward, by the `layer` of the last one; it comes back soon. 1: others fetch or decode: one of
 * those in sgz_chunks_slow, or workers, for who waits or is read ahead for. */
int sgz_chunks_idle(sgz_chunks *chunks, uint32_t layer);
/* Give up a parked want. 1: `ready` will not be called; 0: it has been, or is about to be. What
 * a parked want needs stays in memory until it is read again or given up, so a woken one must be
 * too. One want is best at most some MiB: all of its chunks are held at once. */
int sgz_chunks_cancel(sgz_chunks *chunks, sgz_chunks_want *want);
/* The file will be read on from `offset`: fetch what follows, at low priority. */
void sgz_chunks_ahead(sgz_chunks *chunks, uint32_t layer, uint32_t file, int64_t offset,
                      int64_t size);

/* --- fetching ------------------------------------------------------------------------- */

enum { SGZ_DEMAND, SGZ_AHEAD, SGZ_PREFETCH, SGZ_BACKGROUND }; /* the first go first */

/* One request to where the blob is: bytes [offset, offset + size), which hold the chunks of
 * spans [first, last), each of which is wanted or worth having. */
typedef struct {
    uint32_t layer, priority;
    int64_t offset, size;
    size_t first, last;
    uint64_t id;
    int in_steps;              /* too many bytes to hold, or likely more than are needed: they are
                                  to be read as the decoder asks for them (a sgz_blob.read_at) */
} sgz_chunks_job;

/* What may be fetched without being wanted: bits 1 << SGZ_AHEAD (all there is before this is
 * called), SGZ_PREFETCH, SGZ_BACKGROUND. The last two need a disk cache, else they are left
 * out. */
void sgz_chunks_unasked(sgz_chunks *chunks, unsigned kinds);
/* The next request to make, of priority `lowest` or before; waits for it up to timeout_ms.
 * Background requests are given out only while nothing else is queued or under way, and no reader
 * goes forward. 1: *job;
 * 0: none yet; -1: stopped. Every job ends in one deliver that returns SGZ_OK, or in fail. */
int sgz_chunks_next(sgz_chunks *chunks, unsigned lowest, int timeout_ms, sgz_chunks_job *job);
/* Decode and check the job's chunks from `data`, which has the job's bytes, wake who waits,
 * and then keep them on disk. A chunk that fails is the error returned, and the job goes on
 * living: the caller fetches once more, or calls fail. *later is 1 when they take too long to
 * decode, and the job is sgz_chunks_slow's: as long as someone wants them. */
sgz_status sgz_chunks_deliver(sgz_chunks *chunks, const sgz_chunks_job *job,
                              const sgz_blob *data, int *later, sgz_error *err);
/* The chunks of the job that are still missing cannot be had. */
void sgz_chunks_fail(sgz_chunks *chunks, const sgz_chunks_job *job, const sgz_error *err);

/* --- what takes long -------------------------------------------------------------------- */

/* For some threads of the caller's, in a loop: decodes what takes long of direct blobs, and what
 * else an entry point has from which one of its chunks was read (one thread at a time, as far as
 * memory for what is read ahead allows), so that it is not entered for each of them; and gives out
 * requests whose chunks do, to be delivered once more. One chunk or request of a layer at a time:
 * no layer keeps all of these threads, and, once there are any, none of the others, which park
 * wants on such chunks. 1: *job; -1: stopped. */
int sgz_chunks_slow(sgz_chunks *chunks, sgz_chunks_job *job);

typedef struct {
    uint64_t fetched_bytes, fetched_requests; /* jobs whose bytes came */
    uint64_t read_bytes;       /* handed out */
    uint64_t touched_bytes;    /* decoded size of distinct chunks that were wanted */
    uint64_t disk_bytes;       /* served from the disk cache */
    uint64_t failures;
} sgz_chunks_stats;
void sgz_chunks_get_stats(sgz_chunks *chunks, sgz_chunks_stats *stats);

#endif
