#define _GNU_SOURCE
#include "write/internal.h"

#include "base/buffer.h"
#include "write/chunked_end.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

/* Input bytes that one thread compresses at a time: 256 KiB keeps the last batches of a
 * conversion even between threads and costs nothing in locking (a batch takes 0.5 ms). */
#define BATCH_BYTES (256u << 10)

/* Of each slab the first bytes of so many members, one in each such part of it, are made in both ways:
 * a hundredth of it. */
#define SAMPLES 3
#define SAMPLE_BYTES ((size_t)16 << 10)

/* Smaller members of zeros are made anew. */
#define ZEROS_MIN ((size_t)64 << 10)

static int next_in_batch(const sgz_write_slab *in, size_t i, const sgz_write_batch *j,
                         size_t bytes)
{
    if (i == in->member_count || !in->members[i].copied != !j->copied)
        return 0;
    return j->copied || bytes + in->members[i].len <= BATCH_BYTES;
}

static sgz_status plan(sgz_write_slot *s, int reuse, sgz_error *err)
{
    size_t out = 0, packed = 0, count = s->in.member_count;
    s->batch_count = 0;
    for (size_t i = 0; i < count;) {
        if (!SGZ_FIT(s->batches, s->batch_cap, s->batch_count + 1))
            return sgz_write_no_memory(err);
        sgz_write_batch *j = &s->batches[s->batch_count++];
        size_t bytes = 0;
        *j = (sgz_write_batch){.first_member = i, .copied = s->in.members[i].copied != 0};
        j->out = j->copied ? packed : out;
        do {
            const sgz_write_member *member = &s->in.members[i];
            bytes += member->len;
            if (j->copied)
                packed += member->out_len;
            else
                out += sgz_codec_member_bound(member->len) /* a frame is shorter */;
        } while (next_in_batch(&s->in, ++i, j, bytes));
        j->member_count = i - j->first_member;
        if (j->copied)
            j->out_len = packed - j->out;
        else
            j->out_cap = out - j->out;
    }
    if (out > s->out_cap) {
        free(s->out);
        s->out_cap = 0;
        s->out = sgz_base_buffer_new(out);
        if (!s->out)
            return sgz_write_no_memory(err);
        s->out_cap = out;
    }
    s->chunks_due = 0;
    for (size_t i = 0; i < s->in.piece_count && !s->chunks_due; i++)
        s->chunks_due = !s->in.pieces[i].hashed;
    memset(s->parts, 0, sizeof s->parts);
    s->parts[LOAD].count = s->in.load_count;
    s->parts[COMPRESS].count = s->batch_count;
    s->parts[SAMPLE].count = reuse && s->in.lz_piece_count;
    s->reuse = 0;
    return SGZ_OK;
}

sgz_status sgz_write_fill(sgz_write_worker *w, sgz_write_slot *s, sgz_error *err)
{
    sgz_write_pipeline *c = w->c;
    sgz_status status = c->filler.fill(c->filler.arg, &s->in, &s->last, err);
    return status ? status : plan(s, c->options.reuse, err);
}

sgz_status sgz_write_load(sgz_write_worker *w, sgz_write_slot *s, sgz_error *err)
{
    sgz_write_pipeline *c = w->c;
    return c->filler.load(c->filler.arg, w->loader, &s->in, w->part, err);
}

static int is_zeros(const uint8_t *data, size_t len)
{
    return !data[0] && !memcmp(data, data + 1, len - 1);
}

/* Compress one member. What is a hole in a sparse file is many members of zeros, each the same:
 * made once, and copied. */
static sgz_status pack(sgz_write_worker *w, const uint8_t *data, size_t len, uint8_t *out,
                       size_t room, size_t *out_len, sgz_error *err)
{
    return sgz_write_is_zstd(w->c)
               ? sgz_codec_frame(&w->framer, data, len, out, room, out_len, err)
               : sgz_codec_deflate_member(&w->deflater, data, len, 0, out, room, out_len, err);
}

static sgz_status compress(sgz_write_worker *w, const uint8_t *data, size_t len, uint8_t *out,
                           size_t room, size_t *out_len, sgz_error *err)
{
    if (len < ZEROS_MIN || !is_zeros(data, len))
        return pack(w, data, len, out, room, out_len, err);
    if (w->zeros.len == len) {
        memcpy(out, w->zeros.out, *out_len = w->zeros.out_len);
        return SGZ_OK;
    }
    sgz_status status = pack(w, data, len, out, room, out_len, err);
    uint8_t *kept = status ? NULL : realloc(w->zeros.out, *out_len);
    w->zeros.len = kept ? len : 0;
    if (kept) {
        w->zeros.out = kept;
        w->zeros.out_len = *out_len;
        memcpy(kept, out, *out_len);
    }
    return status;
}

/* What a slab is does not depend on how the input comes, so neither does this. */
sgz_status sgz_write_sample(sgz_write_worker *w, sgz_write_slot *s, sgz_error *err)
{
    const sgz_write_slab *in = &s->in;
    size_t compressed = 0, reused = 0, i = 0;
    sgz_codec_recode_begin(w->recoder, in->buf, &in->lz, in->lz_pieces, in->lz_piece_count);
    for (size_t k = 0; k < SAMPLES; k++) {
        while (i < in->member_count && in->members[i].start < in->len / SAMPLES * k)
            i++;
        if (i == in->member_count)
            break;
        const sgz_write_member *member = &in->members[i++];
        size_t len = member->len < SAMPLE_BYTES ? member->len : SAMPLE_BYTES, made = 0;
        /* The slab's own output is not made yet, and has room for any of its members. */
        sgz_status status = sgz_codec_recode_member(w->recoder, member->start, len, s->out, s->out_cap,
                                                    &made, err);
        reused += made;
        if (!status)
            status = sgz_codec_deflate_member(&w->deflater, in->buf + member->start, len, 0, s->out,
                                              s->out_cap, &made, err);
        compressed += made;
        if (status)
            return status;
    }
    s->reuse = reused <= compressed;
    return SGZ_OK;
}

static int is_hole(const sgz_write_slab *in, const sgz_write_member *member)
{
    return member->len >= ZEROS_MIN && is_zeros(in->buf + member->start, member->len);
}

sgz_status sgz_write_compress(sgz_write_worker *w, sgz_write_slot *s, sgz_error *err)
{
    sgz_write_pipeline *c = w->c;
    sgz_write_batch *j = &s->batches[w->part];
    if (s->reuse)
        sgz_codec_recode_begin(w->recoder, s->in.buf, &s->in.lz, s->in.lz_pieces,
                               s->in.lz_piece_count);
    for (size_t i = 0; i < j->member_count && !j->copied; i++) {
        sgz_write_member *member = &s->in.members[j->first_member + i];
        uint8_t *out = s->out + j->out + j->out_len;
        size_t room = j->out_cap - j->out_len;
        sgz_status status = SGZ_OK;
        member->out_len = 0;
        if (c->filler.reuse)
            status = c->filler.reuse(c->filler.arg, w->loader, &s->in, j->first_member + i, out,
                                     room, &member->out_len, err);
        if (!status && !member->out_len && s->reuse && !is_hole(&s->in, member))
            status = sgz_codec_recode_member(w->recoder, member->start, member->len, out, room,
                                             &member->out_len, err);
        else if (!status && !member->out_len)
            status = compress(w, s->in.buf + member->start, member->len, out, room,
                              &member->out_len, err);
        if (status)
            return status;
        if (c->filler.crcs)
            member->crc = sgz_codec_crc32(c->codecs, 0, out, member->out_len);
        j->out_len += member->out_len;
    }
    return SGZ_OK;
}

sgz_status sgz_write_hash_tar(sgz_write_worker *w, sgz_write_slot *s, sgz_error *err)
{
    sgz_write_pipeline *c = w->c;
    size_t count = 0;
    if (!SGZ_FIT(c->messages, c->message_cap, s->in.piece_count))
        return sgz_write_no_memory(err);
    for (size_t i = 0; i < s->in.piece_count; i++) {
        sgz_write_piece *piece = &s->in.pieces[i];
        if (!piece->hashed)
            c->messages[count++] =
                (sgz_message){s->in.buf + piece->start, piece->len, piece->digest};
    }
    sgz_write_blob_tar(&c->writer, s->in.buf, s->in.len, c->messages, count);
    c->writer.tar_size += s->in.tar_len - (int64_t)s->in.len;
    return SGZ_OK;
}

sgz_status sgz_write_hash_files(sgz_write_worker *w, sgz_write_slot *s, sgz_error *err)
{
    sgz_write_pipeline *c = w->c;
    if (c->options.format == SGZ_WRITE_CHUNKED && !s->in.unfit) {
        sgz_status status = sgz_write_split_slab(&c->split, &s->in, err);
        if (status)
            return status;
    }
    for (size_t i = 0; i < s->in.piece_count; i++) {
        const sgz_write_piece *piece = &s->in.pieces[i];
        if (piece->whole || piece->file_hashed)
            continue;
        if (piece->row == piece->file_row)
            sgz_codec_sha256_init(c->codecs, &c->file_sha);
        sgz_codec_sha256_update(c->codecs, &c->file_sha, s->in.buf + piece->start, piece->len);
        if (!piece->last)
            continue;
        uint8_t digest[32];
        sgz_codec_sha256_final(c->codecs, &c->file_sha, digest);
        pthread_mutex_lock(c->filler.lock);
        uint64_t at = sgz_toc_store(c->toc, digest, sizeof digest);
        if (at != UINT64_MAX) {
            c->toc->rows[piece->file_row].digest_off = at;
            c->toc->rows[piece->file_row].flags |= SGZ_HAS_DIGEST;
        }
        pthread_mutex_unlock(c->filler.lock);
        if (at == UINT64_MAX)
            return sgz_write_no_memory(err);
    }
    return SGZ_OK;
}

static void record_rows(sgz_write_pipeline *c, const sgz_write_slot *s)
{
    int64_t offset = c->writer.position;
    pthread_mutex_lock(c->filler.lock);
    for (size_t i = 0; i < s->in.member_count; i++) {
        const sgz_write_member *member = &s->in.members[i];
        for (size_t k = 0; k < member->piece_count; k++) {
            const sgz_write_piece *piece = &s->in.pieces[member->first_piece + k];
            sgz_entry *row = &c->toc->rows[piece->row];
            row->offset = offset + piece->at;
            row->inner_offset = (int64_t)piece->inner;
            memcpy(row->chunk_digest, piece->digest, 32);
            row->flags |= SGZ_HAS_CHUNK_DIGEST;
            if (piece->whole)
                row->flags |= SGZ_HAS_DIGEST | SGZ_DIGEST_IS_CHUNK;
            if (c->filler.kept && piece->last)
                c->toc->rows[piece->file_row].inner_offset = offset + (int64_t)member->out_len;
        }
        offset += (int64_t)member->out_len;
    }
    pthread_mutex_unlock(c->filler.lock);
}

static const uint8_t *made_by(const sgz_write_slot *s, const sgz_write_batch *j)
{
    return (j->copied ? s->in.packed : s->out) + j->out;
}

sgz_status sgz_write_place(sgz_write_worker *w, sgz_write_slot *s, sgz_error *err)
{
    sgz_write_pipeline *c = w->c;
    size_t at = 0, len = s->tar_beside && !c->options.no_diff_id ? s->in.len : 0;
    record_rows(c, s);
    for (size_t i = 0; i < s->in.member_count; i++)
        c->writer.members += s->in.members[i].copied ? s->in.members[i].copied : 1;
    sgz_status status = SGZ_OK;
    if (c->filler.placed)
        status = c->filler.placed(c->filler.arg, &s->in, c->writer.position, err);
    for (size_t i = 0; i < s->batch_count && !status; i++)
        at += sgz_write_blob_hash(&c->writer, made_by(s, &s->batches[i]), s->batches[i].out_len,
                                  s->in.buf + at, len - at);
    if (s->tar_beside && !status) {
        sgz_write_blob_tar(&c->writer, s->in.buf + at, len - at, NULL, 0);
        c->writer.tar_size += s->in.tar_len - (int64_t)(len - at);
    }
    return status;
}

sgz_status sgz_write_store(sgz_write_worker *w, sgz_write_slot *s, sgz_error *err)
{
    sgz_write_pipeline *c = w->c;
    sgz_status status = SGZ_OK;
    for (size_t i = 0; i < s->batch_count && !status; i++)
        status = sgz_write_blob_store(&c->writer, made_by(s, &s->batches[i]), s->batches[i].out_len,
                                      err);
#ifdef SYNC_FILE_RANGE_WRITE
    if (!status && c->options.writeback && c->writer.sink->fd >= 0)
        sync_file_range(c->writer.sink->fd, 0, 0, SYNC_FILE_RANGE_WRITE); /* a hint */
#endif
    return status;
}

sgz_status sgz_write_end(sgz_write_worker *w, sgz_write_slot *s, sgz_error *err)
{
    sgz_write_pipeline *c = w->c;
    (void)s;
    sgz_status status = sgz_codec_sha256_new(c->codecs, &c->tail_sha, err);
    if (status)
        return status;
    sgz_codec_sha256_init(c->codecs, &c->tail_sha);
    c->result.notes = *c->filler.notes(c->filler.arg);
    c->writer.tail = &c->tail_sha;
    const sgz_error *unfit = c->filler.unfit ? c->filler.unfit(c->filler.arg) : NULL;
    int level = c->options.level, kept = c->options.format == SGZ_WRITE_CHUNKED;
    if (unfit) {
        c->result.unfit = *unfit;
        sgz_write_blob_seal(&c->writer, c->toc, &c->result);
        c->result.entries = c->result.chunks = 0;
    } else if (sgz_write_is_zstd(c)) {
        status = sgz_write_chunked_finish(&c->writer, c->toc, c->filler.kept,
                                          kept ? &c->split : NULL, level, &c->result, err);
    } else {
        status = sgz_write_blob_finish(&c->writer, c->toc, level,
                                       c->options.format == SGZ_WRITE_STARGZ,
                                       c->options.toc_sink, &c->result, err);
    }
    if (!status)
        sgz_codec_sha256_final(c->codecs, &c->tail_sha, c->result.tail_digest);
    return status;
}
