"""A TOC from its JSON. Part of toc.pyx."""

from stargz._engine.base cimport Buffer


cdef class Parser:
    """A TOC from pieces of its JSON. Memory is the rows plus one entry's text.

    `blob_end` bounds the entries' offsets: the TOC's own offset, or for an external TOC the
    blob's size less its footer. `source` names the blob in errors. For one thread at a time.
    """

    cdef sgz_toc_parser *parser
    cdef TOC toc
    cdef int64_t blob_end
    cdef str source
    cdef bint busy

    def __cinit__(self, int64_t blob_end, str source=""):
        self.toc = TOC.__new__(TOC)
        self.blob_end = blob_end
        self.source = source
        self.parser = sgz_toc_parser_new(self.toc.ptr)
        if self.parser == NULL:
            raise MemoryError
        sgz_toc_parser_limit(self.parser, blob_end)

    def __dealloc__(self):
        sgz_toc_parser_free(self.parser)

    cdef int take(self) except -1:
        if self.busy or self.toc is None:
            raise ValueError("the parser is finished, or used by another thread")
        self.busy = True
        return 0

    def feed(self, data):
        """Parse the next piece, any bytes-like object of any length. Raises TOCError."""
        cdef Buffer text
        cdef sgz_error err
        cdef sgz_status status
        self.take()
        try:
            text = Buffer(data)
            with nogil:
                status = sgz_toc_parse(self.parser, <const char *>text.view.buf,
                                       <size_t>text.view.len, &err)
        finally:
            self.busy = False
        if status != SGZ_OK:
            raise to_exception(&err, self.source)

    def finish(self):
        """Check the whole and return it; the parser is of no use after that."""
        cdef sgz_error err
        cdef sgz_status status
        self.take()
        with nogil:
            status = sgz_toc_parse_finish(self.parser, self.blob_end, &err)
        toc = self.toc
        self.toc = None
        sgz_toc_parser_free(self.parser)
        self.parser = NULL
        if status != SGZ_OK:
            raise to_exception(&err, self.source)
        return toc
