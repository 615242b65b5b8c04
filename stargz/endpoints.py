"""What is read from front to back, and what is written: paths, descriptors, file objects."""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from stargz.durable import complete_or_absent
from stargz.errors import UsageError

Source = str | os.PathLike[str] | bytes | IO[bytes]
Sink = str | os.PathLike[str] | IO[bytes]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def open_source(src: Source, stack: ExitStack, what: str = "source") -> tuple[Any, str, int]:
    """A descriptor or a read(n), a name for errors, and the size in bytes or 0."""
    fallback = "input" if what == "source" else what
    if isinstance(src, (bytes, bytearray, memoryview)):
        return io.BytesIO(src).read, fallback, len(src)
    if isinstance(src, (str, os.PathLike)):
        src = stack.enter_context(Path(src).open("rb", buffering=0))
    name = str(getattr(src, "name", "") or fallback)
    if isinstance(src, io.FileIO):
        status = os.fstat(src.fileno())
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(21, "Is a directory", name)
        if stat.S_ISCHR(status.st_mode):
            raise UsageError(f"{name}: a character device; give a file or a pipe")
        return src.fileno(), name, status.st_size if stat.S_ISREG(status.st_mode) else 0
    if not callable(getattr(src, "read", None)):
        raise UsageError(f"a {what} is a path, bytes or a binary file, not {type(src).__name__}")
    return src.read, name, 0


def open_sink(dst: Sink, stack: ExitStack, force: bool = True) -> tuple[Any, str, str | None]:
    """A descriptor or a write(view), a name for errors, and a folder for temporary files: None
    where what is written can be seen at once. FileExistsError for a file that would be replaced
    without `force`."""
    if isinstance(dst, (str, os.PathLike)):
        if is_replaced(dst):
            path, name = os.path.realpath(dst), os.fspath(dst)
            file = complete_or_absent(path, replace=force, called=name)
            return stack.enter_context(file), name, os.path.dirname(path)  # noqa: PTH120
        dst = stack.enter_context(Path(dst).open("wb", buffering=0))
    name = str(getattr(dst, "name", "") or "output")
    if isinstance(dst, io.FileIO):
        return dst.fileno(), name, None
    if not callable(getattr(dst, "write", None)):
        raise UsageError(f"a destination is a path or a binary file, not {type(dst).__name__}")
    return dst.write, name, None


def open_writer(dst: Sink, stack: ExitStack, force: bool = True) -> Callable[[bytes], object]:
    """The same as a write() that takes all it is given."""
    where, name, _ = open_sink(dst, stack, force)
    if isinstance(where, int):
        return _whole(io.FileIO(where, "wb", closefd=False), name)
    file = getattr(where, "__self__", None)
    return _whole(file, name) if isinstance(file, io.RawIOBase) else where


def _whole(file: io.RawIOBase, name: str) -> Callable[[bytes], object]:
    """write() of a file that may take less than it is given, and whose errors are without a
    name."""

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                taken = file.write(view)
            except BrokenPipeError:
                raise
            except OSError as error:
                raise OSError(error.errno, error.strerror, name) from None
            if taken is None:
                raise BlockingIOError("the output is non-blocking and takes no bytes now")
            view = view[taken:]

    return write


def is_replaced(path: str | os.PathLike[str]) -> bool:
    """Whether what is written to a path takes the place of what is there: a device or a pipe can
    only be written."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116
    except FileNotFoundError:
        return True


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a pipe or a device, beside which nothing is made."""
    return not (is_replaced(path) or Path(path).is_dir())


def is_same_file(path: object, other: object) -> bool:
    """Whether a path and another path or file object are one regular file, or would be."""
    if not isinstance(path, (str, os.PathLike)):
        return False
    try:
        if isinstance(other, (str, os.PathLike)):
            if os.path.realpath(path) == os.path.realpath(other):
                return is_replaced(path)
            there = os.stat(other)  # noqa: PTH116
        elif callable(getattr(other, "fileno", None)):
            there = os.fstat(other.fileno())  # type: ignore[attr-defined]
        else:
            return False
        here = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(here.st_mode) and os.path.samestat(here, there)


def is_url(text: str | os.PathLike[str]) -> bool:
    """Whether it is plainly an address, and not a file."""
    return bool(_URL.match(os.fspath(text))) and not Path(text).exists()
