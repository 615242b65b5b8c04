"""The door to C for patches: the members of a blob, the end of a blob, and applying."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from stargz._engine.base cimport (
    SGZ_ECANCELLED,
    SGZ_EPATCH,
    SGZ_OK,
    Buffer,
    Job,
    Reader,
    Writer,
    follow,
    sgz_base_job,
    sgz_codecs,
    sgz_error,
    sgz_sink,
    sgz_source,
    sgz_status,
    table,
    to_exception,
)
from stargz._engine.reader cimport Blob, Spans, sgz_blob, sgz_read_spans_init, sgz_spans
from stargz._engine.toc cimport TOC, sgz_entry

from stargz._engine.base import need


cdef extern from "read/spans.h" nogil:
    const uint8_t *sgz_read_span_digest(const sgz_spans *, size_t)

cdef extern from "codec/gzip.h" nogil:
    ctypedef struct sgz_deflater:
        pass

    sgz_status sgz_codec_deflater_init(sgz_deflater *, const sgz_codecs *, int, sgz_error *)
    void sgz_codec_deflater_free(sgz_deflater *)
    size_t sgz_codec_member_bound(size_t)
    sgz_status sgz_codec_deflate_member(sgz_deflater *, const uint8_t *, size_t, int, uint8_t *,
                                        size_t, size_t *, sgz_error *)

cdef extern from "patch/members.h" nogil:
    const uint64_t SGZ_PATCH_MEMBER_MAX

    ctypedef struct sgz_patch_member_info:
        int64_t offset
        int64_t size
        uint64_t content
        uint8_t digest[32]

    ctypedef struct sgz_patch_members_args:
        const sgz_codecs *codecs
        const sgz_blob *blob
        int threads

    ctypedef struct sgz_patch_proof:
        int64_t offset
        int64_t size
        uint64_t content
        uint64_t first_gap
        uint64_t gap_count

    ctypedef struct sgz_patch_proof_gap:
        uint64_t start
        uint64_t len
        uint64_t to

    ctypedef struct sgz_patch_members:
        pass

    sgz_status sgz_patch_members_walk(sgz_patch_members **, sgz_base_job *,
                                      const sgz_patch_members_args *, const sgz_spans *, int64_t,
                                      uint8_t *, sgz_error *)
    sgz_status sgz_patch_members_prove(sgz_patch_members **, sgz_base_job *,
                                       const sgz_patch_members_args *, int, const sgz_patch_proof *,
                                       size_t, const sgz_patch_proof_gap *, uint8_t *, uint8_t *,
                                       sgz_error *)
    sgz_status sgz_patch_members_finish(sgz_patch_members *, sgz_patch_member_info **, size_t *,
                                        sgz_error *)

# What the records that this module gives and takes are, for struct.
MEMBER = "<qq32s"        # offset, size, sha256
CHUNK = "<qqq32s?7x"     # offset, inner offset, size, sha256, whether the TOC has it
PROOF = "<qqQQQ"         # offset, size, bytes of content, number of its first gap, gaps
GAP = "<QQQ"             # start in the content, length, where in the literals

# A member that inflates to more is never proven, and no patch makes one anew.
MEMBER_MAX = SGZ_PATCH_MEMBER_MAX


cdef struct member_record:
    int64_t offset
    int64_t size
    uint8_t digest[32]


cdef struct chunk_record:
    int64_t offset
    int64_t inner
    int64_t size
    uint8_t digest[32]
    uint8_t known
    uint8_t pad[7]


cdef Spans index(TOC toc, int64_t end, str name):
    cdef sgz_error err
    cdef sgz_status status
    cdef Spans spans = Spans.__new__(Spans)
    spans.toc = toc
    with nogil:
        status = sgz_read_spans_init(&spans.spans, toc.ptr, NULL, end, &err)
    if status != SGZ_OK:
        raise to_exception(&err, name)
    return spans


cdef bytes records(Spans index, const uint8_t *actual):
    cdef size_t i, count = index.spans.count
    cdef bytes out = PyBytes_FromStringAndSize(NULL, count * sizeof(chunk_record))
    cdef chunk_record *to = <chunk_record *>PyBytes_AS_STRING(out)
    cdef const sgz_entry *row
    cdef const uint8_t *digest
    with nogil:
        for i in range(count):
            row = &index.toc.ptr.rows[index.spans.rows[i]]
            digest = sgz_read_span_digest(&index.spans, i)
            memset(&to[i], 0, sizeof(chunk_record))
            to[i].offset = row.offset
            to[i].inner = row.inner_offset
            to[i].size = row.chunk_size
            to[i].known = digest != NULL
            if actual != NULL:
                digest = actual + 32 * i
            if digest != NULL:
                memcpy(to[i].digest, digest, 32)
    return out


def chunks(TOC toc not None, int64_t end, str name="") -> bytes:
    """CHUNK records of the chunks of a TOC, in blob order; `end` is where their members end.

    Raises TOCError, which calls the blob `name`, where they overlap or leave the blob.
    """
    return records(index(toc, end, name), NULL)


def walk(Blob blob not None, TOC toc not None, int64_t end, int64_t toc_end, int threads,
         progress=None):
    """Decode all members of a blob: (MEMBER records, contents, CHUNK records with the actual
    digests), where contents are the bytes that each member inflates to, as uint64.

    `end` is where the members of chunks end, `toc_end` where the footer begins.
    progress(done, total) gets compressed bytes. Raises GzipError for what is no member,
    DigestError for a chunk that is not what the TOC says.
    """
    cdef Spans spans = index(toc, end, blob.name)
    cdef sgz_patch_members_args args
    cdef sgz_patch_members *members = NULL
    cdef Job job = Job()
    cdef sgz_patch_member_info *found = NULL
    cdef size_t count = 0
    cdef sgz_error err
    cdef sgz_status status
    cdef bytes actual = PyBytes_FromStringAndSize(NULL, 32 * spans.spans.count)
    cdef uint8_t *digests = <uint8_t *>PyBytes_AS_STRING(actual)
    args.codecs = table()
    args.blob = &blob.blob
    args.threads = threads
    with nogil:
        status = sgz_patch_members_walk(&members, &job.job, &args, &spans.spans, toc_end, digests,
                                        &err)
    if status != SGZ_OK:
        raise blob.failure(&err)
    try:
        follow(job, progress)
    finally:
        with nogil:
            status = sgz_patch_members_finish(members, &found, &count, &err)
    if status != SGZ_OK:
        raise blob.failure(&err)
    cdef bytes found_, contents
    cdef member_record *to
    cdef uint64_t *sizes
    cdef size_t i
    try:
        found_ = PyBytes_FromStringAndSize(NULL, count * sizeof(member_record))
        contents = PyBytes_FromStringAndSize(NULL, count * sizeof(uint64_t))
        to = <member_record *>PyBytes_AS_STRING(found_)
        sizes = <uint64_t *>PyBytes_AS_STRING(contents)
        with nogil:
            for i in range(count):
                to[i].offset = found[i].offset
                to[i].size = found[i].size
                memcpy(to[i].digest, found[i].digest, 32)
                memcpy(sizes + i, &found[i].content, sizeof(uint64_t))
    finally:
        free(found)
    return found_, contents, records(spans, digests)


def prove(Blob blob not None, proofs not None, gaps not None, Py_ssize_t literal_size, int level,
          int threads):
    """Which members the engine makes from their contents: (flags, literals).

    `proofs` are PROOF records, `gaps` GAP records; each byte of `flags` is 1 where compressing
    the contents at `level` gives the member's bytes. `literals` holds the gaps of those.
    """
    cdef Buffer proof_data = Buffer(proofs), gap_data = Buffer(gaps)
    cdef size_t count = proof_data.view.len // sizeof(sgz_patch_proof)
    cdef size_t gap_count = gap_data.view.len // sizeof(sgz_patch_proof_gap)
    cdef const sgz_patch_proof *items = <const sgz_patch_proof *>proof_data.view.buf
    cdef const sgz_patch_proof_gap *parts = <const sgz_patch_proof_gap *>gap_data.view.buf
    cdef sgz_patch_members_args args
    cdef sgz_patch_members *members = NULL
    cdef Job job = Job()
    cdef sgz_error err
    cdef sgz_status status
    cdef size_t i
    cdef uint64_t k
    cdef const sgz_patch_proof_gap *gap
    if not 1 <= level <= 12:
        raise ValueError(f"level {level} is not in 1 to 12")
    for i in range(count):
        if (items[i].offset < 0 or items[i].size < 0 or
                items[i].offset > blob.blob.size - items[i].size):
            raise ValueError("a member outside of the blob")
        if items[i].first_gap > gap_count or items[i].gap_count > gap_count - items[i].first_gap:
            raise ValueError("a gap that is not there")
        for k in range(items[i].gap_count):
            gap = &parts[items[i].first_gap + k]
            if (gap.start > items[i].content or gap.len > items[i].content - gap.start or
                    gap.to > <uint64_t>literal_size or
                    gap.len > <uint64_t>literal_size - gap.to):
                raise ValueError("a gap outside of its member")
    cdef bytes flags = PyBytes_FromStringAndSize(NULL, count)
    cdef bytes literals = PyBytes_FromStringAndSize(NULL, literal_size)
    cdef uint8_t *made = <uint8_t *>PyBytes_AS_STRING(flags)
    cdef uint8_t *out = <uint8_t *>PyBytes_AS_STRING(literals)
    if level > 2:
        need("libdeflate")
    memset(made, 0, count)
    memset(out, 0, literal_size)
    args.codecs = table()
    args.blob = &blob.blob
    args.threads = threads
    with nogil:
        status = sgz_patch_members_prove(&members, &job.job, &args, level, items, count, parts,
                                         made, out, &err)
    if status != SGZ_OK:
        raise blob.failure(&err)
    try:
        follow(job, None)
    finally:
        with nogil:
            status = sgz_patch_members_finish(members, NULL, NULL, &err)
    if status != SGZ_OK:
        raise blob.failure(&err)
    return flags, literals


def compress(data not None, int level) -> bytes:
    """The gzip member that the engine makes of some bytes at a level from 1 to 12."""
    cdef Buffer content = Buffer(data)
    cdef const uint8_t *start = <const uint8_t *>content.view.buf
    cdef size_t size = content.view.len, made = 0
    cdef const sgz_codecs *codecs = table()
    cdef sgz_deflater deflater
    cdef sgz_error err
    cdef sgz_status status
    if not 1 <= level <= 12:
        raise ValueError(f"level {level} is not in 1 to 12")
    if level > 2:
        need("libdeflate")
    cdef bytes out = PyBytes_FromStringAndSize(NULL, sgz_codec_member_bound(size))
    cdef uint8_t *to = <uint8_t *>PyBytes_AS_STRING(out)
    with nogil:
        status = sgz_codec_deflater_init(&deflater, codecs, level, &err)
        if status == SGZ_OK:
            status = sgz_codec_deflate_member(&deflater, start, size, 0, to,
                                              sgz_codec_member_bound(size), &made, &err)
            sgz_codec_deflater_free(&deflater)
    if status != SGZ_OK:
        raise to_exception(&err, "")
    return out[:made]


# --- applying -------------------------------------------------------------------------------

cdef extern from "toc/footer.h" nogil:
    sgz_status sgz_toc_footer_members(const sgz_codecs *, const uint8_t *, size_t, int64_t, int,
                                      int, uint8_t **, size_t *, sgz_error *)

cdef extern from "patch/apply.h" nogil:
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
    sgz_status sgz_patch_apply_start(sgz_patch_apply **, sgz_base_job *, const sgz_codecs *,
                                     sgz_patch_reader *, const sgz_patch_head *, const sgz_blob *,
                                     const sgz_sink *, int, int64_t, int, sgz_error *)
    sgz_status sgz_patch_apply_finish(sgz_patch_apply *, sgz_patch_result *, sgz_error *)


def toc_members(json not None, int64_t toc_offset, int level, bint legacy) -> bytes:
    """The end of a blob whose TOC is `json`: the member with it, and the footer.

    `level` is 1 to 12; with `legacy` both are those of google/crfs (format sections 2, 3).
    """
    cdef const sgz_codecs *codecs = table()
    cdef Buffer text = Buffer(json)
    cdef const uint8_t *data = <const uint8_t *>text.view.buf
    cdef size_t size = text.view.len, made = 0
    cdef uint8_t *out = NULL
    cdef sgz_status status
    cdef sgz_error err
    if level > 2:
        need("libdeflate")
    with nogil:
        status = sgz_toc_footer_members(codecs, data, size, toc_offset, level, legacy, &out, &made,
                                        &err)
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
    cdef Job job
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
        self.job = Job()
        self.source = Reader(source)
        self.source.source.stop = &self.job.job.stop
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

    def run(self, int base, sink, int spool, *, int64_t max_size, int threads, str base_name,
            str sink_name, progress):
        """Make NEW; returns the result's fields as a dict.

        `base` is the descriptor of a file of base_size bytes, the sink a descriptor or a
        callable write(view), `spool` that of an empty temporary file, or -1. NEW has at
        most `max_size` bytes; 0: the default. progress(done, total) counts bytes of BASE and NEW.
        """
        cdef sgz_blob blob
        cdef sgz_error err
        cdef sgz_status status
        cdef sgz_patch_result result
        cdef sgz_patch_apply *apply = NULL
        cdef Writer writer = Writer(sink, sink_name)
        writer.sink.stop = &self.job.job.stop
        memset(&blob, 0, sizeof(blob))
        blob.fd = base
        blob.size = self.base_size
        if self.level > 2:
            need("libdeflate")
        if sgz_patch_apply_start(&apply, &self.job.job, table(), &self.reader, &self.head, &blob,
                                 &writer.sink, spool, max_size, threads, &err) != SGZ_OK:
            raise to_exception(&err, self.name)
        try:
            follow(self.job, progress)
        finally:
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
