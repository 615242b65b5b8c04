#include "toc/kept.h"

#include "base/bytes.h"
#include "toc/internal.h"
#include "toc/rows_internal.h"

#define XATTR "SCHILY.xattr."
#define XATTR_LEN (sizeof XATTR - 1)

#define REFUSE(entry, offset, err, why)                                                        \
    sgz_base_fail(err, SGZ_ENOTOC, offset, (entry)->name, (entry)->name_len, why)

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the TOC");
}

void sgz_toc_kept_free(sgz_toc_kept *kept)
{
    free(kept->times);
    free(kept->xattrs);
    kept->times = NULL;
    kept->xattrs = NULL;
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

/* The entry's xattrs, sorted, with their names as the records have them. */
static sgz_status read_xattrs(sgz_toc_kept *kept, const sgz_tar_entry *entry, int64_t offset,
                              sgz_entry *row, sgz_error *err)
{
    size_t count = 0, size = 0, used = 0;
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
        if (!SGZ_PUSH(kept->xattrs, count, kept->xattr_cap, x))
            return no_memory(err);
    }
    if (!count)
        return SGZ_OK;
    qsort(kept->xattrs, count, sizeof *kept->xattrs, by_key);
    for (size_t i = 0; i < count; i++) {
        const sgz_xattr *x = &kept->xattrs[i];
        if (i + 1 < count && !sgz_compare(x->key, x->key_len, x[1].key, x[1].key_len))
            continue;
        size += sgz_xattrs_size(x->key_len, x->value_len);
        kept->xattrs[used++] = *x;
    }
    if (!sgz_toc_reserve(kept->toc, size))
        return no_memory(err);
    char *out = kept->toc->arena + kept->toc->arena_len;
    for (size_t i = 0; i < used; i++)
        out = sgz_xattrs_put(out, &kept->xattrs[i]);
    row->xattr_off = kept->toc->arena_len;
    row->xattr_len = (uint32_t)size;
    kept->toc->arena_len += size;
    return SGZ_OK;
}

static uint8_t row_type(char type)
{
    static const uint8_t types[] = {SGZ_REG, SGZ_HARDLINK, SGZ_SYMLINK, SGZ_CHAR, SGZ_BLOCK,
                                    SGZ_DIR, SGZ_FIFO};
    return type >= '0' && type <= '6' ? types[type - '0'] : 0;
}

sgz_status sgz_toc_kept_entry(sgz_toc_kept *kept, const sgz_tar_entry *entry, int64_t offset,
                              uint32_t *number, sgz_error *err)
{
    sgz_toc *toc = kept->toc;
    sgz_tar_stated stated;
    sgz_status status = sgz_tar_read_stated(entry, offset, &stated, err);
    if (!status)
        status = check(entry, &stated, offset, err);
    if (status)
        return status;
    sgz_entry row = {.type = row_type(entry->type), .size = stated.size,
                     .mtime = stated.mtime.seconds, .mode = (uint32_t)stated.mode,
                     .uid = entry->uid, .gid = entry->gid,
                     .dev_major = (uint32_t)stated.dev_major,
                     .dev_minor = (uint32_t)stated.dev_minor,
                     .name_len = (uint32_t)entry->name_len, .link_len = (uint32_t)entry->link_len};
    if (!row.type)
        return REFUSE(entry, offset, err, "an entry of a type that no TOC can hold");
    row.name_off = sgz_toc_store(toc, entry->name, entry->name_len);
    row.link_off = row.link_len ? sgz_toc_store(toc, entry->link, entry->link_len) : 0;
    if (row.name_off == UINT64_MAX || row.link_off == UINT64_MAX)
        return no_memory(err);
    if ((status = read_xattrs(kept, entry, offset, &row, err)))
        return status;
    sgz_entry *added = sgz_toc_append(toc);
    if (!added)
        return no_memory(err);
    *added = row;
    *number = (uint32_t)(toc->count - 1);
    kept->last = *number;
    if (stated.mtime.nanoseconds || stated.atime.given || stated.ctime.given) {
        sgz_kept_times times = {*number, stated.mtime.nanoseconds, stated.atime, stated.ctime};
        if (!SGZ_PUSH(kept->times, kept->time_count, kept->time_cap, times))
            return no_memory(err);
    }
    uint32_t previous;
    if ((status = sgz_toc_index(toc, *number, &previous, err)))
        return status;
    if (previous != SGZ_NO_ROW)
        return REFUSE(entry, offset, err, "the tar has this path twice");
    return SGZ_OK;
}

sgz_status sgz_toc_kept_chunk(sgz_toc_kept *kept, uint32_t *number, sgz_error *err)
{
    sgz_entry *row = sgz_toc_append(kept->toc);
    if (!row)
        return no_memory(err);
    const sgz_entry *file = &kept->toc->rows[kept->last];
    row->type = SGZ_CHUNK;
    row->name_off = file->name_off;
    row->name_len = file->name_len;
    *number = (uint32_t)(kept->toc->count - 1);
    return SGZ_OK;
}

sgz_status sgz_toc_kept_finish(const sgz_toc_kept *kept, sgz_error *err)
{
    const sgz_toc *toc = kept->toc;
    for (size_t i = 0; i < toc->count; i++) {
        const sgz_entry *row = &toc->rows[i];
        if (row->type == SGZ_HARDLINK &&
            sgz_toc_lookup(toc, toc->arena + row->link_off, row->link_len) == SGZ_NO_ROW)
            return sgz_base_fail(err, SGZ_ENOTOC, -1, sgz_toc_row_name(toc, (uint32_t)i),
                                 row->name_len, "a hard link to what is not in the layer");
    }
    return SGZ_OK;
}
