#include "verify/split.h"

#include "base/bytes.h"
#include "base/vec.h"
#include "codec/crc64.h"
#include "tar/stream.h"
#include "toc/kept.h"
#include "verify/entries.h"
#include "verify/lines.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* After an error in what puts the tar together, that is not read on; the headers are, all the
 * same. */
enum { READING, BROKEN };

struct sgz_verify_split {
    const sgz_spans *spans;
    sgz_verify_take_error report;
    void *arg;
    sgz_tar_stream tar;
    sgz_toc_kept kept;           /* no rows: room for xattrs */
    sgz_verify_entries *entries;
    int state, entries_state, lines_state;
    int64_t offset;              /* of the current segment in the blob */
    sgz_notes notes;

    /* The tar-split: the segment that goes by, of which `rest` is still to come. */
    sgz_verify_lines lines;
    uint64_t position;
    const uint8_t *segment;
    size_t rest;
    int header;                  /* it has one, which is not whole yet */
    int tail;                    /* what came last was of the archive's end */

    /* The entry whose contents go by. */
    char *name;
    size_t name_len, name_cap;
    uint32_t file;               /* its row, or SGZ_NO_ROW */
    int64_t payload;             /* bytes of it in all */
    int64_t end_offset;
    uint64_t crc, expected;      /* of its contents so far; what it should be */
    int summed;                  /* it is known what it should be */
    int misplaced;               /* not all of it is in its chunks: told */

    sgz_xattr *xattrs;           /* scratch */
    size_t xattr_cap;
    char *base64;
    size_t base64_cap;
    sgz_status fatal;
    sgz_error fatal_error;
};

/* --- life ------------------------------------------------------------------------------------ */

sgz_verify_split *sgz_verify_split_new(const sgz_spans *spans, sgz_verify_pull toc,
                                       sgz_verify_pull lines, sgz_verify_take_error report,
                                       void *arg)
{
    sgz_verify_split *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->spans = spans;
    s->report = report;
    s->arg = arg;
    s->lines.pull = lines;
    s->tar.parser = sgz_tar_parser_new();
    s->entries = sgz_verify_entries_new(toc);
    s->file = SGZ_NO_ROW;
    if (!s->tar.parser || !s->entries) {
        sgz_verify_split_free(s);
        return NULL;
    }
    sgz_tar_keep_records(s->tar.parser);
    return s;
}

void sgz_verify_split_free(sgz_verify_split *s)
{
    if (!s)
        return;
    sgz_tar_parser_free(s->tar.parser);
    sgz_verify_entries_free(s->entries);
    sgz_toc_kept_free(&s->kept);
    sgz_verify_lines_free(&s->lines);
    free(s->name);
    free(s->xattrs);
    free(s->base64);
    free(s);
}

const sgz_notes *sgz_verify_split_notes(const sgz_verify_split *s)
{
    return &s->notes;
}

void sgz_verify_split_break(sgz_verify_split *s)
{
    s->state = BROKEN;
}

/* --- errors ---------------------------------------------------------------------------------- */

/* One of the content is told; another ends all. */
static void fail(sgz_verify_split *s, int *state, sgz_status st, const sgz_error *err)
{
    *state = BROKEN;
    if (st == SGZ_ETAR || st == SGZ_ENOTOC || st == SGZ_ETOC || st == SGZ_EDATA) {
        s->report(s->arg, err);
    } else if (!s->fatal) {
        s->fatal = st;
        s->fatal_error = *err;
        s->state = BROKEN;
    }
}

static void no_memory(sgz_verify_split *s)
{
    sgz_error err;
    fail(s, &s->state,
         sgz_base_fail(&err, SGZ_ENOMEM, -1, NULL, 0, "no memory to verify with"), &err);
}

/* Of the tar-split, by the entry that goes by; it is not read on. */
__attribute__((format(printf, 2, 3))) static void split_fails(sgz_verify_split *s,
                                                               const char *format, ...)
{
    sgz_error err;
    char text[sizeof err.message - 32];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fail(s, &s->lines_state,
         sgz_base_fail(&err, SGZ_ETAR, s->lines.pull.offset, s->name, s->name_len,
                       "the tar-split: %s", text), &err);
}

__attribute__((format(printf, 2, 3))) static void differ(sgz_verify_split *s, const char *format,
                                                          ...)
{
    sgz_error err;
    char text[sizeof err.message];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    sgz_base_fail(&err, SGZ_ETOC, s->offset, s->name, s->name_len, "%s", text);
    s->report(s->arg, &err);
}

/* --- the tar-split --------------------------------------------------------------------------- */

static int is_zeros(const uint8_t *data, size_t len)
{
    return !len || (!data[0] && !memcmp(data, data + 1, len - 1));
}

/* The next line, of this type. */
static int next_line(sgz_verify_split *s, int type, sgz_verify_line *line)
{
    sgz_error err;
    int none;
    sgz_status st = sgz_verify_lines_next(&s->lines, line, &none, &err);
    if (st) {
        fail(s, &s->lines_state, st, &err);
        return 0;
    }
    if (none)
        split_fails(s, "it ends before the tar does");
    else if (line->position != (int64_t)s->position)
        split_fails(s, "a line has position %lld where %llu is next", (long long)line->position,
                    (unsigned long long)s->position);
    else if (line->type != type)
        split_fails(s, type == SGZ_LINE_FILE ? "a segment stands where a file is next"
                                             : "a file stands where the tar has other bytes");
    else {
        s->position++;
        return 1;
    }
    return 0;
}

/* What a segment has behind the padding of the file before it. Its reader takes that for a tar of its
 * own: of one header, or none. */
static int begin_segment(sgz_verify_split *s)
{
    sgz_verify_line line;
    if (s->header) {
        split_fails(s, "a header is in more than one segment");
        return 0;
    }
    if (!next_line(s, SGZ_LINE_SEGMENT, &line))
        return 0;
    s->segment = line.payload;
    s->rest = line.payload_len;
    if (!s->rest) {
        split_fails(s, "a segment is empty");
        return 0;
    }
    size_t padding = (size_t)s->tar.padding;
    if (padding > s->rest) {
        split_fails(s, "a segment does not have all of the padding that it begins with");
        return 0;
    }
    const uint8_t *data = s->segment + padding;
    size_t len = s->rest - padding;
    s->header = len && !is_zeros(data, len < SGZ_TAR_BLOCK ? len : SGZ_TAR_BLOCK);
    if (s->header ? !s->tail : !len || len == SGZ_TAR_BLOCK ||
                                   (len >= 2 * SGZ_TAR_BLOCK && is_zeros(data, 2 * SGZ_TAR_BLOCK))) {
        s->tail |= !s->header && len;
        return 1;
    }
    split_fails(s, s->header ? "a segment behind the archive's end does not begin with zeros"
                             : "a segment has zeros that do not end an archive");
    return 0;
}

/* Bytes of the tar that are no file's. */
static void match_segment(sgz_verify_split *s, const uint8_t *data, size_t len)
{
    for (size_t n; len && s->lines_state == READING; data += n, len -= n) {
        n = 0;
        if (!s->rest && !begin_segment(s))
            return;
        n = len < s->rest ? len : s->rest;
        if (memcmp(s->segment, data, n)) {
            split_fails(s, "its line %llu has other bytes than the tar",
                        (unsigned long long)s->position - 1);
            return;
        }
        s->segment += n;
        s->rest -= n;
    }
}

/* What a header has behind it. */
static void match_file(sgz_verify_split *s, const sgz_tar_entry *entry)
{
    sgz_verify_line line;
    s->summed = 0;
    if (s->lines_state != READING)
        return;
    s->header = 0;
    if (s->rest) {
        split_fails(s, "a segment goes on behind the header");
        return;
    }
    if (!next_line(s, SGZ_LINE_FILE, &line))
        return;
    if (line.name_len != entry->name_len || memcmp(line.name, entry->name, line.name_len)) {
        split_fails(s, "the file behind this header has another name");
    } else if (line.size != entry->payload) {
        split_fails(s, "its size is %lld, in the tar %lld", (long long)line.size,
                    (long long)entry->payload);
    } else if (line.size && line.payload_len != 8) {
        split_fails(s, "a file has no CRC-64");
    } else if (line.size) {
        s->expected = sgz_get_be64(line.payload);
        s->summed = 1;
    }
}

/* --- the TOC --------------------------------------------------------------------------------- */

/* To Go the epoch and its own zero are no times. */
static int is_no_time(const sgz_tar_time *time)
{
    return !time->given || (!time->nanoseconds && (!time->seconds || time->seconds == SGZ_NO_TIME));
}

static int same_time(const sgz_tar_time *a, const sgz_tar_time *b)
{
    if (is_no_time(a) || is_no_time(b))
        return is_no_time(a) && is_no_time(b);
    return a->seconds == b->seconds && a->nanoseconds == b->nanoseconds;
}

static int by_key(const void *left, const void *right)
{
    const sgz_xattr *a = left, *b = right;
    return sgz_compare(a->key, a->key_len, b->key, b->key_len);
}

/* 1: the same, 0: not, -1: no memory. */
static int same_xattrs(sgz_verify_split *s, const sgz_verify_entry *entry, const sgz_xattr *made,
                       size_t made_count)
{
    const char *at = entry->xattrs;
    sgz_xattr x;
    size_t count = 0;
    while (sgz_xattrs_next(&at, entry->xattrs + entry->xattr_len, &x))
        if (!SGZ_PUSH(s->xattrs, count, s->xattr_cap, x))
            return -1;
    if (count != made_count)
        return 0;
    if (count)
        qsort(s->xattrs, count, sizeof *s->xattrs, by_key);
    for (size_t i = 0; i < count; i++) {
        size_t len = sgz_base64_len(made[i].value_len);
        if (by_key(&s->xattrs[i], &made[i]) || s->xattrs[i].value_len != len)
            return 0;
        if (!SGZ_FIT(s->base64, s->base64_cap, len + 4))
            return -1;
        sgz_put_base64(s->base64, (const uint8_t *)made[i].value, made[i].value_len);
        if (memcmp(s->base64, s->xattrs[i].value, len))
            return 0;
    }
    return 1;
}

static int same_text(const char *a, size_t a_len, const char *b, size_t b_len)
{
    return a_len == b_len && (!a_len || !memcmp(a, b, a_len));
}

/* The fields that the reader of containers/storage compares, what it needs besides, and names of owners
 * where there are any. Reports the first that differs. */
static void compare(sgz_verify_split *s, const sgz_tar_entry *tar, const sgz_tar_stated *stated,
                    int type, const sgz_verify_entry *entry)
{
    size_t xattrs = 0;
    sgz_error err;
    sgz_status st = sgz_toc_kept_xattrs(&s->kept, tar, s->tar.start, &xattrs, &err);
    if (st) {
        fail(s, &s->entries_state, st, &err);
        return;
    }
    int same = same_xattrs(s, entry, s->kept.xattrs, xattrs);
    if (same < 0)
        no_memory(s);
    else if (entry->type != type)
        differ(s, "its type is %s in the TOC, %s in the tar", sgz_toc_type_name(entry->type),
               sgz_toc_type_name(type));
    else if (!same_text(entry->link, entry->link_len, tar->link, tar->link_len))
        differ(s, "its link is not the tar's");
    else if (entry->mode != stated->mode)
        differ(s, "its mode is %llo in the TOC, %llo in the tar",
               (unsigned long long)entry->mode, (unsigned long long)stated->mode);
    else if (entry->size != stated->size)
        differ(s, "its size is %lld in the TOC, %lld in the tar", (long long)entry->size,
               (long long)stated->size);
    else if (entry->uid != tar->uid || entry->gid != tar->gid)
        differ(s, "its owner is %lld:%lld in the TOC, %u:%u in the tar", (long long)entry->uid,
               (long long)entry->gid, tar->uid, tar->gid);
    else if (entry->bad_time)
        differ(s, "one of its times in the TOC is no time");
    else if (!same_time(&entry->mtime, &stated->mtime))
        differ(s, "its modification time is not the tar's");
    else if (!same_time(&entry->atime, &stated->atime))
        differ(s, "its access time is not the tar's");
    else if (!same_time(&entry->ctime, &stated->ctime))
        differ(s, "its change time is not the tar's");
    else if (entry->dev_major != stated->dev_major || entry->dev_minor != stated->dev_minor)
        differ(s, "its device is %lld:%lld in the TOC, %lld:%lld in the tar",
               (long long)entry->dev_major, (long long)entry->dev_minor,
               (long long)stated->dev_major, (long long)stated->dev_minor);
    else if (!same)
        differ(s, "its extended attributes are not the tar's");
    else if ((entry->uname_len &&
              !same_text(entry->uname, entry->uname_len, tar->uname, tar->uname_len)) ||
             (entry->gname_len &&
              !same_text(entry->gname, entry->gname_len, tar->gname, tar->gname_len)))
        differ(s, "its user or group name is not the tar's");
    else if (s->payload && (s->file == SGZ_NO_ROW || !sgz_toc_digest(s->spans->toc, s->file)))
        differ(s, "it has no digest, without which containers/storage does not take it");
}

/* The entry of a header. */
static void match_entry(sgz_verify_split *s, const sgz_tar_entry *tar)
{
    sgz_tar_stated stated;
    sgz_verify_entry entry;
    uint8_t type;
    int none;
    sgz_error err;
    if (s->entries_state != READING)
        return;
    sgz_status st = sgz_verify_entries_take(s->entries, tar->name, tar->name_len, &entry, &none, &err);
    if (st) {
        fail(s, &s->entries_state, st, &err);
        return;
    }
    if (none) {
        differ(s, "it is in the tar, but not in the TOC by this name");
        return;
    }
    s->end_offset = entry.end_offset;
    st = sgz_toc_kept_header(tar, s->tar.start, &stated, &type, &err);
    if (st)
        differ(s, "containers/storage does not take it: %s", err.message);
    else
        compare(s, tar, &stated, type, &entry);
}

/* --- the tar, piece by piece ----------------------------------------------------------------- */

static void end_contents(sgz_verify_split *s)
{
    if (s->summed && s->lines_state == READING && s->crc != s->expected)
        split_fails(s, "its CRC-64 is %016llx, that of the contents %016llx",
                    (unsigned long long)s->expected, (unsigned long long)s->crc);
    s->summed = 0;
}

static void on_entry(sgz_verify_split *s, const sgz_tar_entry *entry)
{
    if (!SGZ_FIT(s->name, s->name_cap, entry->name_len + 1)) {
        no_memory(s);
        return;
    }
    if (entry->name_len)
        memcpy(s->name, entry->name, entry->name_len);
    s->name_len = entry->name_len;
    if (entry->rewrite)
        sgz_base_note(&s->notes, entry->notes, entry->name, entry->name_len);
    s->payload = entry->payload;
    s->end_offset = 0;
    s->crc = 0;
    s->misplaced = 0;
    s->file = sgz_toc_lookup(s->spans->toc, entry->name, entry->name_len);
    match_file(s, entry);
    match_entry(s, entry);
}

static void pass_contents(sgz_verify_split *s, const uint8_t *data, size_t len)
{
    if (s->summed)
        s->crc = sgz_codec_crc64(s->crc, data, len);
    if (!s->tar.data)
        end_contents(s);
}

/* So many bytes are of the same: contents, padding, a header block. */
static size_t until_next(const sgz_tar_stream *tar, size_t len)
{
    int64_t next = tar->zeros == 2 ? (int64_t)len : tar->data ? tar->data : tar->padding
        ? tar->padding : (int64_t)(SGZ_TAR_BLOCK - tar->block_len);
    return (int64_t)len < next ? len : (size_t)next;
}

void sgz_verify_split_gap(sgz_verify_split *s, const uint8_t *data, size_t len, int64_t offset)
{
    s->offset = offset;
    for (size_t used; len && s->state == READING; data += used, len -= used) {
        sgz_tar_event event;
        sgz_tar_entry entry;
        sgz_error err;
        size_t n = until_next(&s->tar, len);
        /* Before the stream moves: where it stands tells what a segment must begin with. */
        if (!s->tar.data)
            match_segment(s, data, n);
        sgz_status st = sgz_tar_stream_take(&s->tar, data, n, &used, &event, &entry, &err);
        if (st) {
            err.offset = offset;
            fail(s, &s->state, st, &err);
        } else if (event == SGZ_TAR_ENTRY) {
            on_entry(s, &entry);
        } else if (event == SGZ_TAR_DATA) {
            if (!s->misplaced)
                differ(s, "its data in the tar is not where the TOC says");
            s->misplaced = 1;
            pass_contents(s, data, used);
        }
    }
}

void sgz_verify_split_data(sgz_verify_split *s, size_t span, const uint8_t *data, size_t len)
{
    if (s->state != READING)
        return;
    const sgz_toc *toc = s->spans->toc;
    uint32_t file = s->spans->files[span];
    sgz_error err;
    if ((int64_t)len > s->tar.data) {
        const sgz_entry *owner = &toc->rows[file];
        fail(s, &s->state,
             sgz_base_fail(&err, SGZ_ETOC, sgz_read_span_row(s->spans, span)->offset,
                           sgz_toc_row_name(toc, file), owner->name_len,
                           s->tar.data ? "a chunk reaches beyond the contents of the entry in the tar"
                                       : "a chunk stands where the tar has no file contents"),
             &err);
        return;
    }
    if (file != s->file && !s->misplaced) {
        differ(s, "its data in the tar is not where the TOC says");
        s->misplaced = 1;
    }
    sgz_tar_stream_pass(&s->tar, (int64_t)len);
    pass_contents(s, data, len);
}

void sgz_verify_split_span(sgz_verify_split *s, size_t span, int64_t end)
{
    if (s->state != READING)
        return;
    const sgz_entry *e = sgz_read_span_row(s->spans, span);
    if (!s->misplaced && e->chunk_offset + e->chunk_size != s->payload - s->tar.data) {
        differ(s, "its data in the tar is not where the TOC says");
        s->misplaced = 1;
    }
    if (s->tar.data || !s->end_offset || s->misplaced)
        return;
    int64_t next = span + 1 < s->spans->count ? sgz_read_span_row(s->spans, span + 1)->offset
                                              : s->spans->end;
    if (s->end_offset < end || s->end_offset > next)
        differ(s, "its endOffset is %lld, but its last frame ends at %lld",
               (long long)s->end_offset, (long long)end);
}

static void tell_missing(void *arg, const char *name, size_t len)
{
    sgz_verify_split *s = arg;
    sgz_error err;
    sgz_base_fail(&err, SGZ_ETOC, -1, name, len, "it is in the TOC, but not in the tar by this name");
    s->report(s->arg, &err);
}

/* Reads nothing of two that are the same to it; the last one alone has a row. */
static void tell_doubles(sgz_verify_split *s)
{
    const sgz_toc *toc = s->spans->toc;
    for (uint32_t i = 0; i < toc->count; i++) {
        const sgz_entry *row = &toc->rows[i];
        sgz_error err;
        if (sgz_toc_is_piece(row) || !(row->flags & SGZ_DROPPED))
            continue;
        sgz_base_fail(&err, SGZ_ETOC, -1, sgz_toc_row_name(toc, i), row->name_len,
                      "the TOC has this path twice, which containers/storage refuses");
        s->report(s->arg, &err);
    }
}

sgz_status sgz_verify_split_finish(sgz_verify_split *s, sgz_error *err)
{
    sgz_error bad;
    sgz_status st;
    tell_doubles(s);
    if (s->state == READING && (st = sgz_tar_stream_end(&s->tar, 1, &bad))) {
        bad.offset = s->offset;
        fail(s, &s->state, st, &bad);
    }
    s->name_len = 0;
    if (s->state == READING && s->lines_state == READING) {
        sgz_verify_line line;
        int none = 0;
        st = s->rest ? SGZ_OK : sgz_verify_lines_next(&s->lines, &line, &none, &bad);
        if (st)
            fail(s, &s->lines_state, st, &bad);
        else if (!none)
            split_fails(s, "it goes on behind the end of the tar");
    }
    if (s->state == READING && s->entries_state == READING &&
        (st = sgz_verify_entries_rest(s->entries, tell_missing, s, &bad)))
        fail(s, &s->entries_state, st, &bad);
    if (s->fatal && err)
        *err = s->fatal_error;
    return s->fatal;
}
