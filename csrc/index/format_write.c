#include "index/format_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/vec.h"
#include "index/limits.h"
#include "index/texts.h"
#include "tar/tar.h"
#include "toc/footer.h"
#include "toc/rows.h"

#define LEVEL 1 /* of what is deflated: part of the pin */

typedef struct {
    uint8_t *data;
    size_t len, cap;
} bytes;

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to write the index");
}

static sgz_status add(bytes *b, const void *data, size_t len, sgz_error *err)
{
    if (!SGZ_FIT(b->data, b->cap, b->len + len))
        return no_memory(err);
    if (len)
        memcpy(b->data + b->len, data, len);
    b->len += len;
    return SGZ_OK;
}

static sgz_status add_number(bytes *b, uint64_t value, sgz_error *err)
{
    uint8_t out[SGZ_VARINT_MAX];
    return add(b, out, (size_t)(sgz_put_varint(out, value) - out), err);
}

/* --- sections ---------------------------------------------------------------------------- */

static sgz_status put_points(const sgz_points *points, bytes *out, sgz_error *err)
{
    sgz_point before = {0};
    sgz_status status = SGZ_OK;
    for (size_t i = 0; i < points->count && !status; i++) {
        const sgz_point *p = &points->at[i];
        status = add_number(out, (uint64_t)(p->offset - before.offset), err);
        if (!status)
            status = add_number(out, (uint64_t)(p->out - before.out), err);
        if (!status && points->kind == SGZ_POINT_DEFLATE)
            status = add_number(out, (uint64_t)p->history << 3 | p->skip, err);
        if (!status && points->kind == SGZ_POINT_DEFLATE)
            status = add_number(out, p->packed, err);
        before = *p;
    }
    return status;
}

static int is_entry(const sgz_entry *row)
{
    return !sgz_toc_is_piece(row) && !(row->flags & SGZ_DROPPED);
}

/* Three columns, which deflate better than rows of three. */
static sgz_status put_places(const sgz_index *index, bytes *out, sgz_error *err)
{
    const sgz_toc *toc = index->toc;
    sgz_status status = SGZ_OK;
    for (int column = 0; column < 3 && !status; column++) {
        int64_t end = 0; /* of the contents before */
        for (size_t i = 0; i < toc->count && !status; i++) {
            const sgz_entry *row = &toc->rows[i];
            const sgz_toc_origin *place = &index->toc->origins[i];
            if (is_entry(row)) {
                int64_t gap = place->content - place->header - sgz_index_padded(end);
                status = add_number(out, column == 0   ? (uint64_t)gap / SGZ_TAR_BLOCK
                                         : column == 1 ? place->header / SGZ_TAR_BLOCK
                                                       : place->ns, err);
                end = place->content;
            }
            if (sgz_toc_has_data(row) && !(row->flags & SGZ_DROPPED))
                end += row->chunk_size;
        }
    }
    return status;
}

static sgz_status put_text(bytes *out, uint64_t *last, uint64_t entry, unsigned kind,
                           const char *text, size_t len, sgz_error *err)
{
    sgz_status status = add_number(out, entry - *last, err);
    *last = entry;
    if (!status)
        status = add_number(out, kind, err);
    if (!status)
        status = add_number(out, len, err);
    return status ? status : add(out, text, len, err);
}

static sgz_status put_texts(const sgz_index *index, bytes *out, sgz_error *err)
{
    const sgz_toc *toc = index->toc;
    sgz_index_texts texts = {.toc = toc};
    sgz_toc_text text;
    int more = sgz_index_next_text(&texts, &text);
    uint64_t entry = 0, last = 0;
    sgz_status status = SGZ_OK;
    for (size_t i = 0; i < toc->count && !status; i++) {
        const sgz_entry *row = &toc->rows[i];
        const sgz_toc_origin *place = &index->toc->origins[i];
        if (!is_entry(row))
            continue;
        for (; more && text.entry == entry && !status;
             more = sgz_index_next_text(&texts, &text))
            status = put_text(out, &last, entry, text.kind, text.text, text.len, err);
        if (!status && sgz_compare(toc->arena + place->name, place->name_len,
                                   toc->arena + row->name_off, row->name_len))
            status = put_text(out, &last, entry, SGZ_INDEX_TAR_NAME, toc->arena + place->name,
                              place->name_len, err);
        entry++;
    }
    return status;
}

static sgz_status pack_entries(const sgz_codecs *codecs, const bytes *in, bytes *out,
                               sgz_error *err)
{
    sgz_deflater deflater;
    sgz_status status = sgz_codec_deflater_init(&deflater, codecs, LEVEL, err);
    if (status)
        return status;
    if (!SGZ_FIT(out->data, out->cap, sgz_codec_member_bound(in->len)))
        status = no_memory(err);
    else
        status = sgz_codec_deflate_member(&deflater, in->data, in->len, 0, out->data, out->cap,
                                          &out->len, err);
    sgz_codec_deflater_free(&deflater);
    return status;
}

typedef struct {
    const sgz_codecs *codecs;
    sgz_sha256 sha;
    sgz_toc_footer member;
    bytes *out;
    sgz_status status;
    sgz_error err;
} toc_writer;

static sgz_status take_member(void *arg, const uint8_t *data, size_t len, sgz_error *err)
{
    toc_writer *w = arg;
    return add(w->out, data, len, err);
}

static int take_json(void *arg, const char *data, size_t len)
{
    toc_writer *w = arg;
    sgz_codec_sha256_update(w->codecs, &w->sha, data, len);
    w->status = sgz_toc_footer_append(&w->member, data, len, &w->err);
    return w->status != SGZ_OK;
}

static sgz_status put_toc(const sgz_toc *toc, const sgz_codecs *codecs, sgz_index_head *head,
                          bytes *out, sgz_error *err)
{
    toc_writer w = {.codecs = codecs, .out = out};
    uint64_t len, again;
    sgz_status status = sgz_toc_format(toc, 0, NULL, NULL, &len, err);
    if (!status)
        status = sgz_toc_check_size(toc, len, err);
    if (!status)
        status = sgz_codec_sha256_new(codecs, &w.sha, err);
    if (status)
        return status;
    w.member.blob = take_member;
    w.member.arg = &w;
    sgz_codec_sha256_init(codecs, &w.sha);
    status = sgz_toc_footer_begin(&w.member, codecs, len, LEVEL, 0, err);
    if (!status)
        status = sgz_toc_format(toc, 0, take_json, &w, &again, err);
    if (w.status) {
        status = w.status;
        *err = w.err;
    }
    if (!status)
        status = sgz_toc_footer_end(&w.member, err);
    head->json_size = (int64_t)len;
    sgz_codec_sha256_final(codecs, &w.sha, head->json_digest);
    sgz_toc_footer_free(&w.member);
    sgz_codec_sha256_free(codecs, &w.sha);
    return status;
}

/* --- the file ---------------------------------------------------------------------------- */

typedef struct {
    const sgz_codecs *codecs;
    sgz_sha256 sha;
    sgz_index_emit emit;
    void *arg;
} output;

static sgz_status put(output *o, const void *data, size_t len, sgz_error *err)
{
    if (!len)
        return SGZ_OK;
    sgz_codec_sha256_update(o->codecs, &o->sha, data, len);
    return o->emit(o->arg, data, len, err);
}

static sgz_status put_windows(output *o, const sgz_points *points, sgz_error *err)
{
    sgz_status status = SGZ_OK;
    for (size_t i = 0; i < points->count && !status; i++) {
        size_t len = sgz_codec_point_stored(&points->at[i]);
        if (len)
            status = put(o, points->windows + points->at[i].window, len, err);
    }
    return status;
}

static sgz_status put_file(const sgz_index *index, const sgz_codecs *codecs,
                           const sgz_index_head *head, const bytes *points,
                           const bytes *entries, const bytes *toc, sgz_index_emit emit, void *arg,
                           sgz_error *err)
{
    output o = {.codecs = codecs, .emit = emit, .arg = arg};
    uint8_t packed[SGZ_INDEX_HEAD_SIZE], sum[SGZ_INDEX_SUM_SIZE];
    sgz_status status = sgz_codec_sha256_new(codecs, &o.sha, err);
    if (status)
        return status;
    sgz_codec_sha256_init(codecs, &o.sha);
    sgz_index_pack_head(head, packed);
    status = put(&o, packed, sizeof packed, err);
    if (!status)
        status = put(&o, points->data, points->len, err);
    if (!status)
        status = put_windows(&o, &index->points, err);
    if (!status)
        status = put(&o, entries->data, entries->len, err);
    if (!status)
        status = put(&o, toc->data, toc->len, err);
    sgz_codec_sha256_final(codecs, &o.sha, sum);
    sgz_codec_sha256_free(codecs, &o.sha);
    return status ? status : emit(arg, sum, sizeof sum, err);
}

static int is_known(const uint8_t digest[32])
{
    static const uint8_t unknown[32];
    return memcmp(digest, unknown, 32) != 0;
}

sgz_status sgz_index_write(const sgz_index *index, const sgz_codecs *codecs, sgz_index_emit emit,
                           void *arg, uint8_t json_digest[32], sgz_error *err)
{
    bytes points = {0}, entries = {0}, packed = {0}, toc = {0};
    sgz_index_head head = {
        .version = SGZ_INDEX_VERSION,
        .kind = sgz_index_kind_number(index->points.kind),
        .size = index->points.size,
        .tar_size = index->points.end,
        .archive_size = index->archive_size,
        .span_size = index->span_size,
        .longest = sgz_index_longest(index),
        .points = index->points.count,
    };
    memcpy(head.digest, index->digest, 32);
    memcpy(head.diff_id, index->diff_id, 32);
    for (size_t i = 0; i < index->points.count; i++)
        head.windows_len += sgz_codec_point_stored(&index->points.at[i]);
    for (size_t i = 0; i < index->toc->count; i++)
        head.entries += (uint64_t)is_entry(&index->toc->rows[i]);
    sgz_status status = sgz_index_check(index, err);
    if (!status && (!is_known(head.digest) || !is_known(head.diff_id)))
        status = sgz_base_fail(err, SGZ_EINDEX, -1, NULL, 0,
                               "the digests of its blob are not known; make the index of the blob");
    if (!status)
        status = put_points(&index->points, &points, err);
    if (!status)
        status = put_places(index, &entries, err);
    if (!status)
        status = put_texts(index, &entries, err);
    if (!status)
        status = put_toc(index->toc, codecs, &head, &toc, err);
    if (!status && entries.len > sgz_index_entries_max(head.json_size))
        status = sgz_base_fail(err, SGZ_ETAR, -1, NULL, 0,
                               "its names as they are in the tar have %zu bytes, more than the "
                               "limit of twice its TOC and 40 MiB", entries.len);
    if (!status)
        status = pack_entries(codecs, &entries, &packed, err);
    head.points_len = points.len;
    head.entries_len = entries.len;
    head.entries_packed = packed.len;
    head.toc_len = toc.len;
    if (!status)
        status = put_file(index, codecs, &head, &points, &packed, &toc, emit, arg, err);
    if (!status && json_digest)
        memcpy(json_digest, head.json_digest, 32);
    free(points.data);
    free(entries.data);
    free(packed.data);
    free(toc.data);
    return status;
}
