#include "toc/kept.h"

#include "base/bytes.h"
#include "toc/internal.h"
#include "toc/kept_internal.h"
#include "toc/rows_internal.h"

#define XATTR "SCHILY.xattr."
#define XATTR_LEN (sizeof XATTR - 1)
/* Of Linux. */
#define XATTR_NAME_MAX 255
#define XATTR_SIZE_MAX 65536

#define REFUSE SGZ_KEPT_REFUSE
#define no_memory sgz_kept_no_memory

void sgz_toc_kept_free(sgz_toc_kept *kept)
{
    free(kept->rows.times);
    free(kept->names);
    free(kept->links);
    free(kept->texts);
    free(kept->xattrs);
    free(kept->clean);
    sgz_map_free(&kept->by_name);
    memset(kept, 0, sizeof *kept);
}

/* What is read otherwise by Go, or not at all, or what JSON cannot hold. */
static sgz_status check(const sgz_tar_entry *entry, const sgz_tar_stated *stated, int64_t offset,
                        sgz_error *err)
{
    const unsigned differs = SGZ_NOTE_BIT(SOLARIS) | SGZ_NOTE_BIT(SLASH) | SGZ_NOTE_BIT(DUMPDIR) |
                             SGZ_NOTE_BIT(GLOBAL);
    const sgz_tar_time *times[] = {&stated->mtime, &stated->atime, &stated->ctime};
    if (entry->type == 'S')
        return REFUSE(entry, offset, err, "a sparse file");
    if (entry->notes & differs || entry->block[156] == '7')
        return REFUSE(entry, offset, err, "Go reads its tar header otherwise, or not at all");
    if (entry->notes & SGZ_NOTE_BIT(OWNER))
        return REFUSE(entry, offset, err, "its owner is outside of 32 bits");
    if ((sgz_toc_rows_scan(entry->name, entry->name_len) |
         sgz_toc_rows_scan(entry->link, entry->link_len)) & SGZ_TOC_BAD_BYTES)
        return REFUSE(entry, offset, err, "its name or link is not UTF-8, which JSON cannot hold");
    for (int i = 0; i < 3; i++)
        if (times[i]->given &&
            (times[i]->seconds < -62167219200 || times[i]->seconds > 253402300799))
            return REFUSE(entry, offset, err, "its time is outside the years 0 to 9999");
    if ((stated->mode | stated->dev_major | stated->dev_minor) >> 32)
        return REFUSE(entry, offset, err, "its mode or device is no number of 32 bits");
    return SGZ_OK;
}

static int by_key(const void *left, const void *right)
{
    const sgz_xattr *a = left, *b = right;
    int order = sgz_compare(a->key, a->key_len, b->key, b->key_len);
    /* Of one key the last counts. */
    return order ? order : a->key < b->key ? -1 : a->key > b->key;
}

sgz_status sgz_toc_kept_xattrs(sgz_toc_kept *kept, const sgz_tar_entry *entry, int64_t offset,
                               size_t *used, sgz_error *err)
{
    size_t count = 0;
    *used = 0;
    for (size_t pos = 0; entry->own && pos < entry->records_len;) {
        sgz_tar_text key, value;
        sgz_status status = sgz_tar_next_record(entry->own, entry->records_len, &pos, &key, &value,
                                                entry->records, err);
        if (status)
            return status;
        if (key.len < XATTR_LEN || memcmp(key.text, XATTR, XATTR_LEN))
            continue;
        sgz_xattr x = {key.text + XATTR_LEN, value.text, (uint32_t)(key.len - XATTR_LEN),
                       (uint32_t)value.len};
        if (sgz_toc_rows_scan(x.key, x.key_len) & SGZ_TOC_BAD_BYTES)
            return REFUSE(entry, offset, err, "the name of an xattr is not UTF-8");
        if (x.key_len > XATTR_NAME_MAX || x.value_len > XATTR_SIZE_MAX)
            return REFUSE(entry, offset, err, "an xattr that is larger than Linux has them");
        if (!SGZ_PUSH(kept->xattrs, count, kept->xattr_cap, x))
            return no_memory(err);
    }
    if (count)
        qsort(kept->xattrs, count, sizeof *kept->xattrs, by_key);
    for (size_t i = 0; i < count; i++) {
        const sgz_xattr *x = &kept->xattrs[i];
        if (i + 1 == count || sgz_compare(x->key, x->key_len, x[1].key, x[1].key_len))
            kept->xattrs[(*used)++] = *x;
    }
    return SGZ_OK;
}

static sgz_status read_xattrs(sgz_toc_kept *kept, const sgz_tar_entry *entry, int64_t offset,
                              sgz_entry *row, sgz_error *err)
{
    size_t size = 0, used;
    sgz_status status = sgz_toc_kept_xattrs(kept, entry, offset, &used, err);
    if (status || !used)
        return status;
    for (size_t i = 0; i < used; i++)
        size += sgz_xattrs_size(kept->xattrs[i].key_len, kept->xattrs[i].value_len);
    if (!sgz_toc_reserve(kept->rows.toc, size))
        return no_memory(err);
    char *out = kept->rows.toc->arena + kept->rows.toc->arena_len;
    for (size_t i = 0; i < used; i++)
        out = sgz_xattrs_put(out, &kept->xattrs[i]);
    row->xattr_off = kept->rows.toc->arena_len;
    row->xattr_len = (uint32_t)size;
    kept->rows.toc->arena_len += size;
    return SGZ_OK;
}

sgz_status sgz_toc_kept_header(const sgz_tar_entry *entry, int64_t offset, sgz_tar_stated *stated,
                               uint8_t *type, sgz_error *err)
{
    static const uint8_t types[] = {SGZ_REG, SGZ_HARDLINK, SGZ_SYMLINK, SGZ_CHAR, SGZ_BLOCK,
                                    SGZ_DIR, SGZ_FIFO};
    *type = entry->type >= '0' && entry->type <= '6' ? types[entry->type - '0'] : 0;
    sgz_status status = sgz_tar_read_stated(entry, offset, stated, err);
    if (!status)
        status = check(entry, stated, offset, err);
    if (!status && !*type)
        status = REFUSE(entry, offset, err, "an entry of a type that no TOC can hold");
    return status;
}

/* The row's number, which is also there for rows that were taken. */
static sgz_entry *append(sgz_toc_kept *kept, uint32_t *number)
{
    sgz_kept_rows *rows = &kept->rows;
    if (rows->first + (uint64_t)rows->toc->count >= SGZ_NO_ROW - 1)
        return NULL;
    sgz_entry *row = sgz_toc_append(rows->toc);
    *number = rows->first + (uint32_t)rows->toc->count - 1;
    kept->weight.rows++;
    return row;
}

static sgz_status check_json(const sgz_toc_kept *kept, sgz_error *err)
{
    if (kept->json <= SGZ_TOC_SIZE_MAX)
        return SGZ_OK;
    return sgz_base_fail(err, SGZ_ENOTOC, -1, NULL, 0,
                         "its TOC would have more than %llu bytes, which is the limit",
                         (unsigned long long)SGZ_TOC_SIZE_MAX);
}

/* Keep the texts, and room for a digest; *row gets where they are. */
static sgz_status store(sgz_toc *toc, const sgz_tar_entry *entry, sgz_entry *row, sgz_error *err)
{
    static const uint8_t none[32];
    row->name_off = sgz_toc_store(toc, entry->name, entry->name_len);
    row->link_off = sgz_toc_store(toc, entry->link, entry->link_len);
    row->digest_off = sgz_toc_store(toc, none, sizeof none);
    return row->name_off == UINT64_MAX || row->link_off == UINT64_MAX ||
                   row->digest_off == UINT64_MAX ? no_memory(err) : SGZ_OK;
}

sgz_status sgz_toc_kept_entry(sgz_toc_kept *kept, const sgz_tar_entry *entry, int64_t offset,
                              uint32_t *number, sgz_error *err)
{
    sgz_tar_stated stated;
    uint8_t type;
    sgz_status status = sgz_toc_kept_header(entry, offset, &stated, &type, err);
    if (status)
        return status;
    sgz_entry row = {.type = type, .size = stated.size,
                     .mtime = stated.mtime.seconds, .mode = (uint32_t)stated.mode,
                     .uid = entry->uid, .gid = entry->gid,
                     .dev_major = (uint32_t)stated.dev_major,
                     .dev_minor = (uint32_t)stated.dev_minor,
                     .name_len = (uint32_t)entry->name_len, .link_len = (uint32_t)entry->link_len};
    if ((status = sgz_toc_kept_name(kept, entry, row.type, offset, err)) ||
        (status = store(kept->rows.toc, entry, &row, err)) ||
        (status = read_xattrs(kept, entry, offset, &row, err)))
        return status;
    sgz_entry *added = append(kept, number);
    if (!added)
        return no_memory(err);
    *added = row;
    kept->last = *number;
    kept->weight.bytes += row.name_len + row.link_len + row.xattr_len + 32 * (row.type == SGZ_REG);
    kept->json += 60 + row.name_len + row.link_len + row.xattr_len;
    if (stated.mtime.nanoseconds || stated.atime.given || stated.ctime.given) {
        sgz_kept_times times = {*number, stated.mtime.nanoseconds, stated.atime, stated.ctime};
        if (!SGZ_PUSH(kept->rows.times, kept->rows.time_count, kept->rows.time_cap, times))
            return no_memory(err);
    }
    return check_json(kept, err);
}

sgz_status sgz_toc_kept_chunk(sgz_toc_kept *kept, uint32_t *number, sgz_error *err)
{
    sgz_entry *row = append(kept, number);
    if (!row)
        return no_memory(err);
    const sgz_entry *file = sgz_kept_row(&kept->rows, kept->last);
    row->type = SGZ_CHUNK;
    row->name_off = file->name_off;
    row->name_len = file->name_len;
    kept->json += 150 + row->name_len;
    return check_json(kept, err);
}

sgz_status sgz_toc_kept_check_size(const sgz_toc_kept *kept, uint64_t json, sgz_error *err)
{
    sgz_status status = check_json(kept, err);
    if (!status && json <= SGZ_TOC_SIZE_MAX && sgz_toc_fits(kept->weight, json, 1))
        return SGZ_OK;
    return status ? status
                  : sgz_base_fail(err, SGZ_ENOTOC, -1, NULL, 0,
                                  "its TOC of %llu bytes, or the memory to read it, would be more "
                                  "than the limits allow", (unsigned long long)json);
}

/* Those from `number` on become the first ones of a new array, and so do their texts. */
static sgz_status split_rows(sgz_toc *from, size_t count, sgz_toc *rest, sgz_error *err)
{
    size_t rows = from->count - count;
    uint64_t texts = rows ? from->rows[count].name_off : from->arena_len;
    rest->count = rest->arena_len = 0;
    if (!SGZ_FIT(rest->rows, rest->cap, rows) ||
        !sgz_toc_reserve(rest, from->arena_len - texts))
        return no_memory(err);
    for (size_t i = 0; i < rows; i++) {
        sgz_entry *row = &rest->rows[i];
        *row = from->rows[count + i];
        row->name_off -= texts;
        row->link_off -= texts;
        row->digest_off -= texts;
        row->xattr_off -= row->xattr_len ? texts : 0;
    }
    memcpy(rest->arena, from->arena + texts, from->arena_len - texts);
    rest->count = rows;
    rest->arena_len = from->arena_len - texts;
    from->count = count;
    from->arena_len = texts;
    return SGZ_OK;
}

#define SWAP(a, b)                                                                             \
    do {                                                                                       \
        __typeof__(a) held = a;                                                                \
        a = b;                                                                                 \
        b = held;                                                                              \
    } while (0)

sgz_status sgz_toc_kept_take(sgz_kept_rows *rows, uint32_t until, sgz_kept_rows *done,
                              sgz_error *err)
{
    sgz_toc *from = rows->toc, *to = done->toc;
    size_t times = 0;
    while (times < rows->time_count && rows->times[times].row < until)
        times++;
    done->time_count = 0;
    if (!SGZ_FIT(done->times, done->time_cap, rows->time_count - times))
        return no_memory(err);
    sgz_status status = split_rows(from, until - rows->first, to, err);
    if (status)
        return status;
    SWAP(from->rows, to->rows);
    SWAP(from->count, to->count);
    SWAP(from->cap, to->cap);
    SWAP(from->arena, to->arena);
    SWAP(from->arena_len, to->arena_len);
    SWAP(from->arena_cap, to->arena_cap);
    if (rows->time_count > times)
        memcpy(done->times, rows->times + times, (rows->time_count - times) * sizeof *rows->times);
    done->time_count = rows->time_count - times;
    rows->time_count = times;
    SWAP(rows->times, done->times);
    SWAP(rows->time_count, done->time_count);
    SWAP(rows->time_cap, done->time_cap);
    done->first = rows->first;
    rows->first = until;
    return SGZ_OK;
}
