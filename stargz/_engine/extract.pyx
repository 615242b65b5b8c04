"""Extraction: one call a layer, on a pool of C threads; see csrc/extract/extract.h."""

from libc.errno cimport ENOENT, errno
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset
from posix.fcntl cimport F_DUPFD_CLOEXEC, fcntl
from posix.unistd cimport close

from stargz._engine.base cimport (
    SGZ_EIO,
    SGZ_OK,
    Job,
    follow,
    sgz_base_job,
    sgz_codecs,
    sgz_error,
    sgz_status,
    table,
)
from stargz._engine.reader cimport Blob, sgz_blob
from stargz._engine.toc cimport TOC, sgz_toc

import os

from stargz.errors import EntryNotFoundError


cdef extern from "extract/extract.h" nogil:
    ctypedef struct sgz_extract_options:
        const sgz_toc *toc
        const sgz_codecs *codecs
        const sgz_blob *blob
        int64_t data_end
        int root
        int threads
        int verify
        int same_owner
        int devices
        int setid
        int xattrs
        int openat2

    ctypedef struct sgz_extract_result:
        uint64_t files
        uint64_t bytes
        uint64_t unverified
        uint64_t devices
        uint64_t setid
        uint64_t xattrs
        uint64_t xattrs_failed

    ctypedef struct sgz_extract:
        pass

    sgz_extract *sgz_extract_new(const sgz_extract_options *)
    sgz_status sgz_extract_select(sgz_extract *, const char *, size_t, sgz_error *)
    sgz_status sgz_extract_start(sgz_extract *, sgz_base_job *, sgz_error *)
    sgz_status sgz_extract_finish(sgz_extract *, sgz_extract_result *, sgz_error *)
    void sgz_extract_free(sgz_extract *)


cdef dict XATTRS = {"none": 0, "user": 1, "all": 2}


def extract(
    TOC toc not None,
    Blob blob not None,
    int64_t data_end,
    int root,
    members,
    *,
    int threads,
    bint verify,
    bint same_owner,
    bint devices,
    bint setid,
    str xattrs,
    progress,
    bint openat2=True,
):
    """Extract into the open directory `root`; see stargz.extract.extract.

    `data_end` is the blob offset where the members of chunks end, `members` the names to
    extract (bytes) or None for all. Without `openat2` paths are walked by component, as on
    kernels before 5.6. Returns the counts of sgz_extract_result.
    """
    cdef sgz_extract_options options
    cdef sgz_extract_result result
    cdef sgz_extract *ex = NULL
    cdef sgz_blob source = blob.blob
    cdef sgz_error err
    cdef sgz_status status
    cdef bytes member
    cdef Job job = Job()

    memset(&options, 0, sizeof(options))
    memset(&result, 0, sizeof(result))
    memset(&err, 0, sizeof(err))
    options.toc = toc.ptr
    options.codecs = table()
    options.blob = &source
    options.data_end = data_end
    options.root = root
    options.threads = threads
    options.verify = verify
    options.same_owner = same_owner
    options.devices = devices
    options.setid = setid
    options.xattrs = XATTRS[xattrs]
    options.openat2 = openat2
    if source.fd >= 0:
        # A descriptor of our own: the layer may be closed meanwhile by another thread.
        if blob.source.fd is None:
            raise ValueError(f"{blob.name}: the layer is closed")
        source.fd = fcntl(source.fd, F_DUPFD_CLOEXEC, 0)
        if source.fd < 0:
            raise OSError(errno, os.strerror(errno), blob.name)
    try:
        ex = sgz_extract_new(&options)
        if ex == NULL:
            raise MemoryError
        for member in members or ():
            if sgz_extract_select(ex, member, len(member), &err) != SGZ_OK:
                raise blob.failure(&err)
        with nogil:  # once per layer
            status = sgz_extract_start(ex, &job.job, &err)
        if status == SGZ_EIO and err.sys_errno == ENOENT:
            raise EntryNotFoundError(err.name.decode("utf-8", "backslashreplace"), blob.name)
        if status != SGZ_OK:
            raise blob.failure(&err)
        try:
            follow(job, progress)
        finally:
            with nogil:  # the threads may need the GIL to end: to read the source
                status = sgz_extract_finish(ex, &result, &err)
        if status != SGZ_OK:
            raise blob.failure(&err)
    finally:
        with nogil:
            sgz_extract_free(ex)
        if source.fd >= 0:
            close(source.fd)
    return {
        "files": result.files,
        "bytes": result.bytes,
        "unverified": result.unverified,
        "devices": result.devices,
        "setid": result.setid,
        "xattrs": result.xattrs,
        "xattrs-failed": result.xattrs_failed,
    }
