# SOCI's index of a layer, the ztoc: a part of stargz/_engine/index.pyx.

cdef extern from "tar/tar.h" nogil:
    ctypedef struct sgz_tar_entry:
        pass

cdef extern from "index/ztoc_write.h" nogil:
    ctypedef struct sgz_index_ztoc:
        pass

    sgz_index_ztoc *sgz_index_ztoc_new(int spool)
    void sgz_index_ztoc_free(sgz_index_ztoc *)
    sgz_status sgz_index_ztoc_entry(void *, const sgz_tar_entry *, int64_t, int64_t, sgz_error *)
    sgz_status sgz_index_ztoc_global(void *, int64_t, sgz_error *)
    sgz_status sgz_index_ztoc_point(void *, const sgz_point *, const uint8_t *, sgz_error *)
    sgz_status sgz_index_ztoc_write(sgz_index_ztoc *, const sgz_index *, const char *,
                                    sgz_index_emit, void *, sgz_error *)

cdef extern from "index/ztoc_read.h" nogil:
    sgz_status sgz_index_ztoc_read(const uint8_t *, size_t, int64_t, sgz_index *, sgz_error *)


SEVERAL_MEMBERS = ("the gzip has several members, which soci-snapshotter reads from version 0.14 "
                   "on: earlier ones read the wrong contents")


cdef class ZtocParts:
    """What a ztoc takes beyond an index; its windows are in a temporary file."""

    cdef sgz_index_ztoc *ptr
    cdef int spool
    cdef object lock            # of who writes

    def __cinit__(self):
        self.spool = -1
        self.lock = threading.Lock()
        from stargz.durable import unlinked

        self.spool = unlinked()
        self.ptr = sgz_index_ztoc_new(self.spool)
        if self.ptr == NULL:
            raise MemoryError

    def __dealloc__(self):
        sgz_index_ztoc_free(self.ptr)
        if self.spool >= 0:
            close(self.spool)


# What the pass finds goes to the parts of a ztoc too.
cdef int collect(Index index, sgz_index_build_options *options) except -1:
    cdef ZtocParts parts = ZtocParts()
    index.ztoc = parts
    options.arg = parts.ptr
    options.on_entry = sgz_index_ztoc_entry
    options.on_global = sgz_index_ztoc_global
    options.on_point = sgz_index_ztoc_point
    return 0


cdef int write_ztoc(Index index, object write, str tool) except -1:
    if index.ztoc is None:
        raise ValueError("this index was not built for SOCI")
    cdef ZtocParts parts = index.ztoc
    cdef FileWriter writer = FileWriter()
    cdef bytes made_by = tool.encode()
    cdef const char *made_by_text = made_by
    cdef sgz_error err
    cdef sgz_status status
    writer.write = write
    with parts.lock:
        with nogil:
            status = sgz_index_ztoc_write(parts.ptr, &index.index, made_by_text, write_piece,
                                          <void *>writer, &err)
    if writer.error is not None:
        raise writer.error
    if status != SGZ_OK:
        raise to_exception(&err, "")
    return 0


def load_ztoc(data, *, str name="", blob_size=None):
    """The Index that a ztoc is, whoever made it; its bytes are kept.

    IndexFileError says what is wrong with it, also that it is of a blob of another size.
    """
    cdef Buffer buffer = Buffer(data)
    cdef Index index = Index.__new__(Index)
    cdef int64_t size = -1 if blob_size is None else blob_size
    cdef sgz_error err
    cdef sgz_status status
    index.data = buffer
    with nogil:
        status = sgz_index_ztoc_read(<const uint8_t *>buffer.view.buf, <size_t>buffer.view.len,
                                     size, &index.index, &err)
    if status != SGZ_OK:
        raise to_exception(&err, name)
    index.take_rows()
    return index
