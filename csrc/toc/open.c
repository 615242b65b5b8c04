#include "toc/open.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tar/tar.h"
#include "toc/parser.h"

/* Inflate and SHA-256 work on what is in the L2 cache. */
#define PIECE ((size_t)256 << 10)
/* What may follow the JSON in its member: padding, and the zeros that end a tar (writers fill
 * up records of 10 KiB at most). */
#define TAIL_MAX ((int64_t)64 << 10)

sgz_status sgz_toc_seek(sgz_decoder *d, int64_t offset, int64_t end, int64_t *json_size,
                        sgz_error *err)
{
    uint8_t block[SGZ_TAR_BLOCK];
    sgz_tar_event event;
    sgz_tar_entry entry;
    size_t got;
    sgz_status st = sgz_codec_decoder_enter(d, offset, end, err);
    if (!st)
        st = sgz_codec_decoder_read(d, block, sizeof block, &got, err);
    if (st)
        return st;
    if (got < sizeof block)
        return sgz_base_fail(err, SGZ_ETOC, offset, NULL, 0,
                             "there is no table of contents here");
    sgz_tar_parser *parser = sgz_tar_parser_new();
    if (!parser)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to read the TOC");
    st = sgz_tar_feed(parser, block, 0, &event, &entry, err);
    if (st == SGZ_ETAR)
        st = sgz_base_fail(err, SGZ_ETOC, offset, NULL, 0, "no tar entry %s stands here",
                           SGZ_TOC_NAME);
    else if (!st && (event != SGZ_TAR_ENTRY || entry.type != '0' ||
                     entry.name_len != sizeof SGZ_TOC_NAME - 1 ||
                     memcmp(entry.name, SGZ_TOC_NAME, entry.name_len)))
        st = sgz_base_fail(err, SGZ_ETOC, offset, NULL, 0,
                           "the tar entry here is not the file %s", SGZ_TOC_NAME);
    else if (!st)
        *json_size = entry.payload;
    sgz_tar_parser_free(parser);
    return st;
}

sgz_status sgz_toc_too_large(int64_t offset, int64_t size, int64_t max_size, sgz_error *err)
{
    return sgz_base_fail(err, SGZ_ETOC, offset, NULL, 0,
                         "the table of contents has %lld bytes, more than the limit of %lld "
                         "(more: max_toc_size (--max-toc-size SIZE))",
                         (long long)size, (long long)max_size);
}

sgz_status sgz_toc_in_json(sgz_status st, int64_t offset, sgz_error *err)
{
    if (st != SGZ_ETOC || !err)
        return st;
    char message[sizeof err->message];
    int prefix = 0;
    if (err->offset >= 0)
        prefix = snprintf(message, sizeof message, "in the TOC's JSON at byte %lld: ",
                          (long long)err->offset);
    snprintf(message + prefix, sizeof message - (size_t)prefix, "%s", err->message);
    memcpy(err->message, message, sizeof message);
    err->offset = offset;
    return st;
}

/* Decode on to the end of the TOC's member: its CRC covers the JSON. */
static sgz_status check_tail(sgz_decoder *d, int64_t offset, sgz_error *err)
{
    int ended;
    sgz_status st = sgz_codec_decoder_finish(d, TAIL_MAX, &ended, err);
    if (!st && !ended)
        st = sgz_base_fail(err, SGZ_ETOC, offset, NULL, 0,
                           "more than %lld bytes stand after the JSON of the TOC",
                           (long long)TAIL_MAX);
    return st;
}

sgz_status sgz_toc_read(const sgz_codecs *codecs, const sgz_blob *blob, int64_t offset,
                        int64_t end, int64_t max_size, int64_t blob_end,
                        const sgz_toc_texts *texts, sgz_toc *toc, int64_t *json_size,
                        uint8_t digest[32], sgz_error *err)
{
    sgz_decoder d;
    sgz_sha256 sha = {0};
    sgz_toc_parser *parser = NULL;
    uint8_t *piece = NULL;
    sgz_status st = sgz_codec_decoder_init(&d, codecs, blob, NULL, err);
    if (st)
        return st;
    st = sgz_toc_seek(&d, offset, end, json_size, err);
    if (!st && *json_size > max_size)
        st = sgz_toc_too_large(offset, *json_size, max_size, err);
    if (!st)
        st = sgz_codec_sha256_new(codecs, &sha, err);
    if (!st) {
        piece = malloc(PIECE);
        parser = sgz_toc_parser_new(toc);
        if (!piece || !parser)
            st = sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to read the TOC");
        else
            sgz_codec_sha256_init(codecs, &sha);
        if (parser) {
            sgz_toc_parser_limit(parser, blob_end);
            sgz_toc_parser_expect(parser, *json_size);
            if (texts)
                sgz_toc_parser_texts(parser, texts);
        }
    }
    for (int64_t left = *json_size; !st && left > 0;) {
        size_t want = (uint64_t)left < PIECE ? (size_t)left : PIECE, got;
        st = sgz_codec_decoder_read(&d, piece, want, &got, err);
        if (!st && got < want)
            st = sgz_base_fail(err, SGZ_ETOC, offset, NULL, 0,
                               "the table of contents ends %lld bytes early",
                               (long long)(left - (int64_t)got));
        if (st)
            break;
        sgz_codec_sha256_update(codecs, &sha, piece, got);
        st = sgz_toc_in_json(sgz_toc_parse(parser, (const char *)piece, got, err), offset, err);
        left -= (int64_t)got;
    }
    if (!st) {
        sgz_codec_sha256_final(codecs, &sha, digest);
        st = sgz_toc_in_json(sgz_toc_parse_finish(parser, blob_end, err), offset, err);
    }
    if (!st)
        st = check_tail(&d, offset, err);
    if (parser)
        sgz_toc_parser_free(parser);
    if (sha.ctx)
        sgz_codec_sha256_free(codecs, &sha);
    free(piece);
    sgz_codec_decoder_free(&d);
    return st;
}
