"""Blobs that are read once, in order, and checked on the way."""

from __future__ import annotations

import hashlib
from typing import Protocol

from stargz.errors import DigestError, FormatError, SourceError
from stargz.oci.formats.manifest import Descriptor
from stargz.oci.registry.blob import RegistryBlob
from stargz.sources import ByteSource
from stargz.sources.download import Download

_PIECE = 1 << 20  # what `finish` reads at a time


class BlobStream(Protocol):
    """A blob that is read once, from its beginning to its end; by one thread at a time."""

    name: str
    size: int  # bytes, as its descriptor says

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; b"" at the end. The last bytes, and the end, are given only if
        size and digest were right.

        Raises RegistryError and SourceError for a transfer that cannot be resumed, DigestError
        and FormatError for content that is not what was asked for.
        """

    def finish(self) -> None:
        """Read and check what is left: a converter may stop before the end."""

    def close(self) -> None:
        """Let go of it, read or not."""


class _Checked:
    """Counts and hashes what a subclass's `_next` gives."""

    def __init__(self, name: str, entry: Descriptor) -> None:
        self.name = name
        self.size: int = entry.size
        self._digest = entry.digest
        self._left = entry.size
        self._algorithm = entry.digest.partition(":")[0]
        self._hash = hashlib.new(self._algorithm)
        self._closed = False
        self._checked = False

    def _next(self, size: int) -> bytes:
        """The next 1 to `size` bytes; b"" where there are no more."""
        raise NotImplementedError

    def read(self, size: int = -1, /) -> bytes:
        """See BlobStream.read."""
        if self._closed:
            raise ValueError(f"{self.name}: the stream is closed")
        if size < 0:
            return b"".join(iter(lambda: self.read(_PIECE), b""))
        piece = b""
        if size and self._left:
            piece = self._next(min(size, self._left))
            if not piece:
                gone = self.size - self._left
                raise FormatError(
                    f"it ends after {gone} bytes, its descriptor says {self.size}", self.name
                )
            self._hash.update(piece)
            self._left -= len(piece)
        if not self._left and not self._checked:
            actual = f"{self._algorithm}:{self._hash.hexdigest()}"
            if actual != self._digest:
                raise DigestError("the blob", self._digest, actual, self.name)
            self._checked = True
        return piece

    def finish(self) -> None:
        """See BlobStream.finish."""
        while self.read(_PIECE):
            pass

    def close(self) -> None:
        """See BlobStream.close."""
        self._closed = True


class SourceStream(_Checked):
    """A ByteSource from its beginning to its end; it is closed with the stream."""

    def __init__(self, source: ByteSource, entry: Descriptor, name: str) -> None:
        super().__init__(name, entry)
        self._source = source

    def _next(self, size: int) -> bytes:
        return self._source.read_at(self.size - self._left, size)

    def close(self) -> None:
        """See BlobStream.close."""
        super().close()
        self._source.close()


class RegistryStream(_Checked):
    """A blob of a registry in one GET, resumed where it breaks off, at the next host if one
    fails for good (mirrors first, as RegistryBlob)."""

    def __init__(self, blob: RegistryBlob) -> None:
        super().__init__(blob.name, blob.descriptor)
        self._blob = blob
        self._download = Download(blob, blob.size)

    def _next(self, size: int) -> bytes:
        while True:
            host = self._blob.host
            try:
                return self._download.read(size)
            except SourceError as error:
                if self._blob.next_host(host, error):
                    self._download.renew()
                    continue
                with self._blob.errors():
                    raise error

    def close(self) -> None:
        """See BlobStream.close."""
        super().close()
        self._download.close()
        self._blob.close()
