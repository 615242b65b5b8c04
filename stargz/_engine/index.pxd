from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from stargz._engine.base cimport Buffer, Points, sgz_notes, sgz_points
from stargz._engine.toc cimport TOC, sgz_toc


cdef extern from "index/index.h" nogil:
    ctypedef struct sgz_index:
        sgz_points points
        sgz_toc *toc
        uint8_t digest[32]
        uint8_t diff_id[32]
        int64_t archive_size
        int64_t span_size
        int64_t json_size
        uint8_t json_digest[32]
        uint64_t members
        sgz_notes notes

    int64_t sgz_index_longest(const sgz_index *)
    void sgz_index_free(sgz_index *)


# The points of another program's index file, which `build` is to take; the file's bytes are kept.
cdef class Foreign:
    cdef sgz_points points
    cdef Buffer data


# What `build` and those that load have filled in; it does not change after that, and any number of
# threads may read.
cdef class Index(Points):
    cdef sgz_index index
    cdef TOC rows               # of index.toc, which is theirs
    cdef bint has_rows
    cdef object ztoc            # what SOCI's index takes beyond this, if it was built for that
    cdef object data            # the file that the points' windows are in, if they are in one

    # To be called once `index` is filled in.
    cdef int take_rows(self) except -1
