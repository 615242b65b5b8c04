"""The door to C for patches: the end of a blob, and applying."""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from stargz._engine.codecs cimport sgz_codecs, table
from stargz._engine.files cimport Reader, Writer, sgz_sink, sgz_source
from stargz._engine.status cimport (SGZ_ECANCELLED, SGZ_EPATCH, SGZ_OK, sgz_error,
                                    sgz_status, to_exception)

from stargz._engine.codecs import need


cdef extern from "toc_writer.h" nogil:
    sgz_status sgz_toc_members(const sgz_codecs *, const uint8_t *, size_t, int64_t, int, int,
                               uint8_t **, size_t *, sgz_error *)

cdef extern from "decode.h" nogil:
    ctypedef struct sgz_blob:
        int fd
        int64_t size

cdef extern from "patch_apply.h" nogil:
    ctypedef struct sgz_patch_head:
        uint32_t level
        uint32_t legacy
        int64_t base_size
        int64_t new_size
        uint8_t base_digest[32]
        uint8_t new_digest[32]
        int64_t new_toc_offset
        uint64_t toc_json_size
        char engine[64]

    ctypedef struct sgz_patch_reader:
        pass

    ctypedef struct sgz_patch_result:
        uint8_t digest[32]
        int64_t size
        int64_t copied
        int64_t regenerated
        int64_t received
        int64_t patch_size

    ctypedef struct sgz_patch_apply:
        pass

    sgz_status sgz_patch_open(sgz_patch_reader *, const sgz_codecs *, sgz_source, const char *,
                              sgz_error *)
    void sgz_patch_close(sgz_patch_reader *)
    sgz_status sgz_patch_read_head(sgz_patch_reader *, sgz_patch_head *, sgz_error *)
    sgz_patch_apply *sgz_patch_apply_start(const sgz_codecs *, sgz_patch_reader *,
                                           const sgz_patch_head *, const sgz_blob *,
                                           const sgz_sink *, int, unsigned, int *, sgz_error *)
    int sgz_patch_apply_wait(sgz_patch_apply *, int, int64_t *)
    void sgz_patch_apply_cancel(sgz_patch_apply *)
    sgz_status sgz_patch_apply_finish(sgz_patch_apply *, sgz_patch_result *, sgz_error *)

# How often the calling thread looks for signals and reports progress: milliseconds.
cdef enum:
    POLL = 50


def toc_members(const uint8_t[::1] json not None, int64_t toc_offset, int level,
                bint legacy) -> bytes:
    """The end of a blob whose TOC is `json`: the member with it, and the footer.

    `level` is 1 to 12; with `legacy` both are those of google/crfs (format sections 2, 3).
    """
    cdef const sgz_codecs *codecs = table()
    cdef const uint8_t *data = &json[0] if json.shape[0] else NULL
    cdef size_t size = json.shape[0], made = 0
    cdef uint8_t *out = NULL
    cdef sgz_status status
    cdef sgz_error err
    if level > 2:
        need("libdeflate")
    with nogil:
        status = sgz_toc_members(codecs, data, size, toc_offset, level, legacy, &out, &made, &err)
    if status != SGZ_OK:
        raise to_exception(&err, "")
    try:
        return out[:made]
    finally:
        free(out)


cdef str _digest(const uint8_t *digest):
    return "sha256:" + digest[:32].hex()


cdef class Patch:
    """A patch whose head has been read: from a descriptor or a callable read(n).

    `run` may be called once.
    """

    cdef sgz_patch_reader reader
    cdef sgz_patch_head head
    cdef Reader source
    cdef int stop
    cdef str name
    cdef bytes encoded
    cdef readonly int level         # 0: the patch compresses nothing anew
    cdef readonly str engine        # what compressed at this level where the patch was made
    cdef readonly int64_t base_size
    cdef readonly int64_t new_size
    cdef readonly str base_digest

    def __cinit__(self):
        memset(&self.reader, 0, sizeof(self.reader))

    def __dealloc__(self):
        sgz_patch_close(&self.reader)

    def __init__(self, source, str name):
        cdef sgz_error err
        cdef sgz_status status
        self.name = name
        self.encoded = name.encode("utf-8", "surrogateescape")
        self.source = Reader(source)
        self.source.source.stop = &self.stop
        status = sgz_patch_open(&self.reader, table(), self.source.source, self.encoded, &err)
        while status == SGZ_OK:
            with nogil:
                status = sgz_patch_read_head(&self.reader, &self.head, &err)
            PyErr_CheckSignals()
            if status != SGZ_ECANCELLED:
                break
            status = SGZ_OK
        if status != SGZ_OK:
            self.source.check()
            raise to_exception(&err, self.name)
        self.level = self.head.level
        self.base_size = self.head.base_size
        self.new_size = self.head.new_size
        self.base_digest = _digest(self.head.base_digest)
        self.engine = (<const char *>self.head.engine)[:64].rstrip(b"\0").decode("ascii")

    def run(self, int base, sink, int spool, *, unsigned threads, str base_name, str sink_name,
            progress):
        """Make NEW; returns the result's fields as a dict.

        `base` is the descriptor of a file of base_size bytes, the sink a descriptor or a
        callable write(view), `spool` that of an empty temporary file, or -1. progress(done,
        total) counts bytes of BASE and NEW.
        """
        cdef sgz_blob blob
        cdef sgz_error err
        cdef sgz_status status
        cdef sgz_patch_result result
        cdef int64_t done = 0, total = self.base_size + self.new_size
        cdef int ended = 0
        cdef sgz_patch_apply *apply
        cdef Writer writer = Writer(sink, sink_name)
        writer.sink.stop = &self.stop
        memset(&blob, 0, sizeof(blob))
        blob.fd = base
        blob.size = self.base_size
        if self.level > 2:
            need("libdeflate")
        apply = sgz_patch_apply_start(table(), &self.reader, &self.head, &blob, &writer.sink,
                                      spool, threads, &self.stop, &err)
        if apply == NULL:
            raise to_exception(&err, self.name)
        try:
            while not ended:
                with nogil:
                    ended = sgz_patch_apply_wait(apply, POLL, &done)
                PyErr_CheckSignals()
                if progress is not None:
                    progress(min(done, total), total)
        except BaseException:
            with nogil:
                sgz_patch_apply_cancel(apply)
                sgz_patch_apply_finish(apply, &result, &err)
            raise
        with nogil:
            status = sgz_patch_apply_finish(apply, &result, &err)
        if status != SGZ_OK:
            self.source.check()
            writer.check()
            if status == SGZ_EPATCH:
                raise to_exception(&err, self.name)
            raise to_exception(&err, sink_name if err.name == b"NEW" else base_name)
        return {
            "digest": _digest(result.digest),
            "size": result.size,
            "copied": result.copied,
            "regenerated": result.regenerated,
            "received": result.received,
            "patch_size": result.patch_size,
        }
