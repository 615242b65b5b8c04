/* Bytes as numbers, as hex, as UTF-8, and in order. */
#ifndef SGZ_BASE_BYTES_H
#define SGZ_BASE_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* --- numbers; compilers make one instruction of each ------------------------------------- */

static inline uint32_t sgz_get_le32(const uint8_t *in)
{
    return (uint32_t)in[0] | (uint32_t)in[1] << 8 | (uint32_t)in[2] << 16 |
           (uint32_t)in[3] << 24;
}

static inline uint64_t sgz_get_le64(const uint8_t *in)
{
    return sgz_get_le32(in) | (uint64_t)sgz_get_le32(in + 4) << 32;
}

static inline void sgz_put_le32(uint8_t *out, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)(value >> 8 * i);
}

static inline void sgz_put_le64(uint8_t *out, uint64_t value)
{
    sgz_put_le32(out, (uint32_t)value);
    sgz_put_le32(out + 4, (uint32_t)(value >> 32));
}

static inline uint64_t sgz_get_be64(const uint8_t *in)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value = value << 8 | in[i];
    return value;
}

static inline void sgz_put_be64(uint8_t *out, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        out[i] = (uint8_t)(value >> (56 - 8 * i));
}

/* In the machine's own order. */
static inline uint64_t sgz_load64(const void *in)
{
    uint64_t value;
    memcpy(&value, in, sizeof value);
    return value;
}

static inline uint32_t sgz_load32(const void *in)
{
    uint32_t value;
    memcpy(&value, in, sizeof value);
    return value;
}

/* --- hex --------------------------------------------------------------------------------- */

#define SGZ_HEX_DIGITS "0123456789abcdef"

/* Two digits a byte, lower case. Returns what follows them. */
static inline char *sgz_put_hex(char *out, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        *out++ = SGZ_HEX_DIGITS[data[i] >> 4];
        *out++ = SGZ_HEX_DIGITS[data[i] & 15];
    }
    return out;
}

/* Value of a lower-case hex digit; 0x80 for anything else. */
static inline uint8_t sgz_hex_value(char c)
{
    uint8_t digit = (uint8_t)(c - '0'), letter = (uint8_t)(c - 'a');
    return digit < 10 ? digit : letter < 6 ? (uint8_t)(letter + 10) : 0x80;
}

/* --- base64 (RFC 4648, padded) ----------------------------------------------------------- */

static inline size_t sgz_base64_len(size_t len)
{
    return (len + 2) / 3 * 4;
}

/* Returns what follows it. */
static inline char *sgz_put_base64(char *out, const uint8_t *data, size_t len)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < len; i += 3) {
        size_t n = len - i;
        uint32_t v = (uint32_t)data[i] << 16;
        v |= n > 1 ? (uint32_t)data[i + 1] << 8 : 0;
        v |= n > 2 ? data[i + 2] : 0;
        *out++ = digits[v >> 18];
        *out++ = digits[v >> 12 & 63];
        *out++ = n > 1 ? digits[v >> 6 & 63] : '=';
        *out++ = n > 2 ? digits[v & 63] : '=';
    }
    return out;
}

/* "sha256:" and 64 lower-case digits (OCI image spec, descriptor.md). 0: it is no such text. */
static inline int sgz_get_sha256(const char *text, size_t len, uint8_t out[32])
{
    uint8_t wrong = 0;
    if (len != 71 || memcmp(text, "sha256:", 7))
        return 0;
    for (int i = 0; i < 32; i++) {
        uint8_t high = sgz_hex_value(text[7 + 2 * i]), low = sgz_hex_value(text[8 + 2 * i]);
        wrong |= high | low;
        out[i] = (uint8_t)(high << 4 | (low & 15));
    }
    return !(wrong & 0x80);
}

/* --- UTF-8 ------------------------------------------------------------------------------- */

/* Bytes of the well-formed sequence that text[0..len) begins with; 0: it begins with none.
 * `len` is not 0. */
static inline unsigned sgz_utf8_len(const char *text, size_t len)
{
    const uint8_t *p = (const uint8_t *)text;
    if (p[0] < 0x80)
        return 1;
    if (p[0] < 0xc2 || len < 2 || (p[1] & 0xc0) != 0x80)
        return 0;
    if (p[0] < 0xe0)
        return 2;
    if (len < 3 || (p[2] & 0xc0) != 0x80)
        return 0;
    if (p[0] < 0xf0) {
        if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f))
            return 0;
        return 3;
    }
    if (p[0] > 0xf4 || len < 4 || (p[3] & 0xc0) != 0x80 || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return 4;
}

/* Whole sequences only. */
static inline int sgz_is_utf8(const char *text, size_t len)
{
    for (size_t i = 0, n; i < len; i += n)
        if (!(n = sgz_utf8_len(text + i, len - i)))
            return 0;
    return 1;
}

/* --- comparing --------------------------------------------------------------------------- */

/* As memcmp; of two of which one begins the other, the shorter is first. */
static inline int sgz_compare(const char *a, size_t a_len, const char *b, size_t b_len)
{
    size_t common = a_len < b_len ? a_len : b_len;
    int order = common ? memcmp(a, b, common) : 0;
    return order ? order : (a_len > b_len) - (a_len < b_len);
}

/* Whether these bytes are that string. */
static inline int sgz_is(const char *text, size_t len, const char *string)
{
    return len == strlen(string) && !memcmp(text, string, len);
}

#endif
