"""Files as the kernels read and write them: descriptors, and Python's own behind callbacks."""

from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy, memset

import io
import os
import stat

from stargz.errors import SourceError


cdef int64_t _read(void *arg, uint8_t *out, size_t cap) noexcept with gil:
    cdef Reader file = <Reader>arg
    cdef const uint8_t[::1] view
    try:
        data = file.call(cap)
        if data is None:
            raise BlockingIOError("the input is non-blocking and has no bytes now")
        view = memoryview(data).cast("B") if len(data) else b""
        if <size_t>view.shape[0] > cap:
            raise SourceError("the input's read() returned more than it was asked for")
        if view.shape[0]:
            memcpy(out, &view[0], view.shape[0])
        return view.shape[0]
    except BaseException as error:
        file.error = error
        return -1


cdef int _write(void *arg, const uint8_t *data, size_t size) noexcept with gil:
    cdef Writer file = <Writer>arg
    raw = isinstance(getattr(file.call, "__self__", None), io.RawIOBase)
    try:
        view = memoryview(<bytes>data[:size])
        while view:
            written = file.call(view)
            if raw and written is None:
                raise BlockingIOError("the output is non-blocking and takes no bytes now")
            if written == 0:
                raise SourceError("the output's write() took nothing")
            # Raw files may take less than they are given; others take everything.
            view = view[written if raw else len(view):]
        return 0
    except BaseException as error:
        file.error = error
        return -1


cdef class Callback:
    def __init__(self, call):
        self.call = call

    cdef int check(self) except -1:
        """Raise what the function raised."""
        if self.error is not None:
            raise self.error
        return 0


cdef class Reader(Callback):
    def __init__(self, source):
        memset(&self.source, 0, sizeof(self.source))
        self.source.fd = -1
        if callable(source):
            self.call = source
            self.source.read = _read
            self.source.arg = <void *>self
        else:
            self.source.fd = source


cdef class Writer(Callback):
    def __init__(self, sink, str name):
        memset(&self.sink, 0, sizeof(self.sink))
        self.sink.fd = -1
        self.name = os.fsencode(name)
        self.sink.name = self.name
        if callable(sink):
            self.call = sink
            self.sink.write = _write
            self.sink.arg = <void *>self
        else:
            self.sink.fd = sink
            self.sink.is_pipe = not stat.S_ISREG(os.fstat(sink).st_mode)
