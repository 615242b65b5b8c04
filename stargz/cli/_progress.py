"""A progress bar on stderr, for whatever takes over a second."""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Mapping
from typing import Any

from stargz.cli._output import speed
from stargz.cli._screen import Screen, bar, columns, is_terminal
from stargz.errors import printable

_PATIENCE = 1.0  # seconds without a bar
_PAUSE = 0.1  # seconds between two drawings
_BAR = range(10, 41)  # columns


class Progress:
    """A `progress(done, total)` callback, in bytes, that draws a bar when it is wanted.

    Used as a context manager, so that the terminal is tidy before anything else is printed.
    `total` 0 means unknown (a pipe).
    """

    def __init__(
        self, label: str, args: argparse.Namespace, *, json_on_stderr: bool = False
    ) -> None:
        self._label = printable(label)
        self._wanted = not args.quiet and not (json_on_stderr and args.json) and is_terminal()
        self._started = time.monotonic()
        self._next = self._started + _PATIENCE
        self._screen = Screen()

    @property
    def callback(self) -> Progress | None:
        """What to hand to the engine: None where no bar can appear."""
        return self if self._wanted else None

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _PAUSE
        rate = speed(done, now - self._started)
        self._screen.draw(lambda width, _: [_line(self._label, done, total, rate, width)])

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        self._screen.close()


class Sum:
    """The events about an image's layers as one bar: bytes of all layers."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._lock = threading.Lock()
        self._total = 0
        self._done: dict[str, int] = {}

    def __call__(self, event: Mapping[str, Any]) -> None:
        with self._lock:
            if event["event"] == "plan":
                self._total = event["bytes"]
            elif event["event"] == "layer":
                self._done[event["task"]] = event["done"]
                self._bar(sum(self._done.values()), self._total)


def _line(label: str, done: int, total: int, rate: str, width: int) -> str:
    """All that has room, the most important first: how far, how much, what, how fast, the bar."""
    how_far = f"{100 * done // total:3}%" if total else ""
    how_much = f"{done / 1e6:,.1f}{f' of {total / 1e6:,.1f}' if total else ''} MB"
    parts = {"what": label, "bar": "", "far": how_far, "much": how_much, "fast": rate}

    def used() -> int:
        return sum(columns(part) + 2 for part in parts.values() if part)

    for name in ("fast", "what", "much" if total else ""):
        if name and used() - 2 > width:
            parts[name] = ""
    room = width - used()
    if total and room >= _BAR.start:
        parts["bar"] = bar(min(room, _BAR.stop - 1), done / total)
    return "  ".join(part for part in parts.values() if part)
