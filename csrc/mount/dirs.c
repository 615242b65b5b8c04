/* Directory listings. A position is how many names come before it: 0 is ".", 1 "..", and the
 * children follow in the tree's order, which never changes. */
#define _GNU_SOURCE
#include "mount/internal.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

size_t sgz_mount_add_name(uint8_t *out, size_t room, int plus,
                          const struct fuse_entry_out *entry, uint64_t ino, uint32_t type,
                          uint64_t next, const char *name, size_t len)
{
    size_t before = plus ? sizeof(*entry) : 0;
    size_t used = before + FUSE_NAME_OFFSET + len;
    size_t size = FUSE_DIRENT_ALIGN(used);
    if (size > room)
        return 0;
    if (plus) {
        if (entry)
            memcpy(out, entry, sizeof(*entry));
        else
            memset(out, 0, sizeof(*entry));
    }
    struct fuse_dirent head = {ino, next, (uint32_t)len, type};
    memcpy(out + before, &head, FUSE_NAME_OFFSET);
    memcpy(out + before + FUSE_NAME_OFFSET, name, len);
    memset(out + used, 0, size - used);
    return size;
}

/* The kernel fails a whole listing for a name that it cannot take; no file system has them. */
static int fits(const char *name, size_t len)
{
    return len && len <= SGZ_FUSE_NAME_MAX && !memchr(name, '/', len) && !memchr(name, 0, len);
}

static const uint8_t dt_types[] = {
    [SGZ_DIR] = S_IFDIR >> 12, [SGZ_REG] = S_IFREG >> 12, [SGZ_SYMLINK] = S_IFLNK >> 12,
    [SGZ_CHAR] = S_IFCHR >> 12, [SGZ_BLOCK] = S_IFBLK >> 12, [SGZ_FIFO] = S_IFIFO >> 12};

static size_t list(const sgz_mount_tree *served, uint32_t dir, uint64_t at, int plus,
                   uint8_t *out, size_t room)
{
    const sgz_toc_tree *tree = served->served.tree;
    const sgz_toc_node *d = &tree->nodes[dir];
    size_t used = 0, size;
    for (; at < 2; at++) {
        /* A tree's root below the root of many images has its own number for "..": nobody
         * looks, the kernel knows its parents. */
        uint64_t ino = served->base + (at ? d->parent : dir) + 1;
        size = sgz_mount_add_name(out + used, room - used, plus, NULL, ino, S_IFDIR >> 12,
                                  at + 1, "..", at + 1);
        if (!size)
            return used;
        used += size;
    }
    for (uint64_t i = at - 2; i < d->count; i++) {
        struct fuse_entry_out entry;
        uint32_t node = d->kids + (uint32_t)i;
        size_t len;
        const char *name = sgz_toc_tree_name(tree, node, &len);
        if (!fits(name, len))
            continue;
        if (plus)
            sgz_mount_fill_entry(served, node, &entry);
        size = sgz_mount_add_name(out + used, room - used, plus, &entry,
                                  served->base + tree->nodes[node].inode + 1,
                                  dt_types[tree->nodes[node].type], i + 3, name, len);
        if (!size)
            break;
        used += size;
    }
    return used;
}

void sgz_mount_readdir(sgz_mount_thread *t, const sgz_mount_request *request)
{
    int plus = request->head->opcode == FUSE_READDIRPLUS;
    uint64_t unique = request->head->unique;
    uint32_t node;
    const struct fuse_read_in *in = BODY(request, struct fuse_read_in);
    const sgz_mount_tree *tree = sgz_mount_find(t->fuse, request->head->nodeid, &node);
    int error = 0;
    if (!in)
        error = EINVAL;
    else if (!tree)
        error = ESTALE;
    else if (tree->served.tree->nodes[node].type != SGZ_DIR)
        error = ENOTDIR;
    if (error) {
        sgz_mount_send(t->fuse, unique, error, NULL, 0);
        return;
    }
    size_t room = in->size < FUSE_READ_MAX ? in->size : FUSE_READ_MAX;
    sgz_mount_send(t->fuse, unique, 0, t->out, list(tree, node, in->offset, plus, t->out, room));
}
