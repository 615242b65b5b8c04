/* The ztoc of what was collected: measured from its end, then handed out from its beginning. */
#include <errno.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/time.h"
#include "base/vec.h"
#include "index/flat_builder.h"
#include "index/ztoc.h"

/* Pieces that are handed out. */
#define PIECE ((size_t)256 << 10)

/* --- the flatbuffer -------------------------------------------------------------------- */

/* All texts of an entry, kept as it is. */
typedef struct {
    sgz_ztoc_entry raw;
    const char *name, *link, *uname, *gname, *records, *end;
} kept_entry;

static void find(const sgz_index_ztoc *z, const sgz_ztoc_place *place, kept_entry *e)
{
    const char *at = z->arena + place->kept;
    memcpy(&e->raw, at, sizeof e->raw);
    e->name = at + sizeof e->raw;
    e->link = e->name + e->raw.name_len;
    e->uname = e->link + e->raw.link_len;
    e->gname = e->uname + e->raw.uname_len;
    e->records = e->gname + e->raw.gname_len;
    e->end = e->records + e->raw.records_len;
}

/* References to things of which it is not known how many there will be. */
typedef struct {
    uint64_t *at;
    size_t count, cap;
} ref_list;

static uint64_t build_records(sgz_flat_builder *b, const kept_entry *e, ref_list *refs)
{
    sgz_xattr record;
    refs->count = 0;
    for (const char *at = e->records; sgz_xattrs_next(&at, e->end, &record);) {
        uint64_t key = sgz_index_flat_string(b, record.key, record.key_len);
        uint64_t value = sgz_index_flat_string(b, record.value, record.value_len);
        sgz_index_flat_table(b);
        sgz_index_flat_ref(b, ZTOC_XATTR_KEY, key);
        sgz_index_flat_ref(b, ZTOC_XATTR_VALUE, value);
        uint64_t table = sgz_index_flat_table_end(b);
        if (!SGZ_PUSH(refs->at, refs->count, refs->cap, table)) {
            b->failed = 1;
            return 0;
        }
    }
    return sgz_index_flat_offsets(b, refs->at, refs->count);
}

/* Returns where its table is. */
static uint64_t build_entry(sgz_flat_builder *b, const sgz_index_ztoc *z,
                            const sgz_ztoc_place *place, ref_list *refs)
{
    kept_entry e;
    char time[SGZ_TIME_MAX];
    find(z, place, &e);
    const sgz_ztoc_entry *raw = &e.raw;
    const char *type = sgz_ztoc_type_name(raw->type);
    uint64_t name = sgz_index_flat_string(b, e.name, raw->name_len);
    uint64_t type_name = sgz_index_flat_string(b, type, strlen(type));
    uint64_t link = sgz_index_flat_string(b, e.link, raw->link_len);
    uint64_t uname = sgz_index_flat_string(b, e.uname, raw->uname_len);
    uint64_t gname = sgz_index_flat_string(b, e.gname, raw->gname_len);
    size_t time_len = sgz_base_time_format(raw->seconds, raw->nanoseconds, time);
    uint64_t mtime = sgz_index_flat_string(b, time, time_len);
    uint64_t records = build_records(b, &e, refs);
    sgz_index_flat_table(b);
    sgz_index_flat_ref(b, ZTOC_NAME, name);
    sgz_index_flat_ref(b, ZTOC_TYPE, type_name);
    sgz_index_flat_number(b, ZTOC_OFFSET, 8, raw->content, 0);
    sgz_index_flat_number(b, ZTOC_SIZE, 8, raw->size, 0);
    sgz_index_flat_ref(b, ZTOC_LINK, link);
    sgz_index_flat_number(b, ZTOC_MODE, 8, raw->mode, 0);
    sgz_index_flat_number(b, ZTOC_UID, 4, raw->uid, 0);
    sgz_index_flat_number(b, ZTOC_GID, 4, raw->gid, 0);
    sgz_index_flat_ref(b, ZTOC_UNAME, uname);
    sgz_index_flat_ref(b, ZTOC_GNAME, gname);
    sgz_index_flat_ref(b, ZTOC_MTIME, mtime);
    sgz_index_flat_number(b, ZTOC_DEV_MAJOR, 8, raw->dev_major, 0);
    sgz_index_flat_number(b, ZTOC_DEV_MINOR, 8, raw->dev_minor, 0);
    sgz_index_flat_ref(b, ZTOC_XATTRS, records);
    return sgz_index_flat_table_end(b);
}

static uint64_t build_toc(sgz_flat_builder *b, const sgz_index_ztoc *z, ref_list *refs)
{
    refs->count = 0;
    for (size_t i = 0; i < z->count; i++)
        if (!SGZ_PUSH(refs->at, refs->count, refs->cap, z->entries[i].table)) {
            b->failed = 1;
            return 0;
        }
    uint64_t entries = sgz_index_flat_offsets(b, refs->at, refs->count);
    sgz_index_flat_table(b);
    sgz_index_flat_ref(b, ZTOC_TOC_ENTRIES, entries);
    return sgz_index_flat_table_end(b);
}

/* The checkpoints of what is not compressed: a flatbuffer of its own. */
static void build_plain(sgz_flat_builder *b, const sgz_index *index)
{
    sgz_index_flat_table(b);
    sgz_index_flat_number(b, ZTOC_PLAIN_VERSION, 4, 2, 0);
    sgz_index_flat_number(b, ZTOC_PLAIN_SPAN, 8, index->span_size, 0);
    sgz_index_flat_number(b, ZTOC_PLAIN_SIZE, 8, index->points.size, 0);
    sgz_index_flat_finish(b, sgz_index_flat_table_end(b));
}

static uint64_t build_digests(sgz_flat_builder *b, const sgz_points *points, ref_list *refs)
{
    refs->count = 0;
    for (size_t i = 0; i < points->count; i++) {
        char text[71] = "sha256:";
        sgz_put_hex(text + 7, points->digests[i], 32);
        uint64_t digest = sgz_index_flat_string(b, text, sizeof text);
        if (!SGZ_PUSH(refs->at, refs->count, refs->cap, digest)) {
            b->failed = 1;
            return 0;
        }
    }
    return sgz_index_flat_offsets(b, refs->at, refs->count);
}

/* --- in parts -------------------------------------------------------------------------- */

/* A ztoc on its way out. Its parts in order: head, checkpoints, middle, the entries, tail. */
typedef struct {
    sgz_index_ztoc *ztoc;
    const sgz_index *index;
    sgz_flat_builder builder;
    sgz_flat_builder plain;
    ref_list refs;
    uint8_t *middle, *tail;
    size_t middle_len, tail_len, checkpoints_len;
    uint8_t *out;
    size_t out_len;
    sgz_index_emit emit;
    void *arg;
} writer;

/* Take what is built away into memory of its own. */
static void keep(writer *w, uint8_t **part, size_t *len)
{
    sgz_flat_builder *b = &w->builder;
    *len = b->len;
    *part = malloc(b->len + 1);
    if (*part && b->len)
        memcpy(*part, sgz_flat_data(b), b->len);
    b->failed |= !*part;
    sgz_flat_take(b);
}

static sgz_status put(writer *w, const uint8_t *data, size_t len, sgz_error *err)
{
    sgz_status status = SGZ_OK;
    if (w->out_len && w->out_len + len > PIECE) {
        status = w->emit(w->arg, w->out, w->out_len, err);
        w->out_len = 0;
    }
    if (status || len > PIECE)
        return status ? status : w->emit(w->arg, data, len, err);
    if (len)
        memcpy(w->out + w->out_len, data, len);
    w->out_len += len;
    return SGZ_OK;
}

/* Build all from the end: every part has its place then, and the head is in the builder. */
static sgz_status measure(writer *w, const char *tool, sgz_error *err)
{
    sgz_index_ztoc *z = w->ztoc;
    const sgz_points *points = &w->index->points;
    sgz_flat_builder *b = &w->builder;
    int is_gzip = points->kind == SGZ_POINT_DEFLATE;
    uint64_t version = sgz_index_flat_string(b, "0.9", 3);
    uint64_t tool_at = sgz_index_flat_string(b, tool, strlen(tool));
    keep(w, &w->tail, &w->tail_len);
    for (size_t i = z->count; i-- && !b->failed && sgz_flat_at(b) <= SGZ_ZTOC_SIZE_MAX;) {
        z->entries[i].table = (uint32_t)build_entry(b, z, &z->entries[i], &w->refs);
        sgz_flat_take(b);
        z->entries[i].begin = (uint32_t)sgz_flat_at(b);
    }
    uint64_t toc = build_toc(b, z, &w->refs);
    w->checkpoints_len = ZTOC_HEAD + (size_t)z->points * ZTOC_CHECKPOINT;
    if (!is_gzip) {
        build_plain(&w->plain, w->index);
        w->checkpoints_len = w->plain.len;
    }
    sgz_index_flat_bytes_begin(b, w->checkpoints_len);
    keep(w, &w->middle, &w->middle_len);
    b->behind += w->checkpoints_len;
    uint64_t checkpoints = sgz_index_flat_bytes_end(b, w->checkpoints_len);
    uint64_t digests = build_digests(b, points, &w->refs);
    sgz_index_flat_table(b);
    sgz_index_flat_number(b, ZTOC_MAX_SPAN, 4, (int64_t)points->count - 1, 0);
    sgz_index_flat_ref(b, ZTOC_DIGESTS, digests);
    sgz_index_flat_ref(b, ZTOC_CHECKPOINTS, checkpoints);
    sgz_index_flat_number(b, ZTOC_ALGORITHM, 1, is_gzip ? ZTOC_GZIP : ZTOC_PLAIN, ZTOC_GZIP);
    uint64_t compression = sgz_index_flat_table_end(b);
    sgz_index_flat_table(b);
    sgz_index_flat_ref(b, ZTOC_VERSION, version);
    sgz_index_flat_ref(b, ZTOC_TOOL, tool_at);
    sgz_index_flat_ref(b, ZTOC_TOC, toc);
    sgz_index_flat_number(b, ZTOC_BLOB_SIZE, 8, points->size, 0);
    sgz_index_flat_number(b, ZTOC_TAR_SIZE, 8, w->index->archive_size, 0);
    sgz_index_flat_ref(b, ZTOC_COMPRESSION, compression);
    sgz_index_flat_finish(b, sgz_index_flat_table_end(b));
    if (b->failed || w->plain.failed)
        return sgz_ztoc_no_memory(err);
    if (sgz_flat_at(b) > SGZ_ZTOC_SIZE_MAX)
        return sgz_base_fail(err, SGZ_ENOTOC, -1, NULL, 0,
                             "the ztoc would have %llu bytes, more than the 2 GiB that it can have: "
                             "make it with larger spans", (unsigned long long)sgz_flat_at(b));
    return SGZ_OK;
}

static sgz_status put_windows(writer *w, sgz_error *err)
{
    uint8_t head[ZTOC_HEAD];
    sgz_put_le32(head, (uint32_t)w->ztoc->points);
    sgz_put_le64(head + 4, (uint64_t)w->index->span_size);
    sgz_status status = put(w, head, sizeof head, err);
    uint8_t *piece = malloc(PIECE);
    if (!status && !piece)
        status = sgz_ztoc_no_memory(err);
    int64_t end = w->ztoc->points * ZTOC_CHECKPOINT;
    for (int64_t at = 0; at < end && !status; at += PIECE) {
        size_t len = end - at < (int64_t)PIECE ? (size_t)(end - at) : PIECE;
        int64_t got = sgz_base_read_all(w->ztoc->spool, piece, len, at);
        status = got == (int64_t)len
               ? put(w, piece, len, err)
               : sgz_base_fail_errno(err, got < 0 ? (int)-got : EIO,
                                     "cannot read the windows from their temporary file", NULL, 0);
    }
    free(piece);
    return status;
}

static sgz_status put_all(writer *w, sgz_error *err)
{
    sgz_index_ztoc *z = w->ztoc;
    sgz_flat_builder *b = &w->builder;
    sgz_status status = put(w, sgz_flat_data(b), b->len, err);
    if (!status)
        status = w->index->points.kind == SGZ_POINT_DEFLATE
               ? put_windows(w, err)
               : put(w, sgz_flat_data(&w->plain), w->plain.len, err);
    if (!status)
        status = put(w, w->middle, w->middle_len, err);
    for (size_t i = 0; i < z->count && !status; i++) {
        b->behind = i + 1 < z->count ? z->entries[i + 1].begin : w->tail_len;
        b->len = 0;
        build_entry(b, z, &z->entries[i], &w->refs);
        status = b->failed ? sgz_ztoc_no_memory(err) : put(w, sgz_flat_data(b), b->len, err);
    }
    if (!status)
        status = put(w, w->tail, w->tail_len, err);
    return status ? status : w->emit(w->arg, w->out, w->out_len, err);
}

static sgz_status check_index(const sgz_index_ztoc *z, const sgz_index *index, sgz_error *err)
{
    const sgz_points *points = &index->points;
    if (points->kind != SGZ_POINT_DEFLATE && points->kind != SGZ_POINT_STORED)
        return sgz_base_fail(err, SGZ_ENOTOC, -1, NULL, 0,
                             "SOCI has indexes of gzip and of plain tars only: make one of the native "
                             "format, or convert");
    if ((points->kind == SGZ_POINT_DEFLATE && (int64_t)points->count != z->points) ||
        (points->count && !points->digests))
        return sgz_base_fail(err, SGZ_EINDEX, -1, NULL, 0, "this index was not built for SOCI");
    if (index->notes.count[SGZ_NOTE_BELOW_LINK]) {
        const char *name = index->notes.first[SGZ_NOTE_BELOW_LINK];
        return sgz_base_fail(err, SGZ_ENOTOC, -1, name, strlen(name),
                             "it is below a symlink of the layer, where SOCI's reader does not find "
                             "it; make an index of the native format instead");
    }
    return SGZ_OK;
}

sgz_status sgz_index_ztoc_write(sgz_index_ztoc *ztoc, const sgz_index *index, const char *tool,
                                sgz_index_emit emit, void *arg, sgz_error *err)
{
    sgz_status status = check_index(ztoc, index, err);
    if (status)
        return status;
    writer w = {.ztoc = ztoc, .index = index, .emit = emit, .arg = arg, .out = malloc(PIECE)};
    status = w.out ? measure(&w, tool, err) : sgz_ztoc_no_memory(err);
    if (!status)
        status = put_all(&w, err);
    sgz_index_flat_free(&w.builder);
    sgz_index_flat_free(&w.plain);
    free(w.refs.at);
    free(w.middle);
    free(w.tail);
    free(w.out);
    return status;
}
