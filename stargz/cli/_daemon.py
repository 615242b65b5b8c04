"""A command that goes on in the background once it works, and tells why where it does not."""

from __future__ import annotations

import os
import signal
import sys

from stargz.cli._signals import Signalled
from stargz.errors import StargzError

_WORKS = b"\0"

#: Whether this process was the foreground of one that works now, and has nothing left to do.
done = False


class Detached:
    """The background process, seen from itself; `ready` lets the foreground end.

    `start` forks before any thread or connection exists. The foreground process waits until
    the other is ready, or has ended: then its exit code is the command's, and it has said why.
    """

    def __init__(self, channel: int) -> None:
        self._channel = channel

    def ready(self) -> None:
        """Leave the terminal, with everything that was started from it."""
        os.setsid()
        os.chdir("/")
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        if null > 2:
            os.close(null)
        os.write(self._channel, _WORKS)
        os.close(self._channel)


def start() -> Detached | int:
    """In the background process its Detached; in the foreground, at the end, the exit code."""
    global done
    ours, theirs = os.pipe()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()  # else both processes would write what is buffered
    child = os.fork()
    if child == 0:
        os.close(ours)
        return Detached(theirs)
    os.close(theirs)
    try:
        said = os.read(ours, 1)
    except Signalled as signalled:
        os.kill(child, signalled.signum)
        os.waitpid(child, 0)
        raise
    finally:
        os.close(ours)
    if said == _WORKS:
        done = True
        return 0
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if -code == signal.SIGKILL:
        raise StargzError(
            "the process in the background was killed before it was ready: the system may have no "
            "memory left"
        )
    if code < 0:
        raise Signalled(-code)
    return code
