#include "tar/stated.h"

#include "tar/internal.h"

#define REFUSED(entry, offset, err, what)                                                      \
    sgz_base_fail(err, SGZ_ENOTOC, offset, (entry)->name, (entry)->name_len,                   \
                  what " in its tar header is no number, which Go does not accept")

static int field_time(const uint8_t *block, size_t at, sgz_tar_time *out)
{
    out->nanoseconds = 0;
    out->given = 1;
    return sgz_tar_number(block, at, 12, &out->seconds);
}

/* Times that headers have of GNU tar, where they are set, and of star. Where one is no number, Go
 * takes none of GNU's. */
static int header_times(const uint8_t *block, sgz_tar_stated *out)
{
    sgz_tar_format format = header_format(block);
    if (format == TAR_STAR)
        return field_time(block, TAR_PREFIX + 131, &out->atime)
            || field_time(block, TAR_PREFIX + 143, &out->ctime) ? -1 : 0;
    if (format != TAR_GNU)
        return 0;
    int bad = (block[TAR_ATIME] && field_time(block, TAR_ATIME, &out->atime))
           || (block[TAR_CTIME] && field_time(block, TAR_CTIME, &out->ctime));
    if (bad)
        out->atime.given = out->ctime.given = 0;
    return 0;
}

static int is(sgz_tar_text key, const char *name)
{
    return key.len == strlen(name) && !memcmp(key.text, name, key.len);
}

sgz_status sgz_tar_read_stated(const sgz_tar_entry *entry, int64_t offset, sgz_tar_stated *out,
                               sgz_error *err)
{
    memset(out, 0, sizeof *out);
    if (sgz_tar_numbers(entry, &out->mode, &out->dev_major, &out->dev_minor))
        return REFUSED(entry, offset, err, "a mode or device");
    if (sgz_tar_number(entry->block, TAR_SIZE, &out->size))
        return REFUSED(entry, offset, err, "the size");
    if (header_times(entry->block, out))
        return REFUSED(entry, offset, err, "a time");
    out->mtime = (sgz_tar_time){entry->mtime - (entry->mtime_nsec >= 500000000),
                                entry->mtime_nsec, 1};
    for (size_t pos = 0; entry->own && pos < entry->records_len;) {
        sgz_tar_text key, value;
        sgz_status status = sgz_tar_next_record(entry->own, entry->records_len, &pos, &key, &value,
                                                entry->records, err);
        if (status)
            return status;
        sgz_tar_time *time = is(key, "atime") ? &out->atime
                             : is(key, "ctime") ? &out->ctime : NULL;
        if (!value.len)
            continue;
        if (is(key, "size") && sgz_tar_decimal(value.text, value.len, &out->size))
            return REFUSED(entry, offset, err, "the size");
        if (time && sgz_tar_parse_time(value.text, value.len, &time->seconds, &time->nanoseconds))
            return REFUSED(entry, offset, err, "a time");
        if (time)
            time->given = 1;
    }
    if (out->size < 0)
        return REFUSED(entry, offset, err, "the size");
    return SGZ_OK;
}
