"""Lines at the end of a terminal that are drawn again and again, and leave nothing behind.

They are on stderr. Whoever prints something else hides them meanwhile. The cursor is never
hidden, so that no end of the process, however rough, leaves a terminal without one. (rich, which
drew them before, leaves a line for each drawing once the terminal has become narrower.)
"""

from __future__ import annotations

import os
import sys
from _thread import RLock
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

# Columns that stay free at the right: a terminal shows ^C^C there without a line break.
_SPARE = 5
_LEAST = 10


class Screen:
    """What is drawn; `close` takes it away."""

    def __init__(self) -> None:
        self._drawn: list[int] = []  # the columns of each line

    def draw(self, render: Callable[[int, int], Sequence[str]]) -> None:
        """Replace what is there by `render(columns, rows)`."""
        global _current
        with _lock:
            width, height = _size()
            width = max(_LEAST, width - _SPARE)
            lines = [fit(line, width) for line in render(width, max(1, height - 1))]
            _write(self._erase() + "\n".join(lines))
            self._drawn = [columns(line) for line in lines]
            _current = self

    def close(self) -> None:
        """Leave the terminal as it was."""
        global _current
        with _lock:
            self.erase()
            if _current is self:
                _current = None

    def erase(self) -> None:
        """Take away what is drawn, until it is drawn again."""
        if self._drawn:
            _write(self._erase())
            self._drawn = []

    def _erase(self) -> str:
        """From the end of what is drawn to its beginning, and clear from there on. A terminal
        that became narrower has broken its lines."""
        if not self._drawn:
            return ""
        width = _size()[0]
        up = sum(max(1, -(-length // width)) for length in self._drawn) - 1
        return f"\r\x1b[{up}A\x1b[J" if up else "\r\x1b[J"


_lock = RLock()
_current: Screen | None = None


@contextmanager
def hidden() -> Iterator[None]:
    """While other things are printed."""
    with _lock:
        if _current is not None:
            _current.erase()
        yield


def is_terminal() -> bool:
    """Whether lines can be drawn on stderr."""
    tty = sys.stderr is not None and sys.stderr.isatty()
    return tty and os.environ.get("TERM") != "dumb"


def columns(text: str) -> int:
    """The columns that a terminal shows a text in."""
    if text.isascii():
        return len(text)
    return sum(_columns(char) for char in text)


def _columns(char: str) -> int:
    import unicodedata

    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def fit(text: str, width: int) -> str:
    """As much of a text as so many columns hold."""
    if columns(text) <= width:
        return text
    kept, used = [], 3
    for char in text:
        used += _columns(char)
        if used > width:
            break
        kept.append(char)
    return "".join(kept) + "..."


def _size() -> tuple[int, int]:
    """Columns and rows; what terminals have that do not say so, else."""
    try:
        width, height = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError):
        width = height = 0
    return width or 80, height or 24


def bar(width: int, share: float) -> str:
    """A bar of `width` columns."""
    inner = width - 2
    full = min(inner, max(0, int(share * inner)))
    return f"[{'#' * full}{'-' * (inner - full)}]"


def _write(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # the terminal has gone
