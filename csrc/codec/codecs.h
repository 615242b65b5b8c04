/* The codec libraries, found at run time, as tables of functions.
 *
 * No kernel links a codec: `pip install` needs a compiler and nothing else. The caller
 * (stargz/_engine/base.pyx) says which files to try; a table is filled only after
 * every symbol was found and a self-test passed. */
#ifndef SGZ_CODEC_CODECS_H
#define SGZ_CODEC_CODECS_H

#include "base/status.h"

/* ISA-L's stream structs, mirrored up to the last field used here. The layouts are the
 * same from 2.24 to 2.32; the sizes below are checked by the self-test, which fills the
 * slack behind the struct with a pattern and sees it untouched. */
#define SGZ_ISAL_ZSTREAM_SIZE 82384
#define SGZ_ISAL_INFLATE_SIZE 87368

typedef struct {
    uint8_t *next_in;
    uint32_t avail_in;
    uint32_t total_in;
    uint8_t *next_out;
    uint32_t avail_out;
    uint32_t total_out;
    void *hufftables;
    uint32_t level;
    uint32_t level_buf_size;
    uint8_t *level_buf;
    uint16_t end_of_stream;
    uint16_t flush;
    uint16_t gzip_flag;
    uint16_t hist_bits;
    uint8_t internal_state[SGZ_ISAL_ZSTREAM_SIZE - 64];
} sgz_isal_zstream;

typedef struct {
    uint8_t *next_out;
    uint32_t avail_out;
    uint32_t total_out;
    uint8_t *next_in;
    uint64_t read_in;
    uint32_t avail_in;
    int32_t read_in_length;
    uint8_t lit_huff_code[4096 * 4 + 1264 * 2];
    uint8_t dist_huff_code[1024 * 2 + 80 * 2];
    uint32_t block_state;
    uint32_t dict_length;
    uint32_t bfinal;
    uint32_t crc_flag;
    uint8_t between[30];
    int16_t tmp_in_size;
    int32_t tmp_out_valid;      /* bytes in tmp_out: history, then decoded ones */
    int32_t tmp_out_processed;  /* of those, handed out */
    uint8_t tmp_in[328];
    uint8_t tmp_out[SGZ_ISAL_INFLATE_SIZE - 21544];
} sgz_isal_inflate_state;

/* block_state: where in a deflate stream it stands. */
enum {
    SGZ_ISAL_BLOCK_NEW_HDR,    /* before a block's header */
    SGZ_ISAL_BLOCK_HDR,        /* within one, of which more bytes are needed */
    SGZ_ISAL_BLOCK_TYPE0,      /* in a stored block */
    SGZ_ISAL_BLOCK_CODED,      /* in another one */
    SGZ_ISAL_BLOCK_INPUT_DONE, /* the last block was decoded, */
    SGZ_ISAL_BLOCK_FINISH      /* and handed out */
};

typedef struct {
    void (*deflate_init)(sgz_isal_zstream *);
    void (*deflate_reset)(sgz_isal_zstream *);
    int (*deflate)(sgz_isal_zstream *);
    void (*inflate_init)(sgz_isal_inflate_state *);
    void (*inflate_reset)(sgz_isal_inflate_state *);
    int (*inflate)(sgz_isal_inflate_state *);
    int (*inflate_set_dict)(sgz_isal_inflate_state *, uint8_t *dict, uint32_t len);
    uint32_t (*crc32_gzip_refl)(uint32_t seed, const uint8_t *data, uint64_t len);
    int pinned;  /* levels 1 and 2 give the bytes that the project promises */
    int blocks;  /* inflate stops between blocks and begins there, as codec/blocks.h has it */
    int avx;     /* the processor has AVX, and so ISA-L uses it */
} sgz_isal;

/* ISA-L's level buffer: the struct and hash table of a level, and room for 16 Ki tokens.
 * The room decides where blocks end, so it is part of the pin. On a Debian layer cut per
 * file 16 Ki gives 100.86 MB where 64 Ki gives 101.34 MB, and 2 Ki gives 100.42 MB but
 * takes 1.5 times as long. */
#define SGZ_ISAL_LEVEL1_BUF (4096 + 2 * 8192 + 4 * 16384)
#define SGZ_ISAL_LEVEL2_BUF (4096 + 2 * 32768 + 4 * 16384)

/* Room for a stream struct and some slack, where it must lie for ISA-L's output not to depend
 * on the address (see codec/codecs.c). NULL when there is no memory there. */
sgz_isal_zstream *sgz_codec_isal_stream_new(void);
void sgz_codec_isal_stream_free(sgz_isal_zstream *stream);

/* libcrypto: EVP with one fetched SHA-256; every type is opaque. */
typedef struct {
    void *(*md_ctx_new)(void);
    void (*md_ctx_free)(void *);
    int (*digest_init)(void *ctx, const void *md, void *engine);
    int (*digest_update)(void *ctx, const void *data, size_t len);
    int (*digest_final)(void *ctx, uint8_t *out, unsigned *len);
    int (*ctx_copy)(void *out, const void *in);
    const void *sha256;
} sgz_crypto;

typedef struct {
    void *(*alloc_compressor)(int level);
    size_t (*deflate_compress)(void *, const void *, size_t, void *, size_t);
    void (*free_compressor)(void *);
} sgz_libdeflate;

typedef struct { const void *src; size_t size, pos; } sgz_zstd_in;
typedef struct { void *dst; size_t size, pos; } sgz_zstd_out;

typedef struct {
    void *(*create_dstream)(void);
    size_t (*free_dstream)(void *);
    size_t (*init_dstream)(void *);
    size_t (*set_parameter)(void *, int, int);
    size_t (*decompress_stream)(void *, sgz_zstd_out *, sgz_zstd_in *);
    unsigned (*is_error)(size_t);
    const char *(*error_name)(size_t);
    void *(*create_cctx)(void);
    size_t (*free_cctx)(void *);
    size_t (*cctx_set_parameter)(void *, int, int);
    size_t (*cctx_reset)(void *, int);
    size_t (*compress)(void *, void *, size_t, const void *, size_t);
    size_t (*compress_stream)(void *, sgz_zstd_out *, sgz_zstd_in *, int);
    const char *(*version)(void);
} sgz_zstd;

/* A library that was not loaded has its first member NULL. */
typedef struct {
    sgz_isal isal;
    sgz_crypto crypto;
    sgz_libdeflate libdeflate;
    sgz_zstd zstd;
} sgz_codecs;

/* Open `path` (as dlopen takes it), look up the symbols, run the self-test and fill the
 * library's part of the table. On failure the table is unchanged and err says why. */
sgz_status sgz_codec_load_isal(sgz_codecs *codecs, const char *path, sgz_error *err);
sgz_status sgz_codec_load_crypto(sgz_codecs *codecs, const char *path, sgz_error *err);
sgz_status sgz_codec_load_libdeflate(sgz_codecs *codecs, const char *path, sgz_error *err);
sgz_status sgz_codec_load_zstd(sgz_codecs *codecs, const char *path, sgz_error *err);

/* SHA-256 over libcrypto. A context belongs to one thread at a time; init after new or
 * after final. */
typedef struct { void *ctx; } sgz_sha256;
sgz_status sgz_codec_sha256_new(const sgz_codecs *codecs, sgz_sha256 *sha, sgz_error *err);
void sgz_codec_sha256_free(const sgz_codecs *codecs, sgz_sha256 *sha);
void sgz_codec_sha256_init(const sgz_codecs *codecs, sgz_sha256 *sha);
void sgz_codec_sha256_update(const sgz_codecs *codecs, sgz_sha256 *sha, const void *data,
                             size_t len);
void sgz_codec_sha256_final(const sgz_codecs *codecs, sgz_sha256 *sha, uint8_t out[32]);
/* Let `to` stand where `from` does. */
void sgz_codec_sha256_copy(const sgz_codecs *codecs, sgz_sha256 *to, const sgz_sha256 *from);

/* To be called after ISA-L's work; sgz_codec_crc32, which mostly ends it, does. It leaves the
 * upper halves of the vector registers in use, and then the SHA instructions, which are of the
 * older encoding, run at half their speed (1,400 MB/s instead of 3,400 for two lanes, Zen 4). */
static inline void sgz_codec_isal_done(const sgz_codecs *codecs)
{
#if defined(__x86_64__)
    if (codecs->isal.avx)
        __asm__ volatile("vzeroupper" ::: "memory");
#else
    (void)codecs;
#endif
}

/* CRC-32 of RFC 1952; seed 0. */
static inline uint32_t sgz_codec_crc32(const sgz_codecs *codecs, uint32_t crc, const void *data,
                                       size_t len)
{
    crc = codecs->isal.crc32_gzip_refl(crc, (const uint8_t *)data, len);
    sgz_codec_isal_done(codecs);
    return crc;
}

#endif
