/* TOC JSON: the same rows, or the same refusal, whatever the pieces; and what was accepted
 * formats to a text that is accepted again and formats to itself. */
#include "toc.h"

typedef struct {
    char *data;
    size_t len, cap;
} text;

static int add(void *arg, const char *data, size_t len)
{
    text *t = arg;
    if (len > t->cap - t->len) {
        t->cap = (t->len + len) * 2;
        t->data = realloc(t->data, t->cap);
        CHECK(t->data);
    }
    memcpy(t->data + t->len, data, len);
    t->len += len;
    return 0;
}

static void check_rows(const sgz_toc *toc)
{
    for (uint32_t i = 0; i < toc->count; i++) {
        const sgz_entry *row = &toc->rows[i];
        CHECK(row->name_off + row->name_len <= toc->arena_len);
        CHECK(row->link_off + row->link_len <= toc->arena_len);
        CHECK(row->xattr_off + row->xattr_len <= toc->arena_len);
        CHECK(row->size >= 0 && row->chunk_size >= 0 && row->offset < BLOB_END);
        if (sgz_toc_is_piece(row) || row->flags & SGZ_DROPPED)
            continue;
        const char *name = toc->arena + row->name_off;
        CHECK(sgz_toc_lookup(toc, name, row->name_len) == i);
        uint32_t end = sgz_toc_resolve(toc, i);
        CHECK(end < toc->count && toc->rows[end].type != SGZ_HARDLINK);
    }
}

static void check_tree(const sgz_toc *toc)
{
    sgz_toc_children tree;
    sgz_error err;
    CHECK(sgz_toc_children_build(toc, &tree, &err) == SGZ_OK);
    uint32_t nodes = tree.row_count + tree.implied_count, kids = 0;
    for (uint32_t node = 0; node < nodes; node++) {
        size_t len;
        const char *name = sgz_toc_children_name(toc, &tree, node, &len);
        CHECK(tree.starts[node] <= tree.starts[node + 1]);
        for (uint32_t i = tree.starts[node]; i < tree.starts[node + 1]; i++, kids++) {
            size_t kid_len;
            const char *kid = sgz_toc_children_name(toc, &tree, tree.kids[i], &kid_len);
            CHECK(kid_len > len && !memcmp(kid, name, len) && (!len || kid[len] == '/'));
            CHECK(sgz_toc_children_find(toc, &tree, kid, kid_len) == tree.kids[i]);
        }
    }
    uint32_t named = tree.implied_count;
    for (uint32_t i = 0; i < toc->count; i++)
        named += !sgz_toc_is_piece(&toc->rows[i]) && !(toc->rows[i].flags & SGZ_DROPPED);
    CHECK(kids + 1 == named); /* all but the root */
    sgz_toc_children_free(&tree);
}

static text format(const sgz_toc *toc, int legacy)
{
    text t = {0};
    uint64_t counted, written;
    sgz_error err;
    CHECK(sgz_toc_format(toc, legacy, NULL, NULL, &counted, &err) == SGZ_OK);
    CHECK(sgz_toc_format(toc, legacy, add, &t, &written, &err) == SGZ_OK);
    CHECK(counted == written && written == t.len);
    return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sgz_error err = {0}, other_err = {0};
    if (size < 1)
        return 0;
    size_t step = 1 + data[0] % 64;
    const char *json = (const char *)data + 1;
    size--;
    sgz_toc *toc = parse(json, size, size ? size : 1, 0, &err);
    sgz_toc *other = parse(json, size, step, 0, &other_err);
    CHECK(!toc == !other);
    if (!toc)
        return 0;
    check_rows(toc);
    check_tree(toc);
    text first = format(toc, 0), second = format(other, 0), legacy = format(toc, 1);
    CHECK(first.len == second.len && !memcmp(first.data, second.data, first.len));
    CHECK(legacy.len <= first.len);
    sgz_toc_free(toc);
    sgz_toc_free(other);

    /* Once replaced rows are gone, a second round changes nothing. */
    toc = parse(first.data, first.len, 4096, 0, &err);
    if (toc) {
        text again = format(toc, 0);
        CHECK(again.len == first.len && !memcmp(again.data, first.data, first.len));
        free(again.data);
        sgz_toc_free(toc);
    }
    free(first.data);
    free(second.data);
    free(legacy.data);
    return 0;
}
