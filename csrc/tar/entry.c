/* An entry out of its headers: how PAX, GNU and ustar fields are laid over each other, and what
 * readers take differently. */
#include "tar/internal.h"

/* A GNU header has times where others have the prefix; but Go up to 1.7 left the prefix there
 * when it made one of a ustar header, and tells so by what is no number. */
static int has_gnu_prefix(const uint8_t *header)
{
    int64_t time;
    sgz_tar_text prefix = field_text(header, TAR_PREFIX, 155);
    if ((!header[TAR_ATIME] || !sgz_tar_number(header, TAR_ATIME, 12, &time))
        && (!header[TAR_CTIME] || !sgz_tar_number(header, TAR_CTIME, 12, &time)))
        return 0;
    for (size_t i = 0; i < prefix.len; i++)
        if (prefix.text[i] & 0x80)
            return 0;
    return prefix.len > 0;
}

static sgz_tar_text header_name(sgz_tar_parser *p, sgz_tar_format format)
{
    sgz_tar_text name = field_text(p->header, TAR_NAME);
    if (format == TAR_V7 || (format == TAR_GNU && !has_gnu_prefix(p->header)))
        return name;
    if (format == TAR_GNU)
        p->entry.notes |= SGZ_NOTE_BIT(PREFIX);
    int star = format == TAR_STAR && !(p->in_place && p->header[TAR_PREFIX + 130]);
    sgz_tar_text prefix = field_text(p->header, TAR_PREFIX, star ? 131 : 155);
    if (!prefix.len)
        return name;
    memcpy(p->prefixed, prefix.text, prefix.len);
    p->prefixed[prefix.len] = '/';
    memcpy(p->prefixed + prefix.len + 1, name.text, name.len);
    return (sgz_tar_text){p->prefixed, prefix.len + 1 + name.len};
}

static const char *type_name(int type)
{
    switch (type) {
    case 'V': return "volume label";
    case 'M': return "continuation of another volume";
    case 'N': return "old GNU list of long names";
    case 'A': return "Solaris ACL";
    case 'I': return "star inode";
    default: return "unknown";
    }
}

static sgz_status unknown_type(const sgz_tar_entry *entry, int type, int64_t offset,
                               sgz_error *err)
{
    char shown[8];
    if (type > ' ' && type < 0x7f)
        snprintf(shown, sizeof shown, "'%c'", type);
    else
        snprintf(shown, sizeof shown, "0x%02x", type & 0xff);
    return sgz_base_fail(
        err, SGZ_ENOTOC, offset, entry->name, entry->name_len,
        "tar entry of type %s (%s) cannot be part of a layer; leave it out of the tar", shown,
        type_name(type));
}

/* The field of a PAX header, else of the global one unless it was reset here. */
static const sgz_tar_fields *given(sgz_tar_parser *p, unsigned bit)
{
    if (p->local.set & bit)
        return &p->local;
    if (p->global.set & bit && !(p->local.reset & bit)) {
        p->entry.notes |= SGZ_NOTE_BIT(GLOBAL);
        return &p->global;
    }
    return NULL;
}

static sgz_status id_field(sgz_tar_parser *p, size_t at, size_t len, const char *what,
                           int64_t offset, uint32_t *value, sgz_error *err)
{
    int64_t number;
    if (sgz_tar_number(p->header, at, len, &number) || number < 0 || number > UINT32_MAX) {
        *value = 0;
        if (forgiven(p, SGZ_NOTE_BIT(FIELD)))
            return SGZ_OK;
        return sgz_base_fail(err, SGZ_ETAR, offset, p->entry.name, p->entry.name_len,
                             "the %s in the tar header is not a number of 32 bits", what);
    }
    *value = (uint32_t)number;
    return SGZ_OK;
}

/* The kernel keeps 32 bits of an owner, and so do Go's programs. Beyond what overflows by
 * mistake, it is nobody's. */
static sgz_status set_owner(sgz_tar_parser *p, unsigned bit, const char *what, int64_t offset,
                            uint32_t *value, sgz_error *err)
{
    const int64_t beyond = (int64_t)1 << 33;
    const sgz_tar_fields *fields = given(p, bit);
    int64_t number = 0;
    if (fields)
        number = bit == TAR_F_UID ? fields->uid : fields->gid;
    else if (bit == TAR_F_UID ? sgz_tar_number(p->header, TAR_UID, &number)
                              : sgz_tar_number(p->header, TAR_GID, &number)) {
        number = 0;
        if (!forgiven(p, SGZ_NOTE_BIT(FIELD)))
            return sgz_base_fail(err, SGZ_ETAR, offset, p->entry.name, p->entry.name_len,
                                 "the %s in the tar header is not a number", what);
    }
    *value = (uint32_t)number;
    if (number < 0 || number > UINT32_MAX)
        p->entry.notes |= SGZ_NOTE_BIT(OWNER);
    if (number < -beyond / 2 || number >= beyond) {
        *value = TAR_NOBODY;
        p->entry.mode &= ~(uint32_t)06000;
    }
    return SGZ_OK;
}

static sgz_status set_mtime(sgz_tar_parser *p, int64_t offset, sgz_error *err)
{
    sgz_tar_entry *entry = &p->entry;
    const sgz_tar_fields *fields = given(p, TAR_F_MTIME);
    if (fields) {
        entry->mtime = fields->mtime + (fields->mtime_nsec >= 500000000);
        entry->mtime_nsec = fields->mtime_nsec;
    } else if (sgz_tar_number(p->header, TAR_MTIME, &entry->mtime)) {
        entry->mtime = 0;
        if (!forgiven(p, SGZ_NOTE_BIT(FIELD)))
            return bad_entry(entry, offset, "the mtime in the tar header is not a number", err);
    }
    if (!sgz_tar_time_fits(entry->mtime))
        entry->notes |= SGZ_NOTE_BIT(TIME);
    return SGZ_OK;
}

static sgz_status set_metadata(sgz_tar_parser *p, sgz_tar_format format, int64_t offset,
                               sgz_error *err)
{
    sgz_tar_entry *entry = &p->entry;
    const sgz_tar_fields *fields;
    int64_t number;
    sgz_status status;

    if (sgz_tar_number(p->header, TAR_MODE, &number)) {
        number = 0;
        if (!forgiven(p, SGZ_NOTE_BIT(FIELD)))
            return bad_entry(entry, offset, "the mode in the tar header is not a number", err);
    }
    entry->mode = (uint32_t)number;
    if ((status = set_owner(p, TAR_F_UID, "uid", offset, &entry->uid, err))
        || (status = set_owner(p, TAR_F_GID, "gid", offset, &entry->gid, err))
        || (status = set_mtime(p, offset, err)))
        return status;

    sgz_tar_text uname = {"", 0}, gname = {"", 0};
    if (format != TAR_V7) {
        uname = field_text(p->header, TAR_UNAME);
        gname = field_text(p->header, TAR_GNAME);
    }
    if ((fields = given(p, TAR_F_UNAME)))
        uname = fields->uname;
    if ((fields = given(p, TAR_F_GNAME)))
        gname = fields->gname;
    entry->uname = uname.text;
    entry->uname_len = uname.len;
    entry->gname = gname.text;
    entry->gname_len = gname.len;

    if (entry->type == '3' || entry->type == '4') {
        if ((status = id_field(p, TAR_DEVMAJOR, "device major number", offset,
                               &entry->dev_major, err)))
            return status;
        if ((status = id_field(p, TAR_DEVMINOR, "device minor number", offset,
                               &entry->dev_minor, err)))
            return status;
    }
    return sgz_tar_merge_xattrs(p, entry, err);
}

static sgz_status set_size(sgz_tar_parser *p, int64_t offset, sgz_error *err)
{
    int64_t size;
    if (p->local.set & TAR_F_SIZE)
        size = p->local.size;
    else if (sgz_tar_number(p->header, TAR_SIZE, &size))
        return bad_entry(&p->entry, offset, "the size in the tar header is not a number", err);
    /* The end of the padded payload must be a valid offset, with room to spare. */
    int64_t room = INT64_MAX - (4 << 20);
    if (size < 0 || size > room - (offset > 0 ? offset < room ? offset : room : 0))
        return bad_entry(&p->entry, offset, "the size of the tar entry is out of range", err);
    p->entry.size = p->entry.payload = size;
    /* Only of what does not fit the header is the size there another by design. */
    if (p->local.set & TAR_F_SIZE && !(size >> 33)
        && (sgz_tar_number(p->header, TAR_SIZE, &size) || size != p->entry.size))
        p->entry.notes |= SGZ_NOTE_BIT(SIZES);
    return SGZ_OK;
}

static int states_size(const sgz_tar_parser *p)
{
    int64_t size;
    if (p->local.set & TAR_F_SIZE)
        return p->local.size != 0;
    return sgz_tar_number(p->header, TAR_SIZE, &size) || size;
}

static sgz_status set_name(sgz_tar_parser *p, sgz_tar_format format, int64_t offset,
                           sgz_error *err)
{
    sgz_tar_text long_name = {p->long_name.data, p->long_name.len};
    sgz_tar_text name = p->has_long_name ? long_name : header_name(p, format);
    if (p->local.set & TAR_F_PATH)
        name = p->local.path;
    if (p->sparse.name.len)
        name = p->sparse.name;
    p->entry.name = name.text;
    p->entry.name_len = name.len;
    if (p->in_place)
        return SGZ_OK;
    if (p->has_long_name && !same_text(name, long_name))
        return bad_entry(&p->entry, offset, "its name in the PAX header and that in the GNU "
                         "header of a long name are not the same", err);
    if (format == TAR_STAR && p->header[TAR_PREFIX + 130] && p->header[TAR_PREFIX + 131]
        && name.text == p->prefixed)
        return bad_entry(&p->entry, offset, "the prefix in the star header does not end where "
                         "the times begin, so that readers take different names", err);
    return SGZ_OK;
}

static sgz_status set_link(sgz_tar_parser *p, int64_t offset, sgz_error *err)
{
    sgz_tar_text long_link = {p->long_link.data, p->long_link.len};
    sgz_tar_text link = p->has_long_link ? long_link : field_text(p->header, TAR_LINK);
    if (p->local.set & TAR_F_LINK)
        link = p->local.link;
    int is_link = p->entry.type == '1' || p->entry.type == '2';
    if (is_link && !link.len && !left_out(p, SGZ_NOTE_BIT(NO_PATH)))
        return bad_entry(&p->entry, offset, "a link that names no target", err);
    if (is_link && p->has_long_link && !same_text(link, long_link) && !p->in_place)
        return bad_entry(&p->entry, offset, "its target in the PAX header and that in the GNU "
                         "header of a long link are not the same", err);
    p->entry.link = link.text;
    p->entry.link_len = link.len;
    return SGZ_OK;
}

/* What an entry of this typeflag is. */
static sgz_status set_type(sgz_tar_parser *p, int type, int64_t offset, sgz_error *err)
{
    sgz_tar_entry *entry = &p->entry;
    int slash = entry->name_len && entry->name[entry->name_len - 1] == '/';
    if (slash && type == 'S' && !left_out(p, SGZ_NOTE_BIT(NO_FILE)))
        return bad_entry(entry, offset, "a sparse file with the name of a directory", err);
    if (slash && (type == '0' || type == '7')) {
        if (states_size(p) && !p->in_place)
            return bad_entry(entry, offset, "a file with the name of a directory: what is its "
                             "contents to some readers, others take for entries", err);
        entry->notes |= SGZ_NOTE_BIT(SLASH);
    } else if (type == 'D') {
        entry->notes |= SGZ_NOTE_BIT(DUMPDIR);
    } else if ((slash && !type) || (type >= '1' && type <= '6')) {
        if (states_size(p))
            entry->notes |= SGZ_NOTE_BIT(SIZED);
    }
    if (type == 0 || type == '7')
        type = '0';
    if ((type == '0' && slash) || type == 'D')
        type = '5';
    if ((type < '0' || type > '6') && type != 'S' && !p->any_type) {
        int no_file = type == 'V' || type == 'M' || type == 'A';
        if (!(no_file ? left_out(p, SGZ_NOTE_BIT(NO_FILE)) : forgiven(p, SGZ_NOTE_BIT(TYPE))))
            return unknown_type(entry, type, offset, err);
        type = no_file ? type : slash ? '5' : '0';
    }
    if (!entry->name_len && type != '5' && !left_out(p, SGZ_NOTE_BIT(NO_PATH)))
        return bad_entry(entry, offset, "a tar entry without a name", err);
    entry->type = (char)type;
    return SGZ_OK;
}

sgz_status sgz_tar_set_entry(sgz_tar_parser *p, int64_t offset, sgz_error *err)
{
    sgz_tar_entry *entry = &p->entry;
    sgz_tar_format format = header_format(p->header);
    int type = p->header[TAR_TYPE];
    sgz_status status;

    memset(entry, 0, sizeof *entry);
    entry->link = "";
    entry->notes = p->notes | p->global_notes | (p->local.reset ? SGZ_NOTE_BIT(EMPTY) : 0);
    p->global_notes = 0;
    if ((status = set_name(p, format, offset, err))
        || (status = set_type(p, type, offset, err)))
        return status;
    if (entry->type == '1' || entry->type == '2' || p->keep_records)
        if ((status = set_link(p, offset, err)))
            return status;
    if ((status = set_metadata(p, format, offset, err)))
        return status;
    /* Links, devices and directories have no payload, whatever their size field says: so
     * does GNU tar extract them, and Go and Python read them. */
    int passed = entry->type == '5' && type && type != '5'; /* what it has is no contents */
    if (passed || entry->type < '1' || entry->type > '6')
        if ((status = set_size(p, offset, err)))
            return status;
    if (passed)
        entry->size = 0;
    return SGZ_OK;
}

int sgz_tar_numbers(const sgz_tar_entry *entry, int64_t *mode, int64_t *dev_major,
                    int64_t *dev_minor)
{
    *dev_major = *dev_minor = 0;
    if (sgz_tar_number(entry->block, TAR_MODE, mode))
        return -1;
    if (header_format(entry->block) == TAR_V7)
        return 0;
    return sgz_tar_number(entry->block, TAR_DEVMAJOR, dev_major)
        || sgz_tar_number(entry->block, TAR_DEVMINOR, dev_minor) ? -1 : 0;
}
