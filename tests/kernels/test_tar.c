/* csrc/tar/ and csrc/toc/rows.c on hand-made archives. */
#include "tar/stream.h"
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

/* --- making tars ---------------------------------------------------------------------- */

static uint8_t tar[8 << 20];
static size_t tar_len;

static void number(uint8_t *field, size_t len, uint64_t value)
{
    field[len - 1] = 0;
    for (size_t i = len - 1; i--; value >>= 3)
        field[i] = (uint8_t)('0' + (value & 7));
}

static void seal(uint8_t *header)
{
    unsigned sum = 0;
    memset(header + 148, ' ', 8);
    for (int i = 0; i < 512; i++)
        sum += header[i];
    number(header + 148, 7, sum);
}

static uint8_t *header(char type, const char *name, const char *link, uint64_t size)
{
    uint8_t *h = tar + tar_len;
    memset(h, 0, 512);
    memcpy(h, name, strlen(name) < 100 ? strlen(name) : 100);
    memcpy(h + 157, link, strlen(link));
    number(h + 100, 8, 0644);
    number(h + 108, 8, 0);
    number(h + 116, 8, 0);
    number(h + 124, 12, size);
    number(h + 136, 12, 1000000000);
    h[156] = (uint8_t)type;
    memcpy(h + 257, "ustar\0" "00", 8);
    seal(h);
    tar_len += 512;
    return h;
}

static void body(const void *data, size_t len)
{
    size_t padded = (len + 511) / 512 * 512;
    memset(tar + tar_len, 0, padded);
    memcpy(tar + tar_len, data, len);
    tar_len += padded;
}

static void file(const char *name, const char *text)
{
    header('0', name, "", strlen(text));
    body(text, strlen(text));
}

static void node(char type, const char *name, const char *link)
{
    header(type, name, link, 0);
}

static char records[2 << 20];
static size_t records_len;

static void record_bytes(const char *key, const char *value, size_t len)
{
    size_t total = strlen(key) + len + 3, digits = 1;
    while (digits != (size_t)snprintf(NULL, 0, "%zu", total + digits))
        digits++;
    records_len += (size_t)sprintf(records + records_len, "%zu %s=", total + digits, key);
    memcpy(records + records_len, value, len);
    records_len += len;
    records[records_len++] = '\n';
}

static void record(const char *key, const char *value)
{
    record_bytes(key, value, strlen(value));
}

static void pax(char type)
{
    header(type, "pax", "", records_len);
    body(records, records_len);
    records_len = 0;
}

/* --- reading them --------------------------------------------------------------------- */

static sgz_tar_parser *parser;
static sgz_tar_entry entry;
static sgz_error err;
static size_t tar_at;

static void begin(void)
{
    sgz_tar_parser_free(parser);
    parser = sgz_tar_parser_new();
    tar_len = tar_at = records_len = 0;
}

/* The next event that is not MORE; -1 is an error, -2 the end of the bytes. */
static int next(void)
{
    sgz_tar_event event;
    while (tar_at + 512 <= tar_len) {
        if (sgz_tar_feed(parser, tar + tar_at, (int64_t)tar_at, &event, &entry, &err))
            return -1;
        tar_at += 512;
        if (event == SGZ_TAR_ENTRY)
            tar_at += (size_t)(entry.payload + 511) / 512 * 512;
        if (event != SGZ_TAR_MORE)
            return (int)event;
    }
    return -2;
}

static int is(const char *text, size_t len, const char *expected)
{
    return strlen(expected) == len && !memcmp(text, expected, len);
}

static int fails(const char *message)
{
    int event;
    do
        event = next();
    while (event >= 0);
    if (event == -1 && (err.code == SGZ_ETAR || err.code == SGZ_ENOTOC)
        && strstr(err.message, message))
        return 1;
    printf("event %d, message: %s\n", event, err.message);
    return 0;
}

static void plain(void)
{
    begin();
    file("a", "hello");
    uint8_t *h = header('0', "name", "", 0);
    memset(h + 345, 'p', 155);
    memcpy(h + 265, "user", 4);
    seal(h);
    node('5', "d/", "");
    header('\0', "slash/", "", 77);
    header('1', "link", "a", 77);
    h = header('3', "dev", "", 77);
    number(h + 329, 8, 5);
    number(h + 337, 8, 7);
    seal(h);
    header('7', "contiguous", "", 0);
    header('\0', "old", "", 0);
    header('\0', "olddir/", "", 0);
    body("", 0);
    memset(tar + tar_len, 0, 512);
    tar_len += 512;
    EXPECT(sgz_tar_idle(parser));
    EXPECT(next() == SGZ_TAR_ENTRY && entry.type == '0' && entry.size == 5 && entry.payload == 5);
    EXPECT(is(entry.name, entry.name_len, "a") && entry.mode == 0644
           && entry.mtime == 1000000000 && !entry.rewrite && !entry.xattr_count);
    EXPECT(next() == SGZ_TAR_ENTRY && entry.name_len == 160 && entry.name[155] == '/');
    EXPECT(is(entry.uname, entry.uname_len, "user"));
    EXPECT(next() == SGZ_TAR_ENTRY && entry.type == '5');
    EXPECT(next() == SGZ_TAR_ENTRY && entry.type == '5' && !entry.size && !entry.payload);
    EXPECT(next() == SGZ_TAR_ENTRY && entry.type == '1' && !entry.size && !entry.payload);
    EXPECT(next() == SGZ_TAR_ENTRY && entry.type == '3' && entry.dev_major == 5
           && entry.dev_minor == 7);
    EXPECT(next() == SGZ_TAR_ENTRY && entry.type == '0');
    EXPECT(next() == SGZ_TAR_ENTRY && entry.type == '0');
    EXPECT(next() == SGZ_TAR_ENTRY && entry.type == '5');
    EXPECT(next() == SGZ_TAR_END && sgz_tar_idle(parser));
}

static void numbers(void)
{
    begin();
    uint8_t *h = header('0', "n", "", 0);
    memcpy(h + 100, "   644 \0", 8);
    memset(h + 108, 0, 8);                        /* empty: 0 */
    memcpy(h + 116, "\x80\0\0\0\xff\xff\xff\xff", 8);
    memset(h + 136, 0xff, 12);                    /* -1 */
    seal(h);
    EXPECT(next() == SGZ_TAR_ENTRY && entry.mode == 0644 && entry.uid == 0
           && entry.gid == UINT32_MAX && entry.mtime == -1);
    for (int k = 0; k < 2; k++) {                 /* signed sums */
        begin();
        h = header('0', "\xff\xff", "", 0);
        unsigned sum = 0;
        memset(h + 148, ' ', 8);
        for (int i = 0; i < 512; i++)
            sum += k ? (unsigned)(signed char)h[i] : h[i];
        number(h + 148, 7, sum);
        EXPECT(next() == SGZ_TAR_ENTRY);
    }
    static const struct {
        int at, len;
        const char *field, *message;
    } bad[] = {
        {100, 8, "zzzzzzz", "mode"},
        {108, 8, "12x4567", "uid"},
        {116, 8, "1234567x", "gid"},
        {124, 12, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "size"},
        {124, 12, "\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", "size"},
        {124, 12, "\x80\1\0\0\0\0\0\0\0\0\0\0", "size"},
        {136, 12, "\x80\0\0\1\0\0\0\0\0\0\0\0", "mtime"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        begin();
        h = header('0', "bad", "", 0);
        memcpy(h + bad[i].at, bad[i].field, (size_t)bad[i].len);
        seal(h);
        EXPECT(fails(bad[i].message) && !strcmp(err.name, "bad") && err.offset == 0);
    }
}

static void refused(void)
{
    for (const char *type = "VMNAIqS"; *type; type++) {
        begin();
        node(*type, "thing", "");
        EXPECT(fails(*type == 'S' ? "not GNU tar's" : "cannot be part of a layer"));
        EXPECT(!strcmp(err.name, "thing"));
    }
    begin();
    file("a", "x");
    tar[0] ^= 1;
    EXPECT(fails("checksum"));
    EXPECT(next() == -1 && strstr(err.message, "already"));
    begin();
    node('2', "s", "");
    EXPECT(fails("no target"));
    begin();
    node('0', "", "");
    EXPECT(fails("without a name"));
    begin();
    header('L', "././@LongLink", "", 4);
    body("abc", 4);
    EXPECT(next() == -2 && !sgz_tar_idle(parser));
    memset(tar + tar_len, 0, 512);
    tar_len += 512;
    EXPECT(fails("zeros between"));
    begin();
    header('x', "", "", SGZ_TAR_LONG_MAX + SGZ_TAR_MAP_MAX + 1);
    EXPECT(fails("1 MiB"));
    begin();
    header('L', "", "", SGZ_TAR_LONG_MAX / 2);
    body(records, SGZ_TAR_LONG_MAX / 2);
    header('K', "", "", SGZ_TAR_LONG_MAX / 2 + 1);
    EXPECT(fails("1 MiB"));
}

static void long_names(void)
{
    begin();
    header('L', "././@LongLink", "", 300);
    memset(records, 'n', 299);
    records[299] = 0;
    body(records, 300);
    header('K', "././@LongLink", "", 200);
    memset(records, 'k', 199);
    records[199] = 0;
    body(records, 200);
    node('2', "short", "short");
    node('2', "second", "other");
    EXPECT(next() == SGZ_TAR_ENTRY && entry.name_len == 299 && entry.link_len == 199);
    EXPECT(entry.name[298] == 'n' && entry.link[198] == 'k');
    EXPECT(next() == SGZ_TAR_ENTRY && is(entry.name, entry.name_len, "second")
           && is(entry.link, entry.link_len, "other"));
    begin();
    uint8_t *h = header('0', "gnu", "", 0);       /* no prefix in an old GNU header */
    memcpy(h + 257, "ustar  ", 8);
    memcpy(h + 345, "14720000000", 11);
    seal(h);
    EXPECT(next() == SGZ_TAR_ENTRY && is(entry.name, entry.name_len, "gnu"));
    begin();
    header('L', "", "", 2);
    body("x", 2);
    header('L', "", "", 2);
    body("y", 2);
    node('0', "short", "");
    EXPECT(next() == SGZ_TAR_ENTRY && is(entry.name, entry.name_len, "y") && entry.rewrite
           && entry.notes == SGZ_NOTE_BIT(TWICE));
    begin();
    header('L', "", "", 2);
    body("x", 2);
    record("comment", "x");
    pax('g');
    EXPECT(fails("between the headers"));
}

static int mtime_is(const char *text, int64_t rounded, uint32_t nsec)
{
    begin();
    record("mtime", text);
    pax('x');
    node('0', "t", "");
    return next() == SGZ_TAR_ENTRY && entry.mtime == rounded && entry.mtime_nsec == nsec;
}

static void pax_records(void)
{
    begin();
    record("path", "first");
    record("path", "some/path");
    record("uid", "3000000000");
    record("gid", "");
    record("uname", "u");
    record("size", "3");
    record("SCHILY.xattr.user.b", "2");
    record_bytes("SCHILY.xattr.user.a", "\0=\n", 3);
    record("SCHILY.xattr.user.b", "3");
    record("SCHILY.xattr.user.empty", "");
    record("LIBARCHIVE.xattr.user.c", "eA==");
    record("hdrcharset", "BINARY");
    pax('x');
    header('0', "h", "", 0);
    body("abc", 3);
    node('0', "after", "");
    EXPECT(next() == SGZ_TAR_ENTRY && is(entry.name, entry.name_len, "some/path"));
    EXPECT(entry.uid == 3000000000u && entry.gid == 0 && entry.size == 3 && entry.payload == 3);
    EXPECT(is(entry.uname, entry.uname_len, "u") && entry.xattr_count == 3);
    EXPECT(entry.notes == (SGZ_NOTE_BIT(SIZES) | SGZ_NOTE_BIT(EMPTY)) && entry.rewrite);
    EXPECT(is(entry.xattrs[0].key, entry.xattrs[0].key_len, "user.a")
           && entry.xattrs[0].value_len == 3 && !memcmp(entry.xattrs[0].value, "\0=\n", 3));
    EXPECT(is(entry.xattrs[1].value, entry.xattrs[1].value_len, "3"));
    EXPECT(entry.xattrs[2].value_len == 0);
    EXPECT(next() == SGZ_TAR_ENTRY && is(entry.name, entry.name_len, "after")
           && !entry.xattr_count && !entry.uid);

    EXPECT(mtime_is("1.5", 2, 500000000) && mtime_is("1.499999999999", 1, 499999999));
    EXPECT(mtime_is("-0.5", 0, 500000000) && mtime_is("-1.75", -2, 250000000));
    EXPECT(mtime_is("-7", -7, 0) && mtime_is("5.", 5, 0) && mtime_is("", 1000000000, 0));

    static const struct {
        const char *text, *message;
    } bad[] = {
        {"6 a=b\n6 a=b", "malformed"},     {"5 a=b\n", "malformed"},
        {"7 a=b\n", "malformed"},          {"a=b\n", "malformed"},
        {"5 =b\n", "without a key"},       {"6 abc\n", "without a key"},
        {"99999999999999999999 a=b\n", "malformed"}, {"0 \n", "malformed"},
        {"4 =\n", "malformed"},           {"9 uid=-x\n", "not a number"},
        {"11 size=-1\n", "not a number"}, {"14 size=1e100\n", "not a number"},
        {"13 mtime=1e3\n", "not a time"},  {"12 mtime=.5\n", "not a time"},
        {"29 mtime=9999999999999999999\n", "not a time"},
        {"28 uid=18446744073709551616\n", "not a number"},
        {"17 SCHILY.xattr.=\n", "malformed"},
        {"18 SCHILY.xattr.=\n", "names no attribute"},
        {"20 GNU.sparse.foo=1\n", "no known sparse"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        begin();
        header('x', "", "", strlen(bad[i].text));
        body(bad[i].text, strlen(bad[i].text));
        node('0', "t", "");
        EXPECT(fails(bad[i].message));
    }
    begin();
    record_bytes("path", "a\0b", 3);
    pax('x');
    EXPECT(fails("NUL"));
    begin();
    record("path", "first");
    record("SCHILY.xattr.user.a", "1");
    record("mtime", "7");
    pax('x');
    record("uid", "5");
    pax('x');
    node('0', "short", "");
    EXPECT(next() == SGZ_TAR_ENTRY && is(entry.name, entry.name_len, "short") && entry.uid == 5
           && entry.mtime == 1000000000 && !entry.xattr_count);
    EXPECT(entry.rewrite && entry.notes == SGZ_NOTE_BIT(TWICE));
}

static void own_records(void)
{
    static const char escaped[] = "29 SCHILY.xattr.user.%3D=one\n";
    begin();
    sgz_tar_keep_records(parser);
    record("uid", "7");
    pax('g');
    record("dropped", "the second header counts");
    pax('x');
    record("SCHILY.xattr.user.%3D", "one");
    pax('x');
    file("f", "abc");
    node('5', "d/", "");
    EXPECT(next() == SGZ_TAR_GLOBAL);
    EXPECT(next() == SGZ_TAR_ENTRY && is(entry.own, entry.records_len, escaped));
    EXPECT(is(entry.xattrs[0].key, entry.xattrs[0].key_len, "user.="));
    EXPECT(!memcmp(entry.block, tar + entry.header, 512));
    EXPECT(next() == SGZ_TAR_ENTRY && !entry.records_len);
}

static void globals(void)
{
    begin();
    record("uname", "root");
    record("uid", "7");
    record("mtime", "9");
    record("SCHILY.xattr.b", "global");
    record("SCHILY.xattr.d", "global");
    pax('g');
    node('0', "a", "");
    record("uid", "");
    record("mtime", "8");
    record("uname", "me");
    record("SCHILY.xattr.a", "local");
    record("SCHILY.xattr.b", "local");
    pax('x');
    node('0', "b", "");
    record("SCHILY.xattr.c", "second");
    record("SCHILY.xattr.b", "second");
    record("uname", "");
    record("mtime", "");
    record("uid", "");
    pax('g');
    node('0', "c", "");
    EXPECT(next() == SGZ_TAR_GLOBAL && sgz_tar_idle(parser));
    EXPECT(next() == SGZ_TAR_ENTRY && entry.rewrite && entry.uid == 7 && entry.mtime == 9);
    EXPECT(is(entry.uname, entry.uname_len, "root") && entry.xattr_count == 2);
    EXPECT(next() == SGZ_TAR_ENTRY && entry.rewrite && entry.uid == 0 && entry.mtime == 8);
    EXPECT(is(entry.uname, entry.uname_len, "me") && entry.xattr_count == 3);
    EXPECT(is(entry.xattrs[1].value, entry.xattrs[1].value_len, "local"));
    EXPECT(next() == SGZ_TAR_GLOBAL && next() == SGZ_TAR_ENTRY && entry.xattr_count == 3);
    EXPECT(is(entry.xattrs[0].value, entry.xattrs[0].value_len, "second"));
    EXPECT(entry.uname_len == 0 && entry.uid == 0 && entry.mtime == 1000000000);
    static const char *const bad[] = {"path", "linkpath", "size", "GNU.sparse.size"};
    for (size_t i = 0; i < 4; i++) {
        begin();
        record(bad[i], "1");
        pax('g');
        EXPECT(fails("cannot hold for every entry"));
    }
    begin();
    memset(tar, 'v', 65536);
    tar[65536] = 0;
    char *big = strdup((char *)tar);
    record("SCHILY.xattr.big", big);
    free(big);
    pax('g');
    EXPECT(fails("64 KiB"));
}

/* --- sparse --------------------------------------------------------------------------- */

static int sparse_is(int64_t size, int64_t payload, size_t count)
{
    if (next() == SGZ_TAR_ENTRY && entry.type == 'S' && entry.size == size
        && entry.payload == payload && entry.sparse_count == count)
        return 1;
    printf("%s: %d runs\n", err.message, (int)entry.sparse_count);
    return 0;
}

static void old_sparse(void)
{
    for (int extended = 0; extended < 2; extended++) {
        begin();
        uint8_t *h = header('S', "s", "", extended ? 512 * 6 : 512 * 4);
        memcpy(h + 257, "ustar  ", 8);
        for (uint64_t i = 0; i < 4; i++) {
            number(h + 386 + 24 * i, 12, i * 8192);
            number(h + 398 + 24 * i, 12, 512);
        }
        h[482] = (uint8_t)extended;
        number(h + 483, 12, 100000);
        seal(h);
        if (extended) {
            uint8_t block[512] = {0};
            for (uint64_t i = 0; i < 2; i++) {
                number(block + 24 * i, 12, 40000 + i * 8192);
                number(block + 12 + 24 * i, 12, 512);
            }
            number(block + 48, 12, 100000);
            number(block + 60, 12, 0);
            body(block, 512);
        }
        EXPECT(sparse_is(100000, extended ? 3072 : 2048, extended ? 6 : 4));
        EXPECT(entry.sparse[1].offset == 8192 && entry.sparse[1].len == 512);
    }
    begin();
    uint8_t *h = header('S', "s", "", 512);
    memcpy(h + 257, "ustar  ", 8);
    number(h + 386, 12, 0);
    number(h + 398, 12, 1024);
    number(h + 483, 12, 100000);
    seal(h);
    EXPECT(fails("1024 bytes of data but the entry 512"));
}

static void sparse_pax(const char *map)
{
    begin();
    record("GNU.sparse.major", "1");
    record("GNU.sparse.minor", "0");
    record("GNU.sparse.name", "real");
    record("GNU.sparse.realsize", "100000");
    pax('x');
    header('0', "GNUSparseFile.0/real", "", 512 + 5);
    body(map, strlen(map));
}

static void new_sparse(void)
{
    sparse_pax("2\n0\n5\n100000\n0\n");
    EXPECT(sparse_is(100000, 5, 1) && entry.sparse_map_bytes == 512);
    EXPECT(is(entry.name, entry.name_len, "real"));
    static const struct {
        const char *map, *message;
    } bad[] = {
        {"x", "not a number"},       {"\n", "not a number"},
        {"-1\n", "not a number"},    {"1\n0\n", "not a number"},
        {"1\n99999999999999999999\n5\n", "too large"},
        {"1\n99996\n5\n", "past the end"}, {"2\n50\n3\n49\n2\n", "ascending"},
        {"1\n0\n6\n", "6 bytes of data"},  {"0\n", "0 bytes of data"},
        {"5000000\n", "16 MiB"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        sparse_pax(bad[i].map);
        EXPECT(fails(bad[i].message) && !strcmp(err.name, "real"));
    }
    begin();                                        /* 0.1 */
    record("GNU.sparse.size", "20");
    record("GNU.sparse.numblocks", "2");
    record("GNU.sparse.map", "1,2,20,0");
    pax('x');
    header('0', "s", "", 2);
    EXPECT(sparse_is(20, 2, 1) && entry.sparse[0].offset == 1 && entry.sparse[0].len == 2);
    begin();                                        /* 0.0 */
    record("GNU.sparse.size", "20");
    record("GNU.sparse.numblocks", "2");
    for (int i = 0; i < 2; i++) {
        record("GNU.sparse.offset", i ? "9" : "1");
        record("GNU.sparse.numbytes", "2");
    }
    pax('x');
    header('0', "s", "", 4);
    EXPECT(sparse_is(20, 4, 2));
    static const struct {
        const char *key, *value, *size, *message;
    } wrong[] = {
        {"GNU.sparse.map", "1,2,3", "20", "half a pair"},
        {"GNU.sparse.map", "1,2,", "20", "half a pair"},
        {"GNU.sparse.map", "1,,", "20", "not a number"},
        {"GNU.sparse.map", "1,-2", "20", "not a number"},
        {"GNU.sparse.offset", "1", "20", "half a pair"},
        {"GNU.sparse.numbytes", "1", "20", "without its offset"},
        {"GNU.sparse.numblocks", "1", "20", "number of runs"},
        {"GNU.sparse.map", "1,2", "9999999999999", "1 TiB"},
        {"GNU.sparse.major", "2", "20", "no known version"},
        {"GNU.sparse.realsize", "20", "20", "no known version"},
        {"GNU.sparse.map", "1,2", "", "not a number"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        begin();
        record("GNU.sparse.size", wrong[i].size);
        record(wrong[i].key, wrong[i].value);
        pax('x');
        header('0', "s", "", 2);
        EXPECT(fails(wrong[i].message));
    }
}

/* --- rewritten headers ---------------------------------------------------------------- */

/* The entry that its own expanded header reads as. */
static int reread(void)
{
    sgz_tar_entry before = entry;
    uint8_t *out;
    size_t len;
    if (sgz_tar_expanded_header(&entry, &out, &len, &err))
        return 0;
    sgz_tar_parser *other = sgz_tar_parser_new();
    sgz_tar_event event = SGZ_TAR_MORE;
    int ok = 1;
    for (size_t i = 0; i < len && ok; i += 512)
        ok = !sgz_tar_feed(other, out + i, (int64_t)i, &event, &entry, &err)
             && (event == SGZ_TAR_ENTRY) == (i + 512 == len);
    ok = ok && entry.type == (before.type == 'S' ? '0' : before.type)
         && entry.size == before.size && entry.mtime == before.mtime
         && entry.mtime_nsec == before.mtime_nsec && entry.mode == before.mode
         && entry.uid == before.uid && entry.gid == before.gid
         && entry.dev_major == before.dev_major && entry.dev_minor == before.dev_minor
         && entry.name_len == before.name_len
         && !memcmp(entry.name, before.name, before.name_len)
         && entry.link_len == before.link_len
         && !memcmp(entry.link, before.link, before.link_len)
         && entry.uname_len == before.uname_len
         && !memcmp(entry.uname, before.uname, before.uname_len)
         && entry.xattr_count == before.xattr_count && !entry.rewrite;
    for (size_t i = 0; ok && i < entry.xattr_count; i++)
        ok = entry.xattrs[i].key_len == before.xattrs[i].key_len
             && entry.xattrs[i].value_len == before.xattrs[i].value_len
             && !memcmp(entry.xattrs[i].key, before.xattrs[i].key, entry.xattrs[i].key_len);
    sgz_tar_parser_free(other);
    free(out);
    return ok;
}

static void expanded(void)
{
    char name[400];
    for (size_t len = 1; len < 300; len++) {
        begin();
        memset(name, 'n', len);
        name[len] = 0;
        for (size_t i = 30; i < len; i += 31)
            name[i] = i % 2 ? '/' : '\xff';
        name[len - 1] = 'n';
        record("path", name);
        record("mtime", len % 2 ? "-1.25" : "12345678901.5");
        record("uid", "3000000000");
        record("uname", name);
        record("SCHILY.xattr.user.%3D%25", name);
        record("SCHILY.xattr.user.y", "");
        record("size", "8589934592");
        pax('x');
        header("0256"[len % 4], "h", "target", 0);
        EXPECT(next() == SGZ_TAR_ENTRY && reread());
    }
    sparse_pax("2\n0\n5\n100000\n0\n");
    EXPECT(next() == SGZ_TAR_ENTRY && reread());
    uint8_t *h;
    begin();
    h = header('3', "dev", "", 0);
    memcpy(h + 329, "\x80\0\0\0\xff\xff\xff\xff", 8);
    memcpy(h + 100, "\x80\0\0\0\xff\xff\xff\xff", 8);
    seal(h);
    EXPECT(next() == SGZ_TAR_ENTRY && entry.dev_major == UINT32_MAX && reread());
    uint8_t block[512];
    sgz_tar_plain_header(block, SGZ_TOC_NAME, 1234);
    EXPECT(!memcmp(block + 124, "00000002322\0" "00000000000\0", 24) && block[156] == '0');
}

/* --- streams -------------------------------------------------------------------------- */

/* What a stream in pieces tells of the tar: where entries stand, and their payload's bytes. */
static int told(size_t piece, char *out, int *status)
{
    sgz_tar_stream stream = {.parser = sgz_tar_parser_new()};
    sgz_tar_event event;
    size_t used;
    int len = 0;
    *status = 0;
    for (size_t at = 0; at < tar_len && !*status; at += used) {
        size_t n = tar_len - at < piece ? tar_len - at : piece;
        *status = sgz_tar_stream_take(&stream, tar + at, n, &used, &event, &entry, &err);
        EXPECT(*status || (used && used <= n));
        if (event == SGZ_TAR_DATA)
            len += sprintf(out + len, "%.*s", (int)used, (char *)tar + at);
        else if (event == SGZ_TAR_ENTRY || event == SGZ_TAR_GLOBAL)
            len += sprintf(out + len, "[%d %d-%d %d+%d]", event == SGZ_TAR_ENTRY,
                           (int)stream.start, (int)stream.pos, (int)entry.header,
                           (int)entry.records_len);
    }
    if (!*status)
        *status = sgz_tar_stream_end(&stream, 0, &err);
    sgz_tar_parser_free(stream.parser);
    return len;
}

static void streams(void)
{
    static const size_t pieces[] = {1, 7, 511, 512, 513, 700, 1024, 5000, sizeof tar};
    static char out[4096];
    int status;
    begin();
    record("uid", "7");
    pax('g');
    record("path", "p");
    pax('x');
    file("f", "some text");
    header('0', "empty", "", 0);
    record("size", "3");
    pax('x');
    header('0', "g", "", 0);
    body("abc", 3);
    tar_len += 1024;
    memset(tar + tar_len - 1024, 0, 1024);
    body("garbage", 7);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        int len = told(pieces[i], out, &status);
        EXPECT(!status && len && !strcmp(out, "[0 0-1024 0+8][1 1024-2560 2048+9]some text"
                                              "[1 3072-3584 3072+0][1 3584-5120 4608+9]abc"));
    }
    for (; tar_len > 0; tar_len--) { /* between entries, or without the last padding */
        int whole = tar_len == 1024 || (tar_len >= 2569 && tar_len <= 3072) || tar_len == 3584
                    || (tar_len >= 5123 && tar_len <= 5632) || tar_len == 6144
                    || tar_len >= 6656;
        told(700, out, &status);
        EXPECT(whole == !status && (whole || strstr(err.message, "truncated") ||
                      strstr(err.message, "no tar: it ends")));
    }
}

int main(void)
{
    plain();
    numbers();
    refused();
    long_names();
    pax_records();
    own_records();
    globals();
    old_sparse();
    new_sparse();
    expanded();
    streams();
    sgz_tar_parser_free(parser);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
