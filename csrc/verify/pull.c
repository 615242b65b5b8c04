#include "verify/pull.h"

#include <stdlib.h>

#define PIECE ((size_t)256 << 10)

sgz_status sgz_verify_frame_open(sgz_verify_frame *frame, const sgz_codecs *codecs,
                                 const sgz_blob *blob, const sgz_points *points,
                                 sgz_toc_frame place, sgz_error *err)
{
    frame->place = place;
    sgz_status st = sgz_codec_decoder_init(&frame->decoder, codecs, blob, points, err);
    frame->decoder.strict = 1;
    return st ? st : sgz_codec_decoder_enter(&frame->decoder, place.offset,
                                             place.offset + place.packed, err);
}

void sgz_verify_frame_free(sgz_verify_frame *frame)
{
    if (frame->decoder.codecs)
        sgz_codec_decoder_free(&frame->decoder);
}

static sgz_status read_frame(void *arg, void *out, size_t cap, size_t *got, sgz_error *err)
{
    sgz_verify_frame *frame = arg;
    const sgz_toc_frame *place = &frame->place;
    sgz_status st = sgz_codec_decoder_read(&frame->decoder, out, cap, got, err);
    frame->made += (int64_t)*got;
    if (!st && place->size >= 0 &&
        (frame->made > place->size || (*got < cap && frame->made < place->size)))
        st = sgz_base_fail(err, SGZ_EDATA, place->offset, NULL, 0,
                           "it decodes to %s than the %lld bytes that it should",
                           frame->made > place->size ? "more" : "less", (long long)place->size);
    return st;
}

sgz_verify_pull sgz_verify_frame_pull(sgz_verify_frame *frame)
{
    return (sgz_verify_pull){read_frame, frame, frame->place.offset};
}

sgz_status sgz_verify_frame_digest(const sgz_codecs *codecs, const sgz_blob *blob,
                                   sgz_toc_frame place, uint8_t digest[32], sgz_error *err)
{
    sgz_sha256 sha;
    uint8_t *piece = malloc(PIECE);
    if (!piece)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "no memory to verify with");
    sgz_status st = sgz_codec_sha256_new(codecs, &sha, err);
    if (st) {
        free(piece);
        return st;
    }
    sgz_codec_sha256_init(codecs, &sha);
    for (int64_t at = 0; at < place.packed && !st;) {
        size_t n = place.packed - at < (int64_t)PIECE ? (size_t)(place.packed - at) : PIECE;
        st = sgz_codec_blob_read(blob, place.offset + at, piece, n, err);
        if (!st)
            sgz_codec_sha256_update(codecs, &sha, piece, n);
        at += (int64_t)n;
    }
    if (!st)
        sgz_codec_sha256_final(codecs, &sha, digest);
    sgz_codec_sha256_free(codecs, &sha);
    free(piece);
    return st;
}
