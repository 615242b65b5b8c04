"""Reading the whole of a blob that is not local: in large blocks, some of them ahead."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from stargz.sources.base import ByteSource

# 20 ms of a 1 Gbit/s link each, so that a round trip of 50 ms is hidden by those ahead.
_BLOCK = 4 << 20
_AHEAD = 4
# Blocks that are held: those ahead, and where as many threads still read.
_HELD = 12


class ForwardSource:
    """A ByteSource over another one, for threads that read it from front to back together.

    Every block is fetched once, as long as no thread falls behind the others by more than 32
    MiB. At most 48 MiB are held. Use it as a context manager, or close it; the other source
    stays open.
    """

    def __init__(self, source: ByteSource) -> None:
        self.name: str = source.name
        self.size: int = source.size
        self._source = source
        self._lock = threading.Lock()
        self._blocks: dict[int, Future[bytes]] = {}  # least recently used first
        self._pool = ThreadPoolExecutor(_AHEAD, "stargz-forward")

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
        """Forget what was fetched; waits for what is under way."""
        self._pool.shutdown(cancel_futures=True)
        self._blocks.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        # Ctrl-C does not wait for the network; the source, once closed, ends what is under way.
        if kind is not None and not issubclass(kind, Exception):
            self._pool.shutdown(wait=False, cancel_futures=True)
            return
        self.close()

    def _block(self, number: int) -> bytes:
        with self._lock:
            wanted = self._start(number)
            self._blocks[number] = self._blocks.pop(number)
            last = -(-self.size // _BLOCK)
            for later in range(number + 1, min(number + 1 + _AHEAD, last)):
                self._start(later)
            while len(self._blocks) > _HELD:
                del self._blocks[next(iter(self._blocks))]
        try:
            return wanted.result()
        except BaseException:
            with self._lock:
                if self._blocks.get(number) is wanted:
                    del self._blocks[number]  # asked for again, it is tried again
            raise

    def _start(self, number: int) -> Future[bytes]:
        future = self._blocks.get(number)
        if future is None:
            at = number * _BLOCK
            size = max(0, min(_BLOCK, self.size - at))
            future = self._blocks[number] = self._pool.submit(self._source.read_at, at, size)
        return future
