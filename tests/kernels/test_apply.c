/* csrc/toc/rows.c: what a tree is once its entries were applied in order. */
#include "toc/rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int passed, failed;

#define EXPECT(what)                                                          \
    do {                                                                      \
        if (what) {                                                           \
            passed++;                                                         \
        } else {                                                              \
            failed++;                                                         \
            printf("%s:%d: %s: not so: %s\n", __FILE__, __LINE__, __func__, #what); \
        }                                                                     \
    } while (0)

static sgz_toc *toc;
static sgz_toc_rows *apply;
static sgz_error err;
static uint64_t bad_names;

static void end(void)
{
    sgz_toc_rows_free(apply);
    sgz_toc_free(toc);
}

static void begin(void)
{
    end();
    toc = sgz_toc_new();
    apply = sgz_toc_rows_new(toc);
}

static sgz_status add(char type, const char *name, const char *link)
{
    uint32_t row;
    sgz_tar_entry entry = {.type = type, .name = name, .name_len = strlen(name), .link = link,
                           .link_len = strlen(link), .uname = "", .gname = ""};
    entry.size = entry.payload = type == '0';
    return sgz_toc_rows_entry(apply, &entry, 512, &row, &err);
}

/* Entries as "TYPE NAME[>LINK]" separated by blanks; "+" is a chunk. */
static sgz_status add_all(const char *spec)
{
    char *copy = strdup(spec), *save;
    sgz_status status = SGZ_OK;
    for (char *word = strtok_r(copy, " ", &save); word && !status;
         word = strtok_r(NULL, " ", &save)) {
        uint32_t row;
        char *link = strchr(word, '>');
        if (link)
            *link++ = 0;
        status = *word == '+' ? sgz_toc_rows_chunk(apply, &row, &err)
                              : add(*word, word + 1, link ? link : "");
    }
    free(copy);
    return status;
}

/* The rows that are left, in the same form. */
static int leaves(const char *spec, const char *expected)
{
    char left[4096] = "";
    size_t used = 0;
    begin();
    if (add_all(spec) || sgz_toc_rows_finish(apply, &bad_names, &err)) {
        printf("%s (%s)\n", err.message, err.name);
        return 0;
    }
    for (size_t i = 0; i < toc->count; i++) {
        const sgz_entry *row = &toc->rows[i];
        if (row->flags & SGZ_DROPPED)
            continue;
        used += (size_t)snprintf(left + used, sizeof left - used, "%s%c%.*s%s%.*s",
                                 used ? " " : "", " 5021346+"[row->type], (int)row->name_len,
                                 toc->arena + row->name_off, row->link_len ? ">" : "",
                                 (int)row->link_len, toc->arena + row->link_off);
    }
    if (!strcmp(left, expected))
        return 1;
    printf("left: %s\n", left);
    return 0;
}

static int fails(const char *spec, const char *name, const char *message)
{
    begin();
    sgz_status status = add_all(spec);
    if (!status)
        status = sgz_toc_rows_finish(apply, &bad_names, &err);
    if ((status == SGZ_ENOTOC || status == SGZ_ETAR) && !strcmp(err.name, name) && strstr(err.message, message))
        return 1;
    printf("status %d: %s (%s)\n", (int)status, status ? err.message : "", err.name);
    return 0;
}

static void replacing(void)
{
    EXPECT(leaves("5d/ 0d/a 2s>x 6p", "5d/ 0d/a 2s>x 6p"));
    EXPECT(leaves("0a + + 0b 0./a +", "0b 0./a +./a"));
    EXPECT(leaves("5d/ 5./d", "5./d"));
    EXPECT(leaves("0a 5a/ 0a/b", "5a/ 0a/b"));
    EXPECT(leaves("5./ 0/a 0../a", "5./ 0../a"));
    EXPECT(leaves("2a>b 2a>c", "2a>c"));
    EXPECT(fails("5d 0d/x 0d", "d/x", "'d' is used as a directory, but the tar says it is a reg"));
    EXPECT(fails("2d>e 0d/x/y", "d/x/y", "symlink"));
    EXPECT(fails("0a/b/c 0a", "a/b/c", "'a' is used"));
    EXPECT(fails("0.", ".", "root"));
    EXPECT(fails("2/../>x", "/../", "root"));
    EXPECT(fails("5a +", "", "chunk without"));
}

static void hard_links(void)
{
    EXPECT(leaves("0a 1b>a 1c>b", "0a 1b>a 1c>b"));
    EXPECT(leaves("0a 1b>a 1a>a", "0a 1b>a"));
    EXPECT(leaves("0a 1b>a 1a>b", "0a 1b>a"));
    EXPECT(leaves("0a + 1b>a 0a", "0b +b 0a"));
    EXPECT(leaves("0a + 1b>a 1c>a 1d>./b 0a", "0b +b 1c>b 1d>./b 0a"));
    EXPECT(leaves("0a 1b>a 1c>a 0b 0a", "0c 0b 0a"));
    EXPECT(leaves("0a 1b>a 1c>a 0a 0b 0c", "0a 0b 0c"));
    EXPECT(leaves("0a 1b>a 1c>b 0b", "0a 1c>a 0b"));
    EXPECT(leaves("0a 1b>a 0a 1c>a 1d>b", "0b 0a 1c>a 1d>b"));
    EXPECT(leaves("0a 1b>a 5a/ 0a/x", "0b 5a/ 0a/x"));
    EXPECT(leaves("2a>t 1b>a 0a", "2b>t 0a"));
    EXPECT(leaves("0a 0b 1a>b", "0b 1a>b"));
    EXPECT(leaves("0a 1c>a 0b 1a>b", "0c 0b 1a>b"));
    EXPECT(leaves("0a 1b>a 1b>a", "0a 1b>a"));
    EXPECT(fails("1b>a 0a", "b", "hard link to 'a', which is not in the tar before it"));
    EXPECT(fails("5a 1b>a", "b", "hard link to 'a', which is a directory"));
    EXPECT(fails("1a>a", "a", "not in the tar"));

    /* Many links, each replaced in turn: no quadratic amount of work. */
    enum { LINKS = 200000 };
    char name[32];
    begin();
    int ok = !add('0', "f", "");
    for (int i = 0; i < LINKS; i++) {
        snprintf(name, sizeof name, "l%d", i);
        ok = ok && !add('1', name, "f");
    }
    ok = ok && !add('0', "f", "");
    for (int i = 0; i < LINKS - 1; i++) {
        snprintf(name, sizeof name, "l%d", i);
        ok = ok && !add('0', name, "");
    }
    ok = ok && !sgz_toc_rows_finish(apply, &bad_names, &err);
    EXPECT(ok && !strncmp(toc->arena + toc->rows[0].name_off, name, 2));
    snprintf(name, sizeof name, "l%d", LINKS - 1);
    EXPECT(toc->rows[0].name_len == strlen(name)
           && !memcmp(toc->arena + toc->rows[0].name_off, name, strlen(name))
           && sgz_toc_lookup(toc, name, strlen(name)) == 0);
}

static void bad_bytes(void)
{
    EXPECT(leaves("0a\xff", "0a\xef\xbf\xbd") && bad_names == 1);
    EXPECT(leaves("0\xed\xa0\x80\xc3\xa9", "0\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xc3\xa9"));
    EXPECT(leaves("0a\xff 0./a\xff", "0./a\xef\xbf\xbd") && bad_names == 1);
    EXPECT(leaves("5d\xff 0d\xff/x 1l>d\xff/x 2d\xff/s>x",
                  "5d\xef\xbf\xbd 0d\xef\xbf\xbd/x 1l>d\xef\xbf\xbd/x 2d\xef\xbf\xbd/s>x"));
    EXPECT(leaves("0\xef\xbf\xbd", "0\xef\xbf\xbd") && bad_names == 0);
    EXPECT(leaves("2s>\xff", "2s>\xef\xbf\xbd") && bad_names == 1);
    EXPECT(fails("0a\xff 0a\xfe", "a\xfe", "this name is not UTF-8"));
    EXPECT(fails("0a\xff 0a\xef\xbf\xbd", "a\xef\xbf\xbd", "this name is not UTF-8"));
    EXPECT(fails("0d\xff/x 0d\xfe/y", "d\xfe/y", "this name is not UTF-8"));
    EXPECT(fails("0d/a\xff 1b>d/a\xfe", "b", "the target of this link"));
    EXPECT(fails("0d/a\xff 2d/s>a\xfe", "d/s", "the target of this link"));
    EXPECT(fails("2d/s/>../a\xfe 0a\xff", "a\xff", "this name is not UTF-8"));
}

static void metadata(void)
{
    uint32_t row;
    sgz_xattr xattrs[] = {{"user.a", "1", 6, 1}, {"user.b", "", 6, 0}};
    sgz_tar_entry entry = {.type = 'S', .name = "f", .name_len = 1, .link = "", .uname = "u",
                           .uname_len = 1, .gname = "g\xff", .gname_len = 2, .size = 9,
                           .payload = 3, .mtime = -4, .mode = 0100644, .uid = 5, .gid = 6,
                           .xattr_count = 2, .xattrs = xattrs};
    begin();
    EXPECT(!sgz_toc_rows_entry(apply, &entry, 0, &row, &err) && row == 0);
    entry.type = '3', entry.name = "g", entry.dev_major = 7, entry.dev_minor = 8;
    EXPECT(!sgz_toc_rows_entry(apply, &entry, 0, &row, &err) && row == 1);
    const sgz_entry *f = &toc->rows[0], *g = &toc->rows[1];
    EXPECT(f->type == SGZ_REG && f->size == 9 && f->mtime == -4 && f->mode == 0100644
           && f->uid == 5 && f->gid == 6 && f->flags == SGZ_CLEAN_NAME);
    EXPECT(g->type == SGZ_CHAR && g->size == 0 && g->dev_major == 7 && g->dev_minor == 8);
    size_t len;
    const char *name = sgz_toc_string(toc, f->gname, &len);
    EXPECT(len == 4 && !memcmp(name, "g\xef\xbf\xbd", 4) && f->uname && f->uname == g->uname);
    static const char stored[] = "\6\0\0\0\1\0\0\0user.a1\6\0\0\0\0\0\0\0user.b";
    EXPECT(f->xattr_len == sizeof stored - 1
           && !memcmp(toc->arena + f->xattr_off, stored, f->xattr_len));
    EXPECT(g->xattr_off == f->xattr_off && g->xattr_len == f->xattr_len);
    xattrs[0].key = "user.\xff";
    EXPECT(sgz_toc_rows_entry(apply, &entry, 0, &row, &err) == SGZ_ENOTOC &&
           strstr(err.message, "xattr"));
    entry.xattr_count = 0;
    entry.uname = calloc(1, 70000);
    entry.uname_len = 70000;
    EXPECT(sgz_toc_rows_entry(apply, &entry, 0, &row, &err) == SGZ_ETAR &&
           strstr(err.message, "64 KiB"));
    free((char *)entry.uname);
}

/* Each value once, in whatever order they come. */
static void equal_xattrs(void)
{
    char values[100][4];
    uint32_t row;
    begin();
    for (int i = 0; i < 10000; i++) {
        char *value = values[i % 100], name[16];
        sgz_xattr xattr = {"user.a", value, 6, (uint32_t)sprintf(value, "%d", i % 100)};
        sgz_tar_entry entry = {.type = '5', .name = name, .link = "", .uname = "", .gname = "",
                               .name_len = (size_t)sprintf(name, "%05d", i), .xattr_count = 1,
                               .xattrs = &xattr};
        EXPECT(!sgz_toc_rows_entry(apply, &entry, 0, &row, &err));
        const sgz_entry *e = &toc->rows[row];
        EXPECT(e->xattr_len == 14u + xattr.value_len
               && !memcmp(toc->arena + e->xattr_off + 14, value, xattr.value_len));
        EXPECT(e->xattr_off == toc->rows[row % 100].xattr_off);
    }
    EXPECT(toc->arena_len < 10000 * 5 + 100 * 17);
}

/* A name of very many components is checked in one pass. */
static void deep(void)
{
    size_t len = 1 << 20;
    char *name = malloc(len + 2);
    for (size_t i = 0; i < len; i++)
        name[i] = i % 2 ? '/' : 'a';
    name[len] = 'b';
    name[len + 1] = 0;
    begin();
    EXPECT(!add('0', name, "") && !sgz_toc_rows_finish(apply, &bad_names, &err));
    EXPECT(!add('0', "a/a", "") && sgz_toc_rows_finish(apply, &bad_names, &err)
                                         == SGZ_ENOTOC);
    for (size_t i = 0; i < len; i += 2)
        name[i] = '\xff';
    begin();
    EXPECT(!add('0', name, "") && !sgz_toc_rows_finish(apply, &bad_names, &err) &&
           bad_names == 1);
    free(name);
}

int main(void)
{
    replacing();
    hard_links();
    bad_bytes();
    metadata();
    equal_xattrs();
    deep();
    end();
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
