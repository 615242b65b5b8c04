"""What a bulk run shows on a terminal while it runs: layers under way, counts, speed, time left."""

from __future__ import annotations

import argparse
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from stargz.cli._errors import in_options
from stargz.cli._output import log, rate_text
from stargz.cli._screen import Screen, bar, is_terminal
from stargz.errors import printable

_PAUSE = 0.25  # seconds between two drawings
_WINDOW = 20.0  # seconds that the speed is of
_ROWS = 16  # layers to show


class Board:
    """A `progress` callback for a bulk run, and a context manager. On a terminal it draws a table
    on stderr; elsewhere, with -v, it writes a line for each image that is finished."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._drawn = not args.quiet and is_terminal()
        self._lock = threading.Lock()
        self._began = time.monotonic()
        what = ("converted", "indexed", "unchanged", "failed", "throttled", "to do")
        self._counts = dict.fromkeys(what, 0)
        self._found = 0
        self._layers: dict[str, tuple[int, int]] = {}  # under way: bytes done, and in all
        self._bytes = 0  # of layers that are finished
        self._speed: deque[tuple[float, int]] = deque()
        self._screen = Screen()
        self._next = self._began

    def __call__(self, event: Mapping[str, Any]) -> None:
        kind = event["event"]
        with self._lock:
            if kind == "layer":
                self._layers[event["digest"]] = event["done"], event["total"]
            elif kind == "layer-done":
                self._layers.pop(event["source_digest"], None)
                self._bytes += event["source_size"]
            elif kind == "layer-failed":
                self._layers.pop(event["digest"], None)
            elif kind == "found":
                self._found = event["images"]
            elif kind == "image":
                self._counts[event["status"]] = self._counts.get(event["status"], 0) + 1
            drawing = self._drawn and time.monotonic() >= self._next
            if drawing:
                self._next = time.monotonic() + _PAUSE
        if drawing:
            self._screen.draw(self._lines)
        if kind == "image" and not self._drawn:
            log(self._args, image_line(event))

    # --- the table ----------------------------------------------------------------------

    def _lines(self, width: int, height: int) -> list[str]:
        with self._lock:
            layers = sorted(self._layers.items(), key=lambda item: -item[1][1])
            done = self._bytes + sum(have for have, _ in self._layers.values())
            counts = dict(self._counts)
            found = self._found
        shown = layers[: min(_ROWS, height - 1)]
        sizes = [f"{have / 1e6:,.1f} of {total / 1e6:,.1f} MB" for _, (have, total) in shown]
        widest = max(map(len, sizes), default=0)
        room = min(40, width - widest - 14)
        lines = [
            " ".join(
                (
                    printable(digest.partition(":")[2][:12]),
                    *([bar(room, have / max(total, 1))] if room > 4 else []),
                    f"{size:>{widest}}",
                )
            )
            for (digest, (have, total)), size in zip(shown, sizes, strict=True)
        ]
        ended = sum(counts.values())
        listed = ", ".join(f"{number:,} {what}" for what, number in counts.items() if number)
        parts = [f"{ended:,} of {found:,} images{f' ({listed})' if listed else ''}"]
        rate = rate_text(self._rate(done))
        parts.append(f"{done / 1e6:,.1f} MB{rate and f' at {rate}'}" if done else "")
        parts.append(self._left(ended, found))
        more = len(layers) - len(shown)
        parts.append(f"{more} more layer{'s' * (more > 1)}" if more else "")
        return [*lines, ", ".join(filter(None, parts))]

    def _rate(self, done: int) -> float:
        """Bytes of layers a second, lately."""
        now = time.monotonic()
        self._speed.append((now, done))
        while now - self._speed[0][0] > _WINDOW:
            self._speed.popleft()
        began, before = self._speed[0]
        return max(0.0, (done - before) / max(now - began, 0.1))

    def _left(self, ended: int, found: int) -> str:
        """The time that the images known so far will take, if they are like those before."""
        if not ended or ended == found:
            return ""
        seconds = round((time.monotonic() - self._began) / ended * (found - ended))
        hours, seconds = divmod(seconds, 3600)
        return f"about {hours}:{seconds // 60:02}:{seconds % 60:02} left"

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *exc: object) -> None:
        self._screen.close()


def image_line(event: Mapping[str, Any]) -> str:
    """What became of an image, on a line."""
    if event["status"] in ("failed", "throttled", "skipped"):
        return f"{event['status']}: {failure_line(event['source'], event['error'])}"
    return (
        f"{event['status']}: {event['source']} -> {event['destination']} {event['seconds']:.3f} s"
    )


def failure_line(source: str, error: str) -> str:
    """An error with the image it is about, once."""
    from stargz.oci.formats.reference import without_name

    error = without_name(in_options(error), source)
    named = source in error or source.removeprefix("docker://") in error
    return error if named else f"{source}: {error}"
