"""A blob that had to be had whole, or the plain tar in it, in a file that nobody else sees."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable

from stargz.durable import release, spared, unlinked
from stargz.errors import SourceError
from stargz.sources.base import pread_all

# How much is written between two looks at the disk; what is smaller fits, or the disk refuses it.
_CHECKED = 16 << 20
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def lacking(folder: str, before: int, after: int) -> str | None:
    """Why a file there that grew from `before` to `after` bytes must grow no further; None if it
    may: a body without end must not fill the disk for everyone."""
    if before // _CHECKED == after // _CHECKED:
        return None
    usage = shutil.disk_usage(folder)
    if usage.free >= spared(usage.total):
        return None
    return f"after {after} bytes {usage.free} are free, and {spared(usage.total)} stay so"


def unpack(
    source: int | Callable[[int], bytes], fd: int, name: str, memory: int | None = None
) -> tuple[str, int]:
    """Write the plain tar in a packed or plain one to a temporary file: its DiffID, and bytes.

    The source is a descriptor or a read(n), `name` what errors call it; `memory` is that of
    `stargz.convert`. Raises GzipError and TarError; SourceError where there is no room.
    """
    from stargz._engine.write import unwrap

    folder = tempfile.gettempdir()

    def full(why: str) -> SourceError:
        return SourceError(
            f"{name}: its tar must be kept in {folder}: {why}; let TMPDIR name a larger place"
        )

    written = 0

    def check(_done: int, _total: int) -> None:
        nonlocal written
        before, written = written, os.fstat(fd).st_size
        if why := lacking(folder, before, written):
            raise full(why)

    try:
        return unwrap(source, fd, source_name=name, progress=check, memory=memory)
    except OSError as error:
        if not isinstance(error, SourceError) and error.errno in FULL:
            raise full("no space is left") from error
        raise


class Spool:
    """An unlinked temporary file. The descriptor goes when the last reader lets go of it,
    so that a close elsewhere never pulls it from under a read. `algorithm` is that of the digest
    of what is appended, which is taken on the way."""

    def __init__(self, name: str, expected: int | None, algorithm: str | None = None) -> None:
        self.name = name
        self.size: int = 0
        self._algorithm = algorithm
        self._hash = hashlib.new(algorithm) if algorithm else None
        self._directory = tempfile.gettempdir()
        free = shutil.disk_usage(self._directory).free
        if expected is not None and expected > free:
            raise self._full(f"{expected} bytes are needed, {free} are free")
        self._fd = unlinked()

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            release(self._fd)

    @property
    def fd(self) -> int:
        """The descriptor, which is open as long as this object is there."""
        return self._fd

    @property
    def digest(self) -> str:
        """The digest of all that was appended; "" if none was asked for."""
        return f"{self._algorithm}:{self._hash.hexdigest()}" if self._hash is not None else ""

    def append(self, data: bytes | memoryview[int]) -> None:
        """Write behind what is there."""
        if self._hash is not None:
            self._hash.update(data)
        view = memoryview(data)
        if why := lacking(self._directory, self.size, self.size + len(data)):
            raise self._full(why)
        try:
            while view:
                done = os.pwrite(self._fd, view, self.size)
                self.size += done
                view = view[done:]
        except OSError as error:
            if error.errno in FULL:
                raise self._full(f"no space after {self.size} bytes") from error
            raise

    def restart(self) -> None:
        """Forget what is there."""
        os.ftruncate(self._fd, 0)
        self.size = 0
        if self._algorithm is not None:
            self._hash = hashlib.new(self._algorithm)

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`, which the caller has checked."""
        short = f"{self.name}: its temporary copy became shorter"
        return pread_all(self._fd, offset, size, short)

    def _full(self, why: str) -> SourceError:
        return SourceError(
            f"{self.name}: the whole blob must be kept in {self._directory}: {why}; let TMPDIR "
            "name a larger place"
        )
