from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "base/status.h" nogil:
    ctypedef enum sgz_status:
        SGZ_OK
        SGZ_ENOMEM
        SGZ_EIO
        SGZ_ECODEC
        SGZ_EDATA
        SGZ_ETAR
        SGZ_ENOTOC
        SGZ_ETOC
        SGZ_EPATCH
        SGZ_EINDEX
        SGZ_EDIGEST
        SGZ_EUNSAFE
        SGZ_ECALLBACK
        SGZ_ECANCELLED

    ctypedef struct sgz_error:
        sgz_status code
        int sys_errno
        int64_t offset
        char name[512]
        char message[256]
        uint8_t expected[32]
        uint8_t actual[32]
        uint64_t cause


# The exception object for a failed kernel call.
cdef object to_exception(const sgz_error *err, str source)

# One that is listed with others: {"name", "offset", "message"}.
cdef dict problem_of(const sgz_error *err)

# For kernels that work long without a job (sgz_blob.poll): handles signals, in the main thread.
# Non-zero: a handler raised something, which is what to_exception makes of SGZ_ECANCELLED.
cdef int poll_signals() noexcept nogil


cdef extern from "base/notes.h" nogil:
    ctypedef enum sgz_note:
        SGZ_NOTE_KINDS

    ctypedef struct sgz_notes:
        uint64_t *count
        char (*first)[160]

    const char *sgz_base_note_text(sgz_note)


# A line of text for each kind that came.
cdef list notes_of(const sgz_notes *notes)


cdef extern from "codec/codecs.h" nogil:
    ctypedef struct sgz_isal:
        int pinned

    ctypedef struct sgz_crypto:
        void *md_ctx_new

    ctypedef struct sgz_libdeflate:
        void *alloc_compressor

    ctypedef struct sgz_zstd:
        void *create_dstream
        const char *(*version)()

    ctypedef struct sgz_codecs:
        sgz_isal isal
        sgz_crypto crypto
        sgz_libdeflate libdeflate
        sgz_zstd zstd

    sgz_status sgz_codec_load_isal(sgz_codecs *, const char *, sgz_error *)
    sgz_status sgz_codec_load_crypto(sgz_codecs *, const char *, sgz_error *)
    sgz_status sgz_codec_load_libdeflate(sgz_codecs *, const char *, sgz_error *)
    sgz_status sgz_codec_load_zstd(sgz_codecs *, const char *, sgz_error *)


# The table with ISA-L and libcrypto loaded, which everything needs; raises CodecError.
# libdeflate and zstd are loaded when asked for by `need`.
cdef const sgz_codecs *table() except NULL
cpdef int need(str library) except -1


cdef extern from "codec/points.h" nogil:
    ctypedef enum sgz_point_kind:
        SGZ_POINT_GZIP
        SGZ_POINT_DEFLATE
        SGZ_POINT_ZSTD
        SGZ_POINT_STORED

    ctypedef struct sgz_point:
        int64_t offset
        int64_t out
        uint64_t window
        uint32_t packed
        uint32_t history
        uint8_t skip

    ctypedef struct sgz_points:
        sgz_point_kind kind
        sgz_point *at
        size_t count
        uint8_t *windows
        size_t windows_len
        uint8_t (*digests)[32]
        int64_t size
        int64_t end


# Where a blob can be entered, for who has such a table; it lives as long, and does not change.
cdef class Points:
    cdef const sgz_points *table
    cdef public str file                # that it was brought in; None: it was made of the blob


# What is raised when a blob that is entered there is read; None: it has no such table.
cdef object reading_failed(const sgz_error *err, str source, Points index)


cdef extern from "base/job.h" nogil:
    ctypedef int sgz_base_stop      # atomic

    ctypedef struct sgz_base_job:
        sgz_base_stop stop
        int64_t done                # atomic, as is
        int64_t total

    void sgz_base_job_init(sgz_base_job *)
    void sgz_base_job_free(sgz_base_job *)
    sgz_status sgz_base_job_start(sgz_base_job *, int,
                                  sgz_status (*)(void *, int, sgz_error *) noexcept, void *,
                                  sgz_error *)
    int sgz_base_job_wait(sgz_base_job *, int)
    void sgz_base_job_cancel(sgz_base_job *)
    sgz_status sgz_base_job_join(sgz_base_job *, sgz_error *)


# How often a thread that waits for others looks for signals and tells of progress: milliseconds.
cdef enum:
    POLL = 40


cdef class Job:
    """The threads of one task."""

    cdef sgz_base_job job


# Wait for the end of a job that was started. progress(done, total) is called meanwhile, if it is
# not None. What that or a signal's handler raises cancels the job, and is raised when the job has
# ended, whatever signals come until then. The task is to be finished either way: in a `finally`.
cdef int follow(Job job, object progress) except -1


cdef extern from "io/input.h" nogil:
    ctypedef struct sgz_source:
        int fd
        int64_t (*read)(void *, uint8_t *, size_t)
        void *arg
        const sgz_base_stop *stop

cdef extern from "io/sink.h" nogil:
    ctypedef struct sgz_sink:
        int fd
        int (*write)(void *, const uint8_t *, size_t)
        void *arg
        const sgz_base_stop *stop
        int is_pipe
        const char *name


cdef class Buffer:
    """The memory of a bytes-like object, held while this lives."""

    cdef Py_buffer view


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
