#include "verify/entries.h"

#include "base/time.h"
#include "base/vec.h"
#include "base/xattrs.h"
#include "toc/hash.h"
#include "toc/parser.h"

#define PIECE ((size_t)64 << 10)

typedef struct {
    sgz_verify_entry entry;
    size_t text;             /* name, link, names of owners and xattrs, in the arena */
    size_t name_len;
    int taken;
} item;

struct sgz_verify_entries {
    sgz_verify_pull pull;
    sgz_toc *toc;            /* of the parser; nothing is in it */
    sgz_toc_parser *parser;
    char *piece;
    int ended;
    item *items;             /* since there were none to be taken */
    size_t count, cap, left;
    char *arena;
    size_t arena_len, arena_cap;
    sgz_map names;
};

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for entries of the TOC");
}

static char *room(sgz_verify_entries *e, size_t size)
{
    return SGZ_FIT(e->arena, e->arena_cap, e->arena_len + size) ? e->arena + e->arena_len : NULL;
}

static void read_time(const sgz_json_span *span, sgz_tar_time *time, int *bad)
{
    char buf[256];
    size_t len;
    if (!span->ptr)
        return;
    const char *text = sgz_toc_short_text(span, buf, sizeof buf, &len);
    time->given = text && sgz_base_time_read(text, len, &time->seconds, &time->nanoseconds);
    *bad |= !time->given;
}

/* Of an object that was parsed before, when the layer was opened. */
static sgz_status read_xattrs(sgz_verify_entries *e, const sgz_json_span *object, sgz_error *err)
{
    sgz_json_cursor c = {object->ptr + 1, object->ptr + object->len, NULL};
    for (sgz_json_space(&c); *c.p != '}'; sgz_json_space(&c)) {
        sgz_json_span key, value = {.plain = 1};
        int bad = 0;
        sgz_json_string(&c, &key);
        sgz_json_space(&c);
        c.p++; /* the colon */
        sgz_json_space(&c);
        if (*c.p == '"')
            sgz_json_string(&c, &value);
        else
            sgz_base_json_skip(&c, 3);
        char *out = room(e, sgz_xattrs_size(3 * key.len, 3 * value.len));
        if (!out)
            return no_memory(err);
        sgz_xattr x = {.key = sgz_xattrs_value(out, 0)};
        x.key_len = (uint32_t)sgz_base_json_decode(&key, sgz_xattrs_value(out, 0), &bad);
        x.value = sgz_xattrs_value(out, x.key_len);
        x.value_len = (uint32_t)sgz_base_json_decode(&value, sgz_xattrs_value(out, x.key_len), &bad);
        uint32_t sizes[2] = {x.key_len, x.value_len};
        memcpy(out, sizes, sizeof sizes);
        e->arena_len += sgz_xattrs_size(x.key_len, x.value_len);
        sgz_json_space(&c);
        if (*c.p == ',')
            c.p++;
    }
    return SGZ_OK;
}

static sgz_status read_text(sgz_verify_entries *e, const sgz_json_span *span, size_t *len,
                            sgz_error *err)
{
    int bad = 0;
    char *out = room(e, 3 * span->len);
    *len = 0;
    if (!span->len)
        return SGZ_OK;
    if (!out)
        return no_memory(err);
    *len = sgz_base_json_decode(span, out, &bad);
    e->arena_len += *len;
    return SGZ_OK;
}

static const char *name_of(const sgz_verify_entries *e, const item *i)
{
    return e->arena + i->text;
}

/* The slot of a name: taken, or where it would be. */
static size_t find(const sgz_verify_entries *e, uint64_t hash, const char *name, size_t len)
{
    size_t at = sgz_map_first(&e->names, hash);
    while (sgz_map_taken(&e->names, at)) {
        const item *i = &e->items[sgz_map_number(&e->names, at)];
        if (i->name_len == len && (!len || !memcmp(name_of(e, i), name, len)))
            break;
        at = sgz_map_next(&e->names, hash, at);
    }
    return at;
}

/* A sgz_toc_take_fields. */
static sgz_status take_fields(void *arg, const sgz_toc_fields *f, sgz_error *err)
{
    sgz_verify_entries *e = arg;
    int type = f->texts[KEY_TYPE].ptr ? sgz_toc_read_type(&f->texts[KEY_TYPE]) : 0;
    if (type == SGZ_CHUNK)
        return SGZ_OK;
    item i = {.text = e->arena_len};
    i.entry = (sgz_verify_entry){
        .type = type, .size = FIELD(f, KEY_SIZE), .mode = FIELD(f, KEY_MODE),
        .uid = FIELD(f, KEY_UID), .gid = FIELD(f, KEY_GID),
        .dev_major = FIELD(f, KEY_DEV_MAJOR), .dev_minor = FIELD(f, KEY_DEV_MINOR),
        .end_offset = FIELD(f, KEY_END_OFFSET),
    };
    read_time(&f->texts[KEY_MODTIME], &i.entry.mtime, &i.entry.bad_time);
    read_time(&f->texts[KEY_ACCESSED], &i.entry.atime, &i.entry.bad_time);
    read_time(&f->texts[KEY_CHANGED], &i.entry.ctime, &i.entry.bad_time);
    sgz_status st = read_text(e, &f->texts[KEY_NAME], &i.name_len, err);
    if (!st)
        st = read_text(e, &f->texts[KEY_LINK], &i.entry.link_len, err);
    if (!st)
        st = read_text(e, &f->texts[KEY_UNAME], &i.entry.uname_len, err);
    if (!st)
        st = read_text(e, &f->texts[KEY_GNAME], &i.entry.gname_len, err);
    size_t xattrs = e->arena_len;
    if (!st && f->xattrs.ptr)
        st = read_xattrs(e, &f->xattrs, err);
    if (st)
        return st;
    i.entry.xattr_len = e->arena_len - xattrs;
    if (e->count >= SGZ_MAP_NONE - 1 || !sgz_map_reserve(&e->names, 1) ||
        !SGZ_PUSH(e->items, e->count, e->cap, i))
        return no_memory(err);
    const char *name = e->arena + i.text;
    uint64_t hash = sgz_toc_hash_bytes(e->toc->seed, name, i.name_len);
    size_t at = find(e, hash, name, i.name_len);
    if (sgz_map_taken(&e->names, at)) {
        item *before = &e->items[sgz_map_number(&e->names, at)];
        e->left -= !before->taken; /* the TOC has the name twice: that is told otherwise */
        before->taken = 1;
    }
    sgz_map_put(&e->names, at, hash, (uint32_t)(e->count - 1));
    e->left++;
    return SGZ_OK;
}

/* Parse one more piece of the JSON. */
static sgz_status go_on(sgz_verify_entries *e, sgz_error *err)
{
    size_t got = 0;
    if (!e->left) {
        e->count = e->arena_len = 0;
        e->names.used = 0;
        if (e->names.size)
            memset(e->names.slots, 0, e->names.size * sizeof *e->names.slots);
    }
    sgz_status st = e->pull.read(e->pull.arg, e->piece, PIECE, &got, err);
    if (!st && got)
        st = sgz_toc_parse(e->parser, e->piece, got, err);
    e->ended = st || got < PIECE;
    return sgz_toc_in_json(st, e->pull.offset, err);
}

sgz_verify_entries *sgz_verify_entries_new(sgz_verify_pull pull)
{
    sgz_verify_entries *e = calloc(1, sizeof *e);
    if (!e)
        return NULL;
    e->pull = pull;
    e->toc = sgz_toc_new();
    e->parser = e->toc ? sgz_toc_parser_new(e->toc) : NULL;
    e->piece = malloc(PIECE);
    if (!e->parser || !e->piece || !room(e, PIECE)) {
        sgz_verify_entries_free(e);
        return NULL;
    }
    sgz_toc_parser_chunked(e->parser);
    e->parser->take = take_fields;
    e->parser->take_arg = e;
    return e;
}

void sgz_verify_entries_free(sgz_verify_entries *e)
{
    if (!e)
        return;
    if (e->parser)
        sgz_toc_parser_free(e->parser);
    if (e->toc)
        sgz_toc_free(e->toc);
    sgz_map_free(&e->names);
    free(e->piece);
    free(e->items);
    free(e->arena);
    free(e);
}

sgz_status sgz_verify_entries_take(sgz_verify_entries *e, const char *name, size_t len,
                                   sgz_verify_entry *entry, int *none, sgz_error *err)
{
    uint64_t hash = sgz_toc_hash_bytes(e->toc->seed, name, len);
    size_t at = find(e, hash, name, len);
    *none = 0;
    while (!sgz_map_taken(&e->names, at) && !e->ended) {
        sgz_status st = go_on(e, err);
        if (st)
            return st;
        at = find(e, hash, name, len);
    }
    item *i = sgz_map_taken(&e->names, at) ? &e->items[sgz_map_number(&e->names, at)] : NULL;
    if (!i || i->taken) {
        *none = 1;
        return SGZ_OK;
    }
    i->taken = 1;
    e->left--;
    *entry = i->entry;
    entry->link = e->arena + i->text + i->name_len;
    entry->uname = entry->link + entry->link_len;
    entry->gname = entry->uname + entry->uname_len;
    entry->xattrs = entry->gname + entry->gname_len;
    return SGZ_OK;
}

sgz_status sgz_verify_entries_rest(sgz_verify_entries *e, sgz_verify_tell_name tell, void *arg,
                                   sgz_error *err)
{
    for (;;) {
        for (size_t i = 0; i < e->count; i++) {
            if (e->items[i].taken)
                continue;
            tell(arg, name_of(e, &e->items[i]), e->items[i].name_len);
            e->items[i].taken = 1;
            e->left--;
        }
        if (e->ended)
            return SGZ_OK;
        sgz_status st = go_on(e, err);
        if (st)
            return st;
    }
}
