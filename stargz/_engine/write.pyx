"""Conversions, and packs: the door to the kernels that write layers."""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from stargz._engine.base cimport (
    SGZ_ECANCELLED,
    SGZ_OK,
    Callback,
    Job,
    Reader,
    Writer,
    follow,
    notes_of,
    sgz_base_job,
    sgz_base_job_join,
    sgz_base_job_start,
    sgz_base_stop,
    sgz_codecs,
    sgz_error,
    sgz_notes,
    sgz_sink,
    sgz_source,
    sgz_status,
    table,
    to_exception,
)
from stargz._engine.toc cimport sgz_toc, sgz_toc_free, sgz_toc_new

from stargz._engine.base import need
from stargz.errors import TarError


cdef extern from "io/input.h" nogil:
    ctypedef enum sgz_wrap:
        SGZ_WRAP_NONE
        SGZ_WRAP_GZIP
        SGZ_WRAP_ZSTD

    ctypedef struct sgz_extent:
        int64_t start
        int64_t end

    ctypedef struct sgz_inflater:
        int garbage

    ctypedef struct sgz_input:
        int padded
        sgz_wrap wrap
        sgz_inflater inflater
        int64_t source_pos

    sgz_status sgz_io_input_open(sgz_input *, const sgz_codecs *, sgz_source, sgz_error *)
    sgz_status sgz_io_input_peek(sgz_input *, sgz_error *)
    sgz_status sgz_io_input_begin(sgz_input *, int64_t, sgz_error *)
    sgz_status sgz_io_input_tokens(sgz_input *, sgz_error *)
    sgz_status sgz_io_input_open_extents(sgz_input *, const sgz_codecs *, int, const sgz_extent *,
                                         size_t, sgz_error *)
    void sgz_io_input_close(sgz_input *)

cdef extern from "write/order.h" nogil:
    ctypedef struct sgz_write_order:
        pass

    ctypedef struct sgz_write_ordered:
        sgz_extent *extents
        size_t extent_count
        int64_t prioritized
        sgz_notes notes

    sgz_write_order *sgz_write_order_new(sgz_input *, int)
    void sgz_write_order_free(sgz_write_order *)
    sgz_status sgz_write_order_step(sgz_write_order *, int *, sgz_error *)
    sgz_status sgz_write_order_sort(sgz_write_order *, const char *const *, size_t, uint8_t *,
                                    sgz_write_ordered *, sgz_error *)

cdef extern from "io/plain.h" nogil:
    size_t SGZ_PLAIN_BUF

    ctypedef struct sgz_hasher:
        pass

    ctypedef struct sgz_plain:
        sgz_input *input
        sgz_hasher *hasher
        uint8_t *buf
        int sink
        int64_t size

    sgz_status sgz_codec_hasher_init(sgz_hasher *, const sgz_codecs *, sgz_error *)
    void sgz_codec_hasher_free(sgz_hasher *)
    void sgz_codec_hasher_final(sgz_hasher *, uint8_t *)
    sgz_status sgz_io_plain_step(sgz_plain *, int *, sgz_error *)

cdef extern from "write/cut.h" nogil:
    ctypedef struct sgz_write_filler:
        pass

    ctypedef struct sgz_write_cut_options:
        int64_t chunk_size
        int64_t min_chunk_size
        int landmarks
        int64_t landmark_after
        int prefetch
        int lossless
        int apart
        int frames
        int kept
        int strict
        int64_t max_sparse

    ctypedef struct sgz_write_cutter:
        pass

    sgz_write_cutter *sgz_write_cutter_new(sgz_input *, sgz_toc *, const sgz_write_cut_options *)
    void sgz_write_cutter_free(sgz_write_cutter *)
    const sgz_write_filler *sgz_write_cutter_filler(sgz_write_cutter *)

cdef extern from "write/pipeline.h" nogil:
    ctypedef enum sgz_write_format:
        SGZ_WRITE_ESTARGZ
        SGZ_WRITE_STARGZ
        SGZ_WRITE_EXTERNAL
        SGZ_WRITE_CHUNKED
        SGZ_WRITE_CHUNKED_STARGZ

    ctypedef struct sgz_write_options:
        sgz_write_format format
        int level
        int reuse
        int verify
        const sgz_sink *toc_sink
        int no_diff_id
        int writeback
        int threads
        const char *dir

    ctypedef struct sgz_write_result:
        uint8_t digest[32]
        uint8_t diff_id[32]
        uint8_t toc_digest[32]
        int64_t size
        int64_t uncompressed_size
        int64_t toc_offset
        uint64_t toc_size
        int64_t toc_packed
        int64_t split_offset
        int64_t split_packed
        int64_t split_size
        uint8_t toc_checksum[32]
        sgz_error unfit
        uint64_t entries
        uint64_t chunks
        uint64_t members
        uint64_t reused
        sgz_notes notes

    ctypedef struct sgz_write_pipeline:
        pass

    sgz_status sgz_write_pipeline_start(sgz_write_pipeline **, sgz_base_job *, const sgz_codecs *,
                                        const sgz_write_filler *, const sgz_sink *, sgz_toc *,
                                        const sgz_write_options *, sgz_error *)
    sgz_status sgz_write_pipeline_finish(sgz_write_pipeline *, sgz_write_result *, sgz_error *)


# Write what a filler makes to the sink; progress(done, job's total) may raise.
cdef sgz_status _write(Job job, const sgz_write_filler *filler, const sgz_sink *sink,
                       sgz_toc *toc, const sgz_write_options *options, object progress,
                       sgz_write_result *result, sgz_error *err) except *:
    cdef sgz_write_pipeline *pipeline = NULL
    cdef sgz_status status = sgz_write_pipeline_start(&pipeline, &job.job, table(), filler, sink,
                                                      toc, options, err)
    if status != SGZ_OK:
        return status
    try:
        follow(job, progress)
    finally:
        with nogil:
            status = sgz_write_pipeline_finish(pipeline, result, err)
    return status


cdef dict FORMATS = {
    "estargz": SGZ_WRITE_ESTARGZ,
    "stargz": SGZ_WRITE_STARGZ,
    "external-toc": SGZ_WRITE_EXTERNAL,
    "zstd:chunked": SGZ_WRITE_CHUNKED,
    "zstd:chunked-stargz": SGZ_WRITE_CHUNKED_STARGZ,
}


cdef dict fields_of(const sgz_write_result *result):
    return {
        "digest": "sha256:" + (<const uint8_t *>result.digest)[:32].hex(),
        "size": result.size,
        "diff_id": "sha256:" + (<const uint8_t *>result.diff_id)[:32].hex(),
        "toc_digest": "sha256:" + (<const uint8_t *>result.toc_digest)[:32].hex(),
        "uncompressed_size": result.uncompressed_size,
        "toc_offset": result.toc_offset,
        "toc_size": result.toc_size,
        "toc_packed": result.toc_packed,
        "toc_checksum": "sha256:" + (<const uint8_t *>result.toc_checksum)[:32].hex(),
        "split_offset": result.split_offset,
        "split_packed": result.split_packed,
        "split_size": result.split_size,
        "entries": result.entries,
        "chunks": result.chunks,
        "members": result.members,
        "reused": result.reused,
        "notes": notes_of(&result.notes),
    }


cdef sgz_status _open(sgz_input *input, sgz_source where, int64_t memory,
                      sgz_error *err) except *:
    """Find out what the input is wrapped in, and load what that needs."""
    cdef sgz_status status = sgz_io_input_open(input, table(), where, err)
    while status == SGZ_OK:
        with nogil:
            status = sgz_io_input_peek(input, err)
        PyErr_CheckSignals()
        if status != SGZ_ECANCELLED:
            break
        status = SGZ_OK
    if status == SGZ_OK:
        if input.wrap == SGZ_WRAP_ZSTD:
            need("zstd")
        status = sgz_io_input_begin(input, memory, err)
    return status


def unwrap(source, int sink=-1, *, str source_name, progress=None, int64_t source_size=0,
           memory=None):
    """The DiffID of a tar and its bytes: (digest, size).

    The source is a descriptor, read from its position on, or a callable read(n); `sink` is the
    descriptor of a file that gets the plain tar, -1 for none. progress(done, source_size) gets
    bytes of the source after each 8 MiB of the tar. `memory` bounds the window of a zstd frame.
    """
    cdef sgz_input input
    cdef sgz_hasher hasher
    cdef sgz_plain plain
    cdef sgz_error err
    cdef sgz_status status
    cdef uint8_t digest[32]
    cdef int end = 0
    cdef sgz_base_stop stop = 0
    cdef Reader reader = Reader(source)
    memset(&input, 0, sizeof(input))
    memset(&hasher, 0, sizeof(hasher))
    memset(&plain, 0, sizeof(plain))
    reader.source.stop = &stop
    plain.input = &input
    plain.hasher = &hasher
    plain.sink = sink
    try:
        plain.buf = <uint8_t *>malloc(SGZ_PLAIN_BUF)
        if plain.buf == NULL:
            raise MemoryError
        status = _open(&input, reader.source, memory or 0, &err)
        if status == SGZ_OK:
            status = sgz_codec_hasher_init(&hasher, table(), &err)
        while status == SGZ_OK and not end:
            with nogil:
                status = sgz_io_plain_step(&plain, &end, &err)
            PyErr_CheckSignals()
            if status == SGZ_OK and progress is not None:
                progress(input.source_pos, source_size)
        if status != SGZ_OK:
            reader.check()
            raise to_exception(&err, source_name)
        sgz_codec_hasher_final(&hasher, digest)
    finally:
        sgz_io_input_close(&input)
        sgz_codec_hasher_free(&hasher)
        free(plain.buf)
    return "sha256:" + (<const uint8_t *>digest)[:32].hex(), plain.size


cdef class Conversion:
    """One conversion; `run` may be called once.

    The source is a descriptor or a callable read(n); the sink a descriptor or a callable
    write(view). `names` are the prioritized files as bytes, None for no landmark order;
    `spool` makes the temporary file that they need. `folder` is where one is made for a large TOC
    of zstd:chunked. The format external-toc needs `put_toc`.
    """

    cdef sgz_input input
    cdef Writer sink, toc_sink
    cdef sgz_write_options options
    cdef sgz_write_cut_options cut
    cdef sgz_write_result result
    cdef sgz_write_ordered order
    cdef sgz_toc *toc
    cdef Job job
    cdef Reader reader
    cdef object source_name, progress
    cdef bytes folder
    cdef int64_t source_size
    cdef readonly list missing

    def __cinit__(self):
        memset(&self.input, 0, sizeof(self.input))
        memset(&self.order, 0, sizeof(self.order))
        self.toc = NULL

    def __dealloc__(self):
        sgz_io_input_close(&self.input)
        free(self.order.extents)
        sgz_toc_free(self.toc)

    def __init__(self, source, sink, *, int level, int64_t chunk_size, int64_t min_chunk_size,
                 str format, bint lossless, int threads, str source_name,
                 str sink_name, progress, int64_t source_size, memory=None, max_sparse=None,
                 bint strict=False, bytes folder=b".", bint reuse=False, bint verify=False):
        cdef sgz_error err
        cdef sgz_status status
        if format.startswith("zstd"):
            need("zstd")
        elif level > 2:
            need("libdeflate")
        self.source_name = source_name
        self.source_size = source_size
        self.progress = progress
        self.missing = []
        self.options.level = level
        self.options.reuse = reuse
        self.options.verify = verify
        self.options.format = FORMATS[format]
        self.options.threads = threads
        self.folder = folder
        self.options.dir = self.folder
        self.cut.chunk_size = chunk_size
        self.cut.min_chunk_size = min_chunk_size
        self.cut.frames = format.startswith("zstd")
        self.cut.kept = format == "zstd:chunked"
        self.cut.strict = strict
        self.cut.apart = format == "external-toc"
        if self.cut.kept or self.cut.apart:
            lossless = True
        self.cut.lossless = lossless
        self.cut.max_sparse = max_sparse or 0
        self.cut.landmarks = format != "stargz" and not lossless
        self.toc = sgz_toc_new()
        if self.toc == NULL:
            raise MemoryError
        self.job = Job()
        self.reader = Reader(source)
        self.reader.source.stop = &self.job.job.stop
        self.sink = Writer(sink, sink_name)
        self.sink.sink.stop = &self.job.job.stop
        status = _open(&self.input, self.reader.source, memory or 0, &err)
        if status != SGZ_OK:
            self._raise(&err)

    def put_toc(self, sink, str name):
        """Have an external TOC written to a sink of its own."""
        self.toc_sink = Writer(sink, name)
        self.toc_sink.sink.stop = &self.job.job.stop
        self.options.toc_sink = &self.toc_sink.sink

    @property
    def plain(self):
        """Whether the input is a tar that is not compressed."""
        return self.input.wrap == SGZ_WRAP_NONE

    cdef _raise(self, const sgz_error *err):
        self.reader.check()
        self.sink.check()
        if self.toc_sink is not None:
            self.toc_sink.check()
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
        cdef sgz_write_order *scan = sgz_write_order_new(&self.input, -1 if reread else spool)
        if scan == NULL:
            raise MemoryError
        try:
            while not end:
                with nogil:
                    status = sgz_write_order_step(scan, &end, &err)
                if status != SGZ_OK:
                    self._raise(&err)
                self._report(self.input.source_pos // 2, self.source_size)
            for i in range(count):
                pointers[i] = <const char *>(<bytes>names[i])
            with nogil:
                status = sgz_write_order_sort(scan, pointers, count, absent, &self.order, &err)
            if status != SGZ_OK:
                self._raise(&err)
        finally:
            sgz_write_order_free(scan)
        self.missing = [name for name, gone in zip(names, missing, strict=False) if gone]
        self.cut.prefetch = 1
        self.cut.landmark_after = self.order.prioritized
        sgz_io_input_close(&self.input)
        if sgz_io_input_open_extents(&self.input, table(), spool, self.order.extents,
                                     self.order.extent_count, &err) != SGZ_OK:
            self._raise(&err)

    def run(self, bint synced=False):
        """Convert; returns the result's fields as a dict. `synced`: the sink is a file that will
        be synced afterwards."""
        cdef sgz_error err
        cdef sgz_status status
        cdef int64_t first = 0, whole = 1
        cdef size_t i
        cdef sgz_write_cutter *cutter
        if self.order.extents != NULL:
            first = self.source_size // 2
            for i in range(self.order.extent_count):
                whole += self.order.extents[i].end - self.order.extents[i].start

        def report(int64_t done, total):
            if first:
                done = first + <int64_t>(<double>done / whole * first)
            self._report(done, self.source_size)

        if (self.options.reuse and self.input.wrap == SGZ_WRAP_GZIP and self.order.extents == NULL
                and sgz_io_input_tokens(&self.input, &err) != SGZ_OK):
            self._raise(&err)
        self.options.writeback = synced
        cutter = sgz_write_cutter_new(&self.input, self.toc, &self.cut)
        if cutter == NULL:
            raise MemoryError
        try:
            status = _write(self.job, sgz_write_cutter_filler(cutter), &self.sink.sink, self.toc,
                            &self.options, report, &self.result, &err)
        finally:
            sgz_write_cutter_free(cutter)
        if status != SGZ_OK:
            self._raise(&err)
        fields = fields_of(&self.result)
        if self.result.unfit.code != SGZ_OK:
            fields["unfit"] = str(to_exception(&self.result.unfit, ""))
        fields["notes"] += notes_of(&self.order.notes)
        return fields


include "packer.pxi"
include "tar.pxi"
