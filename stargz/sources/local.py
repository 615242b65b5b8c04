"""A blob in a local file."""

from __future__ import annotations

import errno
import os
import stat
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing

from stargz.durable import release
from stargz.errors import SourceError
from stargz.sources.base import check_range, pread_all


class LocalSource:
    """A regular file, read with pread. Never mapped: a file that is cut short under a
    mapping kills the process.

    `path` is opened here and closed by `close`; with `fd` a descriptor that the caller
    keeps is used instead, and `path` is only its name; `keep` is the object that owns it.
    """

    # Also of an instance whose opening failed.
    _owned = False
    _fd = -1

    def __init__(
        self, path: str | os.PathLike[str], fd: int | None = None, keep: object = None
    ) -> None:
        self._keep = keep
        self.name: str = os.fsdecode(path)
        # O_NONBLOCK: opening a pipe that nobody writes to must not hang.
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK) if fd is None else fd
        self._owned = fd is None
        try:
            info = os.fstat(self._fd)
            if stat.S_ISDIR(info.st_mode):
                raise SourceError(f"{self.name}: is a directory, not a file")
            if stat.S_ISBLK(info.st_mode):
                self.size: int = os.lseek(self._fd, 0, os.SEEK_END)
            elif stat.S_ISREG(info.st_mode):
                self.size = info.st_size
            else:
                raise SourceError(
                    f"{self.name}: a layer is read at random offsets, which a pipe or device "
                    "cannot do; save it to a file first"
                )
        except BaseException:
            self.close()
            raise

    @property
    def fd(self) -> int | None:
        """The descriptor, for pread; None once closed."""
        return self._fd if self._fd >= 0 else None

    @property
    def identity(self) -> tuple[str, str] | None:
        """See ByteSource. None of a file that has no name, or that is no regular one."""
        return file_identity(os.fstat(self._fd))

    def beside(self, suffix: str) -> LocalSource | None:
        """See ByteSource. Of a file that was opened by others it is not known where it is."""
        return _beside(self.name, suffix) if self._owned else None

    def read_at(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`; SourceError when the file does not have them."""
        if self._fd < 0:
            raise ValueError(f"{self.name}: the source is closed")
        check_range(self.name, self.size, offset, size)
        return pread_all(
            self._fd, offset, size, f"{self.name}: the file became shorter while it was read"
        )

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """See ByteSource.read_ranges."""
        return [self.read_at(offset, size) for offset, size in ranges]

    def close(self) -> None:
        """Close the file, if it was opened here."""
        fd, self._fd = self._fd, -1
        if self._owned and fd >= 0:
            release(fd)

    def __del__(self, warn: Callable[..., None] = warnings.warn) -> None:
        if self._owned and self._fd >= 0:
            self.close()
            warn(f"unclosed layer {self.name}", ResourceWarning, source=self, stacklevel=2)


def _beside(name: str, suffix: str) -> LocalSource | None:
    try:
        return LocalSource(name + suffix)
    except FileNotFoundError:
        return None


def file_identity(info: os.stat_result) -> tuple[str, str] | None:
    """A file, and its version: whatever is written to it changes its ctime. None where that cannot
    be told: it has no name, so that another may have its number next, or it is a device."""
    if not stat.S_ISREG(info.st_mode) or not info.st_nlink:
        return None
    times = f"{info.st_mtime_ns} {info.st_ctime_ns}"
    return f"file {info.st_dev} {info.st_ino}", f"{info.st_size} {times}"


class NamedSource:
    """A regular file that is opened whenever it is read: one of many layers, each of which would
    take a descriptor. Once changed or replaced it is no more to be had: SourceError (ESTALE).

    `named` is what it is known by: its path, device, inode, size and mtime in nanoseconds.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name: str = os.fsdecode(path)
        self._closed = False
        with closing(LocalSource(path)) as file:
            self.size: int = file.size
            self.named: tuple[bytes, int, int, int, int] = self._identity(file)

    def _identity(self, file: LocalSource) -> tuple[bytes, int, int, int, int]:
        assert file.fd is not None
        info = os.fstat(file.fd)
        path = os.fsencode(os.path.abspath(self.name))  # noqa: PTH100
        return path, info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns

    @property
    def identity(self) -> tuple[str, str] | None:
        """See ByteSource: of what its name leads to now."""
        return file_identity(os.stat(self.name))  # noqa: PTH116

    def beside(self, suffix: str) -> LocalSource | None:
        """See ByteSource."""
        return _beside(self.name, suffix)

    def read_at(self, offset: int, size: int) -> bytes:
        """See ByteSource.read_at."""
        return self.read_ranges([(offset, size)])[0]

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """See ByteSource.read_ranges."""
        if self._closed:
            raise ValueError(f"{self.name}: the source is closed")
        with closing(LocalSource(self.name)) as file:
            if self._identity(file) != self.named:
                raise SourceError(
                    errno.ESTALE, "the file was changed or replaced; open it again", self.name
                )
            return file.read_ranges(ranges)

    def close(self) -> None:
        """See ByteSource.close."""
        self._closed = True
