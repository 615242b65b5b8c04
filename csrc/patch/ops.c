#include "patch/internal.h"

#include "base/vec.h"

#include <stdlib.h>
#include <string.h>

#define SKIP_STEP ((int64_t)4 << 20) /* between two looks at the stop flag */
#define INNER_MAX ((uint64_t)2 << 30) /* no member that a writer makes inflates to more */
#define CONTENTS_MIN ((size_t)1 << 20)

/* The rest of a frame. */
static sgz_status fail(const sgz_patch_maker *m, sgz_error *err, const char *what)
{
    return sgz_patch_fail(m->reader, err, "%s", what);
}

/* The account of work (patch/format.h). `made` bytes are on the way, besides those that NEW has. */
static sgz_status spend(sgz_patch_maker *m, uint64_t work, uint64_t made, sgz_error *err)
{
    made += (uint64_t)m->position;
    m->spent += work;
    if (m->spent > SGZ_PATCH_WORK_FREE &&
        (m->spent - SGZ_PATCH_WORK_FREE) / SGZ_PATCH_WORK_PER_BYTE > made)
        return fail(m, err, "it asks for too much work that makes nothing");
    return SGZ_OK;
}

/* --- COPY ---------------------------------------------------------------------------------- */

static sgz_status copy(sgz_patch_maker *m, sgz_cursor *c, sgz_error *err)
{
    int64_t step, offset;
    uint64_t len;
    if (!sgz_get_zigzag(c, &step) || !sgz_get_varint(c, &len))
        return fail(m, err, "a COPY that does not end");
    if (__builtin_add_overflow(m->copy_end, step, &offset) || offset < 0 ||
        offset > m->head.base_size || len > (uint64_t)(m->head.base_size - offset))
        return fail(m, err, "a COPY from beyond BASE");
    if (len > sgz_patch_space(m))
        return fail(m, err, "more comes out than the patch announced");
    sgz_status status = sgz_patch_advance(m, len, err);
    if (status)
        return status;
    m->copy_end = offset + (int64_t)len;
    m->result.copied += (int64_t)len;
    while (len) {
        uint8_t *at;
        size_t n;
        status = sgz_patch_ring_room(&m->ring, &at, &n, err);
        n = n < len ? n : (size_t)len;
        if (!status)
            status = sgz_codec_blob_read(m->base, offset, at, n, err);
        if (!status)
            status = sgz_patch_ring_put(&m->ring, n, err);
        if (status)
            return status;
        offset += (int64_t)n;
        len -= n;
    }
    return SGZ_OK;
}

/* --- MEMBER -------------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *data;        /* bytes of the patch, or NULL: of BASE */
    uint64_t offset, inner, len;
} piece;

static sgz_status get_piece(const sgz_patch_maker *m, sgz_cursor *c, piece *p, sgz_error *err)
{
    uint8_t kind = c->at < c->end ? *c->at++ : 2;
    *p = (piece){0};
    if (kind > 1)
        return fail(m, err, "a piece of unknown kind");
    if (kind == 0) {
        if (!sgz_get_counted(c, &p->data, &p->len))
            return fail(m, err, "a piece that does not end");
        return SGZ_OK;
    }
    if (!sgz_get_varint(c, &p->offset) || !sgz_get_varint(c, &p->inner) || !sgz_get_varint(c, &p->len))
        return fail(m, err, "a piece that does not end");
    if (p->offset > (uint64_t)m->head.base_size || p->inner > INNER_MAX ||
        p->len > SGZ_PATCH_MEMBER_MAX ||
        (p->inner + p->len) / SGZ_DEFLATE_RATIO > (uint64_t)m->head.base_size - p->offset)
        return fail(m, err, "a piece from beyond BASE");
    return SGZ_OK;
}

/* Room for `len` bytes of contents. */
static sgz_status reserve(sgz_patch_maker *m, size_t len, sgz_error *err)
{
    return SGZ_FIT(m->contents, m->contents_cap, len > CONTENTS_MIN ? len : CONTENTS_MIN)
               ? SGZ_OK
               : sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
}

/* BASE is what it should be, so the patch is wrong about it. */
static sgz_status base_failed(const sgz_patch_maker *m, sgz_status status, sgz_error *err)
{
    return status == SGZ_EDATA ? fail(m, err, "there is no such member in BASE") : status;
}

/* Have the decoder at p->inner of its member, without going back if it can go on. */
static sgz_status seek(sgz_patch_maker *m, const piece *p, size_t made, sgz_error *err)
{
    sgz_status status = SGZ_OK;
    if (m->member != (int64_t)p->offset || m->member_at > p->inner) {
        status = sgz_codec_decoder_enter(&m->decoder, (int64_t)p->offset, m->head.base_size, err);
        m->member = (int64_t)p->offset;
        m->member_at = 0;
        if (!status)
            status = spend(m, SGZ_PATCH_WORK_SEEK, made, err);
    }
    while (m->member_at < p->inner && !status) {
        int64_t want = (int64_t)(p->inner - m->member_at), got;
        if (sgz_base_job_stopped(m->ring.job))
            return sgz_base_fail(err, SGZ_ECANCELLED, -1, NULL, 0, "cancelled");
        want = want < SKIP_STEP ? want : SKIP_STEP;
        status = base_failed(m, sgz_codec_decoder_skip(&m->decoder, want, &got, err), err);
        if (!status && got < want)
            status = fail(m, err, "a piece from beyond a member of BASE");
        if (!status)
            status = spend(m, (uint64_t)got, made, err);
        m->member_at += (uint64_t)got;
    }
    return status;
}

/* Room is made as the contents come: a patch that only claims to be large gets none. */
static sgz_status read_piece(sgz_patch_maker *m, const piece *p, size_t at, sgz_error *err)
{
    sgz_status status = seek(m, p, at, err);
    for (uint64_t left = p->len; left && !status;) {
        size_t want = left < (uint64_t)SKIP_STEP ? (size_t)left : (size_t)SKIP_STEP, got;
        if (sgz_base_job_stopped(m->ring.job))
            return sgz_base_fail(err, SGZ_ECANCELLED, -1, NULL, 0, "cancelled");
        status = reserve(m, at + want, err);
        if (status)
            return status;
        status = base_failed(
            m, sgz_codec_decoder_read(&m->decoder, m->contents + at, want, &got, err), err);
        if (!status && got < want)
            status = fail(m, err, "a piece from beyond a member of BASE");
        at += got;
        left -= got;
        m->member_at += got;
    }
    return status;
}

static sgz_status begin_members(sgz_patch_maker *m, sgz_error *err)
{
    if (!m->head.level)
        return fail(m, err, "a MEMBER, but no level in the head");
    if (m->deflater.codecs)
        return SGZ_OK;
    sgz_status status = sgz_codec_deflater_init(&m->deflater, m->codecs, (int)m->head.level,
                                                err);
    if (!status)
        status = sgz_codec_decoder_init(&m->decoder, m->codecs, m->base, NULL, err);
    m->decoder.stop = &m->ring.job->stop;
    if (!status)
        sgz_codec_decoder_read_ahead(&m->decoder, m->head.base_size);
    m->member = -1;
    return status;
}

/* The number of bytes that the pieces have, without reading any. */
static sgz_status measure(const sgz_patch_maker *m, sgz_cursor c, uint64_t count, sgz_error *err)
{
    uint64_t total = 0;
    for (; count; count--) {
        piece p;
        sgz_status status = get_piece(m, &c, &p, err);
        if (status)
            return status;
        total += p.len;
        if (total > SGZ_PATCH_MEMBER_MAX)
            return fail(m, err, "a MEMBER of more than 64 MiB");
    }
    if (total / SGZ_DEFLATE_RATIO > sgz_patch_space(m))
        return fail(m, err, "more comes out than the patch announced");
    return SGZ_OK;
}

static sgz_status member(sgz_patch_maker *m, sgz_cursor *c, sgz_error *err)
{
    uint64_t count;
    size_t at = 0, made;
    sgz_status status = begin_members(m, err);
    if (!status && !sgz_get_varint(c, &count))
        status = fail(m, err, "a MEMBER that does not end");
    if (!status)
        status = measure(m, *c, count, err);
    if (!status)
        status = reserve(m, 1, err);
    for (; !status && count; count--) {
        piece p;
        status = get_piece(m, c, &p, err);
        if (!status)
            status = spend(m, SGZ_PATCH_WORK_OPERATION, at, err);
        if (!status)
            status = p.data ? reserve(m, at + p.len, err) : read_piece(m, &p, at, err);
        if (!status && p.data)
            memcpy(m->contents + at, p.data, p.len);
        at += p.len;
    }
    if (status)
        return status;
    size_t bound = sgz_codec_member_bound(at);
    if (bound > m->packed_cap) {
        free(m->packed);
        m->packed_cap = 0;
        m->packed = malloc(bound);
        if (!m->packed)
            return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
        m->packed_cap = bound;
    }
    status = sgz_codec_deflate_member(&m->deflater, m->contents, at, 0, m->packed, m->packed_cap,
                                      &made, err);
    if (status)
        return status;
    m->result.regenerated += (int64_t)made;
    return sgz_patch_emit(m, m->packed, made, err);
}

sgz_status sgz_patch_apply_members(sgz_patch_maker *m, sgz_error *err)
{
    sgz_cursor c = {m->reader->payload, m->reader->payload + m->reader->payload_len};
    while (c.at < c.end) {
        uint8_t kind = *c.at++;
        sgz_status status = spend(m, SGZ_PATCH_WORK_OPERATION, 0, err);
        if (!status)
            status = kind == 1   ? copy(m, &c, err)
                     : kind == 2 ? member(m, &c, err)
                                 : fail(m, err, "an operation of unknown kind");
        if (status)
            return status;
    }
    return SGZ_OK;
}

/* --- the TOC ------------------------------------------------------------------------------- */

static sgz_status take_member(void *arg, const uint8_t *data, size_t len, sgz_error *err)
{
    sgz_patch_maker *m = arg;
    m->result.regenerated += (int64_t)len;
    return sgz_patch_emit(m, data, len, err);
}

static sgz_status take_text(void *arg, const uint8_t *text, size_t len, sgz_error *err)
{
    return sgz_toc_footer_append(&((sgz_patch_maker *)arg)->toc, text, len, err);
}

/* Errors of the lines and of the writer are this frame's. */
static sgz_status in_frame(const sgz_patch_maker *m, sgz_status status, sgz_error *err)
{
    if (status != SGZ_EPATCH && status != SGZ_ETOC)
        return status;
    if (status == SGZ_EPATCH && err->offset >= 0)
        return status;
    char message[sizeof err->message];
    memcpy(message, err->message, sizeof message);
    return sgz_patch_fail(m->reader, err, "%.150s", message);
}

static sgz_status begin_toc(sgz_patch_maker *m, sgz_error *err)
{
    const sgz_patch_head *head = &m->head;
    if (!head->toc_json_size)
        return fail(m, err, "a frame T, but no TOC in the head");
    if (m->position != head->new_toc_offset)
        return fail(m, err, "less comes out before the TOC than the patch announced");
    sgz_status status = sgz_patch_ring_flush(&m->ring, err);
    if (status)
        return status;
    m->in_toc = 1;
    m->toc.blob = take_member;
    m->toc.arg = m;
    status = sgz_patch_lines_init(&m->lines, m->codecs, m->base, head->base_toc_offset,
                                  head->base_toc_end, head->base_json_size, &m->ring.job->stop,
                                  take_text, m, err);
    if (!status)
        status = sgz_toc_footer_begin(&m->toc, m->codecs, head->toc_json_size, (int)head->level,
                                      (int)head->legacy, err);
    return status;
}

sgz_status sgz_patch_apply_toc(sgz_patch_maker *m, sgz_error *err)
{
    sgz_cursor c = {m->reader->payload, m->reader->payload + m->reader->payload_len};
    sgz_status status = m->in_toc ? SGZ_OK : begin_toc(m, err);
    while (!status && c.at < c.end) {
        uint8_t kind = *c.at++;
        uint64_t passed, taken;
        const uint8_t *text;
        int64_t add;
        status = spend(m, SGZ_PATCH_WORK_OPERATION, m->head.toc_json_size - m->toc.json_left, err);
        if (status)
            return status;
        if (kind == 1) {
            if (!sgz_get_varint(&c, &passed) || !sgz_get_varint(&c, &taken) || !sgz_get_zigzag(&c, &add))
                return fail(m, err, "LINES that do not end");
            status = sgz_patch_lines_pass(&m->lines, passed, err);
            if (!status)
                status = sgz_patch_lines_take(&m->lines, taken, add, err);
        } else if (kind == 2) {
            if (!sgz_get_counted(&c, &text, &taken))
                return fail(m, err, "a TEXT that does not end");
            status = take_text(m, text, taken, err);
        } else {
            return fail(m, err, "an operation of unknown kind");
        }
    }
    return in_frame(m, status, err);
}

sgz_status sgz_patch_apply_end(sgz_patch_maker *m, sgz_error *err)
{
    if (!m->in_toc)
        return fail(m, err, "the patch lacks the TOC that it announced");
    return in_frame(m, sgz_toc_footer_finish(&m->toc, m->head.new_toc_offset, err), err);
}

void sgz_patch_maker_free(sgz_patch_maker *m)
{
    if (m->decoder.blob)
        sgz_codec_decoder_free(&m->decoder);
    if (m->deflater.codecs)
        sgz_codec_deflater_free(&m->deflater);
    sgz_patch_lines_free(&m->lines);
    sgz_toc_footer_free(&m->toc);
    free(m->contents);
    free(m->packed);
    sgz_patch_ring_free(&m->ring);
}
