#include "cut.h"

#include "buffer.h"

#include <stdlib.h>
#include <string.h>

/* Read in pieces of this size after bytes were put back: see unread. */
#define REREAD_STEP (64u << 10)

/* How much a slab takes in beyond the largest member. 2 MiB: with 1 and 4 MiB the same
 * time within noise, on a Debian layer. */
#define SLAB_ROOM (2u << 20)

/* A slab is full with this much, unless one member needs more. */
#define SLAB_SOFT ((size_t)4 << 20)

/* The end of a slab is kept for what is put in (landmark, rewritten headers): one entry's
 * headers always fit behind the last byte read. */
#define INSERT_ROOM (2 * SGZ_TAR_LONG_MAX)

typedef enum {
    AT_HEADER,     /* a header block comes next */
    IN_PAYLOAD,
    IN_SPARSE,     /* a payload that is written out expanded */
    IN_PADDING,
    IN_SKIP,       /* an entry that is left out */
    IN_TAIL,       /* lossless: everything behind the end of the archive */
    AT_END
} phase;

/* Positions in the slab: [0, open) whole members, [open, put) the open member, [put, get)
 * nothing (bytes left out), [get, len) read and not yet parsed. */
struct sgz_cutter {
    sgz_input *input;
    sgz_toc *toc;
    pthread_mutex_t *lock;
    sgz_cut_options options;
    sgz_tar_parser *parser;
    sgz_apply *apply;

    sgz_slab *slab;
    size_t open, put, get, len;
    size_t open_piece;      /* the open member's first piece */
    size_t header_start;    /* where the entry's first header block was put */
    size_t run_start;       /* where the run of headers in the open member began */

    phase phase;
    int64_t tar_pos;        /* of `get`, in the input tar */
    int64_t entry_pos;      /* where the entry began, for errors */
    int64_t entries;        /* entries written */
    int64_t left;           /* bytes of payload, padding or skip still to come */
    int64_t chunk_left;
    int64_t file_size, file_done;
    uint32_t file_row;
    int after_skip;         /* the phase that follows a skip */
    size_t padding;
    int input_end, landmark_done, zero_block;

    sgz_tar_run *runs;      /* IN_SPARSE: the file's map */
    size_t run_count, run_at;

    uint8_t *carry;         /* between slabs: the open member and what was read */
    size_t carry_put, carry_len, carry_cap, carry_run;
    sgz_piece *carry_pieces;
    size_t carry_piece_count, carry_piece_cap;

    uint8_t *back;          /* bytes put back to the input */
    size_t back_pos, back_len, back_cap;
    uint64_t bad_names;
};

static sgz_status no_memory(sgz_error *err)
{
    return sgz_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
}

static int grow(void **array, size_t *cap, size_t want, size_t item)
{
    if (want <= *cap)
        return 1;
    size_t bigger = *cap + *cap / 2 > want ? *cap + *cap / 2 : want;
    void *grown = realloc(*array, bigger * item);
    if (!grown)
        return 0;
    *array = grown;
    *cap = bigger;
    return 1;
}

sgz_status sgz_slab_init(sgz_slab *slab, size_t cap, sgz_error *err)
{
    memset(slab, 0, sizeof *slab);
    slab->buf = sgz_buffer_new(cap);
    slab->cap = cap;
    return slab->buf ? SGZ_OK : no_memory(err);
}

void sgz_slab_free(sgz_slab *slab)
{
    free(slab->buf);
    free(slab->members);
    free(slab->pieces);
    memset(slab, 0, sizeof *slab);
}

size_t sgz_cutter_slab_size(const sgz_cut_options *options)
{
    /* The largest open member: a minimum not yet reached, one more chunk, a run of headers
     * and the longest single entry's headers on top of it. */
    return (size_t)(options->min_chunk_size + options->chunk_size) + SGZ_HEADER_RUN
        + 2 * SGZ_TAR_LONG_MAX + SLAB_ROOM + INSERT_ROOM;
}

sgz_cutter *sgz_cutter_new(sgz_input *input, sgz_toc *toc, pthread_mutex_t *lock,
                           const sgz_cut_options *options)
{
    sgz_cutter *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->input = input;
    c->toc = toc;
    c->lock = lock;
    c->options = *options;
    c->parser = sgz_tar_parser_new();
    c->apply = sgz_apply_new(toc);
    c->landmark_done = !options->landmarks;
    if (!c->parser || !c->apply) {
        sgz_cutter_free(c);
        return NULL;
    }
    return c;
}

void sgz_cutter_free(sgz_cutter *c)
{
    if (!c)
        return;
    sgz_tar_parser_free(c->parser);
    sgz_apply_free(c->apply);
    free(c->runs);
    free(c->carry);
    free(c->carry_pieces);
    free(c->back);
    free(c);
}

uint64_t sgz_cutter_bad_names(const sgz_cutter *c)
{
    return c->bad_names;
}

/* --- the input, with bytes put back -------------------------------------------------- */

static sgz_status take_in(sgz_cutter *c, uint8_t *out, size_t cap, size_t *got, sgz_error *err)
{
    *got = 0;
    if (c->back_pos < c->back_len) {
        size_t n = c->back_len - c->back_pos;
        n = n < cap ? n : cap;
        n = n < REREAD_STEP ? n : REREAD_STEP;
        memcpy(out, c->back + c->back_pos, n);
        c->back_pos += n;
        *got = n;
        return SGZ_OK;
    }
    c->back_pos = c->back_len = 0;
    sgz_status status = sgz_input_read(c->input, out, cap, got, err);
    if (!status && *got < cap)
        c->input_end = 1;
    return status;
}

static int exhausted(const sgz_cutter *c)
{
    return c->input_end && c->back_pos == c->back_len;
}

/* Give what was read and not parsed back to the input, so that something can be put into
 * the slab at this place. Bytes that came from here are given back by moving a position:
 * so a million such entries cost no more than reading them twice. */
static sgz_status unread(sgz_cutter *c, sgz_error *err)
{
    size_t n = c->len - c->get;
    c->len = c->get;
    if (n <= c->back_pos && c->back_len) {
        c->back_pos -= n;
        return SGZ_OK;
    }
    size_t rest = c->back_len - c->back_pos;
    if (!grow((void **)&c->back, &c->back_cap, n + rest, 1))
        return no_memory(err);
    if (rest)
        memmove(c->back + n, c->back + c->back_pos, rest);
    if (n)
        memcpy(c->back, c->slab->buf + c->get, n);
    c->back_pos = 0;
    c->back_len = n + rest;
    return SGZ_OK;
}

/* Move n parsed bytes to where the output goes on. */
static void keep(sgz_cutter *c, size_t n)
{
    if (c->put != c->get)
        memmove(c->slab->buf + c->put, c->slab->buf + c->get, n);
    c->put += n;
    c->get += n;
    c->tar_pos += (int64_t)n;
}

/* --- members and chunks --------------------------------------------------------------- */

static sgz_status close_member(sgz_cutter *c, sgz_error *err)
{
    sgz_slab *slab = c->slab;
    if (c->put == c->open)
        return SGZ_OK;
    if (!grow((void **)&slab->members, &slab->member_cap, slab->member_count + 1,
              sizeof *slab->members))
        return no_memory(err);
    sgz_member *member = &slab->members[slab->member_count++];
    member->start = c->open;
    member->len = c->put - c->open;
    member->first_piece = c->open_piece;
    member->piece_count = slab->piece_count - c->open_piece;
    member->out_len = 0;
    c->open = c->put;
    c->open_piece = slab->piece_count;
    c->run_start = c->put;
    return SGZ_OK;
}

static sgz_status begin_chunk(sgz_cutter *c, int own_member, sgz_error *err)
{
    int64_t left = c->file_size - c->file_done;
    int64_t chunk = left < c->options.chunk_size ? left : c->options.chunk_size;
    uint32_t row = c->file_row;
    sgz_status status = SGZ_OK;
    pthread_mutex_lock(c->lock);
    if (c->file_done)
        status = sgz_apply_chunk(c->apply, &row, err);
    if (!status) {
        sgz_entry *entry = &c->toc->rows[row];
        entry->chunk_offset = c->file_done;
        entry->chunk_size = chunk;
        if (left >= c->options.chunk_size)
            entry->flags |= SGZ_SET_CHUNK_SIZE;
    }
    pthread_mutex_unlock(c->lock);
    if (!status
        && (own_member || (int64_t)(c->put - c->open) >= c->options.min_chunk_size))
        status = close_member(c, err);
    if (status)
        return status;
    sgz_slab *slab = c->slab;
    if (!grow((void **)&slab->pieces, &slab->piece_cap, slab->piece_count + 1,
              sizeof *slab->pieces))
        return no_memory(err);
    sgz_piece *piece = &slab->pieces[slab->piece_count++];
    piece->row = row;
    piece->file_row = c->file_row;
    piece->start = c->put;
    piece->len = (size_t)chunk;
    piece->inner = c->put - c->open;
    piece->whole = chunk == c->file_size;
    piece->last = chunk == left;
    c->chunk_left = chunk;
    return SGZ_OK;
}

/* n bytes of the file were put; begin the next chunk where one ends. */
static sgz_status chunk_done(sgz_cutter *c, size_t n, sgz_error *err)
{
    c->file_done += (int64_t)n;
    c->chunk_left -= (int64_t)n;
    if (c->chunk_left == 0 && c->file_done < c->file_size)
        return begin_chunk(c, 0, err);
    if (c->file_done == c->file_size)
        c->run_start = c->put;
    return SGZ_OK;
}

/* An empty file has no chunk, but a digest: that of nothing. */
static void empty_file(sgz_cutter *c, uint32_t row)
{
    static const uint8_t sha256_of_nothing[32] = {
        0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9,
        0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52,
        0xb8, 0x55};
    pthread_mutex_lock(c->lock);
    memcpy(c->toc->rows[row].chunk_digest, sha256_of_nothing, 32);
    c->toc->rows[row].flags |= SGZ_HAS_DIGEST | SGZ_DIGEST_IS_CHUNK;
    pthread_mutex_unlock(c->lock);
}

static sgz_status begin_file(sgz_cutter *c, uint32_t row, int64_t size, int own_member,
                             sgz_error *err)
{
    c->file_row = row;
    c->file_size = size;
    c->file_done = 0;
    if (size)
        return begin_chunk(c, own_member, err);
    empty_file(c, row);
    return SGZ_OK;
}

/* --- entries ---------------------------------------------------------------------------- */

static sgz_status put_bytes(sgz_cutter *c, const uint8_t *data, size_t len, sgz_error *err)
{
    sgz_status status = unread(c, err);
    if (status)
        return status;
    if (len > c->slab->cap - c->put)
        return sgz_fail(err, SGZ_ETAR, c->entry_pos, NULL, 0, "headers of one entry are too long");
    memcpy(c->slab->buf + c->put, data, len);
    c->put += len;
    c->get = c->len = c->put;
    return SGZ_OK;
}

static sgz_status put_landmark(sgz_cutter *c, sgz_error *err)
{
    const char *name = c->options.prefetch ? SGZ_LANDMARK : SGZ_NO_LANDMARK;
    uint8_t block[SGZ_TAR_BLOCK];
    sgz_tar_entry entry = {.type = '0', .name = name, .name_len = strlen(name), .size = 1,
                           .payload = 1};
    uint32_t row;
    c->landmark_done = 1;
    sgz_tar_plain_header(block, name, 1);
    sgz_status status = put_bytes(c, block, sizeof block, err);
    if (status)
        return status;
    pthread_mutex_lock(c->lock);
    status = sgz_apply_entry(c->apply, &entry, c->tar_pos, &row, err);
    pthread_mutex_unlock(c->lock);
    if (!status)
        status = begin_file(c, row, 1, 1, err);
    if (status)
        return status;
    memset(block, 0, sizeof block);
    block[0] = 0x0f;
    status = put_bytes(c, block, sizeof block, err);
    if (!status)
        status = chunk_done(c, 1, err);
    c->run_start = c->put;
    return status;
}

/* A landmark or TOC of an earlier conversion, at the root. */
static int is_marker(const sgz_cutter *c, const sgz_tar_entry *entry)
{
    char scratch[64];
    size_t len;
    if (entry->name_len > 48)
        return 0;
    const char *name = sgz_clean_name(entry->name, entry->name_len, scratch, &len);
    if (len == strlen(SGZ_TOC_NAME) && !memcmp(name, SGZ_TOC_NAME, len))
        return 2;
    if (!c->options.landmarks)
        return 0;
    return (len == strlen(SGZ_LANDMARK) && !memcmp(name, SGZ_LANDMARK, len))
        || (len == strlen(SGZ_NO_LANDMARK) && !memcmp(name, SGZ_NO_LANDMARK, len));
}

static void skip(sgz_cutter *c, int64_t bytes, phase after)
{
    c->put = c->header_start;
    c->left = bytes;
    c->phase = IN_SKIP;
    c->after_skip = after;
}

static int64_t padded(int64_t size)
{
    return (size + SGZ_TAR_BLOCK - 1) & ~(int64_t)(SGZ_TAR_BLOCK - 1);
}

/* Keep the map of a sparse file: the parser's is gone at its next block. */
static sgz_status begin_sparse(sgz_cutter *c, const sgz_tar_entry *entry, sgz_error *err)
{
    free(c->runs);
    c->runs = malloc((entry->sparse_count + 1) * sizeof *c->runs);
    if (!c->runs)
        return no_memory(err);
    if (entry->sparse_count)
        memcpy(c->runs, entry->sparse, entry->sparse_count * sizeof *c->runs);
    c->run_count = entry->sparse_count;
    c->run_at = 0;
    c->left = entry->payload;
    c->phase = IN_SPARSE;
    return SGZ_OK;
}

static sgz_status on_entry(sgz_cutter *c, const sgz_tar_entry *entry, sgz_error *err)
{
    int marker = is_marker(c, entry);
    if (marker && c->options.lossless && marker == 2)
        return sgz_fail(err, SGZ_ETAR, c->entry_pos, entry->name, entry->name_len,
                        "the input has a TOC already and cannot be kept byte for byte; convert "
                        "the original layer, or convert without lossless");
    if (marker && !c->options.lossless) {
        skip(c, padded(entry->payload), AT_HEADER);
        return SGZ_OK;
    }
    int rewrite = entry->type == 'S' || (entry->global && !c->options.lossless);
    if (entry->type == 'S' && c->options.lossless)
        return sgz_fail(err, SGZ_ETAR, c->entry_pos, entry->name, entry->name_len,
                        "a sparse file cannot be read from a lossless layer; convert without "
                        "lossless");
    uint32_t row;
    pthread_mutex_lock(c->lock);
    sgz_status status = sgz_apply_entry(c->apply, entry, c->entry_pos, &row, err);
    pthread_mutex_unlock(c->lock);
    if (status)
        return status;
    c->entries++;
    c->left = entry->payload;
    c->padding = (size_t)(padded(entry->payload) - entry->payload);
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
    /* A link that replaces itself has no row. */
    if (row != SGZ_NO_ROW && (entry->type == '0' || entry->type == 'S'))
        status = begin_file(c, row, entry->size, 0, err);
    else
        c->file_size = c->file_done = 0;
    if (c->phase != IN_SPARSE)
        c->phase = c->left ? IN_PAYLOAD : AT_HEADER;
    return status;
}

static sgz_status at_header(sgz_cutter *c, sgz_error *err)
{
    sgz_tar_event event;
    sgz_tar_entry entry;
    int idle = sgz_tar_idle(c->parser);
    sgz_status status;
    if (idle) {
        if (!c->landmark_done && c->entries == c->options.landmark_after)
            return put_landmark(c, err);
        if (c->put - c->run_start >= SGZ_HEADER_RUN) {
            status = close_member(c, err);
            if (status)
                return status;
        }
        c->header_start = c->put;
        c->entry_pos = c->tar_pos;
    }
    const uint8_t *block = c->slab->buf + c->get;
    status = sgz_tar_feed(c->parser, block, c->tar_pos, &event, &entry, err);
    if (status)
        return status;
    if (c->zero_block && event != SGZ_TAR_END)
        return sgz_fail(err, SGZ_ETAR, c->tar_pos, NULL, 0,
                        "a lone block of zeros: the archive goes on behind its end");
    if (event == SGZ_TAR_END) {
        if (c->options.lossless) {
            if (c->zero_block)
                c->phase = IN_TAIL;
            keep(c, SGZ_TAR_BLOCK);
        } else {
            c->get += SGZ_TAR_BLOCK;
            c->tar_pos += SGZ_TAR_BLOCK;
            if (c->zero_block) {
                c->phase = IN_SKIP;
                c->left = INT64_MAX;
            }
        }
        c->zero_block = 1;
        return SGZ_OK;
    }
    keep(c, SGZ_TAR_BLOCK);
    if (event == SGZ_TAR_ENTRY)
        return on_entry(c, &entry, err);
    if (event == SGZ_TAR_GLOBAL && !c->options.lossless)
        c->put = c->header_start;
    return SGZ_OK;
}

/* Zeros and data of a sparse file, straight into the slab: nothing is read ahead here. */
static sgz_status in_sparse(sgz_cutter *c, int *full, sgz_error *err)
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
            sgz_status status = take_in(c, c->slab->buf + c->put, (size_t)n, &got, err);
            if (status)
                return status;
            if (!got)
                return sgz_fail(err, SGZ_ETAR, c->entry_pos, NULL, 0,
                                "truncated: the input ends inside an entry");
            c->left -= (int64_t)got;
            c->tar_pos += (int64_t)got;
        } else {
            memset(c->slab->buf + c->put, 0, got);
        }
        c->put += got;
        c->get = c->len = c->put;
        sgz_status status = chunk_done(c, got, err);
        if (status)
            return status;
    }
    size_t zeros = (size_t)(padded(c->file_size) - c->file_size);
    memset(c->slab->buf + c->put, 0, zeros);
    c->put += zeros;
    c->get = c->len = c->put;
    c->run_start = c->put;
    c->header_start = c->put;
    skip(c, c->left + (int64_t)c->padding, AT_HEADER);
    return SGZ_OK;
}

/* Parse what was read; returns when more must be read, or *full. */
static sgz_status parse(sgz_cutter *c, int *full, sgz_error *err)
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
            n = (int64_t)have < c->left ? have : (size_t)c->left;
            if (c->file_size && (int64_t)n > c->chunk_left)
                n = (size_t)c->chunk_left;
            keep(c, n);
            c->left -= (int64_t)n;
            if (c->file_size)
                status = chunk_done(c, n, err);
            if (!c->left) {
                c->phase = c->padding ? IN_PADDING : AT_HEADER;
                c->left = (int64_t)c->padding;
                c->run_start = c->put;
            }
            break;
        case IN_SPARSE:
            status = in_sparse(c, full, err);
            break;
        case IN_PADDING:
            if (!have)
                return SGZ_OK;
            n = (int64_t)have < c->left ? have : (size_t)c->left;
            keep(c, n);
            c->left -= (int64_t)n;
            if (!c->left) {
                c->phase = AT_HEADER;
                c->run_start = c->put;
            }
            break;
        case IN_SKIP:
            n = (int64_t)have < c->left ? have : (size_t)c->left;
            c->get += n;
            c->tar_pos += (int64_t)n;
            c->left -= (int64_t)n;
            if (c->left) {
                /* Everything read is skipped: room for more at the same place. */
                c->get = c->len = c->put;
                return SGZ_OK;
            }
            c->phase = (phase)c->after_skip;
            break;
        case IN_TAIL:
            if (!have)
                return SGZ_OK;
            if (c->put - c->run_start >= SGZ_HEADER_RUN)
                status = close_member(c, err);
            n = SGZ_HEADER_RUN - (c->put - c->run_start);
            keep(c, have < n ? have : n);
            break;
        case AT_END:
            return SGZ_OK;
        }
    }
    return status;
}

static sgz_status at_input_end(sgz_cutter *c, sgz_error *err)
{
    static const uint8_t zeros[SGZ_TAR_BLOCK];
    sgz_status status = SGZ_OK;
    int in_end = c->phase == IN_TAIL || (c->phase == IN_SKIP && c->left > INT64_MAX / 2);
    if (c->phase == IN_PADDING && !c->options.lossless) {
        /* Some writers leave the last padding out. */
        c->tar_pos += c->left;
        status = put_bytes(c, zeros, (size_t)c->left, err);
        c->phase = AT_HEADER;
    }
    if (status)
        return status;
    if (c->tar_pos == 0 && c->len == c->get)
        return sgz_fail(err, SGZ_ETAR, 0, NULL, 0, "the input is empty: not a tar archive");
    if (!in_end && (c->phase != AT_HEADER || c->len != c->get || !sgz_tar_idle(c->parser)))
        return sgz_fail(err, SGZ_ETAR, c->tar_pos + (int64_t)(c->len - c->get), NULL, 0,
                        "truncated: the input ends inside an entry");
    if (c->options.lossless && (c->tar_pos % SGZ_TAR_BLOCK))
        return sgz_fail(err, SGZ_ETAR, c->tar_pos, NULL, 0,
                        "the tar's length is no multiple of 512, so a TOC cannot follow it as it "
                        "is; convert without lossless");
    if (!c->landmark_done) {
        if (c->entries < c->options.landmark_after)
            return sgz_fail(err, SGZ_ETAR, c->tar_pos, NULL, 0,
                            "the input changed while it was read");
        status = put_landmark(c, err);
    }
    if (!status)
        status = close_member(c, err);
    if (!status) {
        pthread_mutex_lock(c->lock);
        status = sgz_apply_finish(c->apply, &c->bad_names, err);
        pthread_mutex_unlock(c->lock);
    }
    c->phase = AT_END;
    return status;
}

/* --- slabs ------------------------------------------------------------------------------ */

static sgz_status load_carry(sgz_cutter *c, sgz_error *err)
{
    sgz_slab *slab = c->slab;
    slab->len = slab->member_count = slab->piece_count = 0;
    if (c->carry_len)
        memcpy(slab->buf, c->carry, c->carry_len);
    c->open = c->open_piece = 0;
    c->put = c->carry_put;
    c->get = c->carry_put;
    c->len = c->carry_len;
    c->run_start = c->carry_run;
    if (!grow((void **)&slab->pieces, &slab->piece_cap, c->carry_piece_count,
              sizeof *slab->pieces))
        return no_memory(err);
    if (c->carry_piece_count)
        memcpy(slab->pieces, c->carry_pieces, c->carry_piece_count * sizeof *slab->pieces);
    slab->piece_count = c->carry_piece_count;
    return SGZ_OK;
}

/* Save [open, put) and [get, len) for the next slab; positions become relative to open. */
static sgz_status save_carry(sgz_cutter *c, sgz_error *err)
{
    sgz_slab *slab = c->slab;
    size_t kept = c->put - c->open, ahead = c->len - c->get;
    if (!grow((void **)&c->carry, &c->carry_cap, kept + ahead, 1))
        return no_memory(err);
    if (kept)
        memcpy(c->carry, slab->buf + c->open, kept);
    if (ahead)
        memcpy(c->carry + kept, slab->buf + c->get, ahead);
    c->carry_put = kept;
    c->carry_len = kept + ahead;
    c->carry_run = c->run_start - c->open;
    c->header_start = c->header_start > c->open ? c->header_start - c->open : 0;
    c->carry_piece_count = slab->piece_count - c->open_piece;
    if (!grow((void **)&c->carry_pieces, &c->carry_piece_cap, c->carry_piece_count,
              sizeof *c->carry_pieces))
        return no_memory(err);
    for (size_t i = 0; i < c->carry_piece_count; i++) {
        c->carry_pieces[i] = slab->pieces[c->open_piece + i];
        c->carry_pieces[i].start -= c->open;
    }
    slab->piece_count = c->open_piece;
    slab->len = c->open;
    return SGZ_OK;
}

/* How much to read: to the slab's end, but in the middle of a large file only to the end
 * of its last whole chunk, so that little is carried over. 0: this slab is done. */
static size_t read_size(const sgz_cutter *c)
{
    size_t limit = c->slab->cap - INSERT_ROOM;
    size_t room = c->len < limit ? limit - c->len : 0;
    /* Enough for every thread, and still in the third-level cache when it is compressed. */
    if (c->len >= SLAB_SOFT && c->open)
        return 0;
    if (c->len < SLAB_SOFT && room > SLAB_SOFT - c->len)
        room = SLAB_SOFT - c->len;
    if (c->phase != IN_PAYLOAD || !c->file_size || c->put != c->get || c->get != c->len)
        return room;
    if (c->left <= (int64_t)room)
        return room;
    if (c->chunk_left > (int64_t)room) {
        if (c->open)
            return 0;
        return c->chunk_left < (int64_t)(limit - c->len) ? (size_t)c->chunk_left : limit - c->len;
    }
    return (size_t)(c->chunk_left
                    + ((int64_t)room - c->chunk_left) / c->options.chunk_size
                        * c->options.chunk_size);
}

sgz_status sgz_cutter_fill(sgz_cutter *c, sgz_slab *slab, int *end, sgz_error *err)
{
    c->slab = slab;
    *end = 0;
    sgz_status status = load_carry(c, err);
    while (!status) {
        int full = 0;
        status = parse(c, &full, err);
        if (status || full)
            break;
        if (c->len == c->get && c->put < c->get)
            c->get = c->len = c->put;  /* nothing ahead: read right behind what is kept */
        if (exhausted(c)) {
            status = at_input_end(c, err);
            *end = 1;
            break;
        }
        size_t want = read_size(c), got;
        if (!want)
            break;
        status = take_in(c, slab->buf + c->len, want, &got, err);
        c->len += got;
    }
    return status ? status : save_carry(c, err);
}
