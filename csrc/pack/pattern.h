/* Names against patterns, in time that is at most the one's length times the other's.
 *
 * A pattern is a row of states, which stargz/ignore.py makes; a match goes through it forwards,
 * in all states at once. */
#ifndef SGZ_PACK_PATTERN_H
#define SGZ_PACK_PATTERN_H

#include <stdint.h>

#include "base/status.h"

typedef enum {
    SGZ_PATTERN_ONE,      /* one character of its class, and on to the next state */
    SGZ_PATTERN_MANY,     /* one of its class, and here again */
    SGZ_PATTERN_ALWAYS,   /* on to the next state for nothing; and where a condition holds: */
    SGZ_PATTERN_BEGIN,    /* at the name's begin, */
    SGZ_PATTERN_END,      /* its end, */
    SGZ_PATTERN_EDGE,     /* where a word begins or ends (of ASCII letters, digits and "_"), */
    SGZ_PATTERN_NO_EDGE,  /* where none does */
    SGZ_PATTERN_FOUND     /* it matches */
} sgz_pack_pattern_kind;

typedef struct {
    uint8_t kind;
    uint32_t skip;        /* so many states further for nothing; 0: not so */
    uint32_t ranges, count; /* of its class: first and last characters, ascending */
    uint64_t ascii[2];    /* the same, a bit for each of those; by sgz_pack_pattern_init */
} sgz_pack_pattern_state;

typedef struct {
    sgz_pack_pattern_state *states;
    uint32_t count;
    const uint32_t *ranges;
    const uint32_t *starts; /* where matches begin, at any place of the name; the numbers of */
    uint32_t start_count;   /* states */
    /* Its own. */
    uint32_t last;
    int roams;              /* not every match begins where the name does */
    uint64_t *now, *next;   /* a bit for each state */
} sgz_pack_pattern;

/* Check a pattern whose fields but its own are set: SGZ_EDATA where it leaves its states or
 * its ranges, or does not end in SGZ_PATTERN_FOUND. What it points to must stay. */
sgz_status sgz_pack_pattern_init(sgz_pack_pattern *p, uint32_t range_count, sgz_error *err);
void sgz_pack_pattern_free(sgz_pack_pattern *p);
/* Whether it matches a name (code points). For one thread at a time. */
int sgz_pack_pattern_match(const sgz_pack_pattern *p, const uint32_t *name, size_t len);

#endif
