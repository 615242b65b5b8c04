#include "codec/blocks.h"

enum { LEN = 300, BLOCKS = 8 };

/* LEN bytes, as Python's zlib has them: blocks of all kinds, also empty ones, with flushes of
 * all kinds between them. */
static const uint8_t stream[] = {
    0x74, 0x4e, 0x49, 0x0e, 0xc0, 0x40, 0x08, 0x7a, 0x2b, 0x8b, 0xff, 0xff, 0x42, 0xc1, 0x99,
    0xa4, 0xe9, 0xa1, 0x17, 0xa3, 0x20, 0x0b, 0x38, 0x43, 0xbc, 0x03, 0x36, 0x06, 0xd6, 0x78,
    0x44, 0xcb, 0x80, 0x18, 0x22, 0x98, 0x34, 0x32, 0xf7, 0x34, 0x96, 0xa5, 0x4a, 0xec, 0xb6,
    0x58, 0xd9, 0x18, 0xc8, 0x2a, 0xe1, 0x5a, 0x56, 0x1e, 0xc5, 0xc1, 0x22, 0x52, 0xcd, 0xfd,
    0x33, 0xee, 0x4b, 0x9e, 0x19, 0x51, 0xac, 0xda, 0xc9, 0x4d, 0xd0, 0x69, 0x02, 0xba, 0xd1,
    0xfc, 0x44, 0x6b, 0xeb, 0x3c, 0x02, 0x08, 0xa8, 0x03, 0x28, 0x9b, 0x0c, 0xb1, 0x21, 0x15,
    0xcc, 0x4d, 0x04, 0x00, 0x00, 0x00, 0xff, 0xff, 0x00, 0x14, 0x00, 0xeb, 0xff, 0x64, 0x63,
    0x64, 0x62, 0x63, 0x65, 0x64, 0x65, 0x63, 0x64, 0x61, 0x65, 0x61, 0x64, 0x64, 0x61, 0x61,
    0x62, 0x65, 0x65, 0x4a, 0x4a, 0x4c, 0x4a, 0x4d, 0x4d, 0x42, 0x25, 0x00, 0x00, 0x00, 0x00,
    0xff, 0xff, 0x2d, 0xc9, 0xa1, 0x01, 0x00, 0x30, 0x10, 0x83, 0xc0, 0x59, 0x13, 0xc8, 0xfe,
    0x2b, 0xf4, 0x45, 0x0d, 0xe2, 0xf8, 0x89, 0x66, 0x91, 0x39, 0x2a, 0x26, 0xf4, 0xc6, 0x19,
    0x0c, 0x9b, 0x07};
static const struct { int bit, out; } blocks[BLOCKS] = {
    {0, 0}, {640, 200}, {650, 200}, {746, 220}, {784, 220}, {984, 240}, {1056, 260}, {1096, 260}};

static int decode(const sgz_isal *isal, sgz_isal_inflate_state *s, size_t from, size_t len,
                  uint8_t *out, size_t room)
{
    s->next_in = (uint8_t *)stream + from;
    s->avail_in = (uint32_t)len;
    s->next_out = out;
    s->avail_out = (uint32_t)room;
    return isal->inflate(s) == 0 && s->avail_in <= len;
}

/* Stop behind each block but the last, given `step` bytes at a time. */
static int stops(const sgz_isal *isal, sgz_isal_inflate_state *s, const uint8_t *data, size_t step)
{
    uint8_t out[LEN];
    size_t at = 0;
    isal->inflate_reset(s);
    int again = sgz_isal_hold(s);
    for (int i = 1; i < BLOCKS; i++) {
        if (sgz_isal_starved(s))
            sgz_isal_feed_byte(s, stream[at++]);
        if (sgz_isal_last(s))
            return 0;
        sgz_isal_set_last(s, 1);
        while (s->block_state != SGZ_ISAL_BLOCK_INPUT_DONE) {
            size_t left = sizeof stream - at, given = left < step ? left : step;
            if (!given || !decode(isal, s, at, given, out, 0))
                return 0;
            at += given - s->avail_in;
        }
        if ((int)at * 8 - s->read_in_length != blocks[i].bit ||
            s->tmp_out_valid != blocks[i].out || memcmp(s->tmp_out, data, (size_t)blocks[i].out))
            return 0;
        sgz_isal_go_on(s);
    }
    if (sgz_isal_starved(s))
        sgz_isal_feed_byte(s, stream[at++]);
    s->tmp_out_processed += again;
    return sgz_isal_last(s) && decode(isal, s, at, sizeof stream - at, out, LEN) &&
           s->block_state == SGZ_ISAL_BLOCK_FINISH && !s->avail_out && !memcmp(out, data, LEN);
}

static int begins(const sgz_isal *isal, sgz_isal_inflate_state *s, const uint8_t *data, int block)
{
    uint8_t out[LEN];
    int bit = blocks[block].bit, before = blocks[block].out, skip = bit & 7;
    size_t at = (size_t)bit / 8, rest = (size_t)(LEN - before);
    sgz_isal_enter(isal, s, skip ? stream[at] >> skip : 0, skip ? 8 - skip : 0, data,
                   (uint32_t)before);
    at += skip != 0;
    return decode(isal, s, at, sizeof stream - at, out, rest) &&
           s->block_state == SGZ_ISAL_BLOCK_FINISH && !s->avail_out &&
           !memcmp(out, data + before, rest);
}

int sgz_codec_blocks_work(const sgz_isal *isal, sgz_isal_inflate_state *s)
{
    uint8_t data[LEN];
    for (int i = 0; i < LEN; i++)
        data[i] = (uint8_t)('a' + i * i % 251 % 5);
    isal->inflate_init(s);
    int works = isal->inflate_set_dict != NULL;
    for (size_t step = 1; works && step <= sizeof stream; step += step / 4 + 1)
        works = stops(isal, s, data, step);
    for (int i = 0; works && i < BLOCKS; i++)
        works = begins(isal, s, data, i);
    return works;
}
