from libc.stdint cimport int64_t, uint8_t


cdef extern from "input.h" nogil:
    ctypedef struct sgz_source:
        int fd
        int64_t (*read)(void *, uint8_t *, size_t)
        void *arg
        const int *stop

cdef extern from "sink.h" nogil:
    ctypedef struct sgz_sink:
        int fd
        int (*write)(void *, const uint8_t *, size_t)
        void *arg
        const int *stop
        int is_pipe
        const char *name


cdef class Callback:
    """A Python function that a kernel calls; keeps the exception it raised."""

    cdef object call
    cdef object error

    cdef int check(self) except -1


cdef class Reader(Callback):
    """A descriptor, or a callable read(n), behind an sgz_source."""

    cdef sgz_source source


cdef class Writer(Callback):
    """A descriptor, or a callable write(view), behind an sgz_sink."""

    cdef bytes name
    cdef sgz_sink sink
