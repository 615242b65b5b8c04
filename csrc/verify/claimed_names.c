#include "verify/claimed_names.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/vec.h"
#include "tar/stream.h"
#include "toc/rows.h"
#include "toc/hash.h"

#define NO_FILE SGZ_NO_ROW

/* A tar may hold more than its TOC shows, namely what it replaces itself. Past so much more
 * it is not read on: deflate makes gigabytes of headers out of a small blob. */
#define ROWS_PER_ROW 4
#define ROWS_FREE ((size_t)1 << 20)
#define ARENA_PER_BYTE 4
#define ARENA_FREE ((size_t)64 << 20)

enum { READING, ENDED, BROKEN };

struct sgz_verify_names {
    const sgz_codecs *codecs;
    const sgz_spans *spans;
    int nameless; /* containers/storage does not name owners */
    const sgz_toc *toc;
    sgz_verify_take_error report;
    void *arg;
    sgz_tar_stream tar;
    sgz_toc_rows *apply;
    sgz_toc *made;          /* the tree of the tar */
    uint32_t *files;        /* per row of `made`: the TOC's row whose chunks its payload is */
    size_t files_cap;
    int state;
    int64_t offset;         /* of the current segment in the blob */
    uint32_t row;           /* of the entry whose payload passes, or SGZ_NO_ROW */
    int64_t payload;        /* its bytes in all */
    uint32_t file;          /* TOC row whose chunks went by, NO_FILE: none so far */
    size_t next_span;
    int mixed;              /* the payload is not one file's chunks alone */
    sgz_notes notes;
    sgz_status fatal;
    sgz_error fatal_error;
};

/* --- life ----------------------------------------------------------------------------- */

sgz_verify_names *sgz_verify_names_new(const sgz_codecs *codecs, const sgz_spans *spans,
                                       sgz_verify_take_error report, void *arg)
{
    sgz_verify_names *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->codecs = codecs;
    t->spans = spans;
    t->toc = spans->toc;
    t->nameless = sgz_codec_points_frames(spans->points) && !spans->toc->string_count;
    t->report = report;
    t->arg = arg;
    t->row = SGZ_NO_ROW;
    t->tar.parser = sgz_tar_parser_new();
    t->made = sgz_toc_new();
    t->apply = t->made ? sgz_toc_rows_new(t->made) : NULL;
    if (!t->tar.parser || !t->apply) {
        sgz_verify_names_free(t);
        return NULL;
    }
    return t;
}

void sgz_verify_names_free(sgz_verify_names *t)
{
    if (!t)
        return;
    if (t->apply)
        sgz_toc_rows_free(t->apply);
    if (t->made)
        sgz_toc_free(t->made);
    sgz_tar_parser_free(t->tar.parser);
    free(t->files);
    free(t);
}

/* --- the tar, piece by piece ------------------------------------------------------------ */

/* An error of the tar: report it, or keep it if it is none of the content. */
static void fail(sgz_verify_names *t, sgz_status st, sgz_error *err)
{
    t->state = BROKEN;
    if (st == SGZ_ETAR || st == SGZ_ENOTOC || st == SGZ_ETOC || st == SGZ_EDATA
        || st == SGZ_EUNSAFE) {
        err->code = SGZ_ETAR;
        err->offset = t->offset;
        t->report(t->arg, err);
    } else if (!t->fatal) {
        t->fatal = st;
        t->fatal_error = *err;
    }
}

static int remember(sgz_verify_names *t, uint32_t row, uint32_t file)
{
    size_t had = t->files_cap;
    if (!SGZ_FIT(t->files, t->files_cap, (size_t)row + 1))
        return 0;
    for (; had < t->files_cap; had++)
        t->files[had] = NO_FILE;
    t->files[row] = file;
    return 1;
}

static void payload_done(sgz_verify_names *t)
{
    /* Some, but not all chunks of a file: then it is not that file's payload. */
    if (t->file != NO_FILE && !t->mixed && t->next_span < t->spans->count &&
        t->spans->files[t->next_span] == t->file)
        t->mixed = 1;
    if (!remember(t, t->row, t->mixed ? NO_FILE : t->file)) {
        sgz_error err;
        fail(t, sgz_base_fail(&err, SGZ_ENOMEM, -1, NULL, 0, "no memory to verify with"), &err);
    }
}

static int is_far_larger(const sgz_toc *made, const sgz_toc *toc)
{
    return made->count > ROWS_PER_ROW * toc->count + ROWS_FREE ||
           made->arena_len > ARENA_PER_BYTE * toc->arena_len + ARENA_FREE;
}

static void on_entry(sgz_verify_names *t, const sgz_tar_entry *entry)
{
    sgz_error err;
    sgz_status st = sgz_toc_rows_entry(t->apply, entry, t->tar.start, &t->row, &err);
    if (!st && is_far_larger(t->made, t->toc))
        st = sgz_base_fail(&err, SGZ_ETAR, -1, entry->name, entry->name_len,
                           "the entries of the tar to here are far more than the TOC's; the "
                           "rest is not read");
    if (st)
        fail(t, st, &err);
    if (entry->rewrite)
        sgz_base_note(&t->notes, entry->notes, entry->name, entry->name_len);
    t->payload = entry->payload;
    t->file = NO_FILE;
    t->mixed = 0;
}

void sgz_verify_names_gap(sgz_verify_names *t, const uint8_t *data, size_t len, int64_t offset)
{
    t->offset = offset;
    for (size_t used; len && t->state == READING; data += used, len -= used) {
        sgz_tar_event event;
        sgz_tar_entry entry;
        sgz_error err;
        sgz_status st = sgz_tar_stream_take(&t->tar, data, len, &used, &event, &entry, &err);
        if (st) {
            fail(t, st, &err);
        } else if (event == SGZ_TAR_ENTRY) {
            on_entry(t, &entry);
        } else if (event == SGZ_TAR_END) {
            t->state = ENDED;
        } else if (event == SGZ_TAR_DATA) {
            /* Bytes that no chunk names: the contents of a file replaced later. */
            t->mixed = 1;
            if (!t->tar.data)
                payload_done(t);
        }
    }
}

void sgz_verify_names_span(sgz_verify_names *t, size_t span)
{
    if (t->state == BROKEN)
        return;
    const sgz_entry *e = &t->toc->rows[t->spans->rows[span]];
    uint32_t file = t->spans->files[span];
    if (!t->tar.data || e->chunk_size > t->tar.data) {
        const sgz_entry *owner = &t->toc->rows[file];
        sgz_error err;
        sgz_base_fail(&err, SGZ_ETOC, e->offset, t->toc->arena + owner->name_off,
                      owner->name_len,
                      t->tar.data
                          ? "a chunk reaches beyond the contents of the entry in the tar"
                          : "a chunk stands where the tar has no file contents");
        t->state = BROKEN;
        t->report(t->arg, &err);
        return;
    }
    if (t->tar.data == t->payload)
        t->file = file;
    if (t->file != file || e->chunk_offset != t->payload - t->tar.data)
        t->mixed = 1;
    t->next_span = span + 1;
    sgz_tar_stream_pass(&t->tar, e->chunk_size);
    if (!t->tar.data)
        payload_done(t);
}

const sgz_notes *sgz_verify_names_notes(const sgz_verify_names *t)
{
    return &t->notes;
}

void sgz_verify_names_break(sgz_verify_names *t)
{
    t->state = BROKEN;
}

/* --- comparison ------------------------------------------------------------------------- */

__attribute__((format(printf, 4, 5))) static void
differ(sgz_verify_names *t, const sgz_toc *toc, const sgz_entry *e, const char *format, ...)
{
    sgz_error err;
    char text[sizeof err.message];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    sgz_base_fail(&err, SGZ_ETOC, e->chunk_size > 0 && toc == t->toc ? e->offset : -1,
                  toc->arena + e->name_off, e->name_len, "%s", text);
    t->report(t->arg, &err);
}

static int same_bytes(const char *a, size_t a_len, const char *b, size_t b_len)
{
    return a_len == b_len && (!a_len || !memcmp(a, b, a_len));
}

/* The last name seen for an id (format section 2, userName): remember it, or give the one
 * remembered when `name` is 0. 0: no memory. */
static int back_fill(sgz_toc_id_map *owners, uint32_t id, uint32_t *name)
{
    if (*name)
        return sgz_toc_id_map_put(owners, id, *name);
    *name = sgz_toc_id_map_get(owners, id);
    return 1;
}

static int same_name(const sgz_verify_names *t, uint32_t toc_name, uint32_t made_name)
{
    size_t a_len = 0, b_len = 0;
    const char *a = toc_name ? sgz_toc_string(t->toc, toc_name, &a_len) : NULL;
    const char *b = made_name ? sgz_toc_string(t->made, made_name, &b_len) : NULL;
    if (t->nameless)
        return 1;
    return same_bytes(a, a_len, b, b_len);
}

static int compare_xattrs(const void *a, const void *b)
{
    const sgz_xattr *x = a, *y = b;
    return sgz_compare(x->key, x->key_len, y->key, y->key_len);
}

/* Whether xattrs of the TOC are the tar's under the names that stand there: Go's programs leave
 * them escaped. */
static int same_unescaped(const char *toc, size_t toc_len, const char *made, size_t made_len)
{
    if (!toc_len || !memchr(toc, '%', toc_len))
        return 0;
    char *copy = malloc(toc_len);
    sgz_xattr *list = NULL, x;
    size_t count = 0, cap = 0;
    int same = copy != NULL;
    if (copy)
        memcpy(copy, toc, toc_len);
    for (const char *at = copy, *end = copy + toc_len; same && sgz_xattrs_next(&at, end, &x);) {
        x.key_len = (uint32_t)sgz_tar_unescape(copy + (x.key - copy), x.key_len);
        if (!SGZ_PUSH(list, count, cap, x))
            same = 0;
    }
    if (same && count)
        qsort(list, count, sizeof *list, compare_xattrs);
    const char *end = made + made_len;
    for (size_t i = 0; same && i < count; i++)
        same = sgz_xattrs_next(&made, end, &x) && !compare_xattrs(&x, &list[i])
            && same_bytes(x.value, x.value_len, list[i].value, list[i].value_len);
    free(copy);
    free(list);
    return same && made == end;
}

/* One entry of the TOC against the same name's in the tar; reports the first difference. */
static void compare(sgz_verify_names *t, const uint32_t *by_row, uint32_t row, uint32_t uname,
                    uint32_t gname)
{
    uint32_t made_row = by_row[row];
    const sgz_entry *a = &t->toc->rows[row], *b = &t->made->rows[made_row];
    const char *a_text = t->toc->arena, *b_text = t->made->arena;
    if (a->type != b->type) {
        differ(t, t->toc, a, "its type is %s in the TOC, %s in the tar",
               sgz_toc_type_name(a->type), sgz_toc_type_name(b->type));
        return;
    }
    if (a->size != b->size)
        differ(t, t->toc, a, "its size is %lld in the TOC, %lld in the tar",
               (long long)a->size, (long long)b->size);
    else if ((a->mode ^ b->mode) & 07777)
        differ(t, t->toc, a, "its mode is %04o in the TOC, %04o in the tar", a->mode & 07777,
               b->mode & 07777);
    else if (a->uid != b->uid || a->gid != b->gid)
        differ(t, t->toc, a, "its owner is %u:%u in the TOC, %u:%u in the tar", a->uid, a->gid,
               b->uid, b->gid);
    else if (!same_name(t, a->uname, uname))
        differ(t, t->toc, a, "its user name is not the tar's");
    else if (!same_name(t, a->gname, gname))
        differ(t, t->toc, a, "its group name is not the tar's");
    /* The reference leaves out all times of the epoch's first second, of which some round to 1. */
    else if (a->mtime != (b->mtime == SGZ_NO_TIME ? 0 : b->mtime) && (a->mtime || b->mtime != 1))
        differ(t, t->toc, a, "its modification time is %lld in the TOC, %lld in the tar",
               (long long)a->mtime, (long long)b->mtime);
    else if (a->dev_major != b->dev_major || a->dev_minor != b->dev_minor)
        differ(t, t->toc, a, "its device is %u:%u in the TOC, %u:%u in the tar", a->dev_major,
               a->dev_minor, b->dev_major, b->dev_minor);
    else if (!same_bytes(a_text + a->xattr_off, a->xattr_len, b_text + b->xattr_off,
                         b->xattr_len)
             && !same_unescaped(a_text + a->xattr_off, a->xattr_len, b_text + b->xattr_off,
                                b->xattr_len))
        differ(t, t->toc, a, "its extended attributes are not the tar's");
    else if (a->type == SGZ_REG && a->size && t->files[made_row] != row)
        differ(t, t->toc, a, "its data in the tar is not where the TOC says");
    else if (a->type == SGZ_SYMLINK &&
             !same_bytes(a_text + a->link_off, a->link_len, b_text + b->link_off, b->link_len))
        differ(t, t->toc, a, "its link target is not the tar's");
    /* A hard link may name its file by any of the file's names. */
    else if (a->type == SGZ_HARDLINK &&
             by_row[sgz_toc_resolve(t->toc, row)] != (uint32_t)b->target)
        differ(t, t->toc, a, "it is a hard link to another file than in the tar");
}

static sgz_status compare_all(sgz_verify_names *t, sgz_error *err)
{
    size_t rows = t->made->count;
    uint32_t *by_row = malloc((t->toc->count + 1) * sizeof *by_row);
    sgz_toc_id_map users = {.seed = t->made->seed}, groups = {.seed = t->made->seed};
    sgz_status st = SGZ_OK;
    if (!by_row || !remember(t, (uint32_t)rows, NO_FILE))
        goto no_memory;
    for (size_t i = 0; i < t->toc->count; i++)
        by_row[i] = SGZ_NO_ROW;
    /* The tar's entries by the TOC's rows. */
    for (uint32_t i = 0; i < rows; i++) {
        const sgz_entry *b = &t->made->rows[i];
        if (sgz_toc_is_piece(b) || b->flags & SGZ_DROPPED)
            continue;
        const char *name = t->made->arena + b->name_off;
        uint32_t row = sgz_toc_lookup(t->toc, name, b->name_len);
        if (row != SGZ_NO_ROW)
            by_row[row] = i;
        else if (!same_bytes(name, b->name_len, SGZ_TOC_NAME, sizeof SGZ_TOC_NAME - 1))
            differ(t, t->made, b, "it is in the tar but not in the TOC");
    }
    for (uint32_t i = 0; i < t->toc->count; i++) {
        const sgz_entry *a = &t->toc->rows[i];
        if (sgz_toc_is_piece(a) || a->flags & SGZ_DROPPED)
            continue;
        if (by_row[i] == SGZ_NO_ROW) {
            differ(t, t->toc, a, "it is in the TOC but not in the tar");
            continue;
        }
        const sgz_entry *b = &t->made->rows[by_row[i]];
        uint32_t uname = b->uname, gname = b->gname;
        if (!back_fill(&users, b->uid, &uname) || !back_fill(&groups, b->gid, &gname))
            goto no_memory;
        compare(t, by_row, i, uname, gname);
    }
    goto done;
no_memory:
    st = sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to verify with");
done:
    free(by_row);
    sgz_toc_id_map_free(&users);
    sgz_toc_id_map_free(&groups);
    return st;
}

/* Format section 4: one of the two landmarks at most, one byte 0x0f; the one that says
 * "nothing to prefetch" comes first. */
static sgz_status check_landmarks(sgz_verify_names *t, sgz_error *err)
{
    static const char *const names[] = {SGZ_LANDMARK, SGZ_NO_LANDMARK};
    uint8_t digest[32];
    sgz_sha256 sha;
    sgz_status st = sgz_codec_sha256_new(t->codecs, &sha, err);
    if (st)
        return st;
    sgz_codec_sha256_init(t->codecs, &sha);
    sgz_codec_sha256_update(t->codecs, &sha, "\x0f", 1);
    sgz_codec_sha256_final(t->codecs, &sha, digest);
    sgz_codec_sha256_free(t->codecs, &sha);
    int found = 0;
    for (int i = 0; i < 2; i++) {
        uint32_t row = sgz_toc_lookup(t->toc, names[i], strlen(names[i]));
        if (row == SGZ_NO_ROW)
            continue;
        const sgz_entry *e = &t->toc->rows[row];
        if (e->type != SGZ_REG || e->size != 1 ||
            (e->flags & SGZ_HAS_CHUNK_DIGEST && memcmp(e->chunk_digest, digest, 32)))
            differ(t, t->toc, e, "a landmark is a file of the one byte 0x0f");
        else if (found++)
            differ(t, t->toc, e, "a layer has one of the two landmarks, not both");
        else if (i == 1 && row != 0)
            differ(t, t->toc, e, "this landmark is the first entry of a layer");
    }
    return SGZ_OK;
}

sgz_status sgz_verify_names_finish(sgz_verify_names *t, int followed, sgz_error *err)
{
    if (t->fatal) {
        if (err)
            *err = t->fatal_error;
        return t->fatal;
    }
    sgz_status st = check_landmarks(t, err);
    if (st || t->state == BROKEN)
        return st;
    if (t->tar.data || (followed && t->tar.padding) || t->tar.block_len ||
        !sgz_tar_idle(t->tar.parser)) {
        sgz_error bad;
        fail(t, sgz_base_fail(&bad, SGZ_ETAR, -1, NULL, 0, "the tar ends within an entry"),
             &bad);
        return SGZ_OK;
    }
    sgz_notes notes = {0};
    sgz_error bad;
    st = sgz_toc_rows_finish(t->apply, &notes, &bad);
    if (st) {
        fail(t, st, &bad);
        if (t->fatal && err)
            *err = t->fatal_error;
        return t->fatal;
    }
    return compare_all(t, err);
}
