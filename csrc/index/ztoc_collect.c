/* What a ztoc takes beyond an index, while the blob is read. */
#include "base/bytes.h"
#include "base/file.h"
#include "base/vec.h"
#include "index/ztoc.h"

sgz_index_ztoc *sgz_index_ztoc_new(int spool)
{
    sgz_index_ztoc *z = calloc(1, sizeof *z);
    if (z)
        z->spool = spool;
    return z;
}

void sgz_index_ztoc_free(sgz_index_ztoc *z)
{
    if (!z)
        return;
    free(z->arena);
    free(z->entries);
    free(z->records);
    free(z);
}

#define REFUSE(entry, begin, err, why)                                                         \
    sgz_base_fail(err, SGZ_ENOTOC, begin, (entry)->name, (entry)->name_len,                    \
                  why "; make an index of the native format instead")

/* What SOCI's snapshotter could not read: of each regular file it compares the one tar header that
 * stands before it with the ztoc, as Go's tar reader takes it. */
static sgz_status check(const sgz_index_ztoc *z, const sgz_tar_entry *entry, int64_t begin,
                        sgz_error *err)
{
    int64_t seconds = entry->mtime - (entry->mtime_nsec >= 500000000);
    if (entry->type == 'S')
        return REFUSE(entry, begin, err, "a sparse file, of which a ztoc can say neither the holes "
                      "nor where the next entry is");
    if (seconds < -62167219200 || seconds > 253402300799)
        return REFUSE(entry, begin, err, "its time is outside the years 0 to 9999, which a ztoc "
                      "cannot hold");
    if (entry->notes & SGZ_NOTE_BIT(SOLARIS))
        return REFUSE(entry, begin, err, "a Solaris extended header, which SOCI's reader takes for "
                      "an entry");
    if (entry->type != '0')
        return SGZ_OK;
    if (z->behind_global)
        return REFUSE(entry, begin, err, "a PAX global header stands right before this file, which "
                      "SOCI's reader does not read then");
    if (entry->notes & SGZ_NOTE_BIT(GLOBAL))
        return REFUSE(entry, begin, err, "it has fields from a PAX global header, which SOCI's "
                      "reader does not know");
    if (entry->notes & SGZ_NOTE_BIT(OWNER))
        return REFUSE(entry, begin, err, "its owner is outside of 32 bits, which a ztoc cannot "
                      "hold");
    return SGZ_OK;
}

/* Sort the entry's PAX records by key. */
static sgz_status read_records(sgz_index_ztoc *z, const sgz_tar_entry *entry, size_t *count,
                               size_t *packed, sgz_error *err)
{
    size_t n = 0;
    *packed = 0;
    for (size_t pos = 0; pos < entry->records_len;) {
        sgz_tar_text key, value;
        sgz_status status = sgz_tar_next_record(entry->own, entry->records_len, &pos, &key, &value,
                                                entry->records, err);
        if (status)
            return status;
        sgz_xattr record = {key.text, value.text, (uint32_t)key.len, (uint32_t)value.len};
        if (!SGZ_PUSH(z->records, n, z->record_cap, record))
            return sgz_ztoc_no_memory(err);
    }
    *count = sgz_base_xattrs_sort(z->records, n);
    for (size_t i = 0; i < *count; i++)
        *packed += sgz_xattrs_size(z->records[i].key_len, z->records[i].value_len);
    return SGZ_OK;
}

static char *copy(char *out, const char *text, size_t len)
{
    if (len)
        memcpy(out, text, len);
    return out + len;
}

sgz_status sgz_index_ztoc_entry(void *ztoc, const sgz_tar_entry *entry, int64_t begin,
                                int64_t content, sgz_error *err)
{
    sgz_index_ztoc *z = ztoc;
    sgz_status status = check(z, entry, begin, err);
    if (status)
        return status;
    z->behind_global = 0;
    sgz_ztoc_entry raw = {
        .content = content, .size = entry->payload,
        .seconds = entry->mtime - (entry->mtime_nsec >= 500000000),
        .nanoseconds = entry->mtime_nsec, .uid = entry->uid, .gid = entry->gid,
        .name_len = (uint32_t)entry->name_len, .link_len = (uint32_t)entry->link_len,
        .uname_len = (uint32_t)entry->uname_len, .gname_len = (uint32_t)entry->gname_len,
        .type = entry->type};
    if (sgz_tar_numbers(entry, &raw.mode, &raw.dev_major, &raw.dev_minor))
        return REFUSE(entry, begin, err, "a device number in its tar header is no number, which "
                      "SOCI's reader does not accept");
    size_t count = 0, packed = 0;
    if ((status = read_records(z, entry, &count, &packed, err)))
        return status;
    raw.records_len = (uint32_t)packed;
    size_t size = sizeof raw + entry->name_len + entry->link_len + entry->uname_len +
                  entry->gname_len + packed;
    if (z->arena_len + size > SGZ_ZTOC_SIZE_MAX)
        return REFUSE(entry, begin, err, "the entries to here take more than 2 GiB, which a ztoc "
                      "cannot have");
    sgz_ztoc_place place = {.kept = (uint32_t)z->arena_len};
    if (!SGZ_FIT(z->arena, z->arena_cap, z->arena_len + size) ||
        !SGZ_PUSH(z->entries, z->count, z->cap, place))
        return sgz_ztoc_no_memory(err);
    char *out = copy(z->arena + z->arena_len, (const char *)&raw, sizeof raw);
    out = copy(out, entry->name, entry->name_len);
    out = copy(out, entry->link, entry->link_len);
    out = copy(out, entry->uname, entry->uname_len);
    out = copy(out, entry->gname, entry->gname_len);
    for (size_t i = 0; i < count; i++)
        out = sgz_xattrs_put(out, &z->records[i]);
    z->arena_len += size;
    return SGZ_OK;
}

sgz_status sgz_index_ztoc_global(void *ztoc, int64_t begin, sgz_error *err)
{
    (void)begin, (void)err;
    ((sgz_index_ztoc *)ztoc)->behind_global = 1;
    return SGZ_OK;
}

sgz_status sgz_index_ztoc_point(void *ztoc, const sgz_point *point, const uint8_t *window,
                                sgz_error *err)
{
    sgz_index_ztoc *z = ztoc;
    uint8_t out[ZTOC_CHECKPOINT];
    sgz_put_le64(out, (uint64_t)(point->offset + (point->skip != 0)));
    sgz_put_le64(out + 8, (uint64_t)point->out);
    out[16] = (8 - point->skip) & 7;
    memcpy(out + ZTOC_POINT, window, SGZ_HISTORY_MAX);
    int failed = sgz_base_write_all(z->spool, out, sizeof out, z->points * ZTOC_CHECKPOINT);
    if (failed)
        return sgz_base_fail_errno(err, -failed, "cannot write the windows to a temporary file",
                                   NULL, 0);
    z->points++;
    return SGZ_OK;
}
