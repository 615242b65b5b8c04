/* The ordered end of a conversion: digests, the blob's bytes, TOC and footer. */
#ifndef SGZ_WRITE_BLOB_WRITER_H
#define SGZ_WRITE_BLOB_WRITER_H

#include "base/notes.h"
#include "codec/gzip.h"
#include "codec/hasher.h"
#include "io/sink.h"
#include "toc/toc.h"

typedef struct {
    uint8_t digest[32], diff_id[32], toc_digest[32];
    uint8_t tail_digest[32]; /* sha256 of the blob from toc_offset on */
    int64_t size, uncompressed_size, toc_offset;
    uint64_t toc_size;      /* of the JSON; 0: there is no TOC */
    /* Of zstd:chunked, where toc_offset is that of the compressed JSON: how long that is, and its
     * sha256; the tar-split, and the size of its JSON. Of a TOC that is kept apart: its blob's. */
    int64_t toc_packed, split_offset, split_packed, split_size;
    uint8_t toc_checksum[32];
    sgz_error unfit;        /* why there is no TOC */
    uint64_t entries, chunks, members;
    uint64_t reused;        /* members that were made of the input's tokens */
    sgz_notes notes;
} sgz_write_result;

typedef struct {
    const sgz_codecs *codecs;
    const sgz_sink *sink;
    sgz_hasher blob_sha, tar_sha;
    int64_t position;       /* bytes of the blob written */
    int64_t tar_size;
    uint64_t members, reused;
    int no_diff_id;         /* the tar is only counted */
    sgz_sha256 *tail;       /* not NULL: is shown the blob's bytes too */
} sgz_write_blob;

sgz_status sgz_write_blob_init(sgz_write_blob *w, const sgz_codecs *codecs,
                               const sgz_sink *sink,
                               sgz_error *err);
void sgz_write_blob_free(sgz_write_blob *w);
/* Append bytes to the blob: hash them, then write them. For each, one call at a time, and in
 * order. Beside them the next bytes of the tar are hashed (NULL: none), which are not counted, and
 * another stream. */
void sgz_write_blob_hash(sgz_write_blob *w, const sgz_hash_piece *pieces, size_t count,
                         const sgz_hash_piece *tar, const sgz_hash_stream *other);
sgz_status sgz_write_blob_store(sgz_write_blob *w, const uint8_t *data, size_t len,
                                sgz_error *err);
/* Both. */
sgz_status sgz_write_blob_put(sgz_write_blob *w, const uint8_t *data, size_t len,
                              sgz_error *err);
/* Hash bytes of the tar for the DiffID, and the messages (chunks) meanwhile. May run beside
 * sgz_write_blob_put. */
void sgz_write_blob_tar(sgz_write_blob *w, const uint8_t *data, size_t len,
                        const sgz_message *messages, size_t count);
/* The blob is complete, but for what the result has of its TOC. */
void sgz_write_blob_seal(sgz_write_blob *w, const sgz_toc *toc, sgz_write_result *result);
/* Write TOC and footer (format sections 2 and 3) and fill in the result. With `legacy`
 * both are those of google/crfs; with `apart` the TOC goes there, not into the blob, and the footer
 * says so. */
sgz_status sgz_write_blob_finish(sgz_write_blob *w, const sgz_toc *toc, int level, int legacy,
                                 const sgz_sink *apart, sgz_write_result *result, sgz_error *err);

#endif
