#include "write/order.h"

#include "base/file.h"
#include "base/vec.h"
#include "write/cut.h"
#include "tar/stream.h"
#include "toc/place.h"

#include <stdlib.h>
#include <string.h>

#define STEP (4u << 20)

/* Links to links to links: apply resolves them when they are made, so that two steps
 * would do; more is a loop. */
#define LINK_DEPTH 64

struct sgz_write_order {
    sgz_input *input;
    int spool;
    sgz_toc *toc;
    sgz_tar_stream tar;
    sgz_toc_rows *apply;
    uint8_t *buf;
    sgz_extent *where;       /* of each row */
    size_t where_cap;
    sgz_extent *globals;     /* PAX global headers: they go first */
    size_t global_count, global_cap;
    uint8_t *picked;         /* rows that already have a place */
    sgz_toc_place place;     /* of names behind symlinks, once all rows are there */
    sgz_notes notes;         /* on what has none */
};

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
}

sgz_write_order *sgz_write_order_new(sgz_input *input, int spool)
{
    sgz_write_order *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->input = input;
    s->spool = spool;
    s->toc = sgz_toc_new();
    s->tar.parser = sgz_tar_parser_new();
    s->place.toc = s->toc;
    s->apply = s->toc ? sgz_toc_rows_new(s->toc) : NULL;
    s->buf = malloc(STEP);
    if (!s->toc || !s->tar.parser || !s->apply || !s->buf) {
        sgz_write_order_free(s);
        return NULL;
    }
    return s;
}

void sgz_write_order_free(sgz_write_order *s)
{
    if (!s)
        return;
    sgz_toc_rows_free(s->apply);
    sgz_tar_parser_free(s->tar.parser);
    sgz_toc_place_free(&s->place);
    sgz_toc_free(s->toc);
    free(s->buf);
    free(s->where);
    free(s->globals);
    free(s->picked);
    free(s);
}

static sgz_status on_entry(sgz_write_order *s, const sgz_tar_entry *entry, sgz_error *err)
{
    uint32_t row;
    int marker = sgz_toc_rows_marker(entry->name, entry->name_len);
    if (marker) {
        sgz_base_note(&s->notes, sgz_toc_rows_marker_note(entry, marker), entry->name,
                      entry->name_len);
        return SGZ_OK; /* left out: the cut would drop it */
    }
    sgz_status status = sgz_toc_rows_entry(s->apply, entry, s->tar.start, &row, err);
    if (status)
        return status;
    sgz_extent extent = {s->tar.start, s->tar.pos + s->tar.data + s->tar.padding};
    if (!SGZ_FIT(s->where, s->where_cap, (size_t)row + 1))
        return no_memory(err);
    s->where[row] = extent;
    return SGZ_OK;
}

static sgz_status on_global(sgz_write_order *s, sgz_error *err)
{
    sgz_extent extent = {s->tar.start, s->tar.pos};
    if (s->toc->count)
        return sgz_base_fail(
            err, SGZ_ETAR, s->tar.start, NULL, 0,
            "a PAX global header between entries: prioritized files cannot be moved "
            "before it; convert without prioritized files");
    return SGZ_PUSH(s->globals, s->global_count, s->global_cap, extent) ? SGZ_OK
                                                                        : no_memory(err);
}

static sgz_status spool(sgz_write_order *s, const uint8_t *data, size_t len, sgz_error *err)
{
    int bad = s->spool < 0 ? 0 : sgz_base_write_all(s->spool, data, len, -1);
    return bad ? sgz_base_fail_errno(err, -bad, "spooling the tar to a temporary file failed",
                                     NULL, 0)
               : SGZ_OK;
}

sgz_status sgz_write_order_step(sgz_write_order *s, int *end, sgz_error *err)
{
    size_t got, used;
    sgz_notes notes = {0};
    *end = 0;
    sgz_status status = sgz_io_input_read(s->input, s->buf, STEP, &got, err);
    int interrupted = status == SGZ_ECANCELLED;
    if (!status || interrupted)
        status = spool(s, s->buf, got, err);
    for (size_t at = 0; at < got && !status; at += used) {
        sgz_tar_event event;
        sgz_tar_entry entry;
        status = sgz_tar_stream_take(&s->tar, s->buf + at, got - at, &used, &event, &entry, err);
        if (!status && event == SGZ_TAR_ENTRY)
            status = on_entry(s, &entry, err);
        else if (!status && event == SGZ_TAR_GLOBAL)
            status = on_global(s, err);
    }
    if (status || got == STEP || interrupted)
        return status;
    *end = 1;
    if (!s->tar.pos)
        sgz_base_note(&s->notes, SGZ_NOTE_BIT(NOTHING), NULL, 0);
    sgz_base_note(&s->notes, sgz_toc_rows_behind_note(&s->tar) | sgz_io_input_note(s->input), NULL, 0);
    status = sgz_tar_stream_end(&s->tar, 0, err);
    return status ? status : sgz_toc_rows_finish(s->apply, &notes, err);
}

/* --- order ----------------------------------------------------------------------------- */

static sgz_status place(sgz_write_order *s, sgz_write_ordered *order, size_t *cap, uint32_t row,
                        sgz_error *err)
{
    sgz_extent extent = s->where[row];
    sgz_extent *last = order->extent_count ? &order->extents[order->extent_count - 1] : NULL;
    s->picked[row] = 1;
    if (last && last->end == extent.start) {
        last->end = extent.end;
        return SGZ_OK;
    }
    return SGZ_PUSH(order->extents, order->extent_count, *cap, extent) ? SGZ_OK : no_memory(err);
}

static sgz_status cannot_move(const sgz_write_order *s, uint32_t row, const char *name,
                              size_t len, sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ETAR, s->where[row].start, name, len,
                         "what this name means depends on where it stands (a hard link keeps an "
                         "earlier file, or a symlink leads to it), so it cannot be moved; convert "
                         "without prioritizing it");
}

/* Place the directories above a cleaned name that the tar names, from the root down. */
static sgz_status place_parents(sgz_write_order *s, sgz_write_ordered *order, size_t *cap,
                                const char *name, size_t len, sgz_error *err)
{
    sgz_toc_above above = {0};
    sgz_status status = SGZ_OK;
    if (!sgz_toc_ancestors(s->toc, name, sgz_toc_parent_len(name, len), &above))
        status = no_memory(err);
    for (size_t i = 0; i <= above.count && !status; i++) {
        uint32_t row = i ? sgz_toc_find(s->toc, above.list[i - 1].hash, name,
                                        above.list[i - 1].len)
                         : sgz_toc_lookup(s->toc, "", 0);
        if (row == SGZ_NO_ROW || s->picked[row])
            continue;
        if (s->toc->rows[row].flags & SGZ_PINNED) {
            status = cannot_move(s, row, name, len, err);
            break;
        }
        status = place(s, order, cap, row, err);
        order->prioritized++;
    }
    free(above.list);
    return status;
}

/* Place an entry of this name, if there is one. */
static sgz_status prioritize(sgz_write_order *s, sgz_write_ordered *order, size_t *cap,
                             const char *raw, size_t raw_len, int depth, int *found,
                             sgz_error *err)
{
    size_t len;
    char *scratch = malloc(raw_len + 1);
    if (!scratch)
        return no_memory(err);
    const char *name = sgz_toc_clean_name(raw, raw_len, scratch, &len);
    uint32_t row = sgz_toc_lookup(s->toc, name, len);
    sgz_status status = SGZ_OK;
    *found = row != SGZ_NO_ROW;
    if (!*found || s->picked[row])
        goto done;
    const sgz_entry *entry = &s->toc->rows[row];
    if (entry->flags & SGZ_PINNED)
        status = cannot_move(s, row, name, len, err);
    else if (depth > LINK_DEPTH)
        status = sgz_base_fail(err, SGZ_ETAR, -1, name, len, "hard links go in a circle");
    if (!status)
        status = place_parents(s, order, cap, name, len, err);
    if (!status && entry->type == SGZ_HARDLINK) {
        int there;
        status = prioritize(s, order, cap, s->toc->arena + entry->link_off, entry->link_len,
                            depth + 1, &there, err);
    }
    if (!status && !s->picked[row]) {
        order->prioritized++;
        status = place(s, order, cap, row, err);
    }
done:
    free(scratch);
    return status;
}

/* Place what a name leads to that no entry has, and before it the symlinks on the way. */
static sgz_status prioritize_behind(sgz_write_order *s, sgz_write_ordered *order, size_t *cap,
                                    const char *raw, size_t raw_len, int *found, sgz_error *err)
{
    sgz_toc_place *p = &s->place;
    while (raw_len && raw[raw_len - 1] == '/')
        raw_len--;
    size_t dir = sgz_toc_parent_len(raw, raw_len), base = raw_len - dir; /* with its slash */
    if (!dir)
        return SGZ_OK;
    sgz_toc_placed placed = sgz_toc_place_find(p, raw, dir);
    if (placed == SGZ_PLACE_NO_MEMORY || !SGZ_FIT(p->path, p->path_cap, p->len + base))
        return no_memory(err);
    if (placed != SGZ_PLACE_FOUND)
        return SGZ_OK;
    memcpy(p->path + p->len, raw + dir, base);
    p->len += base;
    if (sgz_toc_lookup(s->toc, p->path, p->len) == SGZ_NO_ROW)
        return SGZ_OK;
    sgz_status status = SGZ_OK;
    for (uint32_t i = 0; i < p->followed && !status; i++) {
        const sgz_entry *link = &s->toc->rows[p->links[i]];
        status = prioritize(s, order, cap, sgz_toc_entry_name(s->toc, link), link->name_len, 0,
                            found, err);
    }
    return status ? status : prioritize(s, order, cap, p->path, p->len, 0, found, err);
}

sgz_status sgz_write_order_sort(sgz_write_order *s, const char *const *names, size_t count,
                                uint8_t *missing, sgz_write_ordered *order, sgz_error *err)
{
    size_t cap = 0;
    sgz_status status = SGZ_OK;
    *order = (sgz_write_ordered){.notes = s->notes};
    s->picked = calloc(s->toc->count + 1, 1);
    if (!s->picked)
        return no_memory(err);
    for (size_t i = 0; i < s->global_count && !status; i++)
        if (!SGZ_PUSH(order->extents, order->extent_count, cap, s->globals[i]))
            status = no_memory(err);
    for (size_t i = 0; i < count && !status; i++) {
        int found;
        size_t len = strlen(names[i]);
        status = prioritize(s, order, &cap, names[i], len, 0, &found, err);
        if (!status && !found)
            status = prioritize_behind(s, order, &cap, names[i], len, &found, err);
        missing[i] = !found;
    }
    for (size_t row = 0; row < s->toc->count && !status; row++) {
        uint8_t flags = s->toc->rows[row].flags;
        if (!s->picked[row] && (!(flags & SGZ_DROPPED) || (flags & SGZ_PINNED)))
            status = place(s, order, &cap, (uint32_t)row, err);
    }
    if (!status && !order->extents && !SGZ_FIT(order->extents, cap, 1))
        status = no_memory(err);
    if (status) {
        free(order->extents);
        order->extents = NULL;
    }
    return status;
}
