#include "patch/frames.h"

#include "base/bytes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC_LEN 8
#define FRAME_HEADER 12
#define BUF_CAP (FRAME_HEADER + SGZ_PATCH_FRAME + (256u << 10)) /* one frame, and what follows */

sgz_status sgz_patch_fail(const sgz_patch_reader *r, sgz_error *err, const char *format, ...)
{
    char message[192];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    return sgz_base_fail(err, SGZ_EPATCH, r->offset, NULL, 0, "%s; get the patch again",
                         message);
}

sgz_status sgz_patch_open(sgz_patch_reader *r, const sgz_codecs *codecs, sgz_source source,
                          const char *name, sgz_error *err)
{
    memset(r, 0, sizeof *r);
    r->codecs = codecs;
    r->source = source;
    r->name = name;
    r->buf = malloc(BUF_CAP);
    /* One byte more than a payload may have tells a longer one. */
    r->raw = malloc(SGZ_PATCH_FRAME + 1);
    r->state = aligned_alloc(64, (sizeof *r->state + 63) / 64 * 64);
    if (!r->buf || !r->raw || !r->state)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
    codecs->isal.inflate_init(r->state);
    sgz_status status = sgz_codec_sha256_new(codecs, &r->sha, err);
    if (!status)
        sgz_codec_sha256_init(codecs, &r->sha);
    return status;
}

void sgz_patch_close(sgz_patch_reader *r)
{
    if (!r->codecs)
        return;
    sgz_codec_sha256_free(r->codecs, &r->sha);
    free(r->buf);
    free(r->raw);
    free(r->state);
    memset(r, 0, sizeof *r);
}

/* Have `need` bytes of the next frame, or all there are. May be called again when it was
 * cancelled. */
static sgz_status fill(sgz_patch_reader *r, size_t need, sgz_error *err)
{
    while (r->len - r->pos < need && !r->source_end) {
        size_t got;
        if (r->pos) {
            memmove(r->buf, r->buf + r->pos, r->len - r->pos);
            r->len -= r->pos;
            r->pos = 0;
        }
        sgz_status status = sgz_io_source_read(&r->source, r->buf + r->len, BUF_CAP - r->len,
                                               &got, r->name, err);
        if (status)
            return status;
        if (!got)
            r->source_end = 1;
        r->len += got;
    }
    return SGZ_OK;
}

static sgz_status inflate(sgz_patch_reader *r, const uint8_t *in, size_t len, sgz_error *err)
{
    sgz_isal_inflate_state *s = r->state;
    r->codecs->isal.inflate_reset(s);
    s->next_in = (uint8_t *)in;
    s->avail_in = (uint32_t)len;
    s->next_out = r->raw;
    s->avail_out = SGZ_PATCH_FRAME + 1;
    int code = r->codecs->isal.inflate(s);
    sgz_codec_isal_done(r->codecs);
    r->payload = r->raw;
    r->payload_len = SGZ_PATCH_FRAME + 1 - s->avail_out;
    if (code < 0)
        return sgz_patch_fail(r, err, "a frame does not inflate");
    if (r->payload_len > SGZ_PATCH_FRAME)
        return sgz_patch_fail(r, err, "a frame inflates to more than %u bytes", SGZ_PATCH_FRAME);
    if (s->block_state != SGZ_ISAL_BLOCK_FINISH)
        return sgz_patch_fail(r, err, "the deflate data of a frame ends early");
    /* What is left: in the input, or as whole bytes in the bit buffer. */
    if (s->avail_in || s->read_in_length >= 8)
        return sgz_patch_fail(r, err, "bytes follow the deflate data of a frame");
    return SGZ_OK;
}

/* The frame whose header and payload are in the buffer. */
static sgz_status check_frame(sgz_patch_reader *r, const uint8_t *frame, size_t len,
                              sgz_error *err)
{
    const uint8_t *payload = frame + FRAME_HEADER;
    uint32_t crc = sgz_codec_crc32(r->codecs, 0, frame, 8);
    crc = sgz_codec_crc32(r->codecs, crc, payload, len);
    if (crc != sgz_get_le32(frame + 8))
        return sgz_patch_fail(r, err, "a frame is damaged: its CRC-32 is %08x, it says %08x",
                              crc, sgz_get_le32(frame + 8));
    r->type = frame[0];
    if (!r->type || !strchr("HDMTE", r->type))
        return sgz_patch_fail(r, err, "a frame of the unknown type %u", r->type);
    if (frame[1] > 1 || frame[2] || frame[3])
        return sgz_patch_fail(r, err, "a frame with unknown flags");
    if (frame[1] && (r->type == 'H' || r->type == 'E'))
        return sgz_patch_fail(r, err, "a frame %c that is compressed", r->type);
    r->payload = payload;
    r->payload_len = len;
    return frame[1] ? inflate(r, payload, len, err) : SGZ_OK;
}

static sgz_status check_end(sgz_patch_reader *r, sgz_error *err)
{
    uint8_t digest[32];
    if (r->payload_len != sizeof digest)
        return sgz_patch_fail(r, err, "a frame E of %zu bytes", r->payload_len);
    sgz_codec_sha256_final(r->codecs, &r->sha, digest);
    if (memcmp(digest, r->payload, sizeof digest))
        return sgz_patch_fail(r, err, "the patch is damaged: its sha256 is another one");
    sgz_status status = fill(r, 1, err);
    if (!status && r->pos < r->len) {
        r->offset = r->size;
        return sgz_patch_fail(r, err, "bytes follow the end of the patch");
    }
    return status;
}

sgz_status sgz_patch_next(sgz_patch_reader *r, sgz_error *err)
{
    r->offset = r->size;
    sgz_status status = fill(r, FRAME_HEADER, err);
    if (status)
        return status;
    if (r->len - r->pos < FRAME_HEADER)
        return sgz_patch_fail(r, err, "the patch is cut off");
    size_t len = sgz_get_le32(r->buf + r->pos + 4);
    if (len > SGZ_PATCH_FRAME)
        return sgz_patch_fail(r, err, "a frame of %zu bytes, more than %u", len,
                              SGZ_PATCH_FRAME);
    status = fill(r, FRAME_HEADER + len, err);
    if (status)
        return status;
    if (r->len - r->pos < FRAME_HEADER + len)
        return sgz_patch_fail(r, err, "the patch is cut off");
    const uint8_t *frame = r->buf + r->pos;
    status = check_frame(r, frame, len, err);
    if (status)
        return status;
    r->pos += FRAME_HEADER + len;
    r->size += (int64_t)(FRAME_HEADER + len);
    if (r->type == 'E')
        return check_end(r, err);
    sgz_codec_sha256_update(r->codecs, &r->sha, frame, FRAME_HEADER + len);
    return SGZ_OK;
}

/* --- head ---------------------------------------------------------------------------------- */

static void unpack(const uint8_t *at, sgz_patch_head *head)
{
    head->version = sgz_get_le32(at);
    head->level = sgz_get_le32(at + 4);
    head->legacy = sgz_get_le32(at + 8);
    head->base_size = (int64_t)sgz_get_le64(at + 12);
    head->new_size = (int64_t)sgz_get_le64(at + 20);
    memcpy(head->base_digest, at + 28, 32);
    memcpy(head->new_digest, at + 60, 32);
    head->new_toc_offset = (int64_t)sgz_get_le64(at + 92);
    head->toc_json_size = sgz_get_le64(at + 100);
    head->base_toc_offset = (int64_t)sgz_get_le64(at + 108);
    head->base_toc_end = (int64_t)sgz_get_le64(at + 116);
    head->base_json_size = sgz_get_le64(at + 124);
    memcpy(head->engine, at + 132, SGZ_PATCH_ENGINE);
}

static int is_sound(const sgz_patch_head *head)
{
    int64_t both;
    /* A name, and zeros to the end. */
    size_t len = strnlen(head->engine, SGZ_PATCH_ENGINE);
    for (size_t i = 0; i < SGZ_PATCH_ENGINE; i++)
        if (i < len ? head->engine[i] < ' ' || head->engine[i] > '~' : head->engine[i])
            return 0;
    if (head->level && !len)
        return 0;
    return head->level <= SGZ_LEVEL_MAX && head->legacy <= 1 && head->base_size >= 0 &&
           !__builtin_add_overflow(head->base_size, head->new_size, &both) && /* as progress */
           head->new_toc_offset >= 0 && head->new_toc_offset <= head->new_size &&
           head->base_toc_offset >= 0 && head->base_toc_offset <= head->base_toc_end &&
           head->base_toc_end <= head->base_size && (head->level || !head->toc_json_size);
}

sgz_status sgz_patch_read_head(sgz_patch_reader *r, sgz_patch_head *head, sgz_error *err)
{
    _Static_assert(SGZ_PATCH_HEAD_SIZE == 132 + SGZ_PATCH_ENGINE, "as it is unpacked");
    if (!r->size) {
        sgz_status status = fill(r, MAGIC_LEN, err);
        if (status)
            return status;
        if (r->len < MAGIC_LEN || memcmp(r->buf, SGZ_PATCH_MAGIC, MAGIC_LEN))
            return sgz_base_fail(err, SGZ_EPATCH, 0, NULL, 0,
                                 "this is not a patch; 'stargz delta' makes them");
        sgz_codec_sha256_update(r->codecs, &r->sha, r->buf, MAGIC_LEN);
        r->pos = MAGIC_LEN;
        r->size = MAGIC_LEN;
    }
    sgz_status status = sgz_patch_next(r, err);
    if (status)
        return status;
    if (r->type != 'H' || r->payload_len < 4)
        return sgz_patch_fail(r, err, "the patch does not begin with its head");
    uint32_t version = sgz_get_le32(r->payload);
    if (version != SGZ_PATCH_VERSION)
        return sgz_base_fail(err, SGZ_EPATCH, r->offset, NULL, 0,
                             "a patch of version %u; this stargz reads version %d", version,
                             SGZ_PATCH_VERSION);
    if (r->payload_len != SGZ_PATCH_HEAD_SIZE)
        return sgz_patch_fail(r, err, "a head of %zu bytes", r->payload_len);
    unpack(r->payload, head);
    if (!is_sound(head))
        return sgz_patch_fail(r, err, "the numbers in its head contradict each other");
    if (head->toc_json_size > SGZ_PATCH_JSON_MAX || head->base_json_size > SGZ_PATCH_JSON_MAX)
        return sgz_patch_fail(r, err, "a TOC of more than 1 GiB");
    return SGZ_OK;
}
