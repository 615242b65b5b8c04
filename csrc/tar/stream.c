#include "tar/stream.h"

#include <string.h>

static const uint8_t zeros[SGZ_TAR_BLOCK];

int64_t sgz_tar_stream_pass(sgz_tar_stream *s, int64_t n)
{
    int64_t data = n < s->data ? n : s->data;
    int64_t padding = n - data < s->padding ? n - data : s->padding;
    s->data -= data;
    s->padding -= padding;
    s->pos += data + padding;
    return data + padding;
}

/* A whole header block, from the piece or pieced together; NULL if more of it must come. */
static const uint8_t *header_block(sgz_tar_stream *s, const uint8_t *data, size_t len,
                                   size_t *used)
{
    size_t missing = SGZ_TAR_BLOCK - s->block_len;
    *used = len < missing ? len : missing;
    if (*used == SGZ_TAR_BLOCK)
        return data;
    memcpy(s->block + s->block_len, data, *used);
    s->block_len += *used;
    if (len < missing)
        return NULL;
    s->block_len = 0;
    return s->block;
}

void sgz_tar_stream_behind(sgz_tar_stream *s, const uint8_t *data, size_t len)
{
    size_t at = 0;
    s->pos += (int64_t)len;
    if (!s->behind_len) {
        for (; len - at >= sizeof zeros && !memcmp(data + at, zeros, sizeof zeros); at += sizeof zeros)
            ;
        while (at < len && !data[at])
            at++;
    }
    size_t room = sizeof s->behind - s->behind_len, n = len - at < room ? len - at : room;
    memcpy(s->behind + s->behind_len, data + at, n);
    s->behind_len += n;
}

sgz_status sgz_tar_stream_take(sgz_tar_stream *s, const uint8_t *data, size_t len, size_t *used,
                               sgz_tar_event *event, sgz_tar_entry *entry, sgz_error *err)
{
    *event = SGZ_TAR_MORE;
    if (s->zeros == 2) {
        *used = len;
        sgz_tar_stream_behind(s, data, len);
        return SGZ_OK;
    }
    if (s->data || s->padding) {
        int64_t next = s->data ? s->data : s->padding;
        *event = s->data ? SGZ_TAR_DATA : SGZ_TAR_MORE;
        *used = (int64_t)len < next ? len : (size_t)next;
        sgz_tar_stream_pass(s, (int64_t)*used);
        return SGZ_OK;
    }
    if (sgz_tar_idle(s->parser))
        s->start = s->pos;
    const uint8_t *block = header_block(s, data, len, used);
    if (!block)
        return SGZ_OK;
    if (s->zeros && sgz_tar_is_in_place(s->parser) && memcmp(block, zeros, sizeof zeros)) {
        s->zeros = 2;
        sgz_tar_stream_behind(s, block, SGZ_TAR_BLOCK);
        return SGZ_OK;
    }
    sgz_status status = sgz_tar_feed(s->parser, block, s->pos, event, entry, err);
    if (status)
        return status;
    if (*event == SGZ_TAR_END)
        s->zeros++;
    else if (s->zeros)
        return sgz_base_fail(err, SGZ_ETAR, s->pos, NULL, 0,
                             "a lone block of zeros: the archive goes on behind its end");
    s->pos += SGZ_TAR_BLOCK;
    if (*event == SGZ_TAR_ENTRY) {
        s->data = entry->payload;
        s->padding = -entry->payload & (SGZ_TAR_BLOCK - 1);
    }
    return SGZ_OK;
}

sgz_status sgz_tar_stream_end(const sgz_tar_stream *s, int padded, sgz_error *err)
{
    int64_t end = s->pos + (int64_t)s->block_len;
    int passed = s->pos && sgz_tar_is_in_place(s->parser) && !memcmp(s->block, zeros, s->block_len);
    int cut = s->block_len && !passed;
    if (s->data || (padded && s->padding) || cut || !sgz_tar_idle(s->parser))
        return sgz_base_fail(err, SGZ_ETAR, end, NULL, 0,
                             s->pos ? "truncated: the input ends inside an entry"
                                    : "no tar: it ends before a first header does");
    return SGZ_OK;
}
