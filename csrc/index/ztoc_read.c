#include "index/ztoc_read.h"

#include "base/time.h"
#include "base/vec.h"
#include "codec/decode.h"
#include "index/flat.h"
#include "index/limits.h"
#include "index/ztoc.h"
#include "toc/rows.h"

/* Files are cut at entry points, and into chunks of this size. */
#define CHUNK_SIZE ((int64_t)4 << 20)

/* Where in `entries` one is, and where its contents are. */
typedef struct {
    int64_t content;
    size_t number;
} entry_order;

typedef struct {
    sgz_flat flat;
    sgz_index *index;
    sgz_toc_rows *rows;
    uint64_t work;          /* bytes and items looked at */
    entry_order *order;
    size_t order_cap;
    sgz_xattr *xattrs;      /* of one entry; keys in `keys` */
    size_t xattr_cap;
    char *keys;
    size_t key_cap;
} reader;

/* A ztoc where nothing is shared has a multiple of this in it: names, tables of names. */
static uint64_t work_limit(const reader *r)
{
    return 4 * (uint64_t)r->flat.len + (16 << 20);
}

static sgz_status malformed(const char *what, sgz_error *err)
{
    return sgz_base_fail(err, SGZ_EINDEX, -1, NULL, 0, "not a ztoc, or a broken one: %s", what);
}

static sgz_status outside(sgz_error *err)
{
    return malformed("an offset leads outside", err);
}

/* --- points ---------------------------------------------------------------------------- */

static sgz_status add_point(sgz_index *index, sgz_point point, sgz_error *err)
{
    sgz_points *points = &index->points;
    const sgz_point *before = points->count ? &points->at[points->count - 1] : NULL;
    if (before ? point.offset <= before->offset || point.out <= before->out
               : point.offset < 0 || point.out)
        return malformed("its checkpoints do not ascend", err);
    if (point.offset >= points->size)
        return malformed("a checkpoint is beyond the end of the blob", err);
    if (!SGZ_PUSH(points->at, points->count, points->cap, point))
        return sgz_ztoc_no_memory(err);
    return SGZ_OK;
}

static sgz_status read_gzip(const uint8_t *data, size_t len, sgz_index *index, sgz_error *err)
{
    sgz_points *points = &index->points;
    points->kind = SGZ_POINT_DEFLATE;
    if (len < ZTOC_HEAD)
        return malformed("its checkpoints are cut off", err);
    uint64_t count = sgz_get_le32(data), there = (len - ZTOC_HEAD) / ZTOC_CHECKPOINT;
    index->span_size = (int64_t)sgz_get_le64(data + 4);
    /* The first version leaves out the first one, of what is behind a gzip header of 10 bytes. */
    if ((len - ZTOC_HEAD) % ZTOC_CHECKPOINT || (count != there && count != there + 1))
        return malformed("its checkpoints have another size than their number says", err);
    if (index->span_size < 0)
        return malformed("its span size is negative", err);
    sgz_status status = SGZ_OK;
    if (count != there)
        status = add_point(index, (sgz_point){.offset = 10}, err);
    points->windows = (uint8_t *)data; /* borrowed, and so never written */
    points->windows_len = len;
    for (uint64_t i = 0; i < there && !status; i++) {
        size_t at = ZTOC_HEAD + (size_t)i * ZTOC_CHECKPOINT;
        int64_t in = (int64_t)sgz_get_le64(data + at), out = (int64_t)sgz_get_le64(data + at + 8);
        uint8_t bits = data[at + 16];
        if (bits > 7 || in < 1)
            return malformed("a checkpoint has impossible bits or a negative offset", err);
        uint32_t history = out < 0 ? 0 : out < SGZ_HISTORY_MAX ? (uint32_t)out : SGZ_HISTORY_MAX;
        sgz_point point = {.offset = in - (bits != 0), .out = out, .skip = (8 - bits) & 7,
                           .history = history, .window = at + ZTOC_CHECKPOINT - history};
        status = add_point(index, point, err);
    }
    return status;
}

static sgz_status read_plain(const uint8_t *data, size_t len, size_t digests, sgz_index *index,
                             sgz_error *err)
{
    sgz_points *points = &index->points;
    sgz_flat flat = {data, len, 0};
    sgz_flat_table root = sgz_flat_root(&flat);
    int64_t span = sgz_flat_number(&flat, &root, ZTOC_PLAIN_SPAN, 8, 0);
    int64_t size = sgz_flat_number(&flat, &root, ZTOC_PLAIN_SIZE, 8, 0);
    points->kind = SGZ_POINT_STORED;
    if (flat.bad)
        return outside(err);
    if (span <= 0 || size != points->size)
        return malformed("its spans do not divide the blob", err);
    index->span_size = span;
    if (digests > SGZ_INDEX_POINTS_MAX)
        return malformed("it has more spans than an index may have", err);
    if (digests != (uint64_t)size / (uint64_t)span + (size % span != 0))
        return malformed("there is not one digest of each span", err);
    sgz_status status = SGZ_OK;
    for (size_t i = 0; i < digests && !status; i++)
        status = add_point(index, (sgz_point){.offset = (int64_t)i * span,
                                              .out = (int64_t)i * span}, err);
    return status;
}

static sgz_status read_digests(reader *r, const sgz_flat_vector *digests, sgz_error *err)
{
    sgz_points *points = &r->index->points;
    points->digests = malloc(32 * (digests->count + 1));
    if (!points->digests)
        return sgz_ztoc_no_memory(err);
    for (size_t i = 0; i < digests->count; i++) {
        size_t at = sgz_flat_follow(&r->flat, digests->at + 4 * i);
        size_t len = (size_t)sgz_flat_get(&r->flat, at, 4);
        if (!at || !sgz_flat_has(&r->flat, at + 4, len))
            return outside(err);
        if (!sgz_get_sha256((const char *)r->flat.data + at + 4, len, points->digests[i]))
            return malformed("the digest of a span is no sha256", err);
    }
    return SGZ_OK;
}

static sgz_status read_points(reader *r, const sgz_flat_table *root, sgz_error *err)
{
    sgz_flat *f = &r->flat;
    sgz_points *points = &r->index->points;
    sgz_flat_table info = sgz_flat_sub(f, root, ZTOC_COMPRESSION);
    sgz_flat_vector digests = sgz_flat_items(f, &info, ZTOC_DIGESTS, 4);
    int64_t algorithm = sgz_flat_number(f, &info, ZTOC_ALGORITHM, 1, ZTOC_GZIP);
    int64_t last = sgz_flat_number(f, &info, ZTOC_MAX_SPAN, 4, 0);
    size_t len;
    const uint8_t *checkpoints = (const uint8_t *)sgz_flat_text(f, &info, ZTOC_CHECKPOINTS, &len);
    sgz_status status;
    if (f->bad)
        return outside(err);
    if (algorithm != ZTOC_GZIP && algorithm != ZTOC_PLAIN)
        return malformed("its layer is compressed in a way that is not known", err);
    status = algorithm == ZTOC_GZIP ? read_gzip(checkpoints, len, r->index, err)
                                    : read_plain(checkpoints, len, digests.count, r->index, err);
    if (status)
        return status;
    if (last != (int64_t)points->count - 1 || digests.count != points->count)
        return malformed("there is not one digest of each span", err);
    /* Behind the archive's end there may be more bytes; how many is not said. */
    points->end = r->index->archive_size;
    if (points->count && points->end < points->at[points->count - 1].out)
        points->end = points->at[points->count - 1].out;
    if (algorithm == ZTOC_PLAIN)
        points->end = points->size;
    for (size_t i = 0; i < points->count; i++)
        if (!sgz_codec_point_fits(points, sgz_codec_points_end(points, i) - points->at[i].offset,
                                  sgz_index_span_end(points, i) - points->at[i].out))
            return malformed("a span of it promises more than its bytes can hold", err);
    return read_digests(r, &digests, err);
}

/* --- entries --------------------------------------------------------------------------- */

/* Fail with the entry's name. */
#define BAD(entry, err, ...)                                                                    \
    sgz_base_fail(err, SGZ_EINDEX, -1, (entry)->name, (entry)->name_len, __VA_ARGS__)

static char type_flag(const char *type, size_t len)
{
    for (char flag = '0'; flag <= '6'; flag++)
        if (sgz_is(type, len, sgz_ztoc_type_name(flag)))
            return flag;
    return 0;
}

/* Those of the PAX records that are xattrs, under the names that they have in a file system. */
static sgz_status read_xattrs(reader *r, const sgz_flat_table *table, sgz_tar_entry *entry,
                              sgz_error *err)
{
    static const char prefix[] = "SCHILY.xattr.";
    const size_t skip = sizeof prefix - 1;
    sgz_flat *f = &r->flat;
    sgz_flat_vector records = sgz_flat_items(f, table, ZTOC_XATTRS, 4);
    size_t keys = 0, count = 0;
    for (size_t i = 0; i < records.count && !f->bad && r->work <= work_limit(r); i++) {
        size_t len;
        sgz_flat_table record = sgz_flat_item(f, &records, i);
        const char *key = sgz_flat_text(f, &record, ZTOC_XATTR_KEY, &len);
        r->work += 8;
        if (f->bad || len <= skip || memcmp(key, prefix, skip))
            continue;
        if (!SGZ_FIT(r->keys, r->key_cap, keys + len))
            return sgz_ztoc_no_memory(err);
        memcpy(r->keys + keys, key + skip, len - skip);
        sgz_xattr xattr = {.key_len = (uint32_t)sgz_tar_unescape(r->keys + keys, len - skip)};
        keys += xattr.key_len;
        xattr.value = sgz_flat_text(f, &record, ZTOC_XATTR_VALUE, &len);
        xattr.value_len = (uint32_t)len;
        r->work += xattr.key_len + xattr.value_len;
        if (!SGZ_PUSH(r->xattrs, count, r->xattr_cap, xattr))
            return sgz_ztoc_no_memory(err);
    }
    for (size_t i = 0, at = 0; i < count; at += r->xattrs[i++].key_len) {
        r->xattrs[i].key = r->keys + at;
        if (memchr(r->xattrs[i].key, 0, r->xattrs[i].key_len))
            return BAD(entry, err, "an xattr's name has a NUL in it");
    }
    entry->xattrs = r->xattrs;
    entry->xattr_count = sgz_base_xattrs_sort(r->xattrs, count);
    return SGZ_OK;
}

static int is_number(int64_t value, uint32_t *out)
{
    *out = (uint32_t)value;
    return value >= 0 && value <= UINT32_MAX;
}

/* As if it came from a tar. */
static sgz_status read_entry(reader *r, const sgz_flat_table *table, sgz_tar_entry *entry,
                             sgz_error *err)
{
    sgz_flat *f = &r->flat;
    size_t type_len, time_len;
    uint32_t nanoseconds;
    const char *type = sgz_flat_text(f, table, ZTOC_TYPE, &type_len);
    const char *time = sgz_flat_text(f, table, ZTOC_MTIME, &time_len);
    *entry = (sgz_tar_entry){.type = type_flag(type, type_len)};
    entry->name = sgz_flat_text(f, table, ZTOC_NAME, &entry->name_len);
    entry->link = sgz_flat_text(f, table, ZTOC_LINK, &entry->link_len);
    entry->uname = sgz_flat_text(f, table, ZTOC_UNAME, &entry->uname_len);
    entry->gname = sgz_flat_text(f, table, ZTOC_GNAME, &entry->gname_len);
    entry->payload = sgz_flat_number(f, table, ZTOC_SIZE, 8, 0);
    entry->mode = (uint32_t)sgz_flat_number(f, table, ZTOC_MODE, 8, 0);
    entry->uid = (uint32_t)sgz_flat_number(f, table, ZTOC_UID, 4, 0);
    entry->gid = (uint32_t)sgz_flat_number(f, table, ZTOC_GID, 4, 0);
    if (sgz_base_time_read(time, time_len, &entry->mtime, &nanoseconds) &&
        sgz_tar_time_fits(entry->mtime)) {
        entry->mtime += nanoseconds >= 500000000;
        entry->mtime_nsec = nanoseconds;
    } else {
        entry->mtime = 0;
    }
    int is_device = entry->type == '3' || entry->type == '4';
    int has_devices = is_number(sgz_flat_number(f, table, ZTOC_DEV_MAJOR, 8, 0), &entry->dev_major)
                    & is_number(sgz_flat_number(f, table, ZTOC_DEV_MINOR, 8, 0), &entry->dev_minor);
    if (f->bad)
        return outside(err);
    if (!entry->type)
        return BAD(entry, err, "it is of a type that a ztoc does not know");
    int slash = entry->name_len && entry->name[entry->name_len - 1] == '/';
    if (entry->type == '0' && slash && !entry->payload)
        entry->type = '5';
    if ((!entry->name_len && entry->type != '5') || (entry->type == '0' && slash))
        return BAD(entry, err, "it has a name that no file can have");
    if ((entry->type == '1' || entry->type == '2') && !entry->link_len)
        return BAD(entry, err, "a link that names no target");
    if (is_device && !has_devices)
        return BAD(entry, err, "a device number is not one of 32 bits");
    if (memchr(entry->name, 0, entry->name_len) || memchr(entry->link, 0, entry->link_len) ||
        memchr(entry->uname, 0, entry->uname_len) || memchr(entry->gname, 0, entry->gname_len))
        return BAD(entry, err, "a name has a NUL in it");
    entry->size = entry->type == '0' ? entry->payload : 0;
    r->work += entry->name_len + entry->link_len + entry->uname_len + entry->gname_len;
    return read_xattrs(r, table, entry, err);
}

/* What hostile sharing within the file may make of it. */
static sgz_status check_room(const reader *r, const sgz_tar_entry *entry, sgz_error *err)
{
    const sgz_toc *toc = r->index->toc;
    sgz_toc_weight weight = {.rows = toc->count, .bytes = toc->arena_len,
                             .owners = toc->string_count};
    if (r->work > work_limit(r) || !sgz_toc_fits(weight, 2 * (uint64_t)r->flat.len, 0))
        return BAD(entry, err, "the entries to here are more than a ztoc of this size can have");
    return SGZ_OK;
}

/* --- rows ------------------------------------------------------------------------------ */

static sgz_status add_place(reader *r, uint32_t row, const sgz_tar_entry *entry, int64_t begin,
                            int64_t content, sgz_error *err)
{
    sgz_index *index = r->index;
    sgz_toc *toc = index->toc;
    uint64_t name = sgz_toc_store(toc, entry->name, entry->name_len);
    if (name == UINT64_MAX || !SGZ_FIT(index->toc->origins, index->toc->origin_cap, row + (size_t)1))
        return sgz_ztoc_no_memory(err);
    index->toc->origins[row] = (sgz_toc_origin){
        .content = content, .name = name, .name_len = (uint32_t)entry->name_len,
        .header = (uint32_t)(content - begin), .ns = entry->mtime_nsec};
    return SGZ_OK;
}

/* Cut a file at the points within it. */
static sgz_status add_chunks(reader *r, uint32_t row, const sgz_tar_entry *entry, int64_t content,
                             sgz_error *err)
{
    sgz_index *index = r->index;
    const sgz_points *points = &index->points;
    size_t i = sgz_codec_points_before(points, content);
    if (i == SGZ_NO_POINT || content > points->end || entry->size > points->end - content)
        return BAD(entry, err, "its contents are beyond the end of the tar");
    for (int64_t done = 0, len; done < entry->size; done += len) {
        int64_t at = content + done, left = entry->size - done;
        while (i + 1 < points->count && points->at[i + 1].out <= at)
            i++;
        len = sgz_index_span_end(points, i) - at;
        len = len < CHUNK_SIZE ? len : CHUNK_SIZE;
        len = len < left ? len : left;
        sgz_status status = done ? sgz_toc_rows_chunk(r->rows, &row, err) : SGZ_OK;
        if (!status)
            status = check_room(r, entry, err);
        if (status)
            return status;
        if (done) {
            if (!SGZ_FIT(index->toc->origins, index->toc->origin_cap, row + (size_t)1))
                return sgz_ztoc_no_memory(err);
            index->toc->origins[row] = (sgz_toc_origin){0};
        }
        sgz_entry *piece = &index->toc->rows[row];
        piece->offset = points->at[i].offset;
        piece->inner_offset = at - points->at[i].out;
        piece->chunk_offset = done;
        piece->chunk_size = len;
        piece->flags |= len < left ? SGZ_SET_CHUNK_SIZE : 0;
    }
    return SGZ_OK;
}

static sgz_status add_entry(reader *r, const sgz_flat_table *table, int64_t content,
                            int64_t *begin, sgz_error *err)
{
    sgz_tar_entry entry;
    uint32_t row;
    sgz_status status = read_entry(r, table, &entry, err);
    if (!status)
        status = check_room(r, &entry, err);
    if (status)
        return status;
    if (content - *begin < SGZ_TAR_BLOCK || content - *begin > SGZ_INDEX_HEADER_MAX)
        return BAD(&entry, err, "there is no room for its tar header, or too much");
    if (entry.payload < 0 || entry.payload > r->index->points.end - content)
        return BAD(&entry, err, "its contents are beyond the end of the tar");
    int64_t at = *begin;
    *begin = (content + entry.payload + SGZ_TAR_BLOCK - 1) & -(int64_t)SGZ_TAR_BLOCK;
    if (sgz_toc_rows_is_own(&entry))
        return SGZ_OK;
    status = sgz_toc_rows_entry(r->rows, &entry, -1, &row, err);
    if (!status)
        status = add_place(r, row, &entry, at, content, err);
    if (status || entry.type != '0')
        return status;
    if (!entry.size) {
        sgz_toc_rows_empty(r->rows, row);
        return SGZ_OK;
    }
    return add_chunks(r, row, &entry, content, err);
}

static int by_content(const void *left, const void *right)
{
    const entry_order *a = left, *b = right;
    return a->content != b->content ? (a->content > b->content) - (a->content < b->content)
                                    : (a->number > b->number) - (a->number < b->number);
}

static sgz_status read_entries(reader *r, const sgz_flat_table *root, sgz_error *err)
{
    sgz_flat *f = &r->flat;
    sgz_flat_table toc = sgz_flat_sub(f, root, ZTOC_TOC);
    sgz_flat_vector entries = sgz_flat_items(f, &toc, ZTOC_TOC_ENTRIES, 4);
    int sorted = 1;
    if (!SGZ_FIT(r->order, r->order_cap, entries.count + 1))
        return sgz_ztoc_no_memory(err);
    for (size_t i = 0; i < entries.count; i++) {
        sgz_flat_table table = sgz_flat_item(f, &entries, i);
        r->order[i] = (entry_order){sgz_flat_number(f, &table, ZTOC_OFFSET, 8, 0), i};
        sorted &= !i || r->order[i - 1].content <= r->order[i].content;
    }
    if (f->bad)
        return outside(err);
    if (!sorted)
        qsort(r->order, entries.count, sizeof *r->order, by_content);
    int64_t begin = 0;
    sgz_status status = SGZ_OK;
    for (size_t i = 0; i < entries.count && !status; i++) {
        sgz_flat_table table = sgz_flat_item(f, &entries, r->order[i].number);
        status = add_entry(r, &table, r->order[i].content, &begin, err);
    }
    return status ? status : sgz_toc_rows_finish(r->rows, &r->index->notes, err);
}

/* --- the whole ------------------------------------------------------------------------- */

static sgz_status read_all(reader *r, int64_t blob_size, sgz_error *err)
{
    sgz_flat *f = &r->flat;
    sgz_index *index = r->index;
    sgz_flat_table root = sgz_flat_root(f);
    index->points.size = sgz_flat_number(f, &root, ZTOC_BLOB_SIZE, 8, 0);
    index->archive_size = sgz_flat_number(f, &root, ZTOC_TAR_SIZE, 8, 0);
    if (f->bad)
        return outside(err);
    if (blob_size >= 0 && index->points.size != blob_size)
        return sgz_base_fail(err, SGZ_EINDEX, -1, NULL, 0,
                             "the ztoc is of a blob of %lld bytes, and this one has %lld",
                             (long long)index->points.size, (long long)blob_size);
    if (index->points.size < 0 || index->points.size > SGZ_INDEX_SIZE_MAX ||
        index->archive_size < 0 || index->archive_size > SGZ_INDEX_SIZE_MAX)
        return malformed("a size in it is impossible", err);
    sgz_status status = read_points(r, &root, err);
    return status ? status : read_entries(r, &root, err);
}

sgz_status sgz_index_ztoc_read(const uint8_t *data, size_t len, int64_t blob_size,
                               sgz_index *index, sgz_error *err)
{
    reader r = {.flat = {data, len, 0}, .index = index};
    index->toc = sgz_toc_new();
    r.rows = index->toc ? sgz_toc_rows_new(index->toc) : NULL;
    sgz_status status = r.rows ? SGZ_OK : sgz_ztoc_no_memory(err);
    if (!status) {
        sgz_toc_rows_keep_bytes(r.rows);
        status = read_all(&r, blob_size, err);
    }
    sgz_toc_rows_free(r.rows);
    if (!status)
        status = sgz_index_settle(index, err);
    if (!status)
        status = sgz_index_check(index, err);
    free(r.order);
    free(r.xattrs);
    free(r.keys);
    if (!status)
        return SGZ_OK;
    sgz_index_free(index);
    /* What a layer cannot have is an error of whoever says that one has it. */
    if (err && status != SGZ_ENOMEM && status != SGZ_ECODEC)
        err->code = SGZ_EINDEX;
    return status == SGZ_ENOMEM || status == SGZ_ECODEC ? status : SGZ_EINDEX;
}
