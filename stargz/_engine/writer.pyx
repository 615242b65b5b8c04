"""The writer's door to C."""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from stargz._engine.codecs cimport sgz_codecs, table
from stargz._engine.status cimport SGZ_ECANCELLED, SGZ_OK, sgz_error, sgz_status, to_exception

import io
import os
import stat

from stargz._engine.codecs import need
from stargz.errors import SourceError


cdef extern from "toc.h" nogil:
    ctypedef struct sgz_toc:
        size_t count

    sgz_toc *sgz_toc_new()
    void sgz_toc_free(sgz_toc *)

cdef extern from "input.h" nogil:
    ctypedef enum sgz_wrap:
        SGZ_WRAP_NONE
        SGZ_WRAP_GZIP
        SGZ_WRAP_ZSTD

    ctypedef struct sgz_source:
        int fd
        int64_t (*read)(void *, uint8_t *, size_t)
        void *arg
        const int *stop

    ctypedef struct sgz_extent:
        int64_t start
        int64_t end

    ctypedef struct sgz_inflater:
        int garbage

    ctypedef struct sgz_input:
        sgz_wrap wrap
        sgz_inflater inflater
        int64_t source_pos

    sgz_status sgz_input_open(sgz_input *, const sgz_codecs *, sgz_source, sgz_error *)
    sgz_status sgz_input_peek(sgz_input *, sgz_error *)
    sgz_status sgz_input_begin(sgz_input *, sgz_error *)
    sgz_status sgz_input_open_extents(sgz_input *, const sgz_codecs *, int, const sgz_extent *,
                                      size_t, sgz_error *)
    void sgz_input_close(sgz_input *)

cdef extern from "scan.h" nogil:
    ctypedef struct sgz_scan:
        pass

    ctypedef struct sgz_scan_order:
        sgz_extent *extents
        size_t extent_count
        int64_t prioritized

    sgz_scan *sgz_scan_new(sgz_input *, int)
    void sgz_scan_free(sgz_scan *)
    sgz_status sgz_scan_step(sgz_scan *, int *, sgz_error *)
    sgz_status sgz_scan_sort(sgz_scan *, const char *const *, size_t, uint8_t *,
                             sgz_scan_order *, sgz_error *)

cdef extern from "plain.h" nogil:
    size_t SGZ_PLAIN_BUF

    ctypedef struct sgz_hasher:
        pass

    ctypedef struct sgz_plain:
        sgz_input *input
        sgz_hasher *hasher
        uint8_t *buf
        int sink
        int64_t size

    sgz_status sgz_hasher_init(sgz_hasher *, const sgz_codecs *, sgz_error *)
    void sgz_hasher_free(sgz_hasher *)
    void sgz_hasher_final(sgz_hasher *, uint8_t *)
    sgz_status sgz_plain_step(sgz_plain *, int *, sgz_error *)

cdef extern from "convert.h" nogil:
    ctypedef struct sgz_cut_options:
        int64_t chunk_size
        int64_t min_chunk_size
        int landmarks
        int64_t landmark_after
        int prefetch
        int lossless

    ctypedef struct sgz_convert_options:
        sgz_cut_options cut
        int level
        int legacy
        unsigned threads

    ctypedef struct sgz_sink:
        int fd
        int (*write)(void *, const uint8_t *, size_t)
        void *arg
        const int *stop
        int is_pipe
        const char *name

    ctypedef struct sgz_convert_result:
        uint8_t digest[32]
        uint8_t diff_id[32]
        uint8_t toc_digest[32]
        int64_t size
        int64_t uncompressed_size
        int64_t toc_offset
        uint64_t toc_size
        uint64_t entries
        uint64_t chunks
        uint64_t members
        uint64_t bad_names
        int trailing_garbage

    ctypedef struct sgz_conversion:
        pass

    sgz_conversion *sgz_conversion_start(const sgz_codecs *, sgz_input *, sgz_sink *, sgz_toc *,
                                         const sgz_convert_options *, int *, sgz_error *)
    int sgz_conversion_wait(sgz_conversion *, int, int64_t *)
    void sgz_conversion_cancel(sgz_conversion *)
    sgz_status sgz_conversion_finish(sgz_conversion *, sgz_convert_result *, sgz_error *)

# How often the calling thread looks for signals and reports progress: milliseconds.
cdef enum:
    POLL = 50


cdef class _File:
    """A Python file object behind a C callback; keeps the exception it raised."""

    cdef object call
    cdef object error
    cdef bint raw

    def __init__(self, call):
        self.call = call
        self.raw = isinstance(getattr(call, "__self__", None), io.RawIOBase)


cdef int64_t _read(void *arg, uint8_t *out, size_t cap) noexcept with gil:
    cdef _File file = <_File>arg
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
    cdef _File file = <_File>arg
    try:
        view = memoryview(<bytes>data[:size])
        while view:
            written = file.call(view)
            if file.raw and written is None:
                raise BlockingIOError("the output is non-blocking and takes no bytes now")
            if written == 0:
                raise SourceError("the output's write() took nothing")
            # Raw files may take less than they are given; others take everything.
            view = view[written if file.raw else len(view):]
        return 0
    except BaseException as error:
        file.error = error
        return -1


cdef sgz_status _open(sgz_input *input, sgz_source where, sgz_error *err) except *:
    """Find out what the input is wrapped in, and load what that needs."""
    cdef sgz_status status = sgz_input_open(input, table(), where, err)
    while status == SGZ_OK:
        with nogil:
            status = sgz_input_peek(input, err)
        PyErr_CheckSignals()
        if status != SGZ_ECANCELLED:
            break
        status = SGZ_OK
    if status == SGZ_OK:
        if input.wrap == SGZ_WRAP_ZSTD:
            need("zstd")
        status = sgz_input_begin(input, err)
    return status


def unwrap(source, int sink=-1, *, str source_name, progress=None, int64_t source_size=0):
    """The DiffID of a tar and its bytes: (digest, size).

    The source is a descriptor, read from its position on, or a callable read(n); `sink` is the
    descriptor of a file that gets the plain tar, -1 for none. progress(done, source_size) gets
    bytes of the source after each 8 MiB of the tar.
    """
    cdef sgz_input input
    cdef sgz_source where
    cdef sgz_hasher hasher
    cdef sgz_plain plain
    cdef sgz_error err
    cdef sgz_status status
    cdef uint8_t digest[32]
    cdef int end = 0, stop = 0
    cdef _File reader = None
    memset(&input, 0, sizeof(input))
    memset(&hasher, 0, sizeof(hasher))
    memset(&where, 0, sizeof(where))
    memset(&plain, 0, sizeof(plain))
    where.fd = -1
    where.stop = &stop
    if callable(source):
        reader = _File(source)
        where.read = _read
        where.arg = <void *>reader
    else:
        where.fd = source
    plain.input = &input
    plain.hasher = &hasher
    plain.sink = sink
    try:
        plain.buf = <uint8_t *>malloc(SGZ_PLAIN_BUF)
        if plain.buf == NULL:
            raise MemoryError
        status = _open(&input, where, &err)
        if status == SGZ_OK:
            status = sgz_hasher_init(&hasher, table(), &err)
        while status == SGZ_OK and not end:
            with nogil:
                status = sgz_plain_step(&plain, &end, &err)
            PyErr_CheckSignals()
            if status == SGZ_OK and progress is not None:
                progress(input.source_pos, source_size)
        if status != SGZ_OK:
            if reader is not None and reader.error is not None:
                raise reader.error
            raise to_exception(&err, source_name)
        sgz_hasher_final(&hasher, digest)
    finally:
        sgz_input_close(&input)
        sgz_hasher_free(&hasher)
        free(plain.buf)
    return "sha256:" + (<const uint8_t *>digest)[:32].hex(), plain.size


cdef class Conversion:
    """One conversion; `run` may be called once.

    The source is a descriptor or a callable read(n); the sink a descriptor or a callable
    write(view). `names` are the prioritized files as bytes, None for no landmark order;
    `spool` makes the temporary file that they need.
    """

    cdef sgz_input input
    cdef sgz_sink sink
    cdef sgz_convert_options options
    cdef sgz_convert_result result
    cdef sgz_scan_order order
    cdef sgz_toc *toc
    cdef int stop
    cdef _File reader, writer
    cdef object source_name, progress
    cdef bytes sink_name
    cdef int64_t source_size
    cdef readonly list missing
    cdef int garbage            # seen by the first pass

    def __cinit__(self):
        memset(&self.input, 0, sizeof(self.input))
        memset(&self.sink, 0, sizeof(self.sink))
        memset(&self.order, 0, sizeof(self.order))
        self.toc = NULL

    def __dealloc__(self):
        sgz_input_close(&self.input)
        free(self.order.extents)
        sgz_toc_free(self.toc)

    def __init__(self, source, sink, *, int level, int64_t chunk_size, int64_t min_chunk_size,
                 bint legacy, bint lossless, unsigned threads, str source_name,
                 str sink_name, progress, int64_t source_size):
        cdef sgz_source where
        cdef sgz_error err
        cdef sgz_status status
        if level > 2:
            need("libdeflate")
        self.source_name = source_name
        self.source_size = source_size
        self.progress = progress
        self.missing = []
        self.options.level = level
        self.options.legacy = legacy
        self.options.threads = threads
        self.options.cut.chunk_size = chunk_size
        self.options.cut.min_chunk_size = min_chunk_size
        self.options.cut.lossless = lossless
        self.options.cut.landmarks = not legacy and not lossless
        self.toc = sgz_toc_new()
        if self.toc == NULL:
            raise MemoryError
        memset(&where, 0, sizeof(where))
        where.fd = -1
        where.stop = &self.stop
        if callable(source):
            self.reader = _File(source)
            where.read = _read
            where.arg = <void *>self.reader
        else:
            where.fd = source
        self.sink_name = os.fsencode(sink_name)
        self.sink.name = self.sink_name
        self.sink.fd = -1
        self.sink.stop = &self.stop
        if callable(sink):
            self.writer = _File(sink)
            self.sink.write = _write
            self.sink.arg = <void *>self.writer
        else:
            self.sink.fd = sink
            self.sink.is_pipe = not stat.S_ISREG(os.fstat(sink).st_mode)
        status = _open(&self.input, where, &err)
        if status != SGZ_OK:
            self._raise(&err)

    @property
    def plain(self):
        """Whether the input is a tar that is not compressed."""
        return self.input.wrap == SGZ_WRAP_NONE

    cdef _raise(self, const sgz_error *err):
        for file in (self.reader, self.writer):
            if file is not None and (<_File>file).error is not None:
                raise (<_File>file).error
        raise to_exception(err, self.source_name)

    cdef _report(self, int64_t done, int64_t total):
        PyErr_CheckSignals()
        if self.progress is not None:
            self.progress(min(done, total) if total > 0 else done, total)

    def prioritize(self, list names, int spool, bint reread):
        """The first pass: find every entry, then order them.

        `spool` is the descriptor of an empty temporary file for the tar; with `reread` it is
        the source itself, a seekable plain tar, and nothing is written to it. `self.missing`
        gets the names that are not there.
        """
        cdef sgz_error err
        cdef sgz_status status
        cdef int end = 0
        cdef size_t i, count = len(names)
        cdef bytearray missing = bytearray(count + 1)
        cdef uint8_t *absent = missing
        cdef bytearray table_ = bytearray((count + 1) * sizeof(char *))
        cdef char *slots = table_
        cdef const char **pointers = <const char **>slots
        cdef sgz_scan *scan = sgz_scan_new(&self.input, -1 if reread else spool)
        if scan == NULL:
            raise MemoryError
        try:
            while not end:
                with nogil:
                    status = sgz_scan_step(scan, &end, &err)
                if status != SGZ_OK:
                    self._raise(&err)
                self._report(self.input.source_pos // 2, self.source_size)
            for i in range(count):
                pointers[i] = <const char *>(<bytes>names[i])
            with nogil:
                status = sgz_scan_sort(scan, pointers, count, absent, &self.order, &err)
            if status != SGZ_OK:
                self._raise(&err)
        finally:
            sgz_scan_free(scan)
        self.missing = [name for name, gone in zip(names, missing, strict=False) if gone]
        self.options.cut.prefetch = 1
        self.options.cut.landmark_after = self.order.prioritized
        self.garbage = self.input.inflater.garbage
        sgz_input_close(&self.input)
        if sgz_input_open_extents(&self.input, table(), spool, self.order.extents,
                                  self.order.extent_count, &err) != SGZ_OK:
            self._raise(&err)

    def run(self):
        """Convert; returns the result's fields as a dict."""
        cdef sgz_error err
        cdef sgz_status status
        cdef int64_t done = 0, first = 0, whole = 1
        cdef int ended = 0
        cdef size_t i
        cdef sgz_conversion *conversion
        if self.order.extents != NULL:
            first = self.source_size // 2
            for i in range(self.order.extent_count):
                whole += self.order.extents[i].end - self.order.extents[i].start
        conversion = sgz_conversion_start(table(), &self.input, &self.sink, self.toc,
                                          &self.options, &self.stop, &err)
        if conversion == NULL:
            self._raise(&err)
        try:
            while not ended:
                with nogil:
                    ended = sgz_conversion_wait(conversion, POLL, &done)
                if first:
                    self._report(first + <int64_t>(<double>done / whole * first),
                                 self.source_size)
                else:
                    self._report(done, self.source_size)
        except BaseException:
            with nogil:
                sgz_conversion_cancel(conversion)
                sgz_conversion_finish(conversion, &self.result, &err)
            raise
        with nogil:
            status = sgz_conversion_finish(conversion, &self.result, &err)
        if status != SGZ_OK:
            self._raise(&err)
        return {
            "digest": "sha256:" + (<const uint8_t *>self.result.digest)[:32].hex(),
            "size": self.result.size,
            "diff_id": "sha256:" + (<const uint8_t *>self.result.diff_id)[:32].hex(),
            "toc_digest": "sha256:" + (<const uint8_t *>self.result.toc_digest)[:32].hex(),
            "uncompressed_size": self.result.uncompressed_size,
            "toc_offset": self.result.toc_offset,
            "toc_size": self.result.toc_size,
            "entries": self.result.entries,
            "chunks": self.result.chunks,
            "members": self.result.members,
            "bad_names": self.result.bad_names,
            "trailing_garbage": bool(self.result.trailing_garbage or self.garbage),
        }
