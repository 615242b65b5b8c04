#include "patch/toc.h"

#include "toc/open.h"

#include <stdlib.h>
#include <string.h>

#define BUF_CAP ((size_t)256 << 10)

#define KEY "\"offset\": "
#define KEY_LEN (sizeof KEY - 1)
#define DIGITS_MAX 19
#define OFFSET_LINE_MAX (KEY_LEN + DIGITS_MAX + 2) /* without its blanks */

static sgz_status fail(sgz_error *err, const char *message)
{
    return sgz_base_fail(err, SGZ_EPATCH, -1, NULL, 0, "%s", message);
}

sgz_status sgz_patch_lines_init(sgz_patch_lines *t, const sgz_codecs *codecs,
                                const sgz_blob *blob, int64_t offset, int64_t end,
                                uint64_t json_size, const sgz_base_stop *stop,
                                sgz_patch_take_text take, void *arg, sgz_error *err)
{
    int64_t found;
    memset(t, 0, sizeof *t);
    t->left = json_size;
    t->take = take;
    t->arg = arg;
    t->buf = malloc(BUF_CAP);
    if (!t->buf)
        return sgz_base_fail(err, SGZ_ENOMEM, -1, NULL, 0, "out of memory");
    sgz_status status = sgz_codec_decoder_init(&t->decoder, codecs, blob, NULL, err);
    if (status)
        return status;
    t->decoder.stop = stop;
    if (!json_size) /* as where BASE's TOC is not in the blob */
        return SGZ_OK;
    status = sgz_toc_seek(&t->decoder, offset, end, &found, err);
    if (status == SGZ_ETOC || status == SGZ_EDATA)
        return fail(err, "BASE's TOC is not where the patch says");
    if (!status && (uint64_t)found != json_size)
        return fail(err, "BASE's TOC is not as long as the patch says");
    return status;
}

void sgz_patch_lines_free(sgz_patch_lines *t)
{
    if (t->decoder.blob)
        sgz_codec_decoder_free(&t->decoder);
    free(t->buf);
    memset(t, 0, sizeof *t);
}

static sgz_status flush(sgz_patch_lines *t, sgz_error *err)
{
    const uint8_t *from = t->buf + t->taken;
    size_t len = t->pos - t->taken;
    t->taken = t->pos;
    return t->taking && len ? t->take(t->arg, from, len, err) : SGZ_OK;
}

/* Have more behind what is there, and at least OFFSET_LINE_MAX bytes, or all that are left. */
static sgz_status refill(sgz_patch_lines *t, sgz_error *err)
{
    sgz_status status = flush(t, err);
    if (status)
        return status;
    memmove(t->buf, t->buf + t->pos, t->len - t->pos);
    t->len -= t->pos;
    t->taken = t->pos = 0;
    size_t want = BUF_CAP - t->len, got;
    if (want > t->left)
        want = (size_t)t->left;
    status = sgz_codec_decoder_read(&t->decoder, t->buf + t->len, want, &got, err);
    if (status == SGZ_EDATA || (!status && got < want))
        return fail(err, "BASE's TOC does not inflate to its end");
    t->len += got;
    t->left -= got;
    return status;
}

/* If an offset line's key stands at `from`: the bytes of key and digits, and the number. */
static size_t offset_line(const uint8_t *from, size_t len, uint64_t *number)
{
    if (len < KEY_LEN || memcmp(from, KEY, KEY_LEN))
        return 0;
    size_t at = KEY_LEN;
    *number = 0;
    for (; at < len && at < KEY_LEN + DIGITS_MAX && from[at] >= '0' && from[at] <= '9'; at++)
        *number = *number * 10 + (uint64_t)(from[at] - '0');
    size_t digits_end = at;
    if (at == KEY_LEN)
        return 0;
    if (at < len && from[at] == ',')
        at++;
    return at == len || from[at] == '\n' ? digits_end : 0;
}

static sgz_status take_number(sgz_patch_lines *t, uint64_t number, int64_t add, sgz_error *err)
{
    uint8_t text[KEY_LEN + 20];
    size_t at = sizeof text;
    __extension__ typedef __int128 wide;
    wide sum = (wide)number + add;
    if (sum < 0 || sum > INT64_MAX)
        return fail(err, "an offset in the TOC becomes negative or too large");
    uint64_t value = (uint64_t)sum;
    do
        text[--at] = (uint8_t)('0' + value % 10);
    while (value /= 10);
    at -= KEY_LEN;
    memcpy(text + at, KEY, KEY_LEN);
    return t->take(t->arg, text + at, sizeof text - at, err);
}

/* At a line's start: if it is an offset line, take it as far as its number, shifted. */
static sgz_status shift(sgz_patch_lines *t, int64_t add, sgz_error *err)
{
    uint64_t number;
    sgz_status status;
    for (;;) {
        while (t->pos < t->len && (t->buf[t->pos] == ' ' || t->buf[t->pos] == '\t'))
            t->pos++;
        if (t->len - t->pos >= OFFSET_LINE_MAX || !t->left)
            break;
        status = refill(t, err);
        if (status)
            return status;
    }
    size_t len = offset_line(t->buf + t->pos, t->len - t->pos, &number);
    if (!len)
        return SGZ_OK;
    status = flush(t, err);
    if (!status)
        status = take_number(t, number, add, err);
    t->pos += len;
    t->taken = t->pos;
    return status;
}

/* Past the line's end, or to that of the JSON: the last line may lack its "\n". */
static sgz_status end_line(sgz_patch_lines *t, sgz_error *err)
{
    for (;;) {
        const uint8_t *from = t->buf + t->pos, *end = NULL;
        if (t->pos < t->len)
            end = memchr(from, '\n', t->len - t->pos);
        if (end) {
            t->pos += (size_t)(end - from) + 1;
            return SGZ_OK;
        }
        t->pos = t->len;
        if (!t->left)
            return SGZ_OK;
        sgz_status status = refill(t, err);
        if (status)
            return status;
    }
}

static sgz_status go(sgz_patch_lines *t, uint64_t count, int64_t add, sgz_error *err)
{
    for (; count; count--) {
        sgz_status status = SGZ_OK;
        if (t->pos == t->len && t->left)
            status = refill(t, err);
        if (!status && t->pos == t->len)
            return fail(err, "lines are wanted that BASE's TOC does not have");
        if (!status && add)
            status = shift(t, add, err);
        if (!status)
            status = end_line(t, err);
        if (status)
            return status;
    }
    return flush(t, err);
}

sgz_status sgz_patch_lines_pass(sgz_patch_lines *t, uint64_t count, sgz_error *err)
{
    t->taking = 0;
    return go(t, count, 0, err);
}

sgz_status sgz_patch_lines_take(sgz_patch_lines *t, uint64_t count, int64_t add, sgz_error *err)
{
    t->taking = 1;
    return go(t, count, add, err);
}
