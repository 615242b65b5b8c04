/* Flatbuffers: what is built is read again, a part that is built once more is the same, and nothing
 * that a hostile one says leads outside. */
#include "index/flat.h"
#include "index/flat_builder.h"
#include "check.h"

#include <string.h>

enum { TABLES = 40, ROUNDS = 300 };

/* Table i: field 0 its number unless that is 0, 1 a text of `len` bytes, 2 of one byte each second
 * time, 13 a short. */
static uint64_t build(sgz_flat_builder *b, uint32_t i, uint32_t len)
{
    char text[64];
    memset(text, 'a' + (int)(i % 26), sizeof text);
    uint64_t ref = sgz_index_flat_string(b, text, len);
    sgz_index_flat_table(b);
    sgz_index_flat_number(b, 0, 8, i, 0);
    sgz_index_flat_ref(b, 1, ref);
    sgz_index_flat_number(b, 2, 1, i & 1 ? -(int64_t)(i % 100) : 1, 1);
    sgz_index_flat_number(b, 13, 2, i % 3, 0);
    return sgz_index_flat_table_end(b);
}

static void one_round(void)
{
    sgz_flat_builder b = {0};
    uint64_t refs[TABLES], begins[TABLES];
    uint32_t lens[TABLES], count = below(TABLES + 1);
    uint8_t *parts[TABLES];
    size_t sizes[TABLES];
    for (uint32_t i = count; i--;) { /* from the end, each part taken away */
        begins[i] = b.behind;
        refs[i] = build(&b, i, lens[i] = below(64));
        sizes[i] = b.len;
        parts[i] = malloc(b.len);
        memcpy(parts[i], sgz_flat_data(&b), b.len);
        sgz_flat_take(&b);
    }
    uint64_t end = b.behind;
    uint64_t list = sgz_index_flat_offsets(&b, refs, count);
    sgz_index_flat_table(&b);
    sgz_index_flat_ref(&b, 0, list);
    sgz_index_flat_finish(&b, sgz_index_flat_table_end(&b));
    size_t head = b.len, len = head + (size_t)end, at = head;
    uint8_t *whole = malloc(len + 1);
    CHECK(!b.failed && whole);
    memcpy(whole, sgz_flat_data(&b), head);
    for (uint32_t i = 0; i < count; i++) { /* and again from the beginning */
        b.behind = begins[i];
        b.len = 0;
        CHECK(build(&b, i, lens[i]) == refs[i]);
        CHECK(b.len == sizes[i] && !memcmp(sgz_flat_data(&b), parts[i], b.len));
        memcpy(whole + at, parts[i], b.len);
        at += b.len;
        free(parts[i]);
    }
    CHECK(at == len);
    sgz_flat f = {whole, len, 0};
    sgz_flat_table root = sgz_flat_root(&f);
    sgz_flat_vector items = sgz_flat_items(&f, &root, 0, 4);
    CHECK(items.count == count);
    for (uint32_t i = 0; i < count; i++) {
        size_t text_len;
        sgz_flat_table table = sgz_flat_item(&f, &items, i);
        CHECK(sgz_flat_number(&f, &table, 0, 8, 0) == i);
        CHECK(sgz_flat_number(&f, &table, 2, 1, 1) == (i & 1 ? -(int64_t)(i % 100) : 1));
        CHECK(sgz_flat_number(&f, &table, 5, 4, -7) == -7);
        const char *text = sgz_flat_text(&f, &table, 1, &text_len);
        CHECK(text_len == lens[i] && (!text_len || text[text_len - 1] == 'a' + (int)(i % 26)));
        CHECK(!sgz_flat_text(&f, &table, 9, &text_len) || !text_len);
    }
    CHECK(!f.bad);
    free(whole);
    sgz_index_flat_free(&b);
}

/* Everything that is in reach of the root, not deeper than is asked for. */
static void walk(sgz_flat *f, const sgz_flat_table *table, int depth)
{
    size_t len;
    for (int field = 0; field < 6 && depth; field++) {
        sgz_flat_number(f, table, field, 8, 0);
        const char *text = sgz_flat_text(f, table, field, &len);
        if (!f->bad && len)
            CHECK((const uint8_t *)text >= f->data &&
                  (size_t)((const uint8_t *)text - f->data) + len <= f->len);
        sgz_flat_table sub = sgz_flat_sub(f, table, field);
        walk(f, &sub, depth - 1);
        sgz_flat_vector items = sgz_flat_items(f, table, field, 4);
        for (size_t i = 0; i < items.count && i < 3 && !f->bad; i++) {
            sub = sgz_flat_item(f, &items, i);
            walk(f, &sub, depth - 1);
        }
    }
}

static void hostile(void)
{
    for (int i = 0; i < 20000; i++) {
        size_t len = below(64);
        uint8_t *data = malloc(len); /* just as long: a byte too far is seen */
        for (size_t k = 0; k < len; k++)
            data[k] = (uint8_t)(below(3) ? below(24) : below(256));
        sgz_flat f = {data, len, 0};
        sgz_flat_table root = sgz_flat_root(&f);
        walk(&f, &root, 3);
        free(data);
    }
    /* A table that is its own vtable, and its own field. */
    static const uint8_t loop[] = {4, 0, 0, 0, 0, 0, 0, 0};
    sgz_flat f = {loop, sizeof loop, 0};
    sgz_flat_table root = sgz_flat_root(&f);
    CHECK(!f.bad && !sgz_flat_number(&f, &root, 0, 8, 0));
    static const uint8_t before[] = {4, 0, 0, 0, 5, 0, 0, 0};
    f = (sgz_flat){before, sizeof before, 0};
    sgz_flat_root(&f);
    CHECK(f.bad);
    static const uint8_t huge[] = {10, 0, 0, 0, 6, 0, 8, 0, 4, 0, 6, 0, 0, 0, 4, 0, 0, 0,
                                   0xff, 0xff, 0xff, 0xff, 1, 2};
    f = (sgz_flat){huge, sizeof huge, 0};
    root = sgz_flat_root(&f);
    CHECK(!f.bad && !sgz_flat_items(&f, &root, 0, 4).count && f.bad);
}

int main(void)
{
    for (int i = 0; i < ROUNDS; i++)
        one_round();
    hostile();
    return 0;
}
