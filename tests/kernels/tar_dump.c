/* What the tar kernels make of a tar, for tests/test_tar_kernels.py to compare:
 *
 *   tar_dump entries FILE    one JSON object an entry, byte strings in hex
 *   tar_dump rows FILE       one JSON object for each row that survives sgz_toc_rows
 *   tar_dump expand FILE     a tar with every header rewritten by sgz_tar_expanded_header
 */
#include "toc/rows.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void hex(const char *key, const char *text, size_t len)
{
    printf("\"%s\": \"", key);
    for (size_t i = 0; i < len; i++)
        printf("%02x", (unsigned char)text[i]);
    printf("\", ");
}

static void print_entry(const sgz_tar_entry *e, int64_t data_at)
{
    printf("{\"type\": \"%c\", ", e->type);
    hex("name", e->name, e->name_len);
    hex("link", e->link, e->link_len);
    hex("uname", e->uname, e->uname_len);
    hex("gname", e->gname, e->gname_len);
    printf("\"xattrs\": {");
    for (size_t i = 0; i < e->xattr_count; i++) {
        printf("\"%.*s\": \"", (int)e->xattrs[i].key_len, e->xattrs[i].key);
        for (size_t k = 0; k < e->xattrs[i].value_len; k++)
            printf("%02x", (unsigned char)e->xattrs[i].value[k]);
        printf("\"%s", i + 1 < e->xattr_count ? ", " : "");
    }
    printf("}, \"runs\": [");
    for (size_t i = 0; i < e->sparse_count; i++)
        printf("%s[%" PRId64 ", %" PRId64 "]", i ? ", " : "", e->sparse[i].offset,
               e->sparse[i].len);
    printf("], \"size\": %" PRId64 ", \"payload\": %" PRId64 ", \"data_at\": %" PRId64
           ", \"mtime\": %" PRId64 ", \"nsec\": %u, \"mode\": %u, \"uid\": %u, \"gid\": %u, "
           "\"dev\": [%u, %u], \"rewrite\": %d}\n",
           e->size, e->payload, data_at, e->mtime, e->mtime_nsec, e->mode, e->uid, e->gid,
           e->dev_major, e->dev_minor, e->rewrite);
}

static int write_zeros(int64_t count)
{
    static const char zeros[1 << 16];
    while (count > 0) {
        size_t n = count < (int64_t)sizeof zeros ? (size_t)count : sizeof zeros;
        if (fwrite(zeros, 1, n, stdout) != n)
            return 1;
        count -= (int64_t)n;
    }
    return 0;
}

static int write_expanded(const sgz_tar_entry *e, const uint8_t *data, sgz_error *err)
{
    uint8_t *header;
    size_t len;
    if (sgz_tar_expanded_header(e, &header, &len, err))
        return 1;
    fwrite(header, 1, len, stdout);
    free(header);
    int64_t at = 0;
    if (e->type != 'S')
        fwrite(data, 1, (size_t)e->payload, stdout);
    for (size_t i = 0; i < e->sparse_count; i++) {
        write_zeros(e->sparse[i].offset - at);
        fwrite(data, 1, (size_t)e->sparse[i].len, stdout);
        data += e->sparse[i].len;
        at = e->sparse[i].offset + e->sparse[i].len;
    }
    if (e->type == 'S')
        write_zeros(e->size - at);
    return write_zeros((SGZ_TAR_BLOCK - e->size % SGZ_TAR_BLOCK) % SGZ_TAR_BLOCK);
}

static void print_rows(const sgz_toc *toc, uint64_t bad_names)
{
    for (size_t i = 0; i < toc->count; i++) {
        const sgz_entry *row = &toc->rows[i];
        if (row->flags & SGZ_DROPPED)
            continue;
        printf("{\"type\": \"%s\", ", sgz_toc_type_name(row->type));
        hex("name", toc->arena + row->name_off, row->name_len);
        hex("link", toc->arena + row->link_off, row->link_len);
        printf("\"row\": %zu, \"size\": %" PRId64 ", \"mode\": %u, \"bad_names\": %" PRIu64
               "}\n", i, row->size, row->mode, bad_names);
    }
}

static int report(const sgz_error *err)
{
    fprintf(stderr, "%s at %" PRId64 " (%s)\n", err->message, err->offset, err->name);
    return 1;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    int rows = !strcmp(argv[1], "rows"), expand = !strcmp(argv[1], "expand");
    FILE *file = fopen(argv[2], "rb");
    if (!file)
        return 2;
    fseek(file, 0, SEEK_END);
    int64_t size = ftell(file), at = 0;
    rewind(file);
    uint8_t *data = malloc((size_t)size + 1);
    if (!data || fread(data, 1, (size_t)size, file) != (size_t)size)
        return 2;
    fclose(file);

    sgz_tar_parser *parser = sgz_tar_parser_new();
    sgz_toc *toc = sgz_toc_new();
    sgz_toc_rows *apply = sgz_toc_rows_new(toc);
    sgz_error err = {0};
    int status = 0;
    while (!status && size - at >= SGZ_TAR_BLOCK) {
        sgz_tar_event event;
        sgz_tar_entry entry;
        int64_t block_at = at;
        status = sgz_tar_feed(parser, data + at, at, &event, &entry, &err) != SGZ_OK;
        at += SGZ_TAR_BLOCK;
        if (status || event == SGZ_TAR_END)
            break;
        if (event != SGZ_TAR_ENTRY)
            continue;
        if (entry.payload > size - at) {
            status = sgz_base_fail(&err, SGZ_ETAR, at, entry.name, entry.name_len, "cut off") !=
                     0;
            break;
        }
        uint32_t row;
        if (expand)
            status = write_expanded(&entry, data + at, &err);
        else if (rows)
            status = sgz_toc_rows_entry(apply, &entry, block_at, &row, &err) != SGZ_OK;
        else
            print_entry(&entry, at);
        at += (entry.payload + SGZ_TAR_BLOCK - 1) / SGZ_TAR_BLOCK * SGZ_TAR_BLOCK;
    }
    if (!status && !sgz_tar_idle(parser))
        status = sgz_base_fail(&err, SGZ_ETAR, at, NULL, 0, "cut off") != 0;
    sgz_notes notes = {0};
    if (!status && rows && !(status = sgz_toc_rows_finish(apply, &notes, &err) != SGZ_OK))
        print_rows(toc, notes.count[SGZ_NOTE_NAME]);
    if (!status && expand)
        status = write_zeros(1024);
    if (status)
        report(&err);
    sgz_toc_rows_free(apply);
    sgz_toc_free(toc);
    sgz_tar_parser_free(parser);
    free(data);
    return status;
}
