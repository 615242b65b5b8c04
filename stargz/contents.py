"""The contents of a file of a layer: a file object, and the digest of what is read whole."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Literal

from stargz._engine.reader import Reader
from stargz.errors import DigestError, UsageError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from stargz._engine.toc import TOC

# As zipfile and Path.open have them; both are binary.
Mode = Literal["r", "rb"]


def clamp(total: int, offset: int, size: int) -> tuple[int, int]:
    """Where a read of at most `size` bytes (all when negative) from `offset` on is in `total`."""
    if offset < 0:
        raise UsageError(f"offset is at least 0, not {offset}")
    offset = min(offset, total)
    return offset, total - offset if size < 0 else min(size, total - offset)


def check_mode(mode: str) -> None:
    """UsageError for what a layer's files cannot be opened for."""
    if mode not in ("r", "rb"):
        raise UsageError(
            f"mode {mode!r}: files of a layer are read, as bytes ('rb'); io.TextIOWrapper makes "
            "text of them"
        )


class WholeFile:
    """The digest of a file whose bytes come in order, from the start; others are let by."""

    def __init__(self, rows: TOC, row: int, expected: str, name: str, source: str) -> None:
        self._rows, self._row, self._size = rows, row, rows.size(row)
        self._expected, self._name, self._source = expected, name, source
        self._begin()

    def _begin(self) -> None:
        import hashlib  # of little use to most: it loads OpenSSL

        self._at, self._done, self._hash = 0, False, hashlib.sha256()

    def update(self, offset: int, data: ReadableBuffer) -> None:
        """Bytes from `offset` on. DigestError when they are the last ones, and it is another."""
        if offset == 0:
            self._begin()
        if offset != self._at or self._done:
            return
        self._hash.update(data)
        self._at += memoryview(data).nbytes
        self._done = self._at == self._size
        if self._done:
            actual = "sha256:" + self._hash.hexdigest()
            if actual != self._expected:
                chunks = self._rows.chunks(self._row)
                where = next((offset for offset, *_, zeros in chunks if not zeros), None)
                raise DigestError(
                    self._name, self._expected, actual, self._source, where, "the file"
                )


class File(io.RawIOBase):
    """The contents of one file."""

    mode = "rb"

    def __init__(
        self, reader: Reader, row: int, size: int, name: str, check: WholeFile | None
    ) -> None:
        self._reader = reader
        self._row = row
        self._size = size
        self._check = check
        self._at = 0
        self.name = name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        with memoryview(buffer) as view:
            offset, size = clamp(self._size, self._at, view.nbytes)
        self._reader.read_into(self._row, offset, size, buffer)
        if self._check is not None:
            with memoryview(buffer) as view:
                self._check.update(offset, view.cast("B")[:size])
        self._at = offset + size
        return size

    def readall(self) -> bytes:
        offset, size = clamp(self._size, self._at, -1)
        data = self._reader.read(self._row, offset, size)
        if self._check is not None:
            self._check.update(offset, data)
        self._at = offset + size
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if self.closed:
            raise ValueError("the file is closed")
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}.get(whence)
        if start is None:
            raise ValueError(f"whence is 0, 1 or 2, not {whence}")
        if start + offset < 0:
            raise ValueError(f"seek to {start + offset}, before the start")
        self._at = start + offset
        return self._at
