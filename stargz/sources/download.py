"""A blob behind HTTP, read once from its beginning to its end."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from stargz.sources.client import PIECE, Reply
from stargz.sources.tries import TransientError, Tries

if TYPE_CHECKING:
    from stargz.sources.http import HTTPSource

# After a failure bodies are read by this, to keep more of one that breaks again.
_SMALL_PIECE = 16 << 10
# A try that brought so much is not held against the next: a blob of gigabytes may break off often.
_PROGRESS = 1 << 20


class Download:
    """One GET of an HTTPSource's blob, of `size` bytes if that is known; for one thread at a time.
    `reply` is its answer, if it was made already. Close it.

    A body that breaks off is resumed behind what was read, by a range, or where there are none
    by asking for everything again and skipping. The time that passes between two reads is not
    the server's, and not counted.
    """

    def __init__(self, source: HTTPSource, size: int | None, reply: Reply | None = None) -> None:
        self.position: int = 0
        self._source = source
        self._end = size
        self._until: int | None = None  # where the body under way ends
        self._reply: Reply | None = None
        self._skip = 0
        self._came = 0  # bytes since the last failure
        self._ranges = True
        self.renew()
        if reply is not None:
            self._reply = self._from_start(reply)

    def renew(self) -> None:
        """All tries anew: another host is asked from now on."""
        source = self._source
        left = 0 if self._end is None else self._end - self.position
        self._budget = Tries(source.client, f"{source.name}: the whole blob", left)
        self._left = time.monotonic()

    def close(self) -> None:
        """Break off what is under way."""
        reply, self._reply = self._reply, None
        self._skip = 0
        if reply is not None:
            reply.close()

    def read(self, size: int) -> bytes:
        """The next 1 to `size` bytes; b"" at the end. SourceError when the tries are used up, or
        the body is longer or shorter than it should be."""
        self._budget.wait(time.monotonic() - self._left)
        try:
            while True:
                try:
                    return self._next(size)
                except TransientError as failure:
                    self.close()
                    if self._came >= _PROGRESS:
                        self._budget.made = 0
                    self._came = 0
                    self._budget.again(failure)
        except BaseException:
            self.close()  # in the middle of a body: of no use to others
            raise
        finally:
            self._left = time.monotonic()

    def _next(self, size: int) -> bytes:
        while True:
            if self._end is not None and self.position == self._end and self._reply is None:
                return b""
            reply = self._reply
            if reply is None:
                reply = self._reply = self._begin()
            budget = self._budget
            want = min(self._skip or size, _SMALL_PIECE if budget.made else PIECE)
            if self._until is not None and not self._skip:
                want = min(want, self._until - self.position)
            reply.until(budget.deadline(want))
            piece = reply.read(want) if want else b""
            if self._skip:
                if not piece:
                    raise TransientError("the body is shorter than before")
                self._skip -= len(piece)
                continue
            if piece:
                self.position += len(piece)
                self._came += len(piece)
                if self._until is None:
                    budget.extend(len(piece))
                elif self.position == self._until:
                    self._finish(reply)
                return piece
            if self._until is None:
                self._end = self.position
            elif self.position < self._until:
                raise TransientError(f"the body ended after {self.position} of {self._until} bytes")
            self._finish(reply)

    def _begin(self) -> Reply:
        source, at, end = self._source, self.position, self._end
        ranged = bool(at) and end is not None and self._ranges
        headers = {"Range": f"bytes={at}-"} if ranged else {}
        reply = source.ask("GET", headers, self._budget)
        if reply.status == 206 and ranged and end is not None:
            self._until = source.checked_end(reply, at, end)
            return reply
        if reply.status == 200:
            return self._from_start(reply)
        if ranged:
            source.note_no_range(reply)
            self._ranges = False
            return self._begin()
        reply.close()
        raise TransientError(reply.said(), hint="it does not give the blob at all")

    def _from_start(self, reply: Reply) -> Reply:
        """An answer that has all of the blob: what was read of it before is skipped."""
        if self._end is None:
            self._end = reply.length
            self._budget.extend(reply.length or 0)
        elif reply.length not in (None, self._end):
            reply.close()
            raise self._source.resized(reply.length)
        self._until = self._end
        self._skip = self.position
        self._budget.extend(self.position)
        return reply

    def _finish(self, reply: Reply) -> None:
        """Nothing may follow."""
        self._reply = None
        more = b""
        if reply.length is None and self._until is not None:
            with suppress(TransientError):  # all that was wanted is there
                more = reply.read(1)
        if more:
            reply.close()
            raise TransientError(
                f"the body is longer than {self._until} bytes",
                hint="it is not what was asked for",
                status=200,
                final=True,
            )
        reply.done()
