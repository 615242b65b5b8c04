#include "toc/footer.h"

#include "base/vec.h"
#include "tar/tar.h"
#include "toc/toc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The TOC goes through the compressor in pieces of this length: part of the pin. */
#define TOC_PIECE (1u << 20)

/* libdeflate takes a member whole. Up to this length the TOC is held for it; a longer one
 * streams through ISA-L, so that a million entries do not cost a gigabyte. */
#define TOC_WHOLE_MAX ((uint64_t)32 << 20)

static sgz_status flush_piece(sgz_toc_footer *t, int last, sgz_error *err)
{
    size_t made;
    sgz_status status;
    if (t->tar)
        t->tar(t->arg, t->in, t->in_len);
    if (t->whole)
        status = sgz_codec_deflate_member(&t->deflater, t->in, t->in_len, t->legacy, t->out,
                                          t->out_cap, &made, err);
    else
        status = sgz_codec_member_piece(&t->stream, t->in, t->in_len, last, t->out, t->out_cap,
                                        &made, err);
    t->in_len = 0;
    return status ? status : t->blob(t->arg, t->out, made, err);
}

static sgz_status append(sgz_toc_footer *t, const uint8_t *data, size_t len, sgz_error *err)
{
    while (len) {
        size_t n = t->in_cap - t->in_len;
        n = n < len ? n : len;
        memcpy(t->in + t->in_len, data, n);
        t->in_len += n;
        data += n;
        len -= n;
        /* The last piece is left for the end, so that it is never empty. */
        if (t->in_len == t->in_cap && len) {
            sgz_status status = flush_piece(t, 0, err);
            if (status)
                return status;
        }
    }
    return SGZ_OK;
}

sgz_status sgz_toc_footer_begin(sgz_toc_footer *t, const sgz_codecs *codecs, uint64_t json_len,
                                int level, int legacy, sgz_error *err)
{
    uint8_t header[SGZ_TAR_BLOCK];
    uint64_t padding = -json_len % SGZ_TAR_BLOCK;
    uint64_t tar_len = SGZ_TAR_BLOCK + json_len + padding + 2 * SGZ_TAR_BLOCK;
    t->codecs = codecs;
    t->legacy = legacy;
    t->json_left = json_len;
    t->padding = (size_t)padding;
    t->whole = level > SGZ_LEVEL_ISAL_MAX && tar_len <= TOC_WHOLE_MAX;
    t->in_cap = t->whole ? (size_t)tar_len : TOC_PIECE;
    t->out_cap = sgz_codec_member_bound(t->in_cap);
    t->in = malloc(t->in_cap);
    t->out = malloc(t->out_cap);
    if (!t->in || !t->out)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
    if (!t->whole && level > SGZ_LEVEL_ISAL_MAX)
        level = SGZ_LEVEL_ISAL_MAX;
    sgz_status status = sgz_codec_deflater_init(&t->deflater, codecs, level, err);
    if (!status && !t->whole) {
        size_t made;
        sgz_codec_member_begin(&t->stream, &t->deflater, legacy, t->out, &made);
        status = t->blob(t->arg, t->out, made, err);
    }
    if (status)
        return status;
    sgz_tar_plain_header(header, SGZ_TOC_NAME, (int64_t)json_len);
    return append(t, header, sizeof header, err);
}

sgz_status sgz_toc_footer_append(sgz_toc_footer *t, const void *json, size_t len, sgz_error *err)
{
    if (len > t->json_left)
        return sgz_base_fail(err, SGZ_ETOC, -1, NULL, 0, "the TOC is longer than was announced");
    t->json_left -= len;
    return append(t, json, len, err);
}

#define FOOTER_MAX 51

/* Format section 3: gzip header with Extra, an empty stored block, CRC and length 0. `footer` is
 * zero; returns its length. */
static size_t make_footer(uint8_t *footer, const char *text, int legacy)
{
    uint8_t len = (uint8_t)strlen(text);
    size_t at = 12;
    memcpy(footer, "\x1f\x8b\x08\x04\0\0\0\0\0\xff", 10);
    footer[10] = legacy ? len : len + 4;
    if (!legacy) {
        memcpy(footer + at, "SG", 2);
        footer[at + 2] = len;
        at += 4;
    }
    memcpy(footer + at, text, len);
    memcpy(footer + at + len, "\x01\x00\x00\xff\xff", 5);
    return at + len + 5 + 8;
}

static sgz_status write_footer(sgz_toc_footer *t, int64_t toc_offset, sgz_error *err)
{
    uint8_t footer[FOOTER_MAX] = {0};
    char text[23];
    snprintf(text, sizeof text, "%016llxSTARGZ", (unsigned long long)toc_offset);
    return t->blob(t->arg, footer, make_footer(footer, text, t->legacy), err);
}

void sgz_toc_footer_external(uint8_t footer[SGZ_EXTERNAL_FOOTER])
{
    memset(footer, 0, SGZ_EXTERNAL_FOOTER);
    make_footer(footer, "STARGZEXTERNALTOC", 0);
}

sgz_status sgz_toc_footer_end(sgz_toc_footer *t, sgz_error *err)
{
    static const uint8_t zeros[3 * SGZ_TAR_BLOCK];
    if (t->json_left)
        return sgz_base_fail(err, SGZ_ETOC, -1, NULL, 0,
                             "the TOC is shorter than was announced");
    sgz_status status = append(t, zeros, t->padding + 2 * SGZ_TAR_BLOCK, err);
    return status ? status : flush_piece(t, 1, err);
}

sgz_status sgz_toc_footer_finish(sgz_toc_footer *t, int64_t toc_offset, sgz_error *err)
{
    sgz_status status = sgz_toc_footer_end(t, err);
    return status ? status : write_footer(t, toc_offset, err);
}

void sgz_toc_footer_free(sgz_toc_footer *t)
{
    free(t->in);
    free(t->out);
    if (t->deflater.codecs)
        sgz_codec_deflater_free(&t->deflater);
    memset(t, 0, sizeof *t);
}

typedef struct {
    uint8_t *data;
    size_t len, cap;
} memory;

static sgz_status take_memory(void *arg, const uint8_t *data, size_t len, sgz_error *err)
{
    memory *m = arg;
    if (!SGZ_FIT(m->data, m->cap, m->len + len))
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
    memcpy(m->data + m->len, data, len);
    m->len += len;
    return SGZ_OK;
}

sgz_status sgz_toc_footer_members(const sgz_codecs *codecs, const uint8_t *json, size_t len,
                                  int64_t toc_offset, int level, int legacy, uint8_t **out,
                                  size_t *out_len, sgz_error *err)
{
    memory m = {0};
    sgz_toc_footer t = {.blob = take_memory, .arg = &m};
    sgz_status status = sgz_toc_footer_begin(&t, codecs, len, level, legacy, err);
    if (!status)
        status = sgz_toc_footer_append(&t, json, len, err);
    if (!status)
        status = sgz_toc_footer_finish(&t, toc_offset, err);
    sgz_toc_footer_free(&t);
    if (status) {
        free(m.data);
        m = (memory){0};
    }
    *out = m.data;
    *out_len = m.len;
    return status;
}
