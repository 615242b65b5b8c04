/* What Python is asked: requests about the directories above the trees, and failures to log. */
#define _GNU_SOURCE
#include "mount/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* More open requests than a kernel sends before it lets its own callers wait. */
#define ASKED_MAX 4096
/* The kernel lists a directory anew when its time of change is another: how late it may see
 * that. */
#define DIR_SECONDS 1

/* --- failures ------------------------------------------------------------------------------ */

void sgz_mount_report(sgz_mount *f, uint64_t node, const sgz_error *err)
{
    pthread_mutex_lock(&f->lock);
    if (f->failure_count < FAILURES) {
        f->failures[f->failure_count].node = node;
        f->failures[f->failure_count++].error = *err;
        pthread_cond_signal(&f->event_cond);
    } else {
        f->failures_untold++;
    }
    pthread_mutex_unlock(&f->lock);
}

/* --- requests ------------------------------------------------------------------------------ */

/* Fill the event; an error that the request gets at once instead, 0 if none. */
static int describe(const sgz_mount_request *request, sgz_mount_event *event)
{
    const struct fuse_read_in *read = BODY(request, struct fuse_read_in);
    const char *name = (const char *)request->body, *end;
    event->kind = SGZ_FUSE_ASKED;
    event->unique = request->head->unique;
    event->node = request->head->nodeid;
    event->opcode = request->head->opcode;
    switch (request->head->opcode) {
    case FUSE_LOOKUP:
        end = memchr(name, 0, request->len);
        if (!end)
            return EINVAL;
        if (end - name > SGZ_FUSE_NAME_MAX)
            return ENAMETOOLONG;
        event->name_len = (uint32_t)(end - name);
        memcpy(event->name, name, event->name_len + 1);
        return 0;
    case FUSE_READDIR:
    case FUSE_READDIRPLUS:
        if (!read)
            return EINVAL;
        event->offset = read->offset;
        event->size = read->size < FUSE_READ_MAX ? read->size : FUSE_READ_MAX;
        return 0;
    case FUSE_GETATTR:
    case FUSE_STATFS:
        return 0;
    case FUSE_READ:
        return EISDIR;
    case FUSE_GETXATTR:
        return ENODATA;
    default: /* READLINK of a directory */
        return EINVAL;
    }
}

void sgz_mount_ask(sgz_mount_thread *t, const sgz_mount_request *request)
{
    sgz_mount *f = t->fuse;
    uint64_t unique = request->head->unique;
    if (request->head->opcode == FUSE_LISTXATTR) { /* none */
        const struct fuse_getxattr_in *in = BODY(request, struct fuse_getxattr_in);
        struct fuse_getxattr_out none = {.size = 0};
        sgz_mount_send(f, unique, in ? 0 : EINVAL, &none, in && !in->size ? sizeof(none) : 0);
        return;
    }
    sgz_mount_asked *a = calloc(1, sizeof(*a));
    int error = a ? describe(request, &a->event) : ENOMEM;
    if (error) {
        free(a);
        sgz_mount_send(f, unique, error, NULL, 0);
        return;
    }
    unsigned count = 0;
    pthread_mutex_lock(&f->lock);
    sgz_mount_asked **end = &f->requests;
    for (; *end; end = &(*end)->next)
        count++;
    if (count < ASKED_MAX) {
        *end = a;
        pthread_cond_signal(&f->event_cond);
    }
    pthread_mutex_unlock(&f->lock);
    if (count >= ASKED_MAX) {
        free(a);
        sgz_mount_send(f, unique, EAGAIN, NULL, 0);
    }
}

int sgz_mount_next(sgz_mount *f, int timeout_ms, sgz_mount_event *event)
{
    struct timespec until = sgz_base_deadline(timeout_ms);
    int found = 0, expired = 0;
    pthread_mutex_lock(&f->lock);
    for (;;) {
        sgz_mount_asked *a = f->requests;
        while (a && a->given)
            a = a->next;
        if (a) {
            a->given = 1;
            *event = a->event;
            found = 1;
            break;
        }
        if (f->failure_count) {
            memset(event, 0, sizeof(*event));
            event->kind = SGZ_FUSE_FAILED;
            event->node = f->failures[0].node;
            event->error = f->failures[0].error;
            memmove(f->failures, f->failures + 1,
                    --f->failure_count * sizeof(f->failures[0]));
            event->more = f->failures_untold;
            f->failures_untold = 0;
            found = 1;
            break;
        }
        if (f->state >= SGZ_FUSE_REFUSED) {
            found = -1;
            break;
        }
        if (expired)
            break;
        expired = pthread_cond_timedwait(&f->event_cond, &f->lock, &until) == ETIMEDOUT;
    }
    pthread_mutex_unlock(&f->lock);
    return found;
}

/* Take an open request off the list; 0 when it is not there. */
static int take(sgz_mount *f, uint64_t unique)
{
    pthread_mutex_lock(&f->lock);
    sgz_mount_asked **at = &f->requests;
    while (*at && (*at)->event.unique != unique)
        at = &(*at)->next;
    sgz_mount_asked *a = *at;
    if (a)
        *at = a->next;
    pthread_mutex_unlock(&f->lock);
    free(a);
    return a != NULL;
}

int sgz_mount_interrupt_asked(sgz_mount *f, uint64_t unique)
{
    if (!take(f, unique))
        return 0;
    sgz_mount_send(f, unique, EINTR, NULL, 0);
    return 1;
}

/* --- replies ------------------------------------------------------------------------------- */

void sgz_mount_reply_error(sgz_mount *f, uint64_t unique, int error)
{
    if (take(f, unique))
        sgz_mount_send(f, unique, error > 0 ? error : EIO, NULL, 0);
}

void sgz_mount_reply_absent(sgz_mount *f, uint64_t unique, uint32_t seconds)
{
    struct fuse_entry_out out;
    memset(&out, 0, sizeof(out));
    out.entry_valid = seconds;
    if (take(f, unique))
        sgz_mount_send(f, unique, 0, &out, sizeof(out));
}

void sgz_mount_reply_tree(sgz_mount *f, uint64_t unique, uint32_t number, uint32_t seconds)
{
    struct fuse_entry_out out;
    const sgz_mount_tree *tree = sgz_mount_tree_at(f, number);
    if (!take(f, unique))
        return;
    if (!tree) {
        sgz_mount_send(f, unique, EIO, NULL, 0);
        return;
    }
    sgz_mount_fill_entry(tree, 0, &out);
    out.entry_valid = seconds;
    sgz_mount_send(f, unique, 0, &out, sizeof(out));
}

void sgz_mount_reply_dir(sgz_mount *f, uint64_t unique, uint32_t opcode, uint64_t node,
                         int64_t mtime_ns, uint32_t seconds)
{
    struct fuse_entry_out entry;
    struct fuse_attr_out attr;
    if (!take(f, unique))
        return;
    if (opcode == FUSE_LOOKUP) {
        memset(&entry, 0, sizeof(entry));
        entry.nodeid = node;
        entry.entry_valid = seconds;
        entry.attr_valid = DIR_SECONDS;
        sgz_mount_fill_dir(node, mtime_ns, &entry.attr);
        sgz_mount_send(f, unique, 0, &entry, sizeof(entry));
        return;
    }
    memset(&attr, 0, sizeof(attr));
    attr.attr_valid = DIR_SECONDS;
    sgz_mount_fill_dir(node, mtime_ns, &attr.attr);
    sgz_mount_send(f, unique, 0, &attr, sizeof(attr));
}

void sgz_mount_reply_names(sgz_mount *f, const sgz_mount_event *event, const char *names,
                           size_t len, uint64_t first)
{
    int plus = event->opcode == FUSE_READDIRPLUS;
    size_t used = 0;
    uint8_t *out = malloc(event->size ? event->size : 1);
    if (!take(f, event->unique)) {
        free(out);
        return;
    }
    if (!out) {
        sgz_mount_send(f, event->unique, ENOMEM, NULL, 0);
        return;
    }
    while (len) {
        const char *end = memchr(names, 0, len);
        if (!end)
            break;
        size_t name_len = (size_t)(end - names);
        /* The number that counts comes with the look-up; readers of d_ino get one that is not
         * 0, which would hide the name. */
        size_t size = sgz_mount_add_name(out + used, event->size - used, plus, NULL, UINT32_MAX,
                                         4, ++first, names, name_len);
        if (!size)
            break;
        used += size;
        names += name_len + 1;
        len -= name_len + 1;
    }
    sgz_mount_send(f, event->unique, 0, out, used);
    free(out);
}

void sgz_mount_reply_statfs(sgz_mount *f, uint64_t unique)
{
    uint64_t bytes = 0, inodes = 0;
    for (uint32_t i = 1; sgz_mount_tree_at(f, i); i++) {
        bytes += sgz_mount_tree_at(f, i)->served.tree->bytes;
        inodes += sgz_mount_tree_at(f, i)->served.tree->inodes;
    }
    if (take(f, unique))
        sgz_mount_statfs_send(f, unique, bytes, inodes);
}
