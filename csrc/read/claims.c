#include "read/claims.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/vec.h"
#include "tar/tar.h"

/* Values of a state; below them, how many times fetched bytes did not agree. */
enum { TRIES = 4, WRONG = 254, RIGHT = 255 };

/* How many errors are kept in full. */
#define ERRORS 64
/* How many bytes of global headers are taken in, and at how many places they are looked for: each
 * has to be decoded. */
#define GLOBALS_MAX ((int64_t)2 << 20)
#define PLACES_MAX 64

typedef struct {
    uint32_t file;
    sgz_error *err;
} wrong;

/* Where in the tar global headers stand, and where they end in `globals`. */
typedef struct {
    int64_t at;
    size_t end;
} place;

struct sgz_read_claims {
    const sgz_toc *toc;
    _Atomic uint8_t *states; /* by row */
    pthread_mutex_t lock;    /* of what follows */
    sgz_tar_parser *parser;  /* has read this much of the global headers, and entries' */
    size_t parsed;
    uint8_t *globals;
    size_t globals_len;
    place *places;
    size_t places_count, places_cap;
    char *scratch;           /* cleaned names */
    size_t scratch_cap;
    wrong *errors;
    size_t count, cap;
};

sgz_read_claims *sgz_read_claims_new(const sgz_toc *toc)
{
    sgz_read_claims *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->toc = toc;
    c->states = calloc(toc->count + 1, sizeof *c->states);
    pthread_mutex_init(&c->lock, NULL);
    if (!c->states) {
        sgz_read_claims_free(c);
        return NULL;
    }
    return c;
}

void sgz_read_claims_free(sgz_read_claims *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->count; i++)
        free(c->errors[i].err);
    free(c->errors);
    free(c->globals);
    free(c->places);
    free(c->scratch);
    sgz_tar_parser_free(c->parser);
    free(c->states);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to check the index with");
}

static sgz_status differ(int64_t value, int64_t other, const char *what, sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ETOC, -1, NULL, 0,
                         "its %s is %lld in the index and %lld in the tar: the index does not fit",
                         what, (long long)value, (long long)other);
}

static sgz_status unlike(const char *what, sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ETOC, -1, NULL, 0, "%s: the index does not fit", what);
}

/* --- the header -------------------------------------------------------------------------- */

/* Whether the way to a cleaned name leads through a symlink of the layer, or did when the file was
 * read: through what the file, or something later, has taken the place of. */
static int below_symlink(const sgz_toc *toc, uint32_t file, const char *name, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        uint32_t row = name[i] == '/' ? sgz_toc_lookup(toc, name, i) : SGZ_NO_ROW;
        if (row != SGZ_NO_ROW &&
            (row >= file || toc->rows[sgz_toc_resolve(toc, row)].type == SGZ_SYMLINK))
            return 1;
    }
    return 0;
}

/* Whether a file of this cleaned name in the tar can have the name of the row (toc/rows.h): it is
 * that name; or leads there by a symlink; or is another entry's by now, and the file has that of a
 * hard link to it. */
static int can_be(const sgz_toc *toc, uint32_t file, const char *name, size_t len)
{
    const sgz_entry *row = &toc->rows[file];
    uint32_t there = sgz_toc_lookup(toc, name, len);
    return !sgz_compare(sgz_toc_row_name(toc, file), row->name_len, name, len) ||
           (there != SGZ_NO_ROW && there > file) || below_symlink(toc, file, name, len);
}

/* The file has the name in the tar that the index says. An index that was read has cleaned names,
 * where the tar has "./bin" or "bin/". */
static sgz_status check_name(sgz_read_claims *c, uint32_t file, const sgz_tar_entry *entry,
                             sgz_error *err)
{
    const sgz_toc_origin *origin = &c->toc->origins[file];
    size_t len, claimed_len;
    if (!SGZ_FIT(c->scratch, c->scratch_cap, entry->name_len + origin->name_len + 1))
        return no_memory(err);
    const char *name = sgz_toc_clean_name(entry->name, entry->name_len, c->scratch, &len);
    const char *claimed = sgz_toc_clean_name(c->toc->arena + origin->name, origin->name_len,
                                             c->scratch + entry->name_len, &claimed_len);
    if (!sgz_compare(claimed, claimed_len, name, len) && can_be(c->toc, file, name, len))
        return SGZ_OK;
    return sgz_base_fail(err, SGZ_ETOC, -1, NULL, 0,
                         "the file that it is in the index has the name '%.*s' in the tar: the "
                         "index does not fit",
                         entry->name_len > 120 ? 120 : (int)entry->name_len, entry->name);
}

static int same_xattrs(const sgz_toc *toc, const sgz_entry *row, const sgz_tar_entry *entry)
{
    const char *at = toc->arena + row->xattr_off, *end = at + row->xattr_len;
    sgz_xattr x;
    size_t i = 0;
    for (; sgz_xattrs_next(&at, end, &x); i++) {
        if (i == entry->xattr_count)
            return 0;
        const sgz_xattr *y = &entry->xattrs[i];
        if (sgz_compare(x.key, x.key_len, y->key, y->key_len) ||
            sgz_compare(x.value, x.value_len, y->value, y->value_len))
            return 0;
    }
    return i == entry->xattr_count;
}

/* Whether the pieces of a file that have data are just those of the tar's map. */
static int same_holes(const sgz_toc *toc, uint32_t file, const sgz_tar_entry *entry)
{
    sgz_tar_run all = {0, entry->size};
    const sgz_tar_run *run = entry->type == 'S' ? entry->sparse : &all;
    const sgz_tar_run *last = run + (entry->type == 'S' ? entry->sparse_count : 1);
    int64_t used = 0; /* of the run */
    uint32_t row = file;
    do {
        const sgz_entry *e = &toc->rows[row];
        int64_t at = e->chunk_offset, left = sgz_toc_has_data(e) ? e->chunk_size : 0;
        while (left) {
            for (; run < last && used == run->len; run++)
                used = 0;
            if (run == last || at != run->offset + used)
                return 0;
            int64_t n = left < run->len - used ? left : run->len - used;
            used += n;
            at += n;
            left -= n;
        }
    } while (++row < toc->count && sgz_toc_is_piece(&toc->rows[row]));
    for (; run < last && used == run->len; run++)
        used = 0;
    return run == last;
}

static sgz_status compare(sgz_read_claims *c, uint32_t file, const sgz_tar_entry *entry,
                          sgz_error *err)
{
    const sgz_toc *toc = c->toc;
    const sgz_toc_origin *origin = &c->toc->origins[file];
    const sgz_entry *row = &toc->rows[file];
    int timed = sgz_tar_time_fits(entry->mtime) && entry->mtime != SGZ_NO_TIME;
    int64_t mtime = timed ? entry->mtime : 0;
    if (entry->type != '0' && entry->type != 'S')
        return unlike("it is a file in the index and none in the tar", err);
    sgz_status st = check_name(c, file, entry, err);
    if (st)
        return st;
    if (row->size != entry->size)
        return differ(row->size, entry->size, "size", err);
    if ((row->mode ^ entry->mode) & 07777)
        return sgz_base_fail(err, SGZ_ETOC, -1, NULL, 0,
                             "its mode is %04o in the index and %04o in the tar: the index does "
                             "not fit", row->mode & 07777, entry->mode & 07777);
    if (row->uid != entry->uid)
        return differ(row->uid, entry->uid, "uid", err);
    if (row->gid != entry->gid)
        return differ(row->gid, entry->gid, "gid", err);
    if (row->mtime != mtime)
        return differ(row->mtime, mtime, "modification time", err);
    if (timed && origin->ns != entry->mtime_nsec)
        return differ(origin->ns, entry->mtime_nsec, "fraction of a second", err);
    if (!same_xattrs(toc, row, entry))
        return unlike("its extended attributes are not those in the tar", err);
    if (!same_holes(toc, file, entry))
        return unlike("its holes are not those in the tar", err);
    return SGZ_OK;
}

/* A parser that has read as many of the global headers as there are in [0, len). *used is where
 * they end; NULL: no memory. */
static sgz_tar_parser *new_parser(const uint8_t *globals, size_t len, size_t *used)
{
    sgz_tar_parser *parser = sgz_tar_parser_new();
    if (parser)
        sgz_tar_read_in_place(parser);
    sgz_tar_event event = SGZ_TAR_MORE;
    sgz_tar_entry entry;
    sgz_error err;
    *used = 0;
    for (size_t at = 0; parser && at + SGZ_TAR_BLOCK <= len; at += SGZ_TAR_BLOCK) {
        if (sgz_tar_feed(parser, globals + at, (int64_t)at, &event, &entry, &err) ||
            (event != SGZ_TAR_MORE && event != SGZ_TAR_GLOBAL))
            break;
        if (event == SGZ_TAR_GLOBAL)
            *used = at + SGZ_TAR_BLOCK;
    }
    return parser;
}

/* Where the headers of a row's entry begin. */
static int64_t begin_of(const sgz_read_claims *c, uint32_t row)
{
    return c->toc->origins[row].content - c->toc->origins[row].header;
}

/* A parser that has read the global headers that stand before a file: for those that come in the
 * order of the tar it is mostly the same. With the lock held. */
static sgz_status parser_for(sgz_read_claims *c, uint32_t file, sgz_error *err)
{
    size_t before = 0, used;
    for (size_t i = 0; i < c->places_count && c->places[i].at < begin_of(c, file); i++)
        before = c->places[i].end;
    if (c->parser && c->parsed == before)
        return SGZ_OK;
    sgz_tar_parser_free(c->parser);
    c->parser = new_parser(c->globals, before, &used);
    c->parsed = before;
    return c->parser ? SGZ_OK : no_memory(err);
}

/* Exactly one entry, its PAX and GNU prefixes included, and nothing else. With the lock held. */
static sgz_status parse(sgz_read_claims *c, uint32_t file, const uint8_t *header, sgz_error *err)
{
    uint32_t len = c->toc->origins[file].header;
    sgz_tar_event event = SGZ_TAR_MORE;
    sgz_tar_entry entry;
    sgz_status st = parser_for(c, file, err);
    if (st)
        return st;
    for (uint32_t at = 0; at < len && !st && event == SGZ_TAR_MORE; at += SGZ_TAR_BLOCK) {
        st = sgz_tar_feed(c->parser, header + at, at, &event, &entry, err);
        if (event == SGZ_TAR_ENTRY && at + SGZ_TAR_BLOCK < len)
            event = SGZ_TAR_DATA; /* it ends too early */
    }
    if (!st && event == SGZ_TAR_ENTRY)
        return compare(c, file, &entry, err);
    sgz_tar_parser_free(c->parser); /* it is somewhere else now */
    c->parser = NULL;
    return st == SGZ_ENOMEM ? st : unlike("no tar header of it stands where the index says", err);
}

sgz_status sgz_read_claims_decode(sgz_decoder *d, int64_t at, int64_t end, uint8_t *out,
                                  sgz_error *err)
{
    const sgz_points *points = d->points;
    sgz_status st = SGZ_OK;
    while (at < end && !st) {
        int64_t offset = at, out_at = at, blob_end = end, out_end = end, got;
        size_t n = 0;
        if (points->count) {
            size_t i = sgz_codec_points_before(points, at);
            offset = points->at[i].offset;
            out_at = points->at[i].out;
            blob_end = sgz_codec_points_end(points, i);
            if (i + 1 < points->count && points->at[i + 1].out < end)
                out_end = points->at[i + 1].out;
        }
        st = sgz_codec_decoder_enter(d, offset, blob_end, err);
        if (!st)
            st = sgz_codec_decoder_skip(d, at - out_at, &got, err);
        if (!st)
            st = sgz_codec_decoder_read(d, out, (size_t)(out_end - at), &n, err);
        if (st != SGZ_ECANCELLED && (int64_t)n == out_end - at)
            st = SGZ_OK; /* what follows on them may be broken */
        else if (!st)
            st = sgz_base_fail(err, SGZ_EDATA, offset, NULL, 0,
                               "the data ends before byte %lld of the tar", (long long)out_end);
        out += n;
        at = out_end;
    }
    return st;
}

/* Whether a row is a file that is nothing but zeros: none of its chunks brings its headers. */
static int is_hole(const sgz_toc *toc, uint32_t row)
{
    if (toc->rows[row].type != SGZ_REG || !toc->rows[row].size)
        return 0;
    do {
        if (sgz_toc_has_data(&toc->rows[row]))
            return 0;
    } while (++row < toc->count && sgz_toc_is_piece(&toc->rows[row]));
    return 1;
}

/* Where a decoder stands that goes through the tar from front to back. */
typedef struct {
    sgz_decoder *d;
    size_t point; /* that it entered, or SGZ_NO_POINT */
    int64_t at;   /* in the tar */
} walker;

/* Decode [from, end), without decoding what is before it twice. */
static sgz_status walk(walker *w, int64_t from, int64_t end, uint8_t *out, sgz_error *err)
{
    const sgz_points *points = w->d->points;
    size_t last = points->count ? sgz_codec_points_before(points, end - 1) : SGZ_NO_POINT;
    if (last == SGZ_NO_POINT || last != w->point || from < w->at) {
        w->point = last;
        w->at = end;
        return sgz_read_claims_decode(w->d, from, end, out, err);
    }
    int64_t got;
    size_t n = 0;
    sgz_status st = sgz_codec_decoder_skip(w->d, from - w->at, &got, err);
    if (!st)
        st = sgz_codec_decoder_read(w->d, out, (size_t)(end - from), &n, err);
    w->at = end;
    if (st || n == (size_t)(end - from))
        return st;
    return sgz_base_fail(err, SGZ_EDATA, -1, NULL, 0, "the data ends before byte %lld of the tar",
                         (long long)end);
}

/* Take in the global headers that bytes [at, end) of the tar begin with, which are no entry's. */
static sgz_status read_globals(sgz_read_claims *c, walker *w, int64_t at, int64_t end,
                               sgz_error *err)
{
    int64_t left = GLOBALS_MAX - (int64_t)c->globals_len;
    size_t len = (size_t)(end - at < left ? end - at : left), used;
    uint8_t *globals = realloc(c->globals, c->globals_len + len + 1);
    if (!globals)
        return no_memory(err);
    c->globals = globals;
    sgz_status st = walk(w, at, at + (int64_t)len, globals + c->globals_len, err);
    if (st)
        return st;
    sgz_tar_parser_free(new_parser(globals + c->globals_len, len, &used));
    place found = {at, c->globals_len += used};
    return !used || SGZ_PUSH(c->places, c->places_count, c->places_cap, found) ? SGZ_OK
                                                                               : no_memory(err);
}

/* They stand where nothing does that the rows tell of. */
static sgz_status find_globals(sgz_read_claims *c, sgz_decoder *d, sgz_error *err)
{
    const sgz_toc *toc = c->toc;
    walker w = {d, SGZ_NO_POINT, 0};
    int64_t end = 0; /* of what the rows before tell of */
    sgz_status st = SGZ_OK;
    for (uint32_t i = 0, places = 0; i < toc->count && !st && places < PLACES_MAX;) {
        int64_t begin = begin_of(c, i), content = toc->origins[i].content, payload = 0;
        if (begin - end > SGZ_TAR_BLOCK && ++places)
            st = read_globals(c, &w, end, begin, err);
        do
            payload += sgz_toc_has_data(&toc->rows[i]) ? toc->rows[i].chunk_size : 0;
        while (++i < toc->count && sgz_toc_is_piece(&toc->rows[i]));
        payload += -payload & (SGZ_TAR_BLOCK - 1);
        end = content + payload > end ? content + payload : end;
    }
    return st;
}

/* The files that are holes have to be so in the tar. */
static sgz_status check_holes(sgz_read_claims *c, sgz_decoder *d, sgz_error *err)
{
    walker w = {d, SGZ_NO_POINT, 0};
    uint8_t *header = NULL;
    size_t cap = 0;
    sgz_status st = SGZ_OK;
    for (uint32_t i = 0; i < c->toc->count && !st; i++) {
        const sgz_toc_origin *origin = &c->toc->origins[i];
        if (!is_hole(c->toc, i))
            continue;
        if (!SGZ_FIT(header, cap, origin->header))
            st = no_memory(err);
        else
            st = walk(&w, origin->content - origin->header, origin->content, header, err);
        if (!st)
            st = parse(c, i, header, err);
        if (st && st != SGZ_ECALLBACK)
            sgz_base_name(err, sgz_toc_row_name(c->toc, i), c->toc->rows[i].name_len);
    }
    free(header);
    return st;
}

sgz_status sgz_read_claims_begin(sgz_read_claims *c, const sgz_codecs *codecs,
                                 const sgz_blob *blob, const sgz_points *points, sgz_error *err)
{
    sgz_decoder d;
    sgz_status st = sgz_codec_decoder_init(&d, codecs, blob, points, err);
    if (st)
        return st;
    st = find_globals(c, &d, err);
    if (!st)
        st = check_holes(c, &d, err);
    sgz_codec_decoder_free(&d);
    return st;
}

/* --- what was found ---------------------------------------------------------------------- */

/* It did not agree. With the lock held. What was right once stays so: other bytes came meanwhile. */
static void disagreed(sgz_read_claims *c, uint32_t file, int fetched, const sgz_error *err)
{
    uint8_t state = atomic_load(&c->states[file]);
    if (state < TRIES && fetched && ++state < TRIES) {
        atomic_store(&c->states[file], state);
    } else if (state <= TRIES) {
        wrong w = {file, c->count < ERRORS ? malloc(sizeof *w.err) : NULL};
        if (w.err) {
            *w.err = *err;
            if (!SGZ_PUSH(c->errors, c->count, c->cap, w))
                free(w.err);
        }
        atomic_store(&c->states[file], WRONG);
    }
}

sgz_status sgz_read_claims_check(sgz_read_claims *c, uint32_t file, const uint8_t *header,
                                 int fetched, sgz_error *err)
{
    pthread_mutex_lock(&c->lock);
    sgz_status st = parse(c, file, header, err);
    if (st == SGZ_ETOC)
        disagreed(c, file, fetched, err);
    else if (!st)
        atomic_store(&c->states[file], RIGHT);
    pthread_mutex_unlock(&c->lock);
    return st;
}

int sgz_read_claims_right(const sgz_read_claims *c, uint32_t file)
{
    return atomic_load_explicit(&c->states[file], memory_order_acquire) == RIGHT;
}

sgz_status sgz_read_claims_wrong(sgz_read_claims *c, uint32_t file, sgz_error *err)
{
    if (atomic_load_explicit(&c->states[file], memory_order_acquire) != WRONG)
        return SGZ_OK;
    unlike("what the index says of it is not what the tar has", err);
    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < c->count; i++)
        if (c->errors[i].file == file)
            *err = *c->errors[i].err;
    pthread_mutex_unlock(&c->lock);
    return SGZ_ETOC;
}

int64_t sgz_read_claims_place(const sgz_read_claims *c, uint32_t file, uint32_t *header)
{
    *header = c->toc->origins[file].header;
    return c->toc->origins[file].content;
}
