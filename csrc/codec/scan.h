/* Inflating gzip members, and finding entry points on the way: places in the deflate data where
 * decoding can begin later, with the history that this takes. */
#ifndef SGZ_CODEC_SCAN_H
#define SGZ_CODEC_SCAN_H

#include "codec/gzip.h"
#include "codec/points.h"

#define SGZ_SPAN_MIN ((int64_t)64 << 10)
#define SGZ_TRIES_MAX 4

/* Takes a settled point, in order. With `raw` the window is SGZ_HISTORY_MAX bytes, whatever the
 * point's history is: of those before it, over members' ends, with zeros in front of the first.
 * Else it is what sgz_codec_points_append takes. */
typedef sgz_status (*sgz_scan_found)(void *arg, const sgz_point *point, const uint8_t *window,
                                     sgz_error *err);

typedef struct {
    int64_t span;         /* decoded bytes from one point to the next: more than this many, up to
                             the end of a block; at least SGZ_SPAN_MIN */
    unsigned tries;       /* 1: the first place behind the span, as SOCI has it. More, up to
                             SGZ_TRIES_MAX: of so many places the one that needs the least history,
                             but of none that is more than 512 KiB behind the first */
    int raw;              /* the whole history. Else unneeded bytes are zeros, or left out where the
                             needed ones begin later, and it is deflated */
    const sgz_points *wanted; /* not NULL: these places are taken, and no others but the first of all
                             (span and tries do not count). Each must be one: of kind gzip the
                             header of a member, else the first of its deflate data or a block's, and
                             what it has of its history must be right, or zeros; else SGZ_EINDEX. Those
                             that come before the one before them is done with are left out */
    sgz_points *points;   /* they are appended here, */
    sgz_scan_found found; /* or go there, if this is not NULL */
    void *arg;
} sgz_scan_options;

typedef struct sgz_scanner sgz_scanner;

/* What was found by then stays in the caller's list, also after an error. */
sgz_status sgz_codec_scanner_new(sgz_scanner **scanner, const sgz_codecs *codecs,
                                 const sgz_scan_options *options, sgz_error *err);
void sgz_codec_scanner_free(sgz_scanner *scanner);

/* As sgz_codec_inflate, of a stream that begins at offset 0, and with the same errors; but a
 * decoded byte may be held back until more of the input or the member's end is there. Input that
 * was not taken is given again in the next call, perhaps with more behind it. */
sgz_status sgz_codec_scan(sgz_scanner *s, const uint8_t **in, size_t *in_len, uint8_t *out,
                          size_t out_cap, size_t *out_len, sgz_error *err);
/* The input has ended. SGZ_EDATA where that is within a member. Settles the last points, and says
 * in `points` how long blob and decoded bytes are. */
sgz_status sgz_codec_scan_end(sgz_scanner *s, sgz_error *err);

/* All points before this decoded position were reported; one may still come at it or behind. */
int64_t sgz_codec_scan_settled(const sgz_scanner *s);
/* Decoded bytes given so far; input bytes taken; members that ended; whether bytes that are no
 * member followed; where the last member began, or these. */
int64_t sgz_codec_scan_out(const sgz_scanner *s);
int64_t sgz_codec_scan_in(const sgz_scanner *s);
uint64_t sgz_codec_scan_members(const sgz_scanner *s);
int sgz_codec_scan_garbage(const sgz_scanner *s);
int64_t sgz_codec_scan_member_offset(const sgz_scanner *s);

#endif
