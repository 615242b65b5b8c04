"""A ByteSource that is not local: it counts, waits, fails and lies as it is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence


class Faraway:
    """`plan(number, offset, size)` is called for each read after the layer is open; what it
    returns, if anything, is what the read gives. `gate`: reads wait until it is set."""

    def __init__(self, data: bytes, delay: float = 0, name: str = "faraway") -> None:
        self.data = data
        self.name = name
        self.size = len(data)
        self.delay = delay
        self.log: list[tuple[int, int]] = []
        self.plan: Callable[[int, int, int], bytes | None] | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Semaphore(0)  # released by each read that comes to the gate
        self.peak = 0
        self.closed = False
        self._now = 0
        self._lock = threading.Lock()

    @property
    def total(self) -> int:
        return sum(size for _, size in self.log)

    def read_at(self, offset: int, size: int) -> bytes:
        with self._lock:
            number = len(self.log)
            self.log.append((offset, size))
            self._now += 1
            self.peak = max(self.peak, self._now)
        try:
            self.waiting.release()
            self.gate.wait()
            if self.delay:
                time.sleep(self.delay)
            assert 0 <= offset <= offset + size <= self.size
            found = self.plan(number, offset, size) if self.plan is not None else None
            return self.data[offset : offset + size] if found is None else found
        finally:
            with self._lock:
                self._now -= 1

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return [self.read_at(*part) for part in ranges]

    def close(self) -> None:
        self.closed = True
