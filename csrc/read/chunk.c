#include "read/chunk.h"

#include <stdlib.h>
#include <string.h>

#define SINK ((size_t)64 << 10)

sgz_status sgz_read_reader_init(sgz_reader *r, const sgz_codecs *codecs, const sgz_spans *spans,
                                const sgz_blob *blob, sgz_error *err)
{
    memset(r, 0, sizeof *r);
    r->spans = spans;
    r->member = -1;
    r->sink = malloc(SINK);
    if (!r->sink)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to decode with");
    sgz_status st = sgz_codec_decoder_init(&r->decoder, codecs, blob, err);
    if (st) {
        free(r->sink);
        memset(r, 0, sizeof *r);
        return st;
    }
    st = sgz_codec_sha256_new(codecs, &r->sha, err);
    if (st) {
        sgz_codec_decoder_free(&r->decoder);
        free(r->sink);
        memset(r, 0, sizeof *r);
    }
    return st;
}

void sgz_read_reader_free(sgz_reader *r)
{
    if (!r->sink)
        return;
    sgz_codec_sha256_free(r->decoder.inflater.codecs, &r->sha);
    sgz_codec_decoder_free(&r->decoder);
    free(r->sink);
    memset(r, 0, sizeof *r);
}

/* Say whose bytes an error of the decoder is about. */
static sgz_status blame(const sgz_reader *r, const sgz_entry *file, sgz_status st, sgz_error *err)
{
    if (err && st != SGZ_ECALLBACK && !err->name[0]) {
        sgz_error inner = *err;
        sgz_base_fail(err, st, inner.offset, r->spans->toc->arena + file->name_off,
                      file->name_len, "%s", inner.message);
        err->sys_errno = inner.sys_errno;
    }
    return st;
}

/* Decode exactly len bytes, or say whose bytes are missing. With `crc` the trailers that
 * pass must be right, also one right behind the last byte. */
static sgz_status exactly(sgz_reader *r, const sgz_entry *e, const sgz_entry *file, int crc,
                          uint8_t *out, size_t len, sgz_error *err)
{
    sgz_decoder *d = &r->decoder;
    size_t got = 0;
    sgz_status st;
    if (crc) {
        size_t n;
        uint64_t members;
        do {
            members = d->inflater.members;
            st = sgz_codec_decoder_read_member(d, out + got, len - got, &n, err);
            got += n;
        } while (!st && got < len && (n || d->inflater.members != members));
    } else {
        st = sgz_codec_decoder_read(d, out, len, &got, err);
        /* Decoded bytes are the ones wanted, even if what follows is broken. */
        if (got == len && st) {
            r->member = -1;
            st = SGZ_OK;
        }
    }
    if (!st && got < len)
        return sgz_base_fail(err, SGZ_EGZIP, e->offset, r->spans->toc->arena + file->name_off,
                             file->name_len, "the data of this chunk ends before its %lld bytes",
                             (long long)e->chunk_size);
    return st ? blame(r, file, st, err) : SGZ_OK;
}

sgz_status sgz_read_fail_run(const sgz_toc *toc, const sgz_entry *file, const sgz_entry *chunk,
                             sgz_error *err)
{
    return sgz_base_fail(err, SGZ_EGZIP, chunk->offset, toc->arena + file->name_off,
                         file->name_len,
                         "this chunk has no digest, and its gzip member goes on for too long to "
                         "check the CRC; read it without verification");
}

/* The rest of the member that holds the chunk's last byte, for its CRC. */
static sgz_status check_crc(sgz_reader *r, const sgz_entry *e, const sgz_entry *file,
                            sgz_error *err)
{
    int ended;
    sgz_status st = sgz_codec_decoder_finish(&r->decoder, SGZ_RUN_MAX, &ended, err);
    if (st)
        return blame(r, file, st, err);
    return ended ? SGZ_OK : sgz_read_fail_run(r->spans->toc, file, e, err);
}

sgz_status sgz_read_chunk(sgz_reader *r, size_t span, int verify, int64_t from, size_t len,
                          uint8_t *out, sgz_error *err)
{
    const sgz_spans *spans = r->spans;
    const sgz_entry *e = &spans->toc->rows[spans->rows[span]];
    const sgz_entry *file = &spans->toc->rows[spans->files[span]];
    const sgz_codecs *codecs = r->decoder.inflater.codecs;
    const uint8_t *expected = verify ? sgz_read_span_digest(spans, span) : NULL;
    int hash = expected != NULL, crc = verify && !hash;

    /* Positions count from the chunk's first byte; what precedes it is negative. */
    int64_t at = -e->inner_offset, wanted_end = from + (int64_t)len;
    if (!crc && r->member == e->offset && r->inner <= e->inner_offset)
        at += r->inner;
    else
        sgz_codec_decoder_seek(&r->decoder, e->offset, sgz_read_span_end(spans, span));
    if (hash)
        sgz_codec_sha256_init(codecs, &r->sha);
    r->member = e->offset;
    int64_t stop = verify ? e->chunk_size : wanted_end;
    while (at < stop) {
        uint8_t *to = r->sink;
        int64_t until = at < 0 ? 0 : at < from ? from : at < wanted_end ? wanted_end : stop;
        if (until > stop)
            until = stop;
        size_t n = (uint64_t)(until - at) < SINK ? (size_t)(until - at) : SINK;
        if (at >= from && at < wanted_end) {
            to = out + (at - from);
            n = (size_t)(until - at);
            /* Hash while the bytes are still in the cache. */
            if (hash && n > 4 * SINK)
                n = 4 * SINK;
        }
        sgz_status st = exactly(r, e, file, crc, to, n, err);
        if (st) {
            r->member = -1;
            return st;
        }
        if (hash && at >= 0)
            sgz_codec_sha256_update(codecs, &r->sha, to, n);
        at += (int64_t)n;
    }
    r->inner = e->inner_offset + at;
    if (crc)
        r->member = -1;
    if (hash) {
        uint8_t digest[32];
        sgz_codec_sha256_final(codecs, &r->sha, digest);
        if (memcmp(digest, expected, 32))
            return sgz_base_fail_digest(err, e->offset, spans->toc->arena + file->name_off,
                                        file->name_len, expected, digest, "a chunk");
    }
    return crc ? check_crc(r, e, file, err) : SGZ_OK;
}
