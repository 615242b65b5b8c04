"""Blobs in memory, and behind Python file objects."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import BinaryIO

from stargz.errors import SourceError
from stargz.sources.base import check_range


class MemorySource:
    """A blob whose bytes are in memory: bytes, bytearray, memoryview. Not copied."""

    def __init__(self, data: bytes | bytearray | memoryview, name: str = "<bytes>") -> None:
        self.name = name
        self._view: memoryview | None = memoryview(data).cast("B")
        self.size: int = self._view.nbytes

    @property
    def buffer(self) -> memoryview | None:
        """All of the bytes; None once closed."""
        return self._view

    def read_at(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`; SourceError when they are not there."""
        if self._view is None:
            raise ValueError(f"{self.name}: the source is closed")
        check_range(self.name, self.size, offset, size)
        return bytes(self._view[offset : offset + size])

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """See ByteSource.read_ranges."""
        return [self.read_at(offset, size) for offset, size in ranges]

    def close(self) -> None:
        """Let go of the memory."""
        self._view = None


class FileObjectSource:
    """A seekable binary file object, read under a lock; it is not closed here."""

    def __init__(self, file: BinaryIO, name: str | None = None) -> None:
        given = getattr(file, "name", None)
        self.name: str = name or (given if isinstance(given, str) else f"<{type(file).__name__}>")
        self._file: BinaryIO | None = file
        self._lock = threading.Lock()
        try:
            self.size: int = file.seek(0, 2)
        except (OSError, ValueError) as error:
            raise SourceError(
                f"{self.name}: a layer is read at random offsets, so the file object must be "
                f"seekable ({error})"
            ) from error

    def read_at(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`; SourceError when the file does not have them."""
        check_range(self.name, self.size, offset, size)
        pieces = []
        with self._lock:
            if self._file is None:
                raise ValueError(f"{self.name}: the source is closed")
            self._file.seek(offset)
            left = size
            while left:
                piece = self._file.read(left)
                if not piece:
                    raise SourceError(
                        f"{self.name}: the file object gave {size - left} of {size} bytes at "
                        f"offset {offset}"
                    )
                pieces.append(piece)
                left -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """See ByteSource.read_ranges."""
        return [self.read_at(offset, size) for offset, size in ranges]

    def close(self) -> None:
        """Let go of the file object."""
        self._file = None
