#include "base/bytes.h"
#include "toc/internal.h"

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0,
                         "no memory for the directories of the TOC");
}

const char *sgz_toc_children_name(const sgz_toc *toc, const sgz_toc_children *tree,
                                  uint32_t node, size_t *len)
{
    if (node < tree->row_count) {
        *len = toc->rows[node].name_len;
        return sgz_toc_entry_name(toc, &toc->rows[node]);
    }
    const struct sgz_toc_implied *implied = &tree->implied[node - tree->row_count];
    *len = implied->len;
    return implied->len ? sgz_toc_entry_name(toc, &toc->rows[implied->row]) : "";
}

/* The slot of an implied directory: taken by it, or free. */
static size_t implied_slot(const sgz_toc *toc, const sgz_toc_children *tree, uint64_t hash,
                           const char *name, size_t len)
{
    const sgz_map *map = &tree->implied_names;
    size_t at = sgz_map_first(map, hash);
    for (; sgz_map_taken(map, at); at = sgz_map_next(map, hash, at)) {
        const struct sgz_toc_implied *other = &tree->implied[sgz_map_number(map, at)];
        if (other->len == len &&
            (!len || !memcmp(sgz_toc_entry_name(toc, &toc->rows[other->row]), name, len)))
            break;
    }
    return at;
}

static uint32_t find_clean(const sgz_toc *toc, const sgz_toc_children *tree, uint64_t hash,
                           const char *name, size_t len)
{
    uint32_t row = sgz_toc_find(toc, hash, name, len);
    if (row != SGZ_NO_ROW)
        return row;
    uint32_t n = sgz_map_number(&tree->implied_names, implied_slot(toc, tree, hash, name, len));
    return n == SGZ_MAP_NONE ? SGZ_NO_ROW : tree->row_count + n;
}

uint32_t sgz_toc_children_find(const sgz_toc *toc, const sgz_toc_children *tree,
                               const char *name, size_t len)
{
    char *scratch = malloc(len + 1);
    if (!scratch)
        return SGZ_NO_ROW;
    const char *clean = sgz_toc_clean_name(name, len, scratch, &len);
    uint32_t node = find_clean(toc, tree, sgz_toc_hash_name(toc->seed, clean, len), clean, len);
    free(scratch);
    return node;
}

/* `node` is the parent's, and then the new one's. */
static sgz_status add_implied(const sgz_toc *toc, sgz_toc_children *tree, uint32_t row,
                              uint64_t hash, const char *name, uint32_t len, uint32_t *node,
                              sgz_error *err)
{
    /* The root too. How many there are was bounded when the TOC was read. */
    if (tree->implied_count > toc->implied ||
        tree->row_count + (uint64_t)tree->implied_count >= SGZ_NO_ROW - 1)
        return sgz_base_fail(err, SGZ_ETOC, -1, name, len,
                             "the names imply too many directories");
    struct sgz_toc_implied implied = {row, len, *node};
    if (!sgz_map_reserve(&tree->implied_names, 1) ||
        !SGZ_PUSH(tree->implied, tree->implied_count, tree->implied_cap, implied))
        return no_memory(err);
    sgz_map_put(&tree->implied_names, implied_slot(toc, tree, hash, name, len), hash,
                tree->implied_count - 1);
    *node = tree->row_count + tree->implied_count - 1;
    return SGZ_OK;
}

static int is_named(const sgz_entry *row)
{
    return !sgz_toc_is_piece(row) && !(row->flags & SGZ_DROPPED);
}

/* The node of a row's parent directory; those that are not there yet are made. */
static sgz_status find_parent(const sgz_toc *toc, sgz_toc_children *tree, uint32_t row,
                              const char *name, size_t len, sgz_toc_above *ancestors,
                              uint32_t *node, sgz_error *err)
{
    *node = len ? find_clean(toc, tree, sgz_toc_hash_name(toc->seed, name, len), name, len)
                : tree->root;
    if (*node != SGZ_NO_ROW)
        return SGZ_OK;
    if (!sgz_toc_ancestors(toc, name, len, ancestors))
        return no_memory(err);
    size_t missing = ancestors->count;
    while (*node == SGZ_NO_ROW && --missing)
        *node = find_clean(toc, tree, ancestors->list[missing - 1].hash, name,
                           ancestors->list[missing - 1].len);
    if (*node == SGZ_NO_ROW)
        *node = tree->root;
    sgz_status status = SGZ_OK;
    for (; missing < ancestors->count && !status; missing++)
        status = add_implied(toc, tree, row, ancestors->list[missing].hash, name,
                             ancestors->list[missing].len, node, err);
    return status;
}

/* Add all directories that names imply, the root too, and note the parent of every row:
 * SGZ_NO_ROW for the root and for rows that are no names. */
static sgz_status find_parents(const sgz_toc *toc, sgz_toc_children *tree, uint32_t *parents,
                               sgz_error *err)
{
    sgz_status status = SGZ_OK;
    tree->root = sgz_toc_find(toc, toc->seed, "", 0);
    if (tree->root == SGZ_NO_ROW)
        status = add_implied(toc, tree, 0, toc->seed, "", 0, &tree->root, err);
    sgz_toc_above ancestors = {0};
    const char *last = "";
    size_t last_len = 0;
    uint32_t node = tree->root; /* of the parent that was asked for last */
    for (uint32_t i = 0; i < tree->row_count && !status; i++) {
        parents[i] = SGZ_NO_ROW;
        if (i == tree->root || !is_named(&toc->rows[i]))
            continue;
        const char *name = sgz_toc_entry_name(toc, &toc->rows[i]);
        size_t len = sgz_toc_parent_len(name, toc->rows[i].name_len);
        if (len != last_len || memcmp(name, last, len)) {
            status = find_parent(toc, tree, i, name, len, &ancestors, &node, err);
            last = name;
            last_len = len;
        }
        parents[i] = node;
    }
    free(ancestors.list);
    return status;
}

/* Children of one directory in the order of their base names, which begin at `skip`. */
static int before(const sgz_toc *toc, const sgz_toc_children *tree, size_t skip, uint32_t a,
                  uint32_t b)
{
    size_t a_len, b_len;
    const char *a_name = sgz_toc_children_name(toc, tree, a, &a_len) + skip;
    const char *b_name = sgz_toc_children_name(toc, tree, b, &b_len) + skip;
    return sgz_compare(a_name, a_len - skip, b_name, b_len - skip) < 0;
}

/* Merge sort, runs that are in order already are left as they are. */
static void sort_nodes(const sgz_toc *toc, const sgz_toc_children *tree, size_t skip,
                       uint32_t *nodes, uint32_t count, uint32_t *spare)
{
    if (count < 2)
        return;
    uint32_t half = count / 2;
    sort_nodes(toc, tree, skip, nodes, half, spare);
    sort_nodes(toc, tree, skip, nodes + half, count - half, spare);
    if (before(toc, tree, skip, nodes[half - 1], nodes[half]))
        return;
    memcpy(spare, nodes, half * sizeof *nodes);
    uint32_t left = 0, right = half, out = 0;
    while (left < half && right < count)
        if (before(toc, tree, skip, nodes[right], spare[left]))
            nodes[out++] = nodes[right++];
        else
            nodes[out++] = spare[left++];
    memcpy(nodes + out, spare + left, (half - left) * sizeof *nodes);
}

/* A counting sort of all nodes by parent, then each directory by name. */
static void sort_kids(const sgz_toc *toc, sgz_toc_children *tree, uint32_t *parents,
                      size_t nodes)
{
    /* Counts stand two places on, so that after the second sum starts[n] is where the
     * children of n begin. */
    uint32_t *next = tree->starts + 1;
    for (size_t i = 0; i < nodes; i++)
        if (parents[i] != SGZ_NO_ROW)
            next[parents[i] + 1]++;
    for (size_t i = 1; i <= nodes; i++)
        next[i] += next[i - 1];
    for (size_t i = 0; i < nodes; i++)
        if (parents[i] != SGZ_NO_ROW)
            tree->kids[next[parents[i]]++] = (uint32_t)i;
    for (size_t i = 0; i < nodes; i++) {
        uint32_t *kids = tree->kids + tree->starts[i];
        size_t len;
        sgz_toc_children_name(toc, tree, (uint32_t)i, &len);
        sort_nodes(toc, tree, len ? len + 1 : 0, kids, tree->starts[i + 1] - tree->starts[i],
                   parents); /* as spare room */
    }
}

sgz_status sgz_toc_children_build(const sgz_toc *toc, sgz_toc_children *tree, sgz_error *err)
{
    memset(tree, 0, sizeof *tree);
    tree->row_count = (uint32_t)toc->count;
    uint32_t *parents = malloc((toc->count + 1) * sizeof *parents);
    sgz_status status = parents ? find_parents(toc, tree, parents, err) : no_memory(err);
    if (!status) {
        size_t nodes = (size_t)tree->row_count + tree->implied_count;
        uint32_t *all = realloc(parents, (nodes + 1) * sizeof *parents);
        parents = all ? all : parents;
        tree->starts = calloc(nodes + 2, sizeof *tree->starts);
        tree->kids = malloc((nodes + 1) * sizeof *tree->kids);
        if (all && tree->starts && tree->kids) {
            for (uint32_t i = 0; i < tree->implied_count; i++)
                parents[tree->row_count + i] = tree->implied[i].parent;
            sort_kids(toc, tree, parents, nodes);
        } else {
            status = no_memory(err);
        }
    }
    free(parents);
    if (status)
        sgz_toc_children_free(tree);
    return status;
}

void sgz_toc_children_free(sgz_toc_children *tree)
{
    free(tree->implied);
    sgz_map_free(&tree->implied_names);
    free(tree->starts);
    free(tree->kids);
    memset(tree, 0, sizeof *tree);
}
