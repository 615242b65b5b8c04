/* The file of an index: what is taken of it is in order, and is written and read again as it is.
 *
 * The first byte says what follows: the file without its sha256, or (odd) what the parts are made of,
 * so that a change of a byte is no broken check sum: lengths of JSON, entries and points (u16 each), a
 * head, of which lengths and digests are filled in, and then JSON, entries, points and histories. */
#include "fuzz.h"

#include "base/bytes.h"
#include "index/format_internal.h"
#include "toc/footer.h"

#define TOC_MAX ((int64_t)1 << 20)

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

static void sum_of(const uint8_t *data, size_t len, uint8_t out[32])
{
    sgz_sha256 sha;
    CHECK(!sgz_codec_sha256_new(fuzz_codecs(), &sha, NULL));
    sgz_codec_sha256_init(fuzz_codecs(), &sha);
    sgz_codec_sha256_update(fuzz_codecs(), &sha, data, len);
    sgz_codec_sha256_final(fuzz_codecs(), &sha, out);
    sgz_codec_sha256_free(fuzz_codecs(), &sha);
}

static void put_toc(const uint8_t *json, size_t len, text *out)
{
    sgz_toc_footer t = {.blob = take, .arg = out};
    CHECK(!sgz_toc_footer_begin(&t, fuzz_codecs(), len, 1, 0, NULL));
    CHECK(!sgz_toc_footer_append(&t, json, len, NULL));
    CHECK(!sgz_toc_footer_end(&t, NULL));
    sgz_toc_footer_free(&t);
}

static void put_member(const uint8_t *data, size_t len, text *out)
{
    sgz_deflater d;
    size_t cap = sgz_codec_member_bound(len), made;
    uint8_t *member = malloc(cap);
    CHECK(member && !sgz_codec_deflater_init(&d, fuzz_codecs(), 1, NULL));
    CHECK(!sgz_codec_deflate_member(&d, data, len, 0, member, cap, &made, NULL));
    take(out, member, made, NULL);
    sgz_codec_deflater_free(&d);
    free(member);
}

/* 0: there is not enough for a head. */
static int put_parts(const uint8_t *data, size_t len, text *file)
{
    if (len < 6 + SGZ_INDEX_HEAD_SIZE)
        return 0;
    size_t lens[3], left = len - 6 - SGZ_INDEX_HEAD_SIZE;
    const uint8_t *parts[3], *at = data + 6 + SGZ_INDEX_HEAD_SIZE;
    for (int i = 0; i < 3; i++) {
        size_t n = (size_t)data[2 * i] | (size_t)data[2 * i + 1] << 8;
        lens[i] = n < left ? n : left;
        parts[i] = at;
        at += lens[i];
        left -= lens[i];
    }
    text entries = {0}, toc = {0};
    sgz_index_head head;
    uint8_t packed[SGZ_INDEX_HEAD_SIZE];
    sgz_index_unpack_head(data + 6, &head);
    put_member(parts[1], lens[1], &entries);
    put_toc(parts[0], lens[0], &toc);
    head.version = SGZ_INDEX_VERSION;
    head.digest[0] |= 1;
    head.diff_id[0] |= 1;
    head.json_size = (int64_t)lens[0];
    sum_of(parts[0], lens[0], head.json_digest);
    head.points_len = lens[2];
    head.windows_len = left;
    head.entries_len = lens[1];
    head.entries_packed = entries.len;
    head.toc_len = toc.len;
    sgz_index_pack_head(&head, packed);
    take(file, packed, sizeof packed, NULL);
    take(file, parts[2], lens[2], NULL);
    take(file, at, left, NULL);
    take(file, entries.data, entries.len, NULL);
    take(file, toc.data, toc.len, NULL);
    free(entries.data);
    free(toc.data);
    return 1;
}

/* In a copy of just its length. */
static sgz_status read_copy(const text *t, sgz_index *index, sgz_error *err)
{
    uint8_t *copy = malloc(t->len);
    CHECK(copy);
    memcpy(copy, t->data, t->len);
    sgz_status status = sgz_index_read(copy, t->len, fuzz_codecs(), TOC_MAX, index, err);
    free(copy);
    return status;
}

static void check_rows(const sgz_index *index)
{
    const sgz_toc *toc = index->toc;
    for (size_t i = 0; i < toc->count; i++) {
        const sgz_entry *row = &toc->rows[i];
        const sgz_toc_origin *place = &index->toc->origins[i];
        CHECK(row->name_off + row->name_len <= toc->arena_len);
        CHECK(row->link_off + row->link_len <= toc->arena_len);
        CHECK(place->name + place->name_len <= toc->arena_len);
        CHECK(place->content >= place->header && place->content <= index->points.end);
        if (sgz_toc_has_data(row) && index->points.count)
            CHECK(sgz_codec_points_at(&index->points, row->offset) != SGZ_NO_POINT);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sgz_error err = {0};
    sgz_index index = {0}, again = {0};
    text file = {0}, first = {0}, second = {0};
    uint8_t sum[32];
    if (!size)
        return 0;
    if (!(data[0] & 1))
        take(&file, data + 1, size - 1, NULL);
    else if (!put_parts(data + 1, size - 1, &file))
        return 0;
    sum_of(file.data, file.len, sum);
    take(&file, sum, sizeof sum, NULL);
    sgz_status status = read_copy(&file, &index, &err);
    if (status) {
        CHECK(err.message[0] && err.offset >= -1 && err.offset <= (int64_t)file.len);
        CHECK(status == SGZ_EINDEX || status == SGZ_ETOC || status == SGZ_EDATA);
        CHECK(!index.toc && !index.points.at);
        free(file.data);
        return 0;
    }
    check_rows(&index);
    CHECK(!sgz_index_write(&index, fuzz_codecs(), take, &first, NULL, &err));
    CHECK(!read_copy(&first, &again, &err));
    check_rows(&again);
    CHECK(!sgz_index_write(&again, fuzz_codecs(), take, &second, NULL, &err));
    CHECK(first.len == second.len && !memcmp(first.data, second.data, first.len));
    CHECK(!sgz_index_settle(&again, &err));
    check_rows(&again);
    sgz_index_free(&index);
    sgz_index_free(&again);
    free(file.data);
    free(first.data);
    free(second.data);
    return 0;
}
