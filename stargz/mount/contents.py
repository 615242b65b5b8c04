"""The chunks of all layers of a mount: one table, one disk cache, one set of workers."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from stargz.cache import Cache, as_cache
from stargz.options import available_memory
from stargz.remote import MEMORY, Fetcher

if TYPE_CHECKING:
    from stargz._engine.chunks import Chunks
    from stargz.layer import Layer


# Of what is decoded of a tar.gz from one place on all is worth having, not only the file that was
# read: so that 2,000 small reads of one of 204 MB decode each part once takes about that much.
_MEMORY_MAX = 1 << 30


class Contents:
    """What is read of the layers of a mount.

    `remote` layers may come: then there is a disk cache, unless `cache` is False. `memory` bounds
    the decoded chunks that are held, in bytes (None: by what the machine has).
    """

    def __init__(
        self,
        cache: Cache | str | os.PathLike[str] | bool | None,
        memory: int | None = None,
        *,
        remote: bool,
        prefetch: bool,
        background: bool,
    ) -> None:
        disk = as_cache(cache) if remote and cache is not False else None
        if memory is None:
            memory = min(max(available_memory() // 8, MEMORY), _MEMORY_MAX)
        self._fetcher = Fetcher(disk, memory=memory, prefetch=prefetch, background=background)
        self._numbers: dict[Layer, int] = {}
        self._lock = threading.Lock()

    @property
    def chunks(self) -> Chunks:
        """The engine's table."""
        return self._fetcher.chunks

    def add(self, layer: Layer) -> int:
        """Add a layer, which must stay open; its number in the table. From now on its
        prioritized files are fetched. Once added, its number is only told."""
        with self._lock:
            number = self._numbers.get(layer)
            if number is None:
                number = self._fetcher.add(layer.reader, layer.prefetch_size)
                self._numbers[layer] = number
        if not layer.blob.direct:
            self._fetcher.start()
        return number

    def decode(self) -> None:
        """See Fetcher.decode."""
        self._fetcher.decode()

    def stats(self) -> dict[str, int]:
        """See Chunks.stats."""
        return self._fetcher.stats()

    def stop(self) -> None:
        """Wake all reads that wait, with an error, and end the workers."""
        self._fetcher.stop()

    def close(self) -> None:
        """The same, and wait a little for the workers."""
        self._fetcher.close()
