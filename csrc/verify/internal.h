/* What the files of this room share: see verify/verify.h. */
#ifndef SGZ_VERIFY_INTERNAL_H
#define SGZ_VERIFY_INTERNAL_H

#include <stdlib.h>
#include <string.h>

#include "base/vec.h"
#include "read/chunk.h"
#include "tar/tar.h"
#include "verify/verify.h"
#include "verify/claimed_names.h"
#include "verify/split.h"

/* Decoded bytes stay in the L2 cache between inflate, CRC and the hashes. */
#define PIECE ((size_t)256 << 10)
#define RING 256                        /* batches claimed but not yet fed */

typedef struct {
    int64_t start, end;
    size_t first_span; /* those up to the next segment's */
} sgz_verify_segment;

/* A file of several chunks: its chunks are hashed in order, by whoever holds the next. */
typedef struct {
    uint32_t row;
    size_t first, last;
    atomic_size_t next;
    sgz_sha256 sha;
    int failed;
} sgz_verify_big;

typedef struct {
    size_t span;
    size_t len;
    int failed;
} sgz_verify_deferred;

/* Bytes of no chunk; those of one, where all are wanted in order; a chunk that went by; a break. */
enum { EVENT_GAP, EVENT_DATA, EVENT_SPAN, EVENT_BREAK };

typedef struct {
    int kind;
    size_t span;
    size_t len;        /* bytes */
    int64_t offset;    /* of the sgz_verify_segment; EVENT_SPAN: where its bytes end in the blob */
} sgz_verify_event;

typedef struct {
    size_t number;
    sgz_verify_event *events;
    size_t count, cap;
    uint8_t *held;
    size_t held_len, held_cap;
    int direct;        /* it is this batch's turn: bytes go straight to where they are wanted */
} sgz_verify_batch;

struct sgz_verify {
    sgz_verify_args args;
    const sgz_toc *toc;
    sgz_verify_segment *segments;
    size_t segment_count;
    sgz_verify_big *big;
    size_t big_count;

    sgz_base_job *job;
    int toc_claimed;                 /* with the job's lock, as what follows */
    size_t next_segment, next_batch; /* to claim */
    size_t next_fed;                 /* batch whose turn it is */
    int feeding;
    sgz_verify_batch *ring[RING];
    size_t held;                     /* bytes in the ring */
    /* What is done in order, by whose turn it is: */
    sgz_verify_names *tree;          /* either this */
    sgz_verify_split *split;         /* or that */
    sgz_verify_frame toc_frame, split_frame;
    sgz_sha256 whole;                /* of the tar; its ctx NULL: it is not hashed, or has gaps */

    atomic_int waiters;              /* for a file's turn */
    atomic_ullong bytes, chunks;
    sgz_verify_result result;
};

typedef struct {
    sgz_verify *v;
    sgz_decoder decoder;
    sgz_read_check check;
    uint8_t *piece;
    uint8_t *held;      /* bytes of deferred chunks */
    size_t held_len;
    sgz_verify_deferred *deferred;
    size_t deferred_count, deferred_cap;
    sgz_verify_batch *batch;
} sgz_verify_worker;

/* --- verify/verify.c: errors ------------------------------------------------------------------ */

/* Add to the list of errors; an sgz_verify_take_error. */
void sgz_verify_report(void *arg, const sgz_error *err);
/* Errors of the content are collected; others end the run. Returns the status if fatal. */
sgz_status sgz_verify_judge(sgz_verify *v, sgz_status st, const sgz_error *err);
sgz_status sgz_verify_no_memory(sgz_verify *v);
/* True when the digests are the same; reports otherwise. */
int sgz_verify_check(sgz_verify *v, const sgz_entry *file, int64_t offset,
                     const uint8_t *expected, const uint8_t *actual, const char *what);

/* --- verify/order.c: what happens in blob order ------------------------------------------ */

/* The big file of a span, or NULL. */
sgz_verify_big *sgz_verify_big_of(sgz_verify *v, size_t span);
/* Whether the bytes of this chunk are the next ones of its file's hash. */
static inline int sgz_verify_big_has_turn(const sgz_verify_big *f, size_t span)
{
    return atomic_load(&f->next) == span;
}
sgz_status sgz_verify_big_wait(sgz_verify *v, const sgz_verify_big *f, size_t span);
/* Hash bytes of the chunk whose turn it is, and go on to the next one. */
sgz_status sgz_verify_big_update(sgz_verify *v, sgz_verify_big *f, const uint8_t *data,
                                 size_t len);
void sgz_verify_big_advance(sgz_verify *v, sgz_verify_big *f, size_t span, int failed);
/* Hash what this worker held back, in order; waits for earlier chunks of those files, which
 * belong to batches claimed before this one. */
sgz_status sgz_verify_big_flush(sgz_verify_worker *w);

/* Note what comes next of the blob: bytes of no chunk, or of `span` where all are wanted. */
sgz_status sgz_verify_batch_bytes(sgz_verify_worker *w, int kind, size_t span,
                                  const uint8_t *data, size_t len, int64_t offset);
/* And a chunk that went by, or a break. */
sgz_status sgz_verify_batch_event(sgz_verify_worker *w, int kind, size_t span, int64_t offset);
/* Hand the worker's batch over to where the order is kept. */
void sgz_verify_batch_finish(sgz_verify_worker *w);
void sgz_verify_batch_free(sgz_verify_batch *b);

/* --- verify/segment.c --------------------------------------------------------------------- */

/* Decode one segment and check its chunks. Fails only when the run cannot go on. */
sgz_status sgz_verify_walk_segment(sgz_verify_worker *w, size_t number);

#endif
