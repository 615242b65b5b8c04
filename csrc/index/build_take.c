/* Decoded bytes to rows, in the order of the tar; and everything to digests. */
#include "index/build_internal.h"

#include "base/vec.h"

#include <stdlib.h>
#include <string.h>

/* Holes of all files that are hashed, as zeros, for the digests of the files that have them: what
 * a small tar can make us hash. Beyond, such files have digests of chunks alone. */
#define HOLES_HASHED ((int64_t)1 << 30)

static const uint8_t zeros[1 << 16];

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the index");
}

/* --- digests ---------------------------------------------------------------------------- */

static sgz_status add_piece(sgz_index_digests *d, const uint8_t *data, size_t len, sgz_error *err)
{
    if (!SGZ_FIT(d->whose, d->whose_cap, d->count + 1) ||
        !SGZ_PUSH(d->pieces, d->count, d->cap, (sgz_hash_piece){.data = data, .len = len}))
        return no_memory(err);
    d->whose[d->count - 1] = SGZ_NOBODY;
    return SGZ_OK;
}

/* The message ends with its last piece so far, which may have been taken before. */
static sgz_status end_message(sgz_index_digests *d, uint64_t whose, sgz_error *err)
{
    if (!d->count || d->whose[d->count - 1] != SGZ_NOBODY) {
        sgz_status status = add_piece(d, zeros, 0, err);
        if (status)
            return status;
    }
    d->whose[d->count - 1] = whose;
    return SGZ_OK;
}

/* Bytes of the blob, of each span its own: two may share a byte. */
static sgz_status hash_spans(sgz_index_taker *t, const uint8_t *data, size_t len, sgz_error *err)
{
    int64_t base = t->blob_pos, at = base, end = base + (int64_t)len;
    for (;;) {
        int open = t->span_count > 0;
        const sgz_point *next =
            t->span_count < t->known.count ? &t->known.at[t->span_count] : NULL;
        int64_t cut = next ? next->offset + (open && next->skip) : INT64_MAX;
        int64_t to = cut < end ? cut : end;
        sgz_status status = SGZ_OK;
        if (next && next->offset < at)
            return sgz_base_fail(err, SGZ_ECODEC, next->offset, NULL, 0,
                                 "an entry point was found too late to hash its span");
        if (open)
            status = add_piece(&t->spans, data + (at - base), (size_t)(to - at), err);
        if (status || cut > end)
            return status;
        if (open && (status = end_message(&t->spans, t->span_count - 1, err)))
            return status;
        t->span_count++;
        at = next->offset;
    }
}

/* Rows and arena move while entries are added: so only now. */
static sgz_status hash_all(sgz_index_taker *t, const uint8_t *data, size_t len, const uint8_t *blob,
                           size_t blob_len, sgz_error *err)
{
    sgz_toc *toc = t->index->toc;
    sgz_index_digests *c = &t->chunks, *f = &t->files, *s = &t->spans;
    if (!SGZ_FIT(t->span_digests, t->span_cap, t->span_count))
        return no_memory(err);
    for (size_t i = 0; i < c->count; i++)
        if (c->whose[i] != SGZ_NOBODY)
            c->pieces[i].digest = toc->rows[c->whose[i]].chunk_digest;
    for (size_t i = 0; i < f->count; i++)
        if (f->whose[i] != SGZ_NOBODY)
            f->pieces[i].digest = (uint8_t *)toc->arena + f->whose[i];
    for (size_t i = 0; i < s->count; i++)
        if (s->whose[i] != SGZ_NOBODY)
            s->pieces[i].digest = t->span_digests[s->whose[i]];
    size_t whole = !t->options->no_whole;
    sgz_hash_piece tar = {.data = data, .len = len}, raw = {.data = blob, .len = blob_len};
    sgz_hash_stream streams[] = {{.hasher = &t->tar_sha, .pieces = &tar, .count = whole},
                                 {.hasher = &t->blob_sha, .pieces = &raw, .count = whole},
                                 {.hasher = &c->hasher, .pieces = c->pieces, .count = c->count},
                                 {.hasher = &f->hasher, .pieces = f->pieces, .count = f->count},
                                 {.hasher = &s->hasher, .pieces = s->pieces, .count = s->count}};
    streams[2].other = &streams[3];
    streams[3].other = &streams[2];
    sgz_codec_hasher_streams(streams, sizeof streams / sizeof *streams);
    c->count = f->count = s->count = t->after = 0;
    return SGZ_OK;
}

/* --- contents of files ------------------------------------------------------------------ */

/* Bytes of the file from `done` on, in a batch. */
static sgz_status hash_contents(sgz_index_taker *t, const uint8_t *data, size_t len, sgz_error *err)
{
    if (t->options->no_digests)
        return SGZ_OK;
    sgz_status status = add_piece(&t->chunks, data, len, err);
    if (!status && t->digest == FILE_HASHED)
        status = add_piece(&t->files, data, len, err);
    if (!status && t->digest == FILE_HASHED)
        t->files.pieces[t->files.count - 1].after = t->after;
    return status;
}

static sgz_status hash_hole(sgz_index_taker *t, int64_t len, sgz_error *err)
{
    sgz_status status = SGZ_OK;
    if (t->digest == FILE_UNHASHED)
        return SGZ_OK;
    t->digest = FILE_HASHED;
    while (len && !status) {
        size_t n = len < (int64_t)sizeof zeros ? (size_t)len : sizeof zeros;
        status = add_piece(&t->files, zeros, n, err);
        if (!status)
            t->files.pieces[t->files.count - 1].after = t->after;
        len -= (int64_t)n;
    }
    return status;
}

/* The next piece of the file gets a row. */
static sgz_status add_row(sgz_index_taker *t, uint32_t *row, sgz_error *err)
{
    sgz_index *index = t->index;
    sgz_status status = sgz_toc_rows_chunk(t->rows, row, err);
    if (status)
        return status;
    if (!SGZ_FIT(index->toc->origins, index->toc->origin_cap, index->toc->count))
        return no_memory(err);
    index->toc->origins[*row] = (sgz_toc_origin){0};
    index->toc->rows[*row].chunk_offset = t->done;
    return SGZ_OK;
}

/* Where the file has a hole, up to the next run of data. */
static sgz_status pass_hole(sgz_index_taker *t, sgz_error *err)
{
    int64_t end = t->run_at < t->run_count ? t->runs[t->run_at].offset : t->size;
    uint32_t row;
    if (end <= t->done)
        return SGZ_OK;
    sgz_status status = add_row(t, &row, err);
    if (status)
        return status;
    t->index->toc->rows[row].type = SGZ_ZEROS;
    t->index->toc->rows[row].chunk_size = end - t->done;
    if (end < t->size)
        t->index->toc->rows[row].flags |= SGZ_SET_CHUNK_SIZE;
    status = hash_hole(t, end - t->done, err);
    t->done = end;
    return status;
}

static sgz_status open_chunk(sgz_index_taker *t, sgz_error *err)
{
    sgz_status status = pass_hole(t, err);
    if (status)
        return status;
    const sgz_tar_run *run = &t->runs[t->run_at];
    const sgz_point *from = t->point ? &t->known.at[t->point - 1] : NULL;
    int64_t left = run->offset + run->len - t->done;
    t->chunk = t->file;
    if (t->done && (status = add_row(t, &t->chunk, err)))
        return status;
    sgz_entry *row = &t->index->toc->rows[t->chunk];
    row->offset = from ? from->offset : t->stored ? t->pos : 0;
    row->inner_offset = t->pos - (from ? from->out : row->offset);
    t->chunk_left = left < t->options->chunk_size ? left : t->options->chunk_size;
    return SGZ_OK;
}

static sgz_status close_chunk(sgz_index_taker *t, sgz_error *err)
{
    sgz_entry *row = &t->index->toc->rows[t->chunk];
    int last = t->done == t->size;
    row->chunk_size = t->done - row->chunk_offset;
    t->chunk_left = 0;
    if (!last)
        row->flags |= SGZ_SET_CHUNK_SIZE;
    if (t->options->no_digests)
        return SGZ_OK;
    row->flags |= SGZ_HAS_CHUNK_DIGEST;
    if (last && t->digest == FILE_PLAIN)
        row->flags |= SGZ_HAS_DIGEST | SGZ_DIGEST_IS_CHUNK;
    sgz_status status = end_message(&t->chunks, t->chunk, err);
    if (status || last || t->digest != FILE_PLAIN)
        return status;
    /* The file's first chunk, and not its last: what was hashed is common to both. */
    sgz_hash_piece *piece = &t->chunks.pieces[t->chunks.count - 1];
    piece->copy = &t->files.hasher;
    piece->after = t->files.count;
    t->after = t->chunks.count;
    t->digest = FILE_HASHED;
    return SGZ_OK;
}

/* Contents have ended; a file may have a hole behind them. */
static sgz_status end_file(sgz_index_taker *t, sgz_error *err)
{
    sgz_status status = pass_hole(t, err);
    uint32_t file = t->file;
    sgz_toc *toc = t->index->toc;
    t->file = SGZ_NO_ROW;
    if (status || t->digest != FILE_HASHED)
        return status;
    uint64_t at = sgz_toc_store(toc, zeros, 32);
    if (at == UINT64_MAX)
        return no_memory(err);
    toc->rows[file].digest_off = at;
    toc->rows[file].flags |= SGZ_HAS_DIGEST;
    if ((status = end_message(&t->files, at, err)))
        return status;
    t->files.pieces[t->files.count - 1].after = t->after;
    return SGZ_OK;
}

/* How many of `len` bytes of contents belong together: to one chunk. */
static sgz_status in_chunk(sgz_index_taker *t, size_t *len, sgz_error *err)
{
    sgz_status status = SGZ_OK;
    int64_t left;
    for (; t->point < t->known.count && t->known.at[t->point].out <= t->pos; t->point++)
        if (t->chunk_left && (status = close_chunk(t, err)))
            return status;
    if (!t->chunk_left && (status = open_chunk(t, err)))
        return status;
    left = t->chunk_left;
    if (t->point < t->known.count && t->known.at[t->point].out - t->pos < left)
        left = t->known.at[t->point].out - t->pos;
    if ((int64_t)*len > left)
        *len = (size_t)left;
    return SGZ_OK;
}

static sgz_status contents(sgz_index_taker *t, const uint8_t *data, size_t len, sgz_error *err)
{
    sgz_status status = hash_contents(t, data, len, err);
    t->done += (int64_t)len;
    t->chunk_left -= (int64_t)len;
    if (status || t->chunk_left)
        return status;
    if (t->done == t->runs[t->run_at].offset + t->runs[t->run_at].len)
        t->run_at++;
    return close_chunk(t, err);
}

static sgz_status begin_file(sgz_index_taker *t, uint32_t row, const sgz_tar_entry *entry,
                             sgz_error *err)
{
    int64_t holes = entry->size - entry->payload;
    t->file = row;
    t->size = entry->size;
    t->done = t->chunk_left = 0;
    t->run_at = 0;
    t->runs = &t->whole;
    t->run_count = 1;
    t->whole = (sgz_tar_run){0, entry->size};
    t->digest = FILE_PLAIN;
    if (holes > HOLES_HASHED - t->holes || t->options->no_digests)
        t->digest = FILE_UNHASHED;
    else
        t->holes += holes;
    if (entry->type == 'S') { /* the parser's map is gone at its next block */
        if (!SGZ_FIT(t->map, t->map_cap, entry->sparse_count + 1))
            return no_memory(err);
        if (entry->sparse_count)
            memcpy(t->map, entry->sparse, entry->sparse_count * sizeof *t->map);
        t->runs = t->map;
        t->run_count = entry->sparse_count;
    }
    if (!entry->size) {
        sgz_toc_rows_empty(t->rows, row);
        t->file = SGZ_NO_ROW;
    }
    return SGZ_OK;
}

/* --- entries ---------------------------------------------------------------------------- */

static sgz_status place(sgz_index_taker *t, uint32_t row, const sgz_tar_entry *entry,
                        sgz_error *err)
{
    sgz_index *index = t->index;
    sgz_toc *toc = index->toc;
    const sgz_entry *added = &toc->rows[row];
    sgz_toc_origin here = {.content = t->tar.pos,
                            .name = added->name_off,
                            .name_len = (uint32_t)entry->name_len,
                            .header = (uint32_t)(t->tar.pos - t->tar.start),
                            .ns = sgz_tar_time_fits(entry->mtime) ? entry->mtime_nsec : 0};
    if (added->name_len != entry->name_len ||
        memcmp(toc->arena + added->name_off, entry->name, entry->name_len))
        here.name = sgz_toc_store(toc, entry->name, entry->name_len);
    if (here.name == UINT64_MAX || !SGZ_FIT(index->toc->origins, index->toc->origin_cap, toc->count))
        return no_memory(err);
    index->toc->origins[row] = here;
    return SGZ_OK;
}

static sgz_status on_entry(sgz_index_taker *t, const sgz_tar_entry *entry, sgz_error *err)
{
    const sgz_index_build_options *o = t->options;
    sgz_notes *notes = &t->index->notes;
    uint32_t row;
    sgz_status status = SGZ_OK;
    if (o->on_entry)
        status = o->on_entry(o->arg, entry, t->tar.start, t->tar.pos, err);
    if (status)
        return status;
    if (entry->left_out) {
        sgz_base_note(notes, entry->notes, entry->name, entry->name_len);
        return SGZ_OK;
    }
    if (sgz_toc_rows_is_own(entry))
        return SGZ_OK;
    status = sgz_toc_rows_entry(t->rows, entry, t->tar.start, &row, err);
    if (!status)
        status = place(t, row, entry, err);
    if (status)
        return status;
    sgz_base_note(notes, entry->notes, entry->name, entry->name_len);
    int file = entry->type == '0' || entry->type == 'S';
    return file && !(t->index->toc->rows[row].flags & SGZ_DROPPED) ? begin_file(t, row, entry, err)
                                                                   : SGZ_OK;
}

/* One event of the tar. */
static sgz_status step(sgz_index_taker *t, const uint8_t *data, size_t len, size_t *used,
                       sgz_error *err)
{
    sgz_tar_event event;
    sgz_tar_entry entry;
    sgz_status status = SGZ_OK;
    int ended = t->tar.zeros == 2;
    if (t->file != SGZ_NO_ROW && t->tar.data && (status = in_chunk(t, &len, err)))
        return status;
    status = sgz_tar_stream_take(&t->tar, data, len, used, &event, &entry, err);
    if (!status && event == SGZ_TAR_ENTRY)
        status = on_entry(t, &entry, err);
    else if (!status && event == SGZ_TAR_GLOBAL && t->options->on_global)
        status = t->options->on_global(t->options->arg, t->tar.start, err);
    else if (!status && event == SGZ_TAR_DATA && t->file != SGZ_NO_ROW)
        status = contents(t, data, *used, err);
    t->pos += (int64_t)*used;
    if (!status && t->file != SGZ_NO_ROW && !t->tar.data)
        status = end_file(t, err);
    if (!ended)
        t->index->archive_size = t->tar.pos;
    return status;
}

sgz_status sgz_index_take(sgz_index_taker *t, const uint8_t *data, size_t len, const uint8_t *blob,
                          size_t blob_len, sgz_error *err)
{
    sgz_status status = SGZ_OK;
    for (size_t at = 0, used; at < len && !status; at += used)
        status = step(t, data + at, len - at, &used, err);
    if (!status && t->options->soci)
        status = hash_spans(t, t->stored ? data : blob, t->stored ? len : blob_len, err);
    t->blob_pos += (int64_t)(t->stored ? len : blob_len);
    return status ? status : hash_all(t, data, len, blob, blob_len, err);
}

sgz_status sgz_index_take_end(sgz_index_taker *t, sgz_points *points, sgz_error *err)
{
    sgz_index *index = t->index;
    sgz_status status = sgz_tar_stream_end(&t->tar, 0, err);
    if (status)
        return status;
    sgz_base_note(&index->notes, sgz_toc_rows_behind_note(&t->tar), NULL, 0);
    if (t->tar.zeros < 2)
        sgz_base_note(&index->notes, t->tar.pos ? SGZ_NOTE_BIT(NO_END) : SGZ_NOTE_BIT(NOTHING), NULL,
                      0);
    if ((status = sgz_toc_rows_finish(t->rows, &index->notes, err)))
        return status;
    if (t->span_count && (status = end_message(&t->spans, t->span_count - 1, err)))
        return status;
    if ((status = hash_all(t, zeros, 0, zeros, 0, err)))
        return status;
    points->digests = t->span_digests;
    t->span_digests = NULL;
    if (t->options->no_whole)
        return SGZ_OK;
    sgz_codec_hasher_final(&t->tar_sha, index->diff_id);
    if (t->stored)
        memcpy(index->digest, index->diff_id, 32);
    else
        sgz_codec_hasher_final(&t->blob_sha, index->digest);
    return SGZ_OK;
}

/* --- life ------------------------------------------------------------------------------- */

sgz_status sgz_index_taker_init(sgz_index_taker *t, const sgz_codecs *codecs, sgz_wrap wrap,
                                const sgz_index_build_options *options, sgz_index *index,
                                sgz_error *err)
{
    t->codecs = codecs;
    t->options = options;
    t->index = index;
    t->file = SGZ_NO_ROW;
    t->stored = wrap == SGZ_WRAP_NONE;
    index->toc = sgz_toc_new();
    t->rows = index->toc ? sgz_toc_rows_new(index->toc) : NULL;
    t->tar.parser = sgz_tar_parser_new();
    if (!t->rows || !t->tar.parser)
        return no_memory(err);
    sgz_toc_rows_keep_bytes(t->rows);
    if (options->soci) { /* others have the same rules for what goes into one */
        sgz_tar_keep_records(t->tar.parser);
    } else {
        sgz_tar_read_in_place(t->tar.parser);
        sgz_toc_rows_leave_out(t->rows);
    }
    sgz_hasher *hashers[] = {&t->tar_sha, &t->blob_sha, &t->chunks.hasher, &t->files.hasher,
                             &t->spans.hasher};
    sgz_status status = SGZ_OK;
    for (int i = 0; i < 5 && !status; i++)
        status = sgz_codec_hasher_init(hashers[i], codecs, err);
    return status;
}

void sgz_index_taker_free(sgz_index_taker *t)
{
    sgz_toc_rows_free(t->rows);
    sgz_tar_parser_free(t->tar.parser);
    free(t->known.at);
    free(t->map);
    sgz_index_digests *all[] = {&t->chunks, &t->files, &t->spans};
    for (int i = 0; i < 3; i++) {
        sgz_codec_hasher_free(&all[i]->hasher);
        free(all[i]->pieces);
        free(all[i]->whose);
    }
    free(t->span_digests);
    sgz_codec_hasher_free(&t->tar_sha);
    sgz_codec_hasher_free(&t->blob_sha);
    memset(t, 0, sizeof *t);
}
