/* Numbers as tars have them: octal or base-256 in headers, decimal in PAX records. */
#include "tar/internal.h"

int sgz_tar_number(const uint8_t *header, size_t at, size_t len, int64_t *value)
{
    const uint8_t *field = header + at;
    size_t i = 0;
    if (field[0] & 0x80) {
        uint8_t invert = field[0] & 0x40 ? 0xff : 0;
        uint64_t sum = 0;
        for (; i < len; i++) {
            uint8_t byte = (uint8_t)(field[i] ^ invert);
            if (sum >> 55)
                return -1;
            sum = sum << 8 | (i ? byte : byte & 0x7f);
        }
        *value = invert ? -(int64_t)sum - 1 : (int64_t)sum;
        return 0;
    }
    int64_t sum = 0;
    while (i < len && (field[i] == ' ' || field[i] == 0))
        i++;
    for (; i < len && field[i] >= '0' && field[i] <= '7'; i++)
        sum = sum * 8 + (field[i] - '0');
    *value = sum;
    if (i == len || field[i] == 0)
        return 0;
    while (i < len && (field[i] == ' ' || field[i] == 0))
        i++;
    return i == len ? 0 : -1;
}

int sgz_tar_decimal(const char *text, size_t len, int64_t *value)
{
    size_t i = len && text[0] == '-';
    uint64_t sum = 0, limit = (uint64_t)INT64_MAX + i;
    if (i == len)
        return -1;
    for (size_t k = i; k < len; k++) {
        unsigned digit = (unsigned char)text[k] - '0';
        if (digit > 9 || sum > (limit - digit) / 10)
            return -1;
        sum = sum * 10 + digit;
    }
    *value = (int64_t)(i ? 0 - sum : sum);
    return 0;
}
