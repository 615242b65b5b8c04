from libc.stdint cimport int64_t, uint8_t, uint64_t

from stargz._engine.codecs cimport sgz_codecs
from stargz._engine.files cimport sgz_sink
from stargz._engine.status cimport sgz_error, sgz_status
from stargz._engine.toc cimport sgz_toc


cdef extern from "convert.h" nogil:
    ctypedef struct sgz_cut_options:
        int64_t chunk_size
        int64_t min_chunk_size
        int landmarks
        int64_t landmark_after
        int prefetch
        int lossless

    ctypedef struct sgz_convert_options:
        sgz_cut_options cut
        int level
        int legacy
        int no_diff_id
        int writeback
        unsigned threads

    ctypedef struct sgz_convert_result:
        uint8_t digest[32]
        uint8_t diff_id[32]
        uint8_t toc_digest[32]
        int64_t size
        int64_t uncompressed_size
        int64_t toc_offset
        uint64_t toc_size
        uint64_t entries
        uint64_t chunks
        uint64_t members
        uint64_t bad_names
        int trailing_garbage

    ctypedef struct sgz_filler:
        pass

    ctypedef struct sgz_conversion:
        pass

    sgz_conversion *sgz_conversion_start_filled(const sgz_codecs *, const sgz_filler *,
                                                sgz_sink *, sgz_toc *,
                                                const sgz_convert_options *, int *,
                                                sgz_error *)


# Wait for a conversion that was started and free it; report(done) is called in the meantime and
# may raise, which cancels it. Returns the status of the conversion.
cdef sgz_status follow(sgz_conversion *conversion, object report, sgz_convert_result *result,
                       sgz_error *err) except *
# The fields of a result.
cdef dict fields_of(const sgz_convert_result *result)
