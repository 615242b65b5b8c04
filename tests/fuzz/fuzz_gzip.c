/* Gzip members: any bytes inflate to the same thing whole and in pieces, within their
 * buffers, and whatever was inflated before; and any bytes come back from a member that was
 * made of them. */
#include "fuzz.h"
#include "codec/gzip.h"

#include <string.h>

#define OUT_MAX (1 << 17)

typedef struct {
    sgz_status status;
    size_t len;
    uint64_t members;
    int at_end, garbage, stuck;
} outcome;

/* Inflate everything, `in_step` bytes in and `out_step` bytes out at a time. */
static outcome inflate_all(const uint8_t *data, size_t size, uint8_t *out, size_t in_step,
                           size_t out_step, int stop)
{
    static sgz_inflater z; /* kept: a reset must leave nothing behind */
    static uint8_t before;
    sgz_error err = {0};
    outcome o = {0};
    if (!z.codecs)
        CHECK(sgz_codec_inflater_init(&z, fuzz_codecs(), &err) == SGZ_OK);
    memset(z.state->tmp_out, ++before, sizeof z.state->tmp_out);
    sgz_codec_inflater_reset(&z, 1000);
    size_t at = 0, given = 0;
    while (o.len < OUT_MAX) {
        if (given == at)
            given = size - at < in_step ? size : at + in_step;
        /* Copies of exact length, so that reading or writing one byte too far is seen. */
        size_t in_len = given - at, room = OUT_MAX - o.len < out_step ? OUT_MAX - o.len : out_step;
        uint8_t *in = malloc(in_len ? in_len : 1), *piece = malloc(room);
        CHECK(in && piece);
        memcpy(in, data + at, in_len);
        const uint8_t *next = in;
        size_t left = in_len, made = 0;
        o.status = sgz_codec_inflate(&z, &next, &left, piece, room, &made, stop, &err);
        CHECK(made <= room);
        if (o.status) {
            /* Where the input stands after an error is nobody's promise. */
            CHECK(o.status == SGZ_EDATA && err.message[0]);
            CHECK(err.offset >= 1000 && err.offset <= 1000 + (int64_t)size);
            left = in_len;
        }
        CHECK(left <= in_len && (o.status || next == in + (in_len - left)));
        CHECK(o.status || z.base == 1000 + (int64_t)(at + in_len - left));
        memcpy(out + o.len, piece, made);
        o.len += made;
        at += in_len - left;
        free(in);
        free(piece);
        if (o.status)
            break;
        if (in_len == left && !made) {
            if (at < size && given < size) {
                given = size - given < in_step ? size : given + in_step;
                continue;
            }
            o.stuck = at < size;
            break;
        }
    }
    o.members = z.members;
    o.garbage = z.garbage;
    o.at_end = sgz_codec_inflater_at_member_end(&z);
    return o;
}

static void round_trip(const uint8_t *data, size_t size, int level, int toc_extra,
                       uint8_t *back)
{
    static sgz_deflater deflaters[SGZ_LEVEL_MAX + 1];
    sgz_deflater *d = &deflaters[level];
    sgz_error err = {0};
    if (level > SGZ_LEVEL_ISAL_MAX && !fuzz_codecs()->libdeflate.alloc_compressor)
        return;
    if (!d->codecs)
        CHECK(sgz_codec_deflater_init(d, fuzz_codecs(), level, &err) == SGZ_OK);
    size_t cap = sgz_codec_member_bound(size), made = 0;
    uint8_t *member = malloc(cap);
    CHECK(member);
    CHECK(sgz_codec_deflate_member(d, data, size, toc_extra, member, cap, &made, &err) ==
          SGZ_OK);
    CHECK(made <= cap);
    size_t header = 0;
    int is_member;
    CHECK(sgz_codec_gzip_header(fuzz_codecs(), member, made, &header, &is_member, &err) == SGZ_OK &&
          header >= SGZ_GZIP_HEADER);
    outcome o = inflate_all(member, made, back, made, OUT_MAX, 0);
    CHECK(o.status == SGZ_OK && o.members == 1 && o.at_end && !o.garbage && o.len == size);
    CHECK(!memcmp(back, data, size));
    free(member);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t whole[OUT_MAX], pieces[OUT_MAX];
    if (size < 3)
        return 0;
    size_t in_step = 1 + data[0], out_step = 1 + data[1] * 64;
    int level = 1 + data[2] % 16, toc_extra = data[2] / 16 % 2, stop = data[2] / 32 % 2;
    data += 3;
    size -= 3;

    outcome a = inflate_all(data, size, whole, size ? size : 1, OUT_MAX, stop);
    outcome again = inflate_all(data, size, pieces, size ? size : 1, OUT_MAX, stop);
    CHECK(a.status == again.status && a.len == again.len && a.members == again.members);
    CHECK(!memcmp(whole, pieces, a.len));
    outcome b = inflate_all(data, size, pieces, in_step, out_step, stop);
    CHECK(!a.stuck && !b.stuck);
    CHECK(!memcmp(whole, pieces, a.len < b.len ? a.len : b.len));
    if (a.len < OUT_MAX && b.len < OUT_MAX) {
        CHECK(a.status == b.status && a.members == b.members);
        if (!a.status) {
            CHECK(a.len == b.len && a.at_end == b.at_end && a.garbage == b.garbage);
        }
    }
    if (level <= SGZ_LEVEL_MAX)
        round_trip(data, size, level, toc_extra, whole);
    return 0;
}
