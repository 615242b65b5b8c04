#include "codec/decode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The first read after a seek is small, since most reads want one small file; a long run
 * doubles it. Beyond 256 KiB a bigger step gained nothing and leaves the L2 cache. */
#define STEP_MIN ((size_t)64 << 10)
#define STEP_MAX ((size_t)256 << 10)
#define MEMORY_STEP ((size_t)1 << 30) /* ISA-L counts its input in 32 bits */
#define SKIP_STEP ((size_t)32 << 10)
/* What headers, trailers and padding may add to bytes that are only stored. */
#define SLACK ((int64_t)48 << 10)

static const struct {
    const char *unit;
    int64_t ratio; /* more bytes than this no byte makes */
} KINDS[] = {
    [SGZ_POINT_GZIP] = {"gzip member", 1032}, /* 258 bytes of 2 bits */
};

const char *sgz_codec_point_unit(sgz_place at)
{
    return KINDS[at.kind].unit;
}

int sgz_codec_point_fits(sgz_place at, int64_t packed, int64_t size)
{
    return size / KINDS[at.kind].ratio <= packed;
}

int64_t sgz_codec_bound(int64_t size)
{
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
                                  sgz_error *err)
{
    memset(d, 0, sizeof *d);
    d->blob = blob;
    if (!blob->data) {
        d->in_cap = STEP_MAX;
        d->in = malloc(d->in_cap);
        if (!d->in)
            return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the input buffer");
    }
    sgz_status st = sgz_codec_inflater_init(&d->inflater, codecs, err);
    if (st) {
        free(d->in);
        d->in = NULL;
        return st;
    }
    sgz_codec_decoder_enter(d, sgz_codec_point(0), 0);
    return SGZ_OK;
}

void sgz_codec_decoder_free(sgz_decoder *d)
{
    sgz_codec_inflater_free(&d->inflater);
    free(d->in);
    memset(d, 0, sizeof *d);
}

void sgz_codec_decoder_enter(sgz_decoder *d, sgz_place at, int64_t end)
{
    int64_t offset = at.offset, size = d->blob->size;
    sgz_codec_inflater_reset(&d->inflater, offset);
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
}

void sgz_codec_decoder_read_ahead(sgz_decoder *d, int64_t ahead)
{
    d->ahead = ahead < d->blob->size ? ahead : d->blob->size;
}

/* The bytes at d->next, at most to d->end; reads them when they are not there. */
static sgz_status input(sgz_decoder *d, const uint8_t **in, size_t *in_len, sgz_error *err)
{
    uint64_t left = (uint64_t)(d->end - d->next);
    if (d->blob->data) {
        *in = d->blob->data + (d->next - d->blob->base);
        *in_len = left < MEMORY_STEP ? (size_t)left : MEMORY_STEP;
        return SGZ_OK;
    }
    int64_t in_end = d->in_base + (int64_t)d->in_len;
    if (left && (d->next < d->in_base || d->next >= in_end)) {
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

static sgz_status decode(sgz_decoder *d, uint8_t *out, size_t cap, size_t *got, int one_member,
                         sgz_error *err)
{
    uint64_t members = d->inflater.members;
    *got = 0;
    while (*got < cap) {
        const uint8_t *in;
        size_t in_len, n = 0, room = cap - *got < SGZ_POLL ? cap - *got : SGZ_POLL;
        sgz_status st = input(d, &in, &in_len, err);
        if (st)
            return st;
        size_t before = in_len;
        /* Also with no input left: the decoder may still hold output. */
        st = sgz_codec_inflate(&d->inflater, &in, &in_len, out + *got, room, &n, one_member,
                               err);
        d->next += (int64_t)(before - in_len);
        *got += n;
        if (!st)
            st = look(d, n + (before - in_len), err);
        if (st)
            return st;
        if (d->inflater.garbage || (one_member && d->inflater.members != members))
            return SGZ_OK;
        if (n || in_len < before)
            continue;
        if (before)
            return sgz_base_fail(err, SGZ_EDATA, d->inflater.member_offset, NULL, 0,
                                 "the gzip member does not decode any further");
        if (sgz_codec_inflater_at_member_end(&d->inflater))
            return SGZ_OK;
        return sgz_base_fail(err, SGZ_EDATA, d->inflater.member_offset, NULL, 0,
                             "the gzip member is cut off at %lld", (long long)d->end);
    }
    return SGZ_OK;
}

sgz_status sgz_codec_decoder_read(sgz_decoder *d, uint8_t *out, size_t cap, size_t *got,
                                  sgz_error *err)
{
    return decode(d, out, cap, got, 0, err);
}

sgz_status sgz_codec_decoder_read_unit(sgz_decoder *d, uint8_t *out, size_t cap, size_t *got,
                                       int *ended, sgz_error *err)
{
    uint64_t members = d->inflater.members;
    sgz_status st = decode(d, out, cap, got, 1, err);
    *ended = d->inflater.members != members;
    return st;
}

sgz_status sgz_codec_decoder_mark(const sgz_decoder *d, sgz_decoder_mark *mark, sgz_error *err)
{
    sgz_status st = SGZ_OK;
    if (!mark->inflater.state)
        st = sgz_codec_inflater_init(&mark->inflater, d->inflater.codecs, err);
    if (!st)
        st = sgz_codec_inflater_copy(&mark->inflater, &d->inflater, err);
    mark->next = d->next;
    mark->end = d->end;
    return st;
}

void sgz_codec_decoder_return(sgz_decoder *d, sgz_decoder_mark *mark)
{
    sgz_inflater there = mark->inflater;
    mark->inflater = d->inflater;
    d->inflater = there;
    d->next = mark->next;
    d->end = mark->end;
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
    while (!sgz_codec_inflater_at_member_end(&d->inflater)) {
        /* One byte more than allowed tells a member that ends at the limit from a longer one. */
        size_t want = limit < (int64_t)sizeof sink ? (size_t)limit + 1 : sizeof sink, n;
        sgz_status st = decode(d, sink, want, &n, 1, err);
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
