/* Sparse files: the maps of old GNU headers, of PAX records, and before the payload. */
#include "tar/internal.h"

static sgz_status bad_map(sgz_tar_parser *p, int64_t at, const char *what, sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ETAR, at, p->entry.name, p->entry.name_len,
                         "the sparse map %s", what);
}

/* So many bytes of the map more. */
static sgz_status more_map(sgz_tar_parser *p, int64_t bytes, int64_t at, sgz_error *err)
{
    p->map_bytes += bytes;
    if (p->map_bytes <= SGZ_TAR_MAP_MAX)
        return SGZ_OK;
    p->over_limit = 1;
    return bad_map(p, at, "is over the limit of 16 MiB", err);
}

/* Versions 0.0 and 0.1: the runs from the records. */
static sgz_status map_from_records(sgz_tar_parser *p, int64_t at, sgz_error *err)
{
    sgz_tar_sparse_keys *sparse = &p->sparse;
    if (sparse->map_seen && sparse->pair_seen)
        return bad_map(p, at, "is given twice, as pairs and as a list", err);
    if (sparse->pair_seen == 1)
        return bad_map(p, at, "ends in half a pair", err);
    const char *text = sparse->map.text;
    size_t left = sparse->map_seen ? sparse->map.len : 0;
    int64_t pair[2];
    for (int half = 0; left; half = !half) {
        const char *comma = memchr(text, ',', left);
        size_t len = comma ? (size_t)(comma - text) : left;
        if (sgz_tar_decimal(text, len, &pair[half]) || pair[half] < 0)
            return bad_map(p, at, "holds something that is not a number", err);
        if (comma ? left == len + 1 : !half)
            return bad_map(p, at, "ends in half a pair", err);
        if (half && sgz_tar_add_run(p, pair[0], pair[1], err))
            return SGZ_ENOMEM;
        text += len + (comma != NULL);
        left -= len + (comma != NULL);
    }
    if (sparse->blocks >= 0 && (uint64_t)sparse->blocks != p->run_count)
        return bad_map(p, at, "has not the number of runs that its header says", err);
    return SGZ_OK;
}

sgz_status sgz_tar_feed_map(sgz_tar_parser *p, const uint8_t *block, int64_t at, int *done,
                            sgz_error *err)
{
    *done = 0;
    int whole = p->map_left >= SGZ_TAR_BLOCK;
    p->map_left -= whole ? SGZ_TAR_BLOCK : p->map_left;
    if (!whole)
        return bad_map(p, at, "does not end before the entry does", err);
    p->entry.sparse_map_bytes += SGZ_TAR_BLOCK;
    sgz_status status = more_map(p, SGZ_TAR_BLOCK, at, err);
    if (status)
        return status;
    for (int i = 0; i < SGZ_TAR_BLOCK && !*done; i++) {
        unsigned digit = (unsigned)block[i] - '0';
        if (digit <= 9) {
            if (p->map_value > (INT64_MAX - 9) / 10)
                return bad_map(p, at, "holds a number that is too large", err);
            p->map_value = p->map_value * 10 + digit;
            p->map_digits = 1;
            continue;
        }
        if (block[i] != '\n' || !p->map_digits)
            return bad_map(p, at, "holds something that is not a number", err);
        if (p->map_tokens == 0) {
            if (p->map_value > SGZ_TAR_MAP_MAX / 4) /* two digits and two newlines each */
                return more_map(p, SGZ_TAR_MAP_MAX, at, err);
            p->map_count = p->map_value;
        } else if (p->map_tokens & 1) {
            status = sgz_tar_add_run(p, p->map_value, 0, err);
        } else {
            p->runs[p->run_count - 1].len = p->map_value;
        }
        if (status)
            return status;
        p->map_value = p->map_digits = 0;
        *done = p->map_tokens++ == 2 * (uint64_t)p->map_count;
    }
    if (!*done && !p->map_left)
        return bad_map(p, at, "does not end before the entry does", err);
    return SGZ_OK;
}

sgz_status sgz_tar_finish_map(sgz_tar_parser *p, int64_t at, sgz_error *err)
{
    sgz_tar_entry *entry = &p->entry;
    int64_t size = entry->size, end = 0, data = 0;
    size_t kept = 0;
    p->over_limit = size > SGZ_TAR_SPARSE_MAX;
    if (p->over_limit)
        return sgz_base_fail(err, SGZ_ETAR, at, entry->name, entry->name_len,
                             "a sparse file of %lld bytes is over the limit of 1 TiB",
                             (long long)size);
    for (size_t i = 0; i < p->run_count; i++) {
        sgz_tar_run run = p->runs[i];
        if (run.offset < end || run.len < 0)
            return bad_map(p, at, "is not in ascending order", err);
        if (run.offset > size || run.len > size - run.offset)
            return bad_map(p, at, "runs past the end of the file", err);
        end = run.offset + run.len;
        data += run.len;
        if (run.len)
            p->runs[kept++] = run;
    }
    p->run_count = kept;
    if (data != entry->payload)
        return sgz_base_fail(err, SGZ_ETAR, at, entry->name, entry->name_len,
                             "the sparse map has %lld bytes of data but the entry %lld",
                             (long long)data, (long long)entry->payload);
    entry->type = 'S';
    entry->sparse = p->runs;
    entry->sparse_count = kept;
    return SGZ_OK;
}

sgz_status sgz_tar_add_old_runs(sgz_tar_parser *p, const uint8_t *block, size_t at, int pairs,
                                int64_t offset, sgz_error *err)
{
    sgz_status status = more_map(p, SGZ_TAR_BLOCK, offset, err);
    if (status)
        return status;
    for (int i = 0; i < pairs && block[at]; i++, at += 24) {
        int64_t start, len;
        if (sgz_tar_number(block, at, 12, &start) || sgz_tar_number(block, at + 12, 12, &len))
            return bad_map(p, offset, "holds a malformed number", err);
        if ((status = sgz_tar_add_run(p, start, len, err)))
            return status;
    }
    return SGZ_OK;
}

sgz_status sgz_tar_start_pax_sparse(sgz_tar_parser *p, int64_t offset, sgz_error *err)
{
    sgz_tar_sparse_keys *sparse = &p->sparse;
    sgz_tar_entry *entry = &p->entry;
    int has_map = sparse->map_seen || sparse->pair_seen || sparse->blocks >= 0;
    int version1 = sparse->major == 1 && sparse->minor == 0 && !has_map;
    int version0 = sparse->major <= 0 && sparse->minor <= 1 && has_map;
    if (entry->type != '0')
        return bad_entry(entry, offset, "a sparse map on something that is no regular file",
                         err);
    if (!version0 && !version1)
        return bad_entry(entry, offset,
                         "PAX sparse headers of no known version (known: 0.0, 0.1, 1.0)", err);
    int64_t size = sparse->real_size >= 0 ? sparse->real_size : sparse->size;
    if (size < 0 || (sparse->size >= 0 && sparse->size != size))
        return bad_entry(entry, offset, "the sparse headers do not tell the file's size", err);
    entry->size = size;
    if (version0) {
        sgz_status status = map_from_records(p, offset, err);
        return status ? status : sgz_tar_finish_map(p, offset, err);
    }
    if (!entry->payload)
        return bad_map(p, offset, "does not end before the entry does", err);
    p->run_count = 0;
    p->map_left = entry->payload;
    p->map_value = p->map_count = 0;
    p->map_tokens = 0;
    p->map_digits = 0;
    p->state = TAR_AT_MAP;
    return SGZ_OK;
}
