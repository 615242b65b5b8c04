#include "codec/frames.h"

#include "base/bytes.h"

#include <stdlib.h>
#include <string.h>

/* Of zstd.h. */
enum { LEVEL = 100, WINDOW_LOG = 101, CHECKSUM_FLAG = 201 };
enum { SESSION_ONLY = 1 };
enum { CONTINUE = 0, END = 2 };

#define PIECE ((size_t)128 << 10)
/* Of frames in pieces, of any level: that of level 3. At 19 a compressor would take 90 MB. */
#define PIECES_WINDOW_LOG 21

static sgz_status failed(const sgz_framer *f, size_t code, sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ECODEC, -1, NULL, 0, "zstd cannot compress: %s",
                         f->codecs->zstd.error_name(code));
}

sgz_status sgz_codec_framer_init(sgz_framer *f, const sgz_codecs *codecs, int level, sgz_error *err)
{
    const sgz_zstd *lib = &codecs->zstd;
    f->codecs = codecs;
    if (!lib->create_cctx)
        return sgz_base_fail(err, SGZ_ECODEC, -1, NULL, 0, "libzstd is not loaded");
    f->ctx = lib->create_cctx();
    if (!f->ctx)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
    size_t code = lib->cctx_set_parameter(f->ctx, LEVEL, level);
    if (!lib->is_error(code))
        code = lib->cctx_set_parameter(f->ctx, CHECKSUM_FLAG, 1);
    return lib->is_error(code) ? failed(f, code, err) : SGZ_OK;
}

void sgz_codec_framer_free(sgz_framer *f)
{
    if (f->ctx)
        f->codecs->zstd.free_cctx(f->ctx);
    free(f->out);
    memset(f, 0, sizeof *f);
}

sgz_status sgz_codec_frame(sgz_framer *f, const uint8_t *in, size_t len, uint8_t *out, size_t cap,
                           size_t *out_len, sgz_error *err)
{
    const sgz_zstd *lib = &f->codecs->zstd;
    size_t made = lib->compress(f->ctx, out, cap, in, len);
    if (lib->is_error(made))
        return failed(f, made, err);
    *out_len = made;
    return SGZ_OK;
}

sgz_status sgz_codec_frame_begin(sgz_framer *f, sgz_error *err)
{
    const sgz_zstd *lib = &f->codecs->zstd;
    if (!f->out)
        f->out = malloc(PIECE);
    if (!f->out)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
    size_t code = lib->cctx_reset(f->ctx, SESSION_ONLY);
    if (!lib->is_error(code))
        code = lib->cctx_set_parameter(f->ctx, WINDOW_LOG, PIECES_WINDOW_LOG);
    /* If the first call were the last one, the size would be known. */
    sgz_zstd_in nothing = {NULL, 0, 0};
    sgz_zstd_out out = {f->out, PIECE, 0};
    if (!lib->is_error(code))
        code = lib->compress_stream(f->ctx, &out, &nothing, CONTINUE);
    return lib->is_error(code) ? failed(f, code, err) : SGZ_OK;
}

sgz_status sgz_codec_frame_piece(sgz_framer *f, const uint8_t *in, size_t len, int last,
                                 sgz_codec_take take, void *arg, sgz_error *err)
{
    const sgz_zstd *lib = &f->codecs->zstd;
    sgz_zstd_in source = {in, len, 0};
    size_t left;
    do {
        sgz_zstd_out out = {f->out, PIECE, 0};
        left = lib->compress_stream(f->ctx, &out, &source, last ? END : CONTINUE);
        if (lib->is_error(left))
            return failed(f, left, err);
        sgz_status status = out.pos ? take(arg, f->out, out.pos, err) : SGZ_OK;
        if (status)
            return status;
    } while (last ? left : source.pos < source.size);
    return SGZ_OK;
}

void sgz_codec_frame_sized(const uint8_t unsized[SGZ_FRAME_UNSIZED], uint64_t size,
                           uint8_t out[SGZ_FRAME_SIZED])
{
    /* Magic number, descriptor, window (RFC 8878, 3.1.1.1); bits 6 and 7: a size of 8 bytes. */
    memcpy(out, unsized, SGZ_FRAME_UNSIZED);
    out[4] |= 3 << 6;
    sgz_put_le64(out + SGZ_FRAME_UNSIZED, size);
}

void sgz_codec_skippable(uint8_t out[SGZ_SKIPPABLE_HEADER], uint32_t len)
{
    sgz_put_le32(out, 0x184d2a50);
    sgz_put_le32(out + 4, len);
}
