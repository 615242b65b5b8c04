"""Reading the whole of a blob that is not local: in large blocks, some of them ahead."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

from stargz.sources.base import ByteSource

# 20 ms of a 1 Gbit/s link each, so that a round trip of 50 ms is hidden by those ahead.
_BLOCK = 4 << 20
_AHEAD = 4
# Blocks that are held: those ahead, and where as many threads still read.
_HELD = 12


class Blocks:
    """What is fetched of the sources that are read forward together, one after the other."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.held: dict[tuple[int, int], Future[bytes]] = {}  # least recently used first
        self.pool = ThreadPoolExecutor(_AHEAD, "stargz-forward")

    def close(self) -> None:
        """Forget what was fetched; waits for what is under way."""
        self.pool.shutdown(cancel_futures=True)
        self.held.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        # Ctrl-C does not wait for the network; the source, once closed, ends what is under way.
        if kind is not None and not issubclass(kind, Exception):
            self.pool.shutdown(wait=False, cancel_futures=True)
            return
        self.close()


class ForwardSource:
    """A ByteSource over another one, for threads that read it from front to back together.

    Every block is fetched once, as long as no thread falls behind the others by more than 32
    MiB. At most 48 MiB are held, of all sources that share their `blocks`. Use it as a context
    manager, or close it; the other source stays open.
    """

    def __init__(self, source: ByteSource, blocks: Blocks | None = None) -> None:
        self.name = source.name
        self.size = source.size
        self._source = source
        self._blocks = blocks or Blocks()
        self._own = None if blocks else self._blocks

    def read_at(self, offset: int, size: int) -> bytes:
        """See ByteSource.read_at."""
        pieces = []
        while size:
            number, start = divmod(offset, _BLOCK)
            piece = self._block(number)[start : start + size]
            pieces.append(piece)
            if not piece:
                break  # the caller sees that it is too little
            offset += len(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """See ByteSource.read_ranges."""
        return [self.read_at(*part) for part in ranges]

    def close(self) -> None:
        """Forget what was fetched, unless the blocks are others' too."""
        if self._own is not None:
            self._own.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        if self._own is not None:
            self._own.__exit__(*exc)

    def _block(self, number: int) -> bytes:
        blocks, key = self._blocks, (id(self), number)
        with blocks.lock:
            wanted = self._start(number)
            blocks.held[key] = blocks.held.pop(key)
            last = -(-self.size // _BLOCK)
            for later in range(number + 1, min(number + 1 + _AHEAD, last)):
                self._start(later)
            while len(blocks.held) > _HELD:
                del blocks.held[next(iter(blocks.held))]
        try:
            return wanted.result()
        except BaseException:
            with blocks.lock:
                if blocks.held.get(key) is wanted:
                    del blocks.held[key]  # asked for again, it is tried again
            raise

    def _start(self, number: int) -> Future[bytes]:
        held, key = self._blocks.held, (id(self), number)
        future = held.get(key)
        if future is None:
            at = number * _BLOCK
            size = max(0, min(_BLOCK, self.size - at))
            future = held[key] = self._blocks.pool.submit(self._source.read_at, at, size)
        return future
