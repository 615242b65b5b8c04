#include "toc/internal.h"

#include <time.h>

/* Names longer than this are cleaned in a heap buffer. */
#define STACK_NAME 4096

/* A batch of rows whose index slots are fetched together: 1M names index in 0.6 of the time
 * of one at a time. */
#define INDEX_BATCH 32

sgz_toc *sgz_toc_new(void)
{
    sgz_toc *toc = calloc(1, sizeof *toc);
    if (toc) {
        /* Nobody who writes a TOC knows the address and the time of its reader. */
        struct timespec now = {0};
        clock_gettime(CLOCK_MONOTONIC, &now);
        toc->seed = sgz_toc_mix((uint64_t)(uintptr_t)toc ^ 0xa0761d6478bd642fu,
                                (uint64_t)now.tv_nsec ^ (uint64_t)now.tv_sec << 30);
        if (!sgz_toc_reserve(toc, 1)) { /* so that the arena is never NULL */
            free(toc);
            toc = NULL;
        }
    }
    return toc;
}

void sgz_toc_free(sgz_toc *toc)
{
    if (!toc)
        return;
    free(toc->rows);
    free(toc->origins);
    free(toc->fractions);
    free(toc->arena);
    free(toc->strings);
    sgz_map_free(&toc->names);
    sgz_map_free(&toc->string_names);
    free(toc);
}

sgz_entry *sgz_toc_append(sgz_toc *toc)
{
    if (toc->count >= SGZ_NO_ROW - 1 || !SGZ_FIT(toc->rows, toc->cap, toc->count + 1))
        return NULL;
    sgz_entry *row = &toc->rows[toc->count++];
    memset(row, 0, sizeof *row);
    return row;
}

int sgz_toc_reserve(sgz_toc *toc, size_t len)
{
    return SGZ_FIT(toc->arena, toc->arena_cap, toc->arena_len + len);
}

uint64_t sgz_toc_store(sgz_toc *toc, const void *data, size_t len)
{
    if (!sgz_toc_reserve(toc, len))
        return UINT64_MAX;
    uint64_t at = toc->arena_len;
    if (len)
        memcpy(toc->arena + at, data, len);
    toc->arena_len += len;
    return at;
}

/* --- user and group names ------------------------------------------------------------- */

uint32_t sgz_toc_intern(sgz_toc *toc, const char *text, size_t len)
{
    if (!len)
        return 0;
    if (len > UINT16_MAX || !sgz_map_reserve(&toc->string_names, 1))
        return SGZ_NO_ROW;
    uint64_t hash = sgz_toc_hash_bytes(toc->seed, text, len);
    size_t slot = sgz_map_first(&toc->string_names, hash);
    for (; sgz_map_taken(&toc->string_names, slot);
         slot = sgz_map_next(&toc->string_names, hash, slot)) {
        uint32_t number = sgz_map_number(&toc->string_names, slot);
        size_t other_len;
        const char *other = sgz_toc_string(toc, number, &other_len);
        if (other_len == len && !memcmp(other, text, len))
            return number;
    }
    uint64_t at = sgz_toc_store(toc, text, len);
    if (at == UINT64_MAX ||
        !SGZ_PUSH(toc->strings, toc->string_count, toc->string_cap, at << 16 | len))
        return SGZ_NO_ROW;
    sgz_map_put(&toc->string_names, slot, hash, toc->string_count);
    return toc->string_count;
}

const char *sgz_toc_string(const sgz_toc *toc, uint32_t number, size_t *len)
{
    if (!number || number > toc->string_count) {
        *len = 0;
        return "";
    }
    uint64_t packed = toc->strings[number - 1];
    *len = packed & UINT16_MAX;
    return toc->arena + (packed >> 16);
}

const uint8_t sgz_toc_empty_digest[32] = {
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4,
    0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b,
    0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55};

const uint8_t *sgz_toc_digest(const sgz_toc *toc, uint32_t number)
{
    const sgz_entry *row = &toc->rows[number];
    if (!(row->flags & SGZ_HAS_DIGEST))
        return NULL;
    if (row->flags & SGZ_DIGEST_IS_CHUNK)
        return row->chunk_digest;
    return (const uint8_t *)toc->arena + row->digest_off;
}

sgz_toc_time sgz_toc_mtime(const sgz_toc *toc, uint32_t row)
{
    uint32_t ns = toc->origins                  ? toc->origins[row].ns
                  : row < toc->fraction_count ? toc->fractions[row]
                                                : 0;
    return (sgz_toc_time){toc->rows[row].mtime - (ns >= 500000000), ns}; /* the row's is rounded */
}

/* --- names ---------------------------------------------------------------------------- */

/* Whether "//" or "/." occurs: without them no component is empty, "." or "..". The loop
 * has no exit, so that the compiler makes vector code of it. */
static int has_odd_slash(const char *s, size_t len)
{
    uint8_t odd = 0;
    for (size_t i = 0; i + 1 < len; i++)
        odd |= (uint8_t)((s[i] == '/') & ((s[i + 1] == '/') | (s[i + 1] == '.')));
    return odd;
}

const char *sgz_toc_clean_name(const char *name, size_t len, char *scratch, size_t *clean_len)
{
    for (;;) {
        if (len && name[0] == '/')
            name++, len--;
        else if (len > 1 && name[0] == '.' && name[1] == '/')
            name += 2, len -= 2;
        else
            break;
    }
    while (len && name[len - 1] == '/')
        len--;
    *clean_len = len;
    if (!len)
        return name;
    if (name[0] != '.' && !has_odd_slash(name, len))
        return name;

    /* Component by component; nothing is written while the result is a prefix of name. */
    size_t out = 0, at = 0;
    int copying = 0;
    while (at < len) {
        const char *part = name + at;
        const char *slash = memchr(part, '/', len - at);
        size_t n = slash ? (size_t)(slash - part) : len - at;
        size_t next = at + n + 1;
        if (n == 2 && part[0] == '.' && part[1] == '.') {
            const char *kept = copying ? scratch : name;
            out = sgz_toc_parent_len(kept, out);
        } else if (n && !(n == 1 && part[0] == '.')) {
            size_t start = out ? out + 1 : 0;
            if (!copying && start != at) {
                copying = 1;
                memcpy(scratch, name, out);
            }
            if (copying) {
                if (out)
                    scratch[out] = '/';
                memcpy(scratch + start, part, n);
            }
            out = start + n;
        }
        at = next;
    }
    *clean_len = out;
    return copying ? scratch : name;
}

int sgz_toc_marker(const char *name, size_t len)
{
    if (sgz_is(name, len, SGZ_LANDMARK) || sgz_is(name, len, SGZ_NO_LANDMARK))
        return 1;
    return sgz_is(name, len, SGZ_TOC_NAME) ? 2 : 0;
}

/* The cleaned name of a row is worked out once, when it is indexed: a name may be a MiB of
 * slashes, and be asked for by every row below it. Mostly it is part of the name. */
#define CLEAN_SKIP_MAX ((1 << 14) - 1)

static const char *row_clean_name(const sgz_toc *toc, const sgz_entry *row, size_t *len)
{
    const char *name = sgz_toc_entry_name(toc, row);
    if (row->flags & SGZ_CLEAN_NAME) {
        *len = row->name_len;
        return name;
    }
    *len = row->clean_len;
    return name + (row->clean_behind ? row->name_len : row->clean_skip);
}

/* 0: no memory. */
static int note_clean_name(sgz_toc *toc, sgz_entry *row)
{
    if (row->flags & SGZ_CLEAN_NAME || row->clean_known)
        return 1;
    char stack[STACK_NAME], *scratch = stack;
    if (row->name_len > sizeof stack && !(scratch = malloc(row->name_len)))
        return 0;
    size_t len, skip = 0;
    const char *name = sgz_toc_entry_name(toc, row);
    const char *clean = sgz_toc_clean_name(name, row->name_len, scratch, &len);
    int copied = clean == scratch, fine = 1;
    if (!copied)
        skip = (size_t)(clean - name);
    if (!copied && skip <= CLEAN_SKIP_MAX) {
        row->clean_skip = (uint16_t)(skip & CLEAN_SKIP_MAX);
    } else if ((fine = sgz_toc_reserve(toc, row->name_len + len))) {
        char *to = toc->arena + toc->arena_len;
        name = sgz_toc_entry_name(toc, row); /* the arena may have moved */
        memcpy(to, name, row->name_len);
        memcpy(to + row->name_len, copied ? scratch : name + skip, len);
        row->name_off = toc->arena_len;
        row->clean_behind = 1;
        toc->arena_len += row->name_len + len;
    }
    row->clean_len = (uint32_t)len;
    row->clean_known = fine & 1;
    if (scratch != stack)
        free(scratch);
    return fine;
}

/* --- index ---------------------------------------------------------------------------- */

/* The slot of a name: taken by its row, or free. */
static size_t find_slot(const sgz_toc *toc, uint64_t hash, const char *name, size_t len)
{
    size_t at = sgz_map_first(&toc->names, hash), other_len;
    for (; sgz_map_taken(&toc->names, at); at = sgz_map_next(&toc->names, hash, at)) {
        const sgz_entry *row = &toc->rows[sgz_map_number(&toc->names, at)];
        const char *other = row_clean_name(toc, row, &other_len);
        if (other_len == len && !memcmp(other, name, len))
            break;
    }
    return at;
}

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the index of names");
}

uint32_t sgz_toc_find(const sgz_toc *toc, uint64_t hash, const char *name, size_t len)
{
    return sgz_map_number(&toc->names, find_slot(toc, hash, name, len));
}

int sgz_toc_ancestors(const sgz_toc *toc, const char *name, size_t len, sgz_toc_above *out)
{
    uint64_t hash = toc->seed;
    out->count = 0;
    for (size_t at = 0; at < len;) {
        const char *slash = memchr(name + at, '/', len - at);
        size_t end = slash ? (size_t)(slash - name) : len;
        hash = sgz_toc_hash_bytes(hash, name + at, end - at);
        if (!SGZ_FIT(out->list, out->cap, out->count + 1))
            return 0;
        out->list[out->count].hash = hash;
        out->list[out->count++].len = (uint32_t)end;
        at = end + 1;
    }
    return 1;
}

uint32_t sgz_toc_lookup(const sgz_toc *toc, const char *name, size_t len)
{
    char stack[STACK_NAME], *scratch = stack;
    if (len > sizeof stack && !(scratch = malloc(len)))
        return SGZ_NO_ROW;
    const char *clean = sgz_toc_clean_name(name, len, scratch, &len);
    uint32_t row = sgz_toc_find(toc, sgz_toc_hash_name(toc->seed, clean, len), clean, len);
    if (scratch != stack)
        free(scratch);
    return row;
}

/* The row that the name led to before, or SGZ_NO_ROW. */
static uint32_t put_row(sgz_toc *toc, uint32_t row, uint64_t hash, const char *name, size_t len)
{
    size_t slot = find_slot(toc, hash, name, len);
    uint32_t previous = sgz_map_number(&toc->names, slot);
    sgz_map_put(&toc->names, slot, hash, row);
    return previous;
}

sgz_status sgz_toc_index(sgz_toc *toc, uint32_t row, uint32_t *previous, sgz_error *err)
{
    if (!sgz_map_reserve(&toc->names, 1) || !note_clean_name(toc, &toc->rows[row]))
        return no_memory(err);
    size_t len;
    const char *name = row_clean_name(toc, &toc->rows[row], &len);
    *previous = put_row(toc, row, sgz_toc_hash_name(toc->seed, name, len), name, len);
    return SGZ_OK;
}

static void drop_row(sgz_toc *toc, uint32_t row)
{
    toc->rows[row].flags |= SGZ_DROPPED;
    while (++row < toc->count && sgz_toc_is_piece(&toc->rows[row]))
        toc->rows[row].flags |= SGZ_DROPPED;
}

sgz_status sgz_toc_index_all(sgz_toc *toc, sgz_error *err)
{
    sgz_status status = sgz_map_reserve(&toc->names, toc->count) ? SGZ_OK : no_memory(err);
    uint32_t rows[INDEX_BATCH];
    uint64_t hashes[INDEX_BATCH];
    size_t parent_off = 0, parent_len = 0; /* most rows have that of the row before */
    uint64_t parent_hash = toc->seed;
    for (size_t i = 0; i < toc->count && !status;) {
        int n = 0;
        for (; n < INDEX_BATCH && i < toc->count; i++) {
            const sgz_entry *row = &toc->rows[i];
            if (sgz_toc_is_piece(row) || row->flags & SGZ_DROPPED)
                continue;
            rows[n] = (uint32_t)i;
            if (row->flags & SGZ_CLEAN_NAME) {
                const char *name = sgz_toc_entry_name(toc, row);
                size_t len = sgz_toc_parent_len(name, row->name_len);
                if (len != parent_len || memcmp(name, toc->arena + parent_off, len)) {
                    parent_off = row->name_off;
                    parent_len = len;
                    parent_hash = sgz_toc_hash_name(toc->seed, name, len);
                }
                size_t base = len ? len + 1 : 0;
                hashes[n] = row->name_len ? sgz_toc_hash_bytes(parent_hash, name + base,
                                                               row->name_len - base)
                                          : toc->seed;
                sgz_map_prefetch(&toc->names, hashes[n]);
            }
            n++;
        }
        for (int k = 0; k < n && !status; k++) {
            const sgz_entry *row = &toc->rows[rows[k]];
            uint32_t previous;
            if (row->flags & SGZ_CLEAN_NAME)
                previous = put_row(toc, rows[k], hashes[k], sgz_toc_entry_name(toc, row),
                                   row->name_len);
            else
                status = sgz_toc_index(toc, rows[k], &previous, err);
            if (!status && previous != SGZ_NO_ROW && previous != rows[k])
                drop_row(toc, previous);
        }
    }
    return status;
}

uint32_t sgz_toc_resolve(const sgz_toc *toc, uint32_t row)
{
    if (row < toc->count && toc->rows[row].type == SGZ_HARDLINK)
        return (uint32_t)toc->rows[row].target;
    return row;
}

const char *sgz_toc_type_name(int type)
{
    static const char *const names[] = {
        "", "dir", "reg", "symlink", "hardlink", "char", "block", "fifo", "chunk", "chunk",
    };
    return type >= SGZ_DIR && type <= SGZ_ZEROS ? names[type] : "";
}
