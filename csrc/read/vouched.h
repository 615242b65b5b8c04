/* What was found right or broken of the pieces of an open layer that the TOC has no digest of, so
 * that it is not found out again: a chunk that only a check sum far behind it vouches for, a
 * window of a chunk whose digest needs all of it. A piece that was right once is told by its own
 * sum from then on, also where its bytes are fetched anew.
 *
 * Takes about 60 bytes a piece that was read. Any number of threads may use it; where there is no
 * memory things are forgotten, and found out again. */
#ifndef SGZ_READ_VOUCHED_H
#define SGZ_READ_VOUCHED_H

#include "base/status.h"

typedef struct sgz_read_vouched sgz_read_vouched;

sgz_read_vouched *sgz_read_vouched_new(void);
void sgz_read_vouched_free(sgz_read_vouched *v);

/* The sum of window `window` of span `span`, once it was right: 1, else 0. */
int sgz_read_vouched_get(sgz_read_vouched *v, size_t span, uint32_t window, uint8_t sum[32]);
void sgz_read_vouched_put(sgz_read_vouched *v, size_t span, uint32_t window,
                          const uint8_t sum[32]);

/* No check sum vouches for what touches the bytes (from, to) decoded from the entry point at
 * blob offset `offset`: `err` says why. */
void sgz_read_vouched_refuse(sgz_read_vouched *v, int64_t offset, int64_t from, int64_t to,
                             const sgz_error *err);
/* Whether that was said of bytes [start, end) at least `times` times: *err has it. */
int sgz_read_vouched_refused(sgz_read_vouched *v, int64_t offset, int64_t start, int64_t end,
                             unsigned times, sgz_error *err);

#endif
