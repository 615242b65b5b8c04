/* The JSON of containers/storage, with its keys in its order; chunkDigest is also there where a file
 * has one chunk, for stargz-snapshotter, which reads nothing without. */
#include "toc/json_out.h"
#include "toc/kept.h"

#define KEY(name) PUT(",\"" name "\":")
#define NUMBER(name, value)                                                                \
    do {                                                                                   \
        if (value) {                                                                       \
            KEY(name);                                                                     \
            put_int(w, counting, (uint64_t)(value));                                       \
        }                                                                                  \
    } while (0)
#define TIME(name, time)                                                                   \
    do {                                                                                   \
        if ((time).given) {                                                                \
            KEY(name);                                                                     \
            put_time(w, counting, (time).seconds, (time).nanoseconds);                     \
        }                                                                                  \
    } while (0)

BOTH void put_xattrs(sgz_json_out *w, int counting, const char *at, size_t len)
{
    const char *end = at + len;
    sgz_xattr x;
    KEY("xattrs");
    PUT("{");
    for (int first = 1; sgz_xattrs_next(&at, end, &x); first = 0) {
        reserve(w, counting, SLACK);
        if (!first)
            PUT(",");
        put_text(w, counting, x.key, x.key_len);
        PUT(":");
        put_base64(w, counting, (const uint8_t *)x.value, x.value_len);
    }
    PUT("}");
}

BOTH void put_metadata(sgz_json_out *w, int counting, const sgz_toc *toc, const sgz_entry *row,
                       const sgz_kept_times *times)
{
    if (row->link_len) {
        KEY("linkName");
        put_text(w, counting, toc->arena + row->link_off, row->link_len);
    }
    reserve(w, counting, SLACK);
    NUMBER("mode", row->mode);
    NUMBER("size", row->size);
    NUMBER("uid", row->uid);
    NUMBER("gid", row->gid);
    if (row->mtime != SGZ_NO_TIME || times) {
        KEY("modtime");
        put_time(w, counting, row->mtime, times ? times->nanoseconds : 0);
    }
    if (times) {
        TIME("accesstime", times->atime);
        TIME("changetime", times->ctime);
    }
    NUMBER("devMajor", row->dev_major);
    NUMBER("devMinor", row->dev_minor);
    if (row->xattr_len)
        put_xattrs(w, counting, toc->arena + row->xattr_off, row->xattr_len);
    reserve(w, counting, SLACK);
}

BOTH void put_row(sgz_json_out *w, int counting, const sgz_toc *toc, size_t number,
                  const sgz_kept_times *times)
{
    const sgz_entry *row = &toc->rows[number];
    const char *type = sgz_toc_type_name(row->type);
    int several = row->type == SGZ_CHUNK ||
                  (number + 1 < toc->count && row[1].type == SGZ_CHUNK);
    reserve(w, counting, SLACK);
    PUT("{\"type\":\"");
    put(w, counting, type, strlen(type));
    PUT("\",\"name\":");
    put_text(w, counting, sgz_toc_entry_name(toc, row), row->name_len);
    if (row->type == SGZ_CHUNK)
        reserve(w, counting, SLACK);
    else
        put_metadata(w, counting, toc, row, times);
    if (row->type == SGZ_REG && row->chunk_size) {
        KEY("digest");
        put_digest(w, counting, sgz_toc_digest(toc, (uint32_t)number));
    }
    if (row->chunk_size) {
        NUMBER("offset", row->offset);
        if (row->type == SGZ_REG)
            NUMBER("endOffset", row->inner_offset);
        if (several)
            NUMBER("chunkSize", row->chunk_size);
        NUMBER("chunkOffset", row->chunk_offset);
        KEY("chunkDigest");
        put_digest(w, counting, row->chunk_digest);
        if (several && row->flags & SGZ_KEPT_ZEROS) {
            KEY("chunkType");
            PUT("\"zeros\"");
        }
    }
    PUT("}");
}

BOTH void put_toc(sgz_json_out *w, int counting, const sgz_toc_kept *kept, const uint8_t split[32])
{
    const sgz_toc *toc = kept->toc;
    size_t time = 0;
    PUT("{\"version\":1,\"entries\":[");
    for (size_t i = 0; i < toc->count && (counting || !w->stopped); i++) {
        const sgz_kept_times *times = NULL;
        if (time < kept->time_count && kept->times[time].row == i)
            times = &kept->times[time++];
        reserve(w, counting, SLACK);
        if (i)
            PUT(",");
        put_row(w, counting, toc, i, times);
    }
    PUT("],\"tarSplitDigest\":");
    put_digest(w, counting, split);
    PUT("}");
}

static void count_toc(sgz_json_out *w, const sgz_toc_kept *kept, const uint8_t split[32])
{
    put_toc(w, 1, kept, split);
}

static void write_toc(sgz_json_out *w, const sgz_toc_kept *kept, const uint8_t split[32])
{
    put_toc(w, 0, kept, split);
    flush(w);
}

sgz_status sgz_toc_kept_format(const sgz_toc_kept *kept, const uint8_t split[32],
                               sgz_toc_emit emit, void *arg, uint64_t *len, sgz_error *err)
{
    sgz_json_out w = {.emit = emit, .arg = arg};
    if (!emit) {
        count_toc(&w, kept, split);
        *len = w.total;
        return SGZ_OK;
    }
    w.p = w.buf = malloc(PIECE + SLACK);
    if (!w.buf)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to format the TOC");
    write_toc(&w, kept, split);
    free(w.buf);
    *len = w.total;
    if (w.stopped)
        return sgz_base_fail(err, SGZ_ECALLBACK, -1, NULL, 0, "writing the TOC was stopped");
    return SGZ_OK;
}
