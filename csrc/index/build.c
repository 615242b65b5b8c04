/* The stages of the pass: bytes are read, decoded, taken apart and hashed, each in order, side by
 * side. Decoding is what takes longest, and cannot be divided: all else is made to fit beside it. */
#include "index/build_internal.h"

#include "base/buffer.h"
#include "base/vec.h"

#include <stdlib.h>
#include <string.h>

#define RAW_CAP ((size_t)4 << 20)
#define OUT_CAP ((size_t)8 << 20)
/* What a stage does at a time: in the caches still when the next one has it, and large enough for
 * its hand-over to cost nothing. */
#define READ_STEP ((size_t)512 << 10)
#define STEP ((size_t)1 << 20)
#define STEP_MIN ((size_t)256 << 10)

/* Spans of zstd frames that may be this long whatever was asked for. */
#define FRAMES_MAX ((int64_t)64 << 20)
/* As long may a tar be that is one frame: it is read whole then, whatever of it is asked for. */
#define ONE_FRAME_MAX ((int64_t)4 << 20)

typedef enum { SCAN, READ, TAKE } stage;

struct sgz_index_build {
    const sgz_codecs *codecs;
    sgz_index_build_options options;
    sgz_source source;
    sgz_base_job *job;
    sgz_wrap wrap;
    sgz_index index;
    sgz_index_taker taker;
    sgz_index_ring raw, out;

    /* The decoder's own. */
    sgz_input input;
    sgz_scanner *scanner;
    sgz_points *points;         /* the index's */
    int64_t fed, fed_to;        /* bytes of the source that the input got, and may get now */
    int fed_all, starved;       /* there are no more; it wanted more */
    int64_t decoded;
    uint64_t frames;
    int no_room;                /* for a point */
    size_t handed_on;           /* points that are in `fresh`, or were */

    /* With the job's lock. */
    int busy[TAKE + 1];
    int64_t read;               /* of the source, */
    int64_t used;               /* of these, decoded, */
    int64_t hashed;             /* and of these, hashed */
    int64_t made, settled, taken; /* decoded bytes; those before which all points are known; done */
    int read_end, scan_end, end;
    sgz_status read_status, scan_status; /* why they ended: told where the next stage comes to it */
    sgz_error read_err, scan_err;
    sgz_point *fresh;           /* for the taker */
    size_t fresh_count, fresh_cap;
};

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the index");
}

/* --- reading ---------------------------------------------------------------------------- */

/* `hashed` by then: what is behind it may be written over. */
static sgz_status read_some(sgz_index_build *c, int64_t hashed, size_t *got, sgz_error *err)
{
    size_t room = sgz_index_ring_run(&c->raw, c->read, (int64_t)RAW_CAP - (c->read - hashed));
    return sgz_io_source_read(&c->source, sgz_index_ring_at(&c->raw, c->read),
                              room < READ_STEP ? room : READ_STEP, got, NULL, err);
}

/* The input's source: what was read. */
static int64_t feed(void *arg, uint8_t *out, size_t cap)
{
    sgz_index_build *c = arg;
    if (c->fed == c->fed_to && !c->job) { /* the first bytes, before there are threads */
        size_t got;
        c->read_status = read_some(c, 0, &got, &c->read_err);
        if (c->read_status)
            return -1;
        c->read_end = c->fed_all = !got;
        c->fed_to = c->read += (int64_t)got;
    }
    if (c->fed == c->fed_to) {
        c->starved = !c->fed_all;
        return c->starved || c->read_status ? -1 : 0;
    }
    int64_t left = c->fed_to - c->fed;
    size_t n = sgz_index_ring_run(&c->raw, c->fed, left < (int64_t)cap ? left : (int64_t)cap);
    memcpy(out, sgz_index_ring_at(&c->raw, c->fed), n);
    c->fed += (int64_t)n;
    return (int64_t)n;
}

static sgz_status run_read(sgz_index_build *c, sgz_error *err)
{
    size_t got = 0;
    sgz_error failure;
    pthread_mutex_lock(&c->job->lock);
    int64_t hashed = c->hashed;
    pthread_mutex_unlock(&c->job->lock);
    sgz_status status = read_some(c, hashed, &got, &failure);
    pthread_mutex_lock(&c->job->lock);
    c->read += (int64_t)got;
    c->read_end = !got;
    if ((c->read_status = status))
        c->read_err = *err = failure;
    pthread_mutex_unlock(&c->job->lock);
    return status == SGZ_ECANCELLED ? status : SGZ_OK;
}

/* --- decoding, and finding points ------------------------------------------------------- */

static sgz_status add_point(sgz_index_build *c, const sgz_point *point, sgz_error *err)
{
    sgz_points *points = c->points;
    if (!SGZ_PUSH(points->at, points->count, points->cap, *point))
        return no_memory(err);
    return SGZ_OK;
}

static int64_t last_out(const sgz_index_build *c)
{
    return c->points->count ? c->points->at[c->points->count - 1].out : 0;
}

/* Of a gzip stream for SOCI: the scanner keeps nothing then. */
static sgz_status on_found(void *arg, const sgz_point *point, const uint8_t *window,
                           sgz_error *err)
{
    sgz_index_build *c = arg;
    sgz_status status = add_point(c, point, err);
    if (!status && c->options.on_point)
        status = c->options.on_point(c->options.arg, point, window, err);
    return status;
}

static void on_frame(void *arg, int64_t offset, size_t made)
{
    sgz_index_build *c = arg;
    sgz_point point = {.offset = offset, .out = c->decoded + (int64_t)made};
    if (!c->frames++ || point.out - last_out(c) > c->options.span_size)
        c->no_room |= add_point(c, &point, NULL) != SGZ_OK; /* told once the read is over */
}

static sgz_status check_frames(sgz_index_build *c, int end, sgz_error *err)
{
    int64_t span = c->options.span_size;
    int64_t limit = span > FRAMES_MAX / 2 ? 2 * span : FRAMES_MAX;
    if (end && c->frames == 1)
        limit = span > ONE_FRAME_MAX ? span : ONE_FRAME_MAX;
    if (c->no_room)
        return no_memory(err);
    if (c->decoded - last_out(c) <= limit)
        return SGZ_OK;
    return sgz_base_fail(err, SGZ_ENOTOC, c->points->count ? c->points->at[c->points->count - 1].offset
                                                           : 0,
                         NULL, 0,
                         "one zstd frame has no entry points: convert it (stargz convert; an "
                         "image: stargz image convert), or compress it in many frames");
}

/* A plain tar for SOCI. */
static sgz_status add_slices(sgz_index_build *c, sgz_error *err)
{
    sgz_status status = SGZ_OK;
    int64_t span = c->options.span_size;
    for (int64_t at; !status && (at = (int64_t)c->points->count * span) < c->decoded;)
        status = add_point(c, &(sgz_point){.offset = at, .out = at}, err);
    return status;
}

static sgz_status decode(sgz_index_build *c, size_t room, int *end, sgz_error *err)
{
    size_t got = 0;
    c->starved = 0;
    sgz_status status = sgz_io_input_read(&c->input, sgz_index_ring_at(&c->out, c->decoded), room,
                                          &got, err);
    c->decoded += (int64_t)got;
    if (status == SGZ_ECALLBACK && c->starved)
        status = SGZ_OK;
    else if (status == SGZ_ECALLBACK) {
        status = c->read_status;
        *err = c->read_err;
    } else
        *end = got < room;
    if (!status && c->wrap == SGZ_WRAP_ZSTD)
        status = check_frames(c, *end, err);
    else if (!status && c->wrap == SGZ_WRAP_NONE && c->options.soci)
        status = add_slices(c, err);
    *end = *end || status;
    return status;
}

static sgz_status run_scan(sgz_index_build *c, sgz_error *err)
{
    pthread_mutex_lock(&c->job->lock);
    size_t room = sgz_index_ring_run(&c->out, c->decoded, (int64_t)OUT_CAP - (c->made - c->taken));
    c->fed_to = c->read;
    c->fed_all = c->read_end;
    pthread_mutex_unlock(&c->job->lock);
    int end = 0;
    sgz_error failure;
    sgz_status status = decode(c, room < STEP ? room : STEP, &end, &failure);
    pthread_mutex_lock(&c->job->lock);
    for (; c->handed_on < c->points->count; c->handed_on++)
        if (!SGZ_PUSH(c->fresh, c->fresh_count, c->fresh_cap, c->points->at[c->handed_on])) {
            pthread_mutex_unlock(&c->job->lock);
            return no_memory(err);
        }
    c->made = c->decoded;
    c->used = sgz_io_input_used(&c->input);
    c->settled = c->made;
    if (c->scanner && !end && sgz_codec_scan_settled(c->scanner) < c->made)
        c->settled = sgz_codec_scan_settled(c->scanner);
    if (c->wrap == SGZ_WRAP_NONE)
        c->hashed = c->used; /* as decoded bytes */
    c->scan_end = end;
    if ((c->scan_status = status))
        c->scan_err = failure;
    c->job->done = c->used;
    pthread_mutex_unlock(&c->job->lock);
    return SGZ_OK;
}

/* --- taking it apart -------------------------------------------------------------------- */

/* What the other index says of sizes, if it does. */
static sgz_status check_wanted(const sgz_index_build *c, const sgz_points *wanted, sgz_error *err)
{
    if (wanted->size && wanted->size != c->used)
        return sgz_base_fail(err, SGZ_EINDEX, -1, NULL, 0,
                             "the index is of a file of %lld bytes, and this one has %lld",
                             (long long)wanted->size, (long long)c->used);
    if (wanted->end && wanted->end != c->made)
        return sgz_base_fail(err, SGZ_EINDEX, -1, NULL, 0,
                             "the index is of a file that decodes to %lld bytes, and not to %lld",
                             (long long)wanted->end, (long long)c->made);
    return SGZ_OK;
}

/* Bytes of the blob before which all points are known. */
static int64_t hashable(const sgz_index_build *c)
{
    int64_t held = c->options.soci && !c->scan_end ? SGZ_INDEX_HELD : 0;
    return c->used - held > c->hashed ? c->used - held : c->hashed;
}

/* All of it was taken: nothing else runs any more. */
static sgz_status end(sgz_index_build *c, sgz_error *err)
{
    sgz_index *index = &c->index;
    index->points.size = c->used;
    index->points.end = c->made;
    index->span_size = c->options.wanted ? 0 : c->options.span_size;
    index->members = c->scanner ? sgz_codec_scan_members(c->scanner) : 0;
    sgz_base_note(&index->notes, sgz_io_input_note(&c->input), NULL, 0);
    sgz_status status = c->options.wanted ? check_wanted(c, c->options.wanted, err) : SGZ_OK;
    if (!status)
        status = sgz_index_take_end(&c->taker, &index->points, err);
    return status ? status : sgz_index_settle(index, err);
}

static sgz_status run_take(sgz_index_build *c, sgz_error *err)
{
    sgz_index_taker *t = &c->taker;
    pthread_mutex_lock(&c->job->lock);
    int64_t left = c->settled - c->taken, raw_at = c->hashed, raw_left = hashable(c) - raw_at;
    int all = c->scan_end && !left && !raw_left;
    sgz_status status = all ? c->scan_status : SGZ_OK;
    if (status)
        *err = c->scan_err;
    for (size_t i = 0; i < c->fresh_count && !status; i++)
        if (!SGZ_PUSH(t->known.at, t->known.count, t->known.cap, c->fresh[i]))
            status = no_memory(err);
    c->fresh_count = 0;
    pthread_mutex_unlock(&c->job->lock);
    if (status)
        return status;
    size_t n = sgz_index_ring_run(&c->out, c->taken, left < (int64_t)STEP ? left : (int64_t)STEP);
    size_t raw = sgz_index_ring_run(&c->raw, raw_at,
                                    raw_left < (int64_t)STEP ? raw_left : (int64_t)STEP);
    if (all)
        status = end(c, err);
    else
        status = sgz_index_take(t, sgz_index_ring_at(&c->out, c->taken), n,
                                sgz_index_ring_at(&c->raw, raw_at), raw, err);
    pthread_mutex_lock(&c->job->lock);
    c->taken += (int64_t)n;
    c->hashed += (int64_t)raw;
    c->end = all;
    pthread_mutex_unlock(&c->job->lock);
    return status;
}

/* --- who does what, with the lock ------------------------------------------------------- */

static int is_ready(const sgz_index_build *c, stage n)
{
    switch (n) {
    case SCAN:
        return !c->scan_end && OUT_CAP - (size_t)(c->made - c->taken) >= STEP_MIN &&
               (c->read_end || !c->starved || c->read > c->fed_to);
    case READ:
        return !c->read_end && RAW_CAP - (size_t)(c->read - c->hashed) >= STEP_MIN;
    default:
        return !c->end && (c->scan_end || c->settled - c->taken >= (int64_t)STEP_MIN ||
                           hashable(c) - c->hashed >= (int64_t)STEP_MIN);
    }
}

static sgz_status work(void *arg, int number, sgz_error *err)
{
    static sgz_status (*const run[])(sgz_index_build *, sgz_error *) = {run_scan, run_read,
                                                                        run_take};
    /* The longest chain first, and what keeps it going. One thread alone takes what is in its
     * caches. */
    static const stage orders[2][3] = {{SCAN, READ, TAKE}, {TAKE, SCAN, READ}};
    sgz_index_build *c = arg;
    sgz_status status = SGZ_OK;
    (void)number;
    pthread_mutex_lock(&c->job->lock);
    const stage *order = orders[c->job->threads == 1];
    while (!status && !sgz_base_job_stopped(c->job) && !c->end) {
        int i = 0;
        while (i < 3 && (c->busy[order[i]] || !is_ready(c, order[i])))
            i++;
        if (i == 3) {
            pthread_cond_wait(&c->job->changed, &c->job->lock);
            continue;
        }
        c->busy[order[i]] = 1;
        pthread_mutex_unlock(&c->job->lock);
        status = run[order[i]](c, err);
        pthread_mutex_lock(&c->job->lock);
        c->end = c->end || status; /* nobody goes on behind a failure */
        c->busy[order[i]] = 0;
        pthread_cond_broadcast(&c->job->changed);
    }
    pthread_mutex_unlock(&c->job->lock);
    return status;
}

/* --- life ------------------------------------------------------------------------------- */

sgz_index_build *sgz_index_build_new(const sgz_codecs *codecs, sgz_source source,
                                     const sgz_index_build_options *options)
{
    sgz_index_build *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->codecs = codecs;
    c->options = *options;
    c->source = source;
    c->points = &c->index.points;
    c->raw = (sgz_index_ring){sgz_base_buffer_new(RAW_CAP), RAW_CAP};
    c->out = (sgz_index_ring){sgz_base_buffer_new(OUT_CAP), OUT_CAP};
    sgz_source ring = {.fd = -1, .read = feed, .arg = c};
    if (!c->raw.buf || !c->out.buf || sgz_io_input_open(&c->input, codecs, ring, NULL)) {
        sgz_index_build_free(c);
        return NULL;
    }
    return c;
}

sgz_status sgz_index_build_peek(sgz_index_build *c, sgz_wrap *wrap, sgz_error *err)
{
    sgz_status status = sgz_io_input_peek(&c->input, err);
    if (status == SGZ_ECALLBACK) {
        status = c->read_status;
        *err = c->read_err;
    }
    *wrap = c->wrap = c->input.wrap;
    return status;
}

static sgz_status begin(sgz_index_build *c, sgz_error *err)
{
    static const sgz_point_kind kinds[] = {[SGZ_WRAP_NONE] = SGZ_POINT_STORED,
                                           [SGZ_WRAP_GZIP] = SGZ_POINT_DEFLATE,
                                           [SGZ_WRAP_ZSTD] = SGZ_POINT_ZSTD};
    const sgz_index_build_options *o = &c->options;
    if (o->wanted && c->wrap != SGZ_WRAP_GZIP)
        return sgz_base_fail(err, SGZ_EINDEX, -1, NULL, 0,
                             "the index is of a gzip file, which this is not");
    sgz_status status = sgz_io_input_begin(&c->input, o->memory, err);
    c->points->kind = kinds[c->wrap];
    if (!status && c->wrap == SGZ_WRAP_GZIP) {
        sgz_scan_options scan = {.span = o->span_size,
                                 .tries = o->soci ? 1 : SGZ_TRIES_MAX,
                                 .raw = o->soci,
                                 .wanted = o->wanted,
                                 .points = c->points,
                                 .found = o->soci ? on_found : NULL,
                                 .arg = c};
        status = sgz_codec_scanner_new(&c->scanner, c->codecs, &scan, err);
        c->input.scanner = c->scanner;
    }
    c->input.frame = on_frame;
    c->input.frame_arg = c;
    return status ? status
                  : sgz_index_taker_init(&c->taker, c->codecs, c->wrap, o, &c->index, err);
}

sgz_status sgz_index_build_start(sgz_index_build *c, sgz_base_job *job, sgz_error *err)
{
    sgz_status status = begin(c, err);
    c->job = job;
    if (!status)
        status = sgz_base_job_start(job, c->options.threads < 3 ? c->options.threads : 3, work, c,
                                    err);
    if (status)
        c->job = NULL;
    return status;
}

sgz_status sgz_index_build_finish(sgz_index_build *c, sgz_index *index, sgz_error *err)
{
    sgz_status status = sgz_base_job_join(c->job, err);
    if (status)
        return status;
    *index = c->index;
    memset(&c->index, 0, sizeof c->index);
    return SGZ_OK;
}

void sgz_index_build_free(sgz_index_build *c)
{
    if (!c)
        return;
    sgz_index_taker_free(&c->taker);
    sgz_io_input_close(&c->input);
    sgz_codec_scanner_free(c->scanner);
    sgz_index_free(&c->index);
    free(c->fresh);
    free(c->raw.buf);
    free(c->out.buf);
    free(c);
}
