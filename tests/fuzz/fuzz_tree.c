/* Trees of stacks of layers, in all views; the input tells which entries the layers have. */
#include "fuzz.h"
#include "../kernels/tree_checks.h"

enum { LAYERS = 8, ROOM = 1 << 20 };

typedef struct {
    const uint8_t *at, *end;
} input;

static uint8_t next(input *in)
{
    return in->at < in->end ? *in->at++ : 0;
}

/* A name of up to four components; the first of the bases are those that mean something. */
static int add_name(char *out, input *in, int depth)
{
    static const char *const bases[] = {
        ".wh.a", ".wh.b", ".wh..wh.opq", ".wh..wh..opq", ".wh.", ".wh..", ".wh...",
        ".wh..wh.aufs", ".prefetch.landmark", "stargz.index.json", ".wh.stargz.index.json", "..",
        "a.b", "-", "0", ".",
    };
    char *start = out;
    for (int i = 0; i < depth; i++) {
        uint8_t byte = next(in);
        if (i)
            *out++ = '/';
        if (byte < 16)
            out += sprintf(out, "%s", bases[byte]);
        else
            out += sprintf(out, byte & 1 ? ".wh.%c" : "%c", 'a' + byte / 16);
    }
    *out = 0;
    return (int)(out - start);
}

/* The JSON of one layer: entries up to one whose first byte has its top bit set. */
static size_t add_layer(char *out, input *in)
{
    static const char *const types[] = {
        "dir", "reg", "symlink", "char", "fifo", "hardlink", "block", "dir",
    };
    char *start = out;
    const char *before = "";
    out += sprintf(out, "{\"version\":1,\"entries\":[");
    while (in->at < in->end && out - start < ROOM / 2) {
        uint8_t byte = next(in);
        if (byte & 128)
            break;
        out += sprintf(out, "%s{\"type\":\"%s\",\"name\":\"", before, types[byte & 7]);
        out += add_name(out, in, 1 + (byte >> 3 & 3));
        out += sprintf(out, "\",\"linkName\":\"");
        out += add_name(out, in, 1 + (byte >> 5 & 1));
        out += sprintf(out, "\"}");
        before = ",";
    }
    out += sprintf(out, "]}");
    return (size_t)(out - start);
}

/* NULL when the entries contradict each other. */
static sgz_toc *make_toc(input *in)
{
    static char text[ROOM];
    size_t len = add_layer(text, in);
    sgz_error err;
    sgz_toc *toc = sgz_toc_new();
    sgz_toc_parser *parser = sgz_toc_parser_new(toc);
    CHECK(toc && parser);
    sgz_status status = sgz_toc_parse(parser, text, len, &err);
    if (!status)
        status = sgz_toc_parse_finish(parser, 1 << 20, &err);
    sgz_toc_parser_free(parser);
    if (!status)
        return toc;
    sgz_toc_free(toc);
    return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sgz_toc_tree_layer layers[LAYERS];
    sgz_toc_children dirs[LAYERS];
    sgz_toc *tocs[LAYERS];
    sgz_error err;
    input in = {data, data + (size < 2000 ? size : 2000)};
    uint32_t count = 0;
    while (in.at < in.end && count < LAYERS) {
        if (!(tocs[count] = make_toc(&in)))
            continue;
        CHECK(!sgz_toc_children_build(tocs[count], &dirs[count], &err));
        layers[count] = (sgz_toc_tree_layer){tocs[count], &dirs[count]};
        count++;
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
    return 0;
}
