/* What the kernels' tests share. */
#ifndef SGZ_TEST_CHECK_H
#define SGZ_TEST_CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* A property that must hold: unlike assert, also when NDEBUG is defined. */
#define CHECK(what)                                                              \
    do {                                                                         \
        if (!(what)) {                                                           \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what);   \
            exit(1);                                                             \
        }                                                                        \
    } while (0)

/* The same numbers in each run: xorshift, below `limit`. */
static inline uint32_t below(uint32_t limit)
{
    static uint64_t state = 88172645463325252u;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32) % limit;
}

#endif
