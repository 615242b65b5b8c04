/* What a tree that was built has. */
#include "toc/tree.h"

#include "base/bytes.h"
#include "toc/internal.h"

#include <sys/stat.h>

void sgz_toc_tree_free(sgz_toc_tree *tree)
{
    free(tree->layers);
    free(tree->nodes);
    memset(tree, 0, sizeof *tree);
}

/* --- look-up -------------------------------------------------------------------------- */

const char *sgz_toc_tree_name(const sgz_toc_tree *tree, uint32_t node, size_t *len)
{
    *len = 0;
    if (!node)
        return "";
    const sgz_toc_node *n = &tree->nodes[node];
    const sgz_toc_tree_layer *layer = &tree->layers[n->name_layer];
    size_t full;
    const char *name = sgz_toc_children_name(layer->toc, layer->dirs, n->name, &full);
    size_t parent = sgz_toc_parent_len(name, full);
    const char *base = parent ? name + parent + 1 : name;
    if (n->flags & SGZ_NODE_WHITEOUT)
        base += SGZ_TOC_WH_LEN;
    *len = (size_t)(name + full - base);
    return base;
}

uint32_t sgz_toc_tree_child(const sgz_toc_tree *tree, uint32_t dir, const char *name, size_t len)
{
    uint32_t at = tree->nodes[dir].kids, count = tree->nodes[dir].count;
    while (count) {
        uint32_t half = count / 2;
        size_t kid_len;
        const char *kid = sgz_toc_tree_name(tree, at + half, &kid_len);
        int order = sgz_compare(kid, kid_len, name, len);
        if (!order)
            return at + half;
        if (order < 0) {
            at += half + 1;
            count -= half + 1;
        } else {
            count = half;
        }
    }
    return SGZ_NO_ROW;
}

uint32_t sgz_toc_tree_find(const sgz_toc_tree *tree, const char *path, size_t len)
{
    char stack[1024], *scratch = len <= sizeof stack ? stack : malloc(len);
    if (!scratch)
        return SGZ_NO_ROW;
    const char *at = sgz_toc_clean_name(path, len, scratch, &len), *end = at + len;
    uint32_t node = 0;
    while (at < end && node != SGZ_NO_ROW) {
        const char *slash = memchr(at, '/', (size_t)(end - at));
        slash = slash ? slash : end;
        node = sgz_toc_tree_child(tree, node, at, (size_t)(slash - at));
        at = slash + 1;
    }
    if (scratch != stack)
        free(scratch);
    return node;
}

/* --- what stat shows ------------------------------------------------------------------ */

/* Bytes of a file that are no hole. */
static int64_t stored_of(const sgz_toc *toc, uint32_t file)
{
    int64_t stored = toc->rows[file].size;
    for (size_t i = file + (size_t)1; toc->holes && i < toc->count; i++) {
        const sgz_entry *piece = &toc->rows[i];
        if (!sgz_toc_is_piece(piece))
            break;
        stored -= piece->type == SGZ_ZEROS ? piece->chunk_size : 0;
    }
    return stored;
}

void sgz_toc_tree_attr(const sgz_toc_tree *tree, uint32_t node, sgz_toc_attr *attr)
{
    static const uint32_t formats[] = {
        [SGZ_DIR] = S_IFDIR,  [SGZ_REG] = S_IFREG,   [SGZ_SYMLINK] = S_IFLNK,
        [SGZ_CHAR] = S_IFCHR, [SGZ_BLOCK] = S_IFBLK, [SGZ_FIFO] = S_IFIFO,
        [SGZ_HARDLINK] = 0,   [SGZ_CHUNK] = 0,
    };
    const sgz_toc_node *n = &tree->nodes[node];
    const sgz_entry *row = sgz_toc_tree_row(tree, node);
    *attr = (sgz_toc_attr){
        .ino = (uint64_t)n->inode + 1,
        .mode = formats[n->type],
        .nlink = tree->nodes[n->inode].links,
    };
    if (!row) {
        attr->mode |= n->type == SGZ_DIR ? 0755 : 0;
        return;
    }
    attr->mode |= row->mode & 07777;
    sgz_toc_time mtime = sgz_toc_mtime(tree->layers[n->layer].toc, n->row);
    attr->mtime = mtime.seconds;
    attr->mtime_ns = mtime.ns;
    attr->uid = row->uid;
    attr->gid = row->gid;
    if (n->type == SGZ_REG) {
        attr->size = row->size;
        attr->stored = stored_of(tree->layers[n->layer].toc, n->row);
    } else if (n->type == SGZ_SYMLINK) {
        attr->size = row->link_len;
    } else if (n->type == SGZ_CHAR || n->type == SGZ_BLOCK) {
        attr->major = row->dev_major;
        attr->minor = row->dev_minor;
    }
}

const char *sgz_toc_tree_target(const sgz_toc_tree *tree, uint32_t node, size_t *len)
{
    const sgz_entry *row = sgz_toc_tree_row(tree, node);
    *len = 0;
    if (!row || row->type != SGZ_SYMLINK)
        return "";
    *len = row->link_len;
    return tree->layers[tree->nodes[node].layer].toc->arena + row->link_off;
}

static int of_overlay(const sgz_xattr *x)
{
    static const char *const own[] = {"trusted.overlay.", "user.overlay."};
    for (size_t i = 0, n; i < 2; i++)
        if (x->key_len >= (n = strlen(own[i])) && !memcmp(x->key, own[i], n))
            return 1;
    return 0;
}

int sgz_toc_tree_xattrs(const sgz_toc_tree *tree, uint32_t node, sgz_toc_xattr_each each,
                        void *arg)
{
    static const sgz_xattr marks[] = {{"trusted.overlay.opaque", "y", 22, 1},
                                      {"user.overlay.opaque", "y", 19, 1}};
    const sgz_entry *row = sgz_toc_tree_row(tree, node);
    int opaque = tree->nodes[node].flags & SGZ_NODE_OPAQUE, stop = 0;
    for (size_t i = 0; opaque && i < 2 && !stop; i++)
        stop = each(arg, &marks[i]);
    if (!row || !row->xattr_len)
        return stop;
    const char *at = tree->layers[tree->nodes[node].layer].toc->arena + row->xattr_off;
    const char *end = at + row->xattr_len;
    sgz_xattr x;
    while (!stop && sgz_xattrs_next(&at, end, &x))
        if (tree->raw || !of_overlay(&x))
            stop = each(arg, &x);
    return stop;
}

int sgz_toc_tree_has_xattrs(const sgz_toc_tree *tree)
{
    for (uint32_t i = 0; i < tree->count; i++) {
        const sgz_entry *row = sgz_toc_tree_row(tree, i);
        if (tree->nodes[i].flags & (SGZ_NODE_OPAQUE | SGZ_NODE_WHITEOUT) ||
            (row && row->xattr_len))
            return 1;
    }
    return 0;
}
