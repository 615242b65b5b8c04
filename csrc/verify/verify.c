#include "verify/internal.h"

/* A batch ends after this much input, output, or this many segments: big enough that the
 * lock is noise, small enough that the last batches finish together. */
#define BATCH_IN ((int64_t)512 << 10)
#define BATCH_OUT ((int64_t)4 << 20)
#define BATCH_SEGMENTS 512
#define HELD_MAX ((size_t)32 << 20)     /* of all batches that wait for their turn */

/* --- the TOC's members ------------------------------------------------------------------- */

static sgz_status verify_toc(sgz_verify_worker *w)
{
    sgz_verify *v = w->v;
    int64_t start = v->args.spans->end, end = v->args.toc_end, at = 0;
    if (start >= end)
        return SGZ_OK;
    int64_t json_end = SGZ_TAR_BLOCK + v->args.json_size;
    int64_t padded = json_end + (SGZ_TAR_BLOCK - json_end % SGZ_TAR_BLOCK) % SGZ_TAR_BLOCK;
    sgz_error err;
    sgz_status st;
    size_t got;
    int clean = 1;
    st = sgz_codec_decoder_enter(&w->decoder, start, end, &err);
    if (st)
        return sgz_verify_judge(v, st, &err);
    do {
        if (sgz_base_job_stopped(v->job))
            return SGZ_ECANCELLED;
        st = sgz_codec_decoder_read(&w->decoder, w->piece, PIECE, &got, &err);
        size_t skip = at >= json_end ? 0 : (uint64_t)(json_end - at) < got
                                             ? (size_t)(json_end - at) : got;
        for (size_t i = skip; i < got && clean; i++)
            clean = !w->piece[i];
        at += (int64_t)got;
    } while (!st && got == PIECE);
    atomic_fetch_add(&v->bytes, (unsigned long long)at);
    atomic_fetch_add(&v->job->done, end - start);
    if (st)
        return sgz_verify_judge(v, st, &err);
    const char *what = NULL;
    if (sgz_codec_decoder_garbage(&w->decoder))
        what = "bytes that are no %s stand between the TOC and the footer";
    else if (v->args.size_only)
        return SGZ_OK;
    else if (!clean)
        what = "something other than zeros follows the JSON of the TOC";
    else if (at < padded + 2 * SGZ_TAR_BLOCK || at % SGZ_TAR_BLOCK)
        what = "the tar does not end in two blocks of zeros behind the TOC";
    if (what) {
        sgz_base_fail(&err, SGZ_ETOC, start, SGZ_TOC_NAME, sizeof SGZ_TOC_NAME - 1, what,
                      sgz_codec_point_unit(v->args.spans->points));
        sgz_verify_report(v, &err);
    }
    return SGZ_OK;
}

/* --- workers ----------------------------------------------------------------------------- */

/* Claim the next batch; *first == *last when there are none left. Called with the lock. */
static sgz_status claim(sgz_verify_worker *w, size_t *first, size_t *last, int64_t *end)
{
    sgz_verify *v = w->v;
    while (v->next_segment < v->segment_count && !sgz_base_job_stopped(v->job) &&
           (v->next_batch - v->next_fed >= RING || v->held > HELD_MAX))
        pthread_cond_wait(&v->job->changed, &v->job->lock);
    *first = *last = v->next_segment;
    if (sgz_base_job_stopped(v->job))
        return SGZ_ECANCELLED;
    if (v->next_segment == v->segment_count)
        return SGZ_OK;
    int64_t out = 0;
    size_t i = v->next_segment;
    do {
        size_t stop = i + 1 < v->segment_count ? v->segments[i + 1].first_span
                                               : v->args.spans->count;
        if (stop > v->segments[i].first_span) {
            const sgz_entry *e = sgz_read_span_row(v->args.spans, stop - 1);
            int64_t size = e->inner_offset + e->chunk_size;
            out = size > BATCH_OUT ? BATCH_OUT : out + size;
        }
        i++;
        *end = i < v->segment_count ? v->segments[i].start : v->args.spans->end;
    } while (i < v->segment_count && out < BATCH_OUT && i - *first < BATCH_SEGMENTS &&
             *end - v->segments[*first].start < BATCH_IN);
    *last = v->next_segment = i;
    w->batch->number = v->next_batch++;
    return SGZ_OK;
}

static sgz_status run_worker(sgz_verify_worker *w)
{
    sgz_verify *v = w->v;
    pthread_mutex_lock(&v->job->lock);
    int toc = !v->toc_claimed;
    v->toc_claimed = 1;
    pthread_mutex_unlock(&v->job->lock);
    if (toc) {
        sgz_status st = verify_toc(w);
        if (st)
            return st;
    }
    for (;;) {
        size_t first, last;
        int64_t end = 0;
        w->batch = calloc(1, sizeof *w->batch);
        if (!w->batch)
            return sgz_verify_no_memory(v);
        pthread_mutex_lock(&v->job->lock);
        sgz_status st = claim(w, &first, &last, &end);
        pthread_mutex_unlock(&v->job->lock);
        if (st || first == last)
            return st;
        sgz_codec_decoder_read_ahead(&w->decoder, end);
        for (size_t i = first; i < last; i++) {
            st = sgz_verify_walk_segment(w, i);
            if (st)
                return st;
        }
        st = sgz_verify_big_flush(w);
        if (st)
            return st;
        sgz_verify_batch_finish(w);
    }
}

static sgz_status work(void *arg, int number, sgz_error *err)
{
    sgz_verify *v = arg;
    sgz_verify_worker w = {.v = v};
    (void)number;
    sgz_status st = sgz_codec_decoder_init(&w.decoder, v->args.codecs, v->args.blob,
                                           v->args.spans->points, err);
    w.decoder.stop = &v->job->stop;
    w.decoder.compare = 1;
    w.decoder.strict = (uint8_t)v->args.whole;
    if (!st)
        st = sgz_read_check_init(&w.check, v->args.codecs, v->args.spans, err);
    if (!st && !(w.piece = malloc(PIECE)))
        st = sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to verify with");
    if (!st && run_worker(&w))
        st = SGZ_ECANCELLED; /* what ended it is told */
    sgz_verify_batch_free(w.batch);
    free(w.piece);
    free(w.held);
    free(w.deferred);
    sgz_read_check_free(&w.check);
    sgz_codec_decoder_free(&w.decoder);
    return st;
}

/* --- set-up ------------------------------------------------------------------------------ */

static sgz_status plan(sgz_verify *v, sgz_error *err)
{
    const sgz_spans *spans = v->args.spans;
    const sgz_points *points = spans->points;
    size_t listed = points ? points->count : 0, segments = listed + 1, big = 0;
    for (size_t i = 0; i < spans->count; i++) {
        segments += (size_t)sgz_read_span_enters(spans, i);
        big += i && spans->files[i] == spans->files[i - 1] &&
               (i < 2 || spans->files[i] != spans->files[i - 2]);
    }
    v->segments = malloc(segments * sizeof *v->segments);
    v->big = calloc(big + 1, sizeof *v->big);
    if (!v->segments || !v->big)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to verify with");
    for (size_t i = 0, span = 0; i < listed; i++) {
        while (span < spans->count && sgz_read_span_row(spans, span)->offset < points->at[i].offset)
            span++;
        v->segments[v->segment_count++] = (sgz_verify_segment){
            points->at[i].offset, sgz_codec_points_end(points, i), span};
    }
    if (!listed && spans->end > 0 && (!spans->count || sgz_read_span_row(spans, 0)->offset > 0))
        v->segments[v->segment_count++] = (sgz_verify_segment){0, spans->end, 0};
    for (size_t i = 0; i < spans->count; i++) {
        if (!listed && sgz_read_span_enters(spans, i)) {
            int64_t start = sgz_read_span_row(spans, i)->offset;
            if (v->segment_count)
                v->segments[v->segment_count - 1].end = start;
            v->segments[v->segment_count++] = (sgz_verify_segment){start, spans->end, i};
        }
        if (v->args.size_only || !i || spans->files[i] != spans->files[i - 1])
            continue;
        if (!v->big_count || v->big[v->big_count - 1].row != spans->files[i]) {
            sgz_verify_big *f = &v->big[v->big_count++];
            f->row = spans->files[i];
            f->first = i - 1;
            atomic_init(&f->next, i - 1);
        }
        v->big[v->big_count - 1].last = i + 1;
    }
    return SGZ_OK;
}

/* Files without chunks: an empty file's digest is known. */
static void check_files(sgz_verify *v)
{
    for (size_t i = 0; i < v->toc->count; i++) {
        const sgz_entry *e = &v->toc->rows[i];
        if (e->type != SGZ_REG || e->flags & SGZ_DROPPED)
            continue;
        v->result.files++;
        const uint8_t *digest = sgz_toc_digest(v->toc, (uint32_t)i);
        if (e->size == 0 && digest && !v->args.size_only)
            sgz_verify_check(v, e, e->offset, digest, sgz_toc_empty_digest, "the file");
    }
}

static void destroy(sgz_verify *v)
{
    for (size_t i = 0; i < v->big_count; i++)
        if (v->big[i].sha.ctx)
            sgz_codec_sha256_free(v->args.codecs, &v->big[i].sha);
    for (size_t i = 0; i < RING; i++)
        sgz_verify_batch_free(v->ring[i]);
    sgz_verify_names_free(v->tree);
    sgz_verify_split_free(v->split);
    sgz_verify_frame_free(&v->toc_frame);
    sgz_verify_frame_free(&v->split_frame);
    if (v->whole.ctx)
        sgz_codec_sha256_free(v->args.codecs, &v->whole);
    free(v->big);
    free(v->segments);
    free(v);
}

/* The tar-split, if it is the one that the TOC has the digest of. */
static sgz_status open_split(sgz_verify *v, sgz_error *err)
{
    const sgz_verify_args *a = &v->args;
    uint8_t digest[32];
    sgz_error bad;
    sgz_status st = sgz_verify_frame_digest(a->codecs, a->blob, a->split, digest, err);
    if (st)
        return st;
    if (memcmp(digest, v->toc->split_digest, 32)) {
        sgz_base_fail_digest(&bad, a->split.offset, NULL, 0, v->toc->split_digest, digest,
                             "the tar-split");
        sgz_verify_report(v, &bad);
        return SGZ_OK;
    }
    st = sgz_verify_frame_open(&v->toc_frame, a->codecs, a->blob, a->spans->points, a->toc, err);
    if (!st)
        st = sgz_verify_frame_open(&v->split_frame, a->codecs, a->blob, a->spans->points, a->split,
                                   err);
    if (st)
        return st;
    v->split = sgz_verify_split_new(a->spans, sgz_verify_frame_pull(&v->toc_frame),
                                    sgz_verify_frame_pull(&v->split_frame), sgz_verify_report, v);
    return v->split ? SGZ_OK
                    : sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to verify with");
}

/* What is done in order. */
static sgz_status begin_order(sgz_verify *v, sgz_error *err)
{
    const sgz_verify_args *a = &v->args;
    sgz_status st = SGZ_OK;
    if (a->size_only)
        return SGZ_OK;
    if (a->whole && !(st = sgz_codec_sha256_new(a->codecs, &v->whole, err)))
        sgz_codec_sha256_init(a->codecs, &v->whole);
    if (!st && a->split.packed && v->toc->has_split)
        st = open_split(v, err);
    if (st || v->split)
        return st;
    v->tree = sgz_verify_names_new(a->codecs, a->spans, sgz_verify_report, v);
    return v->tree ? SGZ_OK
                   : sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to verify with");
}

sgz_status sgz_verify_start(sgz_verify **verify, sgz_base_job *job, const sgz_verify_args *args,
                            sgz_error *err)
{
    sgz_verify *v = calloc(1, sizeof *v);
    if (!v)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to verify with");
    v->args = *args;
    v->toc = args->spans->toc;
    v->job = job;
    job->total = args->toc_end > args->spans->end ? args->toc_end : args->spans->end;
    sgz_status st = plan(v, err);
    if (!st)
        check_files(v);
    if (!st)
        st = begin_order(v, err);
    if (!st)
        st = sgz_base_job_start(job, args->threads, work, v, err);
    if (st)
        destroy(v);
    else
        *verify = v;
    return st;
}

sgz_status sgz_verify_finish(sgz_verify *v, sgz_verify_result *result, sgz_error *err)
{
    sgz_status st = sgz_base_job_join(v->job, err);
    if (!st && v->tree)
        st = sgz_verify_names_finish(v->tree, v->args.toc_end > v->args.spans->end, err);
    if (!st && v->split)
        st = sgz_verify_split_finish(v->split, err);
    if (v->split)
        v->result.notes = *sgz_verify_split_notes(v->split);
    if (!st && v->whole.ctx) {
        sgz_codec_sha256_final(v->args.codecs, &v->whole, v->result.diff_id);
        v->result.has_diff_id = 1;
    }
    if (v->tree)
        v->result.notes = *sgz_verify_names_notes(v->tree);
    v->result.bytes = atomic_load(&v->bytes);
    v->result.chunks = atomic_load(&v->chunks);
    *result = v->result;
    destroy(v);
    return st;
}
