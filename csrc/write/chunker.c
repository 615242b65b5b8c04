#include "write/chunker.h"

#include <string.h>

#define RUN_MIN 1024

void sgz_write_chunker_begin(sgz_chunker *c, int64_t size, int64_t max)
{
    c->size = size;
    c->max = max;
    c->start = c->searched = c->block = c->scanned = c->chosen = 0;
    c->any = c->in_run = 0;
    memset(c->before, 0, sizeof c->before);
}

static uint64_t word_at(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

/* Behind the zeros from `at` on. */
static size_t zeros_end(const uint8_t *data, size_t at, size_t have)
{
    while (have - at >= 8 && !word_at(data + at))
        at += 8;
    while (at < have && !data[at])
        at++;
    return at;
}

/* And where those before `at` begin, but not before `from`. */
static size_t zeros_begin(const uint8_t *data, size_t at, size_t from)
{
    while (at - from >= 8 && !word_at(data + at - 8))
        at -= 8;
    while (at > from && !data[at - 1])
        at--;
    return at;
}

/* Where the first run begins that is long enough, or (*open) may become so by bytes that are not
 * here yet; else `have`. Every run that is long enough and begins at `at` or behind it up to the word
 * looked at has all of that word: so few words are looked at. */
static size_t find_run(const uint8_t *data, size_t at, size_t have, int final, int *open)
{
    *open = 0;
    while (have - at >= RUN_MIN) {
        size_t probe = at + RUN_MIN - 8;
        if (word_at(data + probe)) {
            for (at = probe + 8; !data[at - 1];)
                at--;
            continue;
        }
        size_t begin = zeros_begin(data, probe, at), end = zeros_end(data, probe, have);
        if (end - begin >= RUN_MIN)
            return begin;
        if (end == have && !final) {
            *open = 1;
            return begin;
        }
        at = end;
    }
    if (final)
        return have;
    at = zeros_begin(data, have, at);
    *open = at < have;
    return at;
}

/* The bits of the next block: of the first `have` bytes of data, which is the file from `start` on. */
static void scan(sgz_chunker *c, const uint8_t *data, size_t have)
{
    size_t at = (size_t)(c->scanned - c->start), n = have - at;
    if (n > SGZ_ROLL_BLOCK)
        n = SGZ_ROLL_BLOCK;
    if (at < SGZ_ROLL_WINDOW) {
        uint8_t with[2 * SGZ_ROLL_WINDOW];
        n = n < SGZ_ROLL_WINDOW ? n : SGZ_ROLL_WINDOW;
        memcpy(with, c->before, SGZ_ROLL_WINDOW);
        memcpy(with + SGZ_ROLL_WINDOW, data + at, n);
        c->any = sgz_codec_roll_scan(with + SGZ_ROLL_WINDOW, n, c->bits);
        memcpy(c->before, with + n, SGZ_ROLL_WINDOW);
    } else {
        c->any = sgz_codec_roll_scan(data + at, n, c->bits);
        memcpy(c->before, data + at + n - SGZ_ROLL_WINDOW, SGZ_ROLL_WINDOW);
    }
    c->block = c->scanned;
    c->scanned += (int64_t)n;
}

/* Behind the first place from the chunk's start on that the bits choose, and that counts; 0: none. */
static size_t chosen(const sgz_chunker *c)
{
    int64_t first = (c->chosen - SGZ_CHUNKER_FREE + 1) * SGZ_CHUNKER_LEAST - 1;
    first = first > c->start ? first : c->start;
    if (!c->any || first >= c->scanned)
        return 0;
    size_t from = first > c->block ? (size_t)(first - c->block) : 0;
    size_t count = (size_t)(c->scanned - c->block);
    uint64_t word = c->bits[from / 64] & ~(uint64_t)0 << from % 64;
    for (size_t i = from / 64;;) {
        if (word)
            return (size_t)(c->block - c->start) + 64 * i + (size_t)__builtin_ctzll(word) + 1;
        if (++i >= (count + 63) / 64)
            return 0;
        word = c->bits[i];
    }
}

size_t sgz_write_chunker_next(sgz_chunker *c, const uint8_t *data, size_t have, int *zeros)
{
    size_t left = (size_t)(c->size - c->start), max = (size_t)c->max, len = 0;
    int final = have >= left, open = 0;
    have = final ? left : have;
    *zeros = 0;
    if (c->in_run) {
        size_t end = zeros_end(data, 0, have);
        if (end == have && !final && end < max)
            return 0;
        /* Of a run that goes on, or may, as far as can be seen. */
        c->in_run = end > max || (end == have && !final);
        len = end < max ? end : max;
        *zeros = len > 0;
        if (c->scanned < c->start + (int64_t)len) { /* the window has nothing but zeros */
            c->scanned = c->start + (int64_t)len;
            c->any = 0;
            memset(c->before, 0, sizeof c->before);
        }
    }
    if (!len && have) {
        size_t from = c->searched > c->start ? (size_t)(c->searched - c->start) : 0;
        size_t run = find_run(data, from < have ? from : have, have, final, &open);
        c->searched = c->start + (int64_t)run;
        if (!run && !open) {
            c->in_run = 1;
            return sgz_write_chunker_next(c, data, have, zeros);
        }
        size_t limit = run < max ? run : max;
        while (!(len = chosen(c)) && c->scanned < c->start + (int64_t)limit)
            scan(c, data, have);
        if (!len || len > limit)
            len = limit == max || (!open && (final || run < have)) ? limit : 0;
        else
            c->chosen++;
    }
    c->start += (int64_t)len;
    return len;
}
