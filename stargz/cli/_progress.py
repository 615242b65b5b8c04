"""A progress bar on stderr, for whatever takes over a second."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

_PATIENCE = 1.0  # seconds without a bar; short work never pays for importing rich


class Progress:
    """A `progress(done, total)` callback, in bytes, that draws a bar when it is wanted.

    Used as a context manager, so that the terminal is tidy before anything else is printed.
    `total` 0 means unknown (a pipe).
    """

    def __init__(
        self, label: str, args: argparse.Namespace, *, json_on_stderr: bool = False
    ) -> None:
        self._label = label
        self._wanted = (
            not args.quiet
            and not (json_on_stderr and args.json)
            and sys.stderr is not None
            and sys.stderr.isatty()
            and os.environ.get("TERM") != "dumb"
        )
        self._started = time.monotonic()
        self._bar: RichProgress | None = None

    @property
    def callback(self) -> Progress | None:
        """What to hand to the engine: None where no bar can appear."""
        return self if self._wanted else None

    def __call__(self, done: int, total: int) -> None:
        if self._bar is None:
            if time.monotonic() - self._started < _PATIENCE:
                return
            self._bar = self._start()
        speed = done / (time.monotonic() - self._started) / 1e6
        self._bar.update(
            self._bar.task_ids[0], completed=done, total=total or None, speed=f"{speed:,.0f} MB/s"
        )

    def _start(self) -> RichProgress:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

        bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TextColumn("{task.fields[speed]}", markup=False),
            console=Console(stderr=True),
            transient=True,
        )
        bar.add_task(self._label, total=None, speed="")
        bar.start()
        return bar

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()
