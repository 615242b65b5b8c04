#include "io/input.h"

#include "base/file.h"
#include "tar/tar.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Compressed bytes read at a time; a pipe gives 64 KiB at most. */
#define BUF_CAP (512u << 10)

/* How often a thread that waits for a pipe looks whether it should stop: milliseconds. */
#define STOP_POLL 100

/* Inflate in steps whose output is still in the second-level cache for its CRC. */
#define INFLATE_STEP (256u << 10)
/* What a tar ends in: two blocks of zeros. */
#define TAR_END 1024

sgz_wrap sgz_io_wrap_of(const uint8_t *data, size_t len)
{
    if (len >= 2 && data[0] == 0x1f && data[1] == 0x8b)
        return SGZ_WRAP_GZIP;
    /* A zstd frame, or one of the skippable frames that may stand before it. */
    if (len >= 4 && ((data[0] == 0x28 && data[1] == 0xb5 && data[2] == 0x2f && data[3] == 0xfd)
                     || ((data[0] & 0xf0) == 0x50 && data[1] == 0x2a && data[2] == 0x4d
                         && data[3] == 0x18)))
        return SGZ_WRAP_ZSTD;
    return SGZ_WRAP_NONE;
}

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
}

sgz_status sgz_io_source_read(const sgz_source *source, uint8_t *out, size_t cap, size_t *got,
                              const char *name, sgz_error *err)
{
    int64_t n;
    *got = 0;
    if (source->read) {
        n = source->read(source->arg, out, cap);
        if (n < 0)
            return sgz_base_fail(err, SGZ_ECALLBACK, -1, NULL, 0, "reading the input failed");
    } else {
        const sgz_base_stop *stop = source->stop;
        struct pollfd ready = {.fd = source->fd, .events = POLLIN};
        int waited = 1;
        while (stop && !*stop && (waited = poll(&ready, 1, STOP_POLL)) == 0)
            ;
        if ((stop && *stop) || (waited < 0 && errno == EINTR))
            return sgz_base_fail(err, SGZ_ECANCELLED, -1, NULL, 0, "cancelled");
        do
            n = read(source->fd, out, cap);
        while (n < 0 && errno == EINTR);
        if (n < 0)
            return sgz_base_fail_errno(err, errno, "reading the input failed", name,
                                       name ? strlen(name) : 0);
    }
    *got = (size_t)n;
    return SGZ_OK;
}

/* One read of the source; *got = 0 only at its end. */
static sgz_status pull(sgz_input *input, uint8_t *out, size_t cap, size_t *got, sgz_error *err)
{
    *got = 0;
    if (input->source_end)
        return SGZ_OK;
    sgz_status status = sgz_io_source_read(&input->source, out, cap, got, NULL, err);
    if (status)
        return status;
    if (!*got)
        input->source_end = 1;
    input->source_pos += (int64_t)*got;
    return SGZ_OK;
}

static sgz_status refill(sgz_input *input, sgz_error *err)
{
    if (input->buf_pos < input->buf_len)
        return SGZ_OK;
    input->buf_pos = 0;
    return pull(input, input->buf, BUF_CAP, &input->buf_len, err);
}

sgz_status sgz_io_input_open(sgz_input *input, const sgz_codecs *codecs, sgz_source source,
                             sgz_error *err)
{
    memset(input, 0, sizeof *input);
    input->codecs = codecs;
    input->source = source;
    input->buf = malloc(BUF_CAP);
    return input->buf ? SGZ_OK : no_memory(err);
}

/* At least n bytes in the buffer, unless the source ends before. */
static sgz_status have(sgz_input *input, size_t n, sgz_error *err)
{
    while (input->buf_len - input->buf_pos < n && !input->source_end) {
        size_t got;
        input->buf_len -= input->buf_pos;
        memmove(input->buf, input->buf + input->buf_pos, input->buf_len);
        input->buf_pos = 0;
        sgz_status status = pull(input, input->buf + input->buf_len,
                                 BUF_CAP - input->buf_len, &got, err);
        if (status)
            return status;
        input->buf_len += got;
    }
    return SGZ_OK;
}

sgz_status sgz_io_input_peek(sgz_input *input, sgz_error *err)
{
    sgz_status status = have(input, 4, err);
    if (status)
        return status;
    input->wrap = sgz_io_wrap_of(input->buf, input->buf_len);
    return SGZ_OK;
}

/* What else layers and tars come compressed with; NULL when it is none of them. */
static const char *other_compression(const uint8_t *data, size_t len)
{
    static const struct { const char *magic, *name; } others[] = {
        {"\xfd" "7zX", "xz"}, {"BZh", "bzip2"}, {"\x04\x22\x4d\x18", "lz4"}, {"LZIP", "lzip"}};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (len >= strlen(others[i].magic)
            && !memcmp(data, others[i].magic, strlen(others[i].magic)))
            return others[i].name;
    return NULL;
}

sgz_status sgz_io_input_begin(sgz_input *input, int64_t memory, sgz_error *err)
{
    const sgz_codecs *codecs = input->codecs;
    const char *other = other_compression(input->buf, input->buf_len);
    if (other)
        return sgz_base_fail(err, SGZ_ETAR, 0, NULL, 0,
                             "%s is not read; decompress it first, and pipe the tar in", other);
    if (input->wrap == SGZ_WRAP_GZIP) {
        sgz_status status = sgz_codec_inflater_init(&input->inflater, codecs, err);
        if (status)
            return status;
        sgz_codec_inflater_reset(&input->inflater, 0);
    } else if (input->wrap == SGZ_WRAP_ZSTD) {
        input->memory = memory ? memory : SGZ_ZSTD_MEMORY;
        return sgz_codec_zstd_new(codecs, input->memory, &input->zstd, err);
    }
    return SGZ_OK;
}

sgz_status sgz_io_input_tokens(sgz_input *input, sgz_error *err)
{
    return input->wrap == SGZ_WRAP_GZIP ? sgz_codec_lz_reader_new(&input->lz, input->codecs, err)
                                        : SGZ_OK;
}

sgz_status sgz_io_input_open_extents(sgz_input *input, const sgz_codecs *codecs, int fd,
                                     const sgz_extent *extents, size_t count, sgz_error *err)
{
    (void)err;
    memset(input, 0, sizeof *input);
    input->codecs = codecs;
    input->source.fd = fd;
    input->extents = extents;
    input->extent_count = count;
    return SGZ_OK;
}

void sgz_io_input_close(sgz_input *input)
{
    if (!input->codecs)
        return;
    if (input->zstd)
        input->codecs->zstd.free_dstream(input->zstd);
    sgz_codec_inflater_free(&input->inflater);
    sgz_codec_lz_reader_free(input->lz);
    free(input->buf);
    memset(input, 0, sizeof *input);
}

static sgz_status read_extents(sgz_input *input, uint8_t *out, size_t cap, size_t *got,
                               sgz_error *err)
{
    while (*got < cap && input->extent_at < input->extent_count) {
        const sgz_extent *extent = &input->extents[input->extent_at];
        if (input->extent_pos < extent->start || input->extent_pos >= extent->end)
            input->extent_pos = extent->start;
        int64_t left = extent->end - input->extent_pos;
        size_t want = cap - *got;
        if ((int64_t)want > left)
            want = (size_t)left;
        int64_t n = sgz_base_read_all(input->source.fd, out + *got, want, input->extent_pos);
        if (n < 0)
            return sgz_base_fail_errno(err, (int)-n, "reading the spooled tar failed", NULL, 0);
        if ((size_t)n < want && left - n < SGZ_TAR_BLOCK) {
            /* The last padding, which some writers leave out. */
            memset(out + *got + n, 0, want - (size_t)n);
            n = (int64_t)want;
        }
        if ((size_t)n < want)
            return sgz_base_fail(err, SGZ_ETAR, input->extent_pos + n, NULL, 0,
                                 "the input became shorter while it was read");
        *got += (size_t)n;
        input->source_pos += n;
        input->extent_pos += n;
        if (input->extent_pos >= extent->end) {
            input->extent_at++;
            input->extent_pos = -1;
        }
    }
    return SGZ_OK;
}

static sgz_status read_plain(sgz_input *input, uint8_t *out, size_t cap, size_t *got,
                             sgz_error *err)
{
    size_t have = input->buf_len - input->buf_pos;
    if (have) {
        *got = have < cap ? have : cap;
        memcpy(out, input->buf + input->buf_pos, *got);
        input->buf_pos += *got;
    }
    while (*got < cap) {
        size_t n;
        sgz_status status = pull(input, out + *got, cap - *got, &n, err);
        if (status || !n)
            return status;
        *got += n;
    }
    return SGZ_OK;
}

static void count_zeros(sgz_input *input, const uint8_t *data, size_t len)
{
    size_t zeros = 0;
    while (zeros < len && zeros < TAR_END && !data[len - 1 - zeros])
        zeros++;
    input->zeros = zeros == len ? input->zeros + len : zeros;
}

/* One step of it: *made bytes; *end where the input ends. */
static sgz_status scan(sgz_input *input, uint8_t *out, size_t cap, size_t *made, int *end,
                       sgz_error *err)
{
    const uint8_t *in = input->buf + input->buf_pos;
    size_t in_len = input->buf_len - input->buf_pos;
    *end = !in_len;
    *made = 0;
    sgz_status status = sgz_codec_scan(input->scanner, &in, &in_len, out, cap, made, err);
    input->buf_pos = input->buf_len - in_len;
    *end = *end && !*made;
    if (!status && *end)
        status = sgz_codec_scan_end(input->scanner, err);
    return status;
}

static sgz_status not_ended(int64_t offset, sgz_error *err)
{
    return sgz_base_fail(err, SGZ_EDATA, offset, NULL, 0,
                         "bytes that are no gzip member, where the tar has not ended: the input is "
                         "damaged; get it again");
}

static sgz_status read_scanned(sgz_input *input, uint8_t *out, size_t cap, size_t *got,
                               sgz_error *err)
{
    for (int end = 0; *got < cap && !end;) {
        size_t room = cap - *got < INFLATE_STEP ? cap - *got : INFLATE_STEP, made = 0;
        sgz_status status = refill(input, err);
        if (!status)
            status = scan(input, out + *got, room, &made, &end, err);
        if (status)
            return status;
        count_zeros(input, out + *got, made);
        *got += made;
        if (sgz_codec_scan_garbage(input->scanner) && input->zeros < TAR_END)
            return not_ended(sgz_codec_scan_member_offset(input->scanner), err);
    }
    return SGZ_OK;
}

static sgz_status read_gzip(sgz_input *input, uint8_t *out, size_t cap, size_t *got,
                            sgz_error *err)
{
    const sgz_inflater *z = input->lz ? &input->lz->inflater : &input->inflater;
    while (*got < cap) {
        sgz_status status = refill(input, err);
        if (status)
            return status;
        const uint8_t *in = input->buf + input->buf_pos;
        size_t in_len = input->buf_len - input->buf_pos, made;
        int at_end = !in_len;
        size_t room = cap - *got < INFLATE_STEP ? cap - *got : INFLATE_STEP;
        status = input->lz ? sgz_codec_lz_read(input->lz, &in, &in_len, out + *got, room, &made, err)
                           : sgz_codec_inflate(&input->inflater, &in, &in_len, out + *got, room,
                                               &made, 0, err);
        if (status)
            return status;
        input->buf_pos = input->buf_len - in_len;
        count_zeros(input, out + *got, made);
        *got += made;
        if (z->garbage && input->zeros < TAR_END)
            return not_ended(z->member_offset, err);
        if (at_end && !made) {
            if (!sgz_codec_inflater_at_member_end(z))
                return sgz_base_fail(err, SGZ_EDATA, input->source_pos, NULL, 0,
                                     "truncated: the input ends inside a gzip member");
            return SGZ_OK;
        }
    }
    return SGZ_OK;
}

/* Zeros, to the end of the input: to whole blocks, as bsdtar pads what it writes to a pipe. */
static sgz_status pass_padding(sgz_input *input, sgz_error *err)
{
    input->padded = 1;
    for (;;) {
        sgz_status status = refill(input, err);
        if (status || input->buf_pos == input->buf_len)
            return status;
        for (; input->buf_pos < input->buf_len; input->buf_pos++)
            if (input->buf[input->buf_pos])
                return sgz_base_fail(
                    err, SGZ_EDATA,
                    input->source_pos - (int64_t)(input->buf_len - input->buf_pos), NULL, 0,
                    "bytes that are neither a zstd frame nor zeros behind the last frame");
    }
}

static sgz_status read_zstd(sgz_input *input, uint8_t *out, size_t cap, size_t *got,
                            sgz_error *err)
{
    const sgz_zstd *lib = &input->codecs->zstd;
    while (*got < cap) {
        sgz_status status = input->frame_open ? refill(input, err)
                                              : have(input, SGZ_ZSTD_HEADER, err);
        if (status)
            return status;
        if (!input->frame_open && input->buf_pos < input->buf_len) {
            if (input->padded || !input->buf[input->buf_pos])
                return pass_padding(input, err);
            size_t len = input->buf_len - input->buf_pos;
            status = sgz_codec_zstd_check(input->buf + input->buf_pos, len, input->memory,
                                          input->source_pos - (int64_t)len, &input->blocks,
                                          err);
            if (status)
                return status;
            if (input->frame && input->buf[input->buf_pos] == 0x28)
                input->frame(input->frame_arg, sgz_io_input_used(input), *got);
        }
        sgz_zstd_in in = {input->buf, input->buf_len, input->buf_pos};
        sgz_zstd_out to = {out, cap, *got};
        if (in.pos == in.size && !input->frame_open)
            return SGZ_OK;
        size_t hint = lib->decompress_stream(input->zstd, &to, &in);
        if (lib->is_error(hint))
            return sgz_base_fail(err, SGZ_EDATA,
                                 input->source_pos
                                     - (int64_t)(in.size - (input->frame_open ? in.pos
                                                                              : input->buf_pos)),
                                 NULL, 0, "corrupt zstd frame: %s", lib->error_name(hint));
        status = sgz_codec_zstd_follow(&input->blocks, input->buf + input->buf_pos,
                                       in.pos - input->buf_pos, to.pos - *got, !hint,
                                       input->source_pos - (int64_t)(in.size - in.pos), err);
        if (status)
            return status;
        if (to.pos == *got && in.pos == input->buf_pos && in.pos == in.size)
            return sgz_base_fail(err, SGZ_EDATA, input->source_pos, NULL, 0,
                                 "truncated: the input ends inside a zstd frame");
        input->frame_open = hint != 0;
        input->buf_pos = in.pos;
        *got = to.pos;
    }
    return SGZ_OK;
}

sgz_status sgz_io_input_read(sgz_input *input, uint8_t *out, size_t cap, size_t *got,
                             sgz_error *err)
{
    sgz_status status;
    *got = 0;
    if (input->extents)
        status = read_extents(input, out, cap, got, err);
    else if (input->wrap == SGZ_WRAP_GZIP)
        status = input->scanner ? read_scanned(input, out, cap, got, err)
                                : read_gzip(input, out, cap, got, err);
    else if (input->wrap == SGZ_WRAP_ZSTD)
        status = read_zstd(input, out, cap, got, err);
    else
        status = read_plain(input, out, cap, got, err);
    return status;
}

unsigned sgz_io_input_note(const sgz_input *input)
{
    int garbage = input->scanner ? sgz_codec_scan_garbage(input->scanner)
                  : input->lz        ? input->lz->inflater.garbage
                                     : input->inflater.garbage;
    return garbage == SGZ_GARBAGE ? SGZ_NOTE_BIT(GARBAGE) : 0;
}
