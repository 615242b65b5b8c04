/* Entry points: any bytes are scanned to what they inflate to, with the same points however the
 * input comes; and from each point decoding gives the same bytes up to the next one. */
#include "fuzz.h"
#include "codec/blocks.h"
#include "codec/scan.h"

#define OUT_MAX (1 << 20)

typedef struct {
    sgz_status status;
    size_t len;
    int garbage;
    sgz_points points;
} outcome;

/* `in_step` bytes in and `out_step` bytes out at a time. */
static outcome scan_all(const uint8_t *data, size_t size, uint8_t *out, size_t in_step,
                        size_t out_step, sgz_scan_options options)
{
    sgz_error err = {0};
    outcome o = {0};
    sgz_scanner *s;
    options.points = &o.points;
    CHECK(!sgz_codec_scanner_new(&s, fuzz_codecs(), &options, &err));
    size_t at = 0;
    int64_t settled = 0;
    while (!o.status && o.len < OUT_MAX) {
        /* Copies of exact length, so that reading or writing one byte too far is seen. */
        size_t in_len = size - at < in_step ? size - at : in_step;
        size_t room = OUT_MAX - o.len < out_step ? OUT_MAX - o.len : out_step;
        size_t left = in_len, made = 0, points = o.points.count;
        uint8_t *in = malloc(in_len ? in_len : 1), *piece = malloc(room);
        CHECK(in && piece);
        memcpy(in, data + at, in_len);
        const uint8_t *next = in;
        o.status = sgz_codec_scan(s, &next, &left, piece, room, &made, &err);
        CHECK(made <= room && left <= in_len);
        CHECK(!o.status || (o.status == SGZ_EDATA && err.message[0]));
        for (; points < o.points.count; points++)
            CHECK(o.points.at[points].out >= settled);
        settled = sgz_codec_scan_settled(s);
        memcpy(out + o.len, piece, made);
        o.len += made;
        at += in_len - left;
        free(in);
        free(piece);
        if (at == size && !made)
            break;
        CHECK(o.status || made || left < in_len);
    }
    o.garbage = sgz_codec_scan_garbage(s);
    if (!o.status && o.len < OUT_MAX) {
        o.status = sgz_codec_scan_end(s, &err);
        CHECK(o.status || (o.points.size == (int64_t)size && o.points.end == (int64_t)o.len));
    }
    sgz_codec_scanner_free(s);
    return o;
}

static void enter_all(const uint8_t *data, size_t size, const uint8_t *out, const outcome *o)
{
    static sgz_isal_inflate_state s;
    static uint8_t window[SGZ_HISTORY_MAX], again[OUT_MAX];
    const sgz_isal *isal = &fuzz_codecs()->isal;
    isal->inflate_init(&s);
    for (size_t i = 0; i < o->points.count; i++) {
        const sgz_point *p = &o->points.at[i];
        CHECK(p->history <= SGZ_HISTORY_MAX && p->history <= p->out && p->skip < 8);
        CHECK(!i || (p->offset > p[-1].offset && p->out > p[-1].out));
        const uint8_t *stored = p->history ? o->points.windows + p->window : NULL;
        if (p->packed) {
            sgz_isal_enter(isal, &s, 0, 0, NULL, 0);
            s.next_in = (uint8_t *)stored;
            s.avail_in = p->packed;
            s.next_out = window;
            s.avail_out = p->history;
            CHECK(!isal->inflate(&s) && s.block_state == SGZ_ISAL_BLOCK_FINISH && !s.avail_out);
        } else if (p->history) {
            memcpy(window, stored, p->history);
        }
        int64_t end = i + 1 < o->points.count ? p[1].out : (int64_t)o->len;
        const uint8_t *in = data + p->offset;
        sgz_isal_enter(isal, &s, p->skip ? *in >> p->skip : 0, p->skip ? 8 - p->skip : 0, window,
                       p->history);
        in += p->skip != 0;
        s.next_in = (uint8_t *)in;
        s.avail_in = (uint32_t)(data + size - in);
        s.next_out = again;
        s.avail_out = (uint32_t)(end - p->out);
        CHECK(isal->inflate(&s) >= 0); /* perhaps only to the member's end */
        CHECK(!memcmp(again, out + p->out, (size_t)(s.next_out - again)));
        CHECK(!s.avail_out || s.block_state == SGZ_ISAL_BLOCK_FINISH);
    }
}

static void same_points(const sgz_points *a, const sgz_points *b)
{
    CHECK(a->count == b->count && a->windows_len == b->windows_len);
    for (size_t i = 0; i < a->count; i++)
        CHECK(!memcmp(&a->at[i].offset, &b->at[i].offset, 24) &&
              a->at[i].packed == b->at[i].packed && a->at[i].history == b->at[i].history &&
              a->at[i].skip == b->at[i].skip);
    CHECK(!a->windows_len || !memcmp(a->windows, b->windows, a->windows_len));
}

/* Who wants just the points that were found gets them; but none at the end. */
static void want(const uint8_t *data, size_t size, outcome *o, uint8_t *out, size_t in_step,
                 size_t out_step)
{
    sgz_points wanted = o->points;
    sgz_point *at = calloc(wanted.count + 1, sizeof *at);
    CHECK(at);
    for (size_t i = 0; i < wanted.count; i++)
        at[i] = (sgz_point){.offset = wanted.at[i].offset, .out = wanted.at[i].out,
                            .skip = wanted.at[i].skip};
    wanted.at = at;
    outcome again = scan_all(data, size, out, in_step, out_step,
                             (sgz_scan_options){.wanted = &wanted});
    CHECK(!again.status && again.len == o->len);
    while (o->points.count > 1 && at[o->points.count - 1].out == (int64_t)o->len)
        o->points.windows_len = o->points.at[--o->points.count].window;
    same_points(&o->points, &again.points);
    sgz_codec_points_free(&again.points);
    free(at);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t plain[OUT_MAX], whole[OUT_MAX], pieces[OUT_MAX];
    static sgz_inflater z;
    sgz_error err = {0};
    if (size < 3)
        return 0;
    size_t in_step = 1 + data[0] * 8, out_step = 1 + data[1] * 256;
    sgz_scan_options options = {.span = SGZ_SPAN_MIN, .tries = 1 + data[2] % 4,
                                .raw = data[2] / 4 % 2};
    data += 3;
    size -= 3;
    if (!z.codecs)
        CHECK(!sgz_codec_inflater_init(&z, fuzz_codecs(), &err));
    sgz_codec_inflater_reset(&z, 0);
    const uint8_t *in = data;
    size_t left = size, len = 0, made;
    sgz_status status;
    do {
        status = sgz_codec_inflate(&z, &in, &left, plain + len, OUT_MAX - len, &made, 0, &err);
        len += made;
    } while (!status && len < OUT_MAX && (left || made));

    outcome a = scan_all(data, size, whole, size ? size : 1, OUT_MAX, options);
    outcome b = scan_all(data, size, pieces, in_step, out_step, options);
    CHECK(!memcmp(plain, whole, a.len < len ? a.len : len));
    CHECK(!memcmp(whole, pieces, a.len < b.len ? a.len : b.len));
    if (len < OUT_MAX && a.len < OUT_MAX) {
        int right = !status && sgz_codec_inflater_at_member_end(&z) && z.members;
        CHECK(right == !a.status && right == !b.status);
        if (right) {
            CHECK(a.len == len && b.len == len && a.garbage == z.garbage && b.garbage == z.garbage);
            same_points(&a.points, &b.points);
            enter_all(data, size, whole, &a);
            if (!options.raw)
                want(data, size, &a, pieces, in_step, out_step);
        }
    }
    sgz_codec_points_free(&a.points);
    sgz_codec_points_free(&b.points);
    return 0;
}
