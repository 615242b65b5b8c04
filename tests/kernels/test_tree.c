/* Trees of random stacks of layers: every view holds what tree.h promises. */
#include "toc/tree.h"
#include "check.h"
#include "tree_checks.h"

enum { ROUNDS = 4000, LAYERS = 5 };

typedef struct {
    char text[1 << 16];
    size_t len;
} json;

static void add(json *out, const char *text)
{
    size_t len = strlen(text);
    CHECK(out->len + len < sizeof out->text);
    memcpy(out->text + out->len, text, len);
    out->len += len;
}

static void add_name(char *name, int depth)
{
    static const char *const bases[] = {
        "a", "b", "a.b", "-", "0", ".wh.a", ".wh.b", ".wh.-", ".wh..wh..opq", ".wh.", ".wh..",
        ".wh...", ".wh..wh.aufs", ".wh.a.b", ".prefetch.landmark", "stargz.index.json",
    };
    for (int i = 0; i < depth; i++) {
        strcat(name, i ? "/" : "");
        strcat(name, bases[i < depth - 1 ? below(5) : below(sizeof bases / sizeof *bases)]);
    }
}

/* A TOC that may contradict itself; the parser then refuses it. */
static sgz_toc *make_toc(void)
{
    static const char *const types[] = {"dir", "reg", "symlink", "char", "fifo", "hardlink"};
    static json out;
    char entry[512], name[128], link[128];
    uint32_t count = below(9);
    out.len = 0;
    add(&out, "{\"version\":1,\"entries\":[");
    for (uint32_t i = 0; i < count; i++) {
        name[0] = link[0] = 0;
        add_name(name, 1 + (int)below(3));
        add_name(link, 1 + (int)below(2));
        snprintf(entry, sizeof entry,
                 "%s{\"name\":\"%s\",\"type\":\"%s\",\"linkName\":\"%s\",\"mode\":%u}",
                 i ? "," : "", name, types[below(6)], link, below(01000));
        add(&out, entry);
    }
    add(&out, "]}");
    sgz_toc *toc = sgz_toc_new();
    sgz_toc_parser *parser = sgz_toc_parser_new(toc);
    sgz_error err;
    CHECK(toc && parser);
    sgz_status status = sgz_toc_parse(parser, out.text, out.len, &err);
    if (!status)
        status = sgz_toc_parse_finish(parser, 1 << 20, &err);
    sgz_toc_parser_free(parser);
    if (!status)
        return toc;
    CHECK(status == SGZ_ETOC);
    sgz_toc_free(toc);
    return NULL;
}

static void one_round(void)
{
    sgz_toc_tree_layer layers[LAYERS];
    sgz_toc_children dirs[LAYERS];
    sgz_toc *tocs[LAYERS];
    sgz_error err;
    uint32_t count = below(LAYERS + 1), made = 0;
    while (made < count) {
        if (!(tocs[made] = make_toc()))
            continue;
        CHECK(!sgz_toc_children_build(tocs[made], &dirs[made], &err));
        layers[made] = (sgz_toc_tree_layer){tocs[made], &dirs[made]};
        made++;
    }
    for (int mode = SGZ_WHITEOUTS_APPLY; mode <= SGZ_WHITEOUTS_OVERLAY && count; mode++) {
        sgz_toc_tree tree;
        CHECK(!sgz_toc_tree_build(&tree, layers, count, (sgz_toc_whiteouts)mode, 0, &err));
        check_tree(&tree, (sgz_toc_whiteouts)mode);
        check_paths(&tree);
        sgz_toc_tree_free(&tree);
    }
    for (uint32_t i = 0; i < count; i++) {
        sgz_toc_children_free(&dirs[i]);
        sgz_toc_free(tocs[i]);
    }
}

int main(void)
{
    sgz_toc_tree tree;
    sgz_error err;
    for (int i = 0; i < ROUNDS; i++)
        one_round();
    CHECK(!sgz_toc_tree_build(&tree, NULL, 0, SGZ_WHITEOUTS_APPLY, 0, &err));
    CHECK(tree.count == 1 && tree.nodes[0].type == SGZ_DIR && tree.nodes[0].links == 2);
    sgz_toc_tree_free(&tree);
    CHECK(sgz_toc_tree_build(&tree, NULL, SGZ_TREE_LAYERS_MAX + 1, SGZ_WHITEOUTS_APPLY, 0, &err));
    printf("%d passed, 0 failed\n", ROUNDS);
    return 0;
}
