/* What fuzz targets share. */
#ifndef SGZ_FUZZ_H
#define SGZ_FUZZ_H

#include "codec/codecs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A property that must hold: unlike assert, also when NDEBUG is defined. */
#define CHECK(what)                                                          \
    do {                                                                     \
        if (!(what)) {                                                       \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
            abort();                                                         \
        }                                                                    \
    } while (0)

/* Put the right checksum into a tar header block, or little would get past it. */
static inline void repair_checksum(uint8_t block[512])
{
    unsigned sum = 0;
    memset(block + 148, ' ', 8);
    for (int i = 0; i < 512; i++)
        sum += block[i];
    snprintf((char *)block + 148, 7, "%06o", sum);
}

/* Bytes that are pulled (verify/pull.h). */
typedef struct {
    const uint8_t *data;
    size_t len, at;
} fuzz_memory;

static inline sgz_status fuzz_pull(void *arg, void *out, size_t cap, size_t *got, sgz_error *err)
{
    fuzz_memory *m = arg;
    (void)err;
    *got = m->len - m->at < cap ? m->len - m->at : cap;
    if (*got)
        memcpy(out, m->data + m->at, *got);
    m->at += *got;
    return SGZ_OK;
}

/* The codec table, loaded once from the system's libraries. */
static inline const sgz_codecs *fuzz_codecs(void)
{
    static sgz_codecs codecs;
    sgz_error err;
    if (!codecs.isal.inflate && sgz_codec_load_isal(&codecs, "libisal.so.2", &err)) {
        fprintf(stderr, "%s: install libisal2\n", err.message);
        exit(1);
    }
    if (!codecs.crypto.md_ctx_new && sgz_codec_load_crypto(&codecs, "libcrypto.so.3", &err)) {
        fprintf(stderr, "%s: install libssl3\n", err.message);
        exit(1);
    }
    if (!codecs.libdeflate.alloc_compressor)
        sgz_codec_load_libdeflate(&codecs, "libdeflate.so.0", &err);
    return &codecs;
}

/* The same with libzstd. */
static inline const sgz_codecs *fuzz_codecs_with_zstd(void)
{
    static sgz_codecs codecs;
    sgz_error err;
    if (!codecs.isal.inflate) {
        codecs = *fuzz_codecs();
        if (sgz_codec_load_zstd(&codecs, "libzstd.so.1", &err)) {
            fprintf(stderr, "%s: install libzstd1\n", err.message);
            exit(1);
        }
    }
    return &codecs;
}

#endif
