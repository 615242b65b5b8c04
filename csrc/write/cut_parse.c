#include "write/cut_internal.h"

#include "base/bytes.h"

#include <stdlib.h>

#define WITHOUT_LOSSLESS "without lossless (--lossless)"

/* Move n parsed bytes to where the output goes on. */
static sgz_status keep(sgz_write_cutter *c, size_t n, sgz_error *err)
{
    sgz_status status = sgz_write_cut_put(c, 1, err);
    if (c->put != c->get)
        memmove(c->slab->buf + c->put, c->slab->buf + c->get, n);
    c->put += n;
    c->get += n;
    return status;
}

static sgz_status put_bytes(sgz_write_cutter *c, const uint8_t *data, size_t len, sgz_error *err)
{
    sgz_status status = sgz_write_cut_unread(c, err);
    if (status)
        return status;
    if (len > c->slab->cap - c->put)
        return sgz_base_fail(err, SGZ_ETAR, c->tar.start, NULL, 0,
                             "headers of one entry are too long");
    if (len && (status = sgz_write_cut_put(c, 0, err)))
        return status;
    memcpy(c->slab->buf + c->put, data, len);
    c->put += len;
    c->get = c->len = c->put;
    return SGZ_OK;
}

static sgz_status put_landmark(sgz_write_cutter *c, sgz_error *err)
{
    const char *name = c->options.prefetch ? SGZ_LANDMARK : SGZ_NO_LANDMARK;
    uint8_t block[SGZ_TAR_BLOCK];
    sgz_tar_entry entry = {.type = '0', .name = name, .name_len = strlen(name), .size = 1,
                           .payload = 1, .mtime = SGZ_NO_TIME};
    uint32_t row;
    c->landmark_done = 1;
    sgz_tar_plain_header(block, name, 1);
    sgz_status status = put_bytes(c, block, sizeof block, err);
    if (status)
        return status;
    pthread_mutex_lock(&c->lock);
    status = sgz_toc_rows_entry(c->apply, &entry, c->tar.pos, &row, err);
    pthread_mutex_unlock(&c->lock);
    if (!status)
        status = sgz_write_cut_begin_file(c, row, 1, 1, err);
    if (status)
        return status;
    memset(block, 0, sizeof block);
    block[0] = 0x0f;
    status = put_bytes(c, block, 1, err);
    if (!status)
        status = sgz_write_cut_chunk_done(c, 1, err);
    if (!status)
        status = put_bytes(c, block + 1, sizeof block - 1, err);
    c->run_start = c->put;
    return status;
}

/* Keep the map of a sparse file: the parser's is gone at its next block. */
static sgz_status begin_sparse(sgz_write_cutter *c, const sgz_tar_entry *entry, sgz_error *err)
{
    int64_t limit = c->options.max_sparse ? c->options.max_sparse : SGZ_TAR_HOLES_MAX;
    c->holes += entry->size - entry->payload; /* of each at most 1 TiB */
    if (c->holes > limit)
        return sgz_base_fail(err, SGZ_ETAR, c->tar.start, entry->name, entry->name_len,
                             "the holes of the sparse files to here are %lld bytes, more than the "
                             "limit of %lld for a layer, which stores them as zeros; leave the "
                             "file out, or allow more with max_sparse (--max-sparse SIZE)",
                             (long long)c->holes, (long long)limit);
    free(c->runs);
    c->runs = malloc((entry->sparse_count + 1) * sizeof *c->runs);
    if (!c->runs)
        return sgz_write_cut_no_memory(err);
    if (entry->sparse_count)
        memcpy(c->runs, entry->sparse, entry->sparse_count * sizeof *c->runs);
    c->run_count = entry->sparse_count;
    c->run_at = 0;
    c->phase = IN_SPARSE;
    return SGZ_OK;
}

static sgz_status on_entry(sgz_write_cutter *c, const sgz_tar_entry *entry, sgz_error *err)
{
    if (c->options.kept)
        return sgz_write_cut_kept_entry(c, entry, err);
    int marker = sgz_toc_rows_marker(entry->name, entry->name_len);
    if (marker == 2 && c->options.lossless && !c->options.apart)
        return sgz_base_fail(
            err, SGZ_ETAR, c->tar.start, entry->name, entry->name_len,
            "the input has a TOC already and cannot be kept byte for byte; convert "
            "the original layer, or convert " WITHOUT_LOSSLESS);
    if (marker == 2 || (marker && c->options.landmarks)) {
        /* What is kept as it is otherwise is told of in any case. */
        unsigned note = c->options.apart ? SGZ_NOTE_BIT(TOC)
                                         : sgz_toc_rows_marker_note(entry, marker);
        sgz_base_note(&c->notes, note, entry->name, entry->name_len);
        c->put = c->header_start;
        c->phase = IN_SKIP;
        return SGZ_OK;
    }
    int rewrite = entry->type == 'S' || c->headers_dropped
        || (entry->rewrite && !c->options.lossless);
    /* Global headers are folded into the others, which leaves nothing to tell. */
    unsigned folded = c->options.lossless ? 0 : SGZ_NOTE_BIT(GLOBAL);
    if (entry->type == 'S' && c->options.lossless)
        return sgz_base_fail(
            err, SGZ_ENOTOC, c->tar.start, entry->name, entry->name_len,
            c->options.apart
                ? "a sparse file cannot be read from a tar that is kept as it is; convert to "
                  "another format"
                : "a sparse file cannot be read from a lossless layer; convert " WITHOUT_LOSSLESS);
    uint32_t row;
    pthread_mutex_lock(&c->lock);
    sgz_status status = sgz_toc_rows_entry(c->apply, entry, c->tar.start, &row, err);
    pthread_mutex_unlock(&c->lock);
    if (status)
        return status;
    c->entries++;
    sgz_base_note(&c->notes, entry->notes & ~folded, entry->name, entry->name_len);
    if (rewrite) {
        uint8_t *header;
        size_t len;
        status = sgz_tar_expanded_header(entry, &header, &len, err);
        if (status)
            return status;
        if (entry->type == 'S')
            status = begin_sparse(c, entry, err);
        c->put = c->header_start;
        if (!status)
            status = put_bytes(c, header, len, err);
        free(header);
        if (status)
            return status;
    }
    if (entry->type == '0' || entry->type == 'S')
        status = sgz_write_cut_begin_file(c, row, entry->size, 0, err);
    else
        c->file_size = c->file_done = 0;
    if (c->phase != IN_SPARSE)
        c->phase = !c->tar.data ? AT_HEADER : rewrite && entry->type == '5' ? IN_SKIP : IN_PAYLOAD;
    return status;
}

static sgz_status at_header(sgz_write_cutter *c, sgz_error *err)
{
    sgz_tar_event event;
    sgz_tar_entry entry;
    size_t used;
    sgz_status status;
    if (sgz_tar_idle(c->tar.parser)) {
        if (!c->landmark_done && c->entries == c->options.landmark_after)
            return put_landmark(c, err);
        if (c->put - c->run_start >= SGZ_HEADER_RUN) {
            status = sgz_write_cut_close_member(c, err);
            if (status)
                return status;
        }
        c->header_start = c->put;
        c->headers_dropped = 0;
    }
    status = sgz_tar_stream_take(&c->tar, c->slab->buf + c->get, SGZ_TAR_BLOCK, &used, &event,
                                 &entry, err);
    if (status && c->options.kept)
        return sgz_write_cut_kept_unfit(c, status, err);
    if (status)
        return status;
    if ((status = keep(c, SGZ_TAR_BLOCK, err)))
        return status;
    if (c->put - c->header_start > HEADERS_KEPT) {
        if (c->options.kept)
            return sgz_write_cut_kept_unfit(
                c, sgz_base_fail(err, SGZ_ENOTOC, c->tar.start, NULL, 0,
                                 "headers of one entry that are too long"), err);
        if (c->options.lossless)
            return sgz_base_fail(err, SGZ_ETAR, c->tar.start, NULL, 0,
                                 "headers of one entry are too long to be kept as they are; "
                                 "convert %s", c->options.apart ? "to another format"
                                                                : WITHOUT_LOSSLESS);
        c->put = c->header_start;
        c->headers_dropped = 1;
    }
    if (event == SGZ_TAR_ENTRY)
        return on_entry(c, &entry, err);
    if (c->tar.zeros == 2)
        c->phase = IN_TAIL;
    if (c->options.kept) {
        if (event == SGZ_TAR_GLOBAL)
            return sgz_write_cut_kept_unfit(
                c, sgz_base_fail(err, SGZ_ENOTOC, c->tar.start, NULL, 0, "a PAX global header"),
                err);
        if (c->tar.zeros == 2)
            return sgz_write_cut_kept_end(c, err);
    }
    if ((event == SGZ_TAR_GLOBAL || event == SGZ_TAR_END) && !c->options.lossless)
        c->put = c->header_start;
    return SGZ_OK;
}

/* Zeros and data of a sparse file, straight into the slab: nothing is read ahead here. */
static sgz_status in_sparse(sgz_write_cutter *c, int *full, sgz_error *err)
{
    while (c->file_done < c->file_size) {
        size_t limit = c->slab->cap - INSERT_ROOM;
        size_t room = c->put < limit ? limit - c->put : 0;
        if (!room) {
            *full = 1;
            return SGZ_OK;
        }
        int64_t until = c->file_size;
        int data = 0;
        while (c->run_at < c->run_count
               && c->runs[c->run_at].offset + c->runs[c->run_at].len <= c->file_done)
            c->run_at++;
        if (c->run_at < c->run_count) {
            const sgz_tar_run *run = &c->runs[c->run_at];
            data = run->offset <= c->file_done;
            until = data ? run->offset + run->len : run->offset;
        }
        int64_t n = until - c->file_done;
        n = n < c->chunk_left ? n : c->chunk_left;
        n = n < (int64_t)room ? n : (int64_t)room;
        size_t got = (size_t)n;
        if (data) {
            sgz_status status = sgz_write_cut_put(c, 1, err);
            if (!status)
                status = sgz_write_cut_take_in(c, c->slab->buf + c->put, (size_t)n, &got, err);
            if (status)
                return status;
            if (!got)
                return sgz_base_fail(err, SGZ_ETAR, c->tar.start, NULL, 0,
                                     "truncated: the input ends inside an entry");
            sgz_tar_stream_pass(&c->tar, (int64_t)got);
        } else {
            sgz_status status = sgz_write_cut_put(c, 0, err);
            if (status)
                return status;
            memset(c->slab->buf + c->put, 0, got);
        }
        c->put += got;
        c->get = c->len = c->put;
        sgz_status status = sgz_write_cut_chunk_done(c, got, err);
        if (status)
            return status;
    }
    size_t zeros = (size_t)(-c->file_size & (SGZ_TAR_BLOCK - 1));
    sgz_status status = zeros ? sgz_write_cut_put(c, 0, err) : SGZ_OK;
    if (status)
        return status;
    memset(c->slab->buf + c->put, 0, zeros);
    c->put += zeros;
    c->get = c->len = c->put;
    c->run_start = c->put;
    c->phase = IN_SKIP;
    return SGZ_OK;
}

sgz_status sgz_write_cut_parse(sgz_write_cutter *c, int *full, sgz_error *err)
{
    sgz_status status = SGZ_OK;
    while (!status && !*full) {
        size_t have = c->len - c->get, n;
        switch (c->phase) {
        case AT_HEADER:
            if (have < SGZ_TAR_BLOCK)
                return SGZ_OK;
            status = at_header(c, err);
            break;
        case IN_PAYLOAD:
            if (!have)
                return SGZ_OK;
            if (c->options.kept) {
                int more;
                status = sgz_write_cut_kept_chunks(c, &more, err);
                if (more)
                    return status;
                break;
            }
            n = (int64_t)have < c->tar.data ? have : (size_t)c->tar.data;
            if (c->file_size && (int64_t)n > c->chunk_left)
                n = (size_t)c->chunk_left;
            status = keep(c, n, err);
            sgz_tar_stream_pass(&c->tar, (int64_t)n);
            if (!status && c->file_size)
                status = sgz_write_cut_chunk_done(c, n, err);
            if (!c->tar.data)
                c->phase = IN_PADDING;
            break;
        case IN_SPARSE:
            status = in_sparse(c, full, err);
            break;
        case IN_PADDING:
            if (!have && c->tar.padding)
                return SGZ_OK;
            status = keep(c, (size_t)sgz_tar_stream_pass(&c->tar, (int64_t)have), err);
            if (!c->tar.padding) {
                c->phase = AT_HEADER;
                c->run_start = c->put;
            }
            break;
        case IN_SKIP:
            c->get += (size_t)sgz_tar_stream_pass(&c->tar, (int64_t)have);
            if (c->tar.data || c->tar.padding) {
                /* Everything read is skipped: room for more at the same place. */
                c->get = c->len = c->put;
                return SGZ_OK;
            }
            c->phase = AT_HEADER;
            break;
        case IN_TAIL:
            if (!have)
                return SGZ_OK;
            n = have;
            if (c->options.kept)
                status = sgz_write_cut_kept_tail(c, n, err);
            if (!status && c->options.lossless) {
                if (c->put - c->run_start >= SGZ_HEADER_RUN)
                    status = sgz_write_cut_close_member(c, err);
                if (n > SGZ_HEADER_RUN - (c->put - c->run_start))
                    n = SGZ_HEADER_RUN - (c->put - c->run_start);
                if (!status)
                    status = keep(c, n, err);
                c->tar.pos += (int64_t)n;
            } else {
                sgz_tar_stream_behind(&c->tar, c->slab->buf + c->get, n);
                c->get = c->len = c->put;
            }
            break;
        case AT_END:
            return SGZ_OK;
        }
    }
    return status;
}

/* Whether a TOC's entry comes behind a tar that is kept as it is. */
static int is_followed(const sgz_write_cutter *c)
{
    return c->options.lossless && !c->options.apart;
}

sgz_status sgz_write_cut_at_input_end(sgz_write_cutter *c, sgz_error *err)
{
    static const uint8_t zeros[SGZ_TAR_BLOCK], end[2 * SGZ_TAR_BLOCK];
    sgz_status status = SGZ_OK;
    sgz_tar_event event;
    size_t used;
    if (c->unfit) {
        c->phase = AT_END;
        return sgz_write_cut_close_member(c, err);
    }
    if (c->phase == IN_PADDING && !c->options.lossless) {
        status = put_bytes(c, zeros, (size_t)c->tar.padding, err);
        sgz_tar_stream_pass(&c->tar, c->tar.padding);
    }
    if (!status && c->len != c->get) /* half a header block */
        status = sgz_tar_stream_take(&c->tar, c->slab->buf + c->get, c->len - c->get, &used,
                                     &event, NULL, err);
    if (!status)
        status = sgz_tar_stream_end(&c->tar, is_followed(c) && !c->options.kept, err);
    if (status)
        return status;
    if (is_followed(c) && !c->options.frames && (c->tar.pos % SGZ_TAR_BLOCK))
        return sgz_base_fail(
            err, SGZ_ENOTOC, c->tar.pos, NULL, 0,
            "the tar's length is no multiple of 512, so a TOC cannot follow it as it "
            "is; convert " WITHOUT_LOSSLESS);
    sgz_base_note(&c->notes, sgz_toc_rows_behind_note(&c->tar) | sgz_io_input_note(c->input), NULL, 0);
    if (!c->tar.pos && !c->input->extents)
        sgz_base_note(&c->notes, SGZ_NOTE_BIT(NOTHING), NULL, 0);
    if (!c->landmark_done) {
        if (c->entries < c->options.landmark_after)
            return sgz_base_fail(err, SGZ_ETAR, c->tar.pos, NULL, 0,
                                 "the input changed while it was read");
        status = put_landmark(c, err);
    }
    if (!status && c->options.frames && !c->options.lossless)
        status = put_bytes(c, end, sizeof end, err);
    if (!status)
        status = sgz_write_cut_close_member(c, err);
    if (!status && c->options.kept)
        status = sgz_write_cut_kept_finish(c, err);
    if (!status && !c->options.kept) {
        pthread_mutex_lock(&c->lock);
        status = sgz_toc_rows_finish(c->apply, &c->notes, err);
        pthread_mutex_unlock(&c->lock);
    }
    c->phase = AT_END;
    return status;
}
