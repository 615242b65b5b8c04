/* Large buffers that are written over and over; memory that is given back. */
#ifndef SGZ_BASE_BUFFER_H
#define SGZ_BASE_BUFFER_H

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define SGZ_HUGE_PAGE ((size_t)2 << 20)

/* Free with free(). In huge pages where the kernel gives them: a conversion of the Debian
 * layer took 30,000 page faults and a tenth of its processor time without. */
static inline void *sgz_base_buffer_new(size_t len)
{
    if (len < SGZ_HUGE_PAGE)
        return malloc(len ? len : 1);
    size_t whole = (len + SGZ_HUGE_PAGE - 1) & ~(SGZ_HUGE_PAGE - 1);
    void *buffer = whole < len ? NULL : aligned_alloc(SGZ_HUGE_PAGE, whole);
#ifdef MADV_HUGEPAGE
    if (buffer)
        madvise(buffer, whole, MADV_HUGEPAGE); /* a hint */
#endif
    return buffer;
}

/* Give the memory of a part of any block back to the system, but for pages that it shares with its
 * neighbours: its bytes are not needed any more, and are then anything. */
static inline void sgz_base_buffer_drop(void *begin, void *end)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t skip = -(uintptr_t)begin & (page - 1);
    size_t len = (size_t)((char *)end - (char *)begin);
    if (len > skip && (len - skip) / page)
        madvise((char *)begin + skip, (len - skip) / page * page, MADV_DONTNEED);
}

#endif
