from libc.stdint cimport int64_t, uint8_t


cdef extern from "status.h" nogil:
    ctypedef enum sgz_status:
        SGZ_OK
        SGZ_ENOMEM
        SGZ_EIO
        SGZ_ECODEC
        SGZ_EGZIP
        SGZ_ETAR
        SGZ_ETOC
        SGZ_EPATCH
        SGZ_EDIGEST
        SGZ_EUNSAFE
        SGZ_ECALLBACK
        SGZ_ECANCELLED

    ctypedef struct sgz_error:
        sgz_status code
        int sys_errno
        int64_t offset
        char name[512]
        char message[256]
        uint8_t expected[32]
        uint8_t actual[32]


# The exception object for a failed kernel call.
cdef object to_exception(const sgz_error *err, str source)
