#include "convert.h"

#include "buffer.h"
#include "deadline.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* Input bytes that one thread compresses at a time: 256 KiB keeps the last jobs of a
 * conversion even between threads and costs nothing in locking (a job takes 0.5 ms). */
#define JOB_BYTES (256u << 10)

/* Slabs in flight: one being filled, one compressed by each thread, one being written, but
 * no more than memory allows; many jobs fit in one slab. */
#define SLABS_MAX 8

typedef struct {
    size_t first_member, member_count;
    size_t out, out_cap, out_len;   /* in the slab's output buffer */
} job;

typedef struct {
    sgz_slab in;
    uint8_t *out;
    size_t out_cap;
    job *jobs;
    size_t job_count, job_cap, jobs_taken, jobs_done;
} slab;

struct sgz_conversion {
    const sgz_codecs *codecs;
    sgz_input *input;
    sgz_sink *sink;
    sgz_toc *toc;
    sgz_convert_options options;
    sgz_cutter *cutter;
    sgz_writer writer;              /* DiffID, blob digest, position */
    sgz_sha256 file_sha;            /* of a file of several chunks */
    sgz_message *messages;          /* the chunks of the slab that is hashed */
    size_t message_cap;

    pthread_mutex_t lock;           /* of everything below */
    pthread_cond_t changed;         /* a stage may go on */
    pthread_cond_t ended;           /* a thread has ended */
    pthread_mutex_t toc_lock;
    slab slabs[SLABS_MAX];
    unsigned slab_count;
    /* Sequence numbers of the next slab of each ordered stage. */
    uint64_t filled, diffed, filed, written;
    int filling, diffing, filing, writing, end, finishing;
    volatile int *stop;             /* set by the first error, or by cancel */
    int64_t progress;
    sgz_convert_result result;
    sgz_error err;

    pthread_t *threads;
    unsigned thread_count, running;
};

static sgz_status no_memory(sgz_error *err)
{
    return sgz_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
}

/* --- stages; each runs without the lock -------------------------------------------------- */

static sgz_status plan_jobs(slab *s, sgz_error *err)
{
    size_t out = 0, count = s->in.member_count;
    s->job_count = s->jobs_taken = s->jobs_done = 0;
    for (size_t i = 0; i < count;) {
        if (s->job_count == s->job_cap) {
            size_t cap = s->job_cap ? s->job_cap * 2 : 64;
            job *grown = realloc(s->jobs, cap * sizeof *grown);
            if (!grown)
                return no_memory(err);
            s->jobs = grown;
            s->job_cap = cap;
        }
        job *j = &s->jobs[s->job_count++];
        size_t bytes = 0;
        *j = (job){.first_member = i, .out = out};
        do {
            bytes += s->in.members[i].len;
            out += sgz_member_bound(s->in.members[i].len);
            i++;
        } while (i < count && bytes + s->in.members[i].len <= JOB_BYTES);
        j->member_count = i - j->first_member;
        j->out_cap = out - j->out;
    }
    if (out > s->out_cap) {
        free(s->out);
        s->out_cap = 0;
        s->out = sgz_buffer_new(out);
        if (!s->out)
            return no_memory(err);
        s->out_cap = out;
    }
    return SGZ_OK;
}

static sgz_status run_job(sgz_deflater *deflater, slab *s, job *j, sgz_error *err)
{
    for (size_t i = 0; i < j->member_count; i++) {
        sgz_member *member = &s->in.members[j->first_member + i];
        sgz_status status = sgz_deflate_member(
            deflater, s->in.buf + member->start, member->len, 0, s->out + j->out + j->out_len,
            j->out_cap - j->out_len, &member->out_len, err);
        if (status)
            return status;
        j->out_len += member->out_len;
    }
    return SGZ_OK;
}

/* The DiffID, and the digests of the chunks beside it. */
static sgz_status hash_tar(sgz_conversion *c, slab *s, sgz_error *err)
{
    size_t count = s->in.piece_count;
    if (count > c->message_cap) {
        sgz_message *grown = realloc(c->messages, count * sizeof *grown);
        if (!grown)
            return no_memory(err);
        c->messages = grown;
        c->message_cap = count;
    }
    for (size_t i = 0; i < count; i++) {
        sgz_piece *piece = &s->in.pieces[i];
        c->messages[i] = (sgz_message){s->in.buf + piece->start, piece->len, piece->digest};
    }
    sgz_writer_tar(&c->writer, s->in.buf, s->in.len, c->messages, count);
    return SGZ_OK;
}

/* The digests of files that have several chunks, which may lie in several slabs. */
static sgz_status hash_files(sgz_conversion *c, slab *s, sgz_error *err)
{
    for (size_t i = 0; i < s->in.piece_count; i++) {
        const sgz_piece *piece = &s->in.pieces[i];
        if (piece->whole)
            continue;
        if (piece->row == piece->file_row)
            sgz_sha256_init(c->codecs, &c->file_sha);
        sgz_sha256_update(c->codecs, &c->file_sha, s->in.buf + piece->start, piece->len);
        if (!piece->last)
            continue;
        uint8_t digest[32];
        sgz_sha256_final(c->codecs, &c->file_sha, digest);
        pthread_mutex_lock(&c->toc_lock);
        uint64_t at = sgz_toc_store(c->toc, digest, sizeof digest);
        if (at != UINT64_MAX) {
            c->toc->rows[piece->file_row].digest_off = at;
            c->toc->rows[piece->file_row].flags |= SGZ_HAS_DIGEST;
        }
        pthread_mutex_unlock(&c->toc_lock);
        if (at == UINT64_MAX)
            return no_memory(err);
    }
    return SGZ_OK;
}

static void record_rows(sgz_conversion *c, const slab *s)
{
    int64_t offset = c->writer.position;
    pthread_mutex_lock(&c->toc_lock);
    for (size_t i = 0; i < s->in.member_count; i++) {
        const sgz_member *member = &s->in.members[i];
        for (size_t k = 0; k < member->piece_count; k++) {
            const sgz_piece *piece = &s->in.pieces[member->first_piece + k];
            sgz_entry *row = &c->toc->rows[piece->row];
            row->offset = offset;
            row->inner_offset = (int64_t)piece->inner;
            memcpy(row->chunk_digest, piece->digest, 32);
            row->flags |= SGZ_HAS_CHUNK_DIGEST;
            if (piece->whole)
                row->flags |= SGZ_HAS_DIGEST | SGZ_DIGEST_IS_CHUNK;
        }
        offset += (int64_t)member->out_len;
    }
    pthread_mutex_unlock(&c->toc_lock);
}

static sgz_status write_slab(sgz_conversion *c, const slab *s, sgz_error *err)
{
    record_rows(c, s);
    c->writer.members += s->in.member_count;
    for (size_t i = 0; i < s->job_count; i++) {
        sgz_status status =
            sgz_writer_blob(&c->writer, s->out + s->jobs[i].out, s->jobs[i].out_len, err);
        if (status)
            return status;
    }
    return SGZ_OK;
}

/* --- scheduling ---------------------------------------------------------------------------- */

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The stages in the order that keeps the longest chain moving: what frees slabs, then the
 * serial stages, then jobs, which fill every core's remaining time. */
static int run_one(sgz_conversion *c, sgz_deflater *deflater)
{
    sgz_error err;
    sgz_status status;
    uint64_t freed = least(c->filed, c->written); /* written is never ahead of diffed */
    slab *s = &c->slabs[c->written % c->slab_count];
    if (!c->writing && c->written < c->diffed && s->jobs_done == s->job_count) {
        c->writing = 1;
        pthread_mutex_unlock(&c->lock);
        status = write_slab(c, s, &err);
        pthread_mutex_lock(&c->lock);
        c->writing = 0;
        c->written++;
    } else if (!c->filling && !c->end && c->filled < freed + c->slab_count) {
        int end;
        s = &c->slabs[c->filled % c->slab_count];
        c->filling = 1;
        pthread_mutex_unlock(&c->lock);
        status = sgz_cutter_fill(c->cutter, &s->in, &end, &err);
        if (!status)
            status = plan_jobs(s, &err);
        pthread_mutex_lock(&c->lock);
        c->filling = 0;
        c->end = end;
        c->progress = c->input->source_pos;
        c->filled++;
    } else if (!c->diffing && c->diffed < c->filled) {
        s = &c->slabs[c->diffed % c->slab_count];
        c->diffing = 1;
        pthread_mutex_unlock(&c->lock);
        status = hash_tar(c, s, &err);
        pthread_mutex_lock(&c->lock);
        c->diffing = 0;
        c->diffed++;
    } else if (!c->filing && c->filed < c->filled) {
        s = &c->slabs[c->filed % c->slab_count];
        c->filing = 1;
        pthread_mutex_unlock(&c->lock);
        status = hash_files(c, s, &err);
        pthread_mutex_lock(&c->lock);
        c->filing = 0;
        c->filed++;
    } else {
        job *j = NULL;
        for (uint64_t n = c->written; n < c->filled && !j; n++) {
            s = &c->slabs[n % c->slab_count];
            if (s->jobs_taken < s->job_count)
                j = &s->jobs[s->jobs_taken++];
        }
        if (!j)
            return 0;
        pthread_mutex_unlock(&c->lock);
        status = run_job(deflater, s, j, &err);
        pthread_mutex_lock(&c->lock);
        if (++s->jobs_done < s->job_count && !status)
            return 1;
    }
    if (status && !*c->stop) {
        *c->stop = 1;
        c->err = err;
    }
    pthread_cond_broadcast(&c->changed);
    return 1;
}

static int all_done(const sgz_conversion *c)
{
    return c->end && c->written == c->filled && c->diffed == c->filled && c->filed == c->filled;
}

static sgz_status write_end(sgz_conversion *c, sgz_error *err)
{
    c->result.bad_names = sgz_cutter_bad_names(c->cutter);
    c->result.trailing_garbage = c->input->inflater.garbage;
    return sgz_writer_finish(&c->writer, c->toc, c->options.level, c->options.legacy,
                             &c->result, err);
}

static void *work(void *arg)
{
    sgz_conversion *c = arg;
    sgz_deflater deflater = {0};
    sgz_error err;
    sgz_status status = sgz_deflater_init(&deflater, c->codecs, c->options.level, &err);
    pthread_mutex_lock(&c->lock);
    if (status && !*c->stop) {
        *c->stop = 1;
        c->err = err;
        pthread_cond_broadcast(&c->changed);
    }
    while (!*c->stop && !all_done(c))
        if (!run_one(c, &deflater))
            pthread_cond_wait(&c->changed, &c->lock);
    if (!*c->stop && !c->finishing) {
        /* The first one here ends the blob; the caller still waits, and may cancel. */
        c->finishing = 1;
        pthread_mutex_unlock(&c->lock);
        status = write_end(c, &err);
        pthread_mutex_lock(&c->lock);
        if (status && !*c->stop) {
            *c->stop = 1;
            c->err = err;
        }
    }
    c->running--;
    pthread_cond_broadcast(&c->ended);
    pthread_mutex_unlock(&c->lock);
    if (deflater.codecs)
        sgz_deflater_free(&deflater);
    return NULL;
}

/* --- life ------------------------------------------------------------------------------------ */

static void release(sgz_conversion *c)
{
    sgz_cutter_free(c->cutter);
    sgz_writer_free(&c->writer);
    sgz_sha256_free(c->codecs, &c->file_sha);
    for (unsigned i = 0; i < SLABS_MAX; i++) {
        sgz_slab_free(&c->slabs[i].in);
        free(c->slabs[i].out);
        free(c->slabs[i].jobs);
    }
    pthread_mutex_destroy(&c->lock);
    pthread_mutex_destroy(&c->toc_lock);
    pthread_cond_destroy(&c->changed);
    pthread_cond_destroy(&c->ended);
    free(c->messages);
    free(c->threads);
    free(c);
}

static sgz_status prepare(sgz_conversion *c, sgz_error *err)
{
    c->slab_count = c->options.threads + 2 < SLABS_MAX ? c->options.threads + 2 : SLABS_MAX;
    c->cutter = sgz_cutter_new(c->input, c->toc, &c->toc_lock, &c->options.cut);
    c->threads = calloc(c->options.threads, sizeof *c->threads);
    if (!c->cutter || !c->threads)
        return no_memory(err);
    sgz_status status = sgz_sha256_new(c->codecs, &c->file_sha, err);
    if (!status)
        status = sgz_writer_init(&c->writer, c->codecs, c->sink, err);
    for (unsigned i = 0; i < c->slab_count && !status; i++)
        status = sgz_slab_init(&c->slabs[i].in, sgz_cutter_slab_size(&c->options.cut), err);
    return status;
}

sgz_conversion *sgz_conversion_start(const sgz_codecs *codecs, sgz_input *input, sgz_sink *sink,
                                     sgz_toc *toc, const sgz_convert_options *options,
                                     volatile int *stop, sgz_error *err)
{
    sgz_conversion *c = calloc(1, sizeof *c);
    if (!c) {
        no_memory(err);
        return NULL;
    }
    c->codecs = codecs;
    c->input = input;
    c->sink = sink;
    c->toc = toc;
    c->options = *options;
    c->stop = stop;
    pthread_mutex_init(&c->lock, NULL);
    pthread_mutex_init(&c->toc_lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&c->ended, &clock);
    pthread_condattr_destroy(&clock);
    if (prepare(c, err)) {
        release(c);
        return NULL;
    }
    /* Signals are for the calling thread, which can act on them. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (; c->thread_count < options->threads; c->thread_count++) {
        pthread_mutex_lock(&c->lock);
        c->running++;
        pthread_mutex_unlock(&c->lock);
        if (pthread_create(&c->threads[c->thread_count], NULL, work, c)) {
            pthread_mutex_lock(&c->lock);
            c->running--;
            pthread_mutex_unlock(&c->lock);
            break;
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!c->thread_count) {
        sgz_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no thread can be started");
        release(c);
        return NULL;
    }
    return c;
}

int sgz_conversion_wait(sgz_conversion *c, int milliseconds, int64_t *done)
{
    struct timespec until = sgz_deadline(milliseconds);
    pthread_mutex_lock(&c->lock);
    while (c->running && !pthread_cond_timedwait(&c->ended, &c->lock, &until))
        ;
    int ended = !c->running;
    *done = c->progress;
    pthread_mutex_unlock(&c->lock);
    return ended;
}

void sgz_conversion_cancel(sgz_conversion *c)
{
    pthread_mutex_lock(&c->lock);
    if (!*c->stop) {
        *c->stop = 1;
        sgz_fail(&c->err, SGZ_ECANCELLED, -1, NULL, 0, "cancelled");
    }
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

sgz_status sgz_conversion_finish(sgz_conversion *c, sgz_convert_result *result, sgz_error *err)
{
    for (unsigned i = 0; i < c->thread_count; i++)
        pthread_join(c->threads[i], NULL);
    sgz_status status = SGZ_OK;
    *result = c->result;
    if (*c->stop) {
        *err = c->err;
        status = c->err.code;
    }
    release(c);
    return status;
}
