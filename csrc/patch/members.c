#include "patch/members.h"

#include "base/vec.h"
#include "read/chunk.h"

#include <stdlib.h>
#include <string.h>

#define IN_CAP ((size_t)256 << 10)
#define PIECE ((size_t)256 << 10)
/* A batch ends after this much input or this many segments: the lock is then noise, and the
 * last batches finish together. */
#define BATCH_IN ((int64_t)512 << 10)
#define BATCH_COUNT 512

typedef struct {
    int64_t start;
    size_t first_span;
} segment;

typedef struct {
    sgz_patch_member_info *members;
    size_t count, cap;
} batch;

struct sgz_patch_members {
    sgz_patch_members_args args;
    /* a walk */
    const sgz_spans *spans;
    segment *segments;
    size_t segment_count;
    uint8_t *chunks;
    batch *batches;
    size_t batch_cap;
    /* a proof */
    int level;
    const sgz_patch_proof *proofs;
    size_t proof_count;
    const sgz_patch_proof_gap *gaps;
    uint8_t *made, *literals;

    sgz_base_job *run;
    size_t next, next_batch;   /* with its lock */
};

typedef struct {
    sgz_patch_members *job;
    size_t number;             /* of its batch */
    batch batch;
    sgz_inflater inflater;
    sgz_deflater deflater;
    sgz_sha256 member_sha;
    sgz_read_check check;
    /* Blob bytes [in_base, in_base + in_len). */
    uint8_t *in;
    size_t in_cap, in_len;
    int64_t in_base;
    uint8_t *out;
    size_t out_cap;
    uint8_t *again;            /* what the engine makes of a member's contents */
    size_t again_cap;
} worker;

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the members");
}

static int stopped(const worker *w)
{
    return sgz_base_job_passed(w->job->run, w->number);
}

static int grow(uint8_t **buffer, size_t *cap, size_t want)
{
    if (want <= *cap)
        return 1;
    free(*buffer);
    *buffer = malloc(want);
    *cap = *buffer ? want : 0;
    return *buffer != NULL;
}

/* --- walking ------------------------------------------------------------------------------ */

/* The chunks among the bytes that go by: their digests are told, and must be right. */
static sgz_status pass(worker *w, sgz_read_passing *p, const uint8_t *data, size_t len,
                       sgz_error *err)
{
    sgz_patch_members *job = w->job;
    sgz_status st = SGZ_OK;
    for (size_t n; len && !st; data += n, len -= n) {
        size_t span = p->span;
        if (sgz_read_pass(&w->check, p, data, len, &n) & SGZ_PASS_LAST) {
            memcpy(job->chunks + 32 * span, w->check.actual, 32);
            st = sgz_read_verdict(&w->check, span, NULL, job->spans->files[span], err);
        }
    }
    return st;
}

/* The bytes at `next` that are there, at most to `end`; reads on, at most to `ahead`. */
static sgz_status input(worker *w, int64_t next, int64_t end, int64_t ahead,
                        const uint8_t **data, size_t *len, sgz_error *err)
{
    if (next < end && (next < w->in_base || next >= w->in_base + (int64_t)w->in_len)) {
        size_t want = w->in_cap;
        if (want > (uint64_t)(ahead - next))
            want = (size_t)(ahead - next);
        w->in_len = 0;
        sgz_status st = sgz_codec_blob_read(w->job->args.blob, next, w->in, want, err);
        if (st)
            return st;
        w->in_base = next;
        w->in_len = want;
    }
    int64_t in_end = w->in_base + (int64_t)w->in_len;
    *data = w->in + (next < end ? next - w->in_base : 0);
    *len = next < end ? (size_t)((in_end < end ? in_end : end) - next) : 0;
    return SGZ_OK;
}

static sgz_status add_member(worker *w, sgz_patch_member_info **member, sgz_error *err)
{
    batch *b = &w->batch;
    if (!SGZ_FIT(b->members, b->cap, b->count + 1))
        return no_memory(err);
    *member = &b->members[b->count++];
    return SGZ_OK;
}

static sgz_status walk_member(worker *w, sgz_read_passing *p, int64_t *position, int64_t end,
                              int64_t ahead, sgz_error *err)
{
    const sgz_codecs *codecs = w->job->args.codecs;
    int64_t start = *position, next = start;
    uint64_t content = 0;
    sgz_codec_inflater_reset(&w->inflater, start);
    sgz_codec_sha256_init(codecs, &w->member_sha);
    while (!w->inflater.members) {
        const uint8_t *data;
        size_t len, got;
        if (stopped(w))
            return sgz_base_fail(err, SGZ_ECANCELLED, -1, NULL, 0, "cancelled");
        sgz_status st = input(w, next, end, ahead, &data, &len, err);
        if (st)
            return st;
        const uint8_t *from = data;
        size_t before = len;
        st = sgz_codec_inflate(&w->inflater, &data, &len, w->out, PIECE, &got, 1, err);
        if (st)
            return st;
        size_t used = before - len;
        sgz_codec_sha256_update(codecs, &w->member_sha, from, used);
        next += (int64_t)used;
        content += got;
        st = pass(w, p, w->out, got, err);
        if (st)
            return st;
        if (got || used || w->inflater.members)
            continue;
        if (before)
            return sgz_base_fail(err, SGZ_EDATA, start, NULL, 0,
                                 "the gzip member does not decode any further");
        return sgz_base_fail(err, SGZ_EDATA, start, NULL, 0,
                             "the gzip member is cut off at %lld", (long long)end);
    }
    sgz_patch_member_info *member = NULL;
    sgz_status st = add_member(w, &member, err);
    if (st)
        return st;
    *member = (sgz_patch_member_info){.offset = start, .size = next - start, .content = content};
    sgz_codec_sha256_final(codecs, &w->member_sha, member->digest);
    *position = next;
    return SGZ_OK;
}

static int64_t segment_end(const sgz_patch_members *job, size_t number)
{
    return number + 1 < job->segment_count ? job->segments[number + 1].start
                                           : job->args.blob->size;
}

static sgz_status walk_segment(worker *w, size_t number, int64_t ahead, sgz_error *err)
{
    sgz_patch_members *job = w->job;
    int64_t position = job->segments[number].start, end = segment_end(job, number);
    sgz_read_passing p = {.span = job->segments[number].first_span, .last = job->spans->count};
    if (number + 1 < job->segment_count)
        p.last = job->segments[number + 1].first_span;
    while (position < end) {
        sgz_status st = walk_member(w, &p, &position, end, ahead, err);
        if (st)
            return st;
    }
    if (p.span == p.last)
        return SGZ_OK;
    return sgz_read_cut_off(job->spans, p.span, job->spans->files[p.span], err);
}

/* --- proving ------------------------------------------------------------------------------ */

static sgz_status prove(worker *w, size_t number, sgz_error *err)
{
    sgz_patch_members *job = w->job;
    const sgz_patch_proof *p = &job->proofs[number];
    size_t content = (size_t)p->content, size = (size_t)p->size, at = 0, made = 0;
    job->made[number] = 0;
    if (p->content > SGZ_PATCH_MEMBER_MAX || p->size > (int64_t)sgz_codec_member_bound(content))
        return SGZ_OK;
    if (!grow(&w->in, &w->in_cap, size) || !grow(&w->out, &w->out_cap, content + 1) ||
        !grow(&w->again, &w->again_cap, sgz_codec_member_bound(content)))
        return no_memory(err);
    sgz_status st = sgz_codec_blob_read(job->args.blob, p->offset, w->in, size, err);
    const uint8_t *data = w->in;
    sgz_codec_inflater_reset(&w->inflater, p->offset);
    while (!st && !w->inflater.members) {
        size_t before = size, got;
        st = sgz_codec_inflate(&w->inflater, &data, &size, w->out + at, content + 1 - at, &got,
                               1, err);
        at += got;
        if (!st && !w->inflater.members && (at > content || (!got && before == size)))
            break;
    }
    if (!st && (!w->inflater.members || at != content || size))
        st = sgz_base_fail(
            err, SGZ_EDATA, p->offset, NULL, 0,
            "the gzip member is not what it was: the file changes while it is read");
    if (!st)
        st = sgz_codec_deflate_member(&w->deflater, w->out, content, 0, w->again, w->again_cap,
                                      &made, err);
    if (st || made != (size_t)p->size || memcmp(w->again, w->in, made))
        return st;
    job->made[number] = 1;
    for (uint64_t i = 0; i < p->gap_count; i++) {
        const sgz_patch_proof_gap *gap = &job->gaps[p->first_gap + i];
        memcpy(job->literals + gap->to, w->out + gap->start, (size_t)gap->len);
    }
    return SGZ_OK;
}

/* --- workers ------------------------------------------------------------------------------ */

static int64_t item_size(const sgz_patch_members *job, size_t number)
{
    if (job->spans)
        return segment_end(job, number) - job->segments[number].start;
    const sgz_patch_proof *p = &job->proofs[number];
    return p->content > SGZ_PATCH_MEMBER_MAX ? 0 : p->size + (int64_t)(p->content / 4);
}

/* Claim a run of items; false: none is left. */
static int claim(worker *w, size_t *first, size_t *last)
{
    sgz_patch_members *job = w->job;
    size_t count = job->spans ? job->segment_count : job->proof_count;
    int64_t size = 0;
    pthread_mutex_lock(&job->run->lock);
    *first = *last = job->next;
    if (!sgz_base_job_passed(job->run, SIZE_MAX))
        while (*last < count && size < BATCH_IN && *last - *first < BATCH_COUNT)
            size += item_size(job, (*last)++);
    job->next = *last;
    w->number = job->next_batch;
    job->next_batch += *first < *last;
    pthread_mutex_unlock(&job->run->lock);
    return *first < *last;
}

/* Keep the members of the worker's batch. */
static sgz_status keep(worker *w, sgz_error *err)
{
    sgz_patch_members *job = w->job;
    sgz_status st = SGZ_OK;
    pthread_mutex_lock(&job->run->lock);
    size_t had = job->batch_cap;
    if (!SGZ_FIT(job->batches, job->batch_cap, w->number + 1))
        st = no_memory(err);
    if (!st) {
        memset(job->batches + had, 0, (job->batch_cap - had) * sizeof *job->batches);
        job->batches[w->number] = w->batch;
        w->batch = (batch){0};
    }
    pthread_mutex_unlock(&job->run->lock);
    return st;
}

static sgz_status run(worker *w, sgz_error *err)
{
    sgz_patch_members *job = w->job;
    size_t first, last;
    while (claim(w, &first, &last)) {
        int64_t ahead = job->spans ? segment_end(job, last - 1) : 0;
        for (size_t i = first; i < last; i++) {
            if (stopped(w))
                return SGZ_ECANCELLED;
            sgz_status st = job->spans ? walk_segment(w, i, ahead, err) : prove(w, i, err);
            if (st)
                return st;
            atomic_fetch_add_explicit(&job->run->done,
                                      job->spans ? item_size(job, i) : job->proofs[i].size,
                                      memory_order_relaxed);
        }
        sgz_status st = job->spans ? keep(w, err) : SGZ_OK;
        if (st)
            return st;
    }
    return SGZ_OK;
}

static sgz_status work(void *arg, int number, sgz_error *err)
{
    sgz_patch_members *job = arg;
    const sgz_codecs *codecs = job->args.codecs;
    worker w = {.job = job};
    (void)number;
    sgz_status st = sgz_codec_inflater_init(&w.inflater, codecs, err);
    if (!st && job->spans) {
        st = sgz_codec_sha256_new(codecs, &w.member_sha, err);
        if (!st)
            st = sgz_read_check_init(&w.check, codecs, job->spans, err);
        if (!st && (!grow(&w.in, &w.in_cap, IN_CAP) || !grow(&w.out, &w.out_cap, PIECE)))
            st = no_memory(err);
    } else if (!st) {
        st = sgz_codec_deflater_init(&w.deflater, codecs, job->level, err);
    }
    if (!st)
        st = run(&w, err);
    if (st && st != SGZ_ECANCELLED) /* the first error in the blob is told */
        sgz_base_job_fail(job->run, w.number, err);
    free(w.batch.members);
    free(w.in);
    free(w.out);
    free(w.again);
    if (w.member_sha.ctx)
        sgz_codec_sha256_free(codecs, &w.member_sha);
    sgz_read_check_free(&w.check);
    if (w.deflater.codecs)
        sgz_codec_deflater_free(&w.deflater);
    if (w.inflater.state)
        sgz_codec_inflater_free(&w.inflater);
    return st ? SGZ_ECANCELLED : SGZ_OK;
}

/* --- set-up ------------------------------------------------------------------------------- */

static void destroy(sgz_patch_members *job)
{
    for (size_t i = 0; i < job->batch_cap; i++)
        free(job->batches[i].members);
    free(job->batches);
    free(job->segments);
    free(job);
}

static sgz_patch_members *new_job(sgz_base_job *run, const sgz_patch_members_args *args)
{
    sgz_patch_members *job = calloc(1, sizeof *job);
    if (job) {
        job->args = *args;
        job->run = run;
        run->total = args->blob->size;
    }
    return job;
}

static sgz_status start(sgz_patch_members *job, sgz_patch_members **out, sgz_error *err)
{
    sgz_status st = sgz_base_job_start(job->run, job->args.threads, work, job, err);
    if (st)
        destroy(job);
    else
        *out = job;
    return st;
}

static void cut(sgz_patch_members *job, int64_t at, size_t span)
{
    if (at >= job->args.blob->size)
        return;
    if (!job->segment_count || job->segments[job->segment_count - 1].start < at)
        job->segments[job->segment_count++] = (segment){at, span};
    else
        job->segments[job->segment_count - 1].first_span = span;
}

sgz_status sgz_patch_members_walk(sgz_patch_members **out, sgz_base_job *run,
                                  const sgz_patch_members_args *args, const sgz_spans *spans,
                                  int64_t toc_end, uint8_t *chunks, sgz_error *err)
{
    sgz_patch_members *job = new_job(run, args);
    if (!job)
        return no_memory(err);
    job->spans = spans;
    job->chunks = chunks;
    job->segments = malloc((spans->count + 3) * sizeof *job->segments);
    if (!job->segments) {
        destroy(job);
        return no_memory(err);
    }
    cut(job, 0, 0);
    for (size_t i = 0; i < spans->count; i++)
        if (sgz_read_span_enters(spans, i))
            cut(job, sgz_read_span_row(spans, i)->offset, i);
    cut(job, spans->end, spans->count);
    cut(job, toc_end, spans->count);
    return start(job, out, err);
}

sgz_status sgz_patch_members_prove(sgz_patch_members **out, sgz_base_job *run,
                                   const sgz_patch_members_args *args, int level,
                                   const sgz_patch_proof *proofs, size_t count,
                                   const sgz_patch_proof_gap *gaps, uint8_t *made,
                                   uint8_t *literals, sgz_error *err)
{
    sgz_patch_members *job = new_job(run, args);
    if (!job)
        return no_memory(err);
    job->level = level;
    job->proofs = proofs;
    job->proof_count = count;
    job->gaps = gaps;
    job->made = made;
    job->literals = literals;
    return start(job, out, err);
}

static sgz_status gather(sgz_patch_members *job, sgz_patch_member_info **found, size_t *count,
                         sgz_error *err)
{
    size_t total = 0;
    for (size_t i = 0; i < job->batch_cap; i++)
        total += job->batches[i].count;
    *found = malloc((total + 1) * sizeof **found);
    *count = 0;
    if (!*found)
        return no_memory(err);
    for (size_t i = 0; i < job->batch_cap; i++) {
        batch *b = &job->batches[i];
        if (b->count)
            memcpy(*found + *count, b->members, b->count * sizeof *b->members);
        *count += b->count;
        free(b->members);
        *b = (batch){0};
    }
    return SGZ_OK;
}

sgz_status sgz_patch_members_finish(sgz_patch_members *job, sgz_patch_member_info **found,
                                    size_t *count, sgz_error *err)
{
    sgz_status st = sgz_base_job_join(job->run, err);
    if (!st && found)
        st = gather(job, found, count, err);
    destroy(job);
    return st;
}
