/* Writing members: see codec/gzip.h. */
#include "codec/gzip.h"

#include <stdlib.h>

#include "base/bytes.h"

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
}

sgz_status sgz_codec_deflater_init(sgz_deflater *d, const sgz_codecs *codecs, int level,
                                   sgz_error *err)
{
    memset(d, 0, sizeof *d);
    d->codecs = codecs;
    d->level = level;
    if (level > SGZ_LEVEL_ISAL_MAX) {
        d->libdeflate = codecs->libdeflate.alloc_compressor(level);
        return d->libdeflate ? SGZ_OK : no_memory(err);
    }
    if (!codecs->isal.pinned)
        return sgz_base_fail(
            err, SGZ_ECODEC, -1, NULL, 0,
            "this ISA-L compresses to other bytes than levels 1 and 2 promise; use "
            "ISA-L 2.30 to 2.32 (pip install 'isal>=1.7,<1.10')");
    d->stream = sgz_codec_isal_stream_new();
    d->level_buf = malloc(SGZ_ISAL_LEVEL2_BUF);
    if (!d->stream || !d->level_buf) {
        sgz_codec_deflater_free(d);
        return no_memory(err);
    }
    codecs->isal.deflate_init(d->stream);
    return SGZ_OK;
}

void sgz_codec_deflater_free(sgz_deflater *d)
{
    if (d->libdeflate)
        d->codecs->libdeflate.free_compressor(d->libdeflate);
    sgz_codec_isal_stream_free(d->stream);
    free(d->level_buf);
    memset(d, 0, sizeof *d);
}

size_t sgz_codec_member_header(int level, int toc_extra, uint8_t *out)
{
    static const uint8_t fixed[SGZ_GZIP_HEADER] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255};
    /* XLEN and "stargz.toc" without subfield structure, as google/crfs writes it. */
    static const uint8_t extra[] = {10, 0, 's', 't', 'a', 'r', 'g', 'z', '.', 't', 'o', 'c'};
    memcpy(out, fixed, sizeof fixed);
    out[8] = level == 1 ? 4 : level >= 9 ? 2 : 0;
    if (!toc_extra)
        return sizeof fixed;
    out[3] = 4;
    memcpy(out + sizeof fixed, extra, sizeof extra);
    return sizeof fixed + sizeof extra;
}

size_t sgz_codec_member_trailer(uint32_t crc, uint32_t size, uint8_t *out)
{
    sgz_put_le32(out, crc);
    sgz_put_le32(out + 4, size);
    return SGZ_GZIP_TRAILER;
}

static void isal_begin(sgz_deflater *d)
{
    sgz_isal_zstream *z = d->stream;
    d->codecs->isal.deflate_reset(z);
    z->level = (uint32_t)d->level;
    z->level_buf = d->level_buf;
    z->level_buf_size = d->level == 1 ? SGZ_ISAL_LEVEL1_BUF : SGZ_ISAL_LEVEL2_BUF;
}

static sgz_status isal_piece(sgz_deflater *d, const uint8_t *in, size_t len, int last,
                             uint8_t *out, size_t cap, size_t *made, sgz_error *err)
{
    sgz_isal_zstream *z = d->stream;
    uint32_t room = cap > UINT32_MAX ? UINT32_MAX : (uint32_t)cap;
    z->end_of_stream = (uint16_t)last;
    z->next_in = (uint8_t *)in;
    z->avail_in = (uint32_t)len;
    z->next_out = out;
    z->avail_out = room;
    if (d->codecs->isal.deflate(z) != 0 || z->avail_in || !z->avail_out)
        return sgz_base_fail(err, SGZ_ECODEC, -1, NULL, 0, "deflate of %zu bytes failed", len);
    *made = room - z->avail_out;
    return SGZ_OK;
}

sgz_status sgz_codec_deflate_member(sgz_deflater *d, const uint8_t *in, size_t len,
                                    int toc_extra, uint8_t *out, size_t out_cap, size_t *out_len,
                                    sgz_error *err)
{
    if (len > UINT32_MAX / 2 || out_cap < sgz_codec_member_bound(len))
        return sgz_base_fail(err, SGZ_ECODEC, -1, NULL, 0, "a member of %zu bytes is too large",
                             len);
    size_t at = sgz_codec_member_header(d->level, toc_extra, out), made = 0;
    size_t room = out_cap - at - SGZ_GZIP_TRAILER;
    if (d->level > SGZ_LEVEL_ISAL_MAX) {
        made = d->codecs->libdeflate.deflate_compress(d->libdeflate, in, len, out + at, room);
        if (!made)
            return sgz_base_fail(err, SGZ_ECODEC, -1, NULL, 0, "deflate of %zu bytes failed",
                                 len);
    } else {
        isal_begin(d);
        sgz_status status = isal_piece(d, in, len, 1, out + at, room, &made, err);
        if (status)
            return status;
    }
    at += made;
    *out_len = at +
               sgz_codec_member_trailer(sgz_codec_crc32(d->codecs, 0, in, len), (uint32_t)len, out + at);
    return SGZ_OK;
}

void sgz_codec_member_begin(sgz_codec_member_stream *m, sgz_deflater *d, int toc_extra,
                            uint8_t *out, size_t *out_len)
{
    m->deflater = d;
    m->crc = m->size = 0;
    isal_begin(d);
    *out_len = sgz_codec_member_header(d->level, toc_extra, out);
}

sgz_status sgz_codec_member_piece(sgz_codec_member_stream *m, const uint8_t *in, size_t len,
                                  int last, uint8_t *out, size_t out_cap, size_t *out_len,
                                  sgz_error *err)
{
    sgz_status status = isal_piece(m->deflater, in, len, last, out,
                                   out_cap - SGZ_GZIP_TRAILER, out_len, err);
    m->crc = sgz_codec_crc32(m->deflater->codecs, m->crc, in, len);
    m->size += (uint32_t)len;
    if (!status && last)
        *out_len += sgz_codec_member_trailer(m->crc, m->size, out + *out_len);
    return status;
}
