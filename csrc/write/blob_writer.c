#include "write/blob_writer.h"

#include "tar/tar.h"
#include "toc/footer.h"
#include "toc/rows.h"

#include <string.h>

sgz_status sgz_write_blob_init(sgz_write_blob *w, const sgz_codecs *codecs,
                               const sgz_sink *sink,
                               sgz_error *err)
{
    memset(w, 0, sizeof *w);
    w->codecs = codecs;
    w->sink = sink;
    sgz_status status = sgz_codec_hasher_init(&w->blob_sha, codecs, err);
    return status ? status : sgz_codec_hasher_init(&w->tar_sha, codecs, err);
}

void sgz_write_blob_free(sgz_write_blob *w)
{
    if (!w->codecs)
        return;
    sgz_codec_hasher_free(&w->blob_sha);
    sgz_codec_hasher_free(&w->tar_sha);
}

void sgz_write_blob_hash(sgz_write_blob *w, const sgz_hash_piece *pieces, size_t count,
                         const sgz_hash_piece *tar, const sgz_hash_stream *other)
{
    sgz_hash_stream streams[] = {
        {.hasher = &w->blob_sha, .pieces = pieces, .count = count},
        *other,
        {.hasher = &w->tar_sha, .pieces = tar, .count = tar && !w->no_diff_id},
    };
    sgz_codec_hasher_streams(streams, sizeof streams / sizeof *streams);
    for (size_t i = 0; i < count; i++)
        w->position += (int64_t)pieces[i].len;
}

sgz_status sgz_write_blob_store(sgz_write_blob *w, const uint8_t *data, size_t len,
                                sgz_error *err)
{
    return sgz_io_sink_write(w->sink, data, len, err);
}

sgz_status sgz_write_blob_put(sgz_write_blob *w, const uint8_t *data, size_t len, sgz_error *err)
{
    sgz_codec_hasher_update(&w->blob_sha, data, len, NULL, 0);
    if (w->tail)
        sgz_codec_sha256_update(w->codecs, w->tail, data, len);
    w->position += (int64_t)len;
    return sgz_write_blob_store(w, data, len, err);
}

void sgz_write_blob_tar(sgz_write_blob *w, const uint8_t *data, size_t len,
                        const sgz_message *messages, size_t count)
{
    sgz_codec_hasher_update(&w->tar_sha, data, w->no_diff_id ? 0 : len, messages, count);
    w->tar_size += (int64_t)len;
}

/* --- TOC -------------------------------------------------------------------------------- */

typedef struct {
    sgz_toc_footer out;
    sgz_write_blob *w;
    const sgz_sink *apart;  /* not NULL: gets the TOC, of which the blob has nothing then */
    sgz_sha256 apart_sha;
    int64_t apart_len;
    sgz_hasher json_sha;
    uint64_t json_left;     /* to be hashed */
    int started;
    sgz_error err;          /* what a failing append said: sgz_toc_format knows only that it did */
    sgz_status status;
} toc_stream;

static sgz_status take_blob(void *arg, const uint8_t *data, size_t len, sgz_error *err)
{
    toc_stream *t = arg;
    if (!t->apart)
        return sgz_write_blob_put(t->w, data, len, err);
    sgz_codec_sha256_update(t->w->codecs, &t->apart_sha, data, len);
    t->apart_len += (int64_t)len;
    return sgz_io_sink_write(t->apart, data, len, err);
}

/* The JSON is a part of the tar, behind one header: its digest is made beside the DiffID. */
static void take_tar(void *arg, const uint8_t *data, size_t len)
{
    toc_stream *t = arg;
    sgz_write_blob *w = t->w;
    size_t from = t->started ? 0 : SGZ_TAR_BLOCK;
    size_t json = t->json_left < len - from ? (size_t)t->json_left : len - from;
    size_t beside = sgz_codec_hasher_beside(&t->json_sha, data + from, json, &w->tar_sha, data,
                                            w->no_diff_id || t->apart ? 0 : len);
    t->started = 1;
    t->json_left -= json;
    if (t->apart)
        return;
    w->tar_size += (int64_t)beside;
    sgz_write_blob_tar(w, data + beside, len - beside, NULL, 0);
}

static int take_json(void *arg, const char *data, size_t len)
{
    toc_stream *t = arg;
    t->status = sgz_toc_footer_append(&t->out, data, len, &t->err);
    return t->status != SGZ_OK;
}

static sgz_status finish_apart(toc_stream *t, sgz_write_result *result, sgz_error *err)
{
    uint8_t footer[SGZ_EXTERNAL_FOOTER];
    sgz_status status = sgz_toc_footer_end(&t->out, err);
    if (status)
        return status;
    sgz_codec_sha256_final(t->w->codecs, &t->apart_sha, result->toc_checksum);
    result->toc_packed = t->apart_len;
    sgz_toc_footer_external(footer);
    return sgz_write_blob_put(t->w, footer, sizeof footer, err);
}

static sgz_status write_toc(sgz_write_blob *w, const sgz_toc *toc, int level, int legacy,
                            const sgz_sink *apart, sgz_write_result *result, sgz_error *err)
{
    toc_stream t = {.w = w, .apart = apart};
    uint64_t again;
    t.out.blob = take_blob;
    t.out.tar = take_tar;
    t.out.arg = &t;
    sgz_status status = sgz_toc_format(toc, legacy, NULL, NULL, &result->toc_size, err);
    if (!status)
        status = sgz_toc_check_size(toc, result->toc_size, err);
    if (!status)
        status = sgz_codec_hasher_init(&t.json_sha, w->codecs, err);
    if (status)
        return status;
    if (apart)
        status = sgz_codec_sha256_new(w->codecs, &t.apart_sha, err);
    if (apart && !status)
        sgz_codec_sha256_init(w->codecs, &t.apart_sha);
    t.json_left = result->toc_size;
    if (!status)
        status = sgz_toc_footer_begin(&t.out, w->codecs, result->toc_size, level, legacy, err);
    if (!status) {
        status = sgz_toc_format(toc, legacy, take_json, &t, &again, err);
        if (t.status) {
            status = t.status;
            *err = t.err;
        }
    }
    if (!status)
        status = apart ? finish_apart(&t, result, err)
                       : sgz_toc_footer_finish(&t.out, result->toc_offset, err);
    if (!status)
        sgz_codec_hasher_final(&t.json_sha, result->toc_digest);
    sgz_toc_footer_free(&t.out);
    sgz_codec_hasher_free(&t.json_sha);
    sgz_codec_sha256_free(w->codecs, &t.apart_sha);
    return status;
}

void sgz_write_blob_seal(sgz_write_blob *w, const sgz_toc *toc, sgz_write_result *result)
{
    for (size_t i = 0; i < toc->count; i++) {
        const sgz_entry *row = &toc->rows[i];
        if (row->flags & SGZ_DROPPED)
            continue;
        result->entries += !sgz_toc_is_piece(row);
        result->chunks += row->type == SGZ_CHUNK || (row->type == SGZ_REG && row->size);
    }
    sgz_codec_hasher_final(&w->blob_sha, result->digest);
    sgz_codec_hasher_final(&w->tar_sha, result->diff_id);
    result->size = w->position;
    result->uncompressed_size = w->tar_size;
    result->members = w->members + 1;
    result->reused = w->reused;
}

sgz_status sgz_write_blob_finish(sgz_write_blob *w, const sgz_toc *toc, int level, int legacy,
                                 const sgz_sink *apart, sgz_write_result *result, sgz_error *err)
{
    result->toc_offset = w->position;
    sgz_status status = write_toc(w, toc, level, legacy, apart, result, err);
    if (!status)
        sgz_write_blob_seal(w, toc, result);
    return status;
}
