#include "index/format_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/vec.h"
#include "codec/decode.h"
#include "index/limits.h"
#include "toc/open.h"

typedef struct {
    const uint8_t *data;
    size_t len;
    const sgz_codecs *codecs;
    sgz_index_head head;
    size_t points_at, windows_at, entries_at, toc_at, sum_at; /* where the sections begin */
    uint8_t *entries;       /* inflated */
    sgz_cursor columns[3], texts; /* of it */
    sgz_index *index;
} file;

#define FAIL(err, offset, ...)                                                                  \
    sgz_base_fail(err, SGZ_EINDEX, (int64_t)(offset), NULL, 0, __VA_ARGS__)

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the index");
}

/* --- the whole --------------------------------------------------------------------------- */

static sgz_status cut_short(const file *f, sgz_error *err)
{
    return FAIL(err, f->len, "the index ends too early, it was cut short; make it again");
}

static sgz_status read_head(file *f, sgz_error *err)
{
    size_t known = f->len < 8 ? f->len : 8;
    if (!known || memcmp(f->data, SGZ_INDEX_MAGIC, known))
        return FAIL(err, 0, "this is not an index of stargz");
    if (f->len < 12)
        return cut_short(f, err);
    uint32_t version = sgz_get_le32(f->data + 8);
    if (version > SGZ_INDEX_VERSION)
        return FAIL(err, 8, "the index has version %u, and this stargz knows version %d: use a newer "
                    "one, or make the index again", version, SGZ_INDEX_VERSION);
    if (!version)
        return FAIL(err, 8, "the index has no version; make it again");
    if (f->len < SGZ_INDEX_HEAD_SIZE)
        return cut_short(f, err);
    sgz_index_unpack_head(f->data, &f->head);
    return SGZ_OK;
}

static sgz_status find_sections(file *f, sgz_error *err)
{
    const uint64_t lens[] = {f->head.points_len, f->head.windows_len, f->head.entries_packed,
                             f->head.toc_len};
    size_t *const at[] = {&f->windows_at, &f->entries_at, &f->toc_at, &f->sum_at};
    uint64_t end = f->points_at = SGZ_INDEX_HEAD_SIZE;
    for (int i = 0; i < 4; i++) {
        if (lens[i] > SGZ_INDEX_SECTION_MAX || (end += lens[i]) > f->len)
            return cut_short(f, err);
        *at[i] = (size_t)end;
    }
    if (end + SGZ_INDEX_SUM_SIZE > f->len)
        return cut_short(f, err);
    if (end + SGZ_INDEX_SUM_SIZE < f->len)
        return FAIL(err, end + SGZ_INDEX_SUM_SIZE,
                    "bytes follow that do not belong to the index; make it again");
    return SGZ_OK;
}

static sgz_status check_sum(const file *f, sgz_error *err)
{
    sgz_sha256 sha;
    uint8_t sum[SGZ_INDEX_SUM_SIZE];
    sgz_status status = sgz_codec_sha256_new(f->codecs, &sha, err);
    if (status)
        return status;
    sgz_codec_sha256_init(f->codecs, &sha);
    sgz_codec_sha256_update(f->codecs, &sha, f->data, f->sum_at);
    sgz_codec_sha256_final(f->codecs, &sha, sum);
    sgz_codec_sha256_free(f->codecs, &sha);
    if (memcmp(sum, f->data + f->sum_at, sizeof sum))
        return FAIL(err, f->sum_at, "the index is damaged: its sha256 at its end is not that of what "
                    "it holds; make it again");
    return SGZ_OK;
}

/* The numbers that are not checked with what they count. */
static sgz_status check_head(const file *f, int64_t max_toc_size, sgz_error *err)
{
    const sgz_index_head *head = &f->head;
    if (sgz_index_kind_of(head->kind) < 0)
        return FAIL(err, 12, "its blob is of a kind %u, which is not known", head->kind);
    if (head->size < 0 || head->size > SGZ_INDEX_SIZE_MAX || head->tar_size < 0 ||
        head->tar_size > SGZ_INDEX_SIZE_MAX || head->span_size < 0 || head->json_size < 0)
        return FAIL(err, -1, "a size in it is impossible");
    if (head->json_size > max_toc_size)
        return sgz_base_fail(err, SGZ_ETOC, (int64_t)f->toc_at, NULL, 0,
                             "the table of contents has %lld bytes, more than the limit of %lld "
                             "(more: max_toc_size (--max-toc-size SIZE))",
                             (long long)head->json_size, (long long)max_toc_size);
    return SGZ_OK;
}

/* --- points ------------------------------------------------------------------------------ */

static int get_point(sgz_cursor *c, sgz_point_kind kind, sgz_point *p)
{
    uint64_t offset, out, history = 0, packed = 0;
    if (!sgz_get_varint(c, &offset) || !sgz_get_varint(c, &out))
        return 0;
    if (kind == SGZ_POINT_DEFLATE && (!sgz_get_varint(c, &history) || !sgz_get_varint(c, &packed)))
        return 0;
    if (offset > INT64_MAX - (uint64_t)p->offset || out > INT64_MAX - (uint64_t)p->out ||
        history >> 3 > SGZ_HISTORY_MAX || packed > SGZ_INDEX_WINDOW_MAX)
        return 0;
    p->offset += (int64_t)offset;
    p->out += (int64_t)out;
    p->skip = history & 7;
    p->history = (uint32_t)(history >> 3);
    p->packed = (uint32_t)packed;
    return 1;
}

static sgz_status read_points(const file *f, sgz_error *err)
{
    sgz_points *points = &f->index->points;
    const sgz_index_head *head = &f->head;
    sgz_cursor c = {f->data + f->points_at, f->data + f->windows_at};
    points->kind = (sgz_point_kind)sgz_index_kind_of(head->kind);
    points->size = head->size;
    points->end = head->tar_size;
    if (head->points > SGZ_INDEX_POINTS_MAX)
        return FAIL(err, f->points_at, "it has %llu entry points, more than an index may have",
                    (unsigned long long)head->points);
    if (head->points > head->points_len / 2)
        return FAIL(err, f->points_at, "its %llu entry points are not there",
                    (unsigned long long)head->points);
    if (!SGZ_FIT(points->at, points->cap, head->points) ||
        !SGZ_FIT(points->windows, points->windows_cap, head->windows_len))
        return no_memory(err);
    sgz_point p = {0};
    for (; points->count < head->points; points->count++) {
        const uint8_t *from = c.at;
        if (!get_point(&c, points->kind, &p))
            return FAIL(err, from - f->data, "entry point %zu makes no sense", points->count);
        p.window = points->windows_len;
        points->windows_len += sgz_codec_point_stored(&p);
        if (points->windows_len > head->windows_len)
            break;
        points->at[points->count] = p;
    }
    if (points->windows_len != head->windows_len)
        return FAIL(err, f->windows_at, "the histories of its entry points are not as long as they "
                    "say");
    if (c.at != c.end)
        return FAIL(err, c.at - f->data, "more follows on its entry points");
    if (head->windows_len)
        memcpy(points->windows, f->data + f->windows_at, head->windows_len);
    return SGZ_OK;
}

/* --- entries ----------------------------------------------------------------------------- */

static sgz_status inflate_entries(file *f, sgz_error *err)
{
    const sgz_index_head *head = &f->head;
    const uint8_t *in = f->data + f->entries_at;
    size_t in_len = f->toc_at - f->entries_at, got;
    sgz_inflater z;
    if (head->entries_len > sgz_index_entries_max(head->json_size) ||
        head->entries_len / SGZ_DEFLATE_RATIO > in_len)
        return FAIL(err, f->entries_at, "what it has of its entries is impossibly long");
    if (head->entries > head->entries_len / 3)
        return FAIL(err, f->entries_at, "its %llu entries are not there",
                    (unsigned long long)head->entries);
    if (!(f->entries = malloc(head->entries_len + 1)))
        return no_memory(err);
    sgz_status status = sgz_codec_inflater_init(&z, f->codecs, err);
    if (status)
        return status;
    sgz_codec_inflater_reset(&z, (int64_t)f->entries_at);
    status = sgz_codec_inflate(&z, &in, &in_len, f->entries, head->entries_len + 1, &got, 1, err);
    if (!status && (got != head->entries_len || in_len || !sgz_codec_inflater_at_member_end(&z)))
        status = FAIL(err, f->entries_at, "what it has of its entries is not as long as it says");
    else if (status == SGZ_EDATA)
        err->code = status = SGZ_EINDEX;
    sgz_codec_inflater_free(&z);
    return status;
}

/* One text, checked but for how often its entry comes. 0: it makes no sense. */
static int get_text(sgz_cursor *c, uint64_t *entry, uint64_t *kind, const uint8_t **text,
                    uint64_t *len)
{
    uint64_t step;
    if (!sgz_get_varint(c, &step) || !sgz_get_varint(c, kind) || !sgz_get_counted(c, text, len))
        return 0;
    if (step > UINT32_MAX || *kind > SGZ_INDEX_TAR_NAME || *len > UINT32_MAX)
        return 0;
    *entry += step;
    return 1;
}

typedef struct {
    file *f;
    sgz_cursor at;
    uint64_t entry, last; /* of what was read: entry * 8 + kind + 1 */
} text_reader;

/* For the TOC's parser. */
static sgz_status next_text(void *arg, sgz_toc_text *out, int *none, sgz_error *err)
{
    text_reader *r = arg;
    const uint8_t *text;
    uint64_t kind, len;
    *none = 0;
    while (r->at.at < r->at.end) {
        if (!get_text(&r->at, &r->entry, &kind, &text, &len) ||
            r->entry * 8 + kind + 1 <= r->last || r->entry >= r->f->head.entries)
            return FAIL(err, r->f->entries_at, "a text of its entries makes no sense");
        r->last = r->entry * 8 + kind + 1;
        if (kind == SGZ_INDEX_TAR_NAME)
            continue;
        if (sgz_is_utf8((const char *)text, len))
            return FAIL(err, r->f->entries_at, "a text beside its TOC is UTF-8");
        *out = (sgz_toc_text){r->entry, (sgz_toc_text_kind)kind, (const char *)text, len};
        return SGZ_OK;
    }
    *none = 1;
    return SGZ_OK;
}

/* Find the columns of the places' numbers, and the texts behind them. */
static sgz_status find_columns(file *f, sgz_error *err)
{
    sgz_cursor c = {f->entries, f->entries + f->head.entries_len};
    uint64_t value;
    for (int column = 0; column < 3; column++) {
        f->columns[column] = c;
        for (uint64_t i = 0; i < f->head.entries; i++)
            if (!sgz_get_varint(&c, &value))
                return FAIL(err, f->entries_at, "its %llu entries are not there",
                            (unsigned long long)f->head.entries);
    }
    f->texts = c;
    return SGZ_OK;
}

static sgz_status read_toc(file *f, int64_t max_toc_size, sgz_error *err)
{
    const sgz_index_head *head = &f->head;
    const sgz_blob blob = {.data = f->data, .fd = -1, .size = (int64_t)f->sum_at};
    text_reader reader = {.f = f, .at = f->texts};
    const sgz_toc_texts texts = {next_text, &reader};
    sgz_index *index = f->index;
    if (!(index->toc = sgz_toc_new()))
        return no_memory(err);
    sgz_status status = sgz_toc_read(f->codecs, &blob, (int64_t)f->toc_at, (int64_t)f->sum_at,
                                     max_toc_size, head->size, &texts, index->toc,
                                     &index->json_size, index->json_digest, err);
    if (status)
        return status;
    if (index->json_size != head->json_size ||
        memcmp(index->json_digest, head->json_digest, 32))
        return FAIL(err, f->toc_at, "its TOC is not the one that it says");
    uint64_t entries = 0;
    for (size_t i = 0; i < index->toc->count; i++) {
        const sgz_entry *row = &index->toc->rows[i];
        entries += !sgz_toc_is_piece(row);
        if (row->flags & SGZ_DROPPED)
            return sgz_base_fail(err, SGZ_EINDEX, (int64_t)f->toc_at,
                                 index->toc->arena + row->name_off, row->name_len,
                                 "two entries of its TOC have this name");
    }
    if (entries != head->entries || reader.at.at != reader.at.end)
        return FAIL(err, f->toc_at, "its TOC has %llu entries, and not the %llu that it says",
                    (unsigned long long)entries, (unsigned long long)head->entries);
    return SGZ_OK;
}

/* The place of the next entry, behind contents that end at `end`. 0: it makes no sense. */
static int get_place(file *f, int64_t end, sgz_toc_origin *place)
{
    uint64_t gap = 0, blocks = 0, ns = 0;
    int64_t size = f->head.tar_size;
    sgz_get_varint(&f->columns[0], &gap); /* they were counted */
    sgz_get_varint(&f->columns[1], &blocks);
    sgz_get_varint(&f->columns[2], &ns);
    if (gap > (uint64_t)size / SGZ_TAR_BLOCK || blocks > SGZ_INDEX_HEADER_MAX / SGZ_TAR_BLOCK ||
        ns >= 1000000000)
        return 0;
    place->header = (uint32_t)blocks * SGZ_TAR_BLOCK;
    place->content = sgz_index_padded(end) + (int64_t)gap * SGZ_TAR_BLOCK + place->header;
    place->ns = (uint32_t)ns;
    return place->content <= size;
}

static sgz_status put_places(file *f, sgz_error *err)
{
    const sgz_toc *toc = f->index->toc;
    int64_t end = 0; /* of the contents before */
    for (size_t i = 0; i < toc->count; i++) {
        const sgz_entry *row = &toc->rows[i];
        sgz_toc_origin *place = &f->index->toc->origins[i];
        if (!sgz_toc_is_piece(row)) {
            if (!get_place(f, end, place))
                return FAIL(err, f->entries_at, "the place of an entry in the tar makes no sense");
            place->name = row->name_off;
            place->name_len = row->name_len;
            end = place->content;
        }
        if (!sgz_toc_has_data(row))
            continue;
        if (row->chunk_size > f->head.tar_size - end)
            return FAIL(err, f->entries_at, "an entry goes beyond the tar's end");
        end += row->chunk_size;
    }
    return SGZ_OK;
}

static sgz_status read_names(file *f, sgz_error *err)
{
    sgz_index *index = f->index;
    sgz_cursor c = f->texts;
    uint64_t entry = 0, number = 0, kind, len;
    const uint8_t *text;
    size_t row = 0;
    while (c.at < c.end) {
        get_text(&c, &entry, &kind, &text, &len); /* they were checked */
        if (kind != SGZ_INDEX_TAR_NAME)
            continue;
        for (; number < entry || sgz_toc_is_piece(&index->toc->rows[row]); row++)
            number += !sgz_toc_is_piece(&index->toc->rows[row]);
        index->toc->origins[row].name = sgz_toc_store(index->toc, text, len);
        index->toc->origins[row].name_len = (uint32_t)len;
        if (index->toc->origins[row].name == UINT64_MAX)
            return no_memory(err);
    }
    return SGZ_OK;
}

static sgz_status read_places(file *f, sgz_error *err)
{
    sgz_index *index = f->index;
    index->toc->origin_cap = index->toc->count;
    if (index->toc->origin_cap &&
        !(index->toc->origins = calloc(index->toc->origin_cap, sizeof *index->toc->origins)))
        return no_memory(err);
    sgz_status status = put_places(f, err);
    return status ? status : read_names(f, err);
}

/* --- the index --------------------------------------------------------------------------- */

static sgz_status read_all(file *f, int64_t max_toc_size, sgz_error *err)
{
    sgz_status status = read_head(f, err);
    if (!status)
        status = find_sections(f, err);
    if (!status)
        status = check_sum(f, err);
    if (!status)
        status = check_head(f, max_toc_size, err);
    if (!status)
        status = read_points(f, err);
    if (!status)
        status = inflate_entries(f, err);
    if (!status)
        status = find_columns(f, err);
    if (!status)
        status = read_toc(f, max_toc_size, err);
    if (!status)
        status = read_places(f, err);
    if (status)
        return status;
    sgz_index *index = f->index;
    memcpy(index->digest, f->head.digest, 32);
    memcpy(index->diff_id, f->head.diff_id, 32);
    index->archive_size = f->head.archive_size;
    index->span_size = f->head.span_size;
    status = sgz_index_check(index, err);
    if (!status && sgz_index_longest(index) != f->head.longest)
        status = FAIL(err, -1, "its longest span is not as long as it says");
    return status;
}

sgz_status sgz_index_read(const uint8_t *data, size_t len, const sgz_codecs *codecs,
                          int64_t max_toc_size, sgz_index *index, sgz_error *err)
{
    file f = {.data = data, .len = len, .codecs = codecs, .index = index};
    sgz_status status = read_all(&f, max_toc_size, err);
    free(f.entries);
    if (status)
        sgz_index_free(index);
    return status;
}
