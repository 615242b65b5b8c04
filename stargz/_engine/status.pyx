"""The one table from kernel status codes to exceptions."""

import os

from stargz.errors import (
    CodecError,
    DigestError,
    ExtractError,
    GzipError,
    PatchError,
    SourceError,
    StargzError,
    TarError,
    TOCError,
)

cdef dict FORMAT_ERRORS = {
    SGZ_EGZIP: GzipError,
    SGZ_ETAR: TarError,
    SGZ_ETOC: TOCError,
    SGZ_EPATCH: PatchError,
}


cdef object to_exception(const sgz_error *err, str source):
    cdef str name = err.name.decode("utf-8", "backslashreplace")
    cdef str message = err.message.decode("utf-8", "replace")
    if err.code == SGZ_ENOMEM:
        return MemoryError()
    if err.code == SGZ_ECANCELLED:
        return KeyboardInterrupt()
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
        )
    if name:
        message = f"{name!r}: {message}"
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
