/* Patches against a small BASE. The first byte of an input says how far it is put right, so that
 * mutations reach behind the checksums:
 *   1 every frame's CRC
 *   2 an 'E' with the right sha256 at the end; if all is well, also the digest of NEW
 *   4 the head is about this BASE and announces little
 *   16 what comes from the TOC on is held back */
#define _GNU_SOURCE
#include "fuzz.h"
#include "../kernels/patch_parts.h"

#include <sys/mman.h>
#include <unistd.h>

enum { NEW_MAX = 256 << 10, JSON_MAX = 64 << 10 };

static uint64_t at_most(const uint8_t *at, uint64_t limit)
{
    uint64_t value = parts_get64(at);
    return value <= limit ? value : value % (limit + 1);
}

static void right_head(parts_bytes *patch, const parts_base *base)
{
    uint8_t *head = patch->data + PARTS_HEAD;
    uint64_t size = at_most(head + 20, NEW_MAX);
    parts_set32(head, 1);
    parts_set64(head + 12, base->len);
    parts_set64(head + 20, size);
    memcpy(head + 28, base->digest, 32);
    parts_set64(head + 92, at_most(head + 92, size));
    parts_set64(head + 100, at_most(head + 100, JSON_MAX));
    parts_set64(head + 108, base->toc);
    parts_set64(head + 116, base->toc_end);
    parts_set64(head + 124, sizeof PARTS_JSON - 1);
}

static void right_crcs(const sgz_codecs *codecs, parts_bytes *patch)
{
    for (size_t at = 8; at + 12 <= patch->len;) {
        size_t len = (size_t)(parts_get64(patch->data + at) >> 32);
        if (len > patch->len - at - 12) {
            len = patch->len - at - 12;
            parts_set32(patch->data + at + 4, (uint32_t)len);
        }
        parts_set_crc(codecs, patch->data + at, len);
        at += 12 + len;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static parts_base base;
    const sgz_codecs *codecs = fuzz_codecs();
    parts_bytes patch = {0}, out = {0};
    sgz_patch_head head;
    sgz_patch_result result;
    sgz_error err;
    if (!size)
        return 0;
    if (!base.data)
        base = parts_make_base(codecs);
    uint8_t flags = data[0];
    parts_put(&patch, data + 1, size - 1);
    int has_head = patch.len >= PARTS_HEAD_END;
    if (has_head && flags & 4)
        right_head(&patch, &base);
    if (flags & 1)
        right_crcs(codecs, &patch);
    if (flags & 2)
        parts_end(codecs, &patch);
    /* What is not put right must not ask for much, or the sizes it claims are its limit. */
    if (has_head && parts_get64(patch.data + PARTS_HEAD + 20) > NEW_MAX) {
        free(patch.data);
        return 0;
    }
    parts_how how = {1 + flags * 37u, -1, 1, 0};
    if (flags & 16)
        CHECK((how.spool = memfd_create("held", 0)) >= 0);
    sgz_status status = parts_apply(codecs, &base, &patch, how, &out, &head, &result, &err);
    if (status == SGZ_EDIGEST && !strcmp(err.name, "NEW")) {
        CHECK(out.len <= (size_t)head.new_size);
        CHECK(how.spool < 0 || out.len <= (size_t)head.new_toc_offset);
        if (has_head && flags & 2) {
            parts_set_new(codecs, &patch, err.actual);
            if (how.spool >= 0)
                CHECK(!ftruncate(how.spool, 0));
            status = parts_apply(codecs, &base, &patch, how, &out, &head, &result, &err);
            CHECK(!status);
        }
    }
    if (!status) {
        uint8_t digest[32];
        parts_sha256(codecs, out.data, out.len, digest);
        CHECK(out.len == (size_t)head.new_size && result.size == head.new_size);
        CHECK(!memcmp(digest, head.new_digest, 32));
    } else {
        CHECK(status == SGZ_EPATCH || status == SGZ_EDIGEST || status == SGZ_ECODEC);
        CHECK(out.len <= NEW_MAX);
    }
    if (how.spool >= 0)
        close(how.spool);
    free(patch.data);
    free(out.data);
    return 0;
}
