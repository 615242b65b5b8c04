#include "write/frame.h"

#include <string.h>

/* Before the frame there is room for what its header becomes longer. */
#define ROOM (SGZ_FRAME_SIZED - SGZ_FRAME_UNSIZED)

sgz_status sgz_write_frame_init(sgz_write_frame *f, const sgz_codecs *codecs, int level,
                                const char *dir, sgz_error *err)
{
    static const uint8_t room[ROOM];
    memset(f, 0, sizeof *f);
    f->codecs = codecs;
    f->spool = (sgz_spool){.dir = dir, .fd = -1};
    sgz_status status = sgz_codec_framer_init(&f->framer, codecs, level, err);
    if (!status)
        status = sgz_codec_frame_begin(&f->framer, err);
    return status ? status : sgz_io_spool_put(&f->spool, room, sizeof room, err);
}

void sgz_write_frame_free(sgz_write_frame *f)
{
    if (!f->codecs)
        return;
    sgz_codec_framer_free(&f->framer);
    sgz_io_spool_free(&f->spool);
}

static sgz_status take(void *arg, const uint8_t *data, size_t len, sgz_error *err)
{
    sgz_write_frame *f = arg;
    for (size_t i = 0; i < len && f->head_len < sizeof f->head; i++)
        f->head[f->head_len++] = data[i];
    return sgz_io_spool_put(&f->spool, data, len, err);
}

sgz_status sgz_write_frame_put(sgz_write_frame *f, const void *data, size_t len, sgz_error *err)
{
    f->size += len;
    return sgz_codec_frame_piece(&f->framer, data, len, 0, take, f, err);
}

typedef struct {
    const sgz_codecs *codecs;
    sgz_sha256 sha;
} digest_of;

static sgz_status hash(void *arg, const uint8_t *data, size_t len, sgz_error *err)
{
    digest_of *d = arg;
    (void)err;
    sgz_codec_sha256_update(d->codecs, &d->sha, data, len);
    return SGZ_OK;
}

sgz_status sgz_write_frame_finish(sgz_write_frame *f, int64_t *len, uint8_t digest[32],
                                  sgz_error *err)
{
    uint8_t head[SGZ_FRAME_SIZED];
    digest_of d = {.codecs = f->codecs};
    sgz_status status = sgz_codec_frame_piece(&f->framer, NULL, 0, 1, take, f, err);
    if (status)
        return status;
    sgz_codec_frame_sized(f->head, f->size, head);
    status = sgz_io_spool_patch(&f->spool, 0, head, sizeof head, err);
    if (!status)
        status = sgz_codec_sha256_new(f->codecs, &d.sha, err);
    if (status)
        return status;
    sgz_codec_sha256_init(f->codecs, &d.sha);
    status = sgz_io_spool_read(&f->spool, hash, &d, err);
    sgz_codec_sha256_final(f->codecs, &d.sha, digest);
    sgz_codec_sha256_free(f->codecs, &d.sha);
    *len = (int64_t)f->spool.size;
    return status;
}

static sgz_status begin_skippable(sgz_write_blob *w, uint64_t len, sgz_error *err)
{
    uint8_t head[SGZ_SKIPPABLE_HEADER];
    if (len > UINT32_MAX)
        return sgz_base_fail(err, SGZ_ETAR, -1, NULL, 0,
                             "its TOC would take more than 4 GiB, which a frame cannot hold");
    sgz_codec_skippable(head, (uint32_t)len);
    return sgz_write_blob_put(w, head, sizeof head, err);
}

static sgz_status put(void *arg, const uint8_t *data, size_t len, sgz_error *err)
{
    return sgz_write_blob_put(arg, data, len, err);
}

sgz_status sgz_write_frame_append(sgz_write_frame *f, sgz_write_blob *w, int64_t *offset,
                                  sgz_error *err)
{
    sgz_status status = begin_skippable(w, f->spool.size, err);
    *offset = w->position;
    return status ? status : sgz_io_spool_read(&f->spool, put, w, err);
}

sgz_status sgz_write_skippable(sgz_write_blob *w, const uint8_t *data, size_t len, sgz_error *err)
{
    sgz_status status = begin_skippable(w, len, err);
    return status ? status : sgz_write_blob_put(w, data, len, err);
}
