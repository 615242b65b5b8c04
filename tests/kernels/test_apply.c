/* csrc/toc/rows.c: what a tree is once its entries were applied in order. */
#include "toc/rows.h"

#include "toc/limits.h"

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
static sgz_notes notes;
#define bad_names notes.count[SGZ_NOTE_NAME]

static void end(void)
{
    sgz_toc_rows_free(apply);
    sgz_toc_free(toc);
}

static void begin(void)
{
    end();
    notes = (sgz_notes){0};
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
    if (add_all(spec) || sgz_toc_rows_finish(apply, &notes, &err)) {
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
        status = sgz_toc_rows_finish(apply, &notes, &err);
    if ((status == SGZ_ENOTOC || status == SGZ_ETAR) && !strcmp(err.name, name) &&
        strstr(err.message, message))
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
    EXPECT(fails("5d 0d/x 0d", "d", "a file takes the place of a directory with entries"));
    EXPECT(fails("5d 0d/x 6d 5d", "d", "a fifo takes the place"));
    EXPECT(fails("5d 5d/e 5d 2d>x", "d", "a symlink takes the place"));
    EXPECT(fails("0a/b/c 0a", "a", "a file takes the place"));
    EXPECT(fails("0a/b/c 5a/b 0a/b 5a/b", "a/b", "a file takes the place"));
    EXPECT(fails("0d 0d/x/y", "d/x/y", "'d' is used as a directory by this name, but is a file"));
    EXPECT(leaves("5d 0d 5d 0d/x", "5d 0d/x"));
    EXPECT(fails("0.", ".", "root"));
    EXPECT(fails("2/../>x", "/../", "root"));
    EXPECT(fails("5a +", "", "chunk without"));
}

static void hard_links(void)
{
    EXPECT(leaves("0a 1b>a 1c>b", "0a 1b>a 1c>b"));
    EXPECT(leaves("0a 1b>a 1a>a", "0a 1b>a"));
    EXPECT(leaves("0a 1b>a 1a>b", "0a 1b>a") && notes.count[SGZ_NOTE_SAME_FILE] == 1);
    EXPECT(leaves("0a 1b>a 1b>b", "0a 1b>a"));
    EXPECT(leaves("0a 1b>a 1c>b 1b>c", "0a 1b>a 1c>b"));
    EXPECT(leaves("0a 0x 1b>a 1c>b 1b>x 1b>c", "0a 0x 1c>a 1b>c"));
    EXPECT(leaves("0a 2b>a 1b>b", "0a 2b>a"));
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
    ok = ok && !sgz_toc_rows_finish(apply, &notes, &err);
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

static void below_links(void)
{
    EXPECT(leaves("5d 2s>d 0s/x", "5d 2s>d 0d/x"));
    EXPECT(leaves("5a 5a/b 2a/s>b 2t>a/s 0t/x", "5a 5a/b 2a/s>b 2t>a/s 0a/b/x"));
    EXPECT(leaves("5d 2s>/d 0s/x", "5d 2s>/d 0d/x"));
    EXPECT(leaves("5a 5b 2a/s>../../../b 0a/s/x", "5a 5b 2a/s>../../../b 0b/x"));
    EXPECT(leaves("2s>gone/far 0s/x/y", "2s>gone/far 0gone/far/x/y"));
    EXPECT(leaves("5b 2b/b>. 0b/b/d 5b/b", "5b 0b/d 5b/b"));
    EXPECT(leaves("5d 2s>d 0s/x 0d/x", "5d 2s>d 0d/x"));
    EXPECT(leaves("5d 2s>d 0d/x 1s/y>s/x 1z>d/y", "5d 2s>d 0d/x 1d/y>d/x 1z>d/y"));
    EXPECT(leaves("5d 5e 2s>d 0s/x 2s>e 0s/x", "5d 5e 0d/x 2s>e 0e/x"));
    EXPECT(leaves("5d 2s>d 1t>s 0t/x", "5d 2s>d 1t>s 0d/x")); /* a link to the symlink itself */
    EXPECT(leaves("5d 2d/up>.. 0d/up/d/up/x", "5d 2d/up>.. 0x"));
    EXPECT(leaves("5a 5a/b 2s>a/b 2t>s/../c 5a/c 0t/x", "5a 5a/b 2s>a/b 2t>s/../c 5a/c 0a/c/x"));
    EXPECT(fails("2s>s 0s/x", "s/x", "more than 40 symlinks"));
    EXPECT(fails("2s>t 2t>s 0s/x", "s/x", "more than 40 symlinks"));
    EXPECT(fails("0f 2s>f 0s/x", "s/x", "'f' is used as a directory"));
    EXPECT(fails("2s>/ 0s/stargz.index.json", "s/stargz.index.json", "for itself"));
    EXPECT(fails("2s>d 1y>s/x", "y", "which is not in the tar before it"));
    EXPECT(fails("2s>\xff 0s/x", "s/x", "not UTF-8"));
    EXPECT(leaves("5d 2s>d 0s/x", "5d 2s>d 0d/x") && notes.count[SGZ_NOTE_BELOW_LINK] == 1 &&
           !strcmp(notes.first[SGZ_NOTE_BELOW_LINK], "s/x"));
}

static void whiteouts(void)
{
    EXPECT(leaves("0f 0f/.wh.a", "0f") && notes.count[SGZ_NOTE_NOT_BELOW] == 1);
    EXPECT(leaves("0f/.wh.a 0f/.wh.b 0f", "0f") && notes.count[SGZ_NOTE_NOT_BELOW] == 2);
    EXPECT(leaves("0f/.wh.a 2f>g", "2f>g"));
    EXPECT(leaves("5f 0f/.wh..wh..opq 2f>g", "2f>g"));
    EXPECT(leaves("5d 2s>d 0s/.wh.a", "5d 2s>d 0d/.wh.a"));
    EXPECT(leaves("0d/.wh.a 5d", "0d/.wh.a 5d") && notes.count[SGZ_NOTE_NOT_BELOW] == 0);
    EXPECT(fails("0d/.wh.a 0d/b 0d", "d", "takes the place"));
    /* Nothing is linked to a whiteout; a directory is none; and nothing is below one. */
    EXPECT(leaves("0f 1d/.wh.a>f 1d/.wh.b>f 0f 2d>e", "0f 2d>e"));
    EXPECT(fails("0d/.wh.a 1x>d/.wh.a", "x", "a whiteout and no file"));
    EXPECT(fails("5d/.wh.a 2d>e", "d", "takes the place"));
    EXPECT(fails("5e 2d/.wh.a>/e 0d/.wh.a/x", "d/.wh.a/x", "is used as a directory"));
}

/* Names beyond what a system can have. */
static void lengths(void)
{
    char name[SGZ_TOC_PATH_MAX + 2];
    memset(name, '/', sizeof name);
    for (size_t i = 0; i < SGZ_TOC_PATH_MAX; i += 2)
        name[i] = 'a';
    name[SGZ_TOC_PATH_MAX] = 0;
    begin();
    EXPECT(!add('0', name, "") && !add('1', "b", name) &&
           !sgz_toc_rows_finish(apply, &notes, &err));
    name[SGZ_TOC_PATH_MAX] = '/';
    name[SGZ_TOC_PATH_MAX + 1] = 0;
    EXPECT(add('0', name, "") == SGZ_ETAR && strstr(err.message, "over the limit of 4095"));
    EXPECT(add('2', "c", name) == SGZ_ETAR && strstr(err.message, "over the limit of 4095"));
    memset(name, 'n', 256);
    name[255] = 0;
    EXPECT(!add('0', name, ""));
    name[255] = 'n';
    name[256] = 0;
    EXPECT(add('0', name, "") == SGZ_ETAR && strstr(err.message, "a component of 256 bytes"));
    begin();
    memset(name, 'n', sizeof name);
    for (size_t i = 249; i < sizeof name; i += 250)
        name[i] = '/';
    name[3000] = 0;
    EXPECT(!add('2', "s", name));
    memcpy(name, "s/", 2);
    name[2000] = 0;
    EXPECT(add('0', name, "") == SGZ_ETAR &&
           strstr(err.message, "leads to a path of more than 4095"));
    name[1098] = 0; /* 3000 bytes of the target, and 1096 */
    EXPECT(add('0', name, "") == SGZ_ETAR &&
           strstr(err.message, "leads to a path of more than 4095"));
    name[1097] = 0;
    EXPECT(!add('0', name, ""));
    EXPECT(add('2', "t", "") == SGZ_ENOTOC && strstr(err.message, "without a target"));
}

int main(void)
{
    replacing();
    hard_links();
    bad_bytes();
    metadata();
    equal_xattrs();
    below_links();
    whiteouts();
    lengths();
    end();
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
