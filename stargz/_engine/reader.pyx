"""Reading a blob: its TOC, ranges of its files, and verification of the whole.

Every call into C is one `nogil` section a read, never one a member.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_SIMPLE,
    PyBUF_WRITABLE,
    PyBUF_WRITE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from stargz._engine.base cimport (
    SGZ_OK,
    SGZ_POINT_ZSTD,
    Job,
    Points,
    follow,
    notes_of,
    problem_of,
    sgz_codecs,
    sgz_error,
    sgz_points,
    sgz_status,
    table,
)
from stargz._engine.toc cimport SGZ_HAS_CHUNK_DIGEST, SGZ_HAS_DIGEST, TOC, sgz_entry

import threading

from stargz._engine.base import need

cdef enum:
    # POOL (reader.pxd) idle readers are kept for reuse: about 350 KB each, and 10 us saved a
    # read. A read of this much, of more than one chunk, is worth its threads (30 us each).
    PARALLEL = 1 << 20
    # Chunks above this are held by parts, so that memory is bounded whatever their size.
    WINDOW = 64 << 20
    # What the last chunks read in part may take; one is kept however large.
    CACHE = 32 << 20


include "blob.pxi"


@cython.no_gc_clear
cdef class Spans:
    def __dealloc__(self):
        sgz_read_spans_free(&self.spans)


cdef class Reader:
    """Random reads and verification of one blob with its TOC. Safe for many threads.

    `end` is the blob offset where the members of files end. With `verify`, what a chunk's
    digest covers is checked before a byte of it is handed out. `index` says where the blob can be
    entered, of one that is not made of gzip members: the offsets in the TOC are such places. With
    `claims` it must say of a file what the file's tar header says, before a byte of that is handed
    out: for an index that nothing vouches for; `toc` is its own then.
    """

    def __cinit__(self, Blob blob not None, TOC toc not None, int64_t end, bint verify,
                  int threads, on_close, *, Points index=None, bint claims=False):
        self.codecs = table()
        self.blob = blob
        blob.index = index
        if index is not None and index.table.kind == SGZ_POINT_ZSTD:
            need("zstd")
        blob.claims = Claims(blob, toc, index) if claims else None
        self.toc = toc
        self.end = end
        self.verified = verify
        self.threads = threads
        self.lock = threading.Lock()
        self.cache = {}
        self.last_row = 0xFFFFFFFF
        self.on_close = on_close

    def __dealloc__(self):
        self.release()

    cdef void release(self) noexcept:
        while self.pooled:
            self.pooled -= 1
            sgz_read_reader_free(self.pool[self.pooled])
            free(self.pool[self.pooled])

    cpdef int hold(self) except -1:
        """Keep the blob open until `leave`, whoever calls close. ValueError if closed."""
        with self.lock:
            self.check()
            self.active += 1
        return 0

    # The same, and the index of chunks is there.
    cdef int enter(self) except -1:
        with self.lock:
            self.check()
            if self.index is None:
                self.make_index()
            self.active += 1
        return 0

    cdef int make_index(self) except -1:
        self.index = self.spans(False)
        return 0

    # With `all` also zeros that have bytes in the blob.
    cdef Spans spans(self, bint all):
        cdef sgz_error err
        cdef sgz_status status
        cdef Spans index = Spans.__new__(Spans)
        cdef const sgz_points *points = self.blob.points()
        index.toc = self.toc
        index.points = self.blob.index
        index.claims = self.blob.claims
        with nogil:
            if all:
                status = sgz_read_spans_init_all(&index.spans, self.toc.ptr, points, self.end, &err)
            else:
                status = sgz_read_spans_init(&index.spans, self.toc.ptr, points, self.end, &err)
        if status != SGZ_OK:
            raise self.blob.failure(&err)
        index.spans.claims = self.blob.claimed()
        return index

    cpdef int leave(self) except -1:
        """The end of a `hold`; the last one gives back a blob that was closed meanwhile."""
        with self.lock:
            self.active -= 1
            last = self.closed and not self.active
        if last:
            self.shut()
        return 0

    cdef int shut(self) except -1:
        self.cache.clear()
        self.cached = 0
        remote, self.remote = self.remote, None
        if remote is not None:
            remote.close()
        self.release()
        on_close, self.on_close = self.on_close, None
        if on_close is not None:
            on_close()
        return 0

    def close(self):
        """Refuse new reads; what the blob holds is given back when running ones are done."""
        with self.lock:
            if self.closed:
                return
            self.closed = True
            idle = not self.active
        if idle:
            self.shut()

    def check(self):
        """Raise ValueError if closed."""
        if self.closed:
            raise ValueError(f"{self.blob.name}: the layer is closed")

    def undigested(self):
        """How many chunks no digest covers."""
        cdef size_t i
        cdef int64_t count = 0
        # In containers/storage's TOC the digest of a file is that of its only chunk, too.
        cdef bint frames = self.blob.index is FRAMES
        self.enter()
        try:
            if sgz_read_spans_covered(&self.index.spans):
                return 0
            with nogil:
                for i in range(self.index.spans.count):
                    if not (self.toc.ptr.rows[self.index.spans.rows[i]].flags & SGZ_HAS_CHUNK_DIGEST
                            or (frames and sgz_read_span_digest(&self.index.spans, i) != NULL)):
                        count += 1
            return count
        finally:
            self.leave()

    # Regular files without any digest: of the whole, or of every chunk.
    cdef int64_t unhashed(self):
        cdef size_t i
        cdef int64_t count = 0
        cdef const sgz_entry *file
        if sgz_read_spans_covered(&self.index.spans):
            return 0
        with nogil:
            for i in range(self.index.spans.count):
                file = &self.toc.ptr.rows[self.index.spans.files[i]]
                if not (file.flags & SGZ_HAS_DIGEST or
                        self.toc.ptr.rows[self.index.spans.rows[i]].flags & SGZ_HAS_CHUNK_DIGEST):
                    count += 1
        return count

    def read(self, uint32_t row, int64_t offset, int64_t size):
        """Bytes [offset, offset + size) of the regular file `row`; the caller clamps."""
        self.enter()
        try:
            out = PyBytes_FromStringAndSize(NULL, size)
            if size:
                self.fill(row, offset, <uint8_t *>PyBytes_AS_STRING(out), size)
            return out
        finally:
            self.leave()

    def read_into(self, uint32_t row, int64_t offset, int64_t size, buffer):
        """The same into a writable buffer, which has room for them."""
        cdef Py_buffer view
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            self.enter()
            try:
                if size > view.len:
                    raise ValueError(f"{size} bytes do not fit into a buffer of {view.len}")
                if size:
                    self.fill(row, offset, <uint8_t *>view.buf, size)
            finally:
                self.leave()
        finally:
            PyBuffer_Release(&view)

    # A blob that must be fetched: as `attach` says.
    cdef int far(self, uint32_t row, int64_t offset, uint8_t *out, int64_t size) except -1:
        self.connected().read_into(
            row, offset, size, PyMemoryView_FromMemory(<char *>out, size, PyBUF_WRITE)
        )
        return 0

    # Only between enter and leave.
    cdef object connected(self):
        with self.lock:
            if self.remote is None or self.remote.forked():
                self.remote = self.connect(self)
            return self.remote

    def attach(self, connect):
        """Of a blob that is not direct: `connect(self)`, called before the first read, gives what
        reads for it: an object with read_into(row, offset, size, buffer), forked(), start() and
        close().
        """
        self.connect = connect

    def start(self):
        """Begin to fetch what may be fetched unasked."""
        self.enter()
        try:
            self.connected().start()
        finally:
            self.leave()

    # Lay out the pieces of one read: whole chunks straight into `out`, the partial ones at
    # its ends by way of the cache.
    cdef int fill(self, uint32_t row, int64_t offset, uint8_t *out, int64_t size) except -1:
        cdef sgz_error err
        cdef size_t first, last, claimed, count = 0
        cdef int64_t at, take, start, length, total = 0
        cdef const sgz_entry *chunk
        cdef uint32_t number
        cdef sgz_read_piece *pieces
        cdef list made = []
        if not self.blob.direct:
            return self.far(row, offset, out, size)
        if sgz_read_spans_find(&self.index.spans, row, offset, size, &first, &last, &err) != SGZ_OK:
            raise self.blob.failure(&err)
        with nogil:
            sgz_read_spans_zeros(&self.index.spans, first, last, offset, size, out)
        pieces = <sgz_read_piece *>malloc(
            (last - first + <size_t>(size // WINDOW) + 4) * sizeof(sgz_read_piece)
        )
        if pieces == NULL:
            raise MemoryError
        try:
            claimed = sgz_read_spans_claimed(&self.index.spans, row)
            if first == last and claimed != SGZ_NO_SPAN:
                # A hole of a file that is to be checked, by its first chunk.
                pieces[0].span = claimed
                pieces[0].out = out
                pieces[0].at = pieces[0].len = 0
                pieces[0].blob = &self.blob.blob
                self.decode(pieces, 1, 0)
            while size and first < last:
                number = self.index.spans.rows[first]
                chunk = &self.toc.ptr.rows[number]
                take = max(chunk.chunk_offset - offset, 0)  # zeros
                offset += take
                size -= take
                out += take
                at = offset - chunk.chunk_offset
                start, length = 0, chunk.chunk_size
                take = min(length - at, size)
                if take < length:
                    if length > WINDOW:
                        start = at - at % WINDOW
                        length = min(<int64_t>WINDOW, chunk.chunk_size - start)
                        take = min(start + length - at, size)
                    key = (number, start)
                    data = self.find(key)
                    if data is not None:
                        memcpy(out, PyBytes_AS_STRING(data) + (at - start), take)
                        length = -1
                    elif self.verified or self.last_row == number:
                        data = PyBytes_FromStringAndSize(NULL, length)
                        made.append((key, data, at - start, take, <size_t>out))
                        pieces[count].out = <uint8_t *>PyBytes_AS_STRING(data)
                    else:
                        # Nothing is checked: decode what is wanted. A second such read of the
                        # chunk decodes it whole, for those that will follow.
                        self.last_row = number
                        start, length = at, take
                        pieces[count].out = out
                else:
                    pieces[count].out = out
                if length >= 0:
                    pieces[count].span = first
                    pieces[count].at = start
                    pieces[count].len = length
                    pieces[count].blob = &self.blob.blob
                    total += length
                    count += 1
                offset += take
                size -= take
                out += take
                if offset == chunk.chunk_offset + chunk.chunk_size:
                    first += 1
            if count:
                self.decode(pieces, count, total)
            for key, data, skip, length, to in made:
                memcpy(<uint8_t *><size_t>to, PyBytes_AS_STRING(data) + <size_t>skip, length)
                self.keep(key, data)
        finally:
            free(pieces)
        return 0

    cdef bytes find(self, tuple key):
        with self.lock:
            data = self.cache.pop(key, None)
            if data is not None:
                self.cache[key] = data
        return data

    cdef int keep(self, tuple key, bytes data) except -1:
        with self.lock:
            if self.closed or key in self.cache:
                return 0
            self.cache[key] = data
            self.cached += len(data)
            while self.cached > CACHE and len(self.cache) > 1:
                oldest = next(iter(self.cache))
                self.cached -= len(self.cache.pop(oldest))
        return 0

    cdef int decode(self, sgz_read_piece *pieces, size_t count, int64_t total) except -1:
        cdef sgz_error err
        cdef sgz_status status = SGZ_OK
        cdef int threads = self.threads if count > 1 and total >= PARALLEL else 1
        cdef sgz_reader *reader = NULL
        cdef int verify = self.verified
        cdef int near, nearest = 0, best = 0
        cdef size_t i
        cdef const sgz_entry *first = &self.toc.ptr.rows[self.index.spans.rows[pieces[0].span]]
        if threads > 1:
            with nogil:
                status = sgz_read_pieces(self.codecs, &self.index.spans, pieces, count, verify,
                                         threads, &err)
            if status != SGZ_OK:
                raise self.blob.failure(&err)
            return 0
        with self.lock:
            # The one that can go on from where it is, or another.
            for i in range(self.pooled):
                near = sgz_read_reader_near(self.pool[i], first, pieces[0].at)
                if near >= nearest:
                    nearest, best = near, i
            if self.pooled:
                self.pooled -= 1
                reader = self.pool[best]
                self.pool[best] = self.pool[self.pooled]
        if reader == NULL:
            reader = <sgz_reader *>calloc(1, sizeof(sgz_reader))
            if reader == NULL:
                raise MemoryError
            status = sgz_read_reader_init(reader, self.codecs, &self.index.spans, &self.blob.blob,
                                          &err)
            if status != SGZ_OK:
                free(reader)
                raise self.blob.failure(&err)
        with nogil:
            for i in range(count):
                status = sgz_read_chunk(reader, pieces[i].span, verify, pieces[i].at,
                                        pieces[i].len, pieces[i].out, &err)
                if status != SGZ_OK:
                    break
        with self.lock:
            if self.pooled < POOL:
                self.pool[self.pooled] = reader
                self.pooled += 1
                reader = NULL
        if reader != NULL:
            sgz_read_reader_free(reader)
            free(reader)
        if status != SGZ_OK:
            raise self.blob.failure(&err)
        return 0

    def verify(self, int64_t toc_end, int64_t json_size, progress=None, *, bint size_only=False,
               Blob blob=None, toc=None, split=None):
        """Decode the whole blob and check it; csrc/verify/verify.h says what.

        Returns a dict: files, chunks, bytes, undigested (chunks that nothing in the TOC has a
        digest of), error_count, and errors, a list of dicts with
        name, offset (None where it is not known) and message; and notes, lines about headers
        that other readers take otherwise. With `size_only` nothing is hashed or compared.
        `blob` is another way to the same bytes. Of zstd:chunked `toc` says where its frame is, and
        `split` where the tar-split is, if that is to be compared: (offset, packed, size), a size of
        -1 is not known. Then there is also diff_id, b"" where it is not known.
        """
        cdef sgz_error err
        cdef sgz_status status
        cdef sgz_verify *run = NULL
        cdef sgz_verify_args args
        cdef sgz_verify_result *result
        cdef Job job = Job()
        cdef size_t i
        cdef Spans index
        if blob is None:
            blob = self.blob
        self.enter()
        try:
            index = self.spans(True) if self.blob.index is FRAMES else self.index
            result = <sgz_verify_result *>malloc(sizeof(sgz_verify_result))
            if result == NULL:
                raise MemoryError
            try:
                args.codecs = self.codecs
                args.spans = &index.spans
                args.blob = &blob.blob
                args.toc_end = toc_end
                args.json_size = json_size
                args.threads = self.threads
                args.size_only = size_only
                args.whole = toc is not None
                args.toc = sgz_toc_frame(0, 0, 0)
                args.split = sgz_toc_frame(0, 0, 0)
                if toc is not None:
                    args.toc.offset, args.toc.packed, args.toc.size = toc
                if split is not None:
                    args.split.offset, args.split.packed, args.split.size = split
                with nogil:
                    status = sgz_verify_start(&run, &job.job, &args, &err)
                if status != SGZ_OK:
                    raise blob.failure(&err)
                try:
                    follow(job, progress)
                finally:
                    with nogil:
                        status = sgz_verify_finish(run, result, &err)
                if status != SGZ_OK:
                    raise blob.failure(&err)
                if progress is not None:
                    progress(job.job.total, job.job.total)
                return {
                    "undigested": 0 if size_only else self.unhashed(),
                    "files": result.files,
                    "chunks": result.chunks,
                    "bytes": result.bytes,
                    "diff_id": f"sha256:{result.diff_id[:32].hex()}" if result.has_diff_id else "",
                    "error_count": result.error_count,
                    "errors": [problem_of(&result.errors[i]) for i in range(result.kept)],
                    "notes": notes_of(&result.notes),
                }
            finally:
                free(result)
        finally:
            self.leave()


include "json_stream.pxi"
