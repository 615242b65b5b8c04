#include "codec/kinds.h"

#include <string.h>

#include "codec/zstd.h"

/* --- gzip members, and places within them --------------------------------------------------- */

static sgz_status have_inflater(sgz_decoder *d, sgz_error *err)
{
    return d->inflater.state ? SGZ_OK : sgz_codec_inflater_init(&d->inflater, d->codecs, err);
}

static sgz_status enter_member(sgz_decoder *d, int64_t offset, const sgz_point *at,
                               sgz_error *err)
{
    (void)at;
    sgz_status st = have_inflater(d, err);
    if (!st)
        sgz_codec_inflater_reset(&d->inflater, offset);
    return st;
}

/* The history of a point, which is kept deflated, in `out`. */
static sgz_status read_history(sgz_decoder *d, const sgz_point *at, uint8_t *out, sgz_error *err)
{
    const uint8_t *in = d->points->windows + at->window;
    size_t in_len = at->packed, made;
    sgz_status st = sgz_codec_inflater_resume(&d->inflater, at->offset, 0, NULL, 0, err);
    if (!st)
        st = sgz_codec_inflate(&d->inflater, &in, &in_len, out, at->history, &made, 0, NULL);
    if (st || made < at->history)
        st = sgz_base_fail(err, SGZ_EDATA, at->offset, NULL, 0,
                           "the index is damaged: the history of this entry point does not "
                           "decode; make it again");
    return st;
}

static sgz_status enter_deflate(sgz_decoder *d, int64_t offset, const sgz_point *at,
                                sgz_error *err)
{
    uint8_t history[SGZ_HISTORY_MAX];
    sgz_status st = have_inflater(d, err);
    if (st)
        return st;
    if (at->history && !d->points->windows)
        return sgz_base_fail(err, SGZ_EINDEX, offset, NULL, 0,
                             "the histories of this index's entry points were not kept");
    const uint8_t *window = at->history ? d->points->windows + at->window : NULL;
    if (at->packed) {
        st = read_history(d, at, history, err);
        window = history;
    }
    return st ? st : sgz_codec_inflater_resume(&d->inflater, offset, at->skip, window,
                                               at->history, err);
}

static sgz_status inflate(sgz_decoder *d, const uint8_t **in, size_t *in_len, uint8_t *out,
                          size_t cap, size_t *made, int *ended, sgz_error *err)
{
    uint64_t members = d->inflater.members;
    sgz_status st =
        sgz_codec_inflate(&d->inflater, in, in_len, out, cap, made, ended != NULL, err);
    if (ended)
        *ended = d->inflater.members != members;
    return st;
}

static int between_members(const sgz_decoder *d)
{
    return sgz_codec_inflater_at_member_end(&d->inflater);
}

static sgz_status mark_inflater(const sgz_decoder *d, sgz_decoder_mark *mark, sgz_error *err)
{
    sgz_status st = SGZ_OK;
    if (!mark->inflater.state)
        st = sgz_codec_inflater_init(&mark->inflater, d->codecs, err);
    if (!st && d->inflater.state)
        st = sgz_codec_inflater_copy(&mark->inflater, &d->inflater, err);
    return st;
}

/* --- zstd frames ---------------------------------------------------------------------------- */

static int64_t window_memory(const sgz_decoder *d)
{
    return sgz_codec_points_frames(d->points) ? SGZ_FRAME_MEMORY : SGZ_ZSTD_MEMORY;
}

static sgz_status enter_frame(sgz_decoder *d, int64_t offset, const sgz_point *at, sgz_error *err)
{
    (void)offset;
    (void)at;
    d->frame_open = 0;
    if (!d->zstd)
        return sgz_codec_zstd_new(d->codecs, window_memory(d), &d->zstd, err);
    d->codecs->zstd.init_dstream(d->zstd);
    return SGZ_OK;
}

/* Zeros, behind the last frame: to whole blocks, as bsdtar pads what it writes to a pipe. */
static void pass_padding(sgz_zstd_in *in)
{
    const uint8_t *data = in->src;
    while (in->pos < in->size && !data[in->pos])
        in->pos++;
}

/* Readers that enter at a frame need one there. */
static sgz_status refuse_filler(const sgz_decoder *d, const uint8_t *header, size_t len,
                                sgz_error *err)
{
    const char *what = !header[0] ? "zeros stand"
        : len >= 4 && (header[0] & 0xf0) == 0x50 && !memcmp(header + 1, "\x2a\x4d\x18", 3)
            ? "a skippable frame stands" : NULL;
    if (!d->strict || !what)
        return SGZ_OK;
    return sgz_base_fail(err, SGZ_EDATA, d->frame_offset, NULL, 0,
                         "%s where a frame with bytes of the tar should be", what);
}

/* What the header of the next frame says. */
static sgz_status look_at_frame(sgz_decoder *d, const uint8_t *header, size_t len,
                                sgz_error *err)
{
    sgz_status st = refuse_filler(d, header, len, err);
    if (!st)
        st = sgz_codec_zstd_check(header, len, window_memory(d), d->frame_offset, &d->blocks,
                                  err);
    if (st || !sgz_codec_points_frames(d->points) || !d->need_sum ||
        sgz_codec_zstd_has_sum(header, len))
        return st;
    return sgz_base_fail(err, SGZ_EDATA, d->frame_offset, NULL, 0,
                         "a zstd frame has no check sum, and nothing else tells whether it is "
                         "right; read it without verification");
}

static sgz_status unpack(sgz_decoder *d, const uint8_t **in, size_t *in_len, uint8_t *out,
                         size_t cap, size_t *made, int *ended, sgz_error *err)
{
    const sgz_zstd *lib = &d->codecs->zstd;
    sgz_zstd_in from = {*in, *in_len, 0};
    sgz_zstd_out to = {out, cap, 0};
    sgz_status st = SGZ_OK;
    size_t hint = 1;
    while (!st && to.pos < cap && !(ended && !hint)) {
        size_t took = from.pos, made_before = to.pos;
        if (!d->frame_open) {
            if (!d->strict)
                pass_padding(&from);
            size_t left = from.size - from.pos;
            if (!left || (left < d->kind->look && d->next + (int64_t)from.size < d->end))
                break; /* the header is not whole here */
            d->frame_offset = d->next + (int64_t)from.pos;
            st = look_at_frame(d, *in + from.pos, left, err);
            if (st)
                break;
        }
        size_t fed = from.pos;
        hint = lib->decompress_stream(d->zstd, &to, &from);
        if (lib->is_error(hint))
            st = sgz_base_fail(err, SGZ_EDATA, d->frame_offset, NULL, 0,
                               "corrupt zstd frame: %s", lib->error_name(hint));
        else
            st = sgz_codec_zstd_follow(&d->blocks, *in + fed, from.pos - fed,
                                       to.pos - made_before, !hint, d->frame_offset, err);
        if (!st)
            d->frame_open = hint != 0;
        if (from.pos == took && to.pos == made_before)
            break;
    }
    if (ended)
        *ended = !st && !hint;
    *in += from.pos;
    *in_len -= from.pos;
    *made = to.pos;
    return st;
}

static int between_frames(const sgz_decoder *d)
{
    return !d->frame_open;
}

static sgz_status mark_frame(const sgz_decoder *d, sgz_decoder_mark *mark, sgz_error *err)
{
    (void)d;
    (void)mark;
    return sgz_base_fail(err, SGZ_ECODEC, -1, NULL, 0, "libzstd has no copy of a stream");
}

/* --- bytes as they are ---------------------------------------------------------------------- */

static sgz_status enter_stored(sgz_decoder *d, int64_t offset, const sgz_point *at,
                               sgz_error *err)
{
    (void)d;
    (void)offset;
    (void)at;
    (void)err;
    return SGZ_OK;
}

static sgz_status copy(sgz_decoder *d, const uint8_t **in, size_t *in_len, uint8_t *out,
                       size_t cap, size_t *made, int *ended, sgz_error *err)
{
    (void)d;
    (void)err;
    *made = cap < *in_len ? cap : *in_len;
    memcpy(out, *in, *made);
    *in += *made;
    *in_len -= *made;
    if (ended)
        *ended = 0;
    return SGZ_OK;
}

static int always_between(const sgz_decoder *d)
{
    (void)d;
    return 1;
}

static sgz_status mark_stored(const sgz_decoder *d, sgz_decoder_mark *mark, sgz_error *err)
{
    (void)d;
    (void)mark;
    (void)err;
    return SGZ_OK;
}

/* Of a zstd frame, 4 bytes make 128 KiB. */
const struct sgz_codec_kind sgz_codec_kinds[] = {
    [SGZ_POINT_GZIP] = {"gzip member", SGZ_DEFLATE_RATIO, 1, 1, enter_member, inflate,
                        between_members, mark_inflater},
    [SGZ_POINT_DEFLATE] = {"span", SGZ_DEFLATE_RATIO, 1, 0, enter_deflate, inflate,
                           always_between, mark_inflater},
    [SGZ_POINT_ZSTD] = {"zstd frame", 1 << 16, SGZ_ZSTD_HEADER, 0, enter_frame, unpack,
                        between_frames, mark_frame},
    [SGZ_POINT_STORED] = {"span", 1, 1, 0, enter_stored, copy, always_between, mark_stored},
};
