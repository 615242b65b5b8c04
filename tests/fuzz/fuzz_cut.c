/* The cut: any tar, read in pieces of any size, is divided into the same members, or
 * refused with the same words; members, chunks and slabs keep their promises.
 *
 * The first bytes choose the options; checksums are repaired, or little would get past the
 * first header. */
#include "write/cut.h"
#include "fuzz.h"

#include <string.h>

typedef struct { const uint8_t *data; size_t len, at, piece; } memory;

typedef struct {
    uint64_t hash;          /* of where members and chunks begin, and of their bytes */
    uint64_t tar_len;
    sgz_status status;
    char message[256];
} outcome;

static int64_t read_piece(void *arg, uint8_t *out, size_t cap)
{
    memory *m = arg;
    size_t n = m->len - m->at;
    n = n < cap ? n : cap;
    n = n < m->piece ? n : m->piece;
    memcpy(out, m->data + m->at, n);
    m->at += n;
    return (int64_t)n;
}

static void mix(outcome *o, const void *data, size_t len)
{
    const uint8_t *bytes = data;
    for (size_t i = 0; i < len; i++)
        o->hash = (o->hash ^ bytes[i]) * 1099511628211u;
}

static void check_slab(outcome *o, const sgz_write_slab *slab, const sgz_toc *toc)
{
    size_t at = 0, piece = 0;
    for (size_t i = 0; i < slab->member_count; i++) {
        const sgz_write_member *m = &slab->members[i];
        CHECK(m->start == at && m->len > 0 && m->first_piece == piece);
        at += m->len;
        piece += m->piece_count;
        uint64_t begin = o->tar_len + m->start;
        mix(o, &begin, sizeof begin);
        for (size_t k = m->first_piece; k < piece; k++) {
            const sgz_write_piece *p = &slab->pieces[k];
            CHECK(p->row < toc->count && p->file_row <= p->row && p->len > 0);
            CHECK(p->start == m->start + p->inner && p->start + p->len <= at);
            CHECK(toc->rows[p->row].chunk_size == (int64_t)p->len);
            mix(o, &p->inner, sizeof p->inner);
        }
    }
    CHECK(at == slab->len && piece == slab->piece_count && slab->len <= slab->cap);
    mix(o, slab->buf, slab->len);
    o->tar_len += slab->len;
}

static outcome cut(const uint8_t *data, size_t len, size_t piece,
                   const sgz_write_cut_options *options)
{
    outcome o = {.hash = 14695981039346656037u};
    memory m = {data, len, 0, piece};
    sgz_source source = {.fd = -1, .read = read_piece, .arg = &m};
    sgz_error err = {0};
    sgz_input input;
    sgz_write_slab slab;
    int end = 0;
    sgz_toc *toc = sgz_toc_new();
    CHECK(toc && !sgz_io_input_open(&input, fuzz_codecs(), source, &err));
    CHECK(!sgz_io_input_peek(&input, &err));
    if ((o.status = sgz_io_input_begin(&input, 0, &err))) { /* another compression's magic */
        memcpy(o.message, err.message, sizeof o.message);
        sgz_io_input_close(&input);
        sgz_toc_free(toc);
        return o;
    }
    sgz_write_cutter *cutter = sgz_write_cutter_new(&input, toc, options);
    CHECK(cutter);
    const sgz_write_filler *filler = sgz_write_cutter_filler(cutter);
    CHECK(!sgz_write_slab_init(&slab, filler->slab_size, &err));
    while (!o.status && !end) {
        o.status = filler->fill(filler->arg, &slab, &end, &err);
        if (!o.status) {
            CHECK(end || slab.len);
            check_slab(&o, &slab, toc);
        }
        if (o.tar_len > (64u << 20)) /* a sparse file may declare a lot */
            break;
    }
    memcpy(o.message, err.message, sizeof o.message);
    sgz_write_slab_free(&slab);
    sgz_write_cutter_free(cutter);
    sgz_io_input_close(&input);
    sgz_toc_free(toc);
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 8)
        return 0;
    sgz_write_cut_options options = {
        .chunk_size = 1024 << (data[0] % 4),
        .min_chunk_size = data[0] & 16 ? 3000 : 0,
        .lossless = (data[0] >> 5) & 1,
        .landmarks = !((data[0] >> 5) & 1),
    };
    size_t piece = 1 + data[1] * (size_t)(1 + data[2]);
    size_t len = size - 8;
    uint8_t *tar = malloc(len + 1);
    CHECK(tar);
    memcpy(tar, data + 8, len);
    for (size_t at = 0; at + SGZ_TAR_BLOCK <= len && data[3] % 8; at += SGZ_TAR_BLOCK)
        if (!memcmp(tar + at + 257, "ustar", 5))
            repair_checksum(tar + at);
    if (sgz_io_wrap_of(tar, len) == SGZ_WRAP_NONE) {
        outcome whole = cut(tar, len, len + 1, &options), pieces = cut(tar, len, piece, &options);
        CHECK(whole.status == pieces.status && !strcmp(whole.message, pieces.message));
        CHECK(whole.status || whole.hash == pieces.hash);
        CHECK(whole.status || whole.tar_len == pieces.tar_len);
    }
    free(tar);
    return 0;
}
