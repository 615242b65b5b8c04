"""A blob that had to be had whole, in a file that nobody else sees."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile

from stargz.errors import SourceError


class Spool:
    """An unlinked temporary file. The descriptor goes when the last reader lets go of it,
    so that a close elsewhere never pulls it from under a read."""

    def __init__(self, name: str, expected: int | None) -> None:
        self.name = name
        self.size = 0
        self._directory = tempfile.gettempdir()
        free = shutil.disk_usage(self._directory).free
        if expected is not None and expected > free:
            raise self._full(f"{expected} bytes are needed, {free} are free")
        with tempfile.TemporaryFile(prefix="stargz-") as file:
            self._fd = os.dup(file.fileno())

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            os.close(self._fd)

    def append(self, data: bytes) -> None:
        """Write behind what is there."""
        view = memoryview(data)
        try:
            while view:
                done = os.pwrite(self._fd, view, self.size)
                self.size += done
                view = view[done:]
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise self._full(f"no space after {self.size} bytes") from error
            raise

    def restart(self) -> None:
        """Forget what is there."""
        os.ftruncate(self._fd, 0)
        self.size = 0

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`, which the caller has checked."""
        pieces = []
        while size:
            piece = os.pread(self._fd, size, offset)
            if not piece:
                raise SourceError(f"{self.name}: its temporary copy became shorter")
            pieces.append(piece)
            offset += len(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _full(self, why: str) -> SourceError:
        return SourceError(
            f"{self.name}: the server gives no ranges, so the whole blob is kept in "
            f"{self._directory}: {why}; let TMPDIR name a larger place"
        )
