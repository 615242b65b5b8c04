/* Merging the layers of a tree. */
#include "toc/tree.h"

#include "base/bytes.h"
#include "toc/internal.h"

#define WH SGZ_TOC_WH
#define WH_LEN SGZ_TOC_WH_LEN
#define WH_END ".wh/" /* sorts right behind all base names that begin with .wh. */
#define OPAQUE WH WH ".opq"

/* A directory of one layer, to be merged into a node. */
typedef struct {
    uint32_t layer, dir;
} source;

/* The children of a source that are left: its entries, or its whiteouts by what they hide. */
typedef struct {
    const char *name;
    size_t len;
    size_t skip;             /* of a full name what is not compared */
    const uint32_t *at, *end;
    uint32_t node, layer;
    int rank;                /* which of equal names comes first: the upper layer's, and of one
                                layer the entry before the whiteout */
    int whiteout;
} stream;

typedef struct {
    sgz_toc_tree *tree;
    sgz_toc_whiteouts whiteouts;
    int markers;             /* are shown */
    source *sources;         /* a queue: nodes are merged in the order they are made */
    size_t source_count, source_cap;
    stream *streams;         /* a heap, the first name first */
    size_t stream_count;
    uint32_t *firsts;        /* of every row of every layer its first node and 1 */
    uint64_t *first_at;      /* where a layer's begin */
} merge;

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the tree of files");
}

/* --- names ---------------------------------------------------------------------------- */

static int has_wh(const char *name, size_t len)
{
    return len >= WH_LEN && !memcmp(name, WH, WH_LEN);
}

/* Where the base names of a directory's children begin in their full names. */
static size_t skip_of(const sgz_toc_tree_layer *layer, uint32_t dir)
{
    size_t len;
    sgz_toc_children_name(layer->toc, layer->dirs, dir, &len);
    return len ? len + 1 : 0;
}

/* The first child whose base name is not before `name`. */
static const uint32_t *lower_bound(const sgz_toc_tree_layer *layer, size_t skip,
                                   const uint32_t *at, const uint32_t *end, const char *name)
{
    size_t name_len = strlen(name), count = (size_t)(end - at);
    while (count) {
        size_t half = count / 2, len;
        const char *kid = sgz_toc_children_name(layer->toc, layer->dirs, at[half], &len);
        if (sgz_compare(kid + skip, len - skip, name, name_len) < 0) {
            at += half + 1;
            count -= half + 1;
        } else {
            count = half;
        }
    }
    return at;
}

/* --- streams -------------------------------------------------------------------------- */

static int before(const stream *a, const stream *b)
{
    int order = sgz_compare(a->name, a->len, b->name, b->len);
    return order ? order < 0 : a->rank < b->rank;
}

/* Restore the heap after the stream at its top has changed. */
static void sift(merge *m)
{
    size_t at = 0, count = m->stream_count;
    stream moved = m->streams[0];
    for (size_t child; (child = at * 2 + 1) < count; at = child) {
        if (child + 1 < count && before(&m->streams[child + 1], &m->streams[child]))
            child++;
        if (!before(&m->streams[child], &moved))
            break;
        m->streams[at] = m->streams[child];
    }
    m->streams[at] = moved;
}

/* The next child of a stream; 0: it has none. */
static int advance(const sgz_toc_tree *tree, stream *s)
{
    if (s->at == s->end)
        return 0;
    const sgz_toc_tree_layer *layer = &tree->layers[s->layer];
    size_t len;
    s->node = *s->at++;
    s->name = sgz_toc_children_name(layer->toc, layer->dirs, s->node, &len) + s->skip;
    s->len = len - s->skip;
    return 1;
}

static void add_stream(merge *m, stream s)
{
    if (!advance(m->tree, &s))
        return;
    size_t at = m->stream_count++;
    for (; at && before(&s, &m->streams[(at - 1) / 2]); at = (at - 1) / 2)
        m->streams[at] = m->streams[(at - 1) / 2];
    m->streams[at] = s;
}

/* Add the streams of one source. Whether it hides what the sources below it have. */
static int add_source(merge *m, const source *from, int rank)
{
    const sgz_toc_tree_layer *layer = &m->tree->layers[from->layer];
    const uint32_t *kids = layer->dirs->kids;
    const uint32_t *at = kids + layer->dirs->starts[from->dir];
    const uint32_t *end = kids + layer->dirs->starts[from->dir + 1];
    size_t skip = skip_of(layer, from->dir), len;
    stream s = {.skip = skip, .at = at, .end = end, .layer = from->layer, .rank = rank};
    if (m->whiteouts == SGZ_WHITEOUTS_RAW) {
        add_stream(m, s);
        return 0;
    }
    const uint32_t *wh = lower_bound(layer, skip, at, end, WH);
    const uint32_t *wh_end = lower_bound(layer, skip, wh, end, WH_END);
    if (wh == wh_end) {
        add_stream(m, s);
        return 0;
    }
    /* The children behind the whiteouts follow as a stream of their own: no name is in both. */
    s.end = wh;
    add_stream(m, s);
    s.at = wh_end;
    s.end = end;
    add_stream(m, s);
    s.at = wh;
    s.end = wh_end;
    s.skip += WH_LEN;
    s.rank++;
    s.whiteout = 1;
    add_stream(m, s);
    const uint32_t *opaque = lower_bound(layer, skip, wh, wh_end, OPAQUE);
    if (opaque == wh_end)
        return 0;
    const char *name = sgz_toc_children_name(layer->toc, layer->dirs, *opaque, &len);
    return sgz_is(name + skip, len - skip, OPAQUE);
}

/* --- nodes ---------------------------------------------------------------------------- */

static sgz_status push_source(merge *m, sgz_toc_node *node, uint32_t layer, uint32_t dir,
                              sgz_error *err)
{
    if (!node->count++)
        node->kids = (uint32_t)m->source_count; /* until the directory is merged */
    source from = {layer, dir};
    return SGZ_PUSH(m->sources, m->source_count, m->source_cap, from) ? SGZ_OK : no_memory(err);
}

/* Take an entry into the node that is being made; entries come from the upper layers first.
 * *closed is set when those of the layers below do not matter any more. */
static sgz_status take_entry(merge *m, sgz_toc_node *node, const stream *s, int *closed,
                             sgz_error *err)
{
    const sgz_toc_tree_layer *layer = &m->tree->layers[s->layer];
    uint32_t row = s->node < layer->dirs->row_count ? sgz_toc_resolve(layer->toc, s->node)
                                                    : SGZ_NO_ROW;
    uint8_t type = row == SGZ_NO_ROW ? SGZ_DIR : layer->toc->rows[row].type;
    *closed = type != SGZ_DIR;
    if (!node->type) {
        node->type = type;
        node->row = row;
        node->name = s->node;
        node->layer = node->name_layer = (uint16_t)s->layer;
    } else if (*closed) {
        return SGZ_OK;
    } else if (node->row == SGZ_NO_ROW && row != SGZ_NO_ROW) {
        node->row = row;
        node->layer = (uint16_t)s->layer;
    }
    return type == SGZ_DIR ? push_source(m, node, s->layer, s->node, err) : SGZ_OK;
}

/* Overlayfs takes over the directory, or the absence. */
static void take_whiteout(sgz_toc_node *node, const stream *s)
{
    if (node->type) {
        node->flags |= SGZ_NODE_OPAQUE;
        return;
    }
    node->type = SGZ_CHAR;
    node->flags = SGZ_NODE_WHITEOUT;
    node->row = SGZ_NO_ROW;
    node->name = s->node;
    node->layer = node->name_layer = (uint16_t)s->layer;
}

/* Inode, links and sizes of a node, whose place is known now. */
static void count_node(merge *m, uint32_t parent, uint32_t number)
{
    sgz_toc_tree *tree = m->tree;
    sgz_toc_node *node = &tree->nodes[number];
    node->parent = parent;
    node->inode = number;
    if (node->type == SGZ_DIR) {
        node->links = 2;
        tree->nodes[parent].links += parent != number;
    } else if (node->row == SGZ_NO_ROW) {
        node->links = 1;
    } else {
        uint32_t *first = &m->firsts[m->first_at[node->layer] + node->row];
        if (*first)
            node->inode = *first - 1;
        else
            *first = number + 1;
        tree->nodes[node->inode].links++;
    }
    if (node->inode != number)
        return;
    tree->inodes++;
    if (node->type == SGZ_REG) {
        uint64_t size = (uint64_t)sgz_toc_tree_row(tree, number)->size;
        tree->bytes = tree->bytes + size < size ? UINT64_MAX : tree->bytes + size;
    }
}

static int is_hidden(const merge *m, uint32_t parent, const stream *s)
{
    if (parent == 0 && !m->markers && !m->tree->layers[s->layer].toc->origins &&
        sgz_toc_marker(s->name, s->len))
        return 1;
    /* What the whiteouts that are no whiteouts would make: .wh. and .wh..wh.plnk */
    return s->whiteout &&
           (!s->len || sgz_is(s->name, s->len, ".") || sgz_is(s->name, s->len, "..") ||
            has_wh(s->name, s->len) || m->whiteouts != SGZ_WHITEOUTS_OVERLAY);
}

/* Take all that has the first name off the streams, and make the one node that it comes to. */
static sgz_status merge_name(merge *m, uint32_t parent, sgz_error *err)
{
    sgz_toc_node *node = &m->tree->nodes[m->tree->count];
    const char *name = m->streams[0].name;
    size_t len = m->streams[0].len;
    sgz_status status = SGZ_OK;
    int closed = 0;
    memset(node, 0, sizeof *node);
    do {
        stream *s = &m->streams[0];
        if (!closed) {
            int hidden = is_hidden(m, parent, s);
            if (s->whiteout) {
                closed = 1;
                if (!hidden)
                    take_whiteout(node, s);
            } else if (!hidden) {
                status = take_entry(m, node, s, &closed, err);
            }
        }
        if (!advance(m->tree, s))
            *s = m->streams[--m->stream_count];
        if (m->stream_count)
            sift(m);
    } while (!status && m->stream_count &&
             !sgz_compare(m->streams[0].name, m->streams[0].len, name, len));
    if (!status && node->type)
        count_node(m, parent, m->tree->count++);
    return status;
}

static sgz_status merge_directory(merge *m, uint32_t number, sgz_error *err)
{
    sgz_toc_node *nodes = m->tree->nodes;
    size_t first = nodes[number].kids, count = nodes[number].count;
    sgz_status status = SGZ_OK;
    m->stream_count = 0;
    for (size_t i = 0; i < count; i++)
        if (add_source(m, &m->sources[first + i], (int)i * 2)) {
            if (m->whiteouts == SGZ_WHITEOUTS_OVERLAY)
                nodes[number].flags |= SGZ_NODE_OPAQUE;
            break;
        }
    nodes[number].kids = m->tree->count;
    while (m->stream_count && !status)
        status = merge_name(m, number, err);
    nodes[number].count = m->tree->count - nodes[number].kids;
    return status;
}

static sgz_status make_root(merge *m, sgz_error *err)
{
    sgz_toc_tree *tree = m->tree;
    sgz_toc_node *root = &tree->nodes[0];
    memset(root, 0, sizeof *root);
    root->row = SGZ_NO_ROW;
    sgz_status status = SGZ_OK;
    for (uint32_t i = tree->layer_count; i-- > 0 && !status;) {
        stream s = {.node = tree->layers[i].dirs->root, .layer = i};
        int closed;
        status = take_entry(m, root, &s, &closed, err);
    }
    if (!status) {
        root->type = SGZ_DIR; /* also without layers */
        tree->count = 1;
        count_node(m, 0, 0);
    }
    return status;
}

/* Room for as many nodes as there can be, and what merging needs. */
static sgz_status prepare(merge *m, const sgz_toc_tree_layer *layers, sgz_error *err)
{
    sgz_toc_tree *tree = m->tree;
    uint32_t count = tree->layer_count;
    uint64_t nodes = 1, rows = 0;
    tree->layers = malloc((count + (size_t)1) * sizeof *tree->layers);
    m->first_at = malloc((count + (size_t)1) * sizeof *m->first_at);
    m->streams = malloc((count + (size_t)1) * 3 * sizeof *m->streams);
    if (!tree->layers || !m->first_at || !m->streams)
        return no_memory(err);
    for (uint32_t i = 0; i < count; i++) {
        tree->layers[i] = layers[i];
        m->first_at[i] = rows;
        rows += layers[i].dirs->row_count;
        nodes += layers[i].dirs->starts[(uint64_t)layers[i].dirs->row_count +
                                        layers[i].dirs->implied_count];
    }
    if (nodes >= SGZ_NO_ROW)
        return sgz_base_fail(err, SGZ_ETOC, -1, NULL, 0,
                             "the layers have %llu names, more than one tree can have",
                             (unsigned long long)nodes);
    tree->nodes = malloc(nodes * sizeof *tree->nodes);
    m->firsts = calloc(rows + 1, sizeof *m->firsts);
    return tree->nodes && m->firsts ? SGZ_OK : no_memory(err);
}

sgz_status sgz_toc_tree_build(sgz_toc_tree *tree, const sgz_toc_tree_layer *layers,
                              uint32_t count, sgz_toc_whiteouts whiteouts, int markers,
                              sgz_error *err)
{
    merge m = {.tree = tree, .whiteouts = whiteouts, .markers = markers};
    memset(tree, 0, sizeof *tree);
    tree->raw = whiteouts == SGZ_WHITEOUTS_RAW;
    if (count > SGZ_TREE_LAYERS_MAX)
        return sgz_base_fail(err, SGZ_ETOC, -1, NULL, 0,
                             "%u layers are more than a tree can have, %d", count,
                             SGZ_TREE_LAYERS_MAX);
    tree->layer_count = count;
    sgz_status status = prepare(&m, layers, err);
    if (!status)
        status = make_root(&m, err);
    for (uint32_t i = 0; i < tree->count && !status; i++)
        if (tree->nodes[i].type == SGZ_DIR)
            status = merge_directory(&m, i, err);
    free(m.sources);
    free(m.streams);
    free(m.firsts);
    free(m.first_at);
    if (status) {
        sgz_toc_tree_free(tree);
        return status;
    }
    sgz_toc_node *nodes = realloc(tree->nodes, tree->count * sizeof *nodes);
    tree->nodes = nodes ? nodes : tree->nodes;
    return SGZ_OK;
}
