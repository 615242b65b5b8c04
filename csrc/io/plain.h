/* What an input holds once it is unwrapped: its bytes counted, hashed (the DiffID), and copied
 * to a file if one is given. */
#ifndef SGZ_IO_PLAIN_H
#define SGZ_IO_PLAIN_H

#include "codec/hasher.h"
#include "io/input.h"

#define SGZ_PLAIN_BUF ((size_t)256 << 10) /* still in the second-level cache when it is hashed */

typedef struct {
    sgz_input *input;       /* begun */
    sgz_hasher *hasher;
    uint8_t *buf;           /* SGZ_PLAIN_BUF bytes */
    int sink;               /* a blocking descriptor, or -1 for no copy */
    int64_t size;           /* bytes so far */
} sgz_plain;

/* Go on for some milliseconds, or until a signal comes; *end once all of it was read. */
sgz_status sgz_io_plain_step(sgz_plain *plain, int *end, sgz_error *err);

#endif
