/* Tar headers and what applying them makes: any blocks give entries and rows that keep their
 * promises, and an entry's rewritten header reads as the same entry.
 *
 * Checksums are repaired, or nothing would get past them; payloads take no room in the
 * input. The first byte switches the repair off. */
#include "toc/rows.h"
#include "fuzz.h"

#include <string.h>

static int sums(const char *text, size_t len) /* touch every byte: ASan sees wild pointers */
{
    int sum = 0;
    for (size_t i = 0; i < len; i++)
        sum += text[i];
    return sum;
}

static void check_entry(const sgz_tar_entry *e, int64_t offset)
{
    CHECK(e->type && strchr("0123456S", e->type));
    CHECK(e->size >= 0 && e->payload >= 0 && e->payload <= INT64_MAX - offset - 1024);
    CHECK(e->type == '0' || e->type == 'S' || !e->size);
    CHECK(e->type == '0' || e->type == 'S' || !e->payload ||
          (e->type == '5' && e->notes & SGZ_NOTE_BIT(DUMPDIR)));
    CHECK(e->type != '0' || e->size == e->payload);
    CHECK(e->name && e->link && e->uname && e->gname);
    CHECK(e->name_len || e->type == '5');
    CHECK(!memchr(e->name, 0, e->name_len) && !memchr(e->link, 0, e->link_len));
    CHECK((e->type == '1' || e->type == '2') == (e->link_len > 0));
    CHECK(e->mtime_nsec < 1000000000);
    CHECK(sgz_tar_time_fits(e->mtime) == !(e->notes & SGZ_NOTE_BIT(TIME)));
    volatile int sink = sums(e->name, e->name_len) + sums(e->link, e->link_len)
                        + sums(e->uname, e->uname_len) + sums(e->gname, e->gname_len);
    for (size_t i = 0; i < e->xattr_count; i++) {
        const sgz_xattr *x = &e->xattrs[i], *y = x - 1;
        CHECK(x->key_len);
        sink += sums(x->key, x->key_len) + sums(x->value, x->value_len);
        if (i) {
            size_t len = x->key_len < y->key_len ? x->key_len : y->key_len;
            int order = memcmp(y->key, x->key, len);
            CHECK(order < 0 || (!order && y->key_len < x->key_len));
        }
    }
    int64_t end = 0, data = 0;
    CHECK(e->type == 'S' || !e->sparse_count);
    for (size_t i = 0; i < e->sparse_count; i++) {
        CHECK(e->sparse[i].offset >= end && e->sparse[i].len > 0);
        end = e->sparse[i].offset + e->sparse[i].len;
        data += e->sparse[i].len;
        CHECK(end <= e->size);
    }
    CHECK(e->type != 'S' || (data == e->payload && e->size <= SGZ_TAR_SPARSE_MAX));
    (void)sink;
}

static int same(const char *a, size_t a_len, const char *b, size_t b_len)
{
    return a_len == b_len && (!a_len || !memcmp(a, b, a_len));
}

static void check_expanded(const sgz_tar_entry *e)
{
    uint8_t *out;
    size_t len;
    sgz_error err;
    sgz_status status = sgz_tar_expanded_header(e, &out, &len, &err);
    if (status) {
        CHECK(status == SGZ_ETAR || status == SGZ_ENOTOC);
        return;
    }
    sgz_tar_parser *parser = sgz_tar_parser_new();
    sgz_tar_event event = SGZ_TAR_MORE;
    sgz_tar_entry f;
    CHECK(len && len % SGZ_TAR_BLOCK == 0);
    for (size_t at = 0; at < len; at += SGZ_TAR_BLOCK) {
        CHECK(event == SGZ_TAR_MORE);
        CHECK(!sgz_tar_feed(parser, out + at, (int64_t)at, &event, &f, &err));
    }
    CHECK(event == SGZ_TAR_ENTRY && sgz_tar_idle(parser));
    CHECK(f.type == (e->type == 'S' ? '0' : e->type) && f.size == e->size && !f.rewrite);
    CHECK(f.mtime == e->mtime && f.mtime_nsec == e->mtime_nsec && f.mode == e->mode);
    CHECK(f.uid == e->uid && f.gid == e->gid);
    CHECK(f.dev_major == e->dev_major && f.dev_minor == e->dev_minor);
    CHECK(same(f.name, f.name_len, e->name, e->name_len));
    CHECK(same(f.link, f.link_len, e->link, e->link_len));
    CHECK(same(f.uname, f.uname_len, e->uname, e->uname_len));
    CHECK(same(f.gname, f.gname_len, e->gname, e->gname_len));
    CHECK(f.xattr_count == e->xattr_count);
    for (size_t i = 0; i < f.xattr_count; i++) {
        CHECK(same(f.xattrs[i].key, f.xattrs[i].key_len, e->xattrs[i].key,
                   e->xattrs[i].key_len));
        CHECK(same(f.xattrs[i].value, f.xattrs[i].value_len, e->xattrs[i].value,
                   e->xattrs[i].value_len));
    }
    free(out);
    sgz_tar_parser_free(parser);
}

static void check_rows(const sgz_toc *toc)
{
    for (size_t i = 0; i < toc->count; i++) {
        const sgz_entry *row = &toc->rows[i];
        CHECK(row->type >= SGZ_DIR && row->type <= SGZ_CHUNK);
        CHECK(row->name_off + row->name_len <= toc->arena_len);
        if (row->type == SGZ_CHUNK) {
            CHECK(i && (toc->rows[i - 1].type == SGZ_REG || toc->rows[i - 1].type == SGZ_CHUNK));
            CHECK((row->flags & SGZ_DROPPED) == (toc->rows[i - 1].flags & SGZ_DROPPED));
        }
        if (row->type == SGZ_CHUNK || row->flags & SGZ_DROPPED)
            continue;
        const char *name = toc->arena + row->name_off, *link = toc->arena + row->link_off;
        CHECK(sgz_toc_lookup(toc, name, row->name_len) == i);
        if (row->type == SGZ_HARDLINK) {
            uint32_t target = sgz_toc_lookup(toc, link, row->link_len);
            CHECK(target != SGZ_NO_ROW && target != i);
            CHECK(sgz_toc_resolve(toc, target) == sgz_toc_resolve(toc, (uint32_t)i));
            target = sgz_toc_resolve(toc, target);
            CHECK(toc->rows[target].type != SGZ_HARDLINK && toc->rows[target].type != SGZ_DIR);
            CHECK(!(toc->rows[target].flags & SGZ_DROPPED));
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    int repairing = !(*data++ & 1);
    size--;
    sgz_tar_parser *parser = sgz_tar_parser_new();
    sgz_toc *toc = sgz_toc_new();
    sgz_toc_rows *apply = sgz_toc_rows_new(toc);
    sgz_status status = SGZ_OK;
    sgz_error err = {0};
    sgz_notes notes = {0};
    int64_t offset = 0;
    for (size_t at = 0; at < size && !status; at += SGZ_TAR_BLOCK) {
        uint8_t block[SGZ_TAR_BLOCK] = {0};
        memcpy(block, data + at, size - at < sizeof block ? size - at : sizeof block);
        if (repairing && (sgz_tar_idle(parser) || !memcmp(block + 257, "ustar", 5)))
            repair_checksum(block);
        sgz_tar_event event;
        sgz_tar_entry entry;
        uint32_t row;
        status = sgz_tar_feed(parser, block, offset, &event, &entry, &err);
        if (status)
            CHECK(err.message[0] && err.offset >= 0 && err.offset <= offset);
        offset += SGZ_TAR_BLOCK;
        if (status || event != SGZ_TAR_ENTRY) {
            CHECK(status || event == SGZ_TAR_MORE || sgz_tar_idle(parser));
            continue;
        }
        CHECK(sgz_tar_idle(parser));
        check_entry(&entry, offset);
        check_expanded(&entry);
        status = sgz_toc_rows_entry(apply, &entry, offset, &row, &err);
        if (!status && entry.size > 1000 && toc->rows[row].type == SGZ_REG)
            status = sgz_toc_rows_chunk(apply, &row, &err);
    }
    if (status)
        CHECK((status == SGZ_ETAR || status == SGZ_ENOTOC) && err.message[0]);
    else if (!sgz_toc_rows_finish(apply, &notes, &err))
        check_rows(toc);
    sgz_toc_rows_free(apply);
    sgz_toc_free(toc);
    sgz_tar_parser_free(parser);
    return 0;
}
