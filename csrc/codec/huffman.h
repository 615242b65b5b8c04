/* The best codes for symbols that occur so often, none longer than deflate allows. */
#ifndef SGZ_CODEC_HUFFMAN_H
#define SGZ_CODEC_HUFFMAN_H

#include <stdint.h>

#define SGZ_HUFFMAN_MAX 288 /* symbols */

/* `counts` of `n` symbols, each below 2^22; no code gets longer than `max` bits (and 2^max is at
 * least n). A symbol that does not occur has length 0; but there are always two that have a code, for
 * some decoders want it complete. */
void sgz_codec_huffman(const uint32_t *counts, unsigned n, unsigned max, uint8_t *lengths);
/* The codes for these lengths (RFC 1951, 3.2.2), with the first bit lowest. */
void sgz_codec_huffman_codes(const uint8_t *lengths, unsigned n, uint16_t *codes);

#endif
