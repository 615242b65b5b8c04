/* What the parts of applying a patch share. */
#ifndef SGZ_PATCH_INTERNAL_H
#define SGZ_PATCH_INTERNAL_H

#include "base/varint.h"
#include "patch/apply.h"
#include "patch/ring.h"
#include "patch/toc.h"
#include "toc/footer.h"

/* What the producing thread works with. */
typedef struct {
    const sgz_codecs *codecs;
    sgz_patch_reader *reader;
    sgz_patch_head head;
    const sgz_blob *base;
    sgz_patch_ring ring;
    int64_t position;           /* bytes of NEW so far */
    int64_t max_size;           /* that NEW may have; 0: SGZ_PATCH_NEW_TIMES says it */
    uint64_t inflated;          /* bytes of the frames so far, for that */
    int64_t copy_end;           /* in BASE, of the COPY before */
    uint64_t spent;             /* work done; see patch/ops.c */
    sgz_patch_result result;

    /* Members: made when the first comes. */
    sgz_decoder decoder;
    sgz_deflater deflater;
    int64_t member;             /* of BASE, that the decoder is in; -1: in none */
    uint64_t member_at;         /* how far */
    uint8_t *contents, *packed;
    size_t contents_cap, packed_cap;

    /* The TOC, once its first frame came. */
    int in_toc;
    sgz_patch_lines lines;
    sgz_toc_footer toc;
} sgz_patch_maker;

/* One apply: the maker, and where its bytes go. */
struct sgz_patch_apply {
    sgz_patch_maker maker;
    const sgz_sink *sink;
    int spool;
    int64_t hold;               /* bytes of NEW from here on go to the spool */
    int64_t written;            /* bytes of NEW, by the writing thread */
};

/* Whether NEW would become larger than the caller allows: SGZ_EPATCH at the head. */
sgz_status sgz_patch_check_size(const sgz_patch_maker *m, sgz_error *err);
/* Count bytes of NEW; SGZ_EPATCH where it becomes larger than it may. */
sgz_status sgz_patch_advance(sgz_patch_maker *m, uint64_t len, sgz_error *err);
/* Bytes of NEW that come next; SGZ_EPATCH for more than there may be. */
sgz_status sgz_patch_emit(sgz_patch_maker *m, const uint8_t *data, size_t len, sgz_error *err);
/* Bytes that may still come before the TOC if the patch makes one, else to NEW's end. */
uint64_t sgz_patch_space(const sgz_patch_maker *m);
/* What a frame 'M' or 'T' says, the reader's current one. */
sgz_status sgz_patch_apply_members(sgz_patch_maker *m, sgz_error *err);
sgz_status sgz_patch_apply_toc(sgz_patch_maker *m, sgz_error *err);
/* The TOC's member and the footer, after its last frame. */
sgz_status sgz_patch_apply_end(sgz_patch_maker *m, sgz_error *err);
void sgz_patch_maker_free(sgz_patch_maker *m);
/* Write bytes of NEW, or keep them on the spool: from `hold` on. For a ring. */
sgz_status sgz_patch_write_new(void *arg, const uint8_t *data, size_t len, sgz_error *err);
sgz_status sgz_patch_release_held(sgz_patch_apply *a, sgz_error *err);

#endif
