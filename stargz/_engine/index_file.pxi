"""The file of an index (docs/index-format.md). Part of index.pyx."""

from stargz._engine.base cimport SGZ_ECALLBACK, Buffer

cdef extern from "index/import.h" nogil:
    int sgz_index_is_import(const uint8_t *, size_t)
    sgz_status sgz_index_import(const uint8_t *, size_t, sgz_points *, sgz_error *)

cdef extern from "codec/points.h" nogil:
    void sgz_codec_points_free(sgz_points *)

cdef extern from "index/format.h" nogil:
    ctypedef sgz_status (*sgz_index_emit)(void *, const uint8_t *, size_t, sgz_error *) noexcept
    sgz_status sgz_index_write(const sgz_index *, const sgz_codecs *, sgz_index_emit, void *,
                               uint8_t *, sgz_error *)
    sgz_status sgz_index_read(const uint8_t *, size_t, const sgz_codecs *, int64_t, sgz_index *,
                              sgz_error *)


cdef class FileWriter:
    cdef object write, error


cdef sgz_status write_piece(void *arg, const uint8_t *data, size_t size,
                            sgz_error *err) noexcept with gil:
    # A few pieces of a file, and one for each point.
    cdef FileWriter writer = <FileWriter>arg
    try:
        writer.write(data[:size])
    except BaseException as error:
        writer.error = error
        err.code = SGZ_ECALLBACK
        return SGZ_ECALLBACK
    return SGZ_OK


cdef int dump_index(Index index, object write) except -1:
    cdef FileWriter writer = FileWriter()
    cdef const sgz_codecs *codecs = table()
    cdef sgz_error err
    cdef sgz_status status
    cdef uint8_t digest[32]
    writer.write = write
    with nogil:
        status = sgz_index_write(&index.index, codecs, write_piece, <void *>writer, digest, &err)
    if writer.error is not None:
        raise writer.error
    if status != SGZ_OK:
        raise to_exception(&err, "")
    memcpy(index.index.json_digest, digest, 32)
    return 0


def load(data, *, str name="", int64_t max_toc_size=1 << 30):
    """The Index that a file has: its bytes, of which nothing is kept."""
    cdef Buffer buffer = Buffer(data)
    cdef const uint8_t *at = <const uint8_t *>buffer.view.buf
    cdef size_t size = <size_t>buffer.view.len
    cdef const sgz_codecs *codecs = table()
    cdef Index index = Index.__new__(Index)
    cdef sgz_error err
    cdef sgz_status status
    with nogil:
        status = sgz_index_read(at, size, codecs, max_toc_size, &index.index, &err)
    if status != SGZ_OK:
        raise to_exception(&err, name)
    index.take_rows()
    return index


cdef class Foreign:
    """Entry points of another program's index file: indexed_gzip's .gzidx, bgzip's .gzi."""

    def __cinit__(self):
        memset(&self.points, 0, sizeof(self.points))

    def __dealloc__(self):
        sgz_codec_points_free(&self.points)

    @property
    def size(self):
        """Bytes of the blob that they are of; 0: the file does not tell."""
        return self.points.size

    @property
    def spans(self):
        """How many there are."""
        return self.points.count


def load_foreign(data, *, str name=""):
    """The points that such a file has (its bytes, which are kept); None: it looks like neither."""
    cdef Foreign found = Foreign()
    cdef sgz_error err
    found.data = Buffer(data)
    cdef const uint8_t *at = <const uint8_t *>found.data.view.buf
    cdef size_t size = <size_t>found.data.view.len
    if not sgz_index_is_import(at, size):
        return None
    if sgz_index_import(at, size, &found.points, &err) != SGZ_OK:
        raise to_exception(&err, name)
    return found
