"""The TOC as rows: parse, look up, list, format. Python objects are made when asked for.

Every C call that takes longer than a look-up is one `nogil` section.
"""

from cpython cimport array
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.string cimport memcmp, memcpy

from stargz._engine.base cimport (
    SGZ_ECALLBACK,
    SGZ_OK,
    sgz_error,
    sgz_status,
    to_exception,
)

import threading

cdef extern from "base/xattrs.h" nogil:
    ctypedef struct sgz_xattr:
        const char *key
        const char *value
        uint32_t key_len
        uint32_t value_len
    int sgz_xattrs_next(const char **at, const char *end, sgz_xattr *x)


# Bytes that are not UTF-8, which a name may have that is not out of JSON, are those of os.fsdecode.
cdef str text(const char *data, size_t size):
    return PyUnicode_DecodeUTF8(data, <Py_ssize_t>size, "surrogateescape")


cdef str digest_text(const uint8_t *digest):
    return "sha256:" + digest[:32].hex()


cdef bytes encoded(str name):
    """The bytes of a name; None: a surrogate of another kind is in it, so no entry can have it."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return None


cdef int copy_piece(void *arg, const char *data, size_t size) noexcept nogil:
    cdef char **at = <char **>arg
    memcpy(at[0], data, size)
    at[0] += size
    return 0


cdef class Sink:
    cdef object write, error


cdef int write_piece(void *arg, const char *data, size_t size) noexcept with gil:
    # Once per 64 KiB.
    cdef Sink sink = <Sink>arg
    try:
        sink.write(data[:size])
    except BaseException as error:
        sink.error = error
        return 1
    return 0


cdef class TOC:
    """Rows in the order of the JSON: entries, chunks, and entries that later ones replaced."""

    def __cinit__(self):
        self.ptr = sgz_toc_new()
        if self.ptr == NULL:
            raise MemoryError
        self.lock = threading.Lock()

    def __dealloc__(self):
        if self.has_tree:
            sgz_toc_children_free(&self.tree)
        sgz_toc_free(self.ptr)

    @staticmethod
    def parse(data, int64_t blob_end, str source=""):
        """Parse TOC JSON: bytes, or an iterable of pieces. `blob_end` bounds the offsets.

        Raises TOCError, whose offset is the place in the JSON of a syntax error.
        """
        parser = Parser(blob_end, source)
        if isinstance(data, (bytes, bytearray, memoryview)):
            parser.feed(data)
        else:
            for piece in data:
                parser.feed(piece)
        return parser.finish()

    def __len__(self):
        return self.ptr.count

    @property
    def ordinary(self):
        """Whether it is an index's, of an ordinary tar, in which no name is the format's own."""
        return self.ptr.origins != NULL

    @property
    def split_digest(self):
        """The sha256 of the frame of the tar-split, of containers/storage's zstd:chunked; or ""."""
        if not self.ptr.has_split:
            return ""
        return "sha256:" + (<const uint8_t *>self.ptr.split_digest)[:32].hex()

    @property
    def bare_chunks(self):
        """How many chunks have no digest of their own, runs of zeros that have frames among them:
        stargz-snapshotter reads no such file, though the file has a digest."""
        cdef size_t i
        cdef int64_t count = 0
        cdef const sgz_entry *row
        for i in range(self.ptr.count):
            row = &self.ptr.rows[i]
            count += row.chunk_size > 0 and not row.flags & (SGZ_HAS_CHUNK_DIGEST | SGZ_DROPPED)
        return count

    # --- rows as an array ---------------------------------------------------------------

    def __getbuffer__(self, Py_buffer *view, int flags):
        # The rows stay where they are: a TOC that Python has is complete.
        if flags & PyBUF_WRITABLE:
            raise BufferError("the rows of a TOC are read-only")
        PyBuffer_FillInfo(view, self, self.ptr.rows, self.ptr.count * sizeof(sgz_entry), 1, flags)

    def rows(self):
        """All rows as a numpy structured array, a read-only view: one element a row.

        Sizes and offsets are in bytes, mtime in seconds since the epoch; chunk_digest is 32
        raw bytes. `type` counts from 1 in the order of TYPES; FLAGS names the bits of flags.
        """
        import numpy

        cdef sgz_entry e
        cdef char *base = <char *>&e
        columns = {
            "size": ("<i8", <char *>&e.size - base),
            "mtime": ("<i8", <char *>&e.mtime - base),
            "offset": ("<i8", <char *>&e.offset - base),
            "inner_offset": ("<i8", <char *>&e.inner_offset - base),
            "chunk_offset": ("<i8", <char *>&e.chunk_offset - base),
            "chunk_size": ("<i8", <char *>&e.chunk_size - base),
            "mode": ("<u4", <char *>&e.mode - base),
            "uid": ("<u4", <char *>&e.uid - base),
            "gid": ("<u4", <char *>&e.gid - base),
            "dev_major": ("<u4", <char *>&e.dev_major - base),
            "dev_minor": ("<u4", <char *>&e.dev_minor - base),
            "type": ("u1", <char *>&e.type - base),
            "flags": ("u1", <char *>&e.flags - base),
            "chunk_digest": ("V32", <char *>&e.chunk_digest - base),
        }
        dtype = numpy.dtype(
            {
                "names": list(columns),
                "formats": [kind.replace("<", "=") for kind, _ in columns.values()],
                "offsets": [offset for _, offset in columns.values()],
                "itemsize": sizeof(sgz_entry),
            }
        )
        if not self.ptr.count:
            return numpy.empty(0, dtype)
        return numpy.frombuffer(self, dtype)

    # --- look-up ------------------------------------------------------------------------

    def lookup(self, str name not None):
        """The row of a name, which is cleaned first; -1 when no entry has it."""
        cdef bytes data = encoded(name)
        if data is None:
            return -1
        cdef uint32_t row = sgz_toc_lookup(self.ptr, data, len(data))
        return -1 if row == SGZ_NO_ROW else row

    def resolve(self, number):
        """The row that holds the data of a row: where its hard links end."""
        self.row(number)
        cdef uint32_t row = sgz_toc_resolve(self.ptr, number)
        return number if row == SGZ_NO_ROW else row

    cdef const sgz_entry *row(self, object number) except NULL:
        cdef size_t n = number
        if n >= self.ptr.count:
            raise IndexError(f"row {number} of {self.ptr.count}")
        return &self.ptr.rows[n]

    # --- one row ------------------------------------------------------------------------

    def name(self, number):
        """The cleaned name of a row; a chunk has that of its file."""
        cdef const sgz_entry *row = self.row(number)
        return text(self.ptr.arena + row.name_off, row.name_len)

    def link(self, number):
        """The link name of a row as it stands in the TOC."""
        cdef const sgz_entry *row = self.row(number)
        return text(self.ptr.arena + row.link_off, row.link_len)

    def type(self, number):
        """The TOC's word for the type of a row."""
        return sgz_toc_type_name(self.row(number).type).decode("ascii")

    def size(self, number):
        """Bytes of a regular file; 0 of everything else."""
        return self.row(number).size

    def user_name(self, number):
        """The owner's name, filled in from earlier rows of the same uid; may be empty."""
        cdef size_t size
        cdef const char *data = sgz_toc_string(self.ptr, self.row(number).uname, &size)
        return text(data, size)

    def group_name(self, number):
        """The group's name, filled in from earlier rows of the same gid; may be empty."""
        cdef size_t size
        cdef const char *data = sgz_toc_string(self.ptr, self.row(number).gname, &size)
        return text(data, size)

    def digest(self, number):
        """The digest of the whole file ("sha256:..."), or "" where the TOC gives none."""
        self.row(number)
        cdef const uint8_t *digest = sgz_toc_digest(self.ptr, number)
        return digest_text(digest) if digest != NULL else ""

    def xattrs(self, number):
        """The extended attributes of a row, by key."""
        cdef const sgz_entry *row = self.row(number)
        cdef const char *at = self.ptr.arena + row.xattr_off
        cdef const char *end = at + row.xattr_len
        cdef sgz_xattr x
        cdef dict pairs = {}
        while sgz_xattrs_next(&at, end, &x):
            pairs[text(x.key, x.key_len)] = x.value[:x.value_len]
        return pairs

    def fields(self, number):
        """(name, type, size, mtime, mode, uid, gid, user_name, group_name, link_name,
        dev_major, dev_minor, xattrs, digest, mtime_nsec) of a row; the last of an ordinary tar
        alone, and mtime is not rounded then."""
        cdef const sgz_entry *row = self.row(number)
        cdef sgz_toc_time mtime = sgz_toc_mtime(self.ptr, number)
        return (
            self.name(number),
            self.type(number),
            row.size,
            mtime.seconds,
            row.mode,
            row.uid,
            row.gid,
            self.user_name(number),
            self.group_name(number),
            self.link(number),
            row.dev_major,
            row.dev_minor,
            self.xattrs(number),
            self.digest(number),
            mtime.ns,
        )

    def chunks(self, number):
        """(offset, inner_offset, chunk_offset, chunk_size, digest, zeros) of each chunk of the row
        of a regular file, in order; none where it is empty. The digest may be "". Of zeros the
        blob has no bytes: offsets are 0 then."""
        cdef const sgz_entry *row = self.row(number)
        cdef size_t n = number
        cdef list chunks = []
        if row.type != SGZ_REG or not row.size:
            return chunks
        while True:
            row = &self.ptr.rows[n]
            digest = digest_text(row.chunk_digest) if row.flags & SGZ_HAS_CHUNK_DIGEST else ""
            if row.chunk_size:
                chunks.append(
                    (row.offset, row.inner_offset, row.chunk_offset, row.chunk_size, digest,
                     row.type == SGZ_ZEROS)
                )
            n += 1
            if n == self.ptr.count or not sgz_toc_is_piece(&self.ptr.rows[n]):
                return chunks

    # The digest of a file that no chunk's digest stands for: some of its several chunks have none,
    # as zeros have, or it is empty and has one that cannot be right. NULL: of any other. *zeros is
    # how many bytes are those.
    cdef const uint8_t *whole(self, size_t n, int64_t *zeros) noexcept nogil:
        cdef size_t i = n
        cdef bint bare = False
        cdef const uint8_t *digest
        zeros[0] = 0
        if self.ptr.rows[n].type != SGZ_REG:
            return NULL
        digest = sgz_toc_digest(self.ptr, <uint32_t>n)
        if digest == NULL:
            return NULL
        if not self.ptr.rows[n].size:
            return NULL if memcmp(digest, sgz_toc_empty_digest, 32) == 0 else digest
        while True:
            bare |= not self.ptr.rows[i].flags & SGZ_HAS_CHUNK_DIGEST
            if self.ptr.rows[i].type == SGZ_ZEROS:
                zeros[0] += self.ptr.rows[i].chunk_size
            i += 1
            if i == self.ptr.count or not sgz_toc_is_piece(&self.ptr.rows[i]):
                break
        return digest if bare and i - n > 1 else NULL

    def whole_digest(self, number):
        """The sha256 of a regular file that only this vouches for, or rules out: some of its chunks
        have no digest of their own, zeros among them, or it is empty and has a wrong one. "" of any
        other."""
        self.row(number)
        cdef int64_t zeros
        cdef const uint8_t *digest = self.whole(number, &zeros)
        return "" if digest == NULL else digest_text(digest)

    # --- all rows -----------------------------------------------------------------------

    def whole_digests(self):
        """(row, digest) of every file that has a `whole_digest`, but for those whose holes are more
        than are hashed unasked (csrc/toc/limits.h)."""
        cdef size_t i
        cdef int64_t zeros, left = SGZ_TOC_ZEROS_HASHED
        cdef const uint8_t *digest
        cdef list found = []
        for i in range(self.ptr.count):
            digest = self.whole(i, &zeros)
            if digest != NULL and zeros <= left:
                left -= zeros
                found.append((i, digest_text(digest)))
        return found

    def entries(self):
        """The numbers of the rows that are entries: neither chunks nor replaced."""
        cdef size_t i, count = 0
        cdef const sgz_entry *row
        cdef array.array numbers = array.array("I")
        array.resize(numbers, self.ptr.count)
        cdef unsigned int *out = numbers.data.as_uints
        with nogil:
            for i in range(self.ptr.count):
                row = &self.ptr.rows[i]
                if not sgz_toc_is_piece(row) and not row.flags & SGZ_DROPPED:
                    out[count] = <unsigned int>i
                    count += 1
        array.resize(numbers, count)
        return numbers

    def names(self, *types):
        """The names of all entries in the order of the TOC; only of these types, if given."""
        cdef size_t i
        cdef unsigned int wanted = 0
        cdef const sgz_entry *row
        cdef list names = []
        for word in types:
            wanted |= 1 << (TYPES.index(word) + 1)
        if not types:
            wanted = ~0u
        for i in range(self.ptr.count):
            row = &self.ptr.rows[i]
            if sgz_toc_is_piece(row) or row.flags & SGZ_DROPPED:
                continue
            if wanted >> row.type & 1:
                names.append(text(self.ptr.arena + row.name_off, row.name_len))
        return names

    def counts(self):
        """{"entries", "files", "chunks", "bytes"}: of what the TOC means, replaced rows apart.

        Files are regular files; bytes is the sum of their sizes; a chunk is a piece with data.
        """
        cdef size_t i, entries = 0, files = 0, chunks = 0
        cdef uint64_t size = 0
        cdef const sgz_entry *row
        with nogil:
            for i in range(self.ptr.count):
                row = &self.ptr.rows[i]
                if row.flags & SGZ_DROPPED:
                    continue
                entries += not sgz_toc_is_piece(row)
                files += row.type == SGZ_REG
                chunks += sgz_toc_has_data(row)
                size += <uint64_t>row.size
        return {"entries": entries, "files": files, "chunks": chunks, "bytes": size}

    # --- directories --------------------------------------------------------------------

    cdef int build_tree(self) except -1:
        cdef sgz_error err
        cdef sgz_status status
        with self.lock:
            if not self.has_tree:
                with nogil:
                    status = sgz_toc_children_build(self.ptr, &self.tree, &err)
                if status != SGZ_OK:
                    raise to_exception(&err, "")
                self.has_tree = True
        return 0

    def is_dir(self, str name not None):
        """Whether a name is a directory, listed or implied by other names. "" is the root."""
        cdef bytes data = encoded(name)
        if data is None:
            return False
        cdef uint32_t node = sgz_toc_lookup(self.ptr, data, len(data))
        if node == SGZ_NO_ROW:
            self.build_tree()
            node = sgz_toc_children_find(self.ptr, &self.tree, data, len(data))
        if node == SGZ_NO_ROW:
            return False
        return node >= self.ptr.count or self.ptr.rows[node].type == SGZ_DIR

    def children(self, str name not None):
        """(base name, row) of all that a directory holds, sorted by the names' UTF-8; row is -1
        for a directory that only other names imply. None: the name is no directory."""
        cdef bytes path = encoded(name)
        cdef const char *data
        cdef size_t size, skip
        cdef uint32_t node, kid, i
        cdef list found = []
        if not self.is_dir(name):
            return None
        self.build_tree()
        node = sgz_toc_children_find(self.ptr, &self.tree, path, len(path))
        sgz_toc_children_name(self.ptr, &self.tree, node, &skip)
        skip += skip > 0  # the slash
        for i in range(self.tree.starts[node], self.tree.starts[node + 1]):
            kid = self.tree.kids[i]
            data = sgz_toc_children_name(self.ptr, &self.tree, kid, &size)
            found.append(
                (text(data + skip, size - skip), kid if kid < self.tree.row_count else -1)
            )
        return found

    # --- JSON ---------------------------------------------------------------------------

    def format(self, bint legacy=False):
        """The JSON as the reference writes it; with `legacy` as google/crfs does."""
        cdef uint64_t size
        cdef sgz_error err
        cdef sgz_status status
        with nogil:
            status = sgz_toc_format(self.ptr, legacy, NULL, NULL, &size, &err)
        if status != SGZ_OK:
            raise to_exception(&err, "")
        cdef bytes out = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>size)
        cdef char *at = PyBytes_AS_STRING(out)
        with nogil:
            status = sgz_toc_format(self.ptr, legacy, copy_piece, &at, &size, &err)
        if status != SGZ_OK:
            raise to_exception(&err, "")
        return out

    def format_to(self, write, bint legacy=False):
        """Call write(bytes) with the JSON, 64 KiB at a time; returns its length."""
        cdef uint64_t size
        cdef sgz_error err
        cdef sgz_status status
        cdef Sink sink = Sink()
        cdef void *arg = <void *>sink
        sink.write = write
        with nogil:
            status = sgz_toc_format(self.ptr, legacy, write_piece, arg, &size, &err)
        if status == SGZ_ECALLBACK:
            raise sink.error
        if status != SGZ_OK:
            raise to_exception(&err, "")
        return size


# Row types by number, from 1 on, and the bits of a row's flags. Zeros are chunks in the JSON.
TYPES = (
    *(sgz_toc_type_name(n).decode("ascii") for n in range(SGZ_DIR, SGZ_CHUNK + 1)), "zeros",
)
FLAGS = {
    "has_digest": SGZ_HAS_DIGEST,
    "digest_is_chunk": SGZ_DIGEST_IS_CHUNK,
    "has_chunk_digest": SGZ_HAS_CHUNK_DIGEST,
    "bad_utf8": SGZ_BAD_UTF8,
    "dropped": SGZ_DROPPED,
    "set_chunk_size": SGZ_SET_CHUNK_SIZE,
    "clean_name": SGZ_CLEAN_NAME,
}


include "toc_parser.pxi"
include "tree.pxi"
