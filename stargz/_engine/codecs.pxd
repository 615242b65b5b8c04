from stargz._engine.status cimport sgz_error, sgz_status


cdef extern from "codecs.h" nogil:
    ctypedef struct sgz_isal:
        int pinned

    ctypedef struct sgz_crypto:
        void *md_ctx_new

    ctypedef struct sgz_libdeflate:
        void *alloc_compressor

    ctypedef struct sgz_zstd:
        void *create_dstream

    ctypedef struct sgz_codecs:
        sgz_isal isal
        sgz_crypto crypto
        sgz_libdeflate libdeflate
        sgz_zstd zstd

    sgz_status sgz_load_isal(sgz_codecs *, const char *, sgz_error *)
    sgz_status sgz_load_crypto(sgz_codecs *, const char *, sgz_error *)
    sgz_status sgz_load_libdeflate(sgz_codecs *, const char *, sgz_error *)
    sgz_status sgz_load_zstd(sgz_codecs *, const char *, sgz_error *)


# The table with ISA-L and libcrypto loaded, which everything needs; raises CodecError.
# libdeflate and zstd are loaded when asked for by `need`.
cdef const sgz_codecs *table() except NULL
cpdef int need(str library) except -1
