/* Shared by the parts of the scanner: codec/scan.c (decodes, up to places where a point may be),
 * codec/scan_choose.c (which of them become points). */
#ifndef SGZ_CODEC_SCAN_INTERNAL_H
#define SGZ_CODEC_SCAN_INTERNAL_H

#include "codec/scan.h"
#include "codec/trace.h"

#define SGZ_SCAN_FAR ((int64_t)512 << 10) /* no candidate is further behind the first */

/* A place where a point may be. */
typedef struct {
    sgz_point point;
    sgz_trace trace;
    uint32_t needs;  /* bytes of its history */
    uint8_t *window; /* SGZ_HISTORY_MAX bytes if raw, else `history` of them */
} sgz_scan_candidate;

struct sgz_scanner {
    sgz_inflater inflater; /* first: sgz_codec_inflate_by hands it to scan.c */
    sgz_scan_options options;
    sgz_deflater deflater;
    uint8_t *packed;
    uint8_t *recent;       /* raw: the last SGZ_HISTORY_MAX bytes given before this call */
    int64_t out;           /* bytes given */
    int64_t call_out;      /* of those, before this call */
    int64_t member_out;    /* and before this member */
    uint64_t member;       /* its number */
    int armed;             /* the present block was made the last */
    int again;             /* the first byte that is held was given already */
    int last;              /* the present block is the last of its member: none ends behind it */
    int64_t next;          /* points come behind this decoded position */
    size_t wants;          /* of the wanted points those that were found */
    int64_t passed;        /* the traces are within the member up to there */
    int begun;             /* the first point was found */
    sgz_scan_candidate candidates[SGZ_TRIES_MAX];
    unsigned count;
    int closed;            /* no more of them: the choice waits for their traces alone */
    const uint8_t *given;  /* the input of this call, which begins at `given_at` */
    size_t given_len;
    int64_t given_at;
};

/* Whether it is found out which bytes of a history are needed. */
static inline int sgz_codec_scan_traces(const sgz_scanner *s)
{
    return !s->options.raw || s->options.tries > 1;
}

/* Decoding may begin at this place: is it a candidate? `bits` are the next ones, `count` of them;
 * the input goes on behind them. */
sgz_status sgz_codec_scan_consider(sgz_scanner *s, int64_t out, uint64_t bits, int count,
                                   sgz_error *err);
/* Trace on, and make the choice once all that it needs is known. */
sgz_status sgz_codec_scan_decide(sgz_scanner *s, sgz_error *err);
/* What is decoded of a member at its end is known to the traces, too. */
sgz_status sgz_codec_scan_end_traces(sgz_scanner *s, sgz_error *err);
/* Fail with the next of the wanted points. */
sgz_status sgz_codec_scan_not_there(const sgz_scanner *s, const char *what, sgz_error *err);

#endif
