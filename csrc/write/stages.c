#define _GNU_SOURCE
#include "write/internal.h"

#include "base/buffer.h"
#include "base/bytes.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

/* Input bytes that one thread compresses at a time: 256 KiB keeps the last batches of a
 * conversion even between threads and costs nothing in locking (a batch takes 0.5 ms). */
#define BATCH_BYTES (256u << 10)

/* So many samples of a slab, each in the middle of its part, are made in both ways: a 64th of the slab.
 * Half of them do where tokens lose in none, and gain a 32nd in all. Where they lose in all together, the
 * slab is in doubt: those of fast compressors may lose 1/25. (Cut loose from what is before it, a sample
 * loses more than a member does.) */
#define SAMPLES 8
#define SAMPLES_MIN 4
#define SAMPLE_BYTES ((size_t)8 << 10)
#define CLEAR_SHIFT 5
#define SMALLER_SHIFT 6

/* Of a part in doubt level 1 must save so much for all of the member to be made by it, too: 1/128. */
#define GAIN_SHIFT 7

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
        out += out / 4; /* slabs differ: a buffer made anew for each has new pages to be cleared */
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
    s->reuse = s->doubt = 0;
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

static sgz_status pack(sgz_write_worker *w, const uint8_t *data, size_t len, uint8_t *out,
                       size_t room, size_t *out_len, sgz_error *err)
{
    return sgz_write_is_zstd(w->c)
               ? sgz_codec_frame(&w->framer, data, len, out, room, out_len, err)
               : sgz_codec_deflate_member(&w->deflater, data, len, 0, out, room, out_len, err);
}

/* Compress one member. What is a hole in a sparse file is many members of zeros, each the same:
 * made once, and copied. */
static sgz_status compress(sgz_write_worker *w, const uint8_t *data, size_t len, uint8_t *out,
                           size_t room, size_t *out_len, sgz_error *err)
{
    if (len < ZEROS_MIN || !sgz_is_zeros(data, len))
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

/* The member that has this byte of the slab, or the next one. */
static size_t member_at(const sgz_write_slab *in, size_t at)
{
    size_t low = 0, high = in->member_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (in->members[middle].start + in->members[middle].len <= at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* What SAMPLE_BYTES from there on become in both ways. */
static sgz_status sample(sgz_write_worker *w, sgz_write_slot *s, size_t at, size_t *reused,
                         size_t *compressed, sgz_error *err)
{
    const sgz_write_slab *in = &s->in;
    size_t left = SAMPLE_BYTES, made = 0;
    *reused = *compressed = 0;
    for (size_t n = member_at(in, at); left && n < in->member_count; n++) {
        const sgz_write_member *member = &in->members[n];
        size_t begin = member->start > at ? member->start : at;
        size_t len = member->start + member->len - begin;
        len = len < left ? len : left;
        left -= len;
        /* The slab's own output is not made yet, and has room for any of its members. */
        sgz_status status = sgz_codec_recode_member(w->recoder, begin, len, s->out, s->out_cap,
                                                    &made, err);
        *reused += made;
        if (!status)
            status = sgz_codec_deflate_member(&w->deflater, in->buf + begin, len, 0, s->out,
                                              s->out_cap, &made, err);
        *compressed += made;
        if (status)
            return status;
    }
    /* (Of what nothing makes smaller there is no doubt: a member of that is looked at by itself.) */
    if (*compressed + (*compressed >> SMALLER_SHIFT) > SAMPLE_BYTES - left)
        *reused = *compressed = 0;
    return SGZ_OK;
}

/* What a slab is does not depend on how the input comes, so neither does this. */
sgz_status sgz_write_sample(sgz_write_worker *w, sgz_write_slot *s, sgz_error *err)
{
    static const uint8_t ORDER[SAMPLES] = {2, 5, 0, 7, 3, 6, 1, 4};
    size_t len = s->in.len, all_reused = 0, all_compressed = 0;
    int clear = 1;
    sgz_codec_recode_begin(w->recoder, s->in.buf, &s->in.lz, s->in.lz_pieces, s->in.lz_piece_count);
    for (size_t k = 0; k < SAMPLES; k++) {
        size_t at = len / SAMPLES * ORDER[k] + len / (2 * SAMPLES);
        size_t reused, compressed;
        sgz_status status = sample(w, s, at, &reused, &compressed, err);
        if (status)
            return status;
        all_reused += reused;
        all_compressed += compressed;
        clear &= reused <= compressed;
        if (clear && k + 1 >= SAMPLES_MIN && all_reused + (all_reused >> CLEAR_SHIFT) < all_compressed)
            break;
    }
    s->reuse = 1;
    s->doubt = all_reused > all_compressed;
    return SGZ_OK;
}

/* Make a member of its tokens; and where these may be poor, by level 1 too: the smaller counts. */
static sgz_status reuse(sgz_write_worker *w, const sgz_write_slot *s, sgz_write_member *member,
                        uint8_t *out, size_t room, sgz_error *err)
{
    const uint8_t *data = s->in.buf + member->start;
    size_t made = 0, cap = sgz_codec_member_bound(member->len);
    sgz_status status = sgz_codec_recode_member(w->recoder, member->start, member->len, out, room,
                                                &member->out_len, err);
    member->reused = 1;
    if (status)
        return status;
    sgz_recode_range doubt = sgz_codec_recode_doubt(w->recoder);
    if (s->doubt)
        doubt = (sgz_recode_range){0, member->len};
    if (!doubt.len)
        return SGZ_OK;
    if (!SGZ_FIT(w->scratch, w->scratch_cap, cap))
        return sgz_write_no_memory(err);
    if (doubt.len < member->len) {
        status = pack(w, data + doubt.at, doubt.len, w->scratch, cap, &made, err);
        if (status || made + (made >> GAIN_SHIFT) > doubt.len)
            return status;
    }
    status = pack(w, data, member->len, w->scratch, cap, &made, err);
    if (!status && made < member->out_len) {
        memcpy(out, w->scratch, member->out_len = made);
        member->reused = 0;
    }
    return status;
}

/* Inflate a member that was made, and compare. */
static sgz_status verify(sgz_write_worker *w, const uint8_t *data, size_t len, const uint8_t *member,
                         size_t member_len, sgz_error *err)
{
    size_t made;
    if (!SGZ_FIT(w->scratch, w->scratch_cap, len + 1))
        return sgz_write_no_memory(err);
    sgz_codec_inflater_reset(&w->inflater, 0);
    sgz_status status = sgz_codec_inflate(&w->inflater, &member, &member_len, w->scratch, len + 1,
                                          &made, 1, err);
    if (status || member_len || made != len || memcmp(w->scratch, data, len)
        || !sgz_codec_inflater_at_member_end(&w->inflater))
        return sgz_base_fail(err, SGZ_ECODEC, -1, NULL, 0,
                             "a member of %zu bytes was compressed wrongly: please report this; "
                             "another level (--level) makes it in another way", len);
    return SGZ_OK;
}

static int is_hole(const sgz_write_slab *in, const sgz_write_member *member)
{
    return member->len >= ZEROS_MIN && sgz_is_zeros(in->buf + member->start, member->len);
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
        member->reused = 0;
        if (c->filler.reuse)
            status = c->filler.reuse(c->filler.arg, w->loader, &s->in, j->first_member + i, out,
                                     room, &member->out_len, err);
        if (!status && !member->out_len && s->reuse && !is_hole(&s->in, member))
            status = reuse(w, s, member, out, room, err);
        else if (!status && !member->out_len)
            status = compress(w, s->in.buf + member->start, member->len, out, room,
                              &member->out_len, err);
        if (!status && c->options.verify)
            status = verify(w, s->in.buf + member->start, member->len, out, member->out_len, err);
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

sgz_status sgz_write_split_tar(sgz_write_worker *w, sgz_write_slot *s, sgz_error *err)
{
    sgz_write_pipeline *c = w->c;
    if (c->options.format != SGZ_WRITE_CHUNKED || s->in.unfit)
        return SGZ_OK;
    return sgz_write_split_slab(&c->split, &s->in, err);
}

sgz_status sgz_write_list(sgz_write_worker *w, sgz_write_slot *s, sgz_error *err)
{
    sgz_write_pipeline *c = w->c;
    if (!c->filler.kept || s->in.unfit)
        return SGZ_OK;
    return sgz_write_chunked_rows(&c->chunked, c->filler.kept, s->in.rows_done, c->filler.lock,
                                  err);
}

static void record_rows(sgz_write_pipeline *c, const sgz_write_slot *s)
{
    int64_t offset = c->writer.position;
    pthread_mutex_lock(c->filler.lock);
    for (size_t i = 0; i < s->in.member_count; i++) {
        const sgz_write_member *member = &s->in.members[i];
        for (size_t k = 0; k < member->piece_count; k++) {
            const sgz_write_piece *piece = &s->in.pieces[member->first_piece + k];
            sgz_entry *row = sgz_write_row(c, piece->row);
            row->offset = offset + piece->at;
            row->inner_offset = (int64_t)piece->inner;
            memcpy(row->chunk_digest, piece->digest, 32);
            row->flags |= SGZ_HAS_CHUNK_DIGEST;
            if (piece->whole)
                row->flags |= SGZ_HAS_DIGEST | SGZ_DIGEST_IS_CHUNK;
            if (c->filler.kept && piece->last)
                sgz_write_row(c, piece->file_row)->inner_offset = offset + (int64_t)member->out_len;
        }
        offset += (int64_t)member->out_len;
    }
    pthread_mutex_unlock(c->filler.lock);
}

static const uint8_t *made_by(const sgz_write_slot *s, const sgz_write_batch *j)
{
    return (j->copied ? s->in.packed : s->out) + j->out;
}

static int has_file_digest_due(const sgz_write_piece *piece)
{
    return !piece->whole && !piece->file_hashed;
}

/* Of files of several chunks; those that end here go into the TOC. */
static sgz_status store_file_digests(sgz_write_pipeline *c, const sgz_write_slot *s,
                                     const uint8_t (*digest)[32], sgz_error *err)
{
    uint64_t at = 0;
    pthread_mutex_lock(c->filler.lock);
    for (size_t i = 0; i < s->in.piece_count && at != UINT64_MAX; i++) {
        const sgz_write_piece *piece = &s->in.pieces[i];
        if (!has_file_digest_due(piece) || !piece->last)
            continue;
        sgz_entry *row = sgz_write_row(c, piece->file_row);
        at = row->digest_off;
        if (c->filler.kept)
            memcpy(c->toc->arena + at, *digest++, sizeof *digest);
        else
            row->digest_off = at = sgz_toc_store(c->toc, *digest++, sizeof *digest);
        row->flags |= SGZ_HAS_DIGEST;
    }
    pthread_mutex_unlock(c->filler.lock);
    return at == UINT64_MAX ? sgz_write_no_memory(err) : SGZ_OK;
}

/* The blob's digest, the files', and the DiffID if that was not made beside the chunks'. */
static sgz_status hash_placed(sgz_write_pipeline *c, const sgz_write_slot *s, sgz_error *err)
{
    size_t count = 0, ends = 0;
    if (!SGZ_FIT(c->hashed, c->hashed_cap, s->batch_count + s->in.piece_count + 1) ||
        !SGZ_FIT(c->file_digests, c->file_digest_cap, s->in.piece_count))
        return sgz_write_no_memory(err);
    sgz_hash_piece *blob = c->hashed, *tar = blob + s->batch_count, *files = tar + 1;
    for (size_t i = 0; i < s->batch_count; i++)
        blob[i] = (sgz_hash_piece){.data = made_by(s, &s->batches[i]),
                                   .len = s->batches[i].out_len};
    *tar = (sgz_hash_piece){.data = s->in.buf, .len = s->in.len};
    for (size_t i = 0; i < s->in.piece_count; i++) {
        const sgz_write_piece *piece = &s->in.pieces[i];
        if (has_file_digest_due(piece))
            files[count++] = (sgz_hash_piece){
                .data = s->in.buf + piece->start, .len = piece->len,
                .digest = piece->last ? c->file_digests[ends++] : NULL};
    }
    sgz_write_blob_hash(&c->writer, blob, s->batch_count, s->tar_beside ? tar : NULL,
                        &(sgz_hash_stream){.hasher = &c->file_sha, .pieces = files,
                                           .count = count});
    if (s->tar_beside)
        c->writer.tar_size += s->in.tar_len;
    return store_file_digests(c, s, c->file_digests, err);
}

sgz_status sgz_write_place(sgz_write_worker *w, sgz_write_slot *s, sgz_error *err)
{
    sgz_write_pipeline *c = w->c;
    record_rows(c, s);
    for (size_t i = 0; i < s->in.member_count; i++) {
        c->writer.members += s->in.members[i].copied ? s->in.members[i].copied : 1;
        c->writer.reused += s->in.members[i].reused != 0;
    }
    sgz_status status = SGZ_OK;
    if (c->filler.placed)
        status = c->filler.placed(c->filler.arg, &s->in, c->writer.position, err);
    return status ? status : hash_placed(c, s, err);
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
    int kept = c->options.format == SGZ_WRITE_CHUNKED;
    if (!unfit && sgz_write_is_zstd(c)) {
        status = sgz_write_chunked_finish(&c->chunked, &c->writer, c->toc, c->filler.kept,
                                          kept ? &c->split : NULL, &c->result, err);
        if (status == SGZ_ENOTOC && kept && !c->filler.strict)
            unfit = err;
    } else if (!unfit) {
        status = sgz_write_blob_finish(&c->writer, c->toc, c->options.level,
                                       c->options.format == SGZ_WRITE_STARGZ,
                                       c->options.toc_sink, &c->result, err);
    }
    if (unfit) {
        c->result = (sgz_write_result){.notes = c->result.notes, .unfit = *unfit};
        status = SGZ_OK;
        sgz_write_blob_seal(&c->writer, c->toc, &c->result);
        c->result.entries = c->result.chunks = 0;
    }
    if (!status)
        sgz_codec_sha256_final(c->codecs, &c->tail_sha, c->result.tail_digest);
    return status;
}
