"""Side indexes: made in one pass over an ordinary blob, and what they tell."""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy, memset
from posix.unistd cimport close

from stargz._engine.base cimport (
    SGZ_ECANCELLED,
    SGZ_OK,
    SGZ_POINT_DEFLATE,
    SGZ_POINT_GZIP,
    SGZ_POINT_STORED,
    SGZ_POINT_ZSTD,
    Job,
    Reader,
    follow,
    notes_of,
    sgz_base_job,
    sgz_codecs,
    sgz_error,
    sgz_point,
    sgz_source,
    sgz_status,
    table,
    to_exception,
)
from stargz._engine.toc cimport TOC, sgz_toc_free

import threading
import zlib

from stargz._engine.base import need


cdef extern from "index/build.h" nogil:
    ctypedef enum sgz_wrap:
        SGZ_WRAP_ZSTD

    ctypedef struct sgz_index_build_options:
        int64_t span_size
        int64_t chunk_size
        int64_t memory
        int soci
        const sgz_points *wanted
        int no_digests
        int no_whole
        int threads
        void *arg
        sgz_status (*on_entry)(void *, const sgz_tar_entry *, int64_t, int64_t, sgz_error *)
        sgz_status (*on_global)(void *, int64_t, sgz_error *)
        sgz_status (*on_point)(void *, const sgz_point *, const uint8_t *, sgz_error *)

    ctypedef struct sgz_index_build:
        pass

    sgz_index_build *sgz_index_build_new(const sgz_codecs *, sgz_source,
                                         const sgz_index_build_options *)
    sgz_status sgz_index_build_peek(sgz_index_build *, sgz_wrap *, sgz_error *)
    sgz_status sgz_index_build_start(sgz_index_build *, sgz_base_job *, sgz_error *)
    sgz_status sgz_index_build_finish(sgz_index_build *, sgz_index *, sgz_error *)
    void sgz_index_build_free(sgz_index_build *)


# A digest as text; "" where it is not known, and so all zeros.
cdef str digest_text(const uint8_t *digest):
    cdef bytes raw = digest[:32]
    return "sha256:" + raw.hex() if any(raw) else ""


cdef dict KINDS = {
    SGZ_POINT_GZIP: "gzip",
    SGZ_POINT_DEFLATE: "gzip",
    SGZ_POINT_ZSTD: "zstd",
    SGZ_POINT_STORED: "tar",
}


cdef class Index:
    """Where a blob can be entered, and what is in it."""

    def __cinit__(self):
        memset(&self.index, 0, sizeof(self.index))
        self.table = &self.index.points

    def __dealloc__(self):
        if self.has_rows:
            self.index.toc = NULL
        sgz_index_free(&self.index)

    cdef int take_rows(self) except -1:
        self.rows = TOC.__new__(TOC)
        sgz_toc_free(self.rows.ptr)
        self.rows.ptr = self.index.toc
        self.has_rows = True
        return 0

    @property
    def kind(self):
        """What the blob is: "gzip", "zstd" or "tar"."""
        return KINDS[self.index.points.kind]

    @property
    def size(self):
        """Bytes of the blob."""
        return self.index.points.size

    @property
    def digest(self):
        """The blob's ("sha256:..."), or "" where it is not known."""
        return digest_text(self.index.digest)

    @property
    def tar_size(self):
        """Bytes that the blob decodes to."""
        return self.index.points.end

    @property
    def archive_size(self):
        """How many of these are the archive, up to its two blocks of zeros."""
        return self.index.archive_size

    @property
    def diff_id(self):
        """The digest of what the blob decodes to, or "" where it is not known."""
        return digest_text(self.index.diff_id)

    @property
    def span_size(self):
        """Decoded bytes from one point to the next, as was asked for."""
        return self.index.span_size

    @property
    def spans(self):
        """How many points there are; none where every offset is one."""
        return self.index.points.count

    @property
    def longest_span(self):
        """Bytes of it, decoded: what one read may have to decode."""
        return sgz_index_longest(&self.index)

    @property
    def entries(self):
        """How many entries the rows are of."""
        return self.toc.counts()["entries"]

    @property
    def notes(self):
        """A line of text for each thing that was not taken as it stands."""
        lines = notes_of(&self.index.notes)
        if self.ztoc is not None and self.index.members > 1:
            lines.append(SEVERAL_MEMBERS)
        return lines

    @property
    def toc(self):
        """The rows, as read_toc gives them."""
        return self.rows

    @property
    def toc_digest(self):
        """That of the JSON once a file was read or written; "" where it would have to be made."""
        return digest_text(self.index.json_digest)

    @property
    def has_span_digests(self):
        """Whether what is read is told by digests of the blob's spans, which no TOC has."""
        return self.index.points.digests != NULL

    def entry_points(self):
        """(offset, skip, out, history, digest) of each point: of the byte in the blob where it is,
        how many low bits of that belong to what is before, decoded bytes before it, of which these
        may be referred to; and "sha256:..." of the blob's bytes up to the next one, or ""."""
        cdef const sgz_points *points = &self.index.points
        cdef const sgz_point *point
        cdef size_t i
        cdef list found = []
        for i in range(points.count):
            point = &points.at[i]
            history = b""
            if points.windows != NULL and point.history:
                history = (points.windows + point.window)[:point.packed or point.history]
                if point.packed:
                    history = zlib.decompressobj(-15).decompress(history, point.history)
            digest = "" if points.digests == NULL else digest_text(points.digests[i])
            found.append((point.offset, point.skip, point.out, history, digest))
        return found

    def json(self):
        """The rows as the JSON of a TOC."""
        return self.rows.format()

    def dump(self, write):
        """Write the file of the index by write(piece): docs/index-format.md."""
        dump_index(self, write)

    def write_ztoc(self, write, *, str tool="stargz"):
        """Write SOCI's index of the same blob by write(piece); `tool` says who made it.

        Only of an index that was built for it (`soci`).
        """
        write_ztoc(self, write, tool)


def build(source, *, str source_name, int64_t source_size=0, int64_t span_size=4 << 20,
          int64_t chunk_size=4 << 20, bint soci=False, digests=None, bint whole=True,
          int threads, memory=None, progress=None, Foreign wanted=None):
    """The Index of a blob: gzip, frames of zstd, or a plain tar.

    The source is a descriptor, read from its position on, or a callable read(n). With `soci` the
    points are where SOCI sets them, and what is made is good for `write_ztoc` alone: files and
    chunks have no digests then, unless `digests` are wanted. Without `whole` neither have the blob
    and its tar: half of the time that a ztoc takes. `memory` bounds the window of a zstd
    frame; progress(done, source_size) gets bytes of the blob, and may raise. `wanted` are the
    points to take, of a gzip blob: one that is none is IndexFileError.
    """
    cdef sgz_index_build_options options
    cdef sgz_index_build *pass_ = NULL
    cdef sgz_error err
    cdef sgz_status status
    cdef sgz_wrap wrap
    cdef Job job = Job()
    cdef Reader reader = Reader(source)
    cdef Index index = Index.__new__(Index)
    memset(&options, 0, sizeof(options))
    options.span_size = span_size
    options.chunk_size = chunk_size
    options.memory = memory or 0
    options.soci = soci
    options.no_digests = soci if digests is None else not digests
    options.no_whole = not whole
    if wanted is not None:
        options.wanted = &wanted.points
    options.threads = threads
    if soci:
        collect(index, &options)
    reader.source.stop = &job.job.stop
    job.job.total = source_size

    def report(int64_t done, total):
        progress(min(done, total) if total > 0 else done, total)

    pass_ = sgz_index_build_new(table(), reader.source, &options)
    if pass_ == NULL:
        raise MemoryError
    try:
        status = SGZ_ECANCELLED
        while status == SGZ_ECANCELLED:
            with nogil:
                status = sgz_index_build_peek(pass_, &wrap, &err)
            PyErr_CheckSignals()
        if status == SGZ_OK:
            if wrap == SGZ_WRAP_ZSTD:
                need("zstd")
            status = sgz_index_build_start(pass_, &job.job, &err)
        if status == SGZ_OK:
            try:
                follow(job, report if progress is not None else None)
            finally:
                with nogil:
                    status = sgz_index_build_finish(pass_, &index.index, &err)
        if status != SGZ_OK:
            reader.check()
            raise to_exception(&err, source_name)
    finally:
        sgz_index_build_free(pass_)
    index.take_rows()
    return index


include "index_file.pxi"
include "ztoc.pxi"
