/* The rolling sum of bup, by which containers/storage cuts files into chunks.
 *
 * It is a sum of the last 64 bytes, each times its age (1 for the newest), of which 16 bits are
 * looked at: so it can be begun anywhere, and many places of a file are summed side by side. */
#ifndef SGZ_CODEC_ROLL_H
#define SGZ_CODEC_ROLL_H

#include <stddef.h>
#include <stdint.h>

#define SGZ_ROLL_WINDOW 64
/* Bytes that are best scanned at a time. */
#define SGZ_ROLL_BLOCK ((size_t)16 << 10)

/* Set bit i (of word i / 64, the lowest first) where the sum says that a chunk may end behind byte
 * i of data[0..len), and clear the others: (len + 63) / 64 words. The window's bytes stand before
 * data: zeros, where nothing does. Returns whether there is any. */
int sgz_codec_roll_scan(const uint8_t *data, size_t len, uint64_t *bits);

#endif
