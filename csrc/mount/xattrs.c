/* Extended attributes. */
#define _GNU_SOURCE
#include "mount/internal.h"

#include <errno.h>

#include "base/bytes.h"

#define VALUE_MAX 65536 /* Linux's own limit */
#define KEY_MAX 255

/* The tree of a request, or NULL after an answer. Where no node has an xattr the kernel need
 * not ask for one again: it asks for security.capability at every exec, and ls for each file. A
 * list is given in any case, since an overlay over this would fail without. */
static const sgz_mount_tree *asked_of(sgz_mount_thread *t, const sgz_mount_request *request,
                                      uint32_t *node)
{
    const sgz_mount_tree *tree = sgz_mount_find(t->fuse, request->head->nodeid, node);
    int error = 0;
    if (!tree)
        error = ESTALE;
    else if (!BODY(request, struct fuse_getxattr_in))
        error = EINVAL;
    else if (!tree->xattrs && !t->fuse->asked_root && request->head->opcode == FUSE_GETXATTR)
        error = ENOSYS;
    if (!error)
        return tree;
    sgz_mount_send(t->fuse, request->head->unique, error, NULL, 0);
    return NULL;
}

/* `size` 0 asks how much there is. */
static void answer(sgz_mount_thread *t, const sgz_mount_request *request, uint32_t size,
                   const void *data, size_t len)
{
    struct fuse_getxattr_out out = {.size = (uint32_t)len};
    if (!size)
        sgz_mount_send(t->fuse, request->head->unique, 0, &out, sizeof(out));
    else if (len > size)
        sgz_mount_send(t->fuse, request->head->unique, ERANGE, NULL, 0);
    else
        sgz_mount_send(t->fuse, request->head->unique, 0, data, len);
}

/* `arg` has the key that is sought, and gets the value. */
static int match(void *arg, const sgz_xattr *x)
{
    sgz_xattr *sought = arg;
    if (sgz_compare(x->key, x->key_len, sought->key, sought->key_len))
        return 0;
    *sought = *x;
    return 1;
}

void sgz_mount_getxattr(sgz_mount_thread *t, const sgz_mount_request *request)
{
    uint32_t node;
    const sgz_mount_tree *tree = asked_of(t, request, &node);
    if (!tree)
        return;
    const struct fuse_getxattr_in *in = (const void *)request->body;
    sgz_xattr x = {.key = (const char *)(in + 1)};
    size_t room = request->len - sizeof(*in);
    const char *end = memchr(x.key, 0, room);
    if (!end) {
        sgz_mount_send(t->fuse, request->head->unique, EINVAL, NULL, 0);
        return;
    }
    x.key_len = (uint32_t)(end - x.key);
    if (!sgz_toc_tree_xattrs(tree->served.tree, node, match, &x))
        sgz_mount_send(t->fuse, request->head->unique, ENODATA, NULL, 0);
    else if (x.value_len > VALUE_MAX)
        sgz_mount_send(t->fuse, request->head->unique, E2BIG, NULL, 0);
    else
        answer(t, request, in->size, x.value, x.value_len);
}

typedef struct {
    uint8_t *out;
    size_t len;
} names;

static int collect(void *arg, const sgz_xattr *x)
{
    names *n = arg;
    /* One that the kernel cannot take would fail the list; beyond its limit it stops too. */
    if (!x->key_len || x->key_len > KEY_MAX || memchr(x->key, 0, x->key_len))
        return 0;
    if (n->len + x->key_len + 1 > VALUE_MAX)
        return 1;
    memcpy(n->out + n->len, x->key, x->key_len);
    n->out[n->len + x->key_len] = 0;
    n->len += x->key_len + 1;
    return 0;
}

void sgz_mount_listxattr(sgz_mount_thread *t, const sgz_mount_request *request)
{
    uint32_t node;
    const sgz_mount_tree *tree = asked_of(t, request, &node);
    if (!tree)
        return;
    const struct fuse_getxattr_in *in = (const void *)request->body;
    names n = {.out = t->out};
    sgz_toc_tree_xattrs(tree->served.tree, node, collect, &n);
    answer(t, request, in->size, n.out, n.len);
}
