"""The table of decoded chunks of any number of layers, and the disk cache's files.

Readers wait without the GIL; workers (threads that run Python) take jobs from here, fetch
their bytes and deliver them.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_SIMPLE,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.exc cimport PyErr_CheckSignals
from libc.string cimport memcpy, memset
from posix.unistd cimport getpid

from stargz._engine.base cimport (
    POLL,
    SGZ_ECALLBACK,
    SGZ_ECANCELLED,
    SGZ_EDIGEST,
    SGZ_EDATA,
    SGZ_EIO,
    SGZ_OK,
    sgz_error,
    sgz_status,
    table,
    reading_failed,
    to_exception,
)
from stargz._engine.reader cimport Blob, Reader

import threading

DEMAND, AHEAD, PREFETCH, BACKGROUND = range(4)

cdef enum:
    # How long a worker sleeps in C when there is nothing to do; it is woken when there is.
    SLEEP_MS = 60000
    # What is read in one go: all of its chunks are held in memory at once.
    PIECE = 8 << 20
    # Exceptions of failed requests that are remembered for those who wait for them.
    CAUSES = 64


cdef extern from "chunks/disk.h" nogil:
    int sgz_chunks_disk_has(sgz_chunks_disk *, const uint8_t *, int64_t)
    sgz_status sgz_chunks_disk_get(sgz_chunks_disk *, const uint8_t *, uint8_t *, size_t, int *,
                                   sgz_error *)
    sgz_status sgz_chunks_disk_put(sgz_chunks_disk *, const uint8_t *, const uint8_t *, size_t,
                                   int *, sgz_error *)


cdef class Store:
    """The files of the disk cache below an open folder. The descriptor stays the caller's;
    `keep` is the object that owns it."""

    def __cinit__(self, int dir_fd, keep=None):
        self.keep = keep
        self.store.dir = dir_fd
        self.store.codecs = table()

    def get(self, bytes digest not None, int64_t size):
        """The chunk of this sha256 (32 bytes) and length; None when it is not there or bad."""
        cdef sgz_error err
        cdef sgz_status status
        cdef int found = 0
        cdef const uint8_t *key = check_digest(digest)
        cdef bytearray out = bytearray(size)
        cdef uint8_t *to = out
        with nogil:
            status = sgz_chunks_disk_get(&self.store, key, to, size, &found, &err)
        if status != SGZ_OK:
            raise to_exception(&err, "the disk cache")
        return bytes(out) if found else None

    def has(self, bytes digest not None, int64_t size):
        """Whether it is there with that length; it is not read."""
        return bool(sgz_chunks_disk_has(&self.store, check_digest(digest), size))

    def put(self, bytes digest not None, bytes data not None):
        """Keep a chunk that was checked; False when the disk does not take it."""
        cdef sgz_error err
        cdef sgz_status status
        cdef int kept = 0
        cdef const uint8_t *key = check_digest(digest)
        cdef const uint8_t *start = data
        cdef size_t size = len(data)
        with nogil:
            status = sgz_chunks_disk_put(&self.store, key, start, size, &kept, &err)
        if status != SGZ_OK:
            raise to_exception(&err, "the disk cache")
        return bool(kept)

    @property
    def added(self):
        """Bytes written by this object."""
        return self.store.added

    @property
    def hits(self):
        """Chunks served."""
        return self.store.hits

    @property
    def misses(self):
        """Chunks that were not there, or damaged."""
        return self.store.misses


cdef const uint8_t *check_digest(bytes digest) except NULL:
    if len(digest) != 32:
        raise ValueError(f"a sha256 has 32 bytes, not {len(digest)}")
    return digest


cdef class Job:
    """One request: bytes [offset, offset + size) of layer number `layer`."""

    @property
    def layer(self):
        """Number of the layer, as `Chunks.add` gave it."""
        return self.job.layer

    @property
    def priority(self):
        """DEMAND, AHEAD, PREFETCH or BACKGROUND."""
        return self.job.priority

    @property
    def offset(self):
        """Blob offset."""
        return self.job.offset

    @property
    def size(self):
        """Bytes."""
        return self.job.size

    @property
    def in_steps(self):
        """The bytes are not to be fetched at once: deliver a source."""
        return bool(self.job.in_steps)


# Not cleared by the collector: the table points into what `layers` holds.
@cython.no_gc_clear
cdef class Chunks:
    """Decoded chunks of layers, at most `memory` bytes of them, and their requests.

    `store`: the disk cache, or None. Any number of threads may use it.
    """

    def __cinit__(self, size_t memory, Store store=None):
        cdef sgz_error err
        self.store = store
        self.layers = ()
        self.delivering = {}
        self.causes = {}
        self.lock = threading.Lock()
        self.pid = getpid()
        self.piece = min(max(memory // 8, <size_t>1 << 20), <size_t>PIECE)
        if sgz_chunks_new(&self.ptr, table(), memory, &store.store if store is not None else NULL,
                          &err) != SGZ_OK:
            raise to_exception(&err, "")

    def __dealloc__(self):
        # In a forked child the threads that used it are gone, with whatever they held.
        if self.pid == getpid():
            sgz_chunks_free(self.ptr)

    def add(self, Reader reader not None, int64_t prefetch_end=0):
        """Add a layer; returns its number. The first `prefetch_end` bytes hold what is
        prioritized. The blob must stay open for as long as it is read here."""
        cdef sgz_error err
        cdef uint32_t number = 0
        if reader.index is None:
            reader.enter()
            reader.leave()
        with self.lock:
            if sgz_chunks_add(self.ptr, &reader.index.spans, &reader.blob.blob, reader.verified,
                              prefetch_end, &number, &err) != SGZ_OK:
                raise to_exception(&err, reader.blob.name)
            # Not the reader: it may have this object, and its workers, for its own.
            self.layers += ((reader.index, reader.blob),)
        return number

    cdef int enter(self) except -1:
        with self.lock:
            self.reading += 1
        return 0

    # The last reader has been told. An exception knows the frames it came through, and these know
    # this object: it is not to be kept alive by them.
    cdef int leave(self) except -1:
        told = None
        with self.lock:
            self.reading -= 1
            if not self.reading:
                told, self.causes = self.causes, {}
        return 0

    cdef object failure(self, const sgz_error *err, uint32_t layer):
        cdef Blob blob = self.layers[layer][1] if layer < len(self.layers) else None
        name = "" if blob is None else blob.name
        if err.code == SGZ_ECANCELLED:
            return ValueError(f"{name}: the layer is closed")
        if err.code == SGZ_EIO or err.code == SGZ_ECALLBACK:
            cause = self.causes.get(err.cause)
            if cause is not None:
                return cause
        return reading_failed(err, name, None if blob is None else blob.index)

    def read_into(self, uint32_t layer, uint32_t row, int64_t offset, int64_t size, buffer):
        """Bytes [offset, offset + size) of the regular file `row` into a writable buffer; the
        caller clamps. Waits for what must be fetched; raises what the fetch raised."""
        cdef Py_buffer view
        cdef sgz_chunks_waiter waiter
        cdef sgz_error err
        cdef sgz_status status
        cdef int again
        cdef uint8_t *out
        cdef int64_t step
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            if size > view.len:
                raise ValueError(f"{size} bytes do not fit into a buffer of {view.len}")
            out = <uint8_t *>view.buf
            if size > <int64_t>self.piece:
                self.ahead(layer, row, offset, size)
            sgz_chunks_waiter_init(&waiter)
            self.enter()
            try:
                waiter.want.layer = layer
                waiter.want.file = row
                while size:
                    step = min(size, <int64_t>self.piece)
                    waiter.want.offset = offset
                    waiter.want.size = step
                    while True:
                        memset(&err, 0, sizeof(err))
                        with nogil:
                            status = sgz_chunks_waiter_read(self.ptr, &waiter, out, POLL, &again,
                                                            &err)
                        if not again:
                            break
                        PyErr_CheckSignals()
                    if status != SGZ_OK:
                        raise self.failure(&err, layer)
                    out += step
                    offset += step
                    size -= step
            finally:
                with nogil:
                    sgz_chunks_waiter_cancel(self.ptr, &waiter)
                    sgz_chunks_waiter_free(&waiter)
                self.leave()
        finally:
            PyBuffer_Release(&view)

    def ahead(self, uint32_t layer, uint32_t row, int64_t offset, int64_t size):
        """A part of a file will be read: fetch it at low priority."""
        with nogil:
            sgz_chunks_ahead(self.ptr, layer, row, offset, size)

    def unasked(self, *, bint ahead=True, bint prefetch=False, bint background=False):
        """What may be fetched without being wanted; the last two need a disk cache."""
        cdef unsigned kinds = (
            ahead << SGZ_AHEAD | prefetch << SGZ_PREFETCH | background << SGZ_BACKGROUND
        )
        with nogil:
            sgz_chunks_unasked(self.ptr, kinds)

    def next(self, unsigned lowest=SGZ_BACKGROUND, timeout_ms=None):
        """The next request to make, of priority `lowest` or before; None once stopped, or
        when there was none for that long. It ends with `deliver` or `fail`."""
        cdef Job job = Job.__new__(Job)
        cdef int got = 0, sleep = SLEEP_MS if timeout_ms is None else timeout_ms
        while not got:
            with nogil:
                got = sgz_chunks_next(self.ptr, lowest, sleep, &job.job)
            if not got and timeout_ms is not None:
                return None
        return job if got > 0 else None

    def deliver(self, Job job not None, data=None, source=None):
        """Decode and check a request's chunks, wake who waits for them, and keep them on disk.

        From `data`, its bytes, or, where they are too many to hold, from a ByteSource of the
        blob; one that `slow` gave has its bytes. Raises DigestError or GzipError when they are
        wrong, and what the source raises: the job is not at its end then.
        """
        cdef sgz_status status
        cdef Blob blob = job.blob
        cdef int later = 0
        if data is not None:
            if len(data) != job.job.size:
                raise ValueError(f"{job.job.size} bytes are wanted, {len(data)} given")
            blob = Blob(self.layers[job.job.layer][1].source, data, job.job.offset)
        elif source is not None:
            blob = Blob(source)
        elif blob is None:
            raise ValueError("there are no bytes of this request")
        memset(&job.error, 0, sizeof(job.error))
        # Another thread goes on with it, maybe before this one is back.
        job.blob = blob
        self.delivering[job.job.id] = job
        with nogil:
            status = sgz_chunks_deliver(self.ptr, &job.job, &blob.blob, &later, &job.error)
        if later:
            return
        del self.delivering[job.job.id]
        job.blob = None
        if status != SGZ_OK:
            error = blob.failure(&job.error)
            if status == SGZ_ECALLBACK:
                memset(&job.error, 0, sizeof(job.error))
            raise error

    def fail(self, Job job not None, error):
        """The chunks of a request cannot be had; who waits for them is told why."""
        cdef sgz_error err
        if job.error.code == SGZ_EDIGEST or job.error.code == SGZ_EDATA:
            err = job.error
        else:
            memset(&err, 0, sizeof(err))
            err.offset = job.job.offset
            err.code = SGZ_ECALLBACK
            if isinstance(error, OSError):
                err.code = SGZ_EIO  # its text says all: no errno's words behind it
            text = (str(error) or type(error).__name__).encode("utf-8", "replace")
            text = text[:sizeof(err.message) - 1]
            memcpy(err.message, <const char *>text, len(text))
            with self.lock:
                if self.reading:
                    self.tokens += 1
                    err.cause = self.tokens
                    self.causes[self.tokens] = error
                    while len(self.causes) > CAUSES:
                        del self.causes[next(iter(self.causes))]
        with nogil:
            sgz_chunks_fail(self.ptr, &job.job, &err)

    def slow(self):
        """For some threads of the caller's, in a loop: decodes what takes long of local layers, and
        returns a job whose chunks do, to be delivered again; None once stopped. From the first
        call on no other thread takes long: reads wait for such a chunk."""
        cdef sgz_chunks_job job
        cdef int got
        with nogil:
            got = sgz_chunks_slow(self.ptr, &job)
        return self.delivering[job.id] if got > 0 else None

    def stats(self):
        """Counts as a dict: fetched_bytes and fetched_requests (delivered), read_bytes (handed
        out), touched_bytes (decoded, of distinct chunks), disk_bytes, failures."""
        cdef sgz_chunks_stats stats
        sgz_chunks_get_stats(self.ptr, &stats)
        return stats

    def forked(self):
        """Whether it belongs to the process that this one was forked from: it cannot be used."""
        return self.pid != getpid()

    def stop(self):
        """End all waiting: readers get ValueError, workers None. For good."""
        if self.pid == getpid():
            with nogil:
                sgz_chunks_stop(self.ptr)
