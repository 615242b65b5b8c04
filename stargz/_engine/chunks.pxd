from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from stargz._engine.base cimport sgz_codecs, sgz_error, sgz_status
from stargz._engine.reader cimport Blob, Reader, sgz_blob, sgz_spans


cdef extern from "chunks/disk.h" nogil:
    ctypedef struct sgz_chunks_disk:
        int dir
        const sgz_codecs *codecs
        uint64_t added
        uint64_t hits
        uint64_t misses


cdef extern from "chunks/table.h" nogil:
    ctypedef struct sgz_chunks:
        pass

    ctypedef struct sgz_chunks_want:
        uint32_t layer
        uint32_t file
        int64_t offset
        size_t size
        void (*ready)(sgz_chunks_want *) noexcept nogil
        sgz_chunks_want *next
        void *parked_on
        sgz_error error

    sgz_status sgz_chunks_new(sgz_chunks **, const sgz_codecs *, size_t, sgz_chunks_disk *,
                              sgz_error *)
    void sgz_chunks_stop(sgz_chunks *)
    void sgz_chunks_free(sgz_chunks *)
    sgz_status sgz_chunks_add(sgz_chunks *, const sgz_spans *, const sgz_blob *, int, int64_t,
                              uint32_t *, sgz_error *)
    sgz_status sgz_chunks_read(sgz_chunks *, sgz_chunks_want *, uint8_t *, int *, sgz_error *)
    int sgz_chunks_cancel(sgz_chunks *, sgz_chunks_want *)
    void sgz_chunks_ahead(sgz_chunks *, uint32_t, uint32_t, int64_t, int64_t)

    enum:
        SGZ_DEMAND
        SGZ_AHEAD
        SGZ_PREFETCH
        SGZ_BACKGROUND

    ctypedef struct sgz_chunks_job:
        uint32_t layer
        uint32_t priority
        int64_t offset
        int64_t size
        size_t first
        size_t last
        uint64_t id
        int in_steps

    void sgz_chunks_unasked(sgz_chunks *, unsigned)
    int sgz_chunks_next(sgz_chunks *, unsigned, int, sgz_chunks_job *)
    sgz_status sgz_chunks_deliver(sgz_chunks *, const sgz_chunks_job *, const sgz_blob *, int *,
                                  sgz_error *)
    int sgz_chunks_slow(sgz_chunks *, sgz_chunks_job *)
    void sgz_chunks_fail(sgz_chunks *, const sgz_chunks_job *, const sgz_error *)

    ctypedef struct sgz_chunks_stats:
        uint64_t fetched_bytes
        uint64_t fetched_requests
        uint64_t read_bytes
        uint64_t touched_bytes
        uint64_t disk_bytes
        uint64_t failures

    void sgz_chunks_get_stats(sgz_chunks *, sgz_chunks_stats *)


cdef extern from "chunks/wait.h" nogil:
    ctypedef struct sgz_chunks_waiter:
        sgz_chunks_want want

    void sgz_chunks_waiter_init(sgz_chunks_waiter *)
    void sgz_chunks_waiter_free(sgz_chunks_waiter *)
    sgz_status sgz_chunks_waiter_read(sgz_chunks *, sgz_chunks_waiter *, uint8_t *, int, int *,
                                      sgz_error *)
    void sgz_chunks_waiter_cancel(sgz_chunks *, sgz_chunks_waiter *)


# The door to the disk cache's files.
cdef class Store:
    cdef sgz_chunks_disk store
    cdef object keep            # what owns the descriptor


# One request to where a blob is.
cdef class Job:
    cdef sgz_chunks_job job
    cdef sgz_error error        # of the last delivery
    cdef Blob blob              # of the last delivery, while it is not at its end


# The table of decoded chunks of some layers, and what its workers call.
cdef class Chunks:
    cdef sgz_chunks *ptr
    cdef Store store
    # (Spans, Blob) of each, which the table points into. Not a list: the collector would empty it.
    cdef tuple layers
    cdef int pid
    cdef size_t piece
    cdef dict delivering        # number -> Job
    cdef dict causes            # token -> exception of a failed request; oldest first
    cdef int reading            # threads that may ask for one
    cdef uint64_t tokens
    cdef object lock

    cdef int enter(self) except -1
    cdef int leave(self) except -1
    cdef object failure(self, const sgz_error *err, uint32_t layer)
