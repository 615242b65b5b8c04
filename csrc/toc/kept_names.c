/* The names of a tar that is kept: whether the tree that they make can be extracted, by readers that
 * take entries one by one, and open again, with no more in memory than a hash of each. */
#include "toc/internal.h"
#include "toc/kept_internal.h"

#define WHITEOUT ".wh."
#define WHITEOUT_LEN (sizeof WHITEOUT - 1)

/* Readers put the place of their store before it. */
#define NAME_MAX_LEN (SGZ_TOC_PATH_MAX - 1023)

#define REFUSE SGZ_KEPT_REFUSE

/* A node is a device or a pipe, which no partial pull makes; what is gone has a whiteout. */
enum { FILE_NAME, DIR_NAME, LINK_NAME, NODE_NAME, WHITEOUT_NAME, GONE_NAME, IMPLIED_NAME };

#define BOTH "a whiteout, and what it is for, in the same layer"

static sgz_kept_name hash(const sgz_toc_kept *kept, const char *name, size_t len, uint8_t kind)
{
    uint64_t seed = kept->rows.toc->seed;
    return (sgz_kept_name){sgz_toc_hash_name(seed, name, len),
                           sgz_toc_hash_name(sgz_toc_mix(seed, 0x8ebc6af09c88c6e3u), name, len),
                           kind};
}

/* The slot of a name: taken by it, or free. */
static size_t find_slot(const sgz_toc_kept *kept, const sgz_kept_name *name)
{
    size_t at = sgz_map_first(&kept->by_name, name->hash);
    for (; sgz_map_taken(&kept->by_name, at); at = sgz_map_next(&kept->by_name, name->hash, at)) {
        const sgz_kept_name *other = &kept->names[sgz_map_number(&kept->by_name, at)];
        if (other->hash == name->hash && other->other == name->other)
            break;
    }
    return at;
}

static sgz_kept_name *find(const sgz_toc_kept *kept, const sgz_kept_name *name)
{
    uint32_t number = sgz_map_number(&kept->by_name, find_slot(kept, name));
    return number == SGZ_MAP_NONE ? NULL : &kept->names[number];
}

static sgz_status add(sgz_toc_kept *kept, const sgz_kept_name *name, sgz_error *err)
{
    if (!sgz_map_reserve(&kept->by_name, 1) ||
        !SGZ_PUSH(kept->names, kept->name_count, kept->name_cap, *name))
        return sgz_kept_no_memory(err);
    sgz_map_put(&kept->by_name, find_slot(kept, name), name->hash,
                (uint32_t)(kept->name_count - 1));
    return SGZ_OK;
}

/* NULL: no memory. */
static const char *clean(sgz_toc_kept *kept, const char *raw, size_t raw_len, size_t *len)
{
    return SGZ_FIT(kept->clean, kept->clean_cap, raw_len + 1)
               ? sgz_toc_clean_name(raw, raw_len, kept->clean, len) : NULL;
}

static int is_too_long(const char *name, size_t len)
{
    size_t component = 0;
    for (size_t i = 0; i < len && component <= SGZ_TOC_BASE_MAX; i++)
        component = name[i] == '/' ? 0 : component + 1;
    return len > NAME_MAX_LEN || component > SGZ_TOC_BASE_MAX;
}

/* Components that readers leave to the kernel: it goes up from what stands there, or finds that what
 * a dot is behind is a file. */
static int has_dots(const char *name, size_t len, int is_dir)
{
    for (size_t at = 0, end; at < len; at = end + 1) {
        const char *slash = memchr(name + at, '/', len - at);
        end = slash ? (size_t)(slash - name) : len;
        if (end - at == 2 && name[at] == '.' && name[at + 1] == '.')
            return 1;
        if (end - at == 1 && name[at] == '.' && end == len && !is_dir)
            return 1;
    }
    return 0;
}

/* What a name above has to be: readers make directories that the tar has not. */
static sgz_status add_parents(sgz_toc_kept *kept, const sgz_tar_entry *entry, int64_t offset,
                              const char *name, size_t len, sgz_error *err)
{
    while ((len = sgz_toc_parent_len(name, len))) {
        sgz_kept_name parent = hash(kept, name, len, IMPLIED_NAME);
        const sgz_kept_name *there = find(kept, &parent);
        if (there && there->kind != DIR_NAME && there->kind != IMPLIED_NAME)
            return REFUSE(entry, offset, err, "an entry below what is no directory");
        if (there)
            return SGZ_OK;
        sgz_status status = add(kept, &parent, err);
        if (status)
            return status;
        kept->weight.implied++;
    }
    return SGZ_OK;
}

/* A hard link: what it leads to must be there when it is made. Readers make those last, one by one:
 * so a later entry will do that is no hard link itself. */
static sgz_status add_link(sgz_toc_kept *kept, const sgz_tar_entry *entry, int64_t offset,
                           sgz_error *err)
{
    size_t len;
    const char *name = clean(kept, entry->link, entry->link_len, &len);
    if (!name)
        return sgz_kept_no_memory(err);
    sgz_kept_link link = {hash(kept, name, len, LINK_NAME), kept->text_len,
                          (uint32_t)entry->name_len};
    const sgz_kept_name *there = find(kept, &link.target);
    if (there && there->kind != FILE_NAME && there->kind != LINK_NAME)
        return REFUSE(entry, offset, err, "a hard link to a directory, device, pipe or whiteout");
    if (there)
        return SGZ_OK;
    if (!SGZ_FIT(kept->texts, kept->text_cap, kept->text_len + entry->name_len + 1) ||
        !SGZ_PUSH(kept->links, kept->link_count, kept->link_cap, link))
        return sgz_kept_no_memory(err);
    memcpy(kept->texts + kept->text_len, entry->name, entry->name_len);
    kept->text_len += entry->name_len;
    return SGZ_OK;
}

/* What a whiteout is for is not there: readers would find the whiteout in its place. */
static sgz_status add_gone(sgz_toc_kept *kept, const sgz_tar_entry *entry, int64_t offset,
                           const char *name, const char *of, size_t of_len, sgz_error *err)
{
    if (of_len >= WHITEOUT_LEN && !memcmp(of, WHITEOUT, WHITEOUT_LEN))
        return SGZ_OK; /* an opaque directory, or what else AUFS has */
    size_t above = (size_t)(of - name) - WHITEOUT_LEN;
    if (!SGZ_FIT(kept->clean, kept->clean_cap, above + of_len))
        return sgz_kept_no_memory(err);
    memmove(kept->clean, name, above); /* which may be there itself */
    memmove(kept->clean + above, of, of_len);
    sgz_kept_name it = hash(kept, kept->clean, above + of_len, GONE_NAME);
    return find(kept, &it) ? REFUSE(entry, offset, err, BOTH) : add(kept, &it, err);
}

static uint8_t kind_of(uint8_t type)
{
    switch (type) {
    case SGZ_DIR:
        return DIR_NAME;
    case SGZ_HARDLINK:
        return LINK_NAME;
    case SGZ_CHAR:
    case SGZ_BLOCK:
    case SGZ_FIFO:
        return NODE_NAME;
    default:
        return FILE_NAME;
    }
}

sgz_status sgz_toc_kept_name(sgz_toc_kept *kept, const sgz_tar_entry *entry, uint8_t type,
                               int64_t offset, sgz_error *err)
{
    size_t len;
    sgz_status status = type == SGZ_HARDLINK ? add_link(kept, entry, offset, err) : SGZ_OK;
    if (status)
        return status;
    const char *name = clean(kept, entry->name, entry->name_len, &len);
    if (!name)
        return sgz_kept_no_memory(err);
    if (!len && type != SGZ_DIR)
        return REFUSE(entry, offset, err, "the root, as something else than a directory");
    if (has_dots(entry->name, entry->name_len, type == SGZ_DIR))
        return REFUSE(entry, offset, err, "a name that goes up, or with a dot behind a file's");
    if (is_too_long(name, len) || entry->link_len > SGZ_TOC_PATH_MAX)
        return REFUSE(entry, offset, err, "its name or link is too long to be extracted");
    const char *base = name + len;
    while (base > name && base[-1] != '/')
        base--;
    size_t base_len = (size_t)(name + len - base);
    int whiteout = base_len >= WHITEOUT_LEN && !memcmp(base, WHITEOUT, WHITEOUT_LEN);
    const char *of = base + WHITEOUT_LEN;
    size_t of_len = base_len - WHITEOUT_LEN;
    if (whiteout && (!of_len || (of[0] == '.' && (of_len == 1 || (of_len == 2 && of[1] == '.')))))
        return REFUSE(entry, offset, err, "a whiteout of no name");
    if (whiteout && (entry->size || type == SGZ_HARDLINK))
        return REFUSE(entry, offset, err, "a whiteout with contents");
    sgz_kept_name it = hash(kept, name, len, whiteout ? WHITEOUT_NAME : kind_of(type));
    sgz_kept_name *there = find(kept, &it);
    if (there && there->kind == GONE_NAME)
        return REFUSE(entry, offset, err, BOTH);
    if (there && there->kind != IMPLIED_NAME)
        return REFUSE(entry, offset, err, "the tar has this path twice");
    if (there && it.kind != DIR_NAME)
        return REFUSE(entry, offset, err, "it has entries below it, and is no directory");
    if (there) {
        there->kind = it.kind;
        kept->weight.implied--;
        return SGZ_OK;
    }
    status = add_parents(kept, entry, offset, name, len, err);
    if (!status)
        status = add(kept, &it, err);
    return status || !whiteout ? status : add_gone(kept, entry, offset, name, of, of_len, err);
}

sgz_status sgz_toc_kept_finish(const sgz_toc_kept *kept, sgz_error *err)
{
    for (size_t i = 0; i < kept->link_count; i++) {
        const sgz_kept_link *link = &kept->links[i];
        const sgz_kept_name *there = find(kept, &link->target);
        if (!there || there->kind != FILE_NAME)
            return sgz_base_fail(err, SGZ_ENOTOC, -1, kept->texts + link->name_off,
                                 link->name_len, there
                                     ? "a hard link to a later one, or to no file"
                                     : "a hard link to what is not in the layer");
    }
    return SGZ_OK;
}
