"""SIGINT, SIGTERM and SIGHUP as one exception, so that every `with` block cleans up."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_IMPATIENT = 5.0  # seconds after which a second signal ends the process as it is


class Signalled(KeyboardInterrupt):
    """A signal asked the process to end; `signum` says which."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


@contextmanager
def raising() -> Iterator[list[int]]:
    """Raise `Signalled` in the main thread at the first signal that asks to end.

    More of them are ignored while files are cleaned up (an impatient Ctrl-C must not leave
    a temporary file), unless that takes seconds. Ignored signals (nohup) stay ignored.

    Gives a list, which has the signal once it came: code that it breaks into may raise errors of
    its own.
    """
    first: list[float] = []
    seen: list[int] = []

    def handle(signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not first:
            first.append(now)
            seen.append(signum)
            raise Signalled(signum)
        if now - first[0] > _IMPATIENT:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)

    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, handle)
    except ValueError:
        before.clear()  # not the main thread: signals are the caller's
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def die_of_sigpipe() -> None:
    """End as any Unix filter does whose reader has gone: quietly, by SIGPIPE."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)
