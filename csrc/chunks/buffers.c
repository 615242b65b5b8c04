#include "chunks/buffers.h"

#include <stdlib.h>
#include <sys/mman.h>

static size_t room_of(size_t len)
{
    return (len + SGZ_CHUNKS_LARGE - 1) & ~(SGZ_CHUNKS_LARGE - 1);
}

static void take_out(sgz_chunks_spares *spares, unsigned i)
{
    spares->count--;
    spares->data[i] = spares->data[spares->count];
    spares->room[i] = spares->room[spares->count];
}

uint8_t *sgz_chunks_buffer_new(sgz_chunks_spares *spares, size_t len)
{
    if (len < SGZ_CHUNKS_LARGE)
        return malloc(len);
    size_t room = room_of(len);
    for (unsigned i = spares->count; i-- > 0;) {
        if (spares->room[i] != room)
            continue;
        uint8_t *data = spares->data[i];
        take_out(spares, i);
        return data;
    }
    void *data = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return data == MAP_FAILED ? NULL : data;
}

void sgz_chunks_buffer_free(sgz_chunks_spares *spares, uint8_t *data, size_t len)
{
    size_t room = room_of(len);
    if (len < SGZ_CHUNKS_LARGE || !data) {
        free(data);
        return;
    }
    if (room > SGZ_CHUNKS_SPARE_MAX) {
        munmap(data, room);
        return;
    }
    if (spares->count == SGZ_CHUNKS_SPARES) { /* that one may be of a size that is wanted no more */
        munmap(spares->data[0], spares->room[0]);
        take_out(spares, 0);
    }
    spares->data[spares->count] = data;
    spares->room[spares->count++] = room;
}

void sgz_chunks_spares_free(sgz_chunks_spares *spares)
{
    while (spares->count) {
        spares->count--;
        munmap(spares->data[spares->count], spares->room[spares->count]);
    }
}
