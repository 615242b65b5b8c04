"""What every door to C stands on: errors, codec libraries, and files.

Codec libraries are looked for in this order: what the environment variable names (a demand: if
it fails, that is the error), the wheel that carries the library, the system's library. There is
no fall back to zlib: it would change digests.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy, memset
from posix.unistd cimport getpid

import importlib.util
import io
import os
import stat
import threading
from pathlib import Path

from stargz.errors import (
    CodecError,
    DigestError,
    ExtractError,
    GzipError,
    IndexFileError,
    PatchError,
    SourceError,
    StargzError,
    TarError,
    TOCError,
    UnindexableError,
    extra,
    quoted,
)

cdef extern from "<sys/syscall.h>" nogil:
    long SYS_gettid

cdef extern from "<unistd.h>" nogil:
    long syscall(long, ...)

# --- errors ---------------------------------------------------------------------------------

cdef dict FORMAT_ERRORS = {
    SGZ_EDATA: GzipError,
    SGZ_ETAR: TarError,
    SGZ_ENOTOC: UnindexableError,
    SGZ_ETOC: TOCError,
    SGZ_EPATCH: PatchError,
    SGZ_EINDEX: IndexFileError,
}


cdef dict ONE = {
    "archives": "archive", "directories": "directory", "entries": "entry", "files": "file",
    "headers": "header", "inputs": "input",
    "links": "link", "names": "name", "owners": "owner", "targets": "target", "times": "time",
    "whiteouts": "whiteout",
}
cdef dict ONE_DOES = {"are": "is", "have": "has", "were": "was"}


cdef str of_one(str note):
    """A note's text for a count of 1: the nouns of its subject, and the verb behind them."""
    cdef list words = note.split(" ")
    cdef Py_ssize_t i
    for i in range(len(words)):
        if words[i] in ONE_DOES:
            words[i] = ONE_DOES[words[i]]
            break
        words[i] = ONE.get(words[i], words[i])
    return " ".join(words)


cdef list notes_of(const sgz_notes *notes):
    cdef int kind
    cdef str first, text
    cdef list found = []
    for kind in range(SGZ_NOTE_KINDS):
        if notes.count[kind]:
            first = notes.first[kind].decode("utf-8", "backslashreplace")
            text = sgz_base_note_text(<sgz_note>kind).decode()
            if notes.count[kind] == 1:
                text = of_one(text)
            text += f" (the first: '{first}')" if first else ""
            found.append(f"{notes.count[kind]} {text}")
    return found


# What a signal's handler raised while the main thread was in a kernel.
cdef object raised = None


cdef int poll_signals() noexcept nogil:
    if syscall(SYS_gettid) != getpid():
        return 0  # signals are the main thread's
    with gil:
        return look_for_signals()


cdef int look_for_signals() noexcept:
    global raised
    try:
        PyErr_CheckSignals()
        return 0
    except BaseException as error:
        raised = error
        return 1


cdef object interruption():
    global raised
    if raised is None or syscall(SYS_gettid) != getpid():
        return KeyboardInterrupt()
    error, raised = raised, None
    return error


cdef object to_exception(const sgz_error *err, str source):
    cdef str name = err.name.decode("utf-8", "backslashreplace")
    cdef str message = err.message.decode("utf-8", "replace")
    if err.code == SGZ_ENOMEM:
        return MemoryError()
    if err.code == SGZ_ECANCELLED:
        return interruption()
    if err.code == SGZ_EIO:
        if err.sys_errno == 0:
            where = name or source
            return SourceError(f"{where}: {message}" if where else message)
        # OSError picks its own subclass (FileNotFoundError, ...) from the errno.
        return OSError(err.sys_errno, f"{message}: {os.strerror(err.sys_errno)}", name or source)
    if err.code == SGZ_EDIGEST:
        return DigestError(
            name,
            "sha256:" + (<const uint8_t *>err.expected)[:32].hex(),
            "sha256:" + (<const uint8_t *>err.actual)[:32].hex(),
            source,
            err.offset if err.offset >= 0 else None,
            message.removesuffix(" does not match its digest"),
        )
    if name:
        message = f"{quoted(name)}: {message}"
    kind = FORMAT_ERRORS.get(err.code)
    if kind is not None:
        return kind(message, source, err.offset if err.offset >= 0 else None)
    if source:
        message = f"{source}: {message}"
    if err.code == SGZ_EUNSAFE:
        return ExtractError(message)
    if err.code == SGZ_ECODEC:
        return CodecError(message)
    return StargzError(message)


cdef object reading_failed(const sgz_error *err, str source, Points index):
    error = to_exception(err, source)
    if index is not None and index.file and err.code in (SGZ_EDATA, SGZ_EDIGEST, SGZ_ETOC):
        hint = f"{index.file} may be of another blob: make it anew ('stargz index --force')"
        error.args = (f"{error}; {hint}",)
    return error


cdef dict problem_of(const sgz_error *err):
    message = err.message.decode("utf-8", "replace")
    if err.code == SGZ_EDIGEST:
        message += (
            f": expected sha256:{err.expected[:32].hex()}, got sha256:{err.actual[:32].hex()}"
        )
    elif err.code == SGZ_EIO and err.sys_errno:
        message += f": {os.strerror(err.sys_errno)}"
    return {
        "name": err.name.decode("utf-8", "replace"),
        "offset": err.offset if err.offset >= 0 else None,
        "message": message,
    }


# --- codec libraries ------------------------------------------------------------------------

cdef sgz_codecs TABLE
_loaded: dict[str, str] = {}
_lock = threading.Lock()

# Library: environment variable, modules of wheels that export its C symbols, sonames,
# how to get it.
_LIBRARIES = {
    "isal": (
        "STARGZ_ISAL",
        ("isal.igzip_lib", "isal.isal_zlib"),
        ("libisal.so.2",),
        "pip install isal, or apt install libisal2",
    ),
    "crypto": (
        "STARGZ_LIBCRYPTO",
        ("_hashlib",),
        ("libcrypto.so.3", "libcrypto.so.1.1"),
        "apt install libssl3",
    ),
    "libdeflate": (
        "STARGZ_LIBDEFLATE",
        ("deflate._deflate",),
        ("libdeflate.so.0",),
        f"{extra('dense')}, or apt install libdeflate0",
    ),
    "zstd": (
        "STARGZ_LIBZSTD",
        ("zstandard._cffi", "zstandard.backend_c"),
        ("libzstd.so.1",),
        f"{extra('zstd')}, or apt install libzstd1",
    ),
}


def _module_file(name: str) -> str | None:
    """The file of an extension module, found without importing it (or its package)."""
    package, _, leaf = name.rpartition(".")
    if not package:
        spec = importlib.util.find_spec(leaf)
        return spec.origin if spec and spec.has_location else None
    parent = importlib.util.find_spec(package)
    for folder in (parent and parent.submodule_search_locations) or ():
        for path in sorted(Path(folder).glob(f"{leaf}.*so")):
            return str(path)
    return None


def _candidates(library):
    variable, modules, sonames, _ = _LIBRARIES[library]
    demand = os.environ.get(variable)
    if demand:
        yield demand, f"{variable}={demand}"
        return
    for module in modules:
        path = _module_file(module)
        if path is not None:
            yield path, path
    for soname in sonames:
        yield soname, soname


cdef sgz_status _load(str library, bytes path, sgz_error *err):
    if library == "isal":
        return sgz_codec_load_isal(&TABLE, path, err)
    if library == "crypto":
        return sgz_codec_load_crypto(&TABLE, path, err)
    if library == "libdeflate":
        return sgz_codec_load_libdeflate(&TABLE, path, err)
    return sgz_codec_load_zstd(&TABLE, path, err)


cpdef int need(str library) except -1:
    """Load a library if it is not loaded yet.

    Raises CodecError, which lists what was tried, why each failed, and how to get it.
    """
    cdef sgz_error err
    cdef sgz_status status
    if library in _loaded:
        return 0
    with _lock:
        if library in _loaded:
            return 0
        tried = []
        for path, label in _candidates(library):
            status = _load(library, os.fsencode(path), &err)
            if status == SGZ_OK:
                _loaded[library] = path
                return 0
            if status == SGZ_ENOMEM:
                raise MemoryError
            tried.append(f"{label}: {err.message.decode('utf-8', 'replace')}")
        raise CodecError(
            f"{library} was not found (tried {'; '.join(tried)}): {_LIBRARIES[library][3]}"
        )


cdef const sgz_codecs *table() except NULL:
    need("isal")
    need("crypto")
    return &TABLE


def loaded() -> dict[str, str]:
    """The libraries loaded so far, and the file of each."""
    return dict(_loaded)


def isal_pinned() -> bool:
    """Whether this ISA-L gives the bytes that levels 1 and 2 promise."""
    need("isal")
    return TABLE.isal.pinned != 0


def zstd_version() -> str:
    """The version of the libzstd that is used."""
    need("zstd")
    return TABLE.zstd.version().decode()


# --- jobs -----------------------------------------------------------------------------------

cdef class Points:
    """Where a blob can be entered."""


cdef class Job:
    def __cinit__(self):
        sgz_base_job_init(&self.job)

    def __dealloc__(self):
        sgz_base_job_free(&self.job)


cdef int follow(Job job, object progress) except -1:
    cdef bint ended = False
    cdef object failure = None
    while not ended:
        with nogil:
            ended = sgz_base_job_wait(&job.job, POLL)
        try:
            PyErr_CheckSignals()
            if progress is not None and failure is None:
                progress(job.job.done, job.job.total)
        except BaseException as error:
            failure = failure or error
            with nogil:
                sgz_base_job_cancel(&job.job)
    if failure is not None:
        raise failure
    return 0


# --- files ----------------------------------------------------------------------------------

cdef class Buffer:
    def __cinit__(self, data):
        PyObject_GetBuffer(data, &self.view, PyBUF_SIMPLE)

    def __dealloc__(self):
        PyBuffer_Release(&self.view)


cdef int64_t _read(void *arg, uint8_t *out, size_t cap) noexcept with gil:
    cdef Reader file = <Reader>arg
    cdef Buffer data
    try:
        piece = file.call(cap)
        if piece is None:
            raise BlockingIOError("the input is non-blocking and has no bytes now")
        data = Buffer(piece)
        if <size_t>data.view.len > cap:
            raise SourceError("the input's read() returned more than it was asked for")
        memcpy(out, data.view.buf, <size_t>data.view.len)
        return data.view.len
    except BaseException as error:
        file.error = error
        return -1


cdef int _write(void *arg, const uint8_t *data, size_t size) noexcept with gil:
    cdef Writer file = <Writer>arg
    raw = isinstance(getattr(file.call, "__self__", None), io.RawIOBase)
    try:
        view = memoryview(<bytes>data[:size])
        while view:
            written = file.call(view)
            if raw and written is None:
                raise BlockingIOError("the output is non-blocking and takes no bytes now")
            if written == 0:
                raise SourceError("the output's write() took nothing")
            # Raw files may take less than they are given; others take everything.
            view = view[written if raw else len(view):]
        return 0
    except BaseException as error:
        file.error = error
        return -1


cdef class Callback:
    def __init__(self, call):
        self.call = call

    cdef int check(self) except -1:
        """Raise what the function raised."""
        if self.error is not None:
            raise self.error
        return 0


cdef class Reader(Callback):
    def __init__(self, source):
        memset(&self.source, 0, sizeof(self.source))
        self.source.fd = -1
        if callable(source):
            self.call = source
            self.source.read = _read
            self.source.arg = <void *>self
        else:
            self.source.fd = source


cdef class Writer(Callback):
    def __init__(self, sink, str name):
        memset(&self.sink, 0, sizeof(self.sink))
        self.sink.fd = -1
        self.name = os.fsencode(name)
        self.sink.name = self.name
        if callable(sink):
            self.call = sink
            self.sink.write = _write
            self.sink.arg = <void *>self
        else:
            self.sink.fd = sink
            self.sink.is_pipe = not stat.S_ISREG(os.fstat(sink).st_mode)
