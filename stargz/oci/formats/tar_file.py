"""Tars that images are read from as they are, compressed or not: a file, or standard input.

What both kinds of archives (docker-archive:, oci-archive:) have in common.
"""

from __future__ import annotations

import io
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from stargz.compressions import HEAD
from stargz.errors import FormatError, SourceError, UsageError
from stargz.oci.formats.packing import Packing, packing, unpacked
from stargz.oci.formats.reference import STDIN
from stargz.oci.formats.tar_index import Member, TarIndex
from stargz.sources import LocalSource
from stargz.sources.base import check_range
from stargz.sources.spool import Spool, unpack

_PIECE = 1 << 20
_Archive = TypeVar("_Archive")


class OpenFile:
    """A descriptor that is closed behind its last user."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


class MemberSource:
    """A ByteSource of a range of a file."""

    def __init__(self, source: LocalSource, offset: int, size: int, name: str) -> None:
        self.name = name
        self.size = size
        self._source: LocalSource | None = source
        self._offset = offset

    def read_at(self, offset: int, size: int) -> bytes:
        """See ByteSource.read_at."""
        source = self._source
        if source is None:
            raise ValueError(f"{self.name}: the source is closed")
        check_range(self.name, self.size, offset, size)
        return source.read_at(self._offset + offset, size)

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """See ByteSource.read_ranges."""
        return [self.read_at(offset, size) for offset, size in ranges]

    def close(self) -> None:
        """See ByteSource.close; the archive stays open for others."""
        self._source = None


class TarFile:
    """A tar of files that are found by name, in the open file of a path. A compressed one is
    unpacked into an unlinked temporary file first. `name` is what errors call it: FormatError and
    TarError, and SourceError (no space)."""

    def __init__(self, path: str, name: str, file: Spool | OpenFile) -> None:
        self.path = path
        self.name = name
        self.source = LocalSource(path, file.fd, keep=file)
        kind = packing(os.pread(file.fd, HEAD, 0))
        if kind:
            whole = Member("file", 0, self.source.size)
            spool = Spool(name, None)
            unpack_member(self.source, whole, kind, spool, name)
            self.source = LocalSource(path, spool.fd, keep=spool)
        assert self.source.fd is not None
        self._index = TarIndex(self.source.fd, self.source.size, name)

    @property
    def members(self) -> Mapping[str, Member]:
        """Its files and links, by name."""
        return self._index.members

    def find(self, path: str) -> Member:
        """See TarIndex.find."""
        return self._index.find(path)

    def read(self, path: str, limit: int) -> bytes:
        """All of a file; FormatError for one of more than `limit` bytes."""
        member = self.find(path)
        if member.size > limit:
            raise FormatError(
                f"{path!r:.200} of {member.size} bytes is over the limit of {limit}", self.name
            )
        return self.source.read_at(member.offset, member.size)


def unpack_member(
    packed: LocalSource, at: Member, kind: Packing, spool: Spool, name: str
) -> tuple[int, int]:
    """Append the tar in something compressed to a spool: where it is there, and its bytes."""
    done = 0

    def read(size: int) -> bytes:
        nonlocal done
        piece = packed.read_at(at.offset + done, min(size, at.size - done))
        done += len(piece)
        return piece

    begin = os.lseek(spool.fd, 0, os.SEEK_END)
    try:
        plain = unpacked(read, kind, name) if kind in ("xz", "bzip2") else read
        _, size = unpack(plain, spool.fd, name)
    except FormatError as error:
        raise FormatError(f"it cannot be unpacked: {error.message}", name) from error
    return begin, size


def open_file(path: str, name: str) -> tuple[OpenFile, tuple[Any, ...]]:
    """A regular file, open, and what is equal as long as it is the same."""
    # O_NONBLOCK: a pipe in the place of a file must not hang.
    try:
        file = OpenFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except FileNotFoundError:
        raise SourceError(f"{name}: no such file") from None
    info = os.fstat(file.fd)
    if not stat.S_ISREG(info.st_mode):
        raise SourceError(f"{name}: not a regular file; save it to one, or pipe it to -")
    return file, _same_file(info)


# What came in last, and from what: it comes once, so it stays until something else comes.
_arrived: tuple[Spool, tuple[Any, ...]] | None = None
_stdin_lock = threading.Lock()


def _standard_input(name: str) -> tuple[Spool | OpenFile, tuple[Any, ...]]:
    """All of it, and what is equal for the same: a file that is still at its beginning as it is;
    else what comes now, or, if that is nothing, what came before from there."""
    global _arrived
    with _stdin_lock:
        fd, info = _stdin_descriptor(name)
        _read_input(fd, name, 0)
        if stat.S_ISREG(info.st_mode) and info.st_size and not os.lseek(fd, 0, os.SEEK_CUR):
            return OpenFile(os.dup(fd)), _same_file(info)
        of = sys.stdin, info.st_dev, info.st_ino
        spool = Spool(name, None)
        while piece := _read_input(fd, name, _PIECE):
            spool.append(piece)
        if spool.size:
            _arrived = spool, of
        elif _arrived is None or _arrived[1] != of:
            raise FormatError("standard input is empty; pipe the archive in", name)
        return _arrived[0], (_arrived[0],)


def _stdin_descriptor(name: str) -> tuple[int, os.stat_result]:
    try:
        if sys.stdin is None:
            raise OSError
        fd = sys.stdin.fileno()
        info = os.fstat(fd)
    except io.UnsupportedOperation:
        raise SourceError(f"{name}: standard input is no file; pipe the archive in") from None
    except (OSError, ValueError):
        raise SourceError(f"{name}: standard input is closed; pipe the archive in") from None
    if os.isatty(fd):
        raise UsageError(f"{name}: standard input is a terminal; pipe the archive in")
    return fd, info


def _same_file(info: os.stat_result) -> tuple[int, ...]:
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns


def _read_input(fd: int, name: str, size: int) -> bytes:
    try:
        return os.read(fd, size)
    except OSError as error:
        raise SourceError(f"{name}: standard input cannot be read: {error.strerror}") from error


# --- open archives --------------------------------------------------------------------------

_lock = threading.Lock()
_archives: dict[tuple[Any, ...], _Shared] = {}


class _Shared:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.archive: Any = None
        self.users = 0


@contextmanager
def open_shared(path: str, kind: str, make: Callable[[TarFile], _Archive]) -> Iterator[_Archive]:
    """What `make` has of the archive at a path, shared by all in this process that have it open
    at the same time: so it is looked through, and unpacked if need be, once."""
    name = f"{kind}:{path}"
    file: Spool | OpenFile
    file, same = _standard_input(name) if path == STDIN else open_file(path, name)
    key = (os.getpid(), kind, path, *same)
    with _lock:
        shared = _archives.setdefault(key, _Shared())
        shared.users += 1
    try:
        with shared.lock:
            if shared.archive is None:
                shared.archive = make(TarFile(path, name, file))
        yield shared.archive
    finally:
        with _lock:
            shared.users -= 1
            if not shared.users:
                _archives.pop(key, None)
