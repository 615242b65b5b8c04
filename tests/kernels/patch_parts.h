/* What the kernel test and the fuzz target of patches share: a BASE, and patches put together or
 * put right. The includer defines CHECK. */
#ifndef SGZ_PATCH_PARTS_H
#define SGZ_PATCH_PARTS_H

#include "patch/apply.h"
#include "toc/footer.h"

#include <string.h>

#define PARTS_JSON "{\n\t\"entries\": [\n\t\t\"offset\": 0,\n\t\t\"offset\": 40\n\t]\n}"

typedef struct {
    uint8_t *data;          /* exactly as long as it is: nothing can be read beyond */
    size_t len, second, toc, toc_end;
    uint8_t digest[32];
} parts_base;

typedef struct {
    uint8_t *data;
    size_t len, cap;
} parts_bytes;

static inline void parts_put(parts_bytes *b, const void *data, size_t len)
{
    if (b->cap - b->len < len) {
        b->cap = 2 * (b->len + len);
        CHECK(b->data = realloc(b->data, b->cap));
    }
    if (len)
        memcpy(b->data + b->len, data, len);
    b->len += len;
}

static inline void parts_sha256(const sgz_codecs *codecs, const void *data, size_t len,
                                uint8_t digest[32])
{
    sgz_sha256 sha;
    CHECK(!sgz_codec_sha256_new(codecs, &sha, NULL));
    sgz_codec_sha256_init(codecs, &sha);
    sgz_codec_sha256_update(codecs, &sha, data, len);
    sgz_codec_sha256_final(codecs, &sha, digest);
    sgz_codec_sha256_free(codecs, &sha);
}

/* Two members of whole blocks, one with a text and one with all bytes, and a TOC. */
static inline parts_base parts_make_base(const sgz_codecs *codecs)
{
    uint8_t contents[1024], packed[2048], *toc;
    size_t len, toc_len;
    sgz_deflater deflater;
    sgz_error err;
    parts_bytes b = {0};
    parts_base base = {0};
    CHECK(!sgz_codec_deflater_init(&deflater, codecs, 1, &err));
    for (int i = 0; i < 512; i++)
        contents[i] = (uint8_t)"first member!!! "[i % 16];
    CHECK(!sgz_codec_deflate_member(&deflater, contents, 512, 0, packed, sizeof packed, &len,
                                    &err));
    parts_put(&b, packed, len);
    base.second = b.len;
    for (int i = 0; i < 1024; i++)
        contents[i] = (uint8_t)i;
    CHECK(!sgz_codec_deflate_member(&deflater, contents, 1024, 0, packed, sizeof packed, &len,
                                    &err));
    parts_put(&b, packed, len);
    base.toc = b.len;
    sgz_codec_deflater_free(&deflater);
    CHECK(!sgz_toc_footer_members(codecs, (const uint8_t *)PARTS_JSON, sizeof PARTS_JSON - 1,
                                  (int64_t)base.toc, 1, 0, &toc, &toc_len, &err));
    parts_put(&b, toc, toc_len);
    free(toc);
    base.len = b.len;
    base.toc_end = b.len - 51;
    CHECK(base.data = malloc(b.len));
    memcpy(base.data, b.data, b.len);
    free(b.data);
    parts_sha256(codecs, base.data, base.len, base.digest);
    return base;
}

/* --- numbers ------------------------------------------------------------------------------- */

static inline void parts_set32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static inline void parts_set64(uint8_t *at, uint64_t value)
{
    parts_set32(at, (uint32_t)value);
    parts_set32(at + 4, (uint32_t)(value >> 32));
}

static inline uint64_t parts_get64(const uint8_t *at)
{
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--)
        value = value << 8 | at[i];
    return value;
}

static inline void parts_varint(parts_bytes *b, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        parts_put(b, (uint8_t[]){(uint8_t)(value | 0x80)}, 1);
    parts_put(b, (uint8_t[]){(uint8_t)value}, 1);
}

static inline void parts_zigzag(parts_bytes *b, int64_t value)
{
    parts_varint(b, (uint64_t)value << 1 ^ (uint64_t)(value >> 63));
}

/* --- frames -------------------------------------------------------------------------------- */

static inline void parts_set_crc(const sgz_codecs *codecs, uint8_t *frame, size_t len)
{
    uint32_t crc = sgz_codec_crc32(codecs, 0, frame, 8);
    parts_set32(frame + 8, sgz_codec_crc32(codecs, crc, frame + 12, len));
}

static inline void parts_frame(const sgz_codecs *codecs, parts_bytes *b, char type,
                               const void *payload, size_t len)
{
    uint8_t header[12] = {(uint8_t)type};
    size_t at = b->len;
    parts_set32(header + 4, (uint32_t)len);
    parts_put(b, header, sizeof header);
    parts_put(b, payload, len);
    parts_set_crc(codecs, b->data + at, len);
}

static inline void parts_end(const sgz_codecs *codecs, parts_bytes *b)
{
    uint8_t digest[32];
    parts_sha256(codecs, b->data, b->len, digest);
    parts_frame(codecs, b, 'E', digest, sizeof digest);
}

/* Where the head's numbers are, from the patch's beginning. */
enum { PARTS_HEAD = 8 + 12, PARTS_HEAD_END = PARTS_HEAD + SGZ_PATCH_HEAD_SIZE };

static inline void parts_head(const sgz_codecs *codecs, parts_bytes *b, const parts_base *base,
                              uint32_t level, int64_t new_size, int64_t toc_offset,
                              uint64_t json_size)
{
    uint8_t head[SGZ_PATCH_HEAD_SIZE] = {1};
    parts_set32(head + 4, level);
    parts_set64(head + 12, base->len);
    parts_set64(head + 20, (uint64_t)new_size);
    memcpy(head + 28, base->digest, 32);
    parts_set64(head + 92, (uint64_t)toc_offset);
    parts_set64(head + 100, json_size);
    parts_set64(head + 108, base->toc);
    parts_set64(head + 116, base->toc_end);
    parts_set64(head + 124, sizeof PARTS_JSON - 1);
    memcpy(head + 132, "isa-l", 5);
    parts_put(b, SGZ_PATCH_MAGIC, 8);
    parts_frame(codecs, b, 'H', head, sizeof head);
}

/* Give the patch this NEW, and the checksums that go with it; its last frame is 'E'. */
static inline void parts_set_new(const sgz_codecs *codecs, parts_bytes *b,
                                 const uint8_t digest[32])
{
    memcpy(b->data + PARTS_HEAD + 60, digest, 32);
    parts_set_crc(codecs, b->data + 8, SGZ_PATCH_HEAD_SIZE);
    b->len -= 12 + 32;
    parts_end(codecs, b);
}

/* --- applying ------------------------------------------------------------------------------ */

typedef struct {
    const uint8_t *data;
    size_t len, at, step;
} parts_source;

static inline int64_t parts_read(void *arg, uint8_t *out, size_t cap)
{
    parts_source *s = arg;
    size_t n = s->len - s->at;
    n = n < cap ? n : cap;
    n = n < s->step ? n : s->step;
    if (n)
        memcpy(out, s->data + s->at, n);
    s->at += n;
    return (int64_t)n;
}

static inline int parts_write(void *arg, const uint8_t *data, size_t len)
{
    parts_put(arg, data, len);
    return 0;
}

typedef struct {
    size_t step;            /* bytes that the source gives at a time */
    int spool;              /* a descriptor, or -1 */
    int threads;
    int cancel;             /* as soon as it runs */
} parts_how;

static inline sgz_status parts_apply(const sgz_codecs *codecs, const parts_base *base,
                                     const parts_bytes *patch, parts_how how, parts_bytes *out,
                                     sgz_patch_head *head, sgz_patch_result *result,
                                     sgz_error *err)
{
    sgz_base_job job;
    sgz_base_job_init(&job);
    parts_source from = {patch->data, patch->len, 0, how.step};
    sgz_source source = {.fd = -1, .read = parts_read, .arg = &from, .stop = &job.stop};
    sgz_sink sink = {.fd = -1, .write = parts_write, .arg = out, .stop = &job.stop};
    sgz_blob blob = {.data = base->data, .fd = -1, .size = (int64_t)base->len};
    sgz_patch_reader reader;
    out->len = 0;
    CHECK(!sgz_patch_open(&reader, codecs, source, NULL, err));
    sgz_status status = sgz_patch_read_head(&reader, head, err);
    if (!status && head->base_size != blob.size)
        status = sgz_base_fail(err, SGZ_EDIGEST, -1, "BASE", 4, "another size");
    if (!status) {
        sgz_patch_apply *apply;
        CHECK(!sgz_patch_apply_start(&apply, &job, codecs, &reader, head, &blob, &sink,
                                     how.spool, 0, how.threads, err));
        if (how.cancel)
            sgz_base_job_cancel(&job);
        status = sgz_patch_apply_finish(apply, result, err);
    }
    sgz_patch_close(&reader);
    sgz_base_job_free(&job);
    CHECK(!status || (err->code == status && err->message[0]));
    return status;
}

#endif
