"""The JSON of a TOC, as it is stored. Part of reader.pyx."""


cdef class JSONStream:
    """The stored JSON of a TOC, piece by piece; for one thread at a time.

    With `size` it is that of zstd:chunked, of so many bytes, in the frame that `offset` and `end`
    are the borders of. ValueError once the reader of the layer is closed.
    """

    cdef Reader reader
    cdef Blob blob
    cdef sgz_decoder decoder
    cdef bint ready
    cdef int64_t left

    def __cinit__(self, Reader reader not None, Blob blob not None, int64_t offset, int64_t end,
                  int64_t size=-1):
        cdef const sgz_codecs *codecs = table()
        cdef const sgz_points *points = NULL if size < 0 else (<Frames>FRAMES).table
        cdef sgz_error err
        cdef sgz_status status
        self.reader = reader
        self.blob = blob
        if sgz_codec_decoder_init(&self.decoder, codecs, &blob.blob, points, &err) != SGZ_OK:
            raise blob.failure(&err)
        self.ready = True
        reader.hold()
        try:
            with nogil:
                if points != NULL:
                    self.left = size
                    status = sgz_codec_decoder_enter(&self.decoder, offset, end, &err)
                else:
                    status = sgz_toc_seek(&self.decoder, offset, end, &self.left, &err)
        finally:
            reader.leave()
        if status != SGZ_OK:
            raise blob.failure(&err)

    def __dealloc__(self):
        if self.ready:
            sgz_codec_decoder_free(&self.decoder)

    def read(self, int64_t size=-1):
        """At most `size` bytes (all that is left when negative); b"" at the end."""
        cdef sgz_error err
        cdef sgz_status status
        cdef size_t got = 0
        cdef int64_t want = self.left if size < 0 or size > self.left else size
        cdef bytes out
        cdef uint8_t *to
        self.reader.hold()
        try:
            out = PyBytes_FromStringAndSize(NULL, want)
            to = <uint8_t *>PyBytes_AS_STRING(out)
            with nogil:
                status = sgz_codec_decoder_read(&self.decoder, to, want, &got, &err)
        finally:
            self.reader.leave()
        if status != SGZ_OK:
            raise self.blob.failure(&err)
        self.left = self.left - <int64_t>got if <int64_t>got == want else 0
        return out if <int64_t>got == want else out[:got]
