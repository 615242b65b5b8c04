from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from stargz._engine.base cimport (
    Points,
    sgz_base_job,
    sgz_codecs,
    sgz_error,
    sgz_notes,
    sgz_points,
    sgz_status,
)
from stargz._engine.toc cimport TOC, sgz_entry, sgz_toc


cdef extern from "base/file.h" nogil:
    ctypedef struct sgz_base_named:
        const char *path
        uint64_t dev
        uint64_t ino
        int64_t size
        int64_t mtime_ns


cdef extern from "codec/decode.h" nogil:
    ctypedef struct sgz_blob:
        const uint8_t *data
        int64_t base
        int fd
        const sgz_base_named *named
        int (*read_at)(void *, int64_t, uint8_t *, size_t) noexcept nogil
        void *arg
        int64_t size
        int (*poll)() noexcept nogil

    ctypedef struct sgz_decoder:
        pass

    sgz_status sgz_codec_decoder_init(sgz_decoder *, const sgz_codecs *, const sgz_blob *,
                                      const sgz_points *, sgz_error *)
    bint sgz_codec_blob_direct(const sgz_blob *)
    void sgz_codec_decoder_free(sgz_decoder *)
    sgz_status sgz_codec_decoder_enter(sgz_decoder *, int64_t, int64_t, sgz_error *)
    sgz_status sgz_codec_decoder_read(sgz_decoder *, uint8_t *, size_t, size_t *, sgz_error *)


cdef extern from "toc/open.h" nogil:
    sgz_status sgz_toc_read(const sgz_codecs *, const sgz_blob *, int64_t, int64_t, int64_t,
                            int64_t, const void *, sgz_toc *, int64_t *, uint8_t *, sgz_error *)
    sgz_status sgz_toc_seek(sgz_decoder *, int64_t, int64_t, int64_t *, sgz_error *)


cdef extern from "toc/open_frame.h" nogil:
    ctypedef struct sgz_toc_frame:
        int64_t offset
        int64_t packed
        int64_t size

    sgz_status sgz_toc_read_frame(const sgz_codecs *, const sgz_blob *, const sgz_toc_frame *,
                                  int64_t, int64_t, sgz_toc *, uint8_t *, uint8_t *, sgz_error *)


cdef extern from "read/spans.h" nogil:
    ctypedef struct sgz_read_claims:
        pass

    sgz_read_claims *sgz_read_claims_new(const sgz_toc *)
    sgz_status sgz_read_claims_begin(sgz_read_claims *, const sgz_codecs *, const sgz_blob *,
                                     const sgz_points *, sgz_error *)
    void sgz_read_claims_free(sgz_read_claims *)

    const size_t SGZ_NO_SPAN

    ctypedef struct sgz_spans:
        const sgz_points *points
        uint32_t *rows
        uint32_t *files
        size_t count
        int64_t end
        sgz_read_claims *claims

    sgz_status sgz_read_spans_init(sgz_spans *, const sgz_toc *, const sgz_points *, int64_t,
                                   sgz_error *)
    sgz_status sgz_read_spans_init_all(sgz_spans *, const sgz_toc *, const sgz_points *, int64_t,
                                       sgz_error *)
    void sgz_read_spans_free(sgz_spans *)
    bint sgz_read_spans_covered(const sgz_spans *)
    const uint8_t *sgz_read_span_digest(const sgz_spans *, size_t)
    size_t sgz_read_spans_claimed(const sgz_spans *, uint32_t)
    int64_t sgz_read_span_end(const sgz_spans *, size_t)
    void sgz_read_spans_zeros(const sgz_spans *, size_t, size_t, int64_t, int64_t,
                              uint8_t *)
    sgz_status sgz_read_spans_find(const sgz_spans *, uint32_t, int64_t, int64_t, size_t *,
                                   size_t *, sgz_error *)


cdef extern from "read/chunk.h" nogil:
    ctypedef struct sgz_reader:
        pass

    sgz_status sgz_read_reader_init(sgz_reader *, const sgz_codecs *, const sgz_spans *,
                                    const sgz_blob *, sgz_error *)
    void sgz_read_reader_free(sgz_reader *)
    int sgz_read_reader_near(const sgz_reader *, const sgz_entry *, int64_t)
    sgz_status sgz_read_chunk(sgz_reader *, size_t, int, int64_t, size_t, uint8_t *,
                              sgz_error *)


cdef extern from "read/pieces.h" nogil:
    ctypedef struct sgz_read_piece:
        size_t span
        int64_t at "from"
        size_t len
        uint8_t *out
        const sgz_blob *blob

    sgz_status sgz_read_pieces(const sgz_codecs *, const sgz_spans *, const sgz_read_piece *,
                               size_t, int, int, sgz_error *)


cdef extern from "verify/verify.h" nogil:
    enum:
        SGZ_VERIFY_ERRORS

    ctypedef struct sgz_verify_args:
        const sgz_codecs *codecs
        const sgz_spans *spans
        const sgz_blob *blob
        int64_t toc_end
        int64_t json_size
        int threads
        int size_only
        int whole
        sgz_toc_frame toc
        sgz_toc_frame split

    ctypedef struct sgz_verify_result:
        uint64_t files
        uint64_t chunks
        uint64_t bytes
        int has_diff_id
        uint8_t diff_id[32]
        uint64_t error_count
        sgz_notes notes
        size_t kept
        sgz_error errors[100]

    ctypedef struct sgz_verify:
        pass

    sgz_status sgz_verify_start(sgz_verify **, sgz_base_job *, const sgz_verify_args *,
                                sgz_error *)
    sgz_status sgz_verify_finish(sgz_verify *, sgz_verify_result *, sgz_error *)


# What an index says of files that is to be checked, and what came of it.
cdef class Claims:
    cdef sgz_read_claims *claims
    cdef TOC toc
    cdef Points points


cdef class Blob:
    cdef sgz_blob blob
    cdef sgz_base_named file
    cdef bytes path             # of the file
    cdef readonly object source
    cdef readonly str name
    cdef Py_buffer view
    cdef bint viewed
    cdef object error
    cdef readonly bint direct
    cdef readonly Points index  # None: at gzip members
    cdef Claims claims          # None: the index is trusted

    cdef const sgz_points *points(self) noexcept
    cdef sgz_read_claims *claimed(self) noexcept
    cdef object failure(self, const sgz_error *err)


cdef enum:
    POOL = 8


# The index of chunks; outlives its Reader for as long as a table of chunks needs it.
cdef class Spans:
    cdef sgz_spans spans
    cdef TOC toc
    cdef Points points
    cdef Claims claims


cdef class Reader:
    cdef readonly Blob blob
    cdef readonly TOC toc
    cdef readonly bint verified
    cdef int64_t end
    cdef int threads
    cdef const sgz_codecs *codecs
    cdef Spans index            # None before it is needed
    cdef sgz_reader *pool[POOL]
    cdef int pooled
    cdef object lock
    cdef dict cache             # (row, window) -> bytes; oldest first
    cdef Py_ssize_t cached
    cdef uint32_t last_row      # of the last partial read that was not cached
    cdef int active
    cdef readonly bint closed
    cdef object on_close
    cdef object connect         # what makes `remote`
    cdef readonly object remote  # of a blob that is not direct: see Reader.attach

    cdef int enter(self) except -1
    cdef int make_index(self) except -1
    cdef Spans spans(self, bint all)
    cpdef int hold(self) except -1
    cpdef int leave(self) except -1
    cdef void release(self) noexcept
    cdef int shut(self) except -1
    cdef int64_t unhashed(self)
    cdef int fill(self, uint32_t row, int64_t offset, uint8_t *out, int64_t size) except -1
    cdef int far(self, uint32_t row, int64_t offset, uint8_t *out, int64_t size) except -1
    cdef object connected(self)
    cdef bytes find(self, tuple key)
    cdef int keep(self, tuple key, bytes data) except -1
    cdef int decode(self, sgz_read_piece *pieces, size_t count, int64_t total) except -1
