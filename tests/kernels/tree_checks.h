/* What tree.h promises of every tree, for those who make trees of random layers. CHECK is the
 * includer's. */
#ifndef SGZ_TEST_TREE_CHECKS_H
#define SGZ_TEST_TREE_CHECKS_H

#include "toc/tree.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int is(const char *name, size_t len, const char *other)
{
    return len == strlen(other) && !memcmp(name, other, len);
}

static int count_xattr(void *arg, const sgz_xattr *x)
{
    ++*(int *)arg;
    return x->key_len < 5 || x->value_len != 1 || *x->value != 'y' ||
           memchr(x->key, 0, x->key_len) != NULL;
}

static void check_name(const sgz_toc_tree *tree, uint32_t node, sgz_toc_whiteouts whiteouts)
{
    size_t len, before_len;
    const char *name = sgz_toc_tree_name(tree, node, &len);
    uint32_t parent = tree->nodes[node].parent;
    CHECK(len && !memchr(name, '/', len) && !is(name, len, ".") && !is(name, len, ".."));
    if (whiteouts != SGZ_WHITEOUTS_RAW)
        CHECK(len < 4 || memcmp(name, ".wh.", 4));
    if (!parent)
        CHECK(!is(name, len, SGZ_LANDMARK) && !is(name, len, SGZ_TOC_NAME));
    CHECK(sgz_toc_tree_child(tree, parent, name, len) == node);
    if (node > tree->nodes[parent].kids) {
        const char *before = sgz_toc_tree_name(tree, node - 1, &before_len);
        int order = memcmp(before, name, before_len < len ? before_len : len);
        CHECK(order < 0 || (!order && before_len < len));
    }
}

static void check_tree(const sgz_toc_tree *tree, sgz_toc_whiteouts whiteouts)
{
    uint32_t *names = calloc(tree->count, sizeof *names), inodes = 0, next = 1;
    CHECK(names && tree->count && tree->nodes[0].type == SGZ_DIR);
    for (uint32_t i = 0; i < tree->count; i++) {
        const sgz_toc_node *node = &tree->nodes[i];
        sgz_toc_attr attr;
        int xattrs = 0;
        size_t len;
        CHECK(node->inode <= i && node->parent <= i && (!i || node->parent < i));
        CHECK(tree->nodes[node->inode].inode == node->inode);
        CHECK(node->layer < tree->layer_count && node->name_layer < tree->layer_count);
        CHECK(node->type >= SGZ_DIR && node->type < SGZ_CHUNK && node->type != SGZ_HARDLINK);
        if (i)
            check_name(tree, i, whiteouts);
        if (node->type == SGZ_DIR) { /* children are consecutive, and in the order of parents */
            CHECK(node->kids == next);
            next += node->count;
            for (uint32_t kid = node->kids; kid < next; kid++) {
                CHECK(tree->nodes[kid].parent == i);
                names[i] += tree->nodes[kid].type == SGZ_DIR;
            }
            names[i] += 2;
        } else {
            CHECK(!node->count);
            names[node->inode]++;
        }
        inodes += node->inode == i;
        sgz_toc_tree_attr(tree, i, &attr);
        CHECK(attr.ino == node->inode + (uint64_t)1);
        CHECK(S_ISDIR(attr.mode) == (node->type == SGZ_DIR));
        CHECK((attr.mode & ~07777u) && !(attr.mode & 07000));
        CHECK(!sgz_toc_tree_xattrs(tree, i, count_xattr, &xattrs));
        CHECK(xattrs == (node->flags & SGZ_NODE_OPAQUE ? 2 : 0));
        CHECK(whiteouts == SGZ_WHITEOUTS_OVERLAY || !node->flags);
        sgz_toc_tree_target(tree, i, &len);
        CHECK(!len == (node->type != SGZ_SYMLINK));
    }
    CHECK(next == tree->count && inodes == tree->inodes);
    for (uint32_t i = 0; i < tree->count; i++)
        if (tree->nodes[i].inode == i)
            CHECK(tree->nodes[i].links == names[i]);
    free(names);
}

/* Every path leads to its node, however it is written. */
static void check_paths(const sgz_toc_tree *tree)
{
    for (uint32_t i = 0; i < tree->count; i++) {
        char path[4096], *start = path + sizeof path - 8;
        strcpy(start, "/\x01");
        for (uint32_t at = i; at; at = tree->nodes[at].parent) {
            size_t len;
            const char *name = sgz_toc_tree_name(tree, at, &len);
            CHECK(start - path > (ptrdiff_t)len + 4);
            start = memcpy(start - len, name, len);
            start = memcpy(start - 4, "/.//", 4);
        }
        CHECK(sgz_toc_tree_find(tree, start, strlen(start)) == SGZ_NO_ROW);
        CHECK(sgz_toc_tree_find(tree, start, strlen(start) - 1) == i);
    }
}

#endif
