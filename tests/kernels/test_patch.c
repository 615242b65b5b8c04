/* Applying under the sanitizers: random operations with any number of threads and any steps of
 * the source; cut, damaged and cancelled it ends in an error and never elsewhere. */
#define _GNU_SOURCE
#include "check.h"
#include "patch_parts.h"

#include <sys/mman.h>
#include <unistd.h>

enum { PATCHES = 60, DAMAGES = 40 };

static sgz_codecs codecs;
static parts_base base;

static void add_member(parts_bytes *ops)
{
    uint32_t pieces = below(5);
    parts_put(ops, "\2", 1);
    parts_varint(ops, pieces);
    while (pieces--) {
        uint32_t inner = below(500), len = below(12);
        if (below(2)) {
            parts_put(ops, "\0", 1);
            parts_varint(ops, len);
            parts_put(ops, "piece piece ", len);
        } else {
            parts_put(ops, "\1", 1);
            parts_varint(ops, below(2) ? 0 : base.second);
            parts_varint(ops, inner);
            parts_varint(ops, len);
        }
    }
}

static int64_t add_copy(parts_bytes *ops, int64_t end)
{
    int64_t offset = below((uint32_t)base.len + 1);
    int64_t len = below((uint32_t)(base.len - (size_t)offset) + 1);
    parts_put(ops, "\1", 1);
    parts_zigzag(ops, offset - end);
    parts_varint(ops, (uint64_t)len);
    return offset + len;
}

/* What comes before the TOC: frames 'D' and 'M'. */
static parts_bytes make_front(void)
{
    static uint8_t data[400000];
    parts_bytes frames = {0};
    int64_t end = 0;
    for (uint32_t n = below(6); n; n--) {
        parts_bytes ops = {0};
        if (below(3) == 0) {
            parts_frame(&codecs, &frames, 'D', data, below(sizeof data));
            continue;
        }
        for (uint32_t k = below(300); k; k--) {
            if (below(2))
                end = add_copy(&ops, end);
            else
                add_member(&ops);
        }
        parts_frame(&codecs, &frames, 'M', ops.data, ops.len);
        free(ops.data);
    }
    return frames;
}

static parts_bytes whole(const parts_bytes *front, int64_t front_size, int64_t size, int toc)
{
    parts_bytes patch = {0}, ops = {0};
    parts_put(&ops, "\1\1\1\0", 4);         /* a line left out, one taken */
    parts_put(&ops, "\2\7\"more\"\n", 9);
    parts_put(&ops, "\1\0\2", 3);
    parts_zigzag(&ops, 1234567890123);
    parts_head(&codecs, &patch, &base, 1, size, front_size,
               toc ? sizeof "\t\"entries\": [\n\"more\"\n\t\t\"offset\": 1234567890123,\n"
                            "\t\t\"offset\": 1234567890163\n" - 1 : 0);
    parts_put(&patch, front->data, front->len);
    if (toc)
        parts_frame(&codecs, &patch, 'T', ops.data, ops.len);
    parts_end(&codecs, &patch);
    free(ops.data);
    return patch;
}

/* The size of what comes out, by bisection: with less the patch announces too little. */
static int64_t find_size(const parts_bytes *front, int64_t front_size, int toc)
{
    int64_t low = toc ? front_size : 0, high = 3 << 20;
    parts_bytes out = {0};
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        sgz_patch_head head;
        sgz_patch_result result;
        sgz_error err;
        parts_bytes patch = whole(front, toc ? front_size : middle, middle, toc);
        sgz_status status = parts_apply(&codecs, &base, &patch, (parts_how){1 << 20, -1, 1, 0},
                                        &out, &head, &result, &err);
        CHECK(status == SGZ_EPATCH || status == SGZ_EDIGEST);
        if (status == SGZ_EPATCH && strstr(err.message, "more comes out"))
            low = middle + 1;
        else
            high = middle;
        free(patch.data);
    }
    free(out.data);
    return low;
}

static void damage(const parts_bytes *patch, const parts_bytes *right)
{
    parts_bytes out = {0};
    for (int i = 0; i < DAMAGES; i++) {
        parts_bytes bad = {0};
        sgz_patch_head head;
        sgz_patch_result result;
        sgz_error err;
        size_t at = below((uint32_t)patch->len);
        parts_how how = {1 + below(100000), -1, 1 + below(3), 0};
        parts_put(&bad, patch->data, patch->len);
        if (i % 4 == 0)
            bad.len = at;
        else if (i % 4 == 1)
            how.cancel = 1;
        else
            bad.data[at] ^= (uint8_t)(1u << below(8));
        sgz_status status =
            parts_apply(&codecs, &base, &bad, how, &out, &head, &result, &err);
        /* It may have ended before it was cancelled. */
        CHECK(how.cancel ? !status || status == SGZ_ECANCELLED : status == SGZ_EPATCH);
        CHECK(out.len <= right->len && (!out.len || !memcmp(out.data, right->data, out.len)));
        free(bad.data);
    }
    free(out.data);
}

static void one_patch(int toc)
{
    parts_bytes front = make_front(), right = {0}, out = {0};
    sgz_patch_head head;
    sgz_patch_result result;
    sgz_error err;
    int64_t front_size = find_size(&front, 0, 0);
    int64_t size = toc ? find_size(&front, front_size, 1) : front_size;
    parts_bytes patch = whole(&front, front_size, size, toc);
    CHECK(parts_apply(&codecs, &base, &patch, (parts_how){1 << 20, -1, 1, 0}, &right, &head,
                      &result, &err) == SGZ_EDIGEST);
    CHECK(!strcmp(err.name, "NEW") && (int64_t)right.len == size);
    parts_set_new(&codecs, &patch, err.actual);
    for (unsigned threads = 1; threads <= 3; threads++) {
        int spool = threads == 2 ? -1 : memfd_create("held", 0);
        parts_how how = {1 + below(10000), spool, threads, 0};
        CHECK(!parts_apply(&codecs, &base, &patch, how, &out, &head, &result, &err));
        CHECK(out.len == right.len && (!out.len || !memcmp(out.data, right.data, out.len)));
        CHECK(result.copied + result.regenerated + result.received == size);
        CHECK(result.size == size && result.patch_size == (int64_t)patch.len);
        if (spool >= 0)
            close(spool);
    }
    damage(&patch, &right);
    free(front.data);
    free(patch.data);
    free(right.data);
    free(out.data);
}

int main(void)
{
    sgz_error err;
    if (sgz_codec_load_crypto(&codecs, "libcrypto.so.3", &err) ||
        sgz_codec_load_isal(&codecs, "libisal.so.2", &err)) {
        fprintf(stderr, "%s: install libssl3 and libisal2\n", err.message);
        return 1;
    }
    base = parts_make_base(&codecs);
    for (int i = 0; i < PATCHES; i++)
        one_patch(i % 2);
    free(base.data);
    printf("applied %d patches, %d damages each\n", PATCHES, DAMAGES);
    return 0;
}
