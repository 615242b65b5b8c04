#include "pack/manifest_internal.h"

#include "base/bytes.h"
#include "base/xattrs.h"
#include "tar/tar.h"

static sgz_status bad(sgz_error *err, const char *what)
{
    return sgz_base_fail(err, SGZ_ETOC, -1, NULL, 0, "the manifest is malformed (%s): %s", what,
                         SGZ_MANIFEST_ADVICE);
}

/* [offset, offset + len) is in the arena. */
static int in_arena(const sgz_pack_manifest *m, uint64_t offset, uint32_t len)
{
    return offset <= m->arena_len && len <= m->arena_len - offset;
}

/* Relative, without empty components. */
static int good_name(const char *name, size_t len)
{
    if (!len || len > SGZ_TAR_LONG_MAX || memchr(name, '\0', len))
        return 0;
    for (const char *end = name + len; name < end;) {
        const char *slash = memchr(name, '/', (size_t)(end - name));
        const char *next = slash ? slash : end;
        if (next == name || slash == end - 1 || (next == name + 1 && *name == '.') ||
            (next == name + 2 && name[0] == '.' && name[1] == '.'))
            return 0;
        name = next + 1;
    }
    return 1;
}

/* Whole records, with keys in ascending order. */
static int good_xattrs(const char *at, size_t len)
{
    const char *end = at + len;
    sgz_xattr x, last = {0};
    for (; sgz_xattrs_next(&at, end, &x); last = x)
        if (!x.key_len || memchr(x.key, '\0', x.key_len) ||
            sgz_compare(last.key, last.key_len, x.key, x.key_len) >= 0)
            return 0;
    return at == end;
}

static const char *wrong_entry(const sgz_pack_manifest *m, size_t number)
{
    const sgz_pack_walk_entry *e = &m->entries[number].file;
    if (e->type < '0' || e->type > '6')
        return "an entry's type";
    if (!in_arena(m, e->name_off, e->name_len) || !in_arena(m, e->link_off, e->link_len) ||
        !in_arena(m, e->xattr_off, e->xattr_len))
        return "an entry's text";
    if (!good_name(m->arena + e->name_off, e->name_len))
        return "an entry's name";
    if (e->link_len > SGZ_TAR_LONG_MAX || (e->link_len && e->type != '2') ||
        (e->link_len && memchr(m->arena + e->link_off, '\0', e->link_len)))
        return "an entry's link";
    if (!good_xattrs(m->arena + e->xattr_off, e->xattr_len))
        return "an entry's extended attributes";
    if (e->size < 0 || (e->size && e->type != '0'))
        return "an entry's size";
    if (e->mtime_nsec > 999999999 || e->ctime_nsec > 999999999)
        return "an entry's times";
    if (e->mode > 07777 || e->known != SGZ_WALK_NONE ||
        m->entries[number].flags > SGZ_MANIFEST_DOUBTFUL)
        return "an entry's flags";
    if (e->type != '1')
        return e->target == SGZ_WALK_NONE ? NULL : "an entry's hard link";
    /* To one before it: also, no chains. */
    return e->target < number && m->entries[e->target].file.type == '0'
               ? NULL
               : "an entry's hard link";
}

/* A unit's entries and chunks, [first, end) each. */
typedef struct {
    size_t entry, entry_end, chunk, chunk_end;
} extent;

static const char *wrong_unit(const sgz_pack_manifest *m, size_t number, const extent *x)
{
    const sgz_pack_manifest_unit *u = &m->units[number];
    int64_t begin = number ? m->units[number - 1].end : 0, size = 0;
    if (x->entry > x->entry_end || x->entry_end > m->entry_count ||
        x->chunk > x->chunk_end || x->chunk_end > m->chunk_count ||
        (!number && (x->entry || x->chunk)))
        return "a unit's entries or chunks";
    if (u->start != begin || u->data < u->start || u->end < u->data ||
        u->end > m->toc_offset || u->headers_len < 0 || u->headers_len % SGZ_TAR_BLOCK)
        return "a unit's place";
    for (size_t i = x->entry; i < x->entry_end; i++) {
        const sgz_pack_walk_entry *e = &m->entries[i].file;
        if (m->entries[i].unit != number || (e->size && i + 1 < x->entry_end))
            return "a unit's entries";
        size = e->size;
    }
    size_t chunks = x->chunk_end - x->chunk;
    if ((uint64_t)(size / m->options.chunk_size + (size % m->options.chunk_size != 0)) != chunks)
        return "a unit's chunks";
    if (!chunks)
        return u->data == u->end ? NULL : "a unit's contents";
    int64_t least = u->data;
    for (size_t i = x->chunk; i < x->chunk_end; i++) {
        int64_t offset = m->chunks[i].offset;
        if (offset < least || offset >= u->end || (i == x->chunk && offset != u->data))
            return "a chunk's place";
        least = offset + 1;
    }
    return NULL;
}

sgz_status sgz_pack_manifest_check(const sgz_pack_manifest *m, sgz_error *err)
{
    const sgz_pack_manifest_options *o = &m->options;
    const char *wrong = NULL;
    if (m->entry_count >= SGZ_WALK_NONE || m->unit_count >= SGZ_WALK_NONE ||
        m->chunk_count >= SGZ_WALK_NONE)
        return bad(err, "more rows than there can be");
    if (o->chunk_size <= 0 || o->owner < -1 || o->owner > UINT32_MAX || o->group < -1 ||
        o->group > UINT32_MAX || !memchr(o->engine, '\0', sizeof o->engine))
        return bad(err, "its options");
    if (m->toc_offset < 0 || m->blob_size < m->toc_offset)
        return bad(err, "the blob's size");
    uint64_t text = 0;
    for (size_t i = 0; i < m->entry_count && !wrong; i++) {
        const sgz_pack_walk_entry *e = &m->entries[i].file;
        text += (uint64_t)e->name_len + e->link_len + e->xattr_len;
        /* Nothing is shared: then all these checks together take as long as the file is. */
        wrong = text > m->arena_len ? "an entry's text" : wrong_entry(m, i);
    }
    for (size_t i = 0; i < m->unit_count && !wrong; i++) {
        int more = i + 1 < m->unit_count;
        extent x = {m->units[i].first_entry,
                    more ? m->units[i + 1].first_entry : m->entry_count,
                    m->units[i].first_chunk,
                    more ? m->units[i + 1].first_chunk : m->chunk_count};
        wrong = wrong_unit(m, i, &x);
    }
    if (!wrong && !m->unit_count && (m->entry_count || m->chunk_count))
        wrong = "entries without units";
    if (!wrong && (m->unit_count ? m->units[m->unit_count - 1].end : 0) != m->toc_offset)
        wrong = "the units' end";
    return wrong ? bad(err, wrong) : SGZ_OK;
}
