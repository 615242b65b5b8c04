/* The member or frame of a blob that should hold its TOC, with anything in it: the same TOC and the
 * same verdict from memory and by reads; and what is said of the JSON is so.
 *
 * The first byte: 1 a frame of zstd, else a tar in gzip members; 2 the tar's header gets the right
 * checksum; 4 it is cut into two members, or the frame is said to be larger; 8 little is allowed;
 * 16 a byte is wrong. */
#include "fuzz.h"
#include "codec/frames.h"
#include "toc/open.h"
#include "toc/open_frame.h"

#define BEFORE 600 /* bytes of the blob that are not looked at */
#define BLOB_MAX ((size_t)1 << 18)

static uint8_t blob_bytes[BLOB_MAX], text[BLOB_MAX];

typedef struct {
    sgz_status status;
    sgz_error err;
    int64_t json_size;
    size_t rows;
    uint8_t digest[32];
} outcome;

static int read_at(void *arg, int64_t offset, uint8_t *out, size_t len)
{
    size_t size = *(size_t *)arg;
    CHECK(offset >= 0 && (uint64_t)offset <= size && len <= size - (uint64_t)offset);
    memcpy(out, blob_bytes + offset, len);
    return 0;
}

static outcome open_toc(const sgz_blob *blob, const sgz_toc_frame *frame, int64_t max_size)
{
    outcome o = {0};
    sgz_toc *toc = sgz_toc_new();
    uint8_t checksum[32];
    CHECK(toc);
    if (frame) {
        o.status = sgz_toc_read_frame(fuzz_codecs_with_zstd(), blob, frame, max_size, BEFORE, toc,
                                      o.digest, checksum, &o.err);
        o.json_size = frame->size;
    } else {
        o.status = sgz_toc_read(fuzz_codecs_with_zstd(), blob, BEFORE, blob->size, max_size, BEFORE,
                                NULL, toc, &o.json_size, o.digest, &o.err);
    }
    CHECK(!o.status || o.err.message[0]);
    CHECK(o.status || (o.json_size >= 0 && o.json_size <= max_size));
    o.rows = toc->count;
    sgz_toc_free(toc);
    return o;
}

static size_t member(const uint8_t *data, size_t size, uint8_t *to, size_t cap)
{
    static sgz_deflater deflater;
    sgz_error err = {0};
    size_t made;
    if (!deflater.codecs)
        CHECK(!sgz_codec_deflater_init(&deflater, fuzz_codecs_with_zstd(), 1, &err));
    CHECK(!sgz_codec_deflate_member(&deflater, data, size, 0, to, cap, &made, &err));
    return made;
}

static size_t zstd_frame(size_t size, uint8_t *to, size_t cap)
{
    static sgz_framer framer;
    sgz_error err = {0};
    size_t made;
    if (!framer.codecs)
        CHECK(!sgz_codec_framer_init(&framer, fuzz_codecs_with_zstd(), 1, &err));
    CHECK(!sgz_codec_frame(&framer, text, size, to, cap, &made, &err));
    return made;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > BLOB_MAX / 4)
        return 0;
    uint8_t how = data[0];
    uint8_t *to = blob_bytes + BEFORE;
    size_t cap = BLOB_MAX - BEFORE, len = --size, made;
    memcpy(text, data + 1, size);
    if (how & 1) {
        made = zstd_frame(size, to, cap);
    } else {
        if (how & 2 && size >= 512)
            repair_checksum(text);
        size_t cut = how & 4 ? size / 2 : size;
        made = member(text, cut, to, cap);
        if (cut < size)
            made += member(text + cut, size - cut, to + made, cap - made);
    }
    if (how & 16)
        to[how * 7919u % made] ^= how;
    size_t end = BEFORE + made;
    sgz_toc_frame frame = {BEFORE, (int64_t)made, (int64_t)len + (how & 4 ? 1 : 0)};
    const sgz_toc_frame *at = how & 1 ? &frame : NULL;
    int64_t max_size = how & 8 ? 100 : (int64_t)BLOB_MAX;
    sgz_blob memory = {.data = blob_bytes, .fd = -1, .size = (int64_t)end};
    sgz_blob far = {.fd = -1, .read_at = read_at, .arg = &end, .size = (int64_t)end};
    outcome a = open_toc(&memory, at, max_size), b = open_toc(&far, at, max_size);
    CHECK(a.status == b.status);
    if (a.status)
        return 0;
    CHECK(a.json_size == b.json_size && a.rows == b.rows && !memcmp(a.digest, b.digest, 32));
    /* The JSON is the whole frame, or the tar's file. */
    size_t from = how & 1 ? 0 : 512;
    CHECK(from + (size_t)a.json_size <= len);
    CHECK(!(how & 1) || (size_t)a.json_size == len);
    CHECK(text[from] == '{' || strchr(" \t\r\n", text[from]));
    return 0;
}
