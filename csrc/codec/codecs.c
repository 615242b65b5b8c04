#include "codec/codecs.h"

#include "codec/blocks.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define TEST_LEN 20000
#define SLACK 256
#define PATTERN 0xA5

/* CRC-32 of what ISA-L makes of the self-test's input at levels 1 and 2: the same from
 * 2.30 to 2.32 and on every processor tried of one architecture. Its kernels for ARM search
 * otherwise than those for x86, so their bytes are other ones. */
#ifdef __aarch64__
#define PIN_LEVEL1 0xa0459ab0u
#define PIN_LEVEL2 0x4f336a18u
#else
#define PIN_LEVEL1 0xadbf4e3au
#define PIN_LEVEL2 0x70e99821u
#endif

typedef struct {
    const char *name;
    size_t where;  /* of the function pointer in the table */
} symbol;

static sgz_status load(const char *path, const symbol *symbols, size_t count, void *functions,
                       void **handle, sgz_error *err)
{
    *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!*handle) {
        const char *why = dlerror();
        return sgz_base_fail(err, SGZ_ECODEC, -1, NULL, 0, "%s", why ? why : "cannot be opened");
    }
    for (size_t i = 0; i < count; i++) {
        void *address = dlsym(*handle, symbols[i].name);
        if (!address) {
            dlclose(*handle);
            return sgz_base_fail(err, SGZ_ECODEC, -1, NULL, 0, "has no symbol %s",
                                 symbols[i].name);
        }
        memcpy((char *)functions + symbols[i].where, &address, sizeof address);
    }
    return SGZ_OK;
}

/* A text with matches near and far and some noise, the same everywhere. */
static void fill_test_input(uint8_t *data)
{
    uint32_t x = 12345;
    for (size_t i = 0; i < TEST_LEN; i++) {
        x = x * 1103515245u + 12345u;
        uint8_t noise = (uint8_t)(x >> 16);
        if (i > 700 && noise < 200)
            data[i] = data[i - 613 - (noise & 1)];
        else
            data[i] = (uint8_t)('a' + noise % 23);
    }
}

static int untouched(const uint8_t *slack)
{
    for (size_t i = 0; i < SLACK; i++)
        if (slack[i] != PATTERN)
            return 0;
    return 1;
}

/* ISA-L's output depends on where its stream struct lies. At a member's start the body kernels
 * of levels 1 and 2 (x86, all versions up to 2.32) take the hash of position 2 not from the
 * input but from a register that still holds bits 16 to 47 of the struct's address, and enter
 * position 2 into that slot of the hash table. About one small member in ten thousand comes
 * out different. So the struct is put where these bits always give slot 0: their hash is
 * CRC-32C, of which the widest mask keeps 15 bits; it is linear, and of the 2^15 places in
 * each aligned 2 GiB exactly one is right. */
#define STREAM_ROOM (1 << 17)
#define SLOT_BITS 15

#ifdef __x86_64__

static uint32_t crc32c_word(uint32_t word)
{
    for (int i = 0; i < 32; i++)
        word = word >> 1 ^ (0x82f63b78u & -(word & 1));
    return word;
}

static void *map_room(uintptr_t hint)
{
    return mmap((void *)hint, STREAM_ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                -1, 0);
}

sgz_isal_zstream *sgz_codec_isal_stream_new(void)
{
    /* Which low bits of a word change just bit i of its CRC-32C, of the lowest 15. */
    static const uint16_t inverse[SLOT_BITS] = {
        0x1ec2, 0x5ddc, 0x6d73, 0x6c75, 0x6e79, 0x0a39, 0x1472, 0x48bc,
        0x47b3, 0x39f5, 0x73ea, 0x5147, 0x141d, 0x283a, 0x302c};
    const uintptr_t block_size = (uintptr_t)1 << (16 + SLOT_BITS);
    /* Where the system has room: look downwards from there, then (valgrind has it low) upwards. */
    void *p = map_room(0);
    if (p == MAP_FAILED)
        return NULL;
    munmap(p, STREAM_ROOM);
    uintptr_t first = (uintptr_t)p / block_size, below = first > 1 ? first - 1 : 0;
    for (uintptr_t tries = 0; tries < 4096; tries++) {
        uintptr_t block =
            (tries < below ? first - 1 - tries : first + 1 + tries - below) * block_size;
        uint32_t slot = crc32c_word((uint32_t)(block >> 16));
        uintptr_t place = 0;
        for (int i = 0; i < SLOT_BITS; i++)
            if (slot >> i & 1)
                place ^= inverse[i];
        uintptr_t wanted = block | place << 16;
        p = map_room(wanted);
        if ((uintptr_t)p == wanted)
            return p;
        if (p != MAP_FAILED)
            munmap(p, STREAM_ROOM);
    }
    return NULL;
}

void sgz_codec_isal_stream_free(sgz_isal_zstream *stream)
{
    if (stream)
        munmap(stream, STREAM_ROOM);
}

#else

sgz_isal_zstream *sgz_codec_isal_stream_new(void)
{
    return aligned_alloc(64, STREAM_ROOM);
}

void sgz_codec_isal_stream_free(sgz_isal_zstream *stream)
{
    free(stream);
}

#endif

/* Compress and decompress with structs whose slack is watched: a library with another
 * layout is found here and not later, in somebody's heap. */
static sgz_status test_isal(sgz_isal *isal, sgz_error *err)
{
    static const uint32_t pins[] = {PIN_LEVEL1, PIN_LEVEL2};
    static const uint32_t bufs[] = {SGZ_ISAL_LEVEL1_BUF, SGZ_ISAL_LEVEL2_BUF};
    const char *why = NULL;
    sgz_status wrong = SGZ_ECODEC;
    size_t out_cap = TEST_LEN * 2;
    uint8_t *in = malloc(TEST_LEN), *out = malloc(out_cap), *back = malloc(TEST_LEN);
    uint8_t *level_buf = malloc(SGZ_ISAL_LEVEL2_BUF + SLACK);
    sgz_isal_zstream *z = sgz_codec_isal_stream_new();
    sgz_isal_inflate_state *s = aligned_alloc(64, (sizeof *s + SLACK + 63) / 64 * 64);
    if (!in || !out || !back || !level_buf || !z || !s) {
        why = "no memory to try it";
        wrong = SGZ_ENOMEM;
        goto done;
    }
    fill_test_input(in);
    if (isal->crc32_gzip_refl(0, (const uint8_t *)"123456789", 9) != 0xCBF43926u) {
        why = "self-test: CRC-32 is wrong";
        goto done;
    }
    isal->pinned = 1;
    for (int level = 1; level <= 2; level++) {
        memset(z, PATTERN, sizeof *z + SLACK);
        memset(level_buf, PATTERN, SGZ_ISAL_LEVEL2_BUF + SLACK);
        isal->deflate_init(z);
        z->level = (uint32_t)level;
        z->level_buf = level_buf;
        z->level_buf_size = bufs[level - 1];
        z->end_of_stream = 1;
        z->next_in = in;
        z->avail_in = TEST_LEN;
        z->next_out = out;
        z->avail_out = (uint32_t)out_cap;
        if (isal->deflate(z) != 0 || z->avail_in || z->total_in != TEST_LEN
            || z->total_out != out_cap - z->avail_out || z->total_out >= TEST_LEN
            || !untouched((uint8_t *)z + sizeof *z) || !untouched(level_buf + bufs[level - 1])) {
            why = "self-test: deflate failed or its struct has another layout";
            goto done;
        }
        uint32_t len = z->total_out;
        if (isal->crc32_gzip_refl(0, out, len) != pins[level - 1])
            isal->pinned = 0;
        memset(s, PATTERN, sizeof *s + SLACK);
        isal->inflate_init(s);
        s->next_in = out;
        s->avail_in = len;
        s->next_out = back;
        s->avail_out = TEST_LEN / 4; /* in two calls, to see what the state holds between them */
        int half = isal->inflate(s) == 0 && s->tmp_out_valid == TEST_LEN
            && s->tmp_out_processed == TEST_LEN / 4 && !memcmp(in, s->tmp_out, TEST_LEN);
        s->avail_out = TEST_LEN - TEST_LEN / 4;
        if (!half || isal->inflate(s) != 0 || s->block_state != SGZ_ISAL_BLOCK_FINISH
            || s->avail_out || s->total_out != TEST_LEN || memcmp(in, back, TEST_LEN)
            || !untouched((uint8_t *)s + sizeof *s)) {
            why = "self-test: inflate failed or its struct has another layout";
            goto done;
        }
    }
    isal->blocks = sgz_codec_blocks_work(isal, s);
done:
    free(in);
    free(out);
    free(back);
    free(level_buf);
    sgz_codec_isal_stream_free(z);
    free(s);
    return why ? sgz_base_fail(err, wrong, -1, NULL, 0, "%s", why) : SGZ_OK;
}

static int have_avx(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx") != 0;
#else
    return 0;
#endif
}

sgz_status sgz_codec_load_isal(sgz_codecs *codecs, const char *path, sgz_error *err)
{
    static const symbol symbols[] = {
        {"isal_deflate_init", offsetof(sgz_isal, deflate_init)},
        {"isal_deflate_reset", offsetof(sgz_isal, deflate_reset)},
        {"isal_deflate", offsetof(sgz_isal, deflate)},
        {"isal_inflate_init", offsetof(sgz_isal, inflate_init)},
        {"isal_inflate_reset", offsetof(sgz_isal, inflate_reset)},
        {"isal_inflate", offsetof(sgz_isal, inflate)},
        {"crc32_gzip_refl", offsetof(sgz_isal, crc32_gzip_refl)},
    };
    sgz_isal isal = {0};
    void *handle;
    sgz_status status =
        load(path, symbols, sizeof symbols / sizeof *symbols, &isal, &handle, err);
    if (status)
        return status;
    /* Only entry points need this, so a library without it is good for all else. */
    void *address = dlsym(handle, "isal_inflate_set_dict");
    memcpy(&isal.inflate_set_dict, &address, sizeof address);
    status = test_isal(&isal, err);
    if (status) {
        dlclose(handle);
        return status;
    }
    isal.avx = have_avx();
    codecs->isal = isal;
    return SGZ_OK;
}

sgz_status sgz_codec_load_crypto(sgz_codecs *codecs, const char *path, sgz_error *err)
{
    static const symbol symbols[] = {
        {"EVP_MD_CTX_new", offsetof(sgz_crypto, md_ctx_new)},
        {"EVP_MD_CTX_free", offsetof(sgz_crypto, md_ctx_free)},
        {"EVP_DigestInit_ex", offsetof(sgz_crypto, digest_init)},
        {"EVP_DigestUpdate", offsetof(sgz_crypto, digest_update)},
        {"EVP_DigestFinal_ex", offsetof(sgz_crypto, digest_final)},
        {"EVP_MD_CTX_copy_ex", offsetof(sgz_crypto, ctx_copy)},
    };
    static const uint8_t abc[32] = {
        0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22,
        0x23, 0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00,
        0x15, 0xad};
    sgz_codecs trial = {0};
    void *handle;
    sgz_status status =
        load(path, symbols, sizeof symbols / sizeof *symbols, &trial.crypto, &handle, err);
    if (status)
        return status;
    /* A fetched digest (OpenSSL 3) saves a look-up at every init. */
    void *address = dlsym(handle, "EVP_MD_fetch");
    if (address) {
        const void *(*fetch)(void *, const char *, const char *);
        memcpy(&fetch, &address, sizeof address);
        trial.crypto.sha256 = fetch(NULL, "SHA256", NULL);
    } else if ((address = dlsym(handle, "EVP_sha256"))) {
        const void *(*sha256)(void);
        memcpy(&sha256, &address, sizeof address);
        trial.crypto.sha256 = sha256();
    }
    sgz_sha256 sha = {NULL};
    uint8_t digest[32] = {0};
    if (trial.crypto.sha256)
        status = sgz_codec_sha256_new(&trial, &sha, err);
    if (!status && sha.ctx) {
        sgz_codec_sha256_init(&trial, &sha);
        sgz_codec_sha256_update(&trial, &sha, "abc", 3);
        sgz_codec_sha256_final(&trial, &sha, digest);
        sgz_codec_sha256_free(&trial, &sha);
    }
    if (status || memcmp(digest, abc, 32)) {
        dlclose(handle);
        return sgz_base_fail(err, SGZ_ECODEC, -1, NULL, 0, "self-test: SHA-256 failed");
    }
    codecs->crypto = trial.crypto;
    return SGZ_OK;
}

sgz_status sgz_codec_load_libdeflate(sgz_codecs *codecs, const char *path, sgz_error *err)
{
    static const symbol symbols[] = {
        {"libdeflate_alloc_compressor", offsetof(sgz_libdeflate, alloc_compressor)},
        {"libdeflate_deflate_compress", offsetof(sgz_libdeflate, deflate_compress)},
        {"libdeflate_free_compressor", offsetof(sgz_libdeflate, free_compressor)},
    };
    sgz_libdeflate lib = {0};
    void *handle;
    sgz_status status =
        load(path, symbols, sizeof symbols / sizeof *symbols, &lib, &handle, err);
    if (!status)
        codecs->libdeflate = lib;
    return status;
}

sgz_status sgz_codec_load_zstd(sgz_codecs *codecs, const char *path, sgz_error *err)
{
    static const symbol symbols[] = {
        {"ZSTD_createDStream", offsetof(sgz_zstd, create_dstream)},
        {"ZSTD_freeDStream", offsetof(sgz_zstd, free_dstream)},
        {"ZSTD_initDStream", offsetof(sgz_zstd, init_dstream)},
        {"ZSTD_DCtx_setParameter", offsetof(sgz_zstd, set_parameter)},
        {"ZSTD_decompressStream", offsetof(sgz_zstd, decompress_stream)},
        {"ZSTD_isError", offsetof(sgz_zstd, is_error)},
        {"ZSTD_getErrorName", offsetof(sgz_zstd, error_name)},
        {"ZSTD_createCCtx", offsetof(sgz_zstd, create_cctx)},
        {"ZSTD_freeCCtx", offsetof(sgz_zstd, free_cctx)},
        {"ZSTD_CCtx_setParameter", offsetof(sgz_zstd, cctx_set_parameter)},
        {"ZSTD_CCtx_reset", offsetof(sgz_zstd, cctx_reset)},
        {"ZSTD_compress2", offsetof(sgz_zstd, compress)},
        {"ZSTD_compressStream2", offsetof(sgz_zstd, compress_stream)},
        {"ZSTD_versionString", offsetof(sgz_zstd, version)},
    };
    sgz_zstd lib = {0};
    void *handle;
    sgz_status status =
        load(path, symbols, sizeof symbols / sizeof *symbols, &lib, &handle, err);
    if (!status)
        codecs->zstd = lib;
    return status;
}

sgz_status sgz_codec_sha256_new(const sgz_codecs *codecs, sgz_sha256 *sha, sgz_error *err)
{
    sha->ctx = codecs->crypto.md_ctx_new();
    return sha->ctx ? SGZ_OK : sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
}

void sgz_codec_sha256_free(const sgz_codecs *codecs, sgz_sha256 *sha)
{
    if (sha->ctx)
        codecs->crypto.md_ctx_free(sha->ctx);
    sha->ctx = NULL;
}

/* The digest calls fail only when no provider has SHA-256, which the self-test excludes. */
void sgz_codec_sha256_init(const sgz_codecs *codecs, sgz_sha256 *sha)
{
    codecs->crypto.digest_init(sha->ctx, codecs->crypto.sha256, NULL);
}

void sgz_codec_sha256_update(const sgz_codecs *codecs, sgz_sha256 *sha, const void *data,
                             size_t len)
{
    codecs->crypto.digest_update(sha->ctx, data, len);
}

void sgz_codec_sha256_final(const sgz_codecs *codecs, sgz_sha256 *sha, uint8_t out[32])
{
    codecs->crypto.digest_final(sha->ctx, out, NULL);
}

void sgz_codec_sha256_copy(const sgz_codecs *codecs, sgz_sha256 *to, const sgz_sha256 *from)
{
    codecs->crypto.ctx_copy(to->ctx, from->ctx);
}
