/* Entries out: header blocks for what cannot be copied as it stands. */
#include "tar/internal.h"

#include "base/bytes.h"

/* Octal with leading zeros and a NUL; base-256 where that is too short. */
static void put_number(uint8_t *header, size_t at, size_t len, uint64_t value)
{
    uint8_t *field = header + at;
    if (value >> (3 * (len - 1))) {
        for (size_t i = len; i--; value >>= 8)
            field[i] = (uint8_t)value;
        field[0] |= 0x80;
        return;
    }
    field[len - 1] = 0;
    for (size_t i = len - 1; i--; value >>= 3)
        field[i] = (uint8_t)('0' + (value & 7));
}

static void put_text(uint8_t *header, size_t at, size_t room, const char *text, size_t len)
{
    if (len)
        memcpy(header + at, text, len < room ? len : room);
}

static void seal(uint8_t *header)
{
    unsigned sum = 0;
    memcpy(header + TAR_MAGIC, "ustar\0" "00", 8);
    memset(header + TAR_CHKSUM, ' ', 8);
    for (int i = 0; i < SGZ_TAR_BLOCK; i++)
        sum += header[i];
    put_number(header, TAR_CHKSUM, 7, sum); /* six digits, NUL; a blank stays */
}

void sgz_tar_plain_header(uint8_t block[SGZ_TAR_BLOCK], const char *name, int64_t size)
{
    memset(block, 0, SGZ_TAR_BLOCK);
    put_text(block, TAR_NAME, name, strlen(name));
    put_number(block, TAR_MODE, 0);
    put_number(block, TAR_UID, 0);
    put_number(block, TAR_GID, 0);
    put_number(block, TAR_SIZE, (uint64_t)size);
    put_number(block, TAR_MTIME, 0);
    put_number(block, TAR_DEVMAJOR, 0);
    put_number(block, TAR_DEVMINOR, 0);
    block[TAR_TYPE] = '0';
    seal(block);
}

/* Records, first counted with data == NULL, then written. */
typedef struct {
    char *data;
    size_t len;
} tar_records;

static size_t digits(size_t number)
{
    size_t count = 1;
    while (number /= 10)
        count++;
    return count;
}

/* The name of an xattr, with "=", which would end the key, and "%" as GNU tar writes them. *out
 * moves on, unless it is NULL; returns the length. */
static size_t escape(const char *name, size_t len, char **out)
{
    size_t made = 0;
    for (size_t i = 0; i < len; i++) {
        const char *text = name[i] == '%' ? "%25" : name[i] == '=' ? "%3D" : &name[i];
        size_t n = text == &name[i] ? 1 : 3;
        if (out)
            memcpy(*out, text, n), *out += n;
        made += n;
    }
    return made;
}

static void add_record(tar_records *records, const char *prefix, const char *key,
                       size_t key_len, const char *value, size_t len)
{
    size_t prefix_len = strlen(prefix);
    size_t rest = prefix_len + escape(key, key_len, NULL) + len + 3; /* blank, "=", newline */
    size_t total = rest + digits(rest);
    if (digits(total) != digits(rest))
        total = rest + digits(total);
    if (records->data) {
        char *at = records->data + records->len;
        at += sprintf(at, "%zu %s", total, prefix);
        escape(key, key_len, &at);
        *at++ = '=';
        if (len)
            memcpy(at, value, len);
        at[len] = '\n';
    }
    records->len += total;
}

static void add_text(tar_records *records, const char *key, const char *value, size_t len)
{
    add_record(records, "", key, strlen(key), value, len);
}

static void add_number(tar_records *records, const char *key, uint64_t value)
{
    char text[24];
    int len = snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    add_text(records, key, text, (size_t)len);
}

static void add_mtime(tar_records *records, int64_t floor_seconds, uint32_t nsec)
{
    char text[40];
    uint64_t seconds = (uint64_t)floor_seconds;
    const char *sign = "";
    if (floor_seconds < 0) {
        sign = "-";
        if (nsec) { /* -2 + 0.75 is written -1.25 */
            seconds++;
            nsec = 1000000000 - nsec;
        }
        seconds = 0 - seconds;
    }
    int len = snprintf(text, sizeof text, "%s%llu", sign, (unsigned long long)seconds);
    if (nsec) {
        len += snprintf(text + len, sizeof text - (size_t)len, ".%09u", nsec);
        while (text[len - 1] == '0')
            len--;
    }
    add_text(records, "mtime", text, (size_t)len);
}

/* Where a name is cut into prefix and name; 0: it fits the name field, SIZE_MAX: no way. */
static size_t split_name(const char *name, size_t len)
{
    if (len <= 100)
        return 0;
    if (len > 256)
        return SIZE_MAX;
    for (size_t i = len - 101; i < len - 1 && i <= 155; i++)
        if (i && name[i] == '/')
            return i;
    return SIZE_MAX;
}

static void collect_records(const sgz_tar_entry *entry, tar_records *records)
{
    /* PAX strings are UTF-8 unless hdrcharset says that they are not. */
    int long_name = split_name(entry->name, entry->name_len) == SIZE_MAX;
    int long_link = entry->link_len > 100;
    int long_uname = entry->uname_len > 31, long_gname = entry->gname_len > 31;
    int64_t seconds = entry->mtime - (entry->mtime_nsec >= 500000000);

    records->len = 0;
    if ((long_name && !sgz_is_utf8(entry->name, entry->name_len)) ||
        (long_link && !sgz_is_utf8(entry->link, entry->link_len)) ||
        (long_uname && !sgz_is_utf8(entry->uname, entry->uname_len)) ||
        (long_gname && !sgz_is_utf8(entry->gname, entry->gname_len)))
        add_text(records, "hdrcharset", "BINARY", 6);
    if (long_name)
        add_text(records, "path", entry->name, entry->name_len);
    if (long_link)
        add_text(records, "linkpath", entry->link, entry->link_len);
    if (entry->size >> 33)
        add_number(records, "size", (uint64_t)entry->size);
    if (entry->uid >> 21)
        add_number(records, "uid", entry->uid);
    if (entry->gid >> 21)
        add_number(records, "gid", entry->gid);
    if (long_uname)
        add_text(records, "uname", entry->uname, entry->uname_len);
    if (long_gname)
        add_text(records, "gname", entry->gname, entry->gname_len);
    if (seconds < 0 || seconds >> 33 || entry->mtime_nsec)
        add_mtime(records, seconds, entry->mtime_nsec);
    for (size_t i = 0; i < entry->xattr_count; i++)
        add_record(records, "SCHILY.xattr.", entry->xattrs[i].key, entry->xattrs[i].key_len,
                   entry->xattrs[i].value, entry->xattrs[i].value_len);
}

static void put_name(uint8_t *header, const sgz_tar_entry *entry)
{
    const char *name = entry->name;
    size_t len = entry->name_len, cut = split_name(name, len);
    if (cut == SIZE_MAX) {
        /* The PAX header has it whole. No slash at the cut: that would be a directory. */
        len = 100;
        while (entry->type != '5' && len > 1 && name[len - 1] == '/')
            len--;
    } else if (cut) {
        put_text(header, TAR_PREFIX, 155, name, cut);
        name += cut + 1;
        len -= cut + 1;
    }
    put_text(header, TAR_NAME, name, len);
}

/* The bytes of the records, padded to blocks. */
static size_t records_body(const tar_records *records)
{
    return (records->len + SGZ_TAR_BLOCK - 1) & ~(size_t)(SGZ_TAR_BLOCK - 1);
}

size_t sgz_tar_expanded_len(const sgz_tar_entry *entry)
{
    tar_records records = {NULL, 0};
    collect_records(entry, &records);
    return (records.len ? SGZ_TAR_BLOCK + records_body(&records) : 0) + SGZ_TAR_BLOCK;
}

sgz_status sgz_tar_expanded_header(const sgz_tar_entry *entry, uint8_t **out, size_t *len,
                                   sgz_error *err)
{
    tar_records records = {NULL, 0};
    collect_records(entry, &records);
    if (records.len > SGZ_TAR_LONG_MAX)
        return sgz_base_fail(
            err, SGZ_ETAR, -1, entry->name, entry->name_len,
            "the PAX records of this entry (with global headers folded in) are over "
            "the limit of 1 MiB");
    size_t before = records.len ? SGZ_TAR_BLOCK + records_body(&records) : 0;
    uint8_t *data = calloc(1, before + SGZ_TAR_BLOCK + 1); /* + 1: sprintf's NUL */
    if (!data)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for tar headers");
    if (records.len) {
        sgz_tar_plain_header(data, "PaxHeaders.0/x", (int64_t)records.len);
        put_number(data, TAR_MODE, 0644);
        data[TAR_TYPE] = 'x';
        seal(data);
        records.data = (char *)data + SGZ_TAR_BLOCK;
        collect_records(entry, &records);
    }
    uint8_t *header = data + before;
    int64_t seconds = entry->mtime - (entry->mtime_nsec >= 500000000);
    put_name(header, entry);
    put_number(header, TAR_MODE, entry->mode);
    put_number(header, TAR_UID, entry->uid >> 21 ? 0 : entry->uid);
    put_number(header, TAR_GID, entry->gid >> 21 ? 0 : entry->gid);
    put_number(header, TAR_SIZE, entry->size >> 33 ? 0 : (uint64_t)entry->size);
    put_number(header, TAR_MTIME, seconds < 0 || seconds >> 33 ? 0 : (uint64_t)seconds);
    header[TAR_TYPE] = (uint8_t)(entry->type == 'S' ? '0' : entry->type);
    put_text(header, TAR_LINK, entry->link, entry->link_len);
    put_text(header, TAR_UNAME, entry->uname, entry->uname_len > 31 ? 0 : entry->uname_len);
    put_text(header, TAR_GNAME, entry->gname, entry->gname_len > 31 ? 0 : entry->gname_len);
    put_number(header, TAR_DEVMAJOR, entry->dev_major);
    put_number(header, TAR_DEVMINOR, entry->dev_minor);
    seal(header);
    *out = data;
    *len = before + SGZ_TAR_BLOCK;
    return SGZ_OK;
}
