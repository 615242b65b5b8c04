/* The end of a blob: the TOC's member and the footer (format sections 2 and 3), of JSON that
 * is streamed in from wherever it comes. */
#ifndef SGZ_TOC_FOOTER_H
#define SGZ_TOC_FOOTER_H

#include "codec/gzip.h"

#define SGZ_EXTERNAL_FOOTER 46

typedef struct {
    /* Takes the blob's bytes. */
    sgz_status (*blob)(void *arg, const uint8_t *data, size_t len, sgz_error *err);
    /* Is shown the tar's bytes before they are compressed; may be NULL. */
    void (*tar)(void *arg, const uint8_t *data, size_t len);
    void *arg;
    const sgz_codecs *codecs;
    sgz_deflater deflater;
    sgz_codec_member_stream stream;
    int whole;              /* one call of the compressor, at the end */
    int legacy;
    uint64_t json_left;
    size_t padding;
    uint8_t *in, *out;
    size_t in_len, in_cap, out_cap;
} sgz_toc_footer;

/* Begin a TOC whose JSON has json_len bytes; with `legacy` TOC and footer are those of
 * google/crfs. `t` has its blob, tar and arg set, and everything else zero. To be freed also
 * when this fails. */
sgz_status sgz_toc_footer_begin(sgz_toc_footer *t, const sgz_codecs *codecs, uint64_t json_len,
                                int level, int legacy, sgz_error *err);
/* More than the announced length is SGZ_ETOC. */
sgz_status sgz_toc_footer_append(sgz_toc_footer *t, const void *json, size_t len,
                                 sgz_error *err);
/* End the member, without a footer; less than the announced length is SGZ_ETOC. */
sgz_status sgz_toc_footer_end(sgz_toc_footer *t, sgz_error *err);
/* The same, and the footer. */
sgz_status sgz_toc_footer_finish(sgz_toc_footer *t, int64_t toc_offset, sgz_error *err);
void sgz_toc_footer_free(sgz_toc_footer *t);

/* The footer of a blob whose TOC is kept apart: it says only that. */
void sgz_toc_footer_external(uint8_t footer[SGZ_EXTERNAL_FOOTER]);

/* The same for JSON that is in memory: *out, malloc'ed, is the member and the footer. */
sgz_status sgz_toc_footer_members(const sgz_codecs *codecs, const uint8_t *json, size_t len,
                                  int64_t toc_offset, int level, int legacy, uint8_t **out,
                                  size_t *out_len, sgz_error *err);

#endif
