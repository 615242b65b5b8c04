/* The table of chunks as the files of this room share it: table.c, want.c (who waits), ahead.c
 * (how far to read ahead), extent.c (where bytes are), fetch.c (which requests are made),
 * deliver.c (what comes back), decode.c, slow.c (what takes long to decode), pool.c (decoders that
 * wait to go on). */
#ifndef SGZ_CHUNKS_INTERNAL_H
#define SGZ_CHUNKS_INTERNAL_H

#include <pthread.h>

#include "base/vec.h"
#include "chunks/buffers.h"
#include "chunks/table.h"

/* Idle decoders, about 350 KB each; a thread that goes on where it decoded, or within what was read
 * of the blob, finds its own. */
#define SGZ_POOL 8
/* Places per layer at which reads go forward. */
#define SGZ_STREAMS 8
/* The largest request: four of these in flight fill 1 Gbit/s at a round trip of 250 ms; and how
 * many chunks it may be for, and what they may take decoded, beyond the first. */
#define SGZ_REQUEST_MAX ((int64_t)8 << 20)
#define SGZ_REQUEST_SPANS 4096
#define SGZ_REQUEST_DECODED ((int64_t)32 << 20)
/* Ranges to be read ahead; of more the oldest is forgotten. */
#define SGZ_AHEADS 64

typedef enum { SGZ_FLYING, SGZ_READY, SGZ_FAILED } sgz_chunks_state;

/* A chunk, or a window of a large one. In the table (listed) until evicted or failed, and in
 * memory as long as someone pins it. Everything but the bytes is read under the lock. */
typedef struct sgz_chunks_chunk {
    struct sgz_chunks_layer *layer;
    size_t span, len;
    uint32_t window, pins;
    uint8_t state, listed;
    uint8_t queued;           /* in the queue of wanted chunks */
    uint8_t slow;             /* flying, and left to sgz_chunks_slow */
    uint8_t left;             /* flying, and left to a pass */
    uint8_t unasked;          /* read ahead, and not wanted so far */
    uint8_t cold;             /* the first to be evicted */
    uint8_t spared;           /* was to be evicted once */
    uint8_t *data;
    sgz_error *error;         /* FAILED; NULL when there was no memory for it. FLYING: what was
                                 wrong with the bytes that came */
    sgz_chunks_want *waiters;
    int64_t reach;            /* of a queued one: how many bytes its request may have */
    struct sgz_chunks_chunk *chain;         /* other windows of the span */
    struct sgz_chunks_chunk *newer, *older; /* READY and not pinned: by last use */
    struct sgz_chunks_chunk *next;          /* in the queue, of those to fetch, that are slow or
                                               left to a pass */
} sgz_chunks_chunk;

/* A place at which reads go forward: spans [low, next) are there or on their way. */
typedef struct {
    size_t low, next;
    int64_t window;           /* bytes of its next request; 0: unused */
    int64_t used;             /* bytes that were read on the way */
    uint32_t file, files;     /* the last one, and how many there were */
    uint64_t tick;
} sgz_chunks_stream;

/* Of sgz_chunks_layer.marks; SGZ_ENTERED is of the first span of an entry point. */
enum { SGZ_TOUCHED = 1, SGZ_ON_DISK = 2, SGZ_ENTERED = 4 };

typedef struct sgz_chunks_layer {
    const sgz_spans *spans;
    const sgz_blob *blob;
    uint32_t number;
    int verify, direct;
    size_t count;             /* of spans: it ends after them, when they may be gone */
    sgz_chunks_chunk **heads; /* of each span what is in the table */
    uint8_t *marks;           /* of each span */
    uint32_t demanding;       /* requests under way for what is wanted */
    size_t prefetch_next, prefetch_last, background_next;
    size_t background_failed; /* the first span of the background request that failed last, */
    unsigned background_tries; /* and how many times in a row it did */
    sgz_chunks_stream streams[SGZ_STREAMS];
    uint64_t tick;
    /* Of a direct blob: the span behind what was read last, how many reads in a row went on
     * to the next span, and whether a thread decodes ahead of them. */
    size_t run_next;
    uint32_t run;
    uint8_t looking;
    uint8_t slow;             /* a slow chunk of it is being decoded */
} sgz_chunks_layer;

/* What a parked want holds on to, so that what has come is still there when the rest comes. */
typedef struct {
    sgz_chunks_chunk *on; /* NULL once woken */
    size_t count;
    sgz_chunks_chunk *chunks[];
} sgz_chunks_hold;

typedef struct sgz_chunks_active {
    sgz_chunks_job job;
    sgz_chunks_chunk **chunks; /* pinned */
    size_t count, cap;
    uint8_t counted;           /* in the statistics */
    uint8_t slow;              /* sgz_chunks_slow gave it out */
    struct sgz_chunks_active *next;
} sgz_chunks_active;

typedef struct {
    sgz_chunks_layer *layer;
    size_t first, last;
    int64_t step;             /* bytes of a request */
} sgz_chunks_range;

/* A thread that decodes from an entry point of a direct blob: what others want of that, further on,
 * is left to it. */
typedef struct sgz_chunks_pass {
    sgz_chunks_layer *layer;
    sgz_reader *reader;
    size_t next_span, last;   /* that it comes to; `last` is behind what the entry point has */
    int bounded;              /* it ends early if that takes long */
    sgz_chunks_chunk *left;   /* pinned */
    struct sgz_chunks_pass *next;
} sgz_chunks_pass;

/* An idle decoder, and the span from which on it could go on to the end of its entry point;
 * SGZ_NO_SPAN: nothing is to be gained by that. */
typedef struct {
    sgz_chunks_layer *layer;
    sgz_reader *reader;
    size_t rest;
} sgz_chunks_pooled;

struct sgz_chunks {
    const sgz_codecs *codecs;
    sgz_chunks_disk *store;
    size_t memory, used;
    sgz_chunks_spares spares;
    uint64_t unasked_bytes;   /* read ahead or to be, and not wanted so far */
    struct timespec alone;    /* the background waits until then, for a reader that goes forward */
    pthread_mutex_t lock;
    pthread_cond_t work;
    int stopped;
    sgz_base_stop ended;      /* the same, for decoders */
    unsigned kinds;
    sgz_chunks_layer **layers;
    uint32_t layer_count;
    size_t layer_cap;
    sgz_chunks_chunk by_use; /* head of the ring: newer is the oldest, older the newest */
    sgz_chunks_pooled pool[SGZ_POOL];
    int pooled;
    sgz_chunks_pass *passes;
    int finishing;            /* a thread decodes a rest */
    sgz_chunks_chunk *queue, **queue_end;
    sgz_chunks_chunk *slow, **slow_end;
    int has_slow;             /* some threads come to sgz_chunks_slow, again and again */
    sgz_chunks_range aheads[SGZ_AHEADS];
    unsigned ahead_count;
    sgz_chunks_active *active;
    uint32_t under_way[4];
    uint64_t ids;
    sgz_chunks_stats stats;
};

static inline const sgz_entry *sgz_chunks_span_entry(const sgz_chunks_layer *layer, size_t span)
{
    return &layer->spans->toc->rows[layer->spans->rows[span]];
}

/* Memory of a chunk's bytes; without the lock. */
uint8_t *sgz_chunks_data_new(sgz_chunks *chunks, const sgz_chunks_chunk *chunk);
void sgz_chunks_data_free(sgz_chunks *chunks, const sgz_chunks_chunk *chunk, uint8_t *data);

/* All of these with the lock held. */
sgz_chunks_chunk *sgz_chunks_find(const sgz_chunks_layer *layer, size_t span, uint32_t window);
/* A new one, flying and pinned; NULL: no memory. */
sgz_chunks_chunk *sgz_chunks_make(sgz_chunks_layer *layer, size_t span, uint32_t window);
void sgz_chunks_pin(sgz_chunks_chunk *chunk);
void sgz_chunks_unpin(sgz_chunks *chunks, sgz_chunks_chunk *chunk);
/* It is there (data becomes the chunk's), or failed. Both return who is to be woken, by
 * sgz_chunks_wake once the lock is let go. */
sgz_chunks_want *sgz_chunks_mark_ready(sgz_chunks *chunks, sgz_chunks_chunk *chunk,
                                       uint8_t *data);
sgz_chunks_want *sgz_chunks_mark_failed(sgz_chunks *chunks, sgz_chunks_chunk *chunk,
                                        const sgz_error *err);
void sgz_chunks_unlist(sgz_chunks *chunks, sgz_chunks_chunk *chunk);
void sgz_chunks_set_unasked(sgz_chunks *chunks, sgz_chunks_chunk *chunk, int unasked);

/* Blob offset of a span's entry point; of the one behind the last where they end. */
int64_t sgz_chunks_span_start(const sgz_chunks_layer *layer, size_t span);
/* Where the bytes that a chunk needs end. */
int64_t sgz_chunks_packed_end(const sgz_chunks_layer *layer, size_t span);
/* Whether a chunk is to be read in steps, in a request of its own. */
int sgz_chunks_alone(const sgz_chunks_layer *layer, size_t span);
/* The span up to which a request from `span` may go when it has `bytes`: at least one. */
size_t sgz_chunks_advance(const sgz_chunks_layer *layer, size_t span, size_t bound,
                          int64_t bytes);

/* Spans [first, last) were wanted, `missed` of them not being there: tells how far the request
 * may reach, and queues what is read ahead. */
int64_t sgz_chunks_ahead_seen(sgz_chunks *chunks, sgz_chunks_layer *layer, size_t first,
                              size_t last, int missed);

/* Spans [first, last) are to be read ahead, `step` bytes at a time. */
void sgz_chunks_add_ahead(sgz_chunks *chunks, sgz_chunks_layer *layer, size_t first, size_t last,
                          int64_t step);
/* Queue a pinned chunk to be fetched. */
void sgz_chunks_fetch_want(sgz_chunks *chunks, sgz_chunks_chunk *chunk);
/* Nothing but background requests is queued or under way. */
int sgz_chunks_fetch_idle(const sgz_chunks *chunks);

/* An idle decoder for the layer: one that can go on to the chunk or window without reading anything
 * twice if there is one; NULL: none. */
sgz_reader *sgz_chunks_take_reader(sgz_chunks *chunks, const sgz_chunks_layer *layer, size_t span,
                                   uint32_t window);
/* It is idle again. */
void sgz_chunks_give_reader(sgz_chunks *chunks, sgz_chunks_layer *layer, sgz_reader *reader,
                            size_t rest);
/* The one whose rest has waited longest becomes the caller's; 0: there is none. */
int sgz_chunks_take_rest(sgz_chunks *chunks, sgz_chunks_pooled *pooled);

/* Decode a pinned, flying chunk of a direct blob. One that fails is tried no more; one that takes
 * too long for the budget is put off, and one that another thread comes to is left to that: both go
 * on flying (SGZ_OK). Lets go of the lock meanwhile. */
sgz_status sgz_chunks_decode_direct(sgz_chunks *chunks, sgz_chunks_chunk *chunk, int64_t budget,
                                    sgz_error *err);
/* Go on with a decoder that stopped within what its entry point has, for whoever comes to read that:
 * by one thread at a time, as far as memory for what is read ahead allows. 0: there is none, or
 * another is at it. Lets go of the lock meanwhile. */
int sgz_chunks_finish(sgz_chunks *chunks);

/* How much a decoder may read and make before sgz_chunks_slow is to do it; 0: any number. */
int64_t sgz_chunks_budget(const sgz_chunks *chunks);
/* A flying chunk on which that was spent is left to it. */
void sgz_chunks_put_off(sgz_chunks *chunks, sgz_chunks_chunk *chunk);

/* These without the lock. */
sgz_reader *sgz_chunks_new_reader(sgz_chunks *chunks, const sgz_chunks_layer *layer,
                                  const sgz_blob *blob, sgz_error *err);
void sgz_chunks_free_reader(sgz_reader *reader);
/* Decode a pinned, flying chunk and wake who waits for it; one that fails goes on flying. */
sgz_status sgz_chunks_decode(sgz_chunks *chunks, sgz_reader *reader, sgz_chunks_chunk *chunk,
                             sgz_error *err);
void sgz_chunks_wake(sgz_chunks_want *wants);

#endif
