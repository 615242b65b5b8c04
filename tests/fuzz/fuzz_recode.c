/* Deflate data as tokens: any bytes are read with ISA-L's verdict and zlib's bytes, whole and in
 * pieces, and what was decoded comes back from members that are made of the tokens. */
#include "fuzz.h"
#undef CHECK
#include "../kernels/streams.h"
#include "codec/lz_read.h"
#include "codec/recode.h"

#define OUT_MAX ((size_t)1 << 17)

typedef struct {
    sgz_status status;
    size_t len;
    uint64_t members;
    int at_end, garbage;
    sgz_error err;
} outcome;

static uint8_t whole[OUT_MAX + SGZ_RECODE_SLACK], pieces[OUT_MAX], theirs[OUT_MAX];

/* Copies of exact length, so that reading or writing one byte too far is seen. */
static outcome read_all(const uint8_t *data, size_t size, size_t in_step, size_t out_step,
                        sgz_lz *lz, uint8_t *to)
{
    sgz_lz_reader *r;
    outcome o = {0};
    size_t at = 0, given = 0, made;
    CHECK(!sgz_codec_lz_reader_new(&r, fuzz_codecs(), &o.err));
    r->to = lz;
    do {
        size_t room = OUT_MAX - o.len < out_step ? OUT_MAX - o.len : out_step;
        if (at == given)
            given = size - at < in_step ? size : at + in_step;
        size_t left = given - at;
        uint8_t *in = malloc(left ? left : 1), *piece = malloc(room ? room : 1);
        CHECK(in && piece);
        memcpy(in, data + at, left);
        const uint8_t *next = in;
        o.status = sgz_codec_lz_read(r, &next, &left, piece, room, &made, &o.err);
        CHECK(made <= room && left <= given - at);
        memcpy(to + o.len, piece, made);
        o.len += made;
        at = given - left;
        free(in);
        free(piece);
    } while (!o.status && (made || at < size) && o.len < OUT_MAX);
    CHECK(r->out == (int64_t)o.len);
    o.members = r->inflater.members;
    o.at_end = sgz_codec_inflater_at_member_end(&r->inflater);
    o.garbage = r->inflater.garbage;
    sgz_codec_lz_reader_free(r);
    return o;
}

static outcome inflate_all(const uint8_t *data, size_t size, uint8_t *to)
{
    static sgz_inflater z;
    outcome o = {0};
    size_t made;
    if (!z.codecs)
        CHECK(!sgz_codec_inflater_init(&z, fuzz_codecs(), &o.err));
    sgz_codec_inflater_reset(&z, 0);
    do {
        o.status = sgz_codec_inflate(&z, &data, &size, to + o.len, OUT_MAX - o.len, &made, 0, &o.err);
        o.len += made;
    } while (!o.status && made);
    o.members = z.members;
    o.at_end = sgz_codec_inflater_at_member_end(&z);
    o.garbage = z.garbage;
    return o;
}

/* zlib's bytes of the first member, as far as it takes it. (It takes less: codes that leave values
 * unused it does not.) */
static void like_zlib(const uint8_t *data, size_t size, const outcome *o)
{
    z_stream z = {.next_in = data, .avail_in = (unsigned)size, .next_out = theirs, .avail_out = OUT_MAX};
    CHECK(!libs.inflate_init(&z, 15 + 16, "1.2.11", (int)sizeof z));
    int st = libs.inflate(&z, 0);
    size_t len = (size_t)(z.next_out - theirs);
    CHECK(st != 1 || (o->members && o->len >= len) || o->len == OUT_MAX);
    CHECK((st != 1 && st != 0) || !memcmp(theirs, whole, len < o->len ? len : o->len));
    libs.inflate_end(&z);
}

static void members_of(size_t size, const sgz_lz *lz, size_t step, size_t cut)
{
    static uint8_t packed[OUT_MAX + OUT_MAX / 8 + 1024];
    sgz_recoder *r;
    sgz_error err;
    size_t made;
    cut = size ? cut % size : 0;
    sgz_lz_piece parts[] = {{0, 0}, {cut, -1}, {cut + (size - cut) / 2, (int64_t)(cut + (size - cut) / 2)}};
    CHECK(!sgz_codec_recoder_new(&r, fuzz_codecs(), &err));
    sgz_codec_recode_begin(r, whole, lz, parts, step % 3 ? 1 : 3);
    for (size_t at = 0, n; at < size; at += n) {
        n = size - at < step ? size - at : step;
        CHECK(!sgz_codec_recode_member(r, at, n, packed, sgz_codec_member_bound(n), &made, &err));
        CHECK(made <= sgz_codec_member_bound(n));
        outcome o = inflate_all(packed, made, theirs);
        CHECK(!o.status && o.at_end && o.members == 1 && o.len == n && !memcmp(theirs, whole + at, n));
    }
    sgz_codec_recoder_free(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4)
        return 0;
    if (!libs.inflate)
        load_streams();
    size_t in_step = 1 + data[0], out_step = 1 + (size_t)data[1] * 64;
    size_t step = data[2] % 2 ? OUT_MAX : 1 + (size_t)data[2] * 100, cut = (size_t)data[3] << 8;
    data += 4;
    size -= 4;
    sgz_lz lz = {0}, other = {0};
    outcome a = read_all(data, size, size, OUT_MAX, &lz, whole);
    outcome b = read_all(data, size, in_step, out_step, &other, pieces);
    CHECK(!memcmp(whole, pieces, a.len < b.len ? a.len : b.len));
    outcome c = inflate_all(data, size, theirs);
    CHECK(!memcmp(whole, theirs, a.len < c.len ? a.len : c.len));
    if (a.len < OUT_MAX && c.len < OUT_MAX) {
        CHECK(a.status == b.status && a.len == b.len && a.members == b.members);
        CHECK(a.status || a.at_end == b.at_end);
        CHECK(a.members == c.members && a.len >= c.len && a.garbage == c.garbage);
        /* Where the input ends within what may become a symbol, ISA-L takes zeros for the rest; here it is
         * an error when there is no more. */
        if (!a.status && c.status)
            CHECK(!a.at_end && strstr(c.err.message, "symbol"));
        else
            CHECK(a.status == c.status && (a.status || a.at_end == c.at_end));
        CHECK(!a.status || !strcmp(a.err.message, c.err.message));
    }
    like_zlib(data, size, &a);
    if (!a.status) {
        members_of(a.len, &lz, step, cut);
        members_of(a.len, &other, step, cut);
    }
    sgz_lz_free(&lz);
    sgz_lz_free(&other);
    return 0;
}
