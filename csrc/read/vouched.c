#include "read/vouched.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "base/vec.h"

/* How many refusals are kept in full. */
#define ERRORS 64

typedef struct {
    uint64_t key;
    uint8_t sum[32];
} piece;

typedef struct {
    int64_t offset, from, to;
    unsigned times;
    uint32_t next;  /* of this entry point; SGZ_MAP_NONE */
    sgz_error *err; /* NULL: of too many */
} refusal;

struct sgz_read_vouched {
    pthread_mutex_t lock;
    piece *pieces;
    size_t count, cap;
    sgz_map by_key;
    refusal *refusals;
    size_t refusal_count, refusal_cap, errors;
    sgz_map by_offset;
};

static uint64_t mix(uint64_t key)
{
    key = (key ^ key >> 31) * 0x9e3779b97f4a7c15u;
    return key ^ key >> 29;
}

/* A chunk has less than 2^24 windows (SGZ_CHUNK_MAX). */
static uint64_t key_of(size_t span, uint32_t window)
{
    return (uint64_t)span << 24 ^ window;
}

sgz_read_vouched *sgz_read_vouched_new(void)
{
    sgz_read_vouched *v = calloc(1, sizeof *v);
    if (v)
        pthread_mutex_init(&v->lock, NULL);
    return v;
}

void sgz_read_vouched_free(sgz_read_vouched *v)
{
    if (!v)
        return;
    for (size_t i = 0; i < v->refusal_count; i++)
        free(v->refusals[i].err);
    free(v->refusals);
    free(v->pieces);
    sgz_map_free(&v->by_key);
    sgz_map_free(&v->by_offset);
    pthread_mutex_destroy(&v->lock);
    free(v);
}

static size_t piece_slot(const sgz_read_vouched *v, uint64_t key)
{
    size_t at = sgz_map_first(&v->by_key, mix(key));
    while (sgz_map_taken(&v->by_key, at) && v->pieces[sgz_map_number(&v->by_key, at)].key != key)
        at = sgz_map_next(&v->by_key, mix(key), at);
    return at;
}

int sgz_read_vouched_get(sgz_read_vouched *v, size_t span, uint32_t window, uint8_t sum[32])
{
    pthread_mutex_lock(&v->lock);
    uint32_t number = sgz_map_number(&v->by_key, piece_slot(v, key_of(span, window)));
    if (number != SGZ_MAP_NONE)
        memcpy(sum, v->pieces[number].sum, 32);
    pthread_mutex_unlock(&v->lock);
    return number != SGZ_MAP_NONE;
}

void sgz_read_vouched_put(sgz_read_vouched *v, size_t span, uint32_t window,
                          const uint8_t sum[32])
{
    piece p = {.key = key_of(span, window)};
    memcpy(p.sum, sum, sizeof p.sum);
    pthread_mutex_lock(&v->lock);
    if (v->count < SGZ_MAP_NONE && sgz_map_reserve(&v->by_key, 1)) {
        size_t at = piece_slot(v, p.key);
        if (!sgz_map_taken(&v->by_key, at) && SGZ_PUSH(v->pieces, v->count, v->cap, p))
            sgz_map_put(&v->by_key, at, mix(p.key), (uint32_t)v->count - 1);
    }
    pthread_mutex_unlock(&v->lock);
}

static size_t refusal_slot(const sgz_read_vouched *v, int64_t offset)
{
    uint64_t hash = mix((uint64_t)offset);
    size_t at = sgz_map_first(&v->by_offset, hash);
    while (sgz_map_taken(&v->by_offset, at) &&
           v->refusals[sgz_map_number(&v->by_offset, at)].offset != offset)
        at = sgz_map_next(&v->by_offset, hash, at);
    return at;
}

void sgz_read_vouched_refuse(sgz_read_vouched *v, int64_t offset, int64_t from, int64_t to,
                             const sgz_error *err)
{
    pthread_mutex_lock(&v->lock);
    if (v->refusal_count < SGZ_MAP_NONE && sgz_map_reserve(&v->by_offset, 1)) {
        size_t at = refusal_slot(v, offset);
        uint32_t first = sgz_map_number(&v->by_offset, at), same = first;
        while (same != SGZ_MAP_NONE && v->refusals[same].from != from)
            same = v->refusals[same].next;
        if (same != SGZ_MAP_NONE) {
            refusal *r = &v->refusals[same];
            r->to = to > r->to ? to : r->to;
            r->times++;
        } else {
            refusal r = {.offset = offset, .from = from, .to = to, .times = 1, .next = first};
            if (v->errors < ERRORS && (r.err = malloc(sizeof *r.err))) {
                *r.err = *err;
                v->errors++;
            }
            if (SGZ_PUSH(v->refusals, v->refusal_count, v->refusal_cap, r))
                sgz_map_put(&v->by_offset, at, mix((uint64_t)offset),
                            (uint32_t)v->refusal_count - 1);
            else
                free(r.err);
        }
    }
    pthread_mutex_unlock(&v->lock);
}

int sgz_read_vouched_refused(sgz_read_vouched *v, int64_t offset, int64_t start, int64_t end,
                             unsigned times, sgz_error *err)
{
    pthread_mutex_lock(&v->lock);
    uint32_t number = sgz_map_number(&v->by_offset, refusal_slot(v, offset));
    const refusal *found = NULL;
    for (; number != SGZ_MAP_NONE && !found; number = v->refusals[number].next) {
        const refusal *r = &v->refusals[number];
        if (r->times >= times && start < r->to && end > r->from)
            found = r;
    }
    if (found && found->err)
        *err = *found->err;
    else if (found)
        sgz_base_fail(err, SGZ_EDATA, offset, NULL, 0, "what holds it did not decode before");
    pthread_mutex_unlock(&v->lock);
    return found != NULL;
}
