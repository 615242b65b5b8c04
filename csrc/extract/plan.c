/* What an extraction does, from the rows of the TOCs: see extract/plan.h. */
#include "extract/plan.h"

#include <errno.h>

#include "toc/hash.h"
#include "toc/limits.h"

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to lay out the extraction");
}

/* --- failures ------------------------------------------------------------------------- */

/* An entry cannot be written: the end, or with keep_going one line more. */
static sgz_status leave_out(sgz_extract_plan *plan, uint32_t layer, uint32_t row, sgz_status st,
                            const sgz_error *err)
{
    plan->parts[layer].node_of[row] = SGZ_NO_ROW;
    return plan->keep_going ? sgz_extract_tell(&plan->failures, layer, row, err) : st;
}

/* --- directories ---------------------------------------------------------------------- */

static sgz_status add_node(sgz_extract_plan *plan, const char *path, uint32_t len, uint32_t base,
                           uint32_t parent, uint64_t hash, sgz_error *err)
{
    if (plan->node_count > plan->most_nodes)
        return sgz_base_fail(err, SGZ_ETOC, -1, path, len,
                             "the names imply too many directories");
    if (!SGZ_FIT(plan->nodes, plan->node_cap, plan->node_count + 1))
        return no_memory(err);
    if (len - base > SGZ_BASE_MAX)
        return sgz_base_fail_errno(err, ENAMETOOLONG, "cannot extract", path - plan->cut,
                                   len + plan->cut);
    sgz_extract_node *n = &plan->nodes[plan->node_count];
    memset(n, 0, sizeof *n);
    n->path = path;
    n->path_len = len;
    n->base = base;
    n->cut = plan->cut;
    n->parent = parent;
    n->hash = hash;
    n->row = SGZ_NO_ROW;
    if (plan->node_count)
        n->depth = plan->nodes[parent].depth + 1;
    plan->node_count++;
    return SGZ_OK;
}

/* Where a name in the directory `at` belongs in the map of nodes, and its hash. */
static size_t slot_of(const sgz_extract_plan *plan, uint32_t at, const char *base, size_t len,
                      uint64_t *hash)
{
    *hash = sgz_toc_hash_bytes(plan->nodes[at].hash, base, len);
    size_t slot = sgz_map_first(&plan->names, *hash);
    for (; sgz_map_taken(&plan->names, slot); slot = sgz_map_next(&plan->names, *hash, slot)) {
        const sgz_extract_node *n = &plan->nodes[sgz_map_number(&plan->names, slot)];
        if (n->hash == *hash && n->parent == at && n->path_len - n->base == len &&
            !memcmp(n->path + n->base, base, len))
            break;
    }
    return slot;
}

/* The node of a clean path; it and those above are added. */
static sgz_status node_at(sgz_extract_plan *plan, const char *path, uint32_t len, uint32_t *node,
                          sgz_error *err)
{
    uint32_t at = 0, base = 0;
    while (base < len) {
        const char *slash = memchr(path + base, '/', len - base);
        uint32_t end = slash ? (uint32_t)(slash - path) : len;
        if (!sgz_map_reserve(&plan->names, 1))
            return no_memory(err);
        uint64_t hash;
        size_t slot = slot_of(plan, at, path + base, end - base, &hash);
        if (!sgz_map_taken(&plan->names, slot)) {
            sgz_status st = add_node(plan, path, end, base, at, hash, err);
            if (st)
                return st;
            sgz_map_put(&plan->names, slot, hash, plan->node_count - 1);
        }
        at = sgz_map_number(&plan->names, slot);
        base = end + 1;
    }
    *node = at;
    return SGZ_OK;
}

static void use_node(sgz_extract_plan *plan, uint32_t node)
{
    while (!plan->nodes[node].used) {
        plan->nodes[node].used = 1;
        node = plan->nodes[node].parent;
    }
}

/* --- names ---------------------------------------------------------------------------- */

static const char *name_of(const sgz_toc *toc, uint32_t row, size_t *len)
{
    *len = toc->rows[row].name_len;
    return toc->arena + toc->rows[row].name_off;
}

static sgz_status refuse(const sgz_toc *toc, uint32_t row, const char *why, sgz_error *err)
{
    size_t len;
    const char *name = name_of(toc, row, &len);
    return sgz_base_fail(err, SGZ_EUNSAFE, -1, name, len, "%s", why);
}

static sgz_status check_name(const sgz_toc *toc, uint32_t row, sgz_error *err)
{
    const sgz_entry *e = &toc->rows[row];
    size_t len, clean_len, base;
    const char *name = name_of(toc, row, &len);
    if (len > SGZ_PATH_MAX)
        return sgz_base_fail_errno(err, ENAMETOOLONG, "cannot extract", name, len);
    if (memchr(name, 0, len))
        return refuse(toc, row, "the name has a NUL byte in it", err);
    /* The parser cleans names; this is the second lock on the door. */
    char scratch[SGZ_PATH_MAX];
    const char *clean = sgz_toc_clean_name(name, len, scratch, &clean_len);
    if (clean_len != len || memcmp(clean, name, len))
        return refuse(toc, row, "the name is not a clean relative path", err);
    for (base = len; base && name[base - 1] != '/'; base--)
        ;
    if (len - base > SGZ_BASE_MAX)
        return sgz_base_fail_errno(err, ENAMETOOLONG, "cannot extract", name, len);
    if (!len && e->type != SGZ_DIR)
        return refuse(toc, row, "the root of the layer is not a directory", err);
    if (e->type == SGZ_SYMLINK &&
        (!e->link_len || memchr(toc->arena + e->link_off, 0, e->link_len)))
        return refuse(toc, row, "the symlink's target is empty or has a NUL byte in it", err);
    if (e->type == SGZ_SYMLINK && e->link_len > SGZ_PATH_MAX)
        return sgz_base_fail_errno(err, ENAMETOOLONG, "cannot make the symlink", name, len);
    return SGZ_OK;
}

/* --- what is written ------------------------------------------------------------------- */

/* The pieces of a regular file cover it, in order: *count have data, *zeros bytes are none's. */
static sgz_status count_chunks(const sgz_toc *toc, uint32_t row, uint32_t *count, int64_t *zeros,
                               sgz_error *err)
{
    const sgz_entry *e = &toc->rows[row];
    int64_t at = 0;
    *count = 0;
    *zeros = 0;
    for (uint32_t i = row; i < toc->count; i++) {
        const sgz_entry *c = &toc->rows[i];
        if (i != row && !sgz_toc_is_piece(c))
            break;
        if (c->chunk_size <= 0)
            continue;
        if (c->chunk_offset != at || c->chunk_size > e->size - at)
            break;
        at += c->chunk_size;
        if (c->type == SGZ_ZEROS)
            *zeros += c->chunk_size;
        else
            ++*count;
    }
    if (at == e->size)
        return SGZ_OK;
    size_t len;
    const char *name = name_of(toc, row, &len);
    return sgz_base_fail(err, SGZ_ETOC, -1, name, len,
                         "its chunks do not make up its %lld bytes", (long long)e->size);
}

static sgz_status add_object(sgz_extract_plan *plan, uint32_t layer, uint32_t row, uint32_t dest,
                             uint32_t node, const sgz_extract_options *options, sgz_error *err)
{
    sgz_extract_part *part = &plan->parts[layer];
    const sgz_entry *e = &part->toc->rows[row];
    if ((e->type == SGZ_CHAR || e->type == SGZ_BLOCK) && !options->devices) {
        plan->devices++;
        return SGZ_OK;
    }
    uint32_t chunks = 0;
    int64_t zeros = 0;
    if (e->type == SGZ_REG) {
        sgz_status st = count_chunks(part->toc, row, &chunks, &zeros, err);
        if (st)
            return st;
        if (e->size - zeros > INT64_MAX - plan->total)
            return refuse(part->toc, row, "the files together are larger than 2^63 bytes", err);
        plan->total += e->size - zeros;
    }
    if (!SGZ_FIT(plan->objects, plan->object_cap, plan->object_count + (size_t)1))
        return no_memory(err);
    sgz_extract_object *o = &plan->objects[plan->object_count];
    memset(o, 0, sizeof *o);
    o->layer = layer;
    o->row = row;
    o->dest = dest;
    o->node = node;
    o->left = chunks;
    o->fd = -1;
    o->holes = zeros > 0;
    if (zeros && sgz_toc_digest(part->toc, row)) {
        o->unhashed = zeros > SGZ_TOC_ZEROS_HASHED - plan->hashed;
        plan->hashed += o->unhashed ? 0 : zeros;
    }
    part->object_of[row] = plan->object_count++;
    if ((e->mode & 06000) && e->type != SGZ_SYMLINK && !options->setid)
        plan->setid++;
    use_node(plan, node);
    return SGZ_OK;
}

/* The node a name stands in; neighbours mostly share it: *node is that of the last. */
static sgz_status parent_of(sgz_extract_plan *plan, const char *name, size_t len, uint32_t *node,
                            sgz_error *err)
{
    len = sgz_toc_parent_len(name, len);
    const sgz_extract_node *n = &plan->nodes[*node];
    if (n->path_len == len && !memcmp(n->path, name, len))
        return SGZ_OK;
    return node_at(plan, name, (uint32_t)len, node, err);
}

/* The name without its first components; 0: there are no others. */
static int strip(uint32_t components, const char **name, size_t *len)
{
    for (; components && *len; components--) {
        const char *slash = memchr(*name, '/', *len);
        size_t cut = slash ? (size_t)(slash - *name) + 1 : *len;
        *name += cut;
        *len -= cut;
        if (!*len)
            return 0;
    }
    return !components;
}

static const char *base_of(const char *name, size_t len, size_t *base_len)
{
    size_t parent = sgz_toc_parent_len(name, len);
    const char *base = parent ? name + parent + 1 : name;
    *base_len = len - (size_t)(base - name);
    return base;
}

/* Of entries that come to one name the last one stays. */
static sgz_status claim(sgz_extract_plan *plan, uint32_t layer, uint32_t row, uint32_t node,
                        const char *name, size_t len, sgz_error *err)
{
    const char *base = base_of(name, len, &len);
    uint64_t hash = sgz_toc_hash_bytes(plan->nodes[node].hash, base, len);
    if (!sgz_map_reserve(&plan->claimed, 1))
        return no_memory(err);
    size_t slot = sgz_map_first(&plan->claimed, hash);
    for (; sgz_map_taken(&plan->claimed, slot);
         slot = sgz_map_next(&plan->claimed, hash, slot)) {
        sgz_extract_claim *c = &plan->claims[sgz_map_number(&plan->claimed, slot)];
        if (c->node != node || c->len != len || memcmp(c->base, base, len))
            continue;
        plan->parts[c->layer].node_of[c->row] = SGZ_NO_ROW;
        c->layer = layer;
        c->row = row;
        return SGZ_OK;
    }
    sgz_extract_claim mine = {base, (uint32_t)len, node, layer, row};
    if (!SGZ_PUSH(plan->claims, plan->claim_count, plan->claim_cap, mine))
        return no_memory(err);
    sgz_map_put(&plan->claimed, slot, hash, plan->claim_count - 1);
    return SGZ_OK;
}

/* Whether the entry is wanted, and then where: directories get their node, others that of the
 * directory they go into. */
static sgz_status place_row(sgz_extract_plan *plan, uint32_t layer, uint32_t row,
                            const sgz_extract_options *options, uint32_t *parent, sgz_error *err)
{
    sgz_extract_part *part = &plan->parts[layer];
    const sgz_toc *toc = part->toc;
    const sgz_entry *e = &toc->rows[row];
    const uint8_t *mask = options->layers[layer].wanted;
    size_t len;
    const char *name = name_of(toc, row, &len);
    if (sgz_toc_is_piece(e) || (e->flags & SGZ_DROPPED) || (mask && !mask[row]) ||
        sgz_toc_lookup(toc, name, len) != row)
        return SGZ_OK;
    if (!mask && e->type != SGZ_DIR && !toc->origins && sgz_toc_marker(name, len))
        return SGZ_OK;
    sgz_status st = check_name(toc, row, err);
    if (st)
        return st;
    const char *whole = name;
    if (!strip(options->strip, &name, &len))
        return SGZ_OK;
    plan->cut = (uint32_t)(name - whole);
    if (e->type == SGZ_DIR) {
        uint32_t node;
        if ((st = node_at(plan, name, (uint32_t)len, &node, err)))
            return st;
        plan->nodes[node].row = row;
        plan->nodes[node].layer = layer;
        use_node(plan, node);
        if ((e->mode & 06000) && !options->setid)
            plan->setid++;
        return SGZ_OK;
    }
    if ((st = parent_of(plan, name, len, parent, err)))
        return st;
    part->node_of[row] = *parent;
    return options->strip ? claim(plan, layer, row, *parent, name, len, err) : SGZ_OK;
}

/* Take what is no directory, once all directories are known. */
static sgz_status add_row(sgz_extract_plan *plan, uint32_t layer, uint32_t row,
                          const sgz_extract_options *options, sgz_error *err)
{
    sgz_extract_part *part = &plan->parts[layer];
    uint32_t node = part->node_of[row];
    size_t len;
    uint64_t hash;
    const char *name = name_of(part->toc, row, &len);
    const char *base = base_of(name, len, &len);
    if (sgz_map_taken(&plan->names, slot_of(plan, node, base, len, &hash)))
        return refuse(part->toc, row,
                      options->strip ? "not a directory, but without its first components it has "
                                       "the name of one"
                                     : "not a directory, but other entries are below it",
                      err);
    if (part->toc->rows[row].type != SGZ_HARDLINK)
        return add_object(plan, layer, row, row, node, options, err);
    sgz_extract_hardlink link = {SGZ_NO_ROW, layer, row, node};
    return SGZ_PUSH(plan->links, plan->link_count, plan->link_cap, link) ? SGZ_OK
                                                                         : no_memory(err);
}

/* A hard link gets the object it is another name of. One whose target is not selected becomes
 * the file itself. */
static sgz_status resolve_link(sgz_extract_plan *plan, sgz_extract_hardlink link,
                               const sgz_extract_options *options, sgz_error *err)
{
    const sgz_extract_part *part = &plan->parts[link.layer];
    uint32_t target = sgz_toc_resolve(part->toc, link.dest);
    int type = target == SGZ_NO_ROW ? SGZ_HARDLINK : part->toc->rows[target].type;
    if (type == SGZ_DIR || type == SGZ_HARDLINK)
        return refuse(part->toc, link.dest, "a hard link to what is not a file", err);
    link.object = part->object_of[target];
    if (link.object == SGZ_NO_ROW) /* a device that is left out is so under each of its names */
        return add_object(plan, link.layer, target, link.dest, link.node, options, err);
    use_node(plan, link.node);
    plan->links[plan->resolved++] = link;
    return SGZ_OK;
}

static sgz_status take_empty(sgz_extract_plan *plan, const sgz_extract_options *options,
                             sgz_error *err)
{
    for (uint32_t i = 0; i < options->empty_count; i++) {
        const char *path = options->empty[i].path;
        size_t len = options->empty[i].len;
        uint32_t node;
        if (!strip(options->strip, &path, &len))
            continue;
        plan->cut = (uint32_t)(path - options->empty[i].path);
        sgz_status st = node_at(plan, path, (uint32_t)len, &node, err);
        if (st)
            return st;
        plan->nodes[node].empty = plan->nodes[node].row == SGZ_NO_ROW;
        use_node(plan, node);
    }
    return SGZ_OK;
}

static sgz_status init_parts(sgz_extract_plan *plan, const sgz_extract_options *options,
                             sgz_error *err)
{
    plan->parts = calloc((size_t)options->layer_count + 1, sizeof *plan->parts);
    if (!plan->parts)
        return no_memory(err);
    for (; plan->part_count < options->layer_count; plan->part_count++) {
        const sgz_extract_layer *layer = &options->layers[plan->part_count];
        sgz_extract_part *part = &plan->parts[plan->part_count];
        size_t count = layer->toc->count + 1;
        part->toc = layer->toc;
        plan->most_nodes += layer->toc->count + layer->toc->implied;
        sgz_status st = sgz_read_spans_init(&part->spans, layer->toc, layer->points,
                                            layer->data_end, err);
        if (st)
            return st;
        part->spans.claims = layer->claims;
        part->node_of = malloc(count * sizeof *part->node_of);
        part->object_of = malloc(count * sizeof *part->object_of);
        if (!part->node_of || !part->object_of) {
            plan->part_count++;
            return no_memory(err);
        }
        memset(part->node_of, 0xff, count * sizeof *part->node_of);
        memset(part->object_of, 0xff, count * sizeof *part->object_of);
    }
    return SGZ_OK;
}

static sgz_status take_rows(sgz_extract_plan *plan, const sgz_extract_options *options,
                            sgz_error *err)
{
    sgz_status st = SGZ_OK;
    uint32_t parent = 0;
    for (uint32_t layer = 0; layer < plan->part_count; layer++)
        for (uint32_t row = 0; row < plan->parts[layer].toc->count; row++)
            if ((st = place_row(plan, layer, row, options, &parent, err)) &&
                (st = leave_out(plan, layer, row, st, err)))
                return st;
    if ((st = take_empty(plan, options, err)))
        return st;
    for (uint32_t layer = 0; layer < plan->part_count; layer++)
        for (uint32_t row = 0; row < plan->parts[layer].toc->count; row++)
            if (plan->parts[layer].node_of[row] != SGZ_NO_ROW &&
                (st = add_row(plan, layer, row, options, err)) &&
                (st = leave_out(plan, layer, row, st, err)))
                return st;
    for (uint32_t i = 0; i < plan->link_count; i++) {
        sgz_extract_hardlink link = plan->links[i];
        if ((st = resolve_link(plan, link, options, err)) &&
            (st = leave_out(plan, link.layer, link.dest, st, err)))
            return st;
    }
    plan->link_count = plan->resolved;
    return SGZ_OK;
}

sgz_status sgz_extract_plan_init(sgz_extract_plan *plan, const sgz_extract_options *options,
                                 sgz_error *err)
{
    memset(plan, 0, sizeof *plan);
    plan->keep_going = options->keep_going;
    sgz_status st = init_parts(plan, options, err);
    if (!st)
        st = add_node(plan, "", 0, 0, 0, plan->part_count ? plan->parts[0].toc->seed : 0, err);
    if (!st) {
        plan->nodes[0].used = 1;
        plan->nodes[0].made = 1;
        st = take_rows(plan, options, err);
    }
    if (!st)
        st = sgz_extract_plan_batches(plan, err);
    if (!st)
        st = sgz_extract_plan_stages(plan, err);
    /* What only laying out needs. */
    for (uint32_t i = 0; i < plan->part_count; i++) {
        free(plan->parts[i].node_of);
        plan->parts[i].node_of = NULL;
    }
    free(plan->claims);
    plan->claims = NULL;
    sgz_map_free(&plan->claimed);
    return st;
}

void sgz_extract_plan_free(sgz_extract_plan *plan)
{
    for (uint32_t i = 0; i < plan->part_count; i++) {
        sgz_read_spans_free(&plan->parts[i].spans);
        free(plan->parts[i].object_of);
    }
    free(plan->parts);
    free(plan->nodes);
    sgz_map_free(&plan->names);
    free(plan->objects);
    free(plan->links);
    free(plan->order);
    free(plan->batches);
    free(plan->stages);
    memset(plan, 0, sizeof *plan);
}
