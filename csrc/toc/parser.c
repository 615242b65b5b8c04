/* What a parser holds: see toc/parser.h. */
#include "toc/parser.h"

sgz_toc_parser *sgz_toc_parser_new(sgz_toc *toc)
{
    sgz_toc_parser *parser = calloc(1, sizeof *parser);
    if (parser) {
        parser->toc = toc;
        parser->owner = parser->data_row = SGZ_NO_ROW;
        parser->users.seed = parser->groups.seed = toc->seed;
        parser->max_rows = UINT64_MAX;
        parser->json_size = SGZ_TOC_SIZE_MAX;
    }
    return parser;
}

void sgz_toc_parser_free(sgz_toc_parser *parser)
{
    if (!parser)
        return;
    sgz_toc_id_map_free(&parser->users);
    sgz_toc_id_map_free(&parser->groups);
    free(parser->carry);
    free(parser->scratch);
    free(parser->pairs);
    free(parser);
}

void sgz_toc_parser_limit(sgz_toc_parser *parser, int64_t blob_end)
{
    uint64_t bytes = blob_end > 0 ? (uint64_t)blob_end : 0;
    if (bytes < UINT64_MAX / (2 * SGZ_TOC_ROWS_PER_BYTE))
        parser->max_rows = bytes * SGZ_TOC_ROWS_PER_BYTE + SGZ_TOC_ROWS_FREE;
}

void sgz_toc_parser_chunked(sgz_toc_parser *parser)
{
    parser->chunked = 1;
}

void sgz_toc_parser_texts(sgz_toc_parser *parser, const sgz_toc_texts *texts)
{
    parser->texts = *texts;
}

void sgz_toc_parser_expect(sgz_toc_parser *parser, int64_t json_size)
{
    parser->json_size = json_size > 0 ? (uint64_t)json_size : 0;
}
