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
    free(p->steps);
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
    uint64_t off = UINT64_MAX; /* of the path in the arena, once it is there */
    for (size_t i = p->depth; i--;) {
        uint64_t hash = p->steps[i].hash;
        uint32_t len = p->steps[i].len;
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
 * SGZ_NO_ROW: there is none. */
static uint32_t nearest(sgz_toc_place *p, size_t *at)
{
    const sgz_toc *toc = p->toc;
    sgz_toc_step found = {.row = SGZ_NO_ROW, .known = 1};
    size_t i = p->depth;
    *at = 0;
    if (!i)
        return sgz_toc_find(toc, toc->seed, p->path, 0);
    while (i && found.row == SGZ_NO_ROW) {
        const sgz_toc_step *step = &p->steps[--i];
        found.row = step->known ? step->row : sgz_toc_find(toc, step->hash, p->path, step->len);
        found.row_len = step->known ? step->row_len : step->len;
        if (step->known)
            break;
    }
    for (; i < p->depth; i++) {
        p->steps[i].row = found.row;
        p->steps[i].row_len = found.row_len;
        p->steps[i].known = 1;
    }
    *at = found.row_len;
    return found.row;
}

/* Back to the first `len` bytes of the path, which are one of its steps, or nothing. */
static void go_back(sgz_toc_place *p, size_t len)
{
    p->len = len;
    while (p->depth && p->steps[p->depth - 1].len > len)
        p->depth--;
}

/* Into a directory: SGZ_PLACE_FOUND, or why not. */
static sgz_toc_placed go_into(sgz_toc_place *p, const char *name, size_t len)
{
    uint64_t hash = p->depth ? p->steps[p->depth - 1].hash : p->toc->seed;
    if (p->len + 1 + len > ROOM)
        return SGZ_PLACE_TOO_LONG;
    if (p->len)
        p->path[p->len++] = '/';
    memcpy(p->path + p->len, name, len);
    p->len += len;
    sgz_toc_step step = {.hash = sgz_toc_hash_bytes(hash, name, len), .len = (uint32_t)p->len};
    return SGZ_PUSH(p->steps, p->depth, p->step_cap, step) ? SGZ_PLACE_FOUND : SGZ_PLACE_NO_MEMORY;
}

/* Go on by the names that follow in the text, up to its end or a "..": that one is for a path
 * without symlinks. */
static sgz_toc_placed advance(sgz_toc_place *p, const char **text, const char *end, int *up)
{
    for (*up = 0; *text < end;) {
        const char *part = *text, *slash = memchr(part, '/', (size_t)(end - part));
        size_t n = slash ? (size_t)(slash - part) : (size_t)(end - part);
        if ((*up = n == 2 && part[0] == '.' && part[1] == '.'))
            break;
        *text = slash ? slash + 1 : end;
        if (!n || (n == 1 && part[0] == '.'))
            continue;
        sgz_toc_placed placed = go_into(p, part, n);
        if (placed)
            return placed;
    }
    return SGZ_PLACE_FOUND;
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
    go_back(p, link->link_len && target[0] == '/' ? 0 : sgz_toc_parent_len(p->path, at));
    link->in_use = 1;
    return 1;
}

static sgz_toc_placed walk(sgz_toc_place *p, const char *text, const char *end)
{
    for (int up;;) {
        size_t at;
        sgz_toc_placed placed = advance(p, &text, end, &up);
        if (placed)
            return placed;
        uint32_t row = nearest(p, &at);
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
            go_back(p, sgz_toc_parent_len(p->path, p->len));
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
    p->len = p->depth = 0;
    p->followed = 0;
    return walk(p, p->asked, p->asked + len);
}
