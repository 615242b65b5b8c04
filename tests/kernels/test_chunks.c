/* The table of chunks: right bytes, each fetched once, whatever threads and failures do. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "chunks/internal.h"
#include "layer.h"

typedef struct {
    sgz_chunks_want want; /* first: `ready` gets its address */
    pthread_mutex_t lock;
    pthread_cond_t cond;
    int woken;
} waiting;

static void ready(sgz_chunks_want *want)
{
    waiting *w = (waiting *)want;
    pthread_mutex_lock(&w->lock);
    w->woken = 1;
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->lock);
}

static void waiting_init(waiting *w)
{
    memset(w, 0, sizeof *w);
    w->want.ready = ready;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->cond, NULL);
}

/* Whoever is told that bytes came finds them counted. */
static sgz_chunks *counting;

static void ready_and_counted(sgz_chunks_want *want)
{
    sgz_chunks_stats stats;
    sgz_chunks_get_stats(counting, &stats);
    CHECK(stats.fetched_requests == 1 && stats.fetched_bytes > 0);
    ready(want);
}

static sgz_status read_through(sgz_chunks *c, waiting *w, uint8_t *out, sgz_error *err)
{
    for (;;) {
        int parked;
        w->woken = 0;
        sgz_status st = sgz_chunks_read(c, &w->want, out, &parked, err);
        if (!parked)
            return st;
        pthread_mutex_lock(&w->lock);
        while (!w->woken)
            pthread_cond_wait(&w->cond, &w->lock);
        pthread_mutex_unlock(&w->lock);
    }
}

typedef struct {
    sgz_chunks *chunks;
    const layer *layers;
    uint32_t count, seed;
    unsigned lowest;
    int reads;
    int faults;     /* one in so many requests fails, one in so many brings wrong bytes */
    uint64_t failed;
} thread_args;

static uint32_t mine(uint32_t *state, uint32_t limit)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state % limit;
}

/* What ends a request because the table is stopped, and never otherwise. */
static int is_the_end(sgz_chunks *c, sgz_status st)
{
    pthread_mutex_lock(&c->lock);
    int stopped = c->stopped;
    pthread_mutex_unlock(&c->lock);
    return st == SGZ_ECANCELLED && stopped;
}

static void *worker(void *arg)
{
    thread_args *a = arg;
    sgz_chunks_job job;
    sgz_error err;
    int got, later;
    while ((got = sgz_chunks_next(a->chunks, a->lowest, 50, &job)) >= 0) {
        if (!got)
            continue;
        const layer *l = &a->layers[job.layer];
        CHECK(job.offset >= 0 && job.size > 0 && job.offset + job.size <= (int64_t)l->len);
        uint8_t *bytes = malloc((size_t)job.size);
        memcpy(bytes, l->data + job.offset, (size_t)job.size);
        sgz_blob data = {.data = bytes, .base = job.offset, .fd = -1,
                         .size = job.offset + job.size};
        if (a->faults && !mine(&a->seed, (uint32_t)a->faults)) {
            sgz_base_fail_errno(&err, ECONNRESET, "cannot fetch", NULL, 0);
            sgz_chunks_fail(a->chunks, &job, &err);
        } else {
            size_t at = mine(&a->seed, (uint32_t)job.size);
            if (a->faults && !mine(&a->seed, (uint32_t)a->faults))
                bytes[at] ^= 0x40;
            sgz_status st = sgz_chunks_deliver(a->chunks, &job, &data, &later, &err);
            if (st) {
                CHECK(st == SGZ_EDIGEST || st == SGZ_EDATA || is_the_end(a->chunks, st));
                memcpy(bytes, l->data + job.offset, (size_t)job.size);
                st = sgz_chunks_deliver(a->chunks, &job, &data, &later, &err);
                CHECK(!st || is_the_end(a->chunks, st));
            }
        }
        free(bytes);
    }
    return NULL;
}

static void *reader(void *arg)
{
    thread_args *a = arg;
    waiting w;
    sgz_error err;
    waiting_init(&w);
    for (int i = 0; i < a->reads; i++) {
        uint32_t number = mine(&a->seed, a->count);
        const layer *l = &a->layers[number];
        uint32_t f = mine(&a->seed, l->files);
        size_t at = mine(&a->seed, (uint32_t)l->sizes[f]);
        size_t n = 1 + mine(&a->seed, (uint32_t)(l->sizes[f] - at));
        uint8_t *out = malloc(n);
        w.want.layer = number;
        w.want.file = l->rows[f];
        w.want.offset = (int64_t)at;
        w.want.size = n;
        if (!mine(&a->seed, 50))
            sgz_chunks_ahead(a->chunks, number, l->rows[f], 0, (int64_t)l->sizes[f]);
        if (!mine(&a->seed, 20)) { /* given up at once */
            int parked;
            w.woken = 0;
            sgz_chunks_read(a->chunks, &w.want, out, &parked, &err);
            if (parked && !sgz_chunks_cancel(a->chunks, &w.want)) {
                pthread_mutex_lock(&w.lock);
                while (!w.woken)
                    pthread_cond_wait(&w.cond, &w.lock);
                pthread_mutex_unlock(&w.lock);
            }
        } else {
            sgz_status st = read_through(a->chunks, &w, out, &err);
            CHECK(!st || (a->faults && st == SGZ_EIO && err.sys_errno == ECONNRESET));
            a->failed += st != SGZ_OK;
            CHECK(st || !memcmp(out, l->contents[f] + at, n));
            sgz_chunks_idle(a->chunks, number);
        }
        free(out);
    }
    return NULL;
}

/* Readers and workers over some layers; ends with the table stopped and freed. */
static sgz_chunks_stats run(const layer *layers, uint32_t count, size_t memory,
                            sgz_chunks_disk *store, unsigned kinds, int far, int reads,
                            int faults)
{
    enum { READERS = 4, WORKERS = 4 };
    pthread_t ids[READERS + WORKERS];
    thread_args args[READERS + WORKERS];
    sgz_blob blobs[4];
    sgz_chunks *c;
    sgz_error err;
    sgz_chunks_stats stats;
    CHECK(!sgz_chunks_new(&c, &codecs, memory, store, &err));
    sgz_chunks_unasked(c, kinds);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t number;
        blobs[i] = far ? far_blob(&layers[i]) : memory_blob(&layers[i]);
        CHECK(!sgz_chunks_add(c, &layers[i].spans, &blobs[i], 1, (int64_t)layers[i].len / 3,
                              &number, &err));
        CHECK(number == i);
    }
    for (int i = 0; i < READERS + WORKERS; i++) {
        args[i] = (thread_args){.chunks = c, .layers = layers, .count = count,
                                .seed = 77 + (uint32_t)i * 1001, .reads = reads,
                                .faults = faults, .lowest = (unsigned)(i % 4)};
        CHECK(!pthread_create(&ids[i], NULL, i < READERS ? reader : worker, &args[i]));
    }
    for (int i = 0; i < READERS; i++)
        pthread_join(ids[i], NULL);
    sgz_chunks_stop(c);
    for (int i = READERS; i < READERS + WORKERS; i++)
        pthread_join(ids[i], NULL);
    sgz_chunks_get_stats(c, &stats);
    sgz_chunks_free(c);
    return stats;
}

static void every_byte(const layer *l, sgz_chunks *c)
{
    waiting w;
    sgz_error err;
    waiting_init(&w);
    for (uint32_t f = 0; f < l->files; f++) {
        uint8_t *out = malloc(l->sizes[f]);
        w.want.file = l->rows[f];
        w.want.size = l->sizes[f];
        CHECK(!read_through(c, &w, out, &err));
        CHECK(!memcmp(out, l->contents[f], l->sizes[f]));
        free(out);
    }
}

static void local_blobs(void)
{
    for (int share = 1; share <= 40; share += 39)
        for (size_t memory = 0; memory <= 1 << 20; memory += 1 << 20) {
            layer l = make_layer(200, 6000, 1500, share, 7);
            sgz_blob blob = memory_blob(&l);
            sgz_chunks *c;
            sgz_error err;
            uint32_t number;
            CHECK(!sgz_chunks_new(&c, &codecs, memory, NULL, &err));
            CHECK(!sgz_chunks_add(c, &l.spans, &blob, 1, 0, &number, &err));
            every_byte(&l, c);
            sgz_chunks_free(c);
            free_layer(&l);
        }
}

/* However little memory there is: the chunk that was read last stays, the others go. */
static void little_memory(void)
{
    layer l = make_layer(1, 3000, 1, 4096, 0);
    sgz_blob blob = memory_blob(&l);
    sgz_chunks *c;
    sgz_error err;
    uint32_t number;
    CHECK(!sgz_chunks_new(&c, &codecs, 0, NULL, &err));
    CHECK(!sgz_chunks_add(c, &l.spans, &blob, 1, 0, &number, &err));
    every_byte(&l, c);
    sgz_chunks_chunk *last = sgz_chunks_find(c->layers[0], l.spans.count - 1, 0);
    CHECK(last && last->state == SGZ_READY && !last->pins);
    CHECK(c->by_use.newer == last && c->by_use.older == last);
    sgz_chunks_free(c);
    free_layer(&l);
}

/* Sizes that no blob has must not get as far as being counted in windows. */
static void impossible_chunk(void)
{
    sgz_toc *toc = sgz_toc_new();
    sgz_entry *e = sgz_toc_append(toc);
    sgz_spans spans;
    sgz_error err;
    e->type = SGZ_REG;
    e->size = e->chunk_size = (int64_t)1 << 59;
    CHECK(sgz_read_spans_init(&spans, toc, NULL, (int64_t)1 << 60, &err) == SGZ_ETOC);
    e = &toc->rows[0];
    e->size = e->chunk_size = SGZ_CHUNK_MAX;
    CHECK(!sgz_read_spans_init(&spans, toc, NULL, (int64_t)1 << 60, &err));
    sgz_read_spans_free(&spans);
    sgz_toc_free(toc);
}

/* What follows a few reads in order is decoded before it is wanted, and only then. */
static void decoding_ahead(void)
{
    layer l = make_layer(40, 6000, 8000, 1, 0);
    sgz_blob blob = memory_blob(&l);
    sgz_chunks *c;
    sgz_error err;
    uint32_t number;
    waiting w;
    uint8_t *out = malloc(8000);
    waiting_init(&w);
    CHECK(!sgz_chunks_new(&c, &codecs, 1 << 20, NULL, &err));
    CHECK(!sgz_chunks_add(c, &l.spans, &blob, 1, 0, &number, &err));
    for (uint32_t f = 0; f < 6; f++) {
        w.want.file = l.rows[f];
        w.want.size = l.sizes[f];
        CHECK(!read_through(c, &w, out, &err));
        sgz_chunks_idle(c, number);
        CHECK((sgz_chunks_find(c->layers[0], f + 1, 0) != NULL) == (f + 1 >= 3));
    }
    CHECK(sgz_chunks_find(c->layers[0], 39, 0)->state == SGZ_READY); /* the layer is small */
    w.want.file = l.rows[39];
    w.want.size = l.sizes[39];
    CHECK(!read_through(c, &w, out, &err) && !memcmp(out, l.contents[39], l.sizes[39]));
    sgz_chunks_free(c);

    /* Not when reads jump about. */
    CHECK(!sgz_chunks_new(&c, &codecs, 1 << 20, NULL, &err));
    CHECK(!sgz_chunks_add(c, &l.spans, &blob, 1, 0, &number, &err));
    for (uint32_t f = 0; f < 40; f += 2) {
        w.want.file = l.rows[f];
        w.want.size = l.sizes[f];
        CHECK(!read_through(c, &w, out, &err));
        sgz_chunks_idle(c, number);
        CHECK(!sgz_chunks_find(c->layers[0], f + 1, 0));
    }
    sgz_chunks_free(c);
    free(out);
    free_layer(&l);
}

/* One thread asks, this one is the worker: the order of requests is known. */
static void requests_in_order(void)
{
    layer l = make_layer(400, 60000, 65536, 1, 0);
    sgz_blob blob = far_blob(&l), data = memory_blob(&l);
    sgz_chunks *c;
    sgz_error err;
    uint32_t number;
    sgz_chunks_job job, other;
    waiting w;
    int parked, later;
    uint8_t *out = malloc(65536);
    waiting_init(&w);
    CHECK(!sgz_chunks_new(&c, &codecs, 64 << 20, NULL, &err));
    CHECK(!sgz_chunks_add(c, &l.spans, &blob, 1, 0, &number, &err));
    CHECK(!sgz_chunks_next(c, SGZ_BACKGROUND, 0, &job));

    int64_t largest = 0, ahead = 0;
    int requests = 0;
    for (uint32_t f = 0; f < l.files; f++) {
        w.want.file = l.rows[f];
        w.want.size = l.sizes[f];
        w.woken = 0;
        CHECK(!sgz_chunks_read(c, &w.want, out, &parked, &err));
        while (sgz_chunks_next(c, SGZ_AHEAD, 0, &job) > 0) {
            if (!requests)
                CHECK(job.size < 192 << 10);
            requests++;
            largest = job.size > largest ? job.size : largest;
            ahead += job.priority == SGZ_AHEAD;
            CHECK(!sgz_chunks_deliver(c, &job, &data, &later, &err));
        }
        CHECK(w.woken == parked);
        if (parked)
            CHECK(!sgz_chunks_read(c, &w.want, out, &parked, &err) && !parked);
        CHECK(!memcmp(out, l.contents[f], l.sizes[f]));
    }
    sgz_chunks_stats stats;
    sgz_chunks_get_stats(c, &stats);
    CHECK(largest >= 1 << 20 && ahead >= 2 && requests < 20);
    CHECK(stats.fetched_bytes <= l.len + (uint64_t)(requests << 10));
    CHECK(stats.read_bytes == stats.touched_bytes && stats.fetched_requests == (uint64_t)requests);
    sgz_chunks_free(c);

    /* What two ask for is fetched once; what nobody waits for any more is not fetched. */
    CHECK(!sgz_chunks_new(&c, &codecs, 64 << 20, NULL, &err));
    CHECK(!sgz_chunks_add(c, &l.spans, &blob, 1, 0, &number, &err));
    sgz_chunks_unasked(c, 0);
    waiting second;
    waiting_init(&second);
    second.want.file = w.want.file = l.rows[5];
    second.want.size = w.want.size = 1;
    CHECK(!sgz_chunks_read(c, &w.want, out, &parked, &err) && parked);
    CHECK(!sgz_chunks_read(c, &second.want, out, &parked, &err) && parked);
    CHECK(sgz_chunks_next(c, SGZ_DEMAND, 0, &job) == 1 && job.last == job.first + 1);
    CHECK(sgz_chunks_next(c, SGZ_BACKGROUND, 0, &other) == 0);
    CHECK(sgz_chunks_cancel(c, &second.want) == 1);
    sgz_base_fail_errno(&err, EIO, "gone", NULL, 0);
    w.woken = second.woken = 0;
    sgz_chunks_fail(c, &job, &err);
    CHECK(w.woken && !second.woken && w.want.error.code == SGZ_EIO);
    CHECK(sgz_chunks_read(c, &w.want, out, &parked, &err) == SGZ_EIO && !parked);
    /* It is forgotten: asked anew, and given up before any worker came. */
    CHECK(!sgz_chunks_read(c, &w.want, out, &parked, &err) && parked);
    CHECK(sgz_chunks_cancel(c, &w.want) == 1);
    CHECK(sgz_chunks_next(c, SGZ_DEMAND, 0, &job) == 0);
    /* Stopping wakes who waits, and later ones. */
    CHECK(!sgz_chunks_read(c, &w.want, out, &parked, &err) && parked);
    w.woken = 0;
    sgz_chunks_stop(c);
    CHECK(w.woken && sgz_chunks_next(c, SGZ_DEMAND, 1000, &job) == -1);
    CHECK(sgz_chunks_read(c, &w.want, out, &parked, &err) == SGZ_ECANCELLED && !parked);
    sgz_chunks_free(c);
    free(out);
    free_layer(&l);
}

static void wrong_bytes(void)
{
    layer l = make_layer(20, 5000, 65536, 1, 0);
    sgz_blob blob = far_blob(&l), data = memory_blob(&l);
    sgz_chunks *c;
    sgz_error err;
    uint32_t number;
    sgz_chunks_job job;
    waiting w;
    int parked, later;
    uint8_t out[5000];
    waiting_init(&w);
    CHECK(!sgz_chunks_new(&c, &codecs, 1 << 20, NULL, &err));
    CHECK(!sgz_chunks_add(c, &l.spans, &blob, 1, 0, &number, &err));
    counting = c;
    w.want.ready = ready_and_counted;
    w.want.file = l.rows[3];
    w.want.size = l.sizes[3];
    CHECK(!sgz_chunks_read(c, &w.want, out, &parked, &err) && parked);
    CHECK(sgz_chunks_next(c, SGZ_DEMAND, 0, &job) == 1 && job.last > job.first + 1);
    int64_t middle = l.toc->rows[l.spans.rows[job.first]].offset + 30;
    l.data[middle] ^= 1;
    sgz_status st = sgz_chunks_deliver(c, &job, &data, &later, &err);
    CHECK(st == SGZ_EDIGEST || st == SGZ_EDATA);
    CHECK(!w.woken);
    l.data[middle] ^= 1;
    CHECK(!sgz_chunks_deliver(c, &job, &data, &later, &err) && w.woken);
    CHECK(!sgz_chunks_read(c, &w.want, out, &parked, &err) && !parked);
    CHECK(!memcmp(out, l.contents[3], l.sizes[3]));
    sgz_chunks_free(c);
    free_layer(&l);
}

static void remove_folder(const char *path)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", path);
    CHECK(!system(command));
}

static void background(void)
{
    char path[] = "/tmp/stargz-chunks-XXXXXX";
    CHECK(mkdtemp(path));
    sgz_chunks_disk store = {.dir = open(path, O_RDONLY | O_DIRECTORY), .codecs = &codecs};
    layer l = make_layer(300, 30000, 65536, 1, 10);
    sgz_blob blob = far_blob(&l), data = memory_blob(&l);
    sgz_error err;
    sgz_chunks_job job;
    waiting w;
    int parked, later;
    uint32_t number;
    uint64_t fetched = 0;
    uint8_t *out = malloc(30000);
    waiting_init(&w);
    for (int round = 0; round < 2; round++) {
        sgz_chunks *c;
        CHECK(!sgz_chunks_new(&c, &codecs, 64 << 10, &store, &err));
        CHECK(!sgz_chunks_add(c, &l.spans, &blob, 1, (int64_t)l.len / 4, &number, &err));
        CHECK(!sgz_chunks_next(c, SGZ_BACKGROUND, 0, &job)); /* off unless asked for */
        sgz_chunks_unasked(c, 1 << SGZ_AHEAD | 1 << SGZ_PREFETCH | 1 << SGZ_BACKGROUND);
        unsigned last = 0;
        int asked = 0;
        while (sgz_chunks_next(c, SGZ_BACKGROUND, 0, &job) > 0) {
            CHECK(!round && job.priority >= last && job.size <= 5 << 20);
            last = job.priority;
            if (job.priority == SGZ_BACKGROUND && !asked) {
                /* Something is wanted: the next background request waits for it. */
                sgz_chunks_job more;
                asked = 1;
                w.want.file = l.rows[299];
                w.want.size = 1;
                CHECK(!sgz_chunks_read(c, &w.want, out, &parked, &err) && parked);
                CHECK(sgz_chunks_next(c, SGZ_BACKGROUND, 0, &more) == 1 && !more.priority);
                CHECK(sgz_chunks_next(c, SGZ_BACKGROUND, 0, &(sgz_chunks_job){0}) == 0);
                CHECK(!sgz_chunks_deliver(c, &more, &data, &later, &err));
                CHECK(!sgz_chunks_read(c, &w.want, out, &parked, &err) && !parked);
            }
            CHECK(!sgz_chunks_deliver(c, &job, &data, &later, &err));
        }
        CHECK(round || asked);
        sgz_chunks_stats stats;
        sgz_chunks_get_stats(c, &stats);
        fetched += stats.fetched_bytes;
        /* All that has a digest comes from the disk now. */
        for (uint32_t f = 1; f < l.files; f += 10) {
            w.want.file = l.rows[f];
            w.want.size = l.sizes[f];
            CHECK(!sgz_chunks_read(c, &w.want, out, &parked, &err) && !parked);
            CHECK(!memcmp(out, l.contents[f], l.sizes[f]));
        }
        sgz_chunks_free(c);
    }
    CHECK(fetched >= l.len * 7 / 10 && fetched <= l.len * 11 / 10);
    free(out);
    free_layer(&l);
    close(store.dir);
    remove_folder(path);
}

int main(void)
{
    load_codecs();
    local_blobs();
    little_memory();
    impossible_chunk();
    decoding_ahead();
    requests_in_order();
    wrong_bytes();
    background();
    layer layers[2] = {make_layer(150, 40000, 9000, 1, 9), make_layer(300, 4000, 2000, 50, 0)};
    run(layers, 2, 300 << 10, NULL, 1 << SGZ_AHEAD, 0, 1500, 0);
    run(layers, 2, 0, NULL, 1 << SGZ_AHEAD, 0, 300, 0);
    sgz_chunks_stats stats = run(layers, 2, 64 << 20, NULL, 1 << SGZ_AHEAD, 1, 1500, 0);
    uint64_t all = layers[0].len + layers[1].len;
    CHECK(stats.fetched_bytes <= all + all / 2); /* in memory: nothing is fetched twice but gaps */
    run(layers, 2, 100 << 10, NULL, 1 << SGZ_AHEAD, 1, 1500, 30);
    run(layers, 2, 0, NULL, 0, 1, 300, 30);
    char path[] = "/tmp/stargz-chunks-XXXXXX";
    CHECK(mkdtemp(path));
    sgz_chunks_disk store = {.dir = open(path, O_RDONLY | O_DIRECTORY), .codecs = &codecs};
    unsigned every = 1 << SGZ_AHEAD | 1 << SGZ_PREFETCH | 1 << SGZ_BACKGROUND;
    run(layers, 2, 200 << 10, &store, every, 1, 1500, 30);
    close(store.dir);
    remove_folder(path);
    free_layer(&layers[0]);
    free_layer(&layers[1]);
    return 0;
}
