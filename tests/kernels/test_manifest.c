/* Manifests: what is saved is loaded, and what is damaged or contradicts itself is refused. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pack/manifest_internal.h"
#include "layer.h"

enum { FILES = 12, ENTRIES = FILES * 3 + 1, UNITS = FILES + 1, CHUNKS = FILES * 2 };
enum { NOW = 1700000000 };
static sgz_error err;

static void put_text(sgz_pack_manifest *m, uint64_t *offset, uint32_t *len, const void *text,
                     size_t text_len)
{
    memcpy(m->arena + m->arena_len, text, text_len);
    *offset = m->arena_len;
    *len = (uint32_t)text_len;
    m->arena_len += text_len;
}

/* A unit a file: a directory, a link or second name, the file; and a last unit of one header. */
static void make(sgz_pack_manifest *m)
{
    int64_t at = 0;
    memset(m, 0, sizeof *m);
    m->entries = calloc(ENTRIES, sizeof *m->entries);
    m->units = calloc(UNITS, sizeof *m->units);
    m->chunks = calloc(CHUNKS, sizeof *m->chunks);
    m->arena = malloc(100 * ENTRIES);
    m->options = (sgz_pack_manifest_options){.level = 1,
                                             .chunk_size = 1000,
                                             .owner = -1,
                                             .group = 7,
                                             .mtime = INT64_MIN,
                                             .mtime_max = INT64_MAX,
                                             .engine = "isal 2.30"};
    m->walked_at = NOW * (int64_t)1000000000 + 500;
    for (uint32_t u = 0; u < UNITS; u++) {
        sgz_pack_manifest_unit *unit = &m->units[u];
        unit->first_entry = (uint32_t)m->entry_count;
        unit->first_chunk = (uint32_t)m->chunk_count;
        unit->headers_crc = u * 77;
        unit->start = at;
        unit->data = at += 300 + u;
        unit->headers_len = 1536;
        for (int i = 0; i < (u < FILES ? 3 : 1); i++) {
            char name[50];
            sgz_pack_walk_entry *e = &m->entries[m->entry_count].file;
            *e = (sgz_pack_walk_entry){.mtime = 1600000000 + u,
                                       .ctime = 1600000000,
                                       .ino = 100 + u,
                                       .dev = 5,
                                       .mtime_nsec = 5,
                                       .mode = 0644,
                                       .nlink = 1,
                                       .target = SGZ_WALK_NONE,
                                       .known = 3,
                                       .type = "520"[i]};
            m->entries[m->entry_count].unit = u;
            sprintf(name, i ? "d%u/%c" : "d%u", u, "?sf"[i]);
            put_text(m, &e->name_off, &e->name_len, name, strlen(name));
            if (i == 1 && u % 2) {
                e->type = '1';
                e->target = (uint32_t)m->entry_count - 2;
            } else if (i == 1) {
                put_text(m, &e->link_off, &e->link_len, "f", 1);
            } else if (i == 2) {
                e->size = 1001 + u;
                put_text(m, &e->xattr_off, &e->xattr_len,
                         "\6\0\0\0\1\0\0\0user.a1\6\0\0\0\0\0\0\0user.b", 29);
            }
            m->entry_count++;
        }
        for (int i = 0; i < 2 && u < FILES; i++) {
            sgz_pack_manifest_chunk *c = &m->chunks[m->chunk_count++];
            c->offset = at;
            c->crc = u;
            memset(c->digest, (int)u, 32);
            at += 400;
        }
        memset(unit->digest, u < 4 ? 1 : 255, 28); /* equal at their beginning */
        unit->digest[31] = (uint8_t)(FILES - u);
        unit->end = at;
    }
    m->unit_count = UNITS;
    m->toc_offset = at;
    m->blob_size = at + 1000;
    memset(m->blob_digest, 8, 32);
    memset(m->tail_digest, 9, 32);
}

static int new_file(void)
{
    int fd = memfd_create("manifest", MFD_CLOEXEC);
    CHECK(fd >= 0);
    return fd;
}

static int saved(const sgz_pack_manifest *m)
{
    int fd = new_file();
    CHECK(!sgz_pack_manifest_save(m, &codecs, fd, &err));
    return fd;
}

/* Bytes of a file; room for some more. */
static uint8_t *bytes_of(int fd, size_t *len)
{
    *len = (size_t)lseek(fd, 0, SEEK_END);
    uint8_t *bytes = malloc(*len + 100);
    CHECK(pread(fd, bytes, *len, 0) == (ssize_t)*len);
    return bytes;
}

static sgz_status load_bytes(sgz_pack_manifest *m, const uint8_t *bytes, size_t len)
{
    int fd = new_file();
    CHECK(write(fd, bytes, len) == (ssize_t)len);
    sgz_status status = sgz_pack_manifest_load(m, &codecs, fd, &err);
    close(fd);
    if (status) {
        CHECK(status == SGZ_ETOC && strstr(err.message, SGZ_MANIFEST_ADVICE) && !m->file);
        CHECK(!strchr(err.message, '\n') && strlen(err.message) < 200);
    }
    return status;
}

static void round_trip(void)
{
    sgz_pack_manifest m, in;
    make(&m);
    int fd = saved(&m);
    CHECK(!sgz_pack_manifest_load(&in, &codecs, fd, &err));
    CHECK(in.entry_count == ENTRIES && in.unit_count == UNITS && in.chunk_count == CHUNKS);
    CHECK(!memcmp(&in.options, &m.options, sizeof m.options) && in.walked_at == m.walked_at);
    CHECK(in.blob_size == m.blob_size && in.toc_offset == m.toc_offset);
    CHECK(!memcmp(in.blob_digest, m.blob_digest, 32));
    CHECK(!memcmp(in.tail_digest, m.tail_digest, 32));
    CHECK(in.arena_len == m.arena_len && !memcmp(in.arena, m.arena, m.arena_len));
    CHECK(!memcmp(in.units, m.units, UNITS * sizeof *m.units));
    CHECK(!memcmp(in.chunks, m.chunks, CHUNKS * sizeof *m.chunks));
    for (uint32_t i = 0; i < ENTRIES; i++) {
        sgz_pack_walk_entry e = m.entries[i].file;
        char name[50] = "";
        memcpy(name, m.arena + e.name_off, e.name_len);
        CHECK(sgz_pack_manifest_lookup(&in, name, e.name_len) == i);
        CHECK(!in.entries[i].flags && in.entries[i].file.ino == e.ino);
        if (e.type == '1') { /* as lstat sees it */
            e.type = m.entries[e.target].file.type;
            e.size = m.entries[e.target].file.size;
        }
        CHECK(e.type != '5' || sgz_pack_manifest_known(&in, &e, name) == i);
        sgz_pack_walk_entry other = e;
        other.ctime_nsec++;
        CHECK(sgz_pack_manifest_known(&in, &other, name) == SGZ_WALK_NONE);
        other = e, other.size++;
        CHECK(sgz_pack_manifest_known(&in, &other, name) == SGZ_WALK_NONE);
        other = e, other.ino++;
        CHECK(sgz_pack_manifest_known(&in, &other, name) == SGZ_WALK_NONE);
    }
    CHECK(sgz_pack_manifest_lookup(&in, "d", 1) == SGZ_WALK_NONE);
    CHECK(sgz_pack_manifest_lookup(&in, "", 0) == SGZ_WALK_NONE);
    size_t len, len_again;
    uint8_t *bytes = bytes_of(fd, &len), *again;
    int second = saved(&in); /* the same bytes again */
    again = bytes_of(second, &len_again);
    CHECK(len == len_again && !memcmp(bytes, again, len));
    free(bytes);
    free(again);
    close(second);
    close(fd);
    sgz_pack_manifest_free(&in);
    sgz_pack_manifest_free(&m);

    sgz_pack_manifest none = {.options = {.chunk_size = 1}};
    fd = saved(&none);
    CHECK(!sgz_pack_manifest_load(&in, &codecs, fd, &err) && !in.entry_count);
    CHECK(sgz_pack_manifest_lookup(&in, "a", 1) == SGZ_WALK_NONE);
    sgz_pack_manifest_free(&in);
    close(fd);
    CHECK(sgz_pack_manifest_save(&none, &codecs, -1, &err) == SGZ_EIO && err.sys_errno);
    fd = open("/dev/full", O_WRONLY);
    CHECK(sgz_pack_manifest_save(&none, &codecs, fd, &err) == SGZ_EIO && err.sys_errno);
    close(fd);
    CHECK(sgz_pack_manifest_load(&in, &codecs, -1, &err) == SGZ_EIO);
    fd = open("/dev/zero", O_RDONLY);
    CHECK(sgz_pack_manifest_load(&in, &codecs, fd, &err) == SGZ_ETOC);
    close(fd);
}

/* An entry of these times is doubtful when the walk began at NOW and 500 nanoseconds. */
static int doubtful(int64_t mtime, uint32_t mtime_nsec, int64_t ctime, uint32_t ctime_nsec)
{
    sgz_pack_manifest m, in;
    make(&m);
    sgz_pack_walk_entry *e = &m.entries[2].file;
    e->mtime = mtime, e->mtime_nsec = mtime_nsec;
    e->ctime = ctime, e->ctime_nsec = ctime_nsec;
    m.entries[5].flags = SGZ_MANIFEST_DOUBTFUL; /* the packer's stay */
    int fd = saved(&m);
    CHECK(!sgz_pack_manifest_load(&in, &codecs, fd, &err));
    int result = in.entries[2].flags == SGZ_MANIFEST_DOUBTFUL;
    CHECK(in.entries[5].flags == SGZ_MANIFEST_DOUBTFUL && !in.entries[8].flags);
    CHECK((sgz_pack_manifest_known(&in, e, "d0/f") == SGZ_WALK_NONE) == result);
    sgz_pack_manifest_free(&in);
    sgz_pack_manifest_free(&m);
    close(fd);
    return result;
}

static void racy(void)
{
    CHECK(!doubtful(NOW, 499, NOW, 499));
    CHECK(doubtful(NOW, 500, NOW - 9, 1) && doubtful(NOW - 9, 1, NOW, 500));
    CHECK(doubtful(NOW, 501, 0, 1) && doubtful(NOW + 9, 1, 0, 1));
    CHECK(doubtful(NOW, 490, 0, 1) == 0 && doubtful(NOW, 400, 0, 1) == 0);
    CHECK(doubtful(NOW, 450, 0, 1) == 0 && doubtful(NOW - 1, 999999000, 0, 1) == 0);
    CHECK(doubtful(NOW - 1, 999000000, 0, 1) == 0); /* a millisecond before, to the grain */
    CHECK(doubtful(NOW, 0, 0, 1) && doubtful(NOW - 1, 0, 0, 1)); /* whole seconds */
    CHECK(doubtful(0, 1, NOW - 1, 0) && !doubtful(0, 1, NOW - 2, 0));
    CHECK(!doubtful(NOW - 2, 0, 0, 1) && !doubtful(0, 0, 0, 0));
    CHECK(doubtful(INT64_MAX, 0, 0, 1) && !doubtful(INT64_MIN, 0, INT64_MIN, 999999999));
}

/* Each of these is one change that makes a manifest contradict itself. */
static void contradict(sgz_pack_manifest *m, int n)
{
    sgz_pack_walk_entry *e = &m->entries[4].file; /* a hard link */
    sgz_pack_walk_entry *f = &m->entries[5].file;
    sgz_pack_manifest_unit *u = &m->units[2];
    switch (n) {
    case 0: e->type = '7'; break;
    case 1: e->type = 0; break;
    case 2: e->name_off = m->arena_len; break;
    case 3: e->name_off = UINT64_MAX; break;
    case 4: e->name_len = UINT32_MAX; break;
    case 5: e->name_len = 0; break;
    case 6: m->arena[e->name_off] = '/'; break;
    case 7: m->arena[e->name_off + e->name_len - 1] = '/'; break;
    case 8: m->arena[e->name_off + e->name_len - 1] = '.'; break;
    case 9: m->arena[e->name_off] = 0; break;
    case 10: e->link_len = 1; break;
    case 11: e->target = 4; break;
    case 12: e->target = 5; break;
    case 13: e->target = 3; break; /* a directory */
    case 14: e->target = SGZ_WALK_NONE; break;
    case 15: f->target = 2; break;
    case 16: f->xattr_len--; break;
    case 17: f->xattr_len = 7; break;
    case 18: memset(m->arena + f->xattr_off, 0xff, 8); break;
    case 19: m->arena[f->xattr_off + 13] = 'b'; break; /* the same key twice */
    case 20: m->arena[f->xattr_off + 10] = 0; break;
    case 21: f->xattr_off = 0; f->xattr_len = (uint32_t)m->arena_len; break;
    case 22: f->size = -1; break;
    case 23: f->size = 0; break; /* with chunks */
    case 24: f->size = 2001; break; /* too few chunks */
    case 25: f->size = INT64_MAX; break;
    case 26: m->entries[3].file.size = 1; break;
    case 27: f->mtime_nsec = 1000000000; break;
    case 28: f->ctime_nsec = UINT32_MAX; break;
    case 29: f->mode = 010000; break;
    case 30: m->entries[5].flags = 2; break;
    case 31: m->entries[5].unit = 0; break;
    case 32: m->entries[5].unit = UINT32_MAX; break;
    case 33: u->first_entry = 0; break;
    case 34: u->first_entry = UINT32_MAX; break;
    case 35: u->first_chunk++; break;
    case 36: u->first_chunk = UINT32_MAX; break;
    case 37: u->start++; break;
    case 38: u->start = -1; break;
    case 39: u->data = u->start - 1; break;
    case 40: u->data = u->end + 1; break;
    case 41: u->end = INT64_MIN; break;
    case 42: u->headers_len = -512; break;
    case 43: u->headers_len = 1; break;
    case 44: m->chunks[4].offset++; break;
    case 45: m->chunks[5].offset = m->chunks[4].offset; break;
    case 46: m->chunks[5].offset = u->end; break;
    case 47: m->chunks[5].offset = INT64_MIN; break;
    case 48: m->toc_offset--; break;
    case 49: m->toc_offset++; break;
    case 50: m->blob_size = m->toc_offset - 1; break;
    case 51: m->units[0].start = 1; break;
    case 52: m->units[0].first_entry = 1; break;
    case 53: m->unit_count = 0; break;
    case 54: m->entry_count -= 2; break;
    case 55: m->chunk_count--; break;
    case 56: m->options.chunk_size = 0; break;
    case 57: m->options.chunk_size = -1; break;
    case 58: m->options.owner = -2; break;
    case 59: m->options.group = (int64_t)UINT32_MAX + 1; break;
    case 60: m->arena[f->name_off + 3] = 's'; break; /* a name twice */
    case 61: m->units[FILES].data--; break;
    case 62: m->units[FILES].end++; break;
    case 63: m->arena[f->name_off + 1] = '/'; break;
    case 64: m->entries[2].file.type = '2'; break; /* with a size */
    default: CHECK(0);
    }
}

static void contradictions(void)
{
    for (int n = 0; n < 65; n++) {
        sgz_pack_manifest m, in;
        make(&m);
        contradict(&m, n);
        int fd = saved(&m);
        sgz_status status = sgz_pack_manifest_load(&in, &codecs, fd, &err);
        if (status != SGZ_ETOC)
            fprintf(stderr, "contradiction %d: %d\n", n, status);
        CHECK(status == SGZ_ETOC);
        close(fd);
        sgz_pack_manifest_free(&m);
    }
}

static void damage(void)
{
    sgz_pack_manifest m, in;
    size_t len;
    make(&m);
    int fd = saved(&m);
    uint8_t *bytes = bytes_of(fd, &len), *copy = malloc(len + 100);
    close(fd);
    for (size_t i = 0; i < len; i++) {
        bytes[i] ^= (uint8_t)(1 << i % 8);
        CHECK(load_bytes(&in, bytes, len));
        bytes[i] ^= (uint8_t)(1 << i % 8);
    }
    for (size_t cut = 0; cut < len; cut += cut < 400 || cut > len - 50 ? 1 : 37)
        CHECK(load_bytes(&in, bytes, cut));
    memset(bytes + len, 0, 100);
    CHECK(load_bytes(&in, bytes, len + 1) && load_bytes(&in, bytes, len + 100));
    CHECK(!load_bytes(&in, bytes, len));
    sgz_pack_manifest_free(&in);

    /* With a digest that is right: refused, or as good as any. */
    int loaded = 0;
    for (int n = 0; n < 6000; n++) {
        static const uint8_t values[] = {0, 1, 0x7f, 0x80, 0xff};
        memcpy(copy, bytes, len);
        for (int k = (int)below(3); k >= 0; k--) {
            /* In the head as often as in the rows. */
            size_t at = below(2) ? below(sizeof(sgz_pack_manifest_head))
                                 : below((uint32_t)len - 32);
            size_t run = below(4) ? 1 : 1 + below(8);
            for (size_t i = 0; i < run && at + i < len - 32; i++)
                copy[at + i] = below(2) ? values[below(5)] : (uint8_t)below(256);
        }
        sha256_of(copy, len - 32, copy + len - 32);
        if (load_bytes(&in, copy, len))
            continue;
        loaded++;
        for (uint32_t i = 0; i < in.entry_count; i++) {
            const sgz_pack_walk_entry *e = &in.entries[i].file;
            char name[100] = "";
            memcpy(name, in.arena + e->name_off, e->name_len);
            CHECK(sgz_pack_manifest_lookup(&in, name, e->name_len) == i);
            sgz_pack_manifest_known(&in, e, name);
        }
        sgz_pack_manifest_free(&in);
    }
    CHECK(loaded > 30); /* times, ids and digests may be anything */
    free(bytes);
    free(copy);
    sgz_pack_manifest_free(&m);
}

int main(void)
{
    load_codecs();
    round_trip();
    racy();
    contradictions();
    damage();
    return 0;
}
