"""A blob as the kernels read it, its TOC, and what an index claims of it. Part of reader.pyx."""

from stargz._engine.base cimport SGZ_ECALLBACK, Buffer, poll_signals, reading_failed

from stargz.errors import SourceError


cdef int call_read_at(void *arg, int64_t offset, uint8_t *out, size_t size) noexcept with gil:
    # Once per step of a decoder (64 to 256 KiB), from its thread.
    cdef Blob blob = <Blob>arg
    cdef Buffer data
    try:
        data = Buffer(blob.source.read_at(offset, size))
        if <size_t>data.view.len != size:
            raise SourceError(
                f"{blob.name}: {size} bytes at offset {offset} are wanted, the source gave "
                f"{data.view.len}"
            )
        memcpy(out, data.view.buf, size)
    except BaseException as error:
        if blob.error is None:
            blob.error = error
        return 1
    return 0


# Not for the collector: it would clear the memory of a blob before the blob lets go of it.
@cython.no_gc
cdef class Blob:
    """A ByteSource as the kernels read it: a descriptor, a file that is opened for each read,
    memory, or a call into Python."""

    def __cinit__(self, source, data=None, int64_t base=0, *, Blob like=None):
        """With `data` the blob is only those bytes of the source, from offset `base` on. Another
        way to the bytes of a blob is `like` that: entered where it is, and checked as it is."""
        self.source = source
        self.name = source.name
        self.blob.fd = -1
        self.blob.size = source.size
        self.blob.poll = poll_signals
        if like is not None:
            self.index, self.claims = like.index, like.claims
        fd = getattr(source, "fd", None) if data is None else None
        buffer = getattr(source, "buffer", None) if data is None else data
        named = getattr(source, "named", None) if data is None else None
        if fd is not None:
            self.blob.fd = fd
        elif named is not None:
            self.path, self.file.dev, self.file.ino, self.file.size, self.file.mtime_ns = named
            self.file.path = self.path
            self.blob.named = &self.file
        elif buffer is not None:
            PyObject_GetBuffer(buffer, &self.view, PyBUF_SIMPLE)
            self.viewed = True
            if self.view.len:
                self.blob.data = <const uint8_t *>self.view.buf
            self.blob.base = base
            self.blob.size = base + self.view.len
        if self.blob.data == NULL:
            self.blob.read_at = call_read_at
            self.blob.arg = <void *>self
        self.direct = sgz_codec_blob_direct(&self.blob)

    def __dealloc__(self):
        if self.viewed:
            PyBuffer_Release(&self.view)

    cdef const sgz_points *points(self) noexcept:
        return NULL if self.index is None else self.index.table

    cdef sgz_read_claims *claimed(self) noexcept:
        return NULL if self.claims is None else self.claims.claims

    cdef object failure(self, const sgz_error *err):
        # Not kept: its frames know this object, which the collector does not see.
        error, self.error = self.error, None
        if err.code == SGZ_ECALLBACK and error is not None:
            return error
        return reading_failed(err, self.name, self.index)


def read_toc(Blob blob not None, int64_t offset, int64_t end, int64_t max_size,
             int64_t blob_end):
    """The TOC whose gzip member begins at `offset`, parsed and checked in one pass.

    Returns (TOC, bytes of JSON, sha256 of the JSON). Raises TOCError or GzipError.
    """
    cdef const sgz_codecs *codecs = table()
    cdef TOC toc = TOC.__new__(TOC)
    cdef sgz_error err
    cdef sgz_status status
    cdef int64_t json_size = 0
    cdef uint8_t digest[32]
    with nogil:
        status = sgz_toc_read(codecs, &blob.blob, offset, end, max_size, blob_end, NULL,
                              toc.ptr, &json_size, digest, &err)
    if status != SGZ_OK:
        raise blob.failure(&err)
    return toc, json_size, digest[:32]


@cython.final
cdef class Frames(Points):
    """The entry points of zstd:chunked: every frame is one."""

    cdef sgz_points points

    def __cinit__(self):
        self.points.kind = SGZ_POINT_ZSTD
        self.table = &self.points


FRAMES = Frames()


def read_toc_frame(Blob blob not None, int64_t offset, int64_t packed, int64_t size,
                   int64_t max_size, int64_t blob_end):
    """The TOC of zstd:chunked, of `size` bytes, in the frame of `packed` bytes at `offset`.

    Returns (TOC, sha256 of the JSON, sha256 of the frame). Raises TOCError or GzipError.
    """
    cdef const sgz_codecs *codecs = table()
    cdef TOC toc = TOC.__new__(TOC)
    cdef sgz_toc_frame frame
    cdef sgz_error err
    cdef sgz_status status
    cdef uint8_t digest[32]
    cdef uint8_t checksum[32]
    need("zstd")
    frame.offset, frame.packed, frame.size = offset, packed, size
    with nogil:
        status = sgz_toc_read_frame(codecs, &blob.blob, &frame, max_size, blob_end, toc.ptr,
                                    digest, checksum, &err)
    if status != SGZ_OK:
        raise blob.failure(&err)
    return toc, digest[:32], checksum[:32]


# Not cleared by the collector: what they point to goes after them.
@cython.no_gc_clear
cdef class Claims:
    def __cinit__(self, Blob blob not None, TOC toc not None, Points points not None):
        cdef const sgz_codecs *codecs = table()
        cdef sgz_error err
        cdef sgz_status status
        if toc.ptr.count and toc.ptr.origins == NULL:
            raise ValueError("rows that are of no index have no claims to check")
        self.toc = toc
        self.points = points
        self.claims = sgz_read_claims_new(toc.ptr)
        if self.claims == NULL:
            raise MemoryError
        with nogil:
            status = sgz_read_claims_begin(self.claims, codecs, &blob.blob, points.table, &err)
        if status != SGZ_OK:
            raise blob.failure(&err)

    def __dealloc__(self):
        sgz_read_claims_free(self.claims)
