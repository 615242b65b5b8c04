#include "pack/internal.h"

#include <stdlib.h>
#include <unistd.h>

/* --- what is known ------------------------------------------------------------------------- */

static int same_file(const sgz_pack_walk_entry *a, const sgz_pack_walk_entry *b)
{
    return a->ino == b->ino && a->dev == b->dev && a->mtime == b->mtime
        && a->mtime_nsec == b->mtime_nsec && a->ctime == b->ctime
        && a->ctime_nsec == b->ctime_nsec;
}

/* The walk did not read link targets and xattrs of known entries: here they come from the base.
 * A second name of a file has none, and if it is the first one now, they are those of its
 * target then, as is the file's place. */
static int know(sgz_pack_manifest_entry *entry, const sgz_pack_manifest *base)
{
    sgz_pack_walk_entry *e = &entry->file;
    const sgz_pack_walk_entry *then = &base->entries[e->known].file;
    if (e->type == '0' && then->type == '1') {
        e->known = then->target;
        then = &base->entries[e->known].file;
        if (then->type != '0' || base->entries[e->known].flags & SGZ_MANIFEST_DOUBTFUL
            || then->size != e->size || !same_file(then, e))
            return 0;
    }
    return then->type == e->type || e->type == '1';
}

static sgz_status adopt(sgz_pack *p, sgz_pack_walk *walk, sgz_error *err)
{
    const sgz_pack_manifest *base = p->base;
    sgz_pack_manifest *m = &p->m;
    size_t more = 0, used = walk->arena_len, headers = 0, units = 2, chunks = 0;
    m->arena = walk->arena;
    m->arena_len = walk->arena_len;
    m->entry_count = walk->count;
    walk->arena = NULL;
    m->entries = malloc((walk->count + 1) * sizeof *m->entries);
    if (!m->entries)
        return sgz_pack_no_memory(err);
    for (size_t i = 0; i < walk->count; i++) {
        sgz_pack_manifest_entry *entry = &m->entries[i];
        *entry = (sgz_pack_manifest_entry){.file = walk->entries[i]};
        sgz_pack_walk_entry *e = &entry->file;
        if (e->known == SGZ_WALK_NONE)
            continue;
        if (!base || e->known >= base->entry_count || !know(entry, base))
            return sgz_base_fail(
                err, SGZ_EIO, -1, m->arena + e->name_off, e->name_len,
                "its entry in the base's manifest contradicts itself; pack without the "
                "base");
        if (e->type != '1')
            more += base->entries[e->known].file.link_len
                + base->entries[e->known].file.xattr_len;
    }
    char *arena = realloc(m->arena, used + more + 1);
    if (!arena)
        return sgz_pack_no_memory(err);
    m->arena = arena;
    m->arena_len = used + more;
    for (size_t i = 0; i < walk->count; i++) {
        sgz_pack_walk_entry *e = &m->entries[i].file;
        if (e->known != SGZ_WALK_NONE && e->type != '1') {
            const sgz_pack_walk_entry *then = &base->entries[e->known].file;
            e->link_len = then->link_len;
            e->link_off = used;
            memcpy(arena + used, base->arena + then->link_off, then->link_len);
            used += then->link_len;
            e->xattr_len = then->xattr_len;
            e->xattr_off = used;
            memcpy(arena + used, base->arena + then->xattr_off, then->xattr_len);
            used += then->xattr_len;
        }
        headers += 3 * SGZ_TAR_BLOCK + 2 * (size_t)e->name_len + e->xattr_len + e->link_len;
        if (e->type == '0' && e->size) {
            units++;
            chunks += (size_t)sgz_pack_chunk_count(e->size, p->options.bytes.chunk_size);
            p->counts.source_bytes += e->size;
        }
        headers += e->type == '1' ? m->entries[e->target].file.name_len : 0;
    }
    units += 2 * (headers / SGZ_HEADER_RUN);
    if (walk->count >= UINT32_MAX || units >= UINT32_MAX || chunks >= UINT32_MAX)
        return sgz_base_fail(err, SGZ_EIO, -1, NULL, 0,
                             "a layer cannot hold so many files and chunks");
    m->units = malloc(units * sizeof *m->units);
    m->chunks = malloc((chunks + 1) * sizeof *m->chunks);
    p->unit_rows = malloc(units * sizeof *p->unit_rows);
    return m->units && m->chunks && p->unit_rows ? SGZ_OK : sgz_pack_no_memory(err);
}

/* --- life ---------------------------------------------------------------------------------- */

static int64_t progress(void *arg)
{
    return ((sgz_pack *)arg)->progress;
}

static const sgz_notes *notes(void *arg)
{
    return &((sgz_pack *)arg)->notes;
}

static int same_headers(const sgz_pack_manifest_options *a, const sgz_pack_manifest_options *b)
{
    return a->owner == b->owner && a->group == b->group && a->mtime == b->mtime
        && a->mtime_max == b->mtime_max;
}

sgz_pack *sgz_pack_new(const sgz_codecs *codecs, int root, sgz_pack_walk *walk, sgz_toc *toc,
                       const sgz_pack_options *options, sgz_error *err)
{
    sgz_pack *p = calloc(1, sizeof *p);
    if (!p) {
        sgz_pack_no_memory(err);
        return NULL;
    }
    size_t slab = ((size_t)4 << 20) + SGZ_HEADER_RUN + 2 * SGZ_TAR_LONG_MAX;
    size_t chunk = (size_t)options->bytes.chunk_size + SGZ_TAR_BLOCK;
    p->codecs = codecs;
    p->root = root;
    p->toc = toc;
    p->options = *options;
    p->base = options->base;
    p->copy_chunk = SGZ_WALK_NONE;
    p->m.options = options->bytes;
    p->same_headers = p->base && same_headers(&p->base->options, &options->bytes);
    pthread_mutex_init(&p->toc_lock, NULL);
    pthread_mutex_init(&p->lock, NULL);
    p->filler = (sgz_write_filler){.arg = p,
                                   .slab_size = slab > chunk ? slab : chunk,
                                   .lock = &p->toc_lock,
                                   .crcs = 1,
                                   .fill = sgz_pack_fill,
                                   .progress = progress,
                                   .notes = notes,
                                   .worker_new = sgz_pack_worker_new,
                                   .worker_free = sgz_pack_worker_free,
                                   .load = sgz_pack_load,
                                   .reuse = p->base ? sgz_pack_reuse : NULL,
                                   .placed = sgz_pack_placed};
    p->apply = sgz_toc_rows_new(toc);
    sgz_status status = p->apply ? adopt(p, walk, err) : sgz_pack_no_memory(err);
    sgz_pack_walk_free(walk);
    if (!status)
        return p;
    sgz_pack_free(p);
    return NULL;
}

void sgz_pack_free(sgz_pack *p)
{
    if (!p)
        return;
    for (sgz_pack_plan *plan = p->plans, *next; plan; plan = next) {
        next = plan->next;
        free(plan->parts);
        free(plan->jobs);
        free(plan->marks);
        free(plan);
    }
    sgz_pack_header_free(&p->header);
    sgz_toc_rows_free(p->apply);
    pthread_mutex_destroy(&p->toc_lock);
    pthread_mutex_destroy(&p->lock);
    free(p->m.entries);
    free(p->m.units);
    free(p->m.chunks);
    free(p->m.arena);
    free(p->unit_rows);
    sgz_map_free(&p->chunks);
    free(p);
}

const sgz_write_filler *sgz_pack_filler(sgz_pack *p)
{
    return &p->filler;
}

/* --- what was made -------------------------------------------------------------------------- */

void sgz_pack_count(sgz_pack *p, sgz_pack_counts *counts)
{
    *counts = p->counts;
    counts->reused_files += p->found.reused_files;
    counts->reused_bytes += p->found.reused_bytes;
    counts->damaged = p->found.damaged;
    counts->changed = p->found.changed;
}

void sgz_pack_describe(sgz_pack *p, const sgz_write_result *result, sgz_pack_manifest *manifest)
{
    sgz_pack_manifest *m = &p->m;
    if (!m->unit_count)
        m->units[m->unit_count++] = (sgz_pack_manifest_unit){.data = result->toc_offset};
    /* The landmark stands before the first unit's headers. */
    m->units[0].start = 0;
    m->units[0].headers_len += 2 * SGZ_TAR_BLOCK;
    for (uint32_t i = 0; i < m->unit_count; i++) {
        sgz_pack_manifest_unit *u = &m->units[i];
        u->end = i + 1 < m->unit_count ? m->units[i + 1].start : result->toc_offset;
        u->data = u->end;
        if (!sgz_pack_unit_chunks(m, i))
            continue;
        u->data = m->chunks[u->first_chunk].offset;
        const uint8_t *digest = sgz_toc_digest(p->toc, p->unit_rows[i]);
        if (digest)
            memcpy(u->digest, digest, 32);
    }
    for (size_t i = 0; i < m->entry_count; i++) {
        sgz_pack_walk_entry *e = &m->entries[i].file;
        e->known = SGZ_WALK_NONE;
        /* One file, seen twice, and it changed in between. */
        if (e->type == '1' && !same_file(e, &m->entries[e->target].file))
            m->entries[i].flags |= SGZ_MANIFEST_DOUBTFUL;
    }
    m->blob_size = result->size;
    m->toc_offset = result->toc_offset;
    memcpy(m->blob_digest, result->digest, 32);
    memcpy(m->tail_digest, result->tail_digest, 32);
    *manifest = *m;
}

const char *sgz_pack_changed(const sgz_pack *p, size_t n, size_t *len, int *cut)
{
    if (n >= CHANGED_NAMES || n >= p->found.changed)
        return NULL;
    const sgz_pack_walk_entry *e = &p->m.entries[p->changed[n].entry].file;
    *len = e->name_len;
    *cut = p->changed[n].cut;
    return p->m.arena + e->name_off;
}
