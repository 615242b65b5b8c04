/* The file system that one layer makes, or a stack of layers: every name once, directories
 * merged, whiteouts applied (OCI image specification, layer.md "Whiteouts").
 *
 * Built once from the parsed TOCs and then only read, by any number of threads. A node costs
 * sizeof(sgz_toc_node) bytes; names stay in the TOCs. The children of a directory are consecutive
 * nodes, sorted by the bytes of their base names; node 0 is the root. Which number a node has
 * depends on the layers alone, so numbers serve as inodes across mounts. */
#ifndef SGZ_TOC_TREE_H
#define SGZ_TOC_TREE_H

#include "base/xattrs.h"
#include "toc/toc.h"

typedef struct {
    const sgz_toc *toc;         /* parsed */
    const sgz_toc_children *dirs; /* of that TOC */
} sgz_toc_tree_layer;

/* What `.wh.NAME` and `.wh..wh..opq` entries become. A stack of layers has them applied;
 * the others are for a single layer. */
typedef enum {
    SGZ_WHITEOUTS_APPLY,  /* to the layers below, and gone */
    SGZ_WHITEOUTS_HIDE,   /* gone (the same for one layer) */
    SGZ_WHITEOUTS_RAW,    /* ordinary entries, as the layer has them */
    SGZ_WHITEOUTS_OVERLAY /* character device 0:0 and the opaque xattr, as overlayfs stacks */
} sgz_toc_whiteouts;

/* Bits of sgz_toc_node.flags. */
enum { SGZ_NODE_WHITEOUT = 1, SGZ_NODE_OPAQUE = 2 };

typedef struct {
    uint32_t row;         /* of its metadata and data, hard links resolved; SGZ_NO_ROW: an
                             implied directory (mode 0755, owner 0, no times) */
    uint32_t name;        /* node of name_layer's toc_tree whose base name it has */
    uint32_t parent;      /* the root's is itself */
    uint32_t kids, count; /* children: nodes [kids, kids + count) */
    uint32_t inode;       /* the first node that names the same file; itself if none before */
    uint32_t links;       /* of a directory 2 and its subdirectories, else its names here;
                             valid at the inode's node */
    uint16_t layer;       /* whose row it is */
    uint16_t name_layer;
    uint8_t type;         /* SGZ_DIR, SGZ_REG, ...; never SGZ_HARDLINK or SGZ_CHUNK */
    uint8_t flags;
} sgz_toc_node;

#define SGZ_TREE_LAYERS_MAX 4096

typedef struct {
    sgz_toc_tree_layer *layers; /* a copy, from the lowest up */
    uint32_t layer_count;
    sgz_toc_node *nodes;
    uint32_t count;
    uint64_t bytes;          /* sum of the sizes of all regular files, each inode once */
    uint32_t inodes;         /* distinct ones */
    int raw;                 /* as the layer has it */
} sgz_toc_tree;

/* `layers` from the lowest up; they must outlive the tree. What a layer has for itself in the root
 * (landmarks, a TOC) is left out but with `markers`. */
sgz_status sgz_toc_tree_build(sgz_toc_tree *tree, const sgz_toc_tree_layer *layers,
                              uint32_t count, sgz_toc_whiteouts whiteouts, int markers,
                              sgz_error *err);
void sgz_toc_tree_free(sgz_toc_tree *tree);

/* The base name of a node; "" of the root. Not terminated. */
const char *sgz_toc_tree_name(const sgz_toc_tree *tree, uint32_t node, size_t *len);
/* The child of a directory with this base name, or SGZ_NO_ROW. */
uint32_t sgz_toc_tree_child(const sgz_toc_tree *tree, uint32_t dir, const char *name,
                            size_t len);
/* The node of a path (cleaned on the fly; "" is the root); symlinks are not followed. */
uint32_t sgz_toc_tree_find(const sgz_toc_tree *tree, const char *path, size_t len);
/* The row of a node, or NULL for implied directories and the like. */
static inline const sgz_entry *sgz_toc_tree_row(const sgz_toc_tree *tree, uint32_t node)
{
    const sgz_toc_node *n = &tree->nodes[node];
    return n->row == SGZ_NO_ROW ? NULL : &tree->layers[n->layer].toc->rows[n->row];
}

/* What stat shows of a node. `mode` has the S_IF bits. A symlink's
 * size is the length of its target. `stored` bytes of a file are no hole. */
typedef struct {
    uint64_t ino;            /* inode + 1 */
    int64_t size, stored, mtime;
    uint32_t mtime_ns;       /* its fraction, of an ordinary tar */
    uint32_t mode, nlink, uid, gid;
    uint32_t major, minor;   /* of devices */
} sgz_toc_attr;
void sgz_toc_tree_attr(const sgz_toc_tree *tree, uint32_t node, sgz_toc_attr *attr);

/* The target of a symlink. */
const char *sgz_toc_tree_target(const sgz_toc_tree *tree, uint32_t node, size_t *len);

/* Call `each` with every xattr of a node until it returns non-zero, which is returned. Those by
 * which overlayfs keeps its books are a layer's own only in the raw view: an overlay over a mount
 * would take them for its word. */
typedef int (*sgz_toc_xattr_each)(void *arg, const sgz_xattr *xattr);
int sgz_toc_tree_xattrs(const sgz_toc_tree *tree, uint32_t node, sgz_toc_xattr_each each,
                        void *arg);

/* Whether any node has one, what "overlay" makes of whiteouts included. */
int sgz_toc_tree_has_xattrs(const sgz_toc_tree *tree);

#endif
