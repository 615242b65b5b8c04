#include "toc/place.h"

#define ROOM (3 * SGZ_TOC_PATH_MAX) /* of a path, all of whose bytes became U+FFFD */

/* --- directories that no entry names ---------------------------------------------------- */

void sgz_toc_dirs_free(sgz_toc_dirs *dirs)
{
    free(dirs->list);
    sgz_map_free(&dirs->names);
}

static size_t dir_slot(const sgz_toc_dirs *dirs, const sgz_toc *toc, uint64_t hash,
                       const char *name, size_t len)
{
    size_t at = sgz_map_first(&dirs->names, hash);
    for (; sgz_map_taken(&dirs->names, at); at = sgz_map_next(&dirs->names, hash, at)) {
        const sgz_toc_dir *dir = &dirs->list[sgz_map_number(&dirs->names, at)];
        if (dir->len == len && !memcmp(toc->arena + dir->off, name, len))
            break;
    }
    return at;
}

int sgz_toc_dirs_have(const sgz_toc_dirs *dirs, const sgz_toc *toc, uint64_t hash,
                      const char *name, size_t len)
{
    return sgz_map_taken(&dirs->names, dir_slot(dirs, toc, hash, name, len));
}

int sgz_toc_dirs_add(sgz_toc_dirs *dirs, const sgz_toc *toc, uint64_t hash, sgz_toc_dir dir)
{
    if (!sgz_map_reserve(&dirs->names, 1) || !SGZ_PUSH(dirs->list, dirs->count, dirs->cap, dir))
        return 0;
    size_t slot = dir_slot(dirs, toc, hash, toc->arena + dir.off, dir.len);
    sgz_map_put(&dirs->names, slot, hash, (uint32_t)dirs->count - 1);
    return 1;
}

int sgz_toc_place_implied(const sgz_toc_place *p, uint64_t hash, const char *name, size_t len)
{
    return sgz_toc_dirs_have(&p->implied, p->toc, hash, name, len);
}

/* --- life ------------------------------------------------------------------------------- */

void sgz_toc_place_free(sgz_toc_place *p)
{
    sgz_toc_dirs_free(&p->implied);
    free(p->above.list);
    free(p->rest);
    free(p->next);
    free(p->asked);
    free(p->path);
}

sgz_toc_placed sgz_toc_place_enter(sgz_toc_place *p)
{
    sgz_toc *toc = p->toc;
    if (p->kept)
        return SGZ_PLACE_FOUND;
    p->kept = 1;
    if (p->row != SGZ_NO_ROW) {
        toc->rows[p->row].in_use = 1;
        return SGZ_PLACE_FOUND;
    }
    if (!sgz_toc_ancestors(toc, p->path, p->len, &p->above))
        return SGZ_PLACE_NO_MEMORY;
    uint64_t off = UINT64_MAX; /* of the path in the arena, once it is there */
    for (size_t i = p->above.count; i--;) {
        uint64_t hash = p->above.list[i].hash;
        uint32_t len = p->above.list[i].len;
        uint32_t row = sgz_toc_find(toc, hash, p->path, len);
        if (row != SGZ_NO_ROW)
            toc->rows[row].in_use = 1;
        if (row != SGZ_NO_ROW || sgz_toc_place_implied(p, hash, p->path, len))
            break;
        if (off == UINT64_MAX && (off = sgz_toc_store(toc, p->path, p->len)) == UINT64_MAX)
            return SGZ_PLACE_NO_MEMORY;
        if (!sgz_toc_dirs_add(&p->implied, toc, hash, (sgz_toc_dir){off, len}))
            return SGZ_PLACE_NO_MEMORY;
    }
    return SGZ_PLACE_FOUND;
}

/* --- the walk --------------------------------------------------------------------------- */

/* The nearest row on the way to the path, its own included; *at is the length of its name.
 * SGZ_NO_ROW: there is none. 0: no memory. */
static int nearest(sgz_toc_place *p, uint32_t *row, size_t *at)
{
    *at = p->len;
    *row = sgz_toc_find(p->toc, sgz_toc_hash_name(p->toc->seed, p->path, p->len), p->path, p->len);
    if (*row != SGZ_NO_ROW || !p->len)
        return 1;
    if (!sgz_toc_ancestors(p->toc, p->path, p->len, &p->above))
        return 0;
    for (size_t i = p->above.count; i-- && *row == SGZ_NO_ROW;) {
        *at = p->above.list[i].len;
        *row = sgz_toc_find(p->toc, p->above.list[i].hash, p->path, *at);
    }
    return 1;
}

/* Go on by the names that follow in the text, up to its end or a "..": that one is for a path
 * without symlinks. 0: the path would be too long. */
static int advance(sgz_toc_place *p, const char **text, const char *end, int *up)
{
    for (*up = 0; *text < end;) {
        const char *part = *text, *slash = memchr(part, '/', (size_t)(end - part));
        size_t n = slash ? (size_t)(slash - part) : (size_t)(end - part);
        if ((*up = n == 2 && part[0] == '.' && part[1] == '.'))
            return 1;
        *text = slash ? slash + 1 : end;
        if (!n || (n == 1 && part[0] == '.'))
            continue;
        if (p->len + 1 + n > ROOM)
            return 0;
        if (p->len)
            p->path[p->len++] = '/';
        memcpy(p->path + p->len, part, n);
        p->len += n;
    }
    return 1;
}

/* The symlink's target and what follows it is to be walked now: in p->rest. 0: no memory. */
static int follow(sgz_toc_place *p, sgz_entry *link, size_t at, const char **text,
                  const char **end)
{
    size_t behind = p->len - at, left = (size_t)(*end - *text);
    size_t total = link->link_len + behind + 1 + left;
    const char *target = p->toc->arena + link->link_off;
    if (!SGZ_FIT(p->next, p->next_cap, total))
        return 0;
    memcpy(p->next, target, link->link_len);
    memcpy(p->next + link->link_len, p->path + at, behind); /* begins with its slash */
    p->next[link->link_len + behind] = '/';
    if (left)
        memcpy(p->next + link->link_len + behind + 1, *text, left);
    char *text_of = p->next;
    size_t cap = p->next_cap;
    p->next = p->rest;
    p->next_cap = p->rest_cap;
    p->rest = text_of;
    p->rest_cap = cap;
    *text = text_of;
    *end = text_of + total;
    p->len = link->link_len && target[0] == '/' ? 0 : sgz_toc_parent_len(p->path, at);
    link->in_use = 1;
    return 1;
}

static sgz_toc_placed walk(sgz_toc_place *p, const char *text, const char *end)
{
    for (int up;;) {
        uint32_t row;
        size_t at;
        if (!advance(p, &text, end, &up))
            return SGZ_PLACE_TOO_LONG;
        if (!nearest(p, &row, &at))
            return SGZ_PLACE_NO_MEMORY;
        uint32_t file = row == SGZ_NO_ROW ? row : sgz_toc_resolve(p->toc, row);
        uint8_t type = file == SGZ_NO_ROW ? SGZ_DIR : p->toc->rows[file].type;
        /* Whiteouts lead nowhere, and what they stood in may be gone. */
        if (type == SGZ_SYMLINK && !sgz_toc_is_whiteout(p->path, at)) {
            if (p->followed == SGZ_TOC_SYMLINKS_MAX)
                return SGZ_PLACE_LOOP;
            p->links[p->followed++] = row;
            if (!follow(p, &p->toc->rows[file], at, &text, &end))
                return SGZ_PLACE_NO_MEMORY;
        } else if (type != SGZ_DIR) {
            p->len = at;
            return SGZ_PLACE_NO_DIR;
        } else if (up) {
            p->len = sgz_toc_parent_len(p->path, p->len);
            text += 2;
        } else {
            p->row = at == p->len ? row : SGZ_NO_ROW;
            return SGZ_PLACE_FOUND;
        }
    }
}

sgz_toc_placed sgz_toc_place_find(sgz_toc_place *p, const char *dir, size_t len)
{
    if (p->kept && len == p->asked_len && !memcmp(dir, p->asked, len))
        return SGZ_PLACE_FOUND;
    p->kept = 0;
    if (len > ROOM)
        return SGZ_PLACE_TOO_LONG;
    if (!SGZ_FIT(p->path, p->path_cap, ROOM) || !SGZ_FIT(p->asked, p->asked_cap, ROOM))
        return SGZ_PLACE_NO_MEMORY;
    memcpy(p->asked, dir, len);
    p->asked_len = len;
    p->len = 0;
    p->followed = 0;
    return walk(p, p->asked, p->asked + len);
}
