/* The layout: which bytes of the tar, or of the base, come where. Nothing is read here. */
#include "pack/internal.h"

#include "base/buffer.h"

#include <stdlib.h>

/* A slab is full with this much of the tar, or of what is copied, unless one chunk has more. */
#define SLAB_SOFT ((size_t)4 << 20)
#define PACKED_SOFT ((size_t)2 << 20)

/* Load jobs: as much as one thread reads in about a millisecond. A file costs as much as this
 * many bytes, whatever its size. */
#define JOB_BYTES ((size_t)512 << 10)
#define FILE_COST ((size_t)8 << 10)
#define COPY_COST ((size_t)256)

/* --- plans ------------------------------------------------------------------------------- */

static sgz_pack_plan *plan_of(sgz_pack *p, sgz_write_slab *slab)
{
    sgz_pack_plan *plan = slab->plan;
    if (!plan) {
        plan = calloc(1, sizeof *plan);
        if (!plan)
            return NULL;
        plan->next = p->plans;
        p->plans = plan;
        slab->plan = plan;
    }
    plan->part_count = plan->job_count = plan->mark_count = plan->job_bytes = 0;
    plan->base_end = -1;
    return plan;
}

static sgz_status add_part(sgz_pack_plan *plan, const sgz_pack_part *part, sgz_error *err)
{
    size_t cost = part->copied ? COPY_COST + part->packed_len : FILE_COST + part->len;
    if (!plan->job_count || plan->job_bytes + cost > JOB_BYTES) {
        if (!SGZ_PUSH(plan->jobs, plan->job_count, plan->job_cap, plan->part_count))
            return sgz_pack_no_memory(err);
        plan->job_bytes = 0;
    }
    plan->job_bytes += cost;
    return SGZ_PUSH(plan->parts, plan->part_count, plan->part_cap, *part)
               ? SGZ_OK
               : sgz_pack_no_memory(err);
}

static sgz_status add_mark(sgz_pack_plan *plan, const sgz_write_slab *slab, sgz_pack_mark mark,
                           sgz_error *err)
{
    mark.member = (uint32_t)slab->member_count - 1;
    return SGZ_PUSH(plan->marks, plan->mark_count, plan->mark_cap, mark)
               ? SGZ_OK
               : sgz_pack_no_memory(err);
}

/* --- members ----------------------------------------------------------------------------- */

static sgz_status add_member(sgz_write_slab *slab, size_t len, size_t copied, sgz_error *err)
{
    sgz_write_member member = {
        .start = slab->len, .len = len, .first_piece = slab->piece_count, .copied = copied};
    return SGZ_PUSH(slab->members, slab->member_count, slab->member_cap, member)
               ? SGZ_OK
               : sgz_pack_no_memory(err);
}

static sgz_status add_piece(sgz_write_slab *slab, const sgz_write_piece *piece, sgz_error *err)
{
    if (!SGZ_PUSH(slab->pieces, slab->piece_count, slab->piece_cap, *piece))
        return sgz_pack_no_memory(err);
    slab->members[slab->member_count - 1].piece_count++;
    return SGZ_OK;
}

/* The next member of the layer is the base's at part->base_at. Neighbours become one run. */
static sgz_status add_copied(sgz_pack *p, sgz_write_slab *slab, sgz_pack_plan *plan,
                             sgz_pack_part *part, int64_t *at, sgz_error *err)
{
    sgz_status status = SGZ_OK;
    if (part->base_at == plan->base_end) {
        slab->members[slab->member_count - 1].copied++;
    } else {
        status = add_member(slab, 0, 1, err);
        if (status)
            return status;
    }
    sgz_write_member *member = &slab->members[slab->member_count - 1];
    if (slab->packed_len + part->packed_len > slab->packed_cap) {
        size_t cap = slab->packed_len + part->packed_len;
        cap = cap < PACKED_SOFT + (PACKED_SOFT / 4) ? PACKED_SOFT + (PACKED_SOFT / 4) : cap;
        free(slab->packed);
        slab->packed_cap = 0;
        slab->packed = sgz_base_buffer_new(cap);
        if (!slab->packed)
            return sgz_pack_no_memory(err);
        slab->packed_cap = cap;
    }
    *at = (int64_t)member->out_len;
    part->copied = 1;
    part->packed = slab->packed_len;
    part->start = slab->len;
    member->out_len += part->packed_len;
    slab->packed_len += part->packed_len;
    slab->tar_len += (int64_t)part->tar_len;
    if (p->options.diff_id) {
        member->len += part->tar_len;
        slab->len += part->tar_len;
    }
    plan->base_end = part->base_at + (int64_t)part->packed_len;
    return add_part(plan, part, err);
}

/* --- the landmark ------------------------------------------------------------------------- */

static sgz_status put_landmark(sgz_pack *p, sgz_write_slab *slab, sgz_error *err)
{
    sgz_tar_entry entry = {.type = '0', .name = SGZ_NO_LANDMARK,
                           .name_len = strlen(SGZ_NO_LANDMARK), .size = 1, .payload = 1,
                           .mtime = SGZ_NO_TIME};
    sgz_write_piece piece = {.start = SGZ_TAR_BLOCK, .len = 1, .whole = 1, .last = 1};
    sgz_status status = add_member(slab, SGZ_TAR_BLOCK, 0, err);
    if (status)
        return status;
    sgz_tar_plain_header(slab->buf, SGZ_NO_LANDMARK, 1);
    memset(slab->buf + SGZ_TAR_BLOCK, 0, SGZ_TAR_BLOCK);
    slab->buf[SGZ_TAR_BLOCK] = 0x0f;
    slab->len = SGZ_TAR_BLOCK;
    status = add_member(slab, SGZ_TAR_BLOCK, 0, err);
    if (status)
        return status;
    slab->len = 2 * SGZ_TAR_BLOCK;
    slab->tar_len = 2 * SGZ_TAR_BLOCK;
    pthread_mutex_lock(&p->toc_lock);
    status = sgz_toc_rows_entry(p->apply, &entry, 0, &piece.row, err);
    if (!status) {
        sgz_entry *row = &p->toc->rows[piece.row];
        piece.file_row = piece.row;
        row->chunk_size = 1;
        if (p->options.bytes.chunk_size == 1)
            row->flags |= SGZ_SET_CHUNK_SIZE;
    }
    pthread_mutex_unlock(&p->toc_lock);
    p->landmark_done = 1;
    return status ? status : add_piece(slab, &piece, err);
}

/* --- units -------------------------------------------------------------------------------- */

typedef struct {
    size_t end;             /* the first entry behind it */
    size_t headers_len;
    int same;               /* its headers are those of a unit of the base: base_unit */
    uint32_t base_unit;
} pack_extent;

/* Whether an entry's header is that of the base's entry `known`. All that stat sees is: it was
 * compared by the walk. The name is not, where know() found the file under its first name then. */
static int same_header(const sgz_pack *p, const sgz_pack_walk_entry *e)
{
    const sgz_pack_manifest *m = &p->m, *base = p->base;
    const sgz_pack_walk_entry *then = &base->entries[e->known].file;
    if (then->type != e->type || then->name_len != e->name_len
        || memcmp(m->arena + e->name_off, base->arena + then->name_off, e->name_len))
        return 0;
    if (e->type != '1')
        return 1;
    const sgz_pack_walk_entry *now = &m->entries[e->target].file;
    then = &base->entries[then->target].file;
    return now->name_len == then->name_len
        && !memcmp(m->arena + now->name_off, base->arena + then->name_off, now->name_len);
}

static sgz_status find_extent(sgz_pack *p, pack_extent *x, sgz_error *err)
{
    const sgz_pack_manifest *base = p->base;
    uint32_t first = p->m.entries[p->next].file.known;
    int same = first != SGZ_WALK_NONE && p->m.unit_count && p->same_headers;
    *x = (pack_extent){.end = p->next};
    while (x->end < p->m.entry_count) {
        const sgz_pack_walk_entry *e = &p->m.entries[x->end].file;
        sgz_status status = sgz_pack_header(p, x->end, &p->header, err);
        if (status)
            return status;
        x->headers_len += sgz_tar_expanded_len(&p->header.entry);
        same = same && e->known == first + (x->end - p->next) && same_header(p, e);
        x->end++;
        if ((e->type == '0' && e->size) || x->headers_len >= SGZ_HEADER_RUN)
            break;
    }
    if (same) {
        uint32_t unit = base->entries[first].unit;
        const sgz_pack_manifest_unit *u = &base->units[unit];
        /* The first unit's also hold the landmark. */
        x->same = unit && u->first_entry == first
            && sgz_pack_unit_entries(base, unit) == x->end - p->next
            && (uint64_t)u->headers_len == x->headers_len && u->data > u->start;
        x->base_unit = unit;
    }
    return SGZ_OK;
}

static unsigned notes_on(const sgz_tar_entry *entry)
{
    unsigned notes = 0;
    if (!sgz_tar_time_fits(entry->mtime))
        notes |= SGZ_NOTE_BIT(TIME);
    for (size_t i = 0; i < entry->xattr_count; i++) {
        const sgz_xattr *x = &entry->xattrs[i];
        if (memchr(x->key, '%', x->key_len) || memchr(x->key, '=', x->key_len))
            notes |= SGZ_NOTE_BIT(XATTR);
    }
    return notes;
}

/* Rows of the TOC, and with `out` the bytes of the headers. */
static sgz_status put_entries(sgz_pack *p, size_t end, uint8_t *out, uint32_t *row,
                              sgz_error *err)
{
    sgz_status status = SGZ_OK;
    for (size_t i = p->next; i < end && !status; i++) {
        const sgz_pack_walk_entry *e = &p->m.entries[i].file;
        p->m.entries[i].unit = (uint32_t)p->m.unit_count;
        status = sgz_pack_header(p, i, &p->header, err);
        if (!status)
            status = sgz_toc_rows_entry(p->apply, &p->header.entry, -1, row, err);
        if (status)
            continue;
        sgz_base_note(&p->notes, notes_on(&p->header.entry), p->header.entry.name,
                      p->header.entry.name_len);
        if (e->type == '0' && !e->size)
            sgz_toc_rows_empty(p->apply, *row);
        if (!out)
            continue;
        uint8_t *bytes;
        size_t len;
        status = sgz_tar_expanded_header(&p->header.entry, &bytes, &len, err);
        if (status)
            continue;
        memcpy(out, bytes, len);
        out += len;
        free(bytes);
    }
    return status;
}

/* The chunk of the base with which the contents of a known file begin. */
static uint32_t chunks_in_base(const sgz_pack *p, const sgz_pack_walk_entry *e)
{
    const sgz_pack_manifest *base = p->base;
    if (e->known == SGZ_WALK_NONE || base->entries[e->known].file.type != '0'
        || base->entries[e->known].file.size != e->size)
        return SGZ_WALK_NONE;
    uint32_t unit = base->entries[e->known].unit;
    const sgz_pack_manifest_unit *u = &base->units[unit];
    if (u->first_entry + sgz_pack_unit_entries(base, unit) != (uint64_t)e->known + 1
        || sgz_pack_unit_chunks(base, unit)
            != sgz_pack_chunk_count(e->size, p->options.bytes.chunk_size))
        return SGZ_WALK_NONE;
    return u->first_chunk;
}

/* The headers of the next unit; its file's chunks are to follow. */
static sgz_status put_unit(sgz_pack *p, sgz_write_slab *slab, sgz_pack_plan *plan,
                           sgz_error *err)
{
    pack_extent x;
    sgz_status status = find_extent(p, &x, err);
    if (status)
        return status;
    uint32_t row = SGZ_NO_ROW, number = (uint32_t)p->m.unit_count;
    sgz_pack_manifest_unit *unit = &p->m.units[number];
    *unit = (sgz_pack_manifest_unit){.first_entry = (uint32_t)p->next,
                                     .first_chunk = (uint32_t)p->m.chunk_count,
                                     .headers_len = (int64_t)x.headers_len};
    sgz_pack_mark mark = {.unit = number, .chunk = SGZ_WALK_NONE};
    uint8_t *out = NULL;
    if (x.same) {
        const sgz_pack_manifest_unit *u = &p->base->units[x.base_unit];
        sgz_pack_part part = {.entry = (uint32_t)p->next,
                              .headers = (uint32_t)(x.end - p->next),
                              .tar_len = x.headers_len,
                              .len = x.headers_len,
                              .base_at = u->start,
                              .packed_len = (size_t)(u->data - u->start),
                              .crc = u->headers_crc};
        mark.crc = u->headers_crc;
        status = add_copied(p, slab, plan, &part, &mark.at, err);
        p->counts.reused_bytes += u->data - u->start;
    } else {
        plan->base_end = -1;
        status = add_member(slab, x.headers_len, 0, err);
        out = slab->buf + slab->len;
        slab->len += x.headers_len;
        slab->tar_len += (int64_t)x.headers_len;
    }
    if (!status)
        status = add_mark(plan, slab, mark, err);
    if (status)
        return status;
    pthread_mutex_lock(&p->toc_lock);
    status = put_entries(p, x.end, out, &row, err);
    pthread_mutex_unlock(&p->toc_lock);
    if (status)
        return status;
    const sgz_pack_walk_entry *last = &p->m.entries[x.end - 1].file;
    p->unit_rows[number] = row;
    p->m.unit_count++;
    p->next = x.end;
    if (last->type == '0' && last->size) {
        p->file = (uint32_t)x.end - 1;
        p->file_size = last->size;
        p->file_done = 0;
        p->file_row = row;
        p->copy_chunk = p->base ? chunks_in_base(p, last) : SGZ_WALK_NONE;
        p->counts.reused_files += p->copy_chunk != SGZ_WALK_NONE;
        p->counts.read_files += p->copy_chunk == SGZ_WALK_NONE;
    }
    return SGZ_OK;
}

/* The row of the next chunk; a known file's digest. */
static sgz_status chunk_row(sgz_pack *p, int64_t len, const uint8_t *file_digest,
                            uint32_t *number, sgz_error *err)
{
    sgz_status status = SGZ_OK;
    *number = p->file_row;
    pthread_mutex_lock(&p->toc_lock);
    if (p->file_done)
        status = sgz_toc_rows_chunk(p->apply, number, err);
    if (!status) {
        sgz_entry *row = &p->toc->rows[*number];
        row->chunk_offset = p->file_done;
        row->chunk_size = len;
        if (p->file_size - p->file_done >= p->options.bytes.chunk_size)
            row->flags |= SGZ_SET_CHUNK_SIZE;
    }
    if (!status && file_digest) {
        uint64_t at = sgz_toc_store(p->toc, file_digest, 32);
        if (at == UINT64_MAX)
            status = sgz_pack_no_memory(err);
        p->toc->rows[*number].digest_off = at;
        p->toc->rows[*number].flags |= SGZ_HAS_DIGEST;
    }
    pthread_mutex_unlock(&p->toc_lock);
    return status;
}

/* The next chunk of the file; *full when it has no room here. */
static sgz_status put_chunk(sgz_pack *p, sgz_write_slab *slab, sgz_pack_plan *plan, int *full,
                            sgz_error *err)
{
    const sgz_pack_manifest *base = p->base;
    int64_t left = p->file_size - p->file_done, chunk_size = p->options.bytes.chunk_size;
    size_t len = (size_t)(left < chunk_size ? left : chunk_size);
    size_t tar_len = len + ((int64_t)len == left ? sgz_pack_padding(p->file_size) : 0);
    int copied = p->copy_chunk != SGZ_WALK_NONE, whole = (int64_t)len == p->file_size;
    uint32_t unit = copied ? base->entries[p->m.entries[p->file].file.known].unit : 0;
    const sgz_pack_manifest_chunk *c = copied ? &base->chunks[p->copy_chunk] : NULL;
    size_t packed = 0;
    if (copied)
        packed = (size_t)(sgz_pack_chunk_end(base, unit, p->copy_chunk) - c->offset);
    *full = slab->member_count
        && ((slab->len && slab->len + tar_len > slab->cap)
            || (slab->packed_len && slab->packed_len + packed > PACKED_SOFT));
    if (*full)
        return SGZ_OK;
    const uint8_t *digest = copied && !whole && !p->file_done ? base->units[unit].digest : NULL;
    sgz_write_piece piece = {.file_row = p->file_row,
                             .start = slab->len,
                             .len = len,
                             .whole = whole,
                             .last = (int64_t)len == left,
                             .hashed = copied || !p->options.diff_id || base,
                             .file_hashed = copied};
    sgz_pack_part part = {.entry = p->file,
                          .piece = (uint32_t)slab->piece_count,
                          .at = p->file_done,
                          .start = slab->len,
                          .len = len,
                          .tar_len = tar_len};
    sgz_pack_mark mark = {.unit = (uint32_t)p->m.unit_count - 1,
                          .chunk = (uint32_t)p->m.chunk_count,
                          .piece = part.piece};
    sgz_status status = chunk_row(p, (int64_t)len, digest, &piece.row, err);
    if (status)
        return status;
    if (copied) {
        memcpy(piece.digest, c->digest, 32);
        part.base_at = c->offset;
        part.packed_len = packed;
        part.crc = mark.crc = c->crc;
        p->counts.reused_bytes += (int64_t)packed;
        status = add_copied(p, slab, plan, &part, &mark.at, err);
        piece.at = mark.at;
        p->copy_chunk++;
    } else {
        plan->base_end = -1;
        status = add_member(slab, tar_len, 0, err);
        slab->len += tar_len;
        slab->tar_len += (int64_t)tar_len;
        if (!status)
            status = add_part(plan, &part, err);
    }
    if (!status)
        status = add_piece(slab, &piece, err);
    if (!status)
        status = add_mark(plan, slab, mark, err);
    p->m.chunk_count++;
    p->file_done += (int64_t)len;
    p->progress += (int64_t)len;
    return status;
}

sgz_status sgz_pack_fill(void *arg, sgz_write_slab *slab, int *end, sgz_error *err)
{
    sgz_pack *p = arg;
    sgz_status status = SGZ_OK;
    sgz_pack_plan *plan = plan_of(p, slab);
    int full = 0;
    *end = 0;
    slab->len = slab->member_count = slab->piece_count = slab->packed_len = slab->load_count = 0;
    slab->tar_len = 0;
    if (!plan)
        return sgz_pack_no_memory(err);
    if (!p->landmark_done)
        status = put_landmark(p, slab, err);
    while (!status && !full) {
        if (p->file_done < p->file_size) {
            status = put_chunk(p, slab, plan, &full, err);
        } else if (slab->len >= SLAB_SOFT || slab->packed_len >= PACKED_SOFT) {
            full = 1;
        } else if (p->next < p->m.entry_count) {
            status = put_unit(p, slab, plan, err);
        } else {
            *end = full = 1;
            pthread_mutex_lock(&p->toc_lock);
            status = sgz_toc_rows_finish(p->apply, &p->notes, err);
            pthread_mutex_unlock(&p->toc_lock);
        }
    }
    slab->load_count = plan->job_count;
    return status;
}

sgz_status sgz_pack_placed(void *arg, const sgz_write_slab *slab, int64_t offset, sgz_error *err)
{
    sgz_pack *p = arg;
    const sgz_pack_plan *plan = slab->plan;
    size_t member = 0;
    (void)err;
    for (size_t i = 0; i < plan->mark_count; i++) {
        const sgz_pack_mark *mark = &plan->marks[i];
        for (; member < mark->member; member++)
            offset += (int64_t)slab->members[member].out_len;
        const sgz_write_member *m = &slab->members[member];
        uint32_t crc = m->copied ? mark->crc : m->crc;
        if (mark->chunk == SGZ_WALK_NONE) {
            p->m.units[mark->unit].start = offset + mark->at;
            p->m.units[mark->unit].headers_crc = crc;
        } else {
            sgz_pack_manifest_chunk *chunk = &p->m.chunks[mark->chunk];
            chunk->offset = offset + mark->at;
            chunk->crc = crc;
            memcpy(chunk->digest, slab->pieces[mark->piece].digest, 32);
        }
    }
    return SGZ_OK;
}
