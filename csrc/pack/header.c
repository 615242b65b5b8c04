/* The tar header of an entry of the manifest. */
#include "pack/internal.h"

static sgz_status unpack_xattrs(const char *packed, size_t len, sgz_pack_made_header *header,
                                sgz_error *err)
{
    const char *end = packed + len;
    size_t count = 0;
    for (sgz_xattr x; sgz_xattrs_next(&packed, end, &x);)
        if (!SGZ_PUSH(header->xattrs, count, header->xattr_cap, x))
            return sgz_pack_no_memory(err);
    header->entry.xattrs = header->xattrs;
    header->entry.xattr_count = count;
    return SGZ_OK;
}

sgz_status sgz_pack_header(const sgz_pack *p, size_t number, sgz_pack_made_header *header,
                           sgz_error *err)
{
    const sgz_pack_manifest_options *o = &p->options.bytes;
    const sgz_pack_walk_entry *e = &p->m.entries[number].file;
    int64_t mtime = o->mtime != INT64_MIN ? o->mtime : e->mtime;
    mtime = mtime < o->mtime_max ? mtime : o->mtime_max;
    int device = e->type == '3' || e->type == '4';
    header->entry = (sgz_tar_entry){
        .type = e->type, .name = p->m.arena + e->name_off, .name_len = e->name_len,
        .size = e->type == '0' ? e->size : 0, .payload = e->type == '0' ? e->size : 0,
        .mtime = mtime, .mode = e->mode & 07777,
        .uid = o->owner >= 0 ? (uint32_t)o->owner : e->uid,
        .gid = o->group >= 0 ? (uint32_t)o->group : e->gid,
        .dev_major = device ? e->dev_major : 0, .dev_minor = device ? e->dev_minor : 0};
    if (e->type == '5') {
        if (!SGZ_FIT(header->name, header->name_cap, e->name_len + (size_t)1))
            return sgz_pack_no_memory(err);
        memcpy(header->name, header->entry.name, e->name_len);
        header->name[e->name_len] = '/';
        header->entry.name = header->name;
        header->entry.name_len++;
    } else if (e->type == '1') {
        const sgz_pack_walk_entry *target = &p->m.entries[e->target].file;
        header->entry.link = p->m.arena + target->name_off;
        header->entry.link_len = target->name_len;
        return SGZ_OK;
    } else if (e->type == '2') {
        header->entry.link = p->m.arena + e->link_off;
        header->entry.link_len = e->link_len;
    }
    return e->xattr_len ? unpack_xattrs(p->m.arena + e->xattr_off, e->xattr_len, header, err)
                        : SGZ_OK;
}

void sgz_pack_header_free(sgz_pack_made_header *header)
{
    free(header->name);
    free(header->xattrs);
}
