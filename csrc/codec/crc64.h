/* CRC-64 with the polynomial of ISO 3309 (x^64 + x^4 + x^3 + x + 1), as Go's hash/crc64 has it and
 * tar-split writes it. */
#ifndef SGZ_CODEC_CRC64_H
#define SGZ_CODEC_CRC64_H

#include <stddef.h>
#include <stdint.h>

/* The sum of more bytes; that of none is 0. */
uint64_t sgz_codec_crc64(uint64_t crc, const void *data, size_t len);

#endif
