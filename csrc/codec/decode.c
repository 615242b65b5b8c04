#include "codec/kinds.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/vec.h"

/* The first read after a seek is small, since most reads want one small file; a long run
 * doubles it. Beyond 256 KiB a bigger step gained nothing and leaves the L2 cache. */
#define STEP_MIN ((size_t)64 << 10)
#define STEP_MAX ((size_t)256 << 10)
#define MEMORY_STEP ((size_t)1 << 30) /* ISA-L counts its input in 32 bits */
#define SKIP_STEP ((size_t)32 << 10)
/* A span whose digest is compared is held whole up to this length, and hashed before it is decoded:
 * so nothing is decoded that turns out to be wrong, or has to be decoded twice. */
#define HOLD_MAX ((int64_t)16 << 20)
#define HASH_STEP ((size_t)4 << 20)
/* What headers, trailers and padding may add to bytes that are only stored. */
#define SLACK ((int64_t)48 << 10)

static const struct sgz_codec_kind *kind_of(const sgz_points *points)
{
    return &sgz_codec_kinds[points ? points->kind : SGZ_POINT_GZIP];
}

const char *sgz_codec_point_unit(const sgz_points *points)
{
    return kind_of(points)->unit;
}

int sgz_codec_point_fits(const sgz_points *points, int64_t packed, int64_t size)
{
    return size / kind_of(points)->ratio <= packed;
}

int sgz_codec_points_vouch(const sgz_points *points)
{
    return kind_of(points)->sums || points->digests || sgz_codec_points_frames(points);
}

int64_t sgz_codec_bound(const sgz_points *points, int64_t size)
{
    if (points && points->kind == SGZ_POINT_STORED)
        return size;
    if (sgz_codec_points_frames(points)) /* with tiny blocks, of 3 bytes more each */
        return size > INT64_MAX / 4 ? INT64_MAX / 2 : 2 * size + SLACK;
    if (points) /* of who knows what, with any number of empty blocks and members */
        return INT64_MAX / 2;
    return size > INT64_MAX / 4 ? INT64_MAX / 2 : size + (size >> 10) + SLACK;
}

sgz_status sgz_codec_blob_read(const sgz_blob *blob, int64_t offset, uint8_t *out, size_t len,
                               sgz_error *err)
{
    if (offset < blob->base || offset > blob->size || len > (uint64_t)(blob->size - offset))
        return sgz_base_fail(err, SGZ_EDATA, offset, NULL, 0,
                             "%zu bytes are wanted, the blob has %lld", len,
                             (long long)blob->size);
    if (!len)
        return SGZ_OK;
    if (blob->data) {
        memcpy(out, blob->data + (offset - blob->base), len);
        return SGZ_OK;
    }
    int fd = blob->named ? sgz_base_open_named(blob->named) : blob->fd;
    if (fd < 0 && blob->named)
        return sgz_base_fail_errno(
            err, -fd,
            fd == -ESTALE ? "the file was changed or replaced" : "cannot open the blob",
            blob->named->path, strlen(blob->named->path));
    if (fd < 0) {
        if (!blob->read_at || blob->read_at(blob->arg, offset, out, len))
            return sgz_base_fail(err, SGZ_ECALLBACK, offset, NULL, 0, "reading the blob failed");
        return SGZ_OK;
    }
    int64_t got = sgz_base_read_all(fd, out, len, offset);
    if (blob->named)
        close(fd);
    if (got < 0)
        return sgz_base_fail_errno(err, (int)-got, "cannot read the blob", NULL, 0);
    if ((size_t)got < len)
        return sgz_base_fail(err, SGZ_EDATA, offset + got, NULL, 0,
                             "the file became shorter while it was read");
    return SGZ_OK;
}

sgz_status sgz_codec_decoder_init(sgz_decoder *d, const sgz_codecs *codecs, const sgz_blob *blob,
                                  const sgz_points *points, sgz_error *err)
{
    memset(d, 0, sizeof *d);
    d->codecs = codecs;
    d->blob = blob;
    d->points = points;
    d->kind = kind_of(points);
    if (!blob->data) {
        d->in_cap = STEP_MAX;
        d->in = malloc(d->in_cap);
        if (!d->in)
            return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the input buffer");
    }
    return SGZ_OK;
}

void sgz_codec_decoder_free(sgz_decoder *d)
{
    if (d->zstd)
        d->codecs->zstd.free_dstream(d->zstd);
    if (d->sha.ctx)
        sgz_codec_sha256_free(d->codecs, &d->sha);
    sgz_codec_inflater_free(&d->inflater);
    free(d->in);
    memset(d, 0, sizeof *d);
}

/* Whether to go on: after `n` more bytes in and out, never so many that a signal waits. */
static sgz_status look(sgz_decoder *d, size_t n, sgz_error *err)
{
    int stop = d->stop && atomic_load_explicit(d->stop, memory_order_relaxed);
    d->unpolled += n;
    if (d->budget > 0 && (d->budget -= (int64_t)n) <= 0)
        d->budget = -1;
    stop |= d->budget < 0;
    if (!stop && d->blob->poll && d->unpolled >= SGZ_POLL) {
        d->unpolled = 0;
        stop = d->blob->poll();
    }
    return stop ? sgz_base_fail(err, SGZ_ECANCELLED, -1, NULL, 0, "cancelled") : SGZ_OK;
}

/* --- digests of spans ------------------------------------------------------------------------ */

static sgz_status compare(sgz_decoder *d, int64_t offset, sgz_error *err)
{
    const uint8_t *expected = d->digest;
    uint8_t actual[32];
    d->digest = NULL;
    sgz_codec_sha256_final(d->codecs, &d->sha, actual);
    if (!memcmp(expected, actual, 32))
        return SGZ_OK;
    return sgz_base_fail_digest(err, offset, NULL, 0, expected, actual,
                                "the part of the blob that it is decoded from");
}

/* Have bytes [d->next, d->end) of the blob in memory. */
static sgz_status hold(sgz_decoder *d, const uint8_t **data, sgz_error *err)
{
    size_t len = (size_t)(d->end - d->next);
    if (d->blob->data) {
        *data = d->blob->data + (d->next - d->blob->base);
        return SGZ_OK;
    }
    if (d->next < d->in_base || d->end > d->in_base + (int64_t)d->in_len) {
        d->in_len = 0;
        if (!SGZ_FIT(d->in, d->in_cap, len))
            return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for a span");
        sgz_status st = sgz_codec_blob_read(d->blob, d->next, d->in, len, err);
        if (st)
            return st;
        d->in_base = d->next;
        d->in_len = len;
    }
    *data = d->in + (d->next - d->in_base);
    return SGZ_OK;
}

/* Compare the digest of a span that was entered, or begin to. */
static sgz_status begin_digest(sgz_decoder *d, size_t number, sgz_error *err)
{
    const uint8_t *data;
    sgz_status st = SGZ_OK;
    if (d->end < sgz_codec_points_end(d->points, number))
        return sgz_base_fail(err, SGZ_EDATA, d->next, NULL, 0,
                             "the blob ends at %lld, before the bytes of a span of its index",
                             (long long)d->end);
    if (!d->sha.ctx)
        st = sgz_codec_sha256_new(d->codecs, &d->sha, err);
    if (st)
        return st;
    sgz_codec_sha256_init(d->codecs, &d->sha);
    d->digest = d->points->digests[number];
    if (!d->blob->data && d->end - d->next > HOLD_MAX)
        return SGZ_OK;
    st = hold(d, &data, err);
    for (size_t at = 0, len = (size_t)(d->end - d->next); at < len && !st;) {
        size_t n = len - at < HASH_STEP ? len - at : HASH_STEP;
        sgz_codec_sha256_update(d->codecs, &d->sha, data + at, n);
        at += n;
        st = look(d, n, err);
    }
    if (!st)
        st = compare(d, d->next, err);
    d->vouched = !st;
    d->digest = NULL;
    return st;
}

int sgz_codec_decoder_vouches(const sgz_decoder *d)
{
    if (sgz_codec_points_frames(d->points))
        return d->need_sum;
    return d->points && d->points->digests ? d->digest || d->vouched : d->kind->sums;
}

/* --- decoding -------------------------------------------------------------------------------- */

sgz_status sgz_codec_decoder_enter(sgz_decoder *d, int64_t offset, int64_t end, sgz_error *err)
{
    int64_t size = d->blob->size;
    const sgz_point *at = NULL;
    size_t i = 0;
    d->digest = NULL;
    d->vouched = 0;
    d->next = d->end = size; /* nothing to decode where this fails */
    if (d->points && d->points->count) {
        i = sgz_codec_points_at(d->points, offset);
        if (i == SGZ_NO_POINT)
            return sgz_base_fail(err, SGZ_ETOC, offset, NULL, 0,
                                 "the index of the blob has no entry point here");
        at = &d->points->at[i];
    }
    sgz_status st = d->kind->enter(d, offset, at, err);
    if (st)
        return st;
    if (offset < d->blob->base || offset > size)
        offset = end = size; /* nothing to decode: reads get 0 bytes */
    if (end > size)
        end = size;
    if (end < offset)
        end = offset;
    /* One that goes on within what was read keeps its step; a jump starts small. */
    if (!d->step || offset < d->in_base || offset > d->in_base + (int64_t)d->in_len)
        d->step = STEP_MIN;
    d->next = offset;
    d->end = end;
    d->entered = offset;
    return at && d->compare && d->points->digests ? begin_digest(d, i, err) : SGZ_OK;
}

void sgz_codec_decoder_read_ahead(sgz_decoder *d, int64_t ahead)
{
    d->ahead = ahead < d->blob->size ? ahead : d->blob->size;
}

/* The bytes at d->next, at most to d->end; reads them when they are not there. */
static sgz_status input(sgz_decoder *d, const uint8_t **in, size_t *in_len, sgz_error *err)
{
    uint64_t left = (uint64_t)(d->end - d->next);
    int64_t look = left < d->kind->look ? (int64_t)left : (int64_t)d->kind->look;
    if (d->blob->data) {
        *in = d->blob->data + (d->next - d->blob->base);
        *in_len = left < MEMORY_STEP ? (size_t)left : MEMORY_STEP;
        return SGZ_OK;
    }
    int64_t in_end = d->in_base + (int64_t)d->in_len;
    if (left && (d->next < d->in_base || d->next + look > in_end)) {
        int64_t bound = d->ahead > d->end ? d->ahead : d->end;
        size_t want = d->step;
        if (want > (uint64_t)(bound - d->next))
            want = (size_t)(bound - d->next);
        d->in_len = 0;
        sgz_status st = sgz_codec_blob_read(d->blob, d->next, d->in, want, err);
        if (st)
            return st;
        d->in_base = d->next;
        d->in_len = want;
        if (d->step < STEP_MAX)
            d->step *= 2;
        in_end = d->next + (int64_t)want;
    }
    *in = d->in + (left ? d->next - d->in_base : 0);
    *in_len = !left ? 0 : (size_t)((in_end < d->end ? in_end : d->end) - d->next);
    return SGZ_OK;
}

/* Of the unit that is open, for errors. */
static int64_t unit_offset(const sgz_decoder *d)
{
    return d->zstd ? d->frame_offset : d->inflater.state ? d->inflater.member_offset : d->next;
}

/* With `ended` it stops behind a unit that ends, and says so. */
static sgz_status decode(sgz_decoder *d, uint8_t *out, size_t cap, size_t *got, int *ended,
                         sgz_error *err)
{
    *got = 0;
    if (ended)
        *ended = 0;
    while (*got < cap) {
        const uint8_t *in;
        size_t in_len, n = 0, room = cap - *got < SGZ_POLL ? cap - *got : SGZ_POLL;
        sgz_status st = input(d, &in, &in_len, err);
        if (st)
            return st;
        const uint8_t *from = in;
        size_t before = in_len;
        /* Also with no input left: the decoder may still hold output. */
        st = d->kind->decode(d, &in, &in_len, out + *got, room, &n, d->digest ? NULL : ended, err);
        if (d->digest)
            sgz_codec_sha256_update(d->codecs, &d->sha, from, before - in_len);
        d->next += (int64_t)(before - in_len);
        *got += n;
        if (!st)
            st = look(d, n + (before - in_len), err);
        if (st)
            return st;
        if ((d->inflater.garbage && !d->digest) || (ended && *ended))
            return SGZ_OK;
        if (n || in_len < before)
            continue;
        const char *what = sgz_codec_point_unit(d->points);
        if (before)
            return sgz_base_fail(err, SGZ_EDATA, unit_offset(d), NULL, 0,
                                 "the %s does not decode any further", what);
        if (d->digest) {
            st = compare(d, d->entered, err);
            if (ended)
                *ended = !st;
            return st;
        }
        if (d->kind->between(d))
            return SGZ_OK;
        return sgz_base_fail(err, SGZ_EDATA, unit_offset(d), NULL, 0, "the %s is cut off at %lld",
                             what, (long long)d->end);
    }
    return SGZ_OK;
}

sgz_status sgz_codec_decoder_read(sgz_decoder *d, uint8_t *out, size_t cap, size_t *got,
                                  sgz_error *err)
{
    return decode(d, out, cap, got, NULL, err);
}

sgz_status sgz_codec_decoder_read_unit(sgz_decoder *d, uint8_t *out, size_t cap, size_t *got,
                                       int *ended, sgz_error *err)
{
    return decode(d, out, cap, got, ended, err);
}

int sgz_codec_decoder_between(const sgz_decoder *d)
{
    return !d->digest && d->kind->between(d);
}

sgz_status sgz_codec_decoder_mark(const sgz_decoder *d, sgz_decoder_mark *mark, sgz_error *err)
{
    mark->next = d->next;
    mark->end = d->end;
    return d->kind->mark(d, mark, err);
}

void sgz_codec_decoder_return(sgz_decoder *d, sgz_decoder_mark *mark)
{
    sgz_inflater there = mark->inflater;
    mark->inflater = d->inflater;
    d->inflater = there;
    d->next = mark->next;
    d->end = mark->end;
    d->digest = NULL; /* what was taken in since is not taken back */
}

void sgz_codec_decoder_mark_free(sgz_decoder_mark *mark)
{
    if (mark->inflater.state)
        sgz_codec_inflater_free(&mark->inflater);
}

sgz_status sgz_codec_decoder_finish(sgz_decoder *d, int64_t limit, int *ended, sgz_error *err)
{
    uint8_t sink[SKIP_STEP];
    *ended = 1;
    while (!sgz_codec_decoder_between(d)) {
        /* One byte more than allowed tells a member that ends at the limit from a longer one. */
        size_t want = limit < (int64_t)sizeof sink ? (size_t)limit + 1 : sizeof sink, n;
        int one;
        sgz_status st = decode(d, sink, want, &n, &one, err);
        if (st)
            return st;
        if ((int64_t)n > limit) {
            *ended = 0;
            return SGZ_OK;
        }
        limit -= (int64_t)n;
    }
    return SGZ_OK;
}

sgz_status sgz_codec_decoder_skip(sgz_decoder *d, int64_t len, int64_t *got, sgz_error *err)
{
    uint8_t sink[SKIP_STEP];
    *got = 0;
    while (*got < len) {
        size_t want = (uint64_t)(len - *got) < sizeof sink ? (size_t)(len - *got) : sizeof sink;
        size_t n;
        sgz_status st = sgz_codec_decoder_read(d, sink, want, &n, err);
        *got += (int64_t)n;
        if (st)
            return st;
        if (n < want)
            return SGZ_OK;
    }
    return SGZ_OK;
}
