"""Where a blob's bytes come from: one protocol, a class for each kind of place."""

from __future__ import annotations

import io
import os
from typing import BinaryIO

from stargz.errors import UsageError
from stargz.sources.base import ByteSource
from stargz.sources.local import LocalSource
from stargz.sources.memory import FileObjectSource, MemorySource

__all__ = ["ByteSource", "FileObjectSource", "LocalSource", "MemorySource", "Source", "as_source"]

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | ByteSource


def as_source(source: Source) -> ByteSource:
    """The ByteSource for a path, URL, bytes, binary file object, or ByteSource.

    Raises UsageError for what is none of them, or not supported by this version.
    """
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        scheme, separator, _ = path.partition("://")
        if separator and scheme.isalnum() and not isinstance(source, os.PathLike):
            if scheme == "file":
                raise UsageError(f"{path}: give a local file as a path")
            raise UsageError(
                f"{path}: {scheme}:// is not read by this version; download the blob and give "
                "its path"
            )
        return LocalSource(path)
    if isinstance(source, bytes | bytearray | memoryview):
        return MemorySource(source)
    if isinstance(source, ByteSource):
        return source
    if isinstance(source, io.TextIOBase):
        raise UsageError("a layer is binary: open the file with mode 'rb'")
    raw: object = source
    if type(source) in (io.BufferedReader, io.BufferedRandom):
        raw = getattr(source, "raw", None)
    if type(raw) is io.FileIO and raw.readable():
        # A real file: the engine preads it, whatever the object's own position.
        name = raw.name if isinstance(raw.name, str) else f"<fd {raw.fileno()}>"
        return LocalSource(name, raw.fileno(), keep=source)
    if hasattr(source, "read") and hasattr(source, "seek"):
        return FileObjectSource(source)
    raise UsageError(
        f"cannot read a layer from {type(source).__name__}: give a path, bytes, a binary file "
        "object, or a ByteSource"
    )
