#include "write/split.h"

#include "base/bytes.h"
#include "codec/crc64.h"

#include <stdio.h>
#include <string.h>

/* Lines are compressed when there are so many bytes of them. */
#define BATCH ((size_t)256 << 10)
/* Behind the archive's end a segment has no more. */
#define TAIL_SEGMENT ((size_t)1 << 20)
#define TAIL_MIN ((size_t)1024)

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the tar-split");
}

sgz_status sgz_write_split_init(sgz_write_split *s, const sgz_codecs *codecs, int level,
                                const char *dir, const sgz_kept_rows *rows, pthread_mutex_t *lock,
                                sgz_error *err)
{
    memset(s, 0, sizeof *s);
    s->rows = rows;
    s->lock = lock;
    return sgz_write_frame_init(&s->frame, codecs, level, dir, err);
}

void sgz_write_split_free(sgz_write_split *s)
{
    sgz_write_frame_free(&s->frame);
    free(s->pending);
    free(s->line);
}

static sgz_status compress(sgz_write_split *s, sgz_error *err)
{
    sgz_status status = sgz_write_frame_put(&s->frame, s->line, s->line_len, err);
    s->line_len = 0;
    return status;
}

/* Room for a line with so many bytes of text in it. */
static char *begin_line(sgz_write_split *s, size_t text)
{
    return SGZ_FIT(s->line, s->line_cap, s->line_len + text + 160) ? s->line + s->line_len : NULL;
}

static sgz_status end_line(sgz_write_split *s, char *at, sgz_error *err)
{
    at += sprintf(at, ",\"position\":%llu}\n", (unsigned long long)s->lines++);
    s->line_len = (size_t)(at - s->line);
    return s->line_len < BATCH ? SGZ_OK : compress(s, err);
}

#define PUT(at, text) ((char *)memcpy(at, text, sizeof(text) - 1) + sizeof(text) - 1)

static sgz_status put_segment(sgz_write_split *s, const uint8_t *data, size_t len, sgz_error *err)
{
    char *at = begin_line(s, sgz_base64_len(s->pending_len + len));
    if (s->pending_len) {
        if (!SGZ_FIT(s->pending, s->pending_cap, s->pending_len + len))
            return no_memory(err);
        if (len)
            memcpy(s->pending + s->pending_len, data, len);
        len += s->pending_len;
        data = s->pending;
        s->pending_len = 0;
    }
    if (!at)
        return no_memory(err);
    at = PUT(at, "{\"type\":2,\"payload\":\"");
    at = sgz_put_base64(at, data, len);
    return end_line(s, PUT(at, "\""), err);
}

/* As Go's JSON has a name, but for what it escapes to be put into HTML: that reads the same. */
static char *put_name(char *at, const char *name, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        uint8_t c = (uint8_t)name[i];
        if (c < 0x20 || c == '"' || c == '\\')
            at += sprintf(at, "\\u%04x", c);
        else
            *at++ = (char)c;
    }
    return at;
}

static sgz_status put_file(sgz_write_split *s, int64_t size, sgz_error *err)
{
    pthread_mutex_lock(s->lock);
    const sgz_entry *row = sgz_kept_row(s->rows, s->row);
    char *at = begin_line(s, 6 * (size_t)row->name_len);
    if (at) {
        at = PUT(at, "{\"type\":1");
        if (row->name_len) {
            at = PUT(at, ",\"name\":\"");
            at = put_name(at, s->rows->toc->arena + row->name_off, row->name_len);
            at = PUT(at, "\"");
        }
    }
    pthread_mutex_unlock(s->lock);
    if (!at)
        return no_memory(err);
    if (size) {
        uint8_t crc[8];
        sgz_put_be64(crc, s->crc);
        at += sprintf(at, ",\"size\":%lld,\"payload\":\"", (long long)size);
        at = PUT(sgz_put_base64(at, crc, sizeof crc), "\"");
    } else {
        at = PUT(at, ",\"payload\":null");
    }
    return end_line(s, at, err);
}

static sgz_status begin_file(sgz_write_split *s, const sgz_write_mark *mark, sgz_error *err)
{
    s->row = mark->row;
    s->left = s->file_size = mark->size;
    s->crc = 0;
    return s->left ? SGZ_OK : put_file(s, 0, err);
}

static sgz_status keep(sgz_write_split *s, const uint8_t *data, size_t len, sgz_error *err)
{
    if (!SGZ_FIT(s->pending, s->pending_cap, s->pending_len + len))
        return no_memory(err);
    if (len)
        memcpy(s->pending + s->pending_len, data, len);
    s->pending_len += len;
    return SGZ_OK;
}

/* The archive's end and the zeros behind it. Readers take each segment for a tar, which is over with
 * two blocks of zeros, and an error with less: so what is left is always as much. */
static sgz_status put_tail(sgz_write_split *s, const uint8_t *data, size_t len, sgz_error *err)
{
    sgz_status status = SGZ_OK;
    for (size_t n; len && !status; data += n, len -= n) {
        n = len < TAIL_SEGMENT ? len : TAIL_SEGMENT;
        status = keep(s, data, n, err);
        if (status || s->pending_len < TAIL_SEGMENT + TAIL_MIN)
            continue;
        size_t left = s->pending_len - TAIL_SEGMENT;
        s->pending_len = TAIL_SEGMENT;
        status = put_segment(s, NULL, 0, err);
        memmove(s->pending, s->pending + TAIL_SEGMENT, left);
        s->pending_len = left;
    }
    return status;
}

sgz_status sgz_write_split_slab(sgz_write_split *s, const sgz_write_slab *slab, sgz_error *err)
{
    size_t at = 0, mark = 0;
    sgz_status status = SGZ_OK;
    while (!status && (at < slab->len || (!s->left && mark < slab->mark_count))) {
        const uint8_t *data = slab->buf + at;
        size_t len = slab->len - at;
        if (s->left) {
            len = (int64_t)len < s->left ? len : (size_t)s->left;
            s->crc = sgz_codec_crc64(s->crc, data, len);
            s->left -= (int64_t)len;
            if (!s->left)
                status = put_file(s, s->file_size, err);
        } else if (mark < slab->mark_count) {
            const sgz_write_mark *m = &slab->marks[mark++];
            len = m->at - at;
            s->in_tail = m->row == SGZ_NO_ROW;
            status = s->in_tail ? keep(s, data, len, err) : put_segment(s, data, len, err);
            if (!status && !s->in_tail)
                status = begin_file(s, m, err);
        } else if (s->in_tail) {
            status = put_tail(s, data, len, err);
        } else {
            status = keep(s, data, len, err);
        }
        at += len;
    }
    return status;
}

sgz_status sgz_write_split_finish(sgz_write_split *s, int64_t *len, uint8_t digest[32],
                                  sgz_error *err)
{
    sgz_status status = s->pending_len ? put_segment(s, NULL, 0, err) : SGZ_OK;
    if (!status)
        status = compress(s, err);
    return status ? status : sgz_write_frame_finish(&s->frame, len, digest, err);
}
