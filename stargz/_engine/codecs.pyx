"""Find the codec libraries and load them into the one table that kernels use.

Order for each: what the environment variable names (a demand: if it fails, that is the
error), the wheel that carries the library, the system's library. There is no fall back to
zlib: it would change digests.
"""

from stargz._engine.status cimport SGZ_OK, sgz_error, sgz_status

import importlib.util
import os
import threading
from pathlib import Path

from stargz.errors import CodecError

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
        "pip install 'stargz[dense]', or apt install libdeflate0",
    ),
    "zstd": (
        "STARGZ_LIBZSTD",
        ("zstandard._cffi", "zstandard.backend_c"),
        ("libzstd.so.1",),
        "pip install 'stargz[zstd]', or apt install libzstd1",
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
        return sgz_load_isal(&TABLE, path, err)
    if library == "crypto":
        return sgz_load_crypto(&TABLE, path, err)
    if library == "libdeflate":
        return sgz_load_libdeflate(&TABLE, path, err)
    return sgz_load_zstd(&TABLE, path, err)


cpdef int need(str library) except -1:
    """Load a library if it is not loaded yet.

    Raises CodecError, which lists what was tried, why each failed, and how to get it.
    """
    cdef sgz_error err
    if library in _loaded:
        return 0
    with _lock:
        if library in _loaded:
            return 0
        tried = []
        for path, label in _candidates(library):
            if _load(library, os.fsencode(path), &err) == SGZ_OK:
                _loaded[library] = path
                return 0
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
