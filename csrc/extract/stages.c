/* The work of an extraction, cut for the threads. */
#include "extract/plan.h"

#include <stdlib.h>

/* A batch is what one thread takes at a time: enough to keep it busy for about a
 * millisecond, little enough that two threads end together. */
#define BATCH_BYTES ((int64_t)1 << 20)
#define BATCH_FILES 64

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to lay out the extraction");
}

static sgz_status cut(sgz_extract_plan *plan, uint32_t layer, sgz_error *err)
{
    const sgz_extract_part *part = &plan->parts[layer];
    const sgz_spans *spans = &part->spans;
    const sgz_entry *rows = part->toc->rows;
    size_t first = 0, i = 0;
    int64_t bytes = 0;
    uint32_t files = 0;
    while (i < spans->count) {
        int64_t offset = rows[spans->rows[i]].offset;
        int64_t size = 0;
        uint32_t wanted = 0;
        size_t next = i;
        for (; next < spans->count && rows[spans->rows[next]].offset == offset; next++)
            if (part->object_of[spans->files[next]] != SGZ_NO_ROW) {
                size += rows[spans->rows[next]].chunk_size;
                wanted++;
            }
        if (wanted && !files)
            first = i;
        files += wanted;
        bytes += size;
        int full = files && (bytes >= BATCH_BYTES || files >= BATCH_FILES);
        if (full || (files && (!wanted || next == spans->count))) {
            sgz_extract_batch batch = {layer, (uint32_t)first, (uint32_t)(wanted ? next : i)};
            if (!SGZ_PUSH(plan->batches, plan->batch_count, plan->batch_cap, batch))
                return no_memory(err);
            files = 0;
            bytes = 0;
        }
        i = next;
    }
    return SGZ_OK;
}

sgz_status sgz_extract_plan_batches(sgz_extract_plan *plan, sgz_error *err)
{
    sgz_status st = SGZ_OK;
    for (uint32_t layer = 0; layer < plan->part_count && !st; layer++)
        st = cut(plan, layer, err);
    return st;
}

static void add_stage(sgz_extract_plan *plan, sgz_extract_stage_kind kind, uint32_t first,
                      uint32_t last, uint32_t grain)
{
    if (first == last)
        return;
    sgz_extract_stage *stage = &plan->stages[plan->stage_count++];
    *stage = (sgz_extract_stage){.kind = kind, .first = first, .last = last, .grain = grain};
    stage->next = first;
}

static int kind_of(const sgz_extract_plan *plan, const sgz_extract_object *o)
{
    const sgz_entry *e = &plan->parts[o->layer].toc->rows[o->row];
    if (e->type == SGZ_SYMLINK)
        return SGZ_STAGE_SYMLINK;
    if (e->type != SGZ_REG)
        return SGZ_STAGE_SPECIAL;
    return o->left ? SGZ_STAGE_DATA : SGZ_STAGE_EMPTY;
}

static int is_task(const sgz_extract_node *n)
{
    return n->empty || (n->used && n->row != SGZ_NO_ROW);
}

static uint32_t list_objects(sgz_extract_plan *plan, int kind, uint32_t at)
{
    for (uint32_t i = 0; i < plan->object_count; i++)
        if (kind_of(plan, &plan->objects[i]) == kind)
            plan->order[at++] = i;
    return at;
}

sgz_status sgz_extract_plan_stages(sgz_extract_plan *plan, sgz_error *err)
{
    uint32_t depth = 0;
    for (uint32_t i = 0; i < plan->node_count; i++)
        if (plan->nodes[i].used && plan->nodes[i].depth > depth)
            depth = plan->nodes[i].depth;
    plan->stages = malloc((depth + 8) * sizeof *plan->stages);
    plan->order = malloc(((size_t)plan->object_count + plan->node_count + 1) *
                         sizeof *plan->order);
    /* How many nodes stand at each depth, then where their list ends. */
    uint32_t *ends = calloc((size_t)depth + 2, sizeof *ends);
    /* Links to symlinks go to the end: an order by target kind that keeps the rest. */
    sgz_extract_hardlink *sorted = malloc(((size_t)plan->link_count + 1) * sizeof *sorted);
    if (!plan->stages || !plan->order || !ends || !sorted) {
        free(ends);
        free(sorted);
        return no_memory(err);
    }
    uint32_t plain = 0, all = 0;
    for (int symlinks = 0; symlinks < 2; symlinks++) {
        for (uint32_t i = 0; i < plan->link_count; i++) {
            const sgz_extract_object *o = &plan->objects[plan->links[i].object];
            if ((kind_of(plan, o) == SGZ_STAGE_SYMLINK) == symlinks)
                sorted[all++] = plan->links[i];
        }
        if (!symlinks)
            plain = all;
    }
    free(plan->links);
    plan->links = sorted;

    add_stage(plan, SGZ_STAGE_DATA, 0, plan->batch_count, 1);
    uint32_t empty = list_objects(plan, SGZ_STAGE_EMPTY, 0);
    uint32_t special = list_objects(plan, SGZ_STAGE_SPECIAL, empty);
    uint32_t symlink = list_objects(plan, SGZ_STAGE_SYMLINK, special);
    add_stage(plan, SGZ_STAGE_EMPTY, 0, empty, 32);
    add_stage(plan, SGZ_STAGE_SPECIAL, empty, special, 32);
    add_stage(plan, SGZ_STAGE_LINK, 0, plain, 32);
    add_stage(plan, SGZ_STAGE_SYMLINK, special, symlink, 32);
    add_stage(plan, SGZ_STAGE_SYMLINK_LINK, plain, all, 32);

    for (uint32_t i = 0; i < plan->node_count; i++)
        if (is_task(&plan->nodes[i]))
            ends[depth - plan->nodes[i].depth]++;
    uint32_t at = symlink;
    for (uint32_t d = 0; d <= depth; d++) {
        uint32_t count = ends[d];
        add_stage(plan, SGZ_STAGE_DIRECTORY, at, at + count, 16);
        ends[d] = at;
        at += count;
    }
    for (uint32_t i = 0; i < plan->node_count; i++)
        if (is_task(&plan->nodes[i]))
            plan->order[ends[depth - plan->nodes[i].depth]++] = i;
    free(ends);
    return SGZ_OK;
}
