/* Memory of decoded chunks. Large ones come and go through many threads, and malloc keeps for each of
 * those what the others have freed: to read 700 MiB took 165 to 280 MiB that way, 74 this way. */
#ifndef SGZ_CHUNKS_BUFFERS_H
#define SGZ_CHUNKS_BUFFERS_H

#include <stddef.h>
#include <stdint.h>

/* From here on they are the system's own pages, in whole MiB. */
#define SGZ_CHUNKS_LARGE ((size_t)1 << 20)
/* Freed ones that are kept for the next, if they are no longer than the usual chunk: new pages, with a
 * fault for each, take a fifth of the time of reading zeros. */
#define SGZ_CHUNKS_SPARES 4
#define SGZ_CHUNKS_SPARE_MAX ((size_t)4 << 20)

typedef struct {
    uint8_t *data[SGZ_CHUNKS_SPARES];
    size_t room[SGZ_CHUNKS_SPARES];
    unsigned count;
} sgz_chunks_spares;

/* Room for `len` bytes; NULL: no memory. `spares` is used for large ones alone. */
uint8_t *sgz_chunks_buffer_new(sgz_chunks_spares *spares, size_t len);
/* With the `len` that it was asked for. NULL is none. */
void sgz_chunks_buffer_free(sgz_chunks_spares *spares, uint8_t *data, size_t len);
void sgz_chunks_spares_free(sgz_chunks_spares *spares);

#endif
