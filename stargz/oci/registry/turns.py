"""Who writes the same thing to a repository waits for the others: registries let a reader find half
of what two of them write (an empty link, as "unknown" or "invalid digest")."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """One thread at a time for each key; a key is known as long as somebody uses it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: dict[tuple[str, ...], tuple[threading.Lock, int]] = {}

    @contextmanager
    def of(self, *key: str) -> Iterator[None]:
        """The block is for this thread alone."""
        with self._lock:
            lock, users = self._keys.get(key) or (threading.Lock(), 0)
            self._keys[key] = lock, users + 1
        try:
            with lock:
                yield
        finally:
            with self._lock:
                users = self._keys[key][1] - 1
                if users:
                    self._keys[key] = lock, users
                else:
                    del self._keys[key]
