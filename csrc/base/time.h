/* Times as RFC 3339, in the proleptic Gregorian calendar. */
#ifndef SGZ_BASE_TIME_H
#define SGZ_BASE_TIME_H

#include <stddef.h>
#include <stdint.h>

#define SGZ_TIME_MAX 48 /* bytes of any text */

/* In UTC, with as many digits of the fraction as it takes; years beyond four digits, and before
 * the year 0, as Go prints them. Returns the length; there is no NUL behind it. */
size_t sgz_base_time_format(int64_t seconds, uint32_t nanoseconds, char out[SGZ_TIME_MAX]);

/* Of the years 0 to 9999, in any zone; digits of the fraction behind the ninth are cut off. 0: it is
 * no such time. */
int sgz_base_time_read(const char *text, size_t len, int64_t *seconds, uint32_t *nanoseconds);

#endif
