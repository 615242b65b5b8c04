"""Standard output: whole writes, errors that say whose they are, and no second failure.

Python's own `sys.stdout` reports a full disk without a name, writes every line at once
when PYTHONUNBUFFERED is set, and complains again when the interpreter exits.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from typing import TYPE_CHECKING, BinaryIO, TextIO, cast

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_NAME = "standard output"


class _Stdout(io.FileIO):
    """File descriptor 1, of which every write is whole."""

    def write(self, data: ReadableBuffer, /) -> int:
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view):
                count = super().write(view[done:])
                if count is None:  # somebody made it non-blocking
                    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
                done += count
        except OSError as error:
            error.filename = _NAME
            raise
        return done


def _as_it_is(error: UnicodeError) -> tuple[str | bytes, int]:
    """Bytes of a name that are not UTF-8 go out as they came; what else the encoding lacks is
    escaped, and never an error."""
    if isinstance(error, UnicodeEncodeError):
        first = error.object[error.start]
        if "\udc80" <= first <= "\udcff":
            return bytes((ord(first) - 0xDC00,)), error.start + 1
    return codecs.backslashreplace_errors(error)


_AS_IT_IS = "stargz.as-it-is"
codecs.register_error(_AS_IT_IS, _as_it_is)


def prepare() -> None:
    """Make `sys.stdout` what the commands write to; a caller's own replacement is kept."""
    if sys.stdout is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF), _NAME)
    if sys.stdout is not sys.__stdout__:
        return
    given = cast(TextIO, sys.stdout)
    raw = _Stdout(given.fileno(), "w", closefd=False)
    raw.name = _NAME
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw, 1 << 16),
        encoding=given.encoding,
        errors=_AS_IT_IS,
        line_buffering=given.isatty(),
    )


def binary() -> BinaryIO:
    """Standard output for bytes, unbuffered: they are written in large pieces."""
    sys.stdout.flush()
    raw: BinaryIO = getattr(sys.stdout.buffer, "raw", sys.stdout.buffer)
    return raw


def finish(*, discard: bool) -> None:
    """Nothing more will be printed: what cannot be written now is given up.

    With `discard` it is not even tried, because a reader that sleeps would keep an
    interrupted command from ending.
    """
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if not isinstance(raw, _Stdout):
        return
    try:
        if not discard:
            sys.stdout.flush()
            return
    except OSError:
        pass  # told already, or about to be
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, raw.fileno())
    os.close(null)
