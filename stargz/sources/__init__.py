"""Where a blob's bytes come from: one protocol, a class for each kind of place."""

from __future__ import annotations

import io
import os
import re
from typing import TYPE_CHECKING, BinaryIO

from stargz.errors import UsageError
from stargz.sources.base import TAIL_MIN, ByteSource
from stargz.sources.local import LocalSource
from stargz.sources.memory import FileObjectSource, MemorySource

if TYPE_CHECKING:
    from stargz.sources.client import Client

__all__ = [
    "ByteSource",
    "FileObjectSource",
    "LocalSource",
    "MemorySource",
    "Source",
    "as_source",
    "url_scheme",
]

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | ByteSource


# One scheme, or a chain of them ("simplecache::s3://bucket/key").
_URL = re.compile(r"(?:[a-z][a-z0-9+.-]*::)*([a-z][a-z0-9+.-]*)://", re.I)


def as_source(source: Source, *, client: Client | None = None, tail: int = TAIL_MIN) -> ByteSource:
    """The ByteSource for a path, URL, bytes, binary file object, or ByteSource.

    http and https URLs are read with `client`, if there is one, and opened by a request for the
    blob's last `tail` bytes; those of other schemes by fsspec. Raises UsageError for what is none
    of them, SourceError for what cannot be had.
    """
    if isinstance(source, str | os.PathLike):
        if isinstance(source, str) and (scheme := url_scheme(source)):
            return _from_url(source, scheme, client, tail)
        return LocalSource(os.fspath(source))
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


def url_scheme(source: object) -> str:
    """The scheme of a URL, that of the blob in a chain; "" for what is none: also for a Path."""
    url = _URL.match(source) if isinstance(source, str) else None
    return url[1].lower() if url else ""


def _from_url(url: str, scheme: str, client: Client | None, tail: int) -> ByteSource:
    # What a URL needs is imported when there is one.
    if "::" in url.partition("://")[0]:
        scheme = ""
    if scheme in ("http", "https"):
        from stargz.sources.http import HTTPSource

        return HTTPSource(url, client=client, tail=tail)
    if scheme == "file":
        raise UsageError(f"{url}: give a local file as a path")
    if scheme in ("docker", "oci", "oci-archive", "docker-archive", "storage"):
        raise UsageError(
            f"{url}: is an image, not a layer: open it with stargz.open_image, or "
            "choose one of its layers with --layer"
        )
    from stargz.sources.fsspec_url import FsspecSource

    return FsspecSource(url)
