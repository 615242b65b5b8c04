/* csrc/index/format*.c and settle.c: what is written is read as it was, and nothing else is. */
#include "index_parts.h"

#include "index/format_internal.h"
#include "base/bytes.h"

#define TOC_MAX ((int64_t)1 << 30)

static sgz_status read_copy(const uint8_t *data, size_t len, sgz_index *index, sgz_error *err)
{
    uint8_t *copy = malloc(len ? len : 1); /* of just this length */
    CHECK(copy);
    memcpy(copy, data, len);
    *err = (sgz_error){0};
    *index = (sgz_index){0};
    sgz_status status = sgz_index_read(copy, len, &codecs, TOC_MAX, index, err);
    free(copy);
    if (status)
        CHECK(err->message[0] && err->offset >= -1 && err->offset <= (int64_t)len && !index->toc);
    return status;
}

static void same_text(const sgz_index *a, uint64_t a_off, uint32_t a_len, const sgz_index *b,
                      uint64_t b_off, uint32_t b_len)
{
    CHECK(a_len == b_len && !memcmp(a->toc->arena + a_off, b->toc->arena + b_off, a_len));
}

static void same(const sgz_index *a, const sgz_index *b)
{
    const sgz_points *p = &a->points, *q = &b->points;
    CHECK(p->kind == q->kind && p->count == q->count && p->size == q->size && p->end == q->end);
    CHECK(p->windows_len == q->windows_len);
    for (size_t i = 0; i < p->count; i++) {
        const sgz_point *x = &p->at[i], *y = &q->at[i];
        size_t len = sgz_codec_point_stored(x);
        CHECK(x->offset == y->offset && x->out == y->out && x->skip == y->skip &&
              x->history == y->history && x->packed == y->packed);
        CHECK(!len || !memcmp(p->windows + x->window, q->windows + y->window, len));
    }
    CHECK(!memcmp(a->digest, b->digest, 32) && !memcmp(a->diff_id, b->diff_id, 32));
    CHECK(a->archive_size == b->archive_size && a->span_size == b->span_size);
    CHECK(a->toc->count == b->toc->count);
    for (uint32_t i = 0; i < a->toc->count; i++) {
        const sgz_entry *x = &a->toc->rows[i], *y = &b->toc->rows[i];
        const sgz_toc_origin *m = &a->toc->origins[i], *n = &b->toc->origins[i];
        CHECK(x->type == y->type && x->flags == y->flags && x->size == y->size &&
              x->mtime == y->mtime && x->offset == y->offset &&
              x->inner_offset == y->inner_offset && x->chunk_size == y->chunk_size &&
              !memcmp(x->chunk_digest, y->chunk_digest, 32));
        same_text(a, x->name_off, x->name_len, b, y->name_off, y->name_len);
        same_text(a, x->link_off, x->link_len, b, y->link_off, y->link_len);
        same_text(a, m->name, m->name_len, b, n->name, n->name_len);
        CHECK(m->content == n->content && m->header == n->header && m->ns == n->ns);
        size_t len, other_len;
        const char *user = sgz_toc_string(a->toc, x->uname, &len);
        const char *other = sgz_toc_string(b->toc, y->uname, &other_len);
        CHECK(len == other_len && !memcmp(user, other, len));
        if (!sgz_toc_is_piece(x))
            CHECK(sgz_toc_lookup(b->toc, a->toc->arena + x->name_off, x->name_len) == i);
    }
}

/* What is left of the rows as they were made. */
static void settled(const sgz_index *made, const sgz_index *index)
{
    char clean[64];
    size_t i = 0, len;
    for (size_t k = 0; k < made->toc->count; k++) {
        const sgz_entry *old = &made->toc->rows[k], *row = &index->toc->rows[i];
        if (old->flags & SGZ_DROPPED)
            continue;
        const char *name = sgz_toc_clean_name(made->toc->arena + old->name_off, old->name_len,
                                              clean, &len);
        CHECK(row->type == old->type && row->name_len == len &&
              !memcmp(name, index->toc->arena + row->name_off, len));
        CHECK(row->offset == old->offset && row->chunk_size == old->chunk_size);
        CHECK(index->toc->origins[i].content == made->toc->origins[k].content);
        CHECK(index->toc->origins[i].header == made->toc->origins[k].header);
        i++;
    }
    CHECK(i == index->toc->count);
}

/* Rows and places as they are; their arena too. */
static sgz_index keep(const sgz_index *index)
{
    size_t rows = index->toc->count;
    sgz_index kept = {.toc = sgz_toc_new()};
    CHECK(kept.toc && (kept.toc->origins = malloc(rows * sizeof *kept.toc->origins)));
    memcpy(kept.toc->origins, index->toc->origins, rows * sizeof *kept.toc->origins);
    CHECK(!sgz_toc_store(kept.toc, index->toc->arena, index->toc->arena_len));
    for (size_t i = 0; i < rows; i++)
        *sgz_toc_append(kept.toc) = index->toc->rows[i];
    return kept;
}

static sgz_index make_settled(sgz_point_kind kind, int entries)
{
    sgz_index index = make_index(kind, entries);
    sgz_error err;
    CHECK(!sgz_index_settle(&index, &err));
    return index;
}

static void round_trips(void)
{
    static const sgz_point_kind kinds[] = {SGZ_POINT_DEFLATE, SGZ_POINT_GZIP, SGZ_POINT_ZSTD,
                                           SGZ_POINT_STORED};
    for (int k = 0; k < 4; k++)
        for (int entries = 0; entries < 60; entries += 29) {
            sgz_index index = make_index(kinds[k], entries), kept = keep(&index), copy;
            sgz_error err;
            CHECK(!sgz_index_settle(&index, &err));
            settled(&kept, &index);
            CHECK(!sgz_index_check(&index, &err));
            text first = write_index(&index);
            CHECK(!read_copy(first.data, first.len, &copy, &err));
            same(&index, &copy);
            CHECK(!index.json_size && copy.json_size);
            text second = write_index(&copy);
            CHECK(first.len == second.len && !memcmp(first.data, second.data, first.len));
            free(first.data);
            free(second.data);
            sgz_index_free(&index);
            sgz_index_free(&copy);
            sgz_index_free(&kept);
        }
}

/* With histories of a few bytes: so that all of a file can be tried. */
static sgz_index make_short(sgz_point_kind kind, int entries)
{
    sgz_index index = make_settled(kind, entries);
    for (size_t i = 0; i < index.points.count; i++) {
        sgz_point *p = &index.points.at[i];
        p->history = p->history < 9 ? p->history : 9;
        p->packed = p->packed < 5 ? p->packed : 5;
    }
    return index;
}

static void damage(void)
{
    sgz_index index = make_short(SGZ_POINT_DEFLATE, 3), other;
    sgz_error err;
    text t = write_index(&index);
    for (size_t i = 0; i < t.len; i++) {
        CHECK(read_copy(t.data, i, &other, &err) == SGZ_EINDEX);
        if (i > 7)
            CHECK(err.offset == (int64_t)i);
        uint8_t had = t.data[i];
        t.data[i] ^= (uint8_t)(1 << below(8));
        CHECK(read_copy(t.data, t.len, &other, &err) == SGZ_EINDEX);
        t.data[i] = had;
    }
    t.data = realloc(t.data, t.len + 1);
    t.data[t.len] = 0;
    CHECK(read_copy(t.data, t.len + 1, &other, &err) == SGZ_EINDEX);
    CHECK(err.offset == (int64_t)t.len);
    t.data[8] = SGZ_INDEX_VERSION + 1;
    CHECK(read_copy(t.data, t.len, &other, &err) == SGZ_EINDEX);
    CHECK(err.offset == 8 && strstr(err.message, "version 2"));
    free(t.data);
    sgz_index_free(&index);
}

/* What is wrong in an index must not be written, and is not read where it was. */
static void wrong(void)
{
    enum { POINTS = 9, ROWS = 8 };
    for (int i = 0; i < POINTS + ROWS; i++) {
        sgz_index index = make_settled(SGZ_POINT_DEFLATE, 12);
        sgz_error err;
        text t = {0};
        CHECK(index.points.count > 10);
        sgz_point *p = &index.points.at[3];
        sgz_entry *row = index.toc->rows;
        sgz_toc_origin *place = index.toc->origins;
        while (!sgz_toc_has_data(row) || sgz_toc_is_piece(row))
            row++, place++;
        switch (i) {
        case 0: p->offset = p[-1].offset; break;
        case 1: p->out = p[-1].out; break;
        case 2: index.points.at[0].out = 1; break;
        case 3: p->skip = 8; break;
        case 4: p->history = SGZ_HISTORY_MAX + 1; break;
        case 5: p->window = index.points.windows_len; p->history = 1; break;
        case 6: index.points.size = index.points.at[index.points.count - 1].offset; break;
        case 7: p->history = 0; p->packed = 0; p->skip = 1; break;
        case 8: index.archive_size = index.points.end + 1; break;
        case POINTS + 0: row->offset++; break;
        case POINTS + 1: row->inner_offset += 512; break;
        case POINTS + 2: row->chunk_size += 100000; break;
        case POINTS + 3: place->content += 512; break;
        case POINTS + 4: place->header = 0; break;
        case POINTS + 5: place->header += 1 << 22; break;
        case POINTS + 6: place->ns = 1000000000; break;
        case POINTS + 7: place->name_len = UINT32_MAX; break;
        }
        CHECK(sgz_index_check(&index, &err) == SGZ_EINDEX && err.message[0]);
        CHECK(sgz_index_write(&index, &codecs, take, &t, NULL, &err) == SGZ_EINDEX && !t.len);
        sgz_index_free(&index);
    }
}

/* A file that is whole, as its sum says, but whose head lies. */
static void lies(sgz_point_kind kind)
{
    sgz_index index = make_short(kind, 5), other;
    sgz_error err;
    text t = write_index(&index);
    size_t sum_at = t.len - SGZ_INDEX_SUM_SIZE;
    for (size_t at = 12; at < SGZ_INDEX_HEAD_SIZE; at += at < 16 ? 4 : 8) {
        uint8_t had[8];
        static const uint64_t values[] = {0, 1, 1 << 20, INT64_MAX, (uint64_t)INT64_MAX + 1,
                                          UINT64_MAX};
        memcpy(had, t.data + at, 8);
        uint64_t value = sgz_get_le64(had);
        for (int i = 0; i < 8; i++) {
            if (at == 12)
                sgz_put_le32(t.data + at, i < 6 ? (uint32_t)values[i] : 3 + (uint32_t)i);
            else
                sgz_put_le64(t.data + at, i < 6 ? values[i] : value + 2 * (uint64_t)i - 13);
            sum_of(t.data, sum_at, t.data + sum_at);
            sgz_status status = read_copy(t.data, t.len, &other, &err);
            /* Digests, and what span was asked for, are taken as they are. */
            int free_one = (at >= 24 && at < 56) || (at >= 64 && at < 96) || at == 104 ||
                           at == 16 || at == 56 || at == 96;
            CHECK(free_one || status || !memcmp(had, t.data + at, at == 12 ? 4 : 8));
            if (!status)
                sgz_index_free(&other);
        }
        memcpy(t.data + at, had, 8);
    }
    free(t.data);
    sgz_index_free(&index);
}

static void limits(void)
{
    sgz_index index = make_settled(SGZ_POINT_GZIP, 30), other = {0};
    sgz_error err;
    text t = write_index(&index);
    CHECK(!sgz_index_read(t.data, t.len, &codecs, TOC_MAX, &other, &err));
    int64_t size = other.json_size;
    sgz_index_free(&other);
    CHECK(sgz_index_read(t.data, t.len, &codecs, size - 1, &other, &err) == SGZ_ETOC);
    CHECK(strstr(err.message, "max_toc_size"));
    CHECK(!sgz_index_read(t.data, t.len, &codecs, size, &other, &err));
    memset(other.digest, 0, 32);
    text none = {0};
    CHECK(sgz_index_write(&other, &codecs, take, &none, NULL, &err) == SGZ_EINDEX && !none.len);
    free(t.data);
    sgz_index_free(&index);
    sgz_index_free(&other);
}

int main(void)
{
    load_codecs();
    round_trips();
    damage();
    wrong();
    lies(SGZ_POINT_DEFLATE);
    lies(SGZ_POINT_GZIP);
    limits();
    return 0;
}
