/* What targets for TOC JSON share. */
#ifndef SGZ_FUZZ_TOC_H
#define SGZ_FUZZ_TOC_H

#include "fuzz.h"
#include "toc/toc.h"

#define BLOB_END 100000

/* NULL when it is refused. Every piece is a copy of its exact length. */
static inline sgz_toc *parse(const void *data, size_t size, size_t step, int chunked,
                             sgz_error *err)
{
    sgz_toc *toc = sgz_toc_new();
    CHECK(toc);
    sgz_toc_parser *parser = sgz_toc_parser_new(toc);
    CHECK(parser);
    sgz_toc_parser_limit(parser, BLOB_END);
    if (chunked)
        sgz_toc_parser_chunked(parser);
    sgz_status status = SGZ_OK;
    for (size_t at = 0; at < size && !status; at += step) {
        size_t len = size - at < step ? size - at : step;
        char *piece = malloc(len);
        CHECK(piece);
        memcpy(piece, (const char *)data + at, len);
        status = sgz_toc_parse(parser, piece, len, err);
        free(piece);
    }
    if (!status)
        status = sgz_toc_parse_finish(parser, BLOB_END, err);
    sgz_toc_parser_free(parser);
    if (!status)
        return toc;
    CHECK(status == SGZ_ETOC && err->message[0]);
    CHECK(err->offset >= -1 && err->offset <= (int64_t)size);
    sgz_toc_free(toc);
    return NULL;
}

#endif
