#include "toc/json_out.h"

/* --- entries ---------------------------------------------------------------------------- */

#define KEY(name) PUT(",\n\t\t\t\"" name "\": ")
#define NUMBER(name, value)                                                                \
    do {                                                                                   \
        if (value) {                                                                       \
            KEY(name);                                                                     \
            put_int(w, counting, (uint64_t)(value));                                       \
        }                                                                                  \
    } while (0)

BOTH void put_xattrs(sgz_json_out *w, int counting, const char *at, size_t len)
{
    const char *end = at + len;
    KEY("xattrs");
    sgz_xattr x;
    for (int first = 1; sgz_xattrs_next(&at, end, &x); first = 0) {
        reserve(w, counting, SLACK);
        if (first)
            PUT("{\n\t\t\t\t");
        else
            PUT(",\n\t\t\t\t");
        put_text(w, counting, x.key, x.key_len);
        PUT(": ");
        put_base64(w, counting, (const uint8_t *)x.value, x.value_len);
    }
    PUT("\n\t\t\t}");
}

/* The name of an owner, unless it is the last one seen for the id. 0: no memory. */
BOTH int name_if_changed(sgz_toc_id_map *map, uint32_t id, uint32_t number, int *changed)
{
    *changed = number && sgz_toc_id_map_get(map, id) != number;
    return !*changed || sgz_toc_id_map_put(map, id, number);
}

/* The first piece of such a file is written on its own entry. */
static inline int begins_with_zeros(const sgz_toc *toc, size_t number)
{
    const sgz_entry *row = &toc->rows[number];
    return row->type == SGZ_REG && !row->chunk_size && number + 1 < toc->count &&
           row[1].type == SGZ_ZEROS;
}

/* 0: no memory. */
BOTH int put_row(sgz_json_out *w, int counting, const sgz_toc *toc, uint32_t number,
                 const char *name, size_t name_len, int legacy, sgz_toc_id_map *users,
                 sgz_toc_id_map *groups)
{
    const sgz_entry *row = &toc->rows[number];
    const sgz_entry *piece = begins_with_zeros(toc, number) ? row + 1 : row;
    const char *type = sgz_toc_type_name(row->type);
    const char *text;
    size_t len;
    int changed;
    reserve(w, counting, SLACK);
    PUT("\n\t\t{\n\t\t\t\"name\": ");
    put_text(w, counting, name, name_len);
    KEY("type");
    PUT("\"");
    put(w, counting, type, strlen(type));
    PUT("\"");
    if (row->type == SGZ_REG)
        NUMBER("size", row->size);
    if (!sgz_toc_is_piece(row)) {
        /* Of the epoch, too, which the reference leaves out: its reader then shows the year 1. */
        if (row->mtime != SGZ_NO_TIME) {
            KEY("modtime");
            put_time(w, counting, row->mtime, 0);
        }
        if (row->link_len) {
            KEY("linkName");
            put_text(w, counting, toc->arena + row->link_off, row->link_len);
        }
        reserve(w, counting, SLACK);
        NUMBER("mode", row->mode);
        NUMBER("uid", row->uid);
        NUMBER("gid", row->gid);
        if (!name_if_changed(users, row->uid, row->uname, &changed))
            return 0;
        if (changed) {
            KEY("userName");
            text = sgz_toc_string(toc, row->uname, &len);
            put_text(w, counting, text, len);
        }
        if (!name_if_changed(groups, row->gid, row->gname, &changed))
            return 0;
        if (changed) {
            KEY("groupName");
            text = sgz_toc_string(toc, row->gname, &len);
            put_text(w, counting, text, len);
        }
    }
    reserve(w, counting, SLACK);
    NUMBER("offset", piece->offset);
    NUMBER("innerOffset", piece->inner_offset);
    if (row->type == SGZ_CHAR || row->type == SGZ_BLOCK) {
        NUMBER("devMajor", row->dev_major);
        NUMBER("devMinor", row->dev_minor);
    }
    if (row->xattr_len) {
        put_xattrs(w, counting, toc->arena + row->xattr_off, row->xattr_len);
        reserve(w, counting, SLACK);
    }
    const uint8_t *digest = sgz_toc_digest(toc, number);
    if (digest) {
        KEY("digest");
        put_digest(w, counting, digest);
    }
    NUMBER("chunkOffset", piece->chunk_offset);
    if (piece->flags & SGZ_SET_CHUNK_SIZE || piece->type == SGZ_ZEROS)
        NUMBER("chunkSize", piece->chunk_size);
    if (!legacy && piece->flags & SGZ_HAS_CHUNK_DIGEST) {
        KEY("chunkDigest");
        put_digest(w, counting, piece->chunk_digest);
    }
    if (piece->type == SGZ_ZEROS) {
        KEY("chunkType");
        PUT("\"zeros\"");
    }
    PUT("\n\t\t}");
    return 1;
}

BOTH int put_toc(sgz_json_out *w, int counting, const sgz_toc *toc, int legacy, sgz_toc_id_map *users,
                 sgz_toc_id_map *groups)
{
    const char *name = NULL; /* of the last entry: a chunk carries it */
    size_t name_len = 0;
    int first = 1;
    PUT("{\n\t\"version\": 1,\n\t\"entries\": ");
    for (size_t i = 0; i < toc->count && (counting || !w->stopped); i++) {
        const sgz_entry *row = &toc->rows[i];
        if (!sgz_toc_is_piece(row) || !name) {
            name = sgz_toc_entry_name(toc, row);
            name_len = row->name_len;
        }
        if (row->flags & SGZ_DROPPED || (i && begins_with_zeros(toc, i - 1)))
            continue;
        if (first)
            PUT("[");
        else
            PUT(",");
        first = 0;
        if (!put_row(w, counting, toc, (uint32_t)i, name, name_len, legacy, users, groups))
            return 0;
    }
    /* The reference marshals a list that it never appended to. */
    if (first)
        PUT("null");
    else
        PUT("\n\t]");
    PUT("\n}");
    return 1;
}

static int count_toc(sgz_json_out *w, const sgz_toc *toc, int legacy, sgz_toc_id_map *users,
                     sgz_toc_id_map *groups)
{
    return put_toc(w, 1, toc, legacy, users, groups);
}

static int write_toc(sgz_json_out *w, const sgz_toc *toc, int legacy, sgz_toc_id_map *users,
                     sgz_toc_id_map *groups)
{
    int ok = put_toc(w, 0, toc, legacy, users, groups);
    flush(w);
    return ok;
}

sgz_status sgz_toc_format(const sgz_toc *toc, int legacy, sgz_toc_emit emit, void *arg,
                          uint64_t *len, sgz_error *err)
{
    sgz_json_out w = {.emit = emit, .arg = arg};
    sgz_toc_id_map users = {.seed = toc->seed}, groups = {.seed = toc->seed};
    int ok;
    if (emit) {
        w.p = w.buf = malloc(PIECE + SLACK);
        ok = w.buf && write_toc(&w, toc, legacy, &users, &groups);
    } else {
        ok = count_toc(&w, toc, legacy, &users, &groups);
    }
    free(w.buf);
    sgz_toc_id_map_free(&users);
    sgz_toc_id_map_free(&groups);
    *len = w.total;
    if (!ok)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to format the TOC");
    if (w.stopped)
        return sgz_base_fail(err, SGZ_ECALLBACK, -1, NULL, 0, "writing the TOC was stopped");
    return SGZ_OK;
}
