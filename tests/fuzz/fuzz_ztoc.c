/* Ztocs, read and written. The first byte says what follows:
 *   0  a ztoc
 *   1  what one is built of: points, whose windows are zeros, and entries
 *   2  a tar, whose headers get the right checksum: it is written as a ztoc, and read again */
#include "fuzz.h"

#include "base/bytes.h"
#include "index/flat.h"
#include "index/flat_builder.h"
#include "index/ztoc.h"
#include "index/ztoc_read.h"
#include "tar/stream.h"

typedef struct {
    uint8_t *data;
    size_t len, cap;
} text;

static sgz_status take(void *arg, const uint8_t *data, size_t len, sgz_error *err)
{
    (void)err;
    text *t = arg;
    if (t->cap - t->len < len) {
        t->cap = 2 * (t->len + len);
        CHECK((t->data = realloc(t->data, t->cap)));
    }
    if (len)
        memcpy(t->data + t->len, data, len);
    t->len += len;
    return SGZ_OK;
}

/* Where there are bytes to be had of what is read, they are there. */
static void look_at(const sgz_index *index)
{
    const sgz_points *points = &index->points;
    unsigned sum = 0;
    for (size_t i = 0; i < points->count; i++)
        for (size_t k = 0; k < sgz_codec_point_stored(&points->at[i]); k++)
            sum += points->windows[points->at[i].window + k];
    for (size_t i = 0; i < points->count; i++)
        sum += points->digests[i][0] + points->digests[i][31];
    for (size_t i = 0; i < index->toc->count; i++)
        for (size_t k = 0; k < index->toc->origins[i].name_len; k++)
            sum += (uint8_t)index->toc->arena[index->toc->origins[i].name + k];
    CHECK(sum != 1u << 31); /* that it is made */
}

static sgz_status read_ztoc(const uint8_t *data, size_t len, int64_t blob_size)
{
    sgz_index index = {0};
    sgz_error err;
    sgz_status status = sgz_index_ztoc_read(data, len, blob_size, &index, &err);
    if (status) {
        CHECK(status == SGZ_EINDEX && err.code == SGZ_EINDEX && err.message[0]);
        CHECK(!index.toc && !index.points.at);
        return status;
    }
    CHECK(!sgz_index_check(&index, &err));
    CHECK(blob_size < 0 || index.points.size == blob_size);
    look_at(&index);
    sgz_index_free(&index);
    return SGZ_OK;
}

/* --- one that is built ------------------------------------------------------------------ */

typedef struct {
    const uint8_t *at, *end;
} script;

static int64_t number(script *s, int size)
{
    int64_t value = 0;
    for (; size && s->at < s->end; size--)
        value = value << 8 | *s->at++;
    return value;
}

static uint64_t string(script *s, sgz_flat_builder *b)
{
    size_t len = (size_t)number(s, 1) & 31;
    len = len < (size_t)(s->end - s->at) ? len : (size_t)(s->end - s->at);
    s->at += len;
    return sgz_index_flat_string(b, s->at - len, len);
}

static uint64_t build_entry(script *s, sgz_flat_builder *b, int64_t *at)
{
    static const char mtime[] = "2023-11-14T22:13:20.5Z";
    int what = (int)number(s, 1);
    const char *type = sgz_ztoc_type_name((char)('0' + what % 7));
    uint64_t xattr = 0, refs[] = {sgz_index_flat_string(b, type, strlen(type)), string(s, b),
                                  what & 16 ? string(s, b) : 0,
                                  what & 32 ? sgz_index_flat_string(b, mtime, sizeof mtime - 1) : 0};
    static const int fields[] = {ZTOC_TYPE, ZTOC_NAME, ZTOC_LINK, ZTOC_MTIME};
    if (what & 64) {
        uint64_t key = sgz_index_flat_string(b, "SCHILY.xattr.user.a", 19), value = string(s, b);
        sgz_index_flat_table(b);
        sgz_index_flat_ref(b, ZTOC_XATTR_KEY, key);
        sgz_index_flat_ref(b, ZTOC_XATTR_VALUE, value);
        xattr = sgz_index_flat_table_end(b);
        uint64_t twice[] = {xattr, xattr};
        xattr = sgz_index_flat_offsets(b, twice, 2);
    }
    int64_t size = number(s, 4);
    *at += what & 128 ? number(s, 3) : 512;
    sgz_index_flat_table(b);
    for (int i = 0; i < 4; i++)
        if (refs[i])
            sgz_index_flat_ref(b, fields[i], refs[i]);
    if (xattr)
        sgz_index_flat_ref(b, ZTOC_XATTRS, xattr);
    sgz_index_flat_number(b, ZTOC_OFFSET, 8, *at, 0);
    sgz_index_flat_number(b, ZTOC_SIZE, 8, what % 7 ? 0 : size, 0);
    *at += what % 7 ? 0 : (size + 511) & ~511LL;
    return sgz_index_flat_table_end(b);
}

static void build_and_read(const uint8_t *data, size_t len)
{
    enum { POINTS = 15, ENTRIES = 64 };
    script s = {data, data + len};
    sgz_flat_builder b = {0};
    uint64_t refs[ENTRIES], digests[POINTS + 1];
    size_t points = (size_t)number(&s, 1) & POINTS, entries = 0;
    size_t checkpoints_len = ZTOC_HEAD + points * ZTOC_CHECKPOINT;
    uint8_t *checkpoints = calloc(1, checkpoints_len);
    int64_t in = 0, out = 0, at = 0;
    CHECK(checkpoints);
    sgz_put_le32(checkpoints, (uint32_t)points);
    for (size_t i = 0; i < points; i++) {
        uint8_t *p = checkpoints + ZTOC_HEAD + i * ZTOC_CHECKPOINT;
        in += number(&s, 2);
        sgz_put_le64(p, (uint64_t)in);
        sgz_put_le64(p + 8, (uint64_t)out);
        p[16] = (uint8_t)number(&s, 1);
        out += number(&s, 3);
    }
    while (entries < ENTRIES && s.at < s.end)
        refs[entries++] = build_entry(&s, &b, &at);
    uint64_t list = sgz_index_flat_offsets(&b, refs, entries);
    sgz_index_flat_table(&b);
    sgz_index_flat_ref(&b, ZTOC_TOC_ENTRIES, list);
    uint64_t toc = sgz_index_flat_table_end(&b);
    uint64_t packed = sgz_index_flat_string(&b, checkpoints, checkpoints_len);
    char digest[72] = "sha256:";
    memset(digest + 7, 'a', 64);
    for (size_t i = 0; i < points; i++)
        digests[i] = sgz_index_flat_string(&b, digest, 71);
    uint64_t digest_list = sgz_index_flat_offsets(&b, digests, points);
    sgz_index_flat_table(&b);
    sgz_index_flat_number(&b, ZTOC_MAX_SPAN, 4, (int64_t)points - 1, 0);
    sgz_index_flat_ref(&b, ZTOC_DIGESTS, digest_list);
    sgz_index_flat_ref(&b, ZTOC_CHECKPOINTS, packed);
    uint64_t info = sgz_index_flat_table_end(&b);
    sgz_index_flat_table(&b);
    sgz_index_flat_ref(&b, ZTOC_TOC, toc);
    sgz_index_flat_number(&b, ZTOC_BLOB_SIZE, 8, in + 100, 0);
    sgz_index_flat_number(&b, ZTOC_TAR_SIZE, 8, out, 0);
    sgz_index_flat_ref(&b, ZTOC_COMPRESSION, info);
    sgz_index_flat_finish(&b, sgz_index_flat_table_end(&b));
    CHECK(!b.failed);
    read_ztoc(sgz_flat_data(&b), b.len, in + 100);
    sgz_index_flat_free(&b);
    free(checkpoints);
}

/* --- one that is written ---------------------------------------------------------------- */

/* Collect the tar's entries; 0: some are refused. */
static int collect(sgz_index_ztoc *ztoc, uint8_t *tar, size_t len, size_t *count)
{
    sgz_tar_stream s = {.parser = sgz_tar_parser_new()};
    sgz_tar_event event;
    sgz_tar_entry entry;
    sgz_error err;
    int fits = 1;
    CHECK(s.parser);
    sgz_tar_keep_records(s.parser);
    for (size_t at = 0, used; fits && at < len; at += used) {
        if (!s.data && !s.padding && len - at >= 512 && tar[at])
            repair_checksum(tar + at);
        fits = !sgz_tar_stream_take(&s, tar + at, len - at, &used, &event, &entry, &err);
        if (fits && event == SGZ_TAR_ENTRY) {
            fits = !sgz_index_ztoc_entry(ztoc, &entry, s.start, s.pos, &err);
            *count += (size_t)fits;
        } else if (fits && event == SGZ_TAR_GLOBAL) {
            CHECK(!sgz_index_ztoc_global(ztoc, s.start, &err));
        }
    }
    sgz_tar_parser_free(s.parser);
    return fits;
}

static void write_and_read(const uint8_t *data, size_t len)
{
    uint8_t digest[1][32] = {{7}};
    sgz_point point = {0};
    sgz_index index = {.points = {.kind = SGZ_POINT_STORED, .at = &point, .count = len != 0,
                                  .digests = digest, .size = (int64_t)len, .end = (int64_t)len},
                       .archive_size = (int64_t)len, .span_size = 1 << 20};
    sgz_index_ztoc *ztoc = sgz_index_ztoc_new(-1);
    text first = {0}, again = {0};
    sgz_error err;
    size_t count = 0;
    uint8_t *tar = malloc(len + 1);
    CHECK(ztoc && tar);
    if (len)
        memcpy(tar, data, len);
    if (collect(ztoc, tar, len, &count)) {
        CHECK(!sgz_index_ztoc_write(ztoc, &index, "fuzz", take, &first, &err));
        CHECK(!sgz_index_ztoc_write(ztoc, &index, "fuzz", take, &again, &err));
        CHECK(first.len == again.len && !memcmp(first.data, again.data, first.len));
        sgz_flat flat = {first.data, first.len, 0};
        sgz_flat_table root = sgz_flat_root(&flat), toc = sgz_flat_sub(&flat, &root, ZTOC_TOC);
        sgz_flat_vector entries = sgz_flat_items(&flat, &toc, ZTOC_TOC_ENTRIES, 4);
        CHECK(!flat.bad && entries.count == count);
        read_ztoc(first.data, first.len, (int64_t)len);
    }
    free(first.data);
    free(again.data);
    free(tar);
    sgz_index_ztoc_free(ztoc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    if (data[0] == 0)
        read_ztoc(data + 1, size - 1, -1);
    else if (data[0] == 1)
        build_and_read(data + 1, size - 1);
    else if (data[0] == 2)
        write_and_read(data + 1, size - 1);
    return 0;
}
