"""A range of a blob behind HTTP, in pieces as they come."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from stargz.sources.client import PIECE, Reply
from stargz.sources.tries import TransientError, Tries

if TYPE_CHECKING:
    from stargz.sources.http import HTTPSource

# After a failure bodies are read by this, to keep more of one that breaks again.
_SMALL_PIECE = 16 << 10


class Stream:
    """Bytes [start, start + size) of an HTTPSource, in pieces of up to `step` bytes; to be iterated
    once. `reply` is an answer to it that has been checked already.

    A body that breaks off is resumed behind what came. The time that passes between two pieces is
    not the server's, and not counted. Where the iteration ends early, so does the request.
    """

    def __init__(
        self,
        source: HTTPSource,
        start: int,
        size: int,
        step: int,
        reply: Reply | None = None,
        budget: Tries | None = None,
    ) -> None:
        self._source = source
        self._at = start
        self._end = start + size
        self._until = self._end  # where the body under way ends
        self._step = step
        self._reply = reply
        if budget is None:
            what = f"{source.name}: bytes {start} to {start + size - 1}"
            budget = Tries(source.client, what, size)
        self._budget = budget

    def __iter__(self) -> Iterator[bytes]:
        try:
            while self._at < self._end:
                try:
                    yield from self._body()
                except TransientError as failure:
                    self._break_off()
                    self._budget.again(failure)
        except GeneratorExit:
            if self._reply is not None:
                self._reply.drain()
            raise

    def _body(self) -> Iterator[bytes]:
        """What one answer brings."""
        source, budget, start = self._source, self._budget, self._at
        asked = time.monotonic()
        reply = self._reply
        if reply is None:
            reply = source.ask("GET", {"Range": f"bytes={start}-{self._end - 1}"}, budget)
            if reply.status != 206:
                source.note_no_range(reply)
                self._at = self._end
                yield source.from_whole(start, self._end - start)
                return
            self._until = source.checked_end(reply, start, self._end)
            self._reply = reply
        waited = time.monotonic() - asked
        reading = 0.0
        while self._at < self._until:
            begun = time.monotonic()
            piece = next_piece(reply, self._until - self._at, self._step, budget)
            left = time.monotonic()
            reading += left - begun
            last = self._at + len(piece) == self._until
            if last:
                self._finish(reply)
            self._at += len(piece)
            if last:
                source.link.saw(waited, self._at - start, reading)
            yield piece
            budget.wait(time.monotonic() - left)
        # Some servers give less than they are asked for; that must lead somewhere.
        if self._at < self._end and self._at - start < PIECE:
            raise TransientError(f"the server gave {self._at - start} bytes of the range")

    def _finish(self, reply: Reply) -> None:
        """Nothing may follow."""
        if reply.length is None and reply.read(1):
            raise TransientError("the body is longer than the range")
        self._reply = None
        reply.done()

    def _break_off(self) -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.close()


def next_piece(reply: Reply, left: int, step: int, budget: Tries) -> bytes:
    """Up to `step` bytes of a body that has `left` more."""
    want = min(left, _SMALL_PIECE if budget.made else step)
    reply.until(budget.deadline(want))
    piece = reply.read(want)
    if not piece:
        raise TransientError(f"the body ended {left} bytes early")
    return piece
