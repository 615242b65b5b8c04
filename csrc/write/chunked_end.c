#include "write/chunked_end.h"

#include "base/bytes.h"
#include "toc/rows.h"

#include <string.h>

#define TOC_TYPE 1

static int take_json(void *arg, const char *data, size_t len)
{
    sgz_write_chunked *t = arg;
    sgz_codec_sha256_update(t->frame.codecs, &t->json_sha, data, len);
    t->status = sgz_write_frame_put(&t->frame, data, len, &t->err);
    return t->status != SGZ_OK;
}

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the TOC");
}

sgz_status sgz_write_chunked_init(sgz_write_chunked *t, const sgz_codecs *codecs, int level,
                                  const char *dir, sgz_error *err)
{
    sgz_status status = sgz_write_frame_init(&t->frame, codecs, level, dir, err);
    if (!status)
        status = sgz_codec_sha256_new(codecs, &t->json_sha, err);
    if (status)
        return status;
    sgz_codec_sha256_init(codecs, &t->json_sha);
    t->json = sgz_toc_kept_json_new(take_json, t);
    t->rows.toc = sgz_toc_new();
    return t->json && t->rows.toc ? SGZ_OK : no_memory(err);
}

void sgz_write_chunked_free(sgz_write_chunked *t)
{
    if (t->frame.codecs)
        sgz_codec_sha256_free(t->frame.codecs, &t->json_sha);
    sgz_write_frame_free(&t->frame);
    sgz_toc_kept_json_free(t->json);
    sgz_toc_free(t->rows.toc);
    free(t->rows.times);
}

static sgz_status stopped(const sgz_write_chunked *t, sgz_status status, sgz_error *err)
{
    if (!t->status)
        return status;
    *err = t->err;
    return t->status;
}

sgz_status sgz_write_chunked_rows(sgz_write_chunked *t, sgz_toc_kept *kept, uint32_t until,
                                  pthread_mutex_t *lock, sgz_error *err)
{
    pthread_mutex_lock(lock);
    int none = until == kept->rows.first;
    sgz_status status = none ? SGZ_OK : sgz_toc_kept_take(&kept->rows, until, &t->rows, err);
    pthread_mutex_unlock(lock);
    if (none || status)
        return status;
    for (size_t i = 0; i < t->rows.toc->count; i++) {
        const sgz_entry *row = &t->rows.toc->rows[i];
        t->entries += !sgz_toc_is_piece(row);
        t->chunks += row->chunk_size != 0;
    }
    sgz_toc_kept_json_rows(t->json, &t->rows);
    return stopped(t, SGZ_OK, err);
}

static sgz_status finish_toc(sgz_write_chunked *t, const sgz_toc *toc, const sgz_toc_kept *kept,
                             const uint8_t split[32], sgz_write_result *result, sgz_error *err)
{
    sgz_status status =
        kept ? sgz_toc_kept_json_end(t->json, split, &result->toc_size, err)
             : sgz_toc_format(toc, 0, take_json, t, &result->toc_size, err);
    status = stopped(t, status, err);
    if (!status)
        status = kept ? sgz_toc_kept_check_size(kept, result->toc_size, err)
                      : sgz_toc_check_size(toc, result->toc_size, err);
    if (status)
        return status;
    sgz_codec_sha256_final(t->frame.codecs, &t->json_sha, result->toc_digest);
    return sgz_write_frame_finish(&t->frame, &result->toc_packed, result->toc_checksum, err);
}

static sgz_status put_footer(sgz_write_blob *w, const uint64_t *fields, size_t count,
                             const char *magic, sgz_error *err)
{
    uint8_t footer[64];
    for (size_t i = 0; i < count; i++)
        sgz_put_le64(footer + 8 * i, fields[i]);
    memcpy(footer + 8 * count, magic, 8);
    return sgz_write_skippable(w, footer, 8 * count + 8, err);
}

sgz_status sgz_write_chunked_finish(sgz_write_chunked *t, sgz_write_blob *w, const sgz_toc *toc,
                                    const sgz_toc_kept *kept, sgz_write_split *split,
                                    sgz_write_result *result, sgz_error *err)
{
    uint8_t digest[32];
    sgz_status status = SGZ_OK;
    if (split) {
        status = sgz_write_split_finish(split, &result->split_packed, digest, err);
        result->split_size = (int64_t)split->frame.size;
    }
    if (!status)
        status = finish_toc(t, toc, kept, digest, result, err);
    if (!status)
        status = sgz_write_frame_append(&t->frame, w, &result->toc_offset, err);
    if (!status && split)
        status = sgz_write_frame_append(&split->frame, w, &result->split_offset, err);
    uint64_t fields[] = {(uint64_t)result->toc_offset, (uint64_t)result->toc_packed,
                         result->toc_size, TOC_TYPE, (uint64_t)result->split_offset,
                         (uint64_t)result->split_packed, (uint64_t)result->split_size};
    if (!status && split)
        status = put_footer(w, fields, 7, "GNUlInUx", err);
    if (!status)
        status = put_footer(w, fields, 4, "GnUlInUx", err);
    if (status)
        return status;
    sgz_write_blob_seal(w, toc, result);
    result->entries += t->entries;
    result->chunks += t->chunks;
    return SGZ_OK;
}
