#include "write/chunked_end.h"

#include "base/bytes.h"
#include "toc/rows.h"

#include <stdlib.h>
#include <string.h>

#define TOC_TYPE 1

typedef struct {
    sgz_framer framer;
    sgz_sha256 json_sha;
    const sgz_codecs *codecs;
    uint8_t *out;           /* the TOC's frame: its length stands before it */
    size_t len, cap;
    sgz_status status;
    sgz_error err;
} toc_frame;

static sgz_status take(void *arg, const uint8_t *data, size_t len, sgz_error *err)
{
    toc_frame *t = arg;
    if (!SGZ_FIT(t->out, t->cap, t->len + len))
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the TOC");
    memcpy(t->out + t->len, data, len);
    t->len += len;
    return SGZ_OK;
}

static int take_json(void *arg, const char *data, size_t len)
{
    toc_frame *t = arg;
    sgz_codec_sha256_update(t->codecs, &t->json_sha, data, len);
    t->status = sgz_codec_frame_piece(&t->framer, (const uint8_t *)data, len, 0, take, t, &t->err);
    return t->status != SGZ_OK;
}

static sgz_status format(const sgz_toc *toc, const sgz_toc_kept *kept, const uint8_t split[32],
                         sgz_toc_emit emit, void *arg, uint64_t *len, sgz_error *err)
{
    return kept ? sgz_toc_kept_format(kept, split, emit, arg, len, err)
                : sgz_toc_format(toc, 0, emit, arg, len, err);
}

static sgz_status make_toc(toc_frame *t, const sgz_toc *toc, const sgz_toc_kept *kept,
                           const uint8_t split[32], int level, sgz_write_result *result,
                           sgz_error *err)
{
    uint64_t len;
    sgz_status status = format(toc, kept, split, NULL, NULL, &result->toc_size, err);
    if (!status)
        status = sgz_toc_check_size(toc, result->toc_size, err);
    if (!status)
        status = sgz_codec_framer_init(&t->framer, t->codecs, level, err);
    if (!status)
        status = sgz_codec_sha256_new(t->codecs, &t->json_sha, err);
    if (!status)
        status = sgz_codec_frame_begin(&t->framer, (int64_t)result->toc_size, err);
    if (status)
        return status;
    sgz_codec_sha256_init(t->codecs, &t->json_sha);
    status = format(toc, kept, split, take_json, t, &len, err);
    if (t->status) {
        *err = t->err;
        return t->status;
    }
    if (!status)
        status = sgz_codec_frame_piece(&t->framer, NULL, 0, 1, take, t, err);
    sgz_codec_sha256_final(t->codecs, &t->json_sha, result->toc_digest);
    return status;
}

static sgz_status put_skippable(sgz_write_blob *w, const uint8_t *data, size_t len, sgz_error *err)
{
    uint8_t head[SGZ_SKIPPABLE_HEADER];
    if (len > UINT32_MAX)
        return sgz_base_fail(err, SGZ_ETAR, -1, NULL, 0,
                             "its TOC would take more than 4 GiB, which a frame cannot hold");
    sgz_codec_skippable(head, (uint32_t)len);
    sgz_status status = sgz_write_blob_put(w, head, sizeof head, err);
    return status ? status : sgz_write_blob_put(w, data, len, err);
}

static sgz_status put_footer(sgz_write_blob *w, const uint64_t *fields, size_t count,
                             const char *magic, sgz_error *err)
{
    uint8_t footer[64];
    for (size_t i = 0; i < count; i++)
        sgz_put_le64(footer + 8 * i, fields[i]);
    memcpy(footer + 8 * count, magic, 8);
    return put_skippable(w, footer, 8 * count + 8, err);
}

static void digest(const sgz_codecs *codecs, sgz_sha256 *sha, const uint8_t *data, size_t len,
                   uint8_t out[32])
{
    sgz_codec_sha256_init(codecs, sha);
    sgz_codec_sha256_update(codecs, sha, data, len);
    sgz_codec_sha256_final(codecs, sha, out);
}

sgz_status sgz_write_chunked_finish(sgz_write_blob *w, const sgz_toc *toc,
                                    const sgz_toc_kept *kept, sgz_write_split *split, int level,
                                    sgz_write_result *result, sgz_error *err)
{
    toc_frame t = {.codecs = w->codecs};
    sgz_sha256 sha = {0};
    uint8_t split_digest[32] = {0};
    sgz_status status = sgz_codec_sha256_new(w->codecs, &sha, err);
    if (!status && split) {
        status = sgz_write_split_finish(split, err);
        digest(w->codecs, &sha, split->out, split->out_len, split_digest);
    }
    if (!status)
        status = make_toc(&t, toc, kept, split_digest, level, result, err);
    if (!status) {
        digest(w->codecs, &sha, t.out, t.len, result->toc_checksum);
        result->toc_offset = w->position + SGZ_SKIPPABLE_HEADER;
        result->toc_packed = (int64_t)t.len;
        status = put_skippable(w, t.out, t.len, err);
    }
    if (!status && split) {
        result->split_offset = w->position + SGZ_SKIPPABLE_HEADER;
        result->split_packed = (int64_t)split->out_len;
        result->split_size = split->size;
        status = put_skippable(w, split->out, split->out_len, err);
    }
    uint64_t fields[] = {(uint64_t)result->toc_offset, (uint64_t)result->toc_packed,
                         result->toc_size, TOC_TYPE, (uint64_t)result->split_offset,
                         (uint64_t)result->split_packed, (uint64_t)result->split_size};
    if (!status && split)
        status = put_footer(w, fields, 7, "GNUlInUx", err);
    if (!status)
        status = put_footer(w, fields, 4, "GnUlInUx", err);
    if (!status)
        sgz_write_blob_seal(w, toc, result);
    sgz_codec_framer_free(&t.framer);
    sgz_codec_sha256_free(w->codecs, &t.json_sha);
    sgz_codec_sha256_free(w->codecs, &sha);
    free(t.out);
    return status;
}
