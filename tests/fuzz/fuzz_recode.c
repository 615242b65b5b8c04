/* Deflate data as tokens: any bytes are read with ISA-L's verdict and error and zlib's bytes, whole and
 * in pieces, and what was decoded comes back from members that are made of the tokens. */
#include "fuzz.h"
#undef CHECK
#include "../kernels/streams.h"
#include "base/bytes.h"
#include "codec/lz_read.h"
#include "codec/recode.h"

#define OUT_MAX ((size_t)1 << 17)
#define MANY 256 /* pieces and members, not many more of each */

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

static sgz_inflater z;

static outcome inflate_all(const uint8_t *data, size_t size, uint8_t *to)
{
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

/* What zlib says, and what it is here. */
static const struct { const char *zlib, *here; } SAYINGS[] = {
    {"incorrect header check", "not a gzip member"},
    {"unknown compression method", "compression method"},
    {"unknown header flags set", "reserved flags"},
    {"header crc mismatch", "CRC-16"},
    {"invalid block type", "deflate block"},
    {"invalid stored block lengths", "deflate block"},
    {"too many length or distance symbols", "deflate block"},
    {"invalid bit length repeat", "deflate block"},
    {"invalid code -- missing end-of-block", "deflate block"},
    {"invalid literal/length code", "deflate symbol"},
    {"invalid distance code", "deflate symbol"},
    {"invalid distance too far back", "distance too far back"},
    {"incorrect data check", "CRC-32"},
    {"incorrect length check", "length is"},
};

/* zlib's verdict and bytes. It takes less: codes that leave values unused it does not. */
static void like_zlib(const uint8_t *data, size_t size, const outcome *o)
{
    static const uint8_t magic[] = {0x1f, 0x8b};
    z_stream s = {.next_in = data, .avail_in = (unsigned)size, .next_out = theirs, .avail_out = OUT_MAX};
    uint64_t members = 0;
    int st = 1, garbage = 0;
    const char *said, *here = NULL;
    CHECK(!libs.inflate_init(&s, 15 + 16, "1.2.11", (int)sizeof s));
    while (st == 1 && s.avail_in && s.avail_out) {
        if (members && memcmp(s.next_in, magic, s.avail_in < 2 ? 1 : 2)) {
            for (garbage = 1; s.avail_in; s.avail_in--)
                garbage = *s.next_in++ ? SGZ_GARBAGE : garbage;
            break;
        }
        size = s.avail_in;
        CHECK(!libs.inflate_reset(&s));
        st = libs.inflate(&s, 0);
        members += st == 1;
    }
    size_t len = (size_t)(s.next_out - theirs);
    said = s.msg;
    libs.inflate_end(&s);
    CHECK(!memcmp(theirs, whole, len < o->len ? len : o->len));
    if (len == OUT_MAX || o->len == OUT_MAX)
        return;
    if (st == 1) {
        CHECK(!o->status && o->at_end && o->garbage == garbage);
    } else if (st == -3) {
        for (size_t i = 0; i < sizeof SAYINGS / sizeof *SAYINGS; i++)
            if (!strcmp(said, SAYINGS[i].zlib))
                here = SAYINGS[i].here;
        /* Headers and trailers are judged whole. */
        int part = size < SGZ_GZIP_HEADER || (!strcmp(said, "incorrect data check") && s.avail_in < 4);
        if (!here || (part && !o->status)) {
            CHECK(o->members >= members && o->len >= len);
            return;
        }
        CHECK(o->status && strstr(o->err.message, here));
    } else { /* cut off; what is wrong whatever comes is told all the same */
        CHECK(o->status ? strstr(o->err.message, "deflate") || strstr(o->err.message, "not a gzip")
                        : !o->at_end);
    }
    CHECK(o->members == members && o->len == len);
}

static int same_error(const sgz_error *a, const sgz_error *b)
{
    return !strcmp(a->message, b->message) && a->offset == b->offset;
}

static void members_of(size_t size, const sgz_lz *lz, size_t step, size_t cut)
{
    static uint8_t packed[OUT_MAX + OUT_MAX / 8 + 1024];
    static sgz_recoder *r; /* kept: nothing of what it made before may matter */
    sgz_error err;
    size_t made;
    cut = size ? cut % size : 0;
    step += size / MANY;
    sgz_lz_piece parts[] = {{0, 0}, {cut, -1}, {cut + (size - cut) / 2, (int64_t)(cut + (size - cut) / 2)}};
    if (!r)
        CHECK(!sgz_codec_recoder_new(&r, fuzz_codecs(), &err));
    sgz_codec_recode_begin(r, whole, lz, parts, step % 3 ? 1 : 3);
    for (size_t at = 0, n; at < size; at += n) {
        n = size - at < step ? size - at : step;
        CHECK(!sgz_codec_recode_member(r, at, n, packed, sgz_codec_member_bound(n), &made, &err));
        CHECK(made <= sgz_codec_member_bound(n));
        outcome o = inflate_all(packed, made, theirs);
        CHECK(!o.status && o.at_end && o.members == 1 && o.len == n && !memcmp(theirs, whole + at, n));
    }
}

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Mostly with the right check sums, or little would get past a member that was changed. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
    size = LLVMFuzzerMutate(data, size, max);
    for (int n = 0; n < 8 && seed % 8 && size > 4; n++) {
        outcome o = inflate_all(data + 4, size - 4, theirs);
        if (!o.status || (!strstr(o.err.message, "CRC-32") && !strstr(o.err.message, "length is")))
            break;
        sgz_put_le32(data + 4 + z.base - SGZ_GZIP_TRAILER, z.crc);
        sgz_put_le32(data + 4 + z.base - SGZ_GZIP_TRAILER + 4, z.size);
    }
    return size;
}

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
    in_step += size / MANY;
    out_step += OUT_MAX / MANY;
    sgz_lz lz = {0}, other = {0};
    outcome a = read_all(data, size, size, OUT_MAX, &lz, whole);
    outcome b = read_all(data, size, in_step, out_step, &other, pieces);
    CHECK(!memcmp(whole, pieces, a.len < b.len ? a.len : b.len));
    outcome c = inflate_all(data, size, theirs);
    CHECK(!memcmp(whole, theirs, a.len < c.len ? a.len : c.len));
    if (a.len < OUT_MAX && c.len < OUT_MAX) {
        CHECK(a.status == b.status && a.len == b.len && a.members == b.members && a.garbage == b.garbage);
        CHECK(a.status == c.status && a.len >= c.len && a.members == c.members && a.garbage == c.garbage);
        if (a.status)
            CHECK(same_error(&a.err, &b.err) && same_error(&a.err, &c.err));
        else
            CHECK(a.at_end == b.at_end && a.at_end == c.at_end && (!a.at_end || a.len == c.len));
    }
    like_zlib(data, size, &a);
    members_of(a.len, &lz, step, cut);
    members_of(b.len, &other, step, cut);
    sgz_lz_free(&lz);
    sgz_lz_free(&other);
    return 0;
}
