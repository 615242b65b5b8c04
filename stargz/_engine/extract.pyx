"""Extraction: one call a layer or image, on a pool of C threads; see csrc/extract/extract.h."""

from cpython.bytearray cimport PyByteArray_AS_STRING
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from posix.fcntl cimport F_DUPFD_CLOEXEC, fcntl
from posix.unistd cimport close as posix_close

from stargz._engine.base cimport (
    SGZ_ECALLBACK,
    SGZ_EIO,
    SGZ_OK,
    Job,
    follow,
    problem_of,
    sgz_base_job,
    sgz_codecs,
    sgz_error,
    sgz_points,
    sgz_status,
    table,
    to_exception,
)
from stargz._engine.reader cimport Blob, sgz_blob, sgz_read_claims
from stargz._engine.toc cimport SGZ_DIR, TOC, sgz_toc

import os


cdef extern from "extract/extract.h" nogil:
    ctypedef struct sgz_extract_layer:
        const sgz_toc *toc
        const sgz_blob *blob
        const sgz_points *points
        sgz_read_claims *claims
        int64_t data_end
        const uint8_t *wanted

    ctypedef struct sgz_extract_directory:
        const char *path
        uint32_t len

    ctypedef struct sgz_extract_options:
        const sgz_extract_layer *layers
        uint32_t layer_count
        const sgz_extract_directory *empty
        uint32_t empty_count
        const sgz_codecs *codecs
        uint32_t strip
        int keep_going
        int list
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
        uint64_t directories
        uint64_t symlinks
        uint64_t hardlinks
        uint64_t specials
        uint64_t unverified
        uint64_t devices
        uint64_t setid
        uint64_t xattrs
        uint64_t xattrs_failed

    ctypedef struct sgz_extract:
        pass

    sgz_extract *sgz_extract_new(const sgz_extract_options *)
    sgz_status sgz_extract_start(sgz_extract *, sgz_base_job *, sgz_error *)
    sgz_status sgz_extract_finish(sgz_extract *, sgz_extract_result *, sgz_error *)
    const sgz_error *sgz_extract_errors(const sgz_extract *, const uint64_t **, size_t *,
                                        uint64_t *, uint64_t *)
    int sgz_extract_next_written(const sgz_extract *, size_t *, uint32_t *, uint32_t *)
    void sgz_extract_free(sgz_extract *)


cdef dict XATTRS = {"none": 0, "user": 1, "all": 2}


cdef bint refused(const sgz_error *err) noexcept:
    """Whether the file system refused a file that was to be written. (What cannot be read has no
    name.)"""
    return err.code == SGZ_EIO and err.sys_errno and err.name[0]


cdef class Layers:
    """What is extracted: for each layer (TOC, Blob, data_end, wanted), of which `wanted` is a
    bytearray by row or None; see extract.h. The blobs are open until `close`, whoever else closes
    theirs."""

    cdef sgz_extract_layer *layers
    cdef sgz_blob *blobs
    cdef uint32_t count
    cdef list parts
    cdef str directory
    cdef uint32_t strip

    def __cinit__(self, layers, str directory, uint32_t strip):
        cdef TOC toc
        cdef Blob blob
        cdef bytearray wanted
        cdef size_t i
        self.parts = list(layers)
        self.directory = directory
        self.strip = strip
        count = len(self.parts)
        self.layers = <sgz_extract_layer *>calloc(count + 1, sizeof(sgz_extract_layer))
        self.blobs = <sgz_blob *>calloc(count + 1, sizeof(sgz_blob))
        if self.layers == NULL or self.blobs == NULL:
            raise MemoryError
        for i in range(count):
            toc, blob, data_end, wanted = self.parts[i]
            if wanted is None and count > 1:
                raise ValueError("of several layers it must be said what is wanted")
            if wanted is not None and len(wanted) != toc.ptr.count:
                raise ValueError(f"{len(wanted)} marks for {toc.ptr.count} rows")
            self.blobs[i] = blob.blob
            if blob.blob.fd >= 0:
                if blob.source.fd is None:
                    raise ValueError(f"{blob.name}: the layer is closed")
                self.blobs[i].fd = fcntl(blob.source.fd, F_DUPFD_CLOEXEC, 0)
                if self.blobs[i].fd < 0:
                    raise OSError(errno, os.strerror(errno), blob.name)
            self.count += 1
            self.layers[i].toc = toc.ptr
            self.layers[i].blob = &self.blobs[i]
            self.layers[i].points = blob.points()
            self.layers[i].claims = blob.claimed()
            self.layers[i].data_end = data_end
            self.layers[i].wanted = (
                NULL if wanted is None else <const uint8_t *>PyByteArray_AS_STRING(wanted)
            )

    def __dealloc__(self):
        self.close()
        free(self.layers)
        free(self.blobs)

    cdef void close(self) noexcept:
        while self.count:
            self.count -= 1
            if self.blobs[self.count].fd >= 0:
                posix_close(self.blobs[self.count].fd)

    cdef object failure(self, const sgz_error *err, str name):
        """What is raised of it: what one of the sources raised, if that was it."""
        cdef Blob blob
        if refused(err):
            return OSError(
                err.sys_errno,
                f"{err.message.decode()}: {os.strerror(err.sys_errno)}",
                self.place(err),
            )
        if err.code == SGZ_ECALLBACK or len(self.parts) == 1:
            for _, blob, _, _ in self.parts:
                if blob.error is not None or len(self.parts) == 1:
                    return blob.failure(err)
        return to_exception(err, name)

    cdef str place(self, const sgz_error *err):
        """The file that the file system refused."""
        cdef str name = err.name.decode("utf-8", "backslashreplace")
        return os.path.join(self.directory, *([] if name == "." else name.split("/")[self.strip:]))

    cdef dict problem(self, const sgz_error *err):
        found = problem_of(err)
        return {**found, "path": self.place(err)} if refused(err) else found

    cdef str name(self, uint32_t layer, uint32_t row):
        """An entry as tar lists it."""
        cdef TOC toc = self.parts[layer][0]
        return toc.name(row) + ("/" if toc.ptr.rows[row].type == SGZ_DIR else "")


cdef class Listing:
    """Progress of an extraction, and the names that it wrote meanwhile."""

    cdef sgz_extract *ex
    cdef size_t at
    cdef Layers layers
    cdef object written, progress

    def __cinit__(self, Layers layers, written, progress):
        self.layers = layers
        self.written = written
        self.progress = progress

    def __call__(self, done, total):
        cdef uint32_t layer, row
        while sgz_extract_next_written(self.ex, &self.at, &layer, &row):
            self.written(self.layers.name(layer, row))
        if self.progress is not None:
            self.progress(done, total)


def extract(
    layers,
    str name not None,
    int root,
    str directory not None,
    *,
    empty,
    uint32_t strip,
    bint keep_going,
    written,
    int threads,
    bint verify,
    bint same_owner,
    bint devices,
    bint setid,
    str xattrs,
    progress,
    bint openat2=True,
):
    """Extract into the open directory `root`, called `directory`; see stargz.extract.extract.

    `layers` are those of Layers, the lowest first, `name` is what errors call several, `empty` has
    the paths of directories that are made without an entry, and `written` is called with the name
    of each entry, or None. Without `openat2` paths are walked by component, as on kernels before
    5.6. Returns the counts of sgz_extract_result and, of what
    failed, "errors" (the layer's place and a dict each), "error_count" and "damaged".
    """
    cdef sgz_extract_options options
    cdef sgz_extract_result result
    cdef sgz_extract *ex = NULL
    cdef sgz_error err
    cdef sgz_status status
    cdef Layers all = Layers(layers, directory, strip)
    cdef Job job = Job()
    cdef Listing listing = Listing(all, written, progress)
    cdef size_t kept = 0, i
    cdef const uint64_t *places
    cdef uint64_t count = 0, damaged = 0
    cdef const sgz_error *failures
    cdef sgz_extract_directory *directories
    cdef bytes path

    memset(&options, 0, sizeof(options))
    memset(&result, 0, sizeof(result))
    memset(&err, 0, sizeof(err))
    options.layers = all.layers
    options.layer_count = all.count
    paths = list(map(str.encode, empty))
    options.codecs = table()
    options.strip = strip
    options.keep_going = keep_going
    options.list = written is not None
    options.root = root
    options.threads = threads
    options.verify = verify
    options.same_owner = same_owner
    options.devices = devices
    options.setid = setid
    options.xattrs = XATTRS[xattrs]
    options.openat2 = openat2
    errors = []
    options.empty = directories = <sgz_extract_directory *>calloc(
        len(paths) + <size_t>1, sizeof(sgz_extract_directory)
    )
    if directories == NULL:
        raise MemoryError
    for path in paths:
        directories[options.empty_count].path = path
        directories[options.empty_count].len = <uint32_t>len(path)
        options.empty_count += 1
    try:
        ex = sgz_extract_new(&options)
        if ex == NULL:
            raise MemoryError
        with nogil:  # once for all layers
            status = sgz_extract_start(ex, &job.job, &err)
        if status != SGZ_OK:
            raise all.failure(&err, name)
        listing.ex = ex
        try:
            follow(job, progress if written is None else listing)
        finally:
            with nogil:  # the threads may need the GIL to end: to read the source
                status = sgz_extract_finish(ex, &result, &err)
        if status != SGZ_OK:
            raise all.failure(&err, name)
        failures = sgz_extract_errors(ex, &places, &kept, &count, &damaged)
        for i in range(kept):
            errors.append((places[i] >> 32, all.problem(&failures[i])))
    finally:
        with nogil:
            sgz_extract_free(ex)
        free(directories)
        all.close()
    return {
        "files": result.files,
        "bytes": result.bytes,
        "directories": result.directories,
        "symlinks": result.symlinks,
        "hardlinks": result.hardlinks,
        "specials": result.specials,
        "unverified": result.unverified,
        "devices": result.devices,
        "setid": result.setid,
        "xattrs": result.xattrs,
        "xattrs-failed": result.xattrs_failed,
        "errors": errors,
        "error_count": count,
        "damaged": damaged,
    }
