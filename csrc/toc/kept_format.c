/* The JSON of containers/storage, with its keys in its order; chunkDigest is also there where a file
 * has one chunk, for stargz-snapshotter, which reads nothing without. */
#include "toc/json_out.h"
#include "toc/kept.h"

/* It is never only counted. */
enum { counting = 0 };

#define KEY(name) PUT(",\"" name "\":")
#define NUMBER(name, value)                                                                \
    do {                                                                                   \
        if (value) {                                                                       \
            KEY(name);                                                                     \
            put_int(w, 0, (uint64_t)(value));                                              \
        }                                                                                  \
    } while (0)
#define TIME(name, time)                                                                   \
    do {                                                                                   \
        if ((time).given) {                                                                \
            KEY(name);                                                                     \
            put_time(w, 0, (time).seconds, (time).nanoseconds);                            \
        }                                                                                  \
    } while (0)

static void put_xattrs(sgz_json_out *w, const char *at, size_t len)
{
    const char *end = at + len;
    sgz_xattr x;
    KEY("xattrs");
    PUT("{");
    for (int first = 1; sgz_xattrs_next(&at, end, &x); first = 0) {
        reserve(w, 0, SLACK);
        if (!first)
            PUT(",");
        put_text(w, 0, x.key, x.key_len);
        PUT(":");
        put_base64(w, 0, (const uint8_t *)x.value, x.value_len);
    }
    PUT("}");
}

static void put_metadata(sgz_json_out *w, const sgz_toc *toc, const sgz_entry *row,
                       const sgz_kept_times *times)
{
    if (row->link_len) {
        KEY("linkName");
        put_text(w, 0, toc->arena + row->link_off, row->link_len);
    }
    reserve(w, 0, SLACK);
    NUMBER("mode", row->mode);
    NUMBER("size", row->size);
    NUMBER("uid", row->uid);
    NUMBER("gid", row->gid);
    if (row->mtime != SGZ_NO_TIME || times) {
        KEY("modtime");
        put_time(w, 0, row->mtime, times ? times->nanoseconds : 0);
    }
    if (times) {
        TIME("accesstime", times->atime);
        TIME("changetime", times->ctime);
    }
    NUMBER("devMajor", row->dev_major);
    NUMBER("devMinor", row->dev_minor);
    if (row->xattr_len)
        put_xattrs(w, toc->arena + row->xattr_off, row->xattr_len);
    reserve(w, 0, SLACK);
}

static void put_row(sgz_json_out *w, const sgz_toc *toc, size_t number,
                  const sgz_kept_times *times)
{
    const sgz_entry *row = &toc->rows[number];
    const char *type = sgz_toc_type_name(row->type);
    int several = row->type == SGZ_CHUNK ||
                  (number + 1 < toc->count && row[1].type == SGZ_CHUNK);
    reserve(w, 0, SLACK);
    PUT("{\"type\":\"");
    put(w, 0, type, strlen(type));
    PUT("\",\"name\":");
    put_text(w, 0, sgz_toc_entry_name(toc, row), row->name_len);
    if (row->type == SGZ_CHUNK)
        reserve(w, 0, SLACK);
    else
        put_metadata(w, toc, row, times);
    if (row->type == SGZ_REG && row->chunk_size) {
        KEY("digest");
        put_digest(w, 0, sgz_toc_digest(toc, (uint32_t)number));
    }
    if (row->chunk_size) {
        NUMBER("offset", row->offset);
        if (row->type == SGZ_REG)
            NUMBER("endOffset", row->inner_offset);
        if (several)
            NUMBER("chunkSize", row->chunk_size);
        NUMBER("chunkOffset", row->chunk_offset);
        KEY("chunkDigest");
        put_digest(w, 0, row->chunk_digest);
        if (several && row->flags & SGZ_KEPT_ZEROS) {
            KEY("chunkType");
            PUT("\"zeros\"");
        }
    }
    PUT("}");
}

struct sgz_kept_json {
    sgz_json_out w;
    int begun;
};

sgz_kept_json *sgz_toc_kept_json_new(sgz_toc_emit emit, void *arg)
{
    sgz_kept_json *json = calloc(1, sizeof *json);
    if (!json)
        return NULL;
    json->w.emit = emit;
    json->w.arg = arg;
    json->w.p = json->w.buf = malloc(PIECE + SLACK);
    if (!json->w.buf) {
        free(json);
        return NULL;
    }
    sgz_json_out *w = &json->w;
    PUT("{\"version\":1,\"entries\":[");
    return json;
}

void sgz_toc_kept_json_free(sgz_kept_json *json)
{
    if (!json)
        return;
    free(json->w.buf);
    free(json);
}

void sgz_toc_kept_json_rows(sgz_kept_json *json, const sgz_kept_rows *rows)
{
    sgz_json_out *w = &json->w;
    size_t time = 0;
    for (size_t i = 0; i < rows->toc->count && !w->stopped; i++) {
        const sgz_kept_times *times = NULL;
        if (time < rows->time_count && rows->times[time].row == rows->first + i)
            times = &rows->times[time++];
        reserve(w, 0, SLACK);
        if (json->begun)
            PUT(",");
        json->begun = 1;
        put_row(w, rows->toc, i, times);
    }
}

sgz_status sgz_toc_kept_json_end(sgz_kept_json *json, const uint8_t split[32], uint64_t *len,
                             sgz_error *err)
{
    sgz_json_out *w = &json->w;
    reserve(w, 0, SLACK);
    PUT("],\"tarSplitDigest\":");
    put_digest(w, 0, split);
    PUT("}");
    flush(w);
    *len = w->total;
    if (w->stopped)
        return sgz_base_fail(err, SGZ_ECALLBACK, -1, NULL, 0, "writing the TOC was stopped");
    return SGZ_OK;
}
