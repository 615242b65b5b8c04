/* Names, attributes, links: what the tree alone answers. */
#define _GNU_SOURCE
#include "mount/internal.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

static uint32_t encode_dev(uint32_t major, uint32_t minor)
{
    return (minor & 0xff) | (major & 0xfff) << 8 | (minor & ~0xffu) << 12;
}

static void fill_attr(const sgz_mount_tree *tree, uint32_t node, struct fuse_attr *out)
{
    sgz_toc_attr attr;
    sgz_toc_tree_attr(tree->served.tree, node, &attr);
    memset(out, 0, sizeof(*out));
    out->ino = tree->base + attr.ino;
    out->size = (uint64_t)attr.size;
    out->blocks = ((uint64_t)attr.stored + 511) / 512;
    out->atime = out->mtime = out->ctime = (uint64_t)attr.mtime;
    out->atimensec = out->mtimensec = out->ctimensec = attr.mtime_ns;
    out->mode = attr.mode | (S_ISLNK(attr.mode) ? 0777 : 0); /* whatever a tar says: no system has others */
    out->nlink = attr.nlink;
    out->uid = attr.uid;
    out->gid = attr.gid;
    out->rdev = encode_dev(attr.major, attr.minor);
    out->blksize = 4096;
}

void sgz_mount_fill_entry(const sgz_mount_tree *tree, uint32_t node, struct fuse_entry_out *out)
{
    memset(out, 0, sizeof(*out));
    fill_attr(tree, node, &out->attr);
    out->nodeid = out->attr.ino; /* the same for all names of a file, so its pages are too */
    out->entry_valid = out->attr_valid = FUSE_TREE_SECONDS;
}

void sgz_mount_fill_dir(uint64_t node, int64_t mtime_ns, struct fuse_attr *attr)
{
    memset(attr, 0, sizeof(*attr));
    attr->ino = node;
    attr->atime = attr->mtime = attr->ctime = (uint64_t)(mtime_ns / 1000000000);
    attr->atimensec = attr->mtimensec = attr->ctimensec = (uint32_t)(mtime_ns % 1000000000);
    attr->mode = S_IFDIR | 0555;
    attr->nlink = 2;
    attr->blksize = 4096;
}

void sgz_mount_lookup(sgz_mount_thread *t, const sgz_mount_request *request)
{
    struct fuse_entry_out out;
    uint32_t dir;
    const sgz_mount_tree *tree = sgz_mount_find(t->fuse, request->head->nodeid, &dir);
    const char *name = (const char *)request->body;
    const char *end = memchr(name, 0, request->len);
    int error = 0;
    if (!tree)
        error = ESTALE;
    else if (!end)
        error = EINVAL;
    else if (tree->served.tree->nodes[dir].type != SGZ_DIR)
        error = ENOTDIR;
    else if (end - name > SGZ_FUSE_NAME_MAX)
        error = ENAMETOOLONG;
    if (error) {
        sgz_mount_send(t->fuse, request->head->unique, error, NULL, 0);
        return;
    }
    uint32_t node = sgz_toc_tree_child(tree->served.tree, dir, name, (size_t)(end - name));
    if (node == SGZ_NO_ROW) { /* no node: the kernel remembers that there is none */
        memset(&out, 0, sizeof(out));
        out.entry_valid = FUSE_TREE_SECONDS;
    } else {
        sgz_mount_fill_entry(tree, node, &out);
    }
    sgz_mount_send(t->fuse, request->head->unique, 0, &out, sizeof(out));
}

void sgz_mount_getattr(sgz_mount_thread *t, const sgz_mount_request *request)
{
    struct fuse_attr_out out;
    uint32_t node;
    const sgz_mount_tree *tree = sgz_mount_find(t->fuse, request->head->nodeid, &node);
    if (!tree) {
        sgz_mount_send(t->fuse, request->head->unique, ESTALE, NULL, 0);
        return;
    }
    memset(&out, 0, sizeof(out));
    out.attr_valid = FUSE_TREE_SECONDS;
    fill_attr(tree, node, &out.attr);
    sgz_mount_send(t->fuse, request->head->unique, 0, &out, sizeof(out));
}

void sgz_mount_readlink(sgz_mount_thread *t, const sgz_mount_request *request)
{
    uint32_t node;
    const sgz_mount_tree *tree = sgz_mount_find(t->fuse, request->head->nodeid, &node);
    int error = 0;
    if (!tree)
        error = ESTALE;
    else if (tree->served.tree->nodes[node].type != SGZ_SYMLINK)
        error = EINVAL;
    if (error) {
        sgz_mount_send(t->fuse, request->head->unique, error, NULL, 0);
        return;
    }
    size_t len = 0;
    const char *target = sgz_toc_tree_target(tree->served.tree, node, &len);
    if (len >= 4096) /* no kernel follows it; its buffer is a page */
        sgz_mount_send(t->fuse, request->head->unique, ENAMETOOLONG, NULL, 0);
    else
        sgz_mount_send(t->fuse, request->head->unique, 0, target, len);
}

void sgz_mount_statfs_send(sgz_mount *f, uint64_t unique, uint64_t bytes, uint64_t inodes)
{
    struct fuse_statfs_out out;
    memset(&out, 0, sizeof(out));
    out.st.bsize = out.st.frsize = 4096;
    out.st.blocks = bytes / 4096 + (bytes % 4096 != 0);
    out.st.files = inodes;
    out.st.namelen = SGZ_FUSE_NAME_MAX;
    sgz_mount_send(f, unique, 0, &out, sizeof(out));
}

void sgz_mount_statfs(sgz_mount_thread *t, const sgz_mount_request *request)
{
    uint32_t node;
    const sgz_mount_tree *tree = sgz_mount_find(t->fuse, request->head->nodeid, &node);
    if (!tree)
        sgz_mount_send(t->fuse, request->head->unique, ESTALE, NULL, 0);
    else
        sgz_mount_statfs_send(t->fuse, request->head->unique, tree->served.tree->bytes,
                              tree->served.tree->inodes);
}
