/* What a TOC says of a file's contents: its pieces, where they are, and their digests. */
#include "toc/parser.h"

#include "base/bytes.h"

static sgz_status no_memory(sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory for the TOC");
}

int sgz_toc_read_digest(const sgz_json_span *span, uint8_t out[32])
{
    char buf[512];
    size_t len;
    const char *text = sgz_toc_short_text(span, buf, sizeof buf, &len);
    return text && sgz_get_sha256(text, len, out);
}

sgz_status sgz_toc_close_file(sgz_toc_parser *parser, sgz_error *err)
{
    if (parser->owner == SGZ_NO_ROW)
        return SGZ_OK;
    const sgz_entry *owner = &parser->toc->rows[parser->owner];
    if (parser->covered != owner->size)
        return FAIL(parser, owner, err, "its chunks hold %lld of its %lld bytes",
                    (long long)parser->covered, (long long)owner->size);
    return SGZ_OK;
}

static sgz_status fail_digest(sgz_toc_parser *parser, const sgz_entry *row, sgz_error *err)
{
    return FAIL(parser, row, err, "chunkDigest: expected sha256: and 64 hex digits");
}

/* What its chunkType says: SGZ_CHUNK or SGZ_ZEROS; 0: neither. */
static int read_chunk_type(const sgz_json_span *span)
{
    char buf[64];
    size_t len;
    const char *text = span->ptr ? sgz_toc_short_text(span, buf, sizeof buf, &len) : NULL;
    if (!span->len)
        return SGZ_CHUNK;
    return text && sgz_is(text, len, "zeros") ? SGZ_ZEROS : 0;
}

/* Chunk fields of a `reg` or `chunk` row, against its file. */
static sgz_status read_piece(sgz_toc_parser *parser, const sgz_toc_fields *f, sgz_entry *row,
                             int64_t file_size, sgz_error *err)
{
    row->chunk_offset = FIELD(f, KEY_CHUNK_OFFSET);
    if (row->chunk_offset != parser->covered)
        return FAIL(parser, row, err, "a chunk at %lld of the file, expected one at %lld",
                    (long long)row->chunk_offset, (long long)parser->covered);
    int64_t left = file_size - row->chunk_offset;
    row->chunk_size = FIELD(f, KEY_CHUNK_SIZE) ? FIELD(f, KEY_CHUNK_SIZE) : left;
    if (row->chunk_size > left || !row->chunk_size)
        return FAIL(parser, row, err,
                    "a chunk of %lld bytes where the file has %lld left",
                    (long long)row->chunk_size, (long long)left);
    if (row->chunk_size > INT64_MAX - parser->total)
        return FAIL(parser, row, err, "the sizes are impossibly large");
    parser->total += row->chunk_size;
    parser->covered += row->chunk_size;
    row->flags |= FIELD(f, KEY_CHUNK_SIZE) ? SGZ_SET_CHUNK_SIZE : 0;
    return SGZ_OK;
}

/* Where a piece is, against what is before it. */
static sgz_status read_place(sgz_toc_parser *parser, const sgz_toc_fields *f, sgz_entry *row,
                             sgz_error *err)
{
    uint32_t number = (uint32_t)(row - parser->toc->rows);
    row->offset = FIELD(f, KEY_OFFSET);
    row->inner_offset = FIELD(f, KEY_INNER_OFFSET);
    if (row->chunk_size > INT64_MAX - row->inner_offset)
        return FAIL(parser, row, err, "the sizes are impossibly large");
    if (parser->data_row != SGZ_NO_ROW) {
        if (row->offset < parser->data_offset)
            return FAIL(parser, row, err,
                        "its offset %lld is before that of the entry before it, %lld",
                        (long long)row->offset, (long long)parser->data_offset);
        if (row->offset == parser->data_offset && row->inner_offset < parser->data_end)
            return FAIL(parser, row, err,
                        "its data at offset %lld + %lld overlaps the entry before it",
                        (long long)row->offset, (long long)row->inner_offset);
        if (row->offset > parser->data_offset &&
            (parser->data_end - 1) / SGZ_TOC_RATIO >= row->offset - parser->data_offset) {
            const sgz_entry *before = &parser->toc->rows[parser->data_row];
            return FAIL(parser, before, err,
                        "%lld bytes cannot come of the %lld between two offsets",
                        (long long)parser->data_end,
                        (long long)(row->offset - parser->data_offset));
        }
    }
    parser->data_row = number;
    parser->data_offset = row->offset;
    parser->data_end = row->inner_offset + row->chunk_size;
    return SGZ_OK;
}

static sgz_status read_chunk(sgz_toc_parser *parser, const sgz_toc_fields *f, sgz_entry *row,
                             int64_t file_size, sgz_error *err)
{
    sgz_status status = read_piece(parser, f, row, file_size, err);
    if (!status && !FIELD(f, KEY_OFFSET) && !FIELD(f, KEY_INNER_OFFSET))
        return FAIL(parser, row, err, "it has data but no offset");
    return status ? status : read_place(parser, f, row, err);
}

/* Of containers/storage they may have a frame of their own. */
static sgz_status read_zeros(sgz_toc_parser *parser, const sgz_toc_fields *f, sgz_entry *row,
                             int64_t file_size, sgz_error *err)
{
    const sgz_json_span *digest = &f->texts[KEY_CHUNK_DIGEST];
    sgz_status status = read_piece(parser, f, row, file_size, err);
    parser->toc->holes = 1;
    if (status || !parser->chunked || !FIELD(f, KEY_OFFSET))
        return status;
    if (digest->len) {
        if (!sgz_toc_read_digest(digest, row->chunk_digest))
            return fail_digest(parser, row, err);
        row->flags |= SGZ_HAS_CHUNK_DIGEST;
    }
    return read_place(parser, f, row, err);
}

static sgz_status read_digests(sgz_toc_parser *parser, const sgz_toc_fields *f, sgz_entry *row,
                               sgz_error *err)
{
    const sgz_json_span *whole = &f->texts[KEY_DIGEST], *chunk = &f->texts[KEY_CHUNK_DIGEST];
    if (chunk->len && (row->chunk_size || !row->size)) {
        if (!sgz_toc_read_digest(chunk, row->chunk_digest))
            return fail_digest(parser, row, err);
        row->flags |= SGZ_HAS_CHUNK_DIGEST;
    }
    if (!whole->len || row->type == SGZ_CHUNK)
        return SGZ_OK;
    if (row->flags & SGZ_HAS_CHUNK_DIGEST && whole->plain && chunk->plain &&
        whole->len == chunk->len && !memcmp(whole->ptr, chunk->ptr, whole->len)) {
        row->flags |= SGZ_HAS_DIGEST | SGZ_DIGEST_IS_CHUNK;
        return SGZ_OK;
    }
    uint8_t digest[32];
    if (!sgz_toc_read_digest(whole, digest))
        return FAIL(parser, row, err, "digest: expected sha256: and 64 hex digits");
    /* A digest is in the row where it has room. */
    if (!(row->flags & SGZ_HAS_CHUNK_DIGEST) && !memcmp(digest, sgz_toc_empty_digest, 32)) {
        memcpy(row->chunk_digest, digest, 32);
        row->flags |= SGZ_HAS_DIGEST | SGZ_DIGEST_IS_CHUNK;
        return SGZ_OK;
    }
    row->digest_off = sgz_toc_store(parser->toc, digest, 32);
    if (row->digest_off == UINT64_MAX)
        return no_memory(err);
    row->flags |= SGZ_HAS_DIGEST;
    return SGZ_OK;
}

static sgz_status fail_chunk_type(sgz_toc_parser *parser, const sgz_entry *row, sgz_error *err)
{
    return FAIL(parser, row, err, "chunkType: expected nothing or zeros");
}

sgz_status sgz_toc_add_chunk(sgz_toc_parser *parser, const sgz_toc_fields *f, sgz_entry *row,
                             sgz_error *err)
{
    if (parser->owner == SGZ_NO_ROW)
        return sgz_base_fail(err, SGZ_ETOC, -1, NULL, 0, "the TOC begins with a chunk");
    /* Whatever name it carries, it belongs to the entry before it. */
    const sgz_entry *owner = &parser->toc->rows[parser->owner];
    row->name_off = owner->name_off;
    row->name_len = owner->name_len;
    row->flags |= SGZ_CLEAN_NAME;
    if (owner->type != SGZ_REG)
        return FAIL(parser, owner, err,
                    "a chunk follows, but this is a %s and no regular file",
                    sgz_toc_type_name(owner->type));
    int type = read_chunk_type(&f->texts[KEY_CHUNK_TYPE]);
    if (!type)
        return fail_chunk_type(parser, row, err);
    row->type = (uint8_t)type;
    if (type == SGZ_ZEROS)
        return read_zeros(parser, f, row, owner->size, err);
    sgz_status status = read_chunk(parser, f, row, owner->size, err);
    return status ? status : read_digests(parser, f, row, err);
}

/* Where it begins with zeros, these have a row of their own. */
sgz_status sgz_toc_add_contents(sgz_toc_parser *parser, const sgz_toc_fields *f, uint32_t number,
                                sgz_error *err)
{
    sgz_toc *toc = parser->toc;
    sgz_entry *row = &toc->rows[number];
    int type = read_chunk_type(&f->texts[KEY_CHUNK_TYPE]);
    sgz_status status = SGZ_OK;
    row->size = FIELD(f, KEY_SIZE);
    if (row->size && !type)
        return fail_chunk_type(parser, row, err);
    if (row->size && type == SGZ_CHUNK)
        status = read_chunk(parser, f, row, row->size, err);
    if (!status)
        status = read_digests(parser, f, row, err);
    if (status || !row->size || type == SGZ_CHUNK)
        return status;
    sgz_entry *zeros = sgz_toc_append(toc);
    if (!zeros)
        return no_memory(err);
    row = &toc->rows[number];
    zeros->type = SGZ_ZEROS;
    zeros->name_off = row->name_off;
    zeros->name_len = row->name_len;
    zeros->flags = SGZ_CLEAN_NAME;
    return read_zeros(parser, f, zeros, row->size, err);
}
