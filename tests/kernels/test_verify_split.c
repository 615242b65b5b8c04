/* verify/split.c: a tar, the lines that put it together, and its TOC; each wrong in all ways that
 * the reader of containers/storage refuses, and given in pieces of any size. */
#include "verify/split.h"

#include "base/bytes.h"
#include "check.h"
#include "codec/crc64.h"

#include <string.h>

#define BLOB_END 1000

typedef struct {
    const char *text;
    size_t len, at;
    int whole; /* it comes in one piece */
} memory;

typedef struct {
    int count;
    char first[sizeof((sgz_error *)0)->message];
} found;

static uint8_t tar[16384];
static size_t tar_len;
static char lines[32768], toc_text[4096];
static size_t lines_len;
static int positions;
static const sgz_points frames = {.kind = SGZ_POINT_ZSTD};

static sgz_status take(void *arg, void *out, size_t cap, size_t *got, sgz_error *err)
{
    memory *m = arg;
    (void)err;
    *got = m->len - m->at < cap ? m->len - m->at : cap;
    memcpy(out, m->text + m->at, *got);
    m->at += *got;
    return SGZ_OK;
}

static void report(void *arg, const sgz_error *err)
{
    found *f = arg;
    if (!f->count++)
        memcpy(f->first, err->message, sizeof f->first);
}

/* --- what is right --------------------------------------------------------------------------- */

static void line(const char *start, const uint8_t *payload, size_t len)
{
    lines_len += (size_t)sprintf(lines + lines_len, "%s\"payload\":\"", start);
    lines_len = (size_t)(sgz_put_base64(lines + lines_len, payload, len) - lines);
    lines_len += (size_t)sprintf(lines + lines_len, "\",\"position\":%d}\n", positions++);
}

static size_t begun; /* of the tar that no line has yet */

static void header(const char *name, char type, const char *link, const char *contents, size_t size)
{
    uint8_t *b = tar + tar_len;
    unsigned sum = 0;
    char start[256];
    memset(b, 0, 512);
    memcpy(b, name, strlen(name));
    sprintf((char *)b + 100, "%07o", 0644);
    sprintf((char *)b + 108, "%07o", 5);
    sprintf((char *)b + 116, "%07o", 6);
    sprintf((char *)b + 124, "%011o", (unsigned)size);
    sprintf((char *)b + 136, "%011o", 1000);
    memset(b + 148, ' ', 8);
    b[156] = (uint8_t)type;
    memcpy(b + 157, link, strlen(link));
    memcpy(b + 257, "ustar\0" "00", 8);
    for (int i = 0; i < 512; i++)
        sum += b[i];
    sprintf((char *)b + 148, "%06o", sum);
    tar_len += 512;
    line("{\"type\":2,", tar + begun, tar_len - begun);
    if (size) {
        uint8_t crc[8];
        sgz_put_be64(crc, sgz_codec_crc64(0, contents, size));
        sprintf(start, "{\"type\":1,\"name\":\"%s\",\"size\":%zu,", name, size);
        line(start, crc, 8);
        memcpy(tar + tar_len, contents, size);
        tar_len += size;
    } else {
        lines_len += (size_t)sprintf(lines + lines_len,
                                     "{\"type\":1,\"name\":\"%s\",\"payload\":null,\"position\":%d}\n",
                                     name, positions++);
    }
    begun = tar_len;
    tar_len += -size % 512;
}

static char contents[2][700];

static void build(void)
{
    char digest[65];
    for (int i = 0; i < 700; i++) {
        contents[0][i] = (char)('a' + below(26));
        contents[1][i] = (char)below(256);
    }
    header("d/", '5', "", NULL, 0);
    header("d/a", '0', "", contents[0], 700);
    header("empty", '0', "", NULL, 0);
    header("b", '0', "", contents[1], 512);
    header("s", '2', "d/a", NULL, 0);
    tar_len += 1024;
    line("{\"type\":2,", tar + begun, tar_len - begun);
    line("{\"type\":2,", tar + tar_len, 1024);
    tar_len += 1024;
    memset(digest, '7', 64);
    digest[64] = '\0';
#define OWNED "\"mode\":420,\"uid\":5,\"gid\":6,\"modtime\":\"1970-01-01T01:16:40+01:00\""
    sprintf(toc_text,
            "{\"version\":1,\"entries\":["
            "{\"type\":\"dir\",\"name\":\"d/\"," OWNED "},"
            "{\"type\":\"reg\",\"name\":\"d/a\",\"size\":700," OWNED ",\"digest\":\"sha256:%s\","
            "\"offset\":100,\"endOffset\":150},"
            "{\"type\":\"reg\",\"name\":\"empty\",\"size\":0," OWNED "},"
            "{\"type\":\"reg\",\"name\":\"b\",\"size\":512," OWNED ",\"digest\":\"sha256:%s\","
            "\"offset\":200,\"endOffset\":300,\"chunkSize\":500,\"chunkDigest\":\"sha256:%s\"},"
            "{\"type\":\"chunk\",\"name\":\"b\",\"offset\":250,\"chunkSize\":12,\"chunkOffset\":500,"
            "\"chunkDigest\":\"sha256:%s\"},"
            "{\"type\":\"symlink\",\"name\":\"s\",\"linkName\":\"d/a\"," OWNED "}]}",
            digest, digest, digest, digest);
}

/* --- what becomes of it ---------------------------------------------------------------------- */

static void gap(sgz_verify_split *s, size_t from, size_t to, int pieces)
{
    while (from < to) {
        size_t n = pieces ? 1 + below(700) : to - from;
        n = n < to - from ? n : to - from;
        sgz_verify_split_gap(s, tar + from, n, 7);
        from += n;
    }
}

static void chunk(sgz_verify_split *s, size_t span, size_t from, size_t len, int64_t end, int pieces)
{
    for (size_t at = 0, n; at < len; at += n) {
        n = pieces ? 1 + below(100) : len;
        n = n < len - at ? n : len - at;
        sgz_verify_split_data(s, span, tar + from + at, n);
    }
    sgz_verify_split_span(s, span, end);
}

static found verify(const char *json, const char *text, size_t len, int pieces)
{
    found f = {0};
    sgz_error err;
    sgz_toc *toc = sgz_toc_new();
    sgz_toc_parser *parser = sgz_toc_parser_new(toc);
    CHECK(!sgz_toc_parse(parser, json, strlen(json), &err));
    CHECK(!sgz_toc_parse_finish(parser, BLOB_END, &err));
    sgz_toc_parser_free(parser);
    sgz_spans spans;
    CHECK(!sgz_read_spans_init_all(&spans, toc, &frames, BLOB_END, &err));
    memory m[] = {{json, strlen(json), 0, 0}, {text, len, 0, 0}};
    sgz_verify_split *s = sgz_verify_split_new(&spans, (sgz_verify_pull){take, &m[0], 800},
                                               (sgz_verify_pull){take, &m[1], 900}, report, &f);
    CHECK(s);
    gap(s, 0, 1024, pieces);
    chunk(s, 0, 1024, 700, 150, pieces);
    gap(s, 1724, 3072, pieces);
    if (spans.count == 3) {
        chunk(s, 1, 3072, 500, 250, pieces);
        chunk(s, 2, 3572, 12, 300, pieces);
    }
    gap(s, 3584, tar_len, pieces);
    CHECK(!sgz_verify_split_finish(s, &err));
    sgz_verify_split_free(s);
    sgz_read_spans_free(&spans);
    sgz_toc_free(toc);
    return f;
}

/* The text with the nth `from` in it replaced. */
static size_t replace(char *out, const char *text, size_t len, int nth, const char *from,
                      const char *to)
{
    const char *at = text;
    while ((at = strstr(at, from)) && --nth)
        at++;
    CHECK(at);
    size_t before = (size_t)(at - text), rest = len - before - strlen(from);
    memcpy(out, text, before);
    memcpy(out + before, to, strlen(to));
    memcpy(out + before + strlen(to), at + strlen(from), rest);
    out[before + strlen(to) + rest] = '\0';
    return before + strlen(to) + rest;
}

static const struct {
    int in_toc, nth;
    const char *from, *to, *told;
} wrong[] = {
    {0, 1, "\"position\":3", "\"position\":4", "a line has position 4 where 3 is next"},
    {0, 1, "{\"type\":2,", "{\"type\":3,", "neither of a file nor of a segment"},
    {0, 2, "{\"type\":2,", "{\"type\":1,", "a file stands where the tar has other bytes"},
    {0, 1, "{\"type\":1,", "{\"type\":2,", "a segment stands where a file is next"},
    {0, 1, "\"name\":\"d/\"", "\"name\":\"d\"", "another name"},
    {0, 1, "\"size\":700", "\"size\":699", "its size is 699, in the tar 700"},
    {0, 1, "\"size\":700", "\"size\":-1", "negative"},
    {0, 1, "\"name\":\"d/a\"", "\"name_raw\":\"ZC9h\"", NULL},
    {0, 1, "\"name\":\"d/a\"", "\"name_raw\":\"ZC9i\"", "another name"},
    {0, 1, "\"name\":\"d/a\"", "\"x\":[{}],\"NAME\":\"\\u0064\\/a\"", NULL},
    {0, 1, "\"payload\":\"ZC8A", "\"payload\":\"ZC5A", "other bytes than the tar"},
    {0, 1, "\"payload\":\"ZC8A", "\"payload\":\"\\u005aC8A", NULL},
    {0, 1, "\"payload\":\"ZC8A", "\"payload\":\"!C8A", "base64"},
    {0, 1, "\n", " \n\n\t", NULL},
    {0, 1, "\n", "{}", "neither of a file"},
    {0, 1, "\n", "]", "expected an object"},
    {0, 1, "\"position\":11}\n", "\"position\":11}\n{", "the tar-split"},
    {0, 1, "\"position\":11}\n", "\"position\":11}\n"
     "{\"type\":2,\"payload\":null,\"position\":12}\n", "behind the end of the tar"},
    {1, 2, "\"type\":\"reg\"", "\"type\":\"fifo\"", "its type is fifo in the TOC, reg in the tar"},
    {1, 1, "\"name\":\"d/\"", "\"name\":\"d\"", "not in the TOC by this name"},
    {1, 1, "\"name\":\"empty\"", "\"name\":\"./empty\"", "not in the TOC by this name"},
    {1, 1, "\"mode\":420", "\"mode\":33188", "its mode is 100644 in the TOC, 644 in the tar"},
    {1, 4, "\"uid\":5", "\"uid\":4", "its owner is 4:6"},
    {1, 5, "\"gid\":6", "\"gid\":7", "its owner is 5:7"},
    {1, 1, "01:16:40+01", "01:16:40.5+01", "modification time"},
    {1, 1, "01:16:40+01:00", "00:16:40Z\",\"accesstime\":\"1971-01-01T00:00:00Z", "access time"},
    {1, 1, "\"modtime\"", "\"changetime\":\"1971-01-01T00:00:00Z\",\"modtime\"", "change time"},
    {1, 1, "\"modtime\"", "\"changetime\":\"1970-01-01T00:00:00Z\",\"modtime\"", NULL},
    {1, 1, "\"modtime\"", "\"accesstime\":\"0001-01-01T00:00:00Z\",\"modtime\"", NULL},
    {1, 1, "\"modtime\"", "\"accesstime\":\"x\",\"modtime\"", "is no time"},
    {1, 1, "\"uid\"", "\"devMajor\":1,\"uid\"", "its device is 1:0"},
    {1, 2, "\"uid\"", "\"devMinor\":1,\"uid\"", "its device is 0:1"},
    {1, 3, "\"uid\"", "\"xattrs\":{\"a\":\"YQ==\"},\"uid\"", "extended attributes"},
    {1, 3, "\"uid\"", "\"xattrs\":{},\"uid\"", NULL},
    {1, 1, "\"linkName\":\"d/a\"", "\"linkName\":\"d/b\"", "its link is not the tar's"},
    {1, 1, "\"uid\"", "\"linkName\":\"a\",\"uid\"", "its link is not the tar's"},
    {1, 1, "\"type\":\"dir\"", "\"size\":1,\"type\":\"dir\"", "its size is 1 in the TOC, 0"},
    {1, 1, "\"uid\"", "\"userName\":\"root\",\"uid\"", "its user or group name"},
    {1, 1, "\"digest\":\"sha256:", "\"x\":\"sha256:", "it has no digest"},
    {1, 1, "\"endOffset\":150", "\"endOffset\":149", "its endOffset is 149"},
    {1, 1, "\"endOffset\":150", "\"endOffset\":200", NULL},
    {1, 1, "\"endOffset\":300", "\"endOffset\":1001", "its endOffset is 1001"},
    {1, 1, "\"endOffset\":300", "\"endOffset\":299", "its endOffset is 299"},
    {1, 1, "{\"type\":\"reg\",\"name\":\"empty\"",
     "{\"type\":\"reg\",\"name\":\"more\"},{\"type\":\"reg\",\"name\":\"empty\"", "not in the tar"},
    {1, 1, "{\"type\":\"reg\",\"name\":\"empty\"",
     "{\"type\":\"reg\",\"name\":\"empty\"},{\"type\":\"reg\",\"name\":\"empty\"", "this path twice"},
    {1, 1, "\"version\":1,", "\"version\":1,\"tarSplitDigest\":\"\",", NULL},
};

int main(void)
{
    static char changed[40000];
    build();
    for (int round = 0; round < 200; round++) {
        found f = verify(toc_text, lines, lines_len, round);
        if (f.count)
            fprintf(stderr, "%s\n", f.first);
        CHECK(!f.count);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const char *text = wrong[i].in_toc ? toc_text : lines;
        size_t len = replace(changed, text, strlen(text), wrong[i].nth, wrong[i].from, wrong[i].to);
        for (int pieces = 0; pieces < 4; pieces++) {
            found f = wrong[i].in_toc ? verify(changed, lines, lines_len, pieces)
                                      : verify(toc_text, changed, len, pieces);
            int good = wrong[i].told ? f.count && strstr(f.first, wrong[i].told) : !f.count;
            if (!good)
                fprintf(stderr, "%s: %s -> %s: %d, %s\n", wrong[i].in_toc ? "TOC" : "lines",
                        wrong[i].from, wrong[i].to, f.count, f.first);
            CHECK(good);
        }
    }
    for (size_t len = 0; len < lines_len - 1; len += 1 + below(40))
        CHECK(verify(toc_text, lines, len, 0).count);
    return 0;
}
