#include "verify/header.h"

#include "base/bytes.h"
#include "base/vec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void sgz_verify_header_free(sgz_verify_header *h)
{
    sgz_toc_kept_free(&h->kept);
    free(h->xattrs);
    free(h->base64);
}

/* To Go the epoch and its own zero are no times. */
static int is_no_time(const sgz_tar_time *time)
{
    return !time->given || (!time->nanoseconds && (!time->seconds || time->seconds == SGZ_NO_TIME));
}

static int same_time(const sgz_tar_time *a, const sgz_tar_time *b)
{
    if (is_no_time(a) || is_no_time(b))
        return is_no_time(a) && is_no_time(b);
    return a->seconds == b->seconds && a->nanoseconds == b->nanoseconds;
}

static int by_key(const void *left, const void *right)
{
    const sgz_xattr *a = left, *b = right;
    return sgz_compare(a->key, a->key_len, b->key, b->key_len);
}

/* 1: the same, 0: not, -1: no memory. */
static int same_xattrs(sgz_verify_header *h, const sgz_verify_entry *entry, size_t made_count)
{
    const sgz_xattr *made = h->kept.xattrs;
    const char *at = entry->xattrs;
    sgz_xattr x;
    size_t count = 0;
    while (sgz_xattrs_next(&at, entry->xattrs + entry->xattr_len, &x))
        if (!SGZ_PUSH(h->xattrs, count, h->xattr_cap, x))
            return -1;
    if (count != made_count)
        return 0;
    if (count)
        qsort(h->xattrs, count, sizeof *h->xattrs, by_key);
    for (size_t i = 0; i < count; i++) {
        size_t len = sgz_base64_len(made[i].value_len);
        if (by_key(&h->xattrs[i], &made[i]) || h->xattrs[i].value_len != len)
            return 0;
        if (!SGZ_FIT(h->base64, h->base64_cap, len + 4))
            return -1;
        sgz_put_base64(h->base64, (const uint8_t *)made[i].value, made[i].value_len);
        if (memcmp(h->base64, h->xattrs[i].value, len))
            return 0;
    }
    return 1;
}

static int same_text(const char *a, size_t a_len, const char *b, size_t b_len)
{
    return a_len == b_len && (!a_len || !memcmp(a, b, a_len));
}

/* The first of the fields that differs; `xattrs` says whether these are the same. */
static void tell(const sgz_tar_entry *tar, const sgz_tar_stated *stated, int type,
                 const sgz_verify_entry *entry, int xattrs, char *what, size_t cap)
{
    if (entry->type != type)
        snprintf(what, cap, "its type is %s in the TOC, %s in the tar",
                 sgz_toc_type_name(entry->type), sgz_toc_type_name(type));
    else if (!same_text(entry->link, entry->link_len, tar->link, tar->link_len))
        snprintf(what, cap, "its link is not the tar's");
    else if (entry->mode != stated->mode)
        snprintf(what, cap, "its mode is %llo in the TOC, %llo in the tar",
                 (unsigned long long)entry->mode, (unsigned long long)stated->mode);
    else if (entry->size != stated->size)
        snprintf(what, cap, "its size is %lld in the TOC, %lld in the tar", (long long)entry->size,
                 (long long)stated->size);
    else if (entry->uid != tar->uid || entry->gid != tar->gid)
        snprintf(what, cap, "its owner is %lld:%lld in the TOC, %u:%u in the tar",
                 (long long)entry->uid, (long long)entry->gid, tar->uid, tar->gid);
    else if (entry->bad_time)
        snprintf(what, cap, "one of its times in the TOC is no time");
    else if (!same_time(&entry->mtime, &stated->mtime))
        snprintf(what, cap, "its modification time is not the tar's");
    else if (!same_time(&entry->atime, &stated->atime))
        snprintf(what, cap, "its access time is not the tar's");
    else if (!same_time(&entry->ctime, &stated->ctime))
        snprintf(what, cap, "its change time is not the tar's");
    else if (entry->dev_major != stated->dev_major || entry->dev_minor != stated->dev_minor)
        snprintf(what, cap, "its device is %lld:%lld in the TOC, %lld:%lld in the tar",
                 (long long)entry->dev_major, (long long)entry->dev_minor,
                 (long long)stated->dev_major, (long long)stated->dev_minor);
    else if (!xattrs)
        snprintf(what, cap, "its extended attributes are not the tar's");
    else if ((entry->uname_len &&
              !same_text(entry->uname, entry->uname_len, tar->uname, tar->uname_len)) ||
             (entry->gname_len &&
              !same_text(entry->gname, entry->gname_len, tar->gname, tar->gname_len)))
        snprintf(what, cap, "its user or group name is not the tar's");
    else
        what[0] = '\0';
}

sgz_status sgz_verify_header_compare(sgz_verify_header *h, const sgz_tar_entry *tar,
                                     int64_t offset, const sgz_verify_entry *entry, char *what,
                                     size_t cap, sgz_error *err)
{
    sgz_tar_stated stated;
    uint8_t type;
    size_t xattrs = 0;
    sgz_status st = sgz_toc_kept_header(tar, offset, &stated, &type, err);
    if (!st)
        st = sgz_toc_kept_xattrs(&h->kept, tar, offset, &xattrs, err);
    if (st == SGZ_ENOTOC) {
        snprintf(what, cap, "containers/storage does not take it: %s", err->message);
        return SGZ_OK;
    }
    int same = st ? 0 : same_xattrs(h, entry, xattrs);
    if (same < 0)
        st = sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to verify with");
    if (!st)
        tell(tar, &stated, type, entry, same, what, cap);
    return st;
}
