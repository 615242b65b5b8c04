/* What an extraction does, from the rows of the TOC: see extract/plan.h. */
#include "extract/plan.h"
#include <errno.h>
#include "toc/hash.h"

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to lay out the extraction");
}

static sgz_status add_node(sgz_extract_plan *plan, const char *path, uint32_t len, uint32_t base,
                           uint32_t parent, uint64_t hash, sgz_error *err)
{
    size_t rows = plan->toc->count; /* each may be a directory itself; and members are asked for */
    if (plan->node_count > rows + plan->toc->implied + plan->asked)
        return sgz_base_fail(err, SGZ_ETOC, -1, path, len,
                             "the names imply too many directories");
    if (!SGZ_FIT(plan->nodes, plan->node_cap, plan->node_count + 1))
        return no_memory(err);
    sgz_extract_node *n = &plan->nodes[plan->node_count];
    memset(n, 0, sizeof *n);
    n->path = path;
    n->path_len = len;
    n->base = base;
    n->parent = parent;
    n->hash = hash;
    n->row = SGZ_NO_ROW;
    if (plan->node_count) {
        n->depth = plan->nodes[parent].depth + 1;
        n->wanted = plan->nodes[parent].wanted;
    }
    plan->node_count++;
    return SGZ_OK;
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
        uint64_t hash = sgz_toc_hash_bytes(plan->nodes[at].hash, path + base, end - base);
        size_t slot = sgz_map_first(&plan->names, hash);
        for (; sgz_map_taken(&plan->names, slot);
             slot = sgz_map_next(&plan->names, hash, slot)) {
            const sgz_extract_node *n = &plan->nodes[sgz_map_number(&plan->names, slot)];
            if (n->hash == hash && n->parent == at && n->path_len - n->base == end - base &&
                !memcmp(n->path + n->base, path + base, end - base))
                break;
        }
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

static void see_node(sgz_extract_plan *plan, uint32_t node)
{
    while (!plan->nodes[node].seen) {
        plan->nodes[node].seen = 1;
        node = plan->nodes[node].parent;
    }
}

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

/* The chunks of a regular file cover it, in order. */
static sgz_status count_chunks(const sgz_toc *toc, uint32_t row, uint32_t *count, sgz_error *err)
{
    const sgz_entry *e = &toc->rows[row];
    int64_t at = 0;
    *count = 0;
    for (uint32_t i = row; i < toc->count; i++) {
        const sgz_entry *c = &toc->rows[i];
        if (i != row && c->type != SGZ_CHUNK)
            break;
        if (c->chunk_size <= 0)
            continue;
        if (c->chunk_offset != at || c->chunk_size > e->size - at)
            break;
        at += c->chunk_size;
        ++*count;
    }
    if (at == e->size)
        return SGZ_OK;
    size_t len;
    const char *name = name_of(toc, row, &len);
    return sgz_base_fail(err, SGZ_ETOC, -1, name, len,
                         "its chunks do not make up its %lld bytes", (long long)e->size);
}

static sgz_status add_object(sgz_extract_plan *plan, uint32_t row, uint32_t dest, uint32_t node,
                             const sgz_extract_options *options, sgz_error *err)
{
    const sgz_entry *e = &plan->toc->rows[row];
    if ((e->type == SGZ_CHAR || e->type == SGZ_BLOCK) && !options->devices) {
        plan->devices++;
        return SGZ_OK;
    }
    uint32_t chunks = 0;
    if (e->type == SGZ_REG) {
        sgz_status st = count_chunks(plan->toc, row, &chunks, err);
        if (st)
            return st;
        if (e->size > INT64_MAX - plan->total)
            return refuse(plan->toc, row, "the files together are larger than 2^63 bytes", err);
        plan->total += e->size;
    }
    if (!SGZ_FIT(plan->objects, plan->object_cap, plan->object_count + 1))
        return no_memory(err);
    sgz_extract_object *o = &plan->objects[plan->object_count];
    memset(o, 0, sizeof *o);
    o->row = row;
    o->dest = dest;
    o->node = node;
    o->left = chunks;
    o->fd = -1;
    plan->object_of[row] = plan->object_count++;
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

static sgz_status add_row(sgz_extract_plan *plan, uint32_t row, const uint8_t *picked,
                          const sgz_extract_options *options, uint32_t *parent, sgz_error *err)
{
    const sgz_toc *toc = plan->toc;
    const sgz_entry *e = &toc->rows[row];
    size_t len;
    const char *name = name_of(toc, row, &len);
    if (e->type == SGZ_CHUNK || (e->flags & SGZ_DROPPED) ||
        sgz_toc_lookup(toc, name, len) != row)
        return SGZ_OK;
    sgz_status st = check_name(toc, row, err);
    if (st)
        return st;
    if (e->type == SGZ_DIR) {
        uint32_t node;
        if ((st = node_at(plan, name, (uint32_t)len, &node, err)))
            return st;
        see_node(plan, node);
        if (plan->nodes[node].wanted) {
            plan->nodes[node].row = row;
            use_node(plan, node);
            if ((e->mode & 06000) && !options->setid)
                plan->setid++;
        }
        return SGZ_OK;
    }
    if ((st = parent_of(plan, name, len, parent, err)))
        return st;
    see_node(plan, *parent);
    if (!picked[row] && (!plan->nodes[*parent].wanted || sgz_toc_marker(name, len)))
        return SGZ_OK;
    if (e->type != SGZ_HARDLINK)
        return add_object(plan, row, row, *parent, options, err);
    sgz_extract_hardlink link = {SGZ_NO_ROW, row, *parent};
    return SGZ_PUSH(plan->links, plan->link_count, plan->link_cap, link) ? SGZ_OK
                                                                         : no_memory(err);
}

/* Each hard link gets the object it is another name of. One whose target is not selected
 * becomes the file itself. */
static sgz_status resolve_links(sgz_extract_plan *plan, const sgz_extract_options *options,
                                sgz_error *err)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < plan->link_count; i++) {
        sgz_extract_hardlink link = plan->links[i];
        uint32_t target = sgz_toc_resolve(plan->toc, link.dest);
        int type = target == SGZ_NO_ROW ? SGZ_HARDLINK : plan->toc->rows[target].type;
        if (type == SGZ_DIR || type == SGZ_HARDLINK)
            return refuse(plan->toc, link.dest, "a hard link to what is not a file", err);
        if (plan->object_of[target] == SGZ_NO_ROW) {
            sgz_status st = add_object(plan, target, link.dest, link.node, options, err);
            if (st)
                return st;
            continue; /* a device that is left out is so under each of its names */
        }
        link.object = plan->object_of[target];
        use_node(plan, link.node);
        plan->links[kept++] = link;
    }
    plan->link_count = kept;
    return SGZ_OK;
}

static sgz_status check_nodes(const sgz_extract_plan *plan, sgz_error *err)
{
    for (uint32_t i = 0; i < plan->node_count; i++) {
        const sgz_extract_node *n = &plan->nodes[i];
        uint32_t row = n->used ? sgz_toc_find(plan->toc, n->hash, n->path, n->path_len)
                               : SGZ_NO_ROW;
        if (row != SGZ_NO_ROW && plan->toc->rows[row].type != SGZ_DIR)
            return refuse(plan->toc, row, "not a directory, but other entries are below it",
                          err);
        if (n->path_len - n->base > SGZ_BASE_MAX && n->used)
            return sgz_base_fail_errno(err, ENAMETOOLONG, "cannot extract", n->path,
                                       n->path_len);
    }
    return SGZ_OK;
}

static sgz_status select_members(sgz_extract_plan *plan, sgz_extract_member *members,
                                 size_t count, uint8_t *picked, sgz_error *err)
{
    for (size_t i = 0; i < count; i++) {
        sgz_extract_member *m = &members[i];
        uint32_t row = sgz_toc_lookup(plan->toc, m->name, m->len);
        m->node = SGZ_NO_ROW;
        plan->asked += m->len; /* at least as many components */
        if (row != SGZ_NO_ROW && plan->toc->rows[row].type != SGZ_DIR) {
            picked[row] = 1;
            continue;
        }
        sgz_status st = node_at(plan, m->name, m->len, &m->node, err);
        if (st)
            return st;
        plan->nodes[m->node].wanted = 1;
    }
    if (!count)
        plan->nodes[0].wanted = 1;
    for (uint32_t i = 1; i < plan->node_count; i++)
        plan->nodes[i].wanted |= plan->nodes[plan->nodes[i].parent].wanted;
    return SGZ_OK;
}

static sgz_status check_members(const sgz_extract_plan *plan, const sgz_extract_member *members,
                                size_t count, sgz_error *err)
{
    for (size_t i = 0; i < count; i++) {
        const sgz_extract_member *m = &members[i];
        if (m->node != SGZ_NO_ROW && !plan->nodes[m->node].seen)
            return sgz_base_fail_errno(err, ENOENT, "not in the layer", m->name, m->len);
    }
    return SGZ_OK;
}

sgz_status sgz_extract_plan_init(sgz_extract_plan *plan, const sgz_extract_options *options,
                                 sgz_extract_member *members, size_t member_count,
                                 sgz_error *err)
{
    const sgz_toc *toc = options->toc;
    memset(plan, 0, sizeof *plan);
    plan->toc = toc;
    sgz_status st = sgz_read_spans_init(&plan->spans, toc, options->data_end, err);
    if (st)
        return st;
    uint8_t *picked = calloc(toc->count + 1, 1);
    plan->object_of = malloc((toc->count + 1) * sizeof *plan->object_of);
    if (!picked || !plan->object_of)
        st = no_memory(err);
    else
        st = add_node(plan, "", 0, 0, 0, toc->seed, err);
    if (!st) {
        memset(plan->object_of, 0xff, (toc->count + 1) * sizeof *plan->object_of);
        plan->nodes[0].used = 1;
        plan->nodes[0].seen = 1;
        plan->nodes[0].made = 1;
        st = select_members(plan, members, member_count, picked, err);
    }
    uint32_t parent = 0;
    for (uint32_t row = 0; row < toc->count && !st; row++)
        st = add_row(plan, row, picked, options, &parent, err);
    free(picked);
    if (!st)
        st = resolve_links(plan, options, err);
    if (!st)
        st = check_members(plan, members, member_count, err);
    if (!st)
        st = check_nodes(plan, err);
    if (!st)
        st = sgz_extract_plan_batches(plan, err);
    if (!st)
        st = sgz_extract_plan_stages(plan, err);
    return st;
}

void sgz_extract_plan_free(sgz_extract_plan *plan)
{
    sgz_read_spans_free(&plan->spans);
    free(plan->nodes);
    sgz_map_free(&plan->names);
    free(plan->objects);
    free(plan->object_of);
    free(plan->links);
    free(plan->order);
    free(plan->batches);
    free(plan->stages);
    memset(plan, 0, sizeof *plan);
}
