"""Workers: threads that fetch what readers of remote layers wait for."""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from stargz._engine.chunks import AHEAD, BACKGROUND, DEMAND, PREFETCH, Chunks, Job
from stargz.errors import DigestError, FormatError, SourceError

if TYPE_CHECKING:
    from stargz._engine.reader import Reader
    from stargz.cache import Cache
    from stargz.sources import ByteSource

_log = logging.getLogger("stargz")
# Silent unless the program sets up logging, as libraries are.
_log.addHandler(logging.NullHandler())

# Decoded chunks that are held: half of it may be read ahead, which is four requests of 8 MiB.
MEMORY = 64 << 20
# What each worker takes: two are always there for what is wanted, and what nobody waits for
# has at most two requests under way. In all six, as browsers do with a host.
_WORKERS = (DEMAND, DEMAND, AHEAD, AHEAD, PREFETCH, PREFETCH)
_BACKGROUND = (BACKGROUND,)
# What was just opened is about to be used: this many seconds belong to that alone.
_BACKGROUND_AFTER = 0.5
# Pauses, in seconds, after a request failed that nobody waits for: each is twice the one before.
_PAUSE_MIN, _PAUSE_MAX = 1.0, 60.0
# Steps of a request that is not made at once; each is twice the one before.
_STEP_MIN = 64 << 10
_STEP_MAX = 8 << 20
# What is waited for is decoded while it comes from this size on; less comes in one packet train.
_STREAMED = 128 << 10


class Fetcher:
    """Reads of layers that must be fetched: the table of their chunks, and its workers.

    `cache` keeps on disk what was fetched; `memory` bounds the decoded chunks that are held,
    in bytes. `prefetch` (prioritized files) and `background` (the rest, when nothing else is to
    be done) need the cache. Workers start with the first read, or `start`.
    """

    def __init__(
        self,
        cache: Cache | None = None,
        *,
        memory: int = MEMORY,
        prefetch: bool = False,
        background: bool = False,
    ) -> None:
        self.cache = cache
        self.chunks: Chunks = Chunks(memory, cache.store if cache is not None else None)
        self._background = background and cache is not None
        self.chunks.unasked(ahead=True, prefetch=prefetch, background=background)
        self._sources: list[ByteSource] = []
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._started = False
        # Also at the interpreter's end: workers must not wake up while it is taken down.
        self._stopped = threading.Event()
        self._stop = weakref.finalize(self, _stop, self.chunks, self._stopped)

    def add(self, reader: Reader, prefetch_end: int = 0) -> int:
        """Add a layer; its number, for `read_into`. The layer must stay open."""
        with self._lock:
            number = self.chunks.add(reader, prefetch_end)
            assert number == len(self._sources)
            self._sources.append(reader.blob.source)
        return number

    def start(self) -> None:
        """Start the workers, if they are not there yet."""
        if self._started:
            return
        with self._lock:
            if self._started:
                return
            kinds = _WORKERS + (_BACKGROUND if self._background else ())
            for number, lowest in enumerate(kinds):
                # Daemons, and nothing in them keeps this object: it can be forgotten unclosed.
                thread = threading.Thread(
                    target=_work,
                    args=(self.chunks, self._sources, lowest, self.cache, self._stopped),
                    name=f"stargz-fetch-{number}",
                    daemon=True,
                )
                try:
                    thread.start()
                except RuntimeError:  # as many as there may be
                    if not self._threads:
                        raise
                    break
                self._threads.append(thread)
            self._started = True

    def read_into(self, layer: int, row: int, offset: int, size: int, buffer: Any) -> None:
        """Bytes of a regular file of a layer; see `Chunks.read_into`."""
        self.start()
        self.chunks.read_into(layer, row, offset, size, buffer)

    def decode(self) -> None:
        """Decode what takes long, until the end, so that neither readers nor workers do; for some
        threads of the caller's."""
        while (job := self.chunks.slow()) is not None:
            _handle(self.chunks, self._sources[job.layer], job, self._stopped, again=True)
            del job

    def stats(self) -> dict[str, int]:
        """What was fetched and read: see `Chunks.stats`."""
        return self.chunks.stats()

    def stop(self) -> None:
        """Wake all readers (ValueError) and end the workers; those in a request end after it."""
        self._stop()

    def close(self, wait: float = 0.5) -> None:
        """The same, and wait for the workers for at most that many seconds."""
        self.stop()
        if self.chunks.forked():
            return
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(wait)
                wait = wait if not thread.is_alive() else 0


def _stop(chunks: Chunks, stopped: threading.Event) -> None:
    stopped.set()
    chunks.stop()


class Remote:
    """One layer's reads through a Fetcher, which is its own or shared with other layers: what
    `Reader.attach` asks for."""

    def __init__(self, fetcher: Fetcher, number: int, *, owned: bool = True) -> None:
        self.fetcher = fetcher
        self._number = number
        self._owned = owned

    def read_into(self, row: int, offset: int, size: int, buffer: Any) -> None:
        """Bytes [offset, offset + size) of a regular file into a buffer."""
        self.fetcher.read_into(self._number, row, offset, size, buffer)

    def forked(self) -> bool:
        """Whether its workers stayed behind in the process this one was forked from."""
        return self.fetcher.chunks.forked()

    def start(self) -> None:
        """Start the workers."""
        self.fetcher.start()

    def close(self) -> None:
        """Stop the workers, if they are this layer's alone."""
        if self._owned:
            self.fetcher.close()


def _work(
    chunks: Chunks,
    sources: Sequence[ByteSource],
    lowest: int,
    cache: Cache | None,
    stopped: threading.Event,
) -> None:
    pause = _PAUSE_MIN
    if lowest == BACKGROUND and stopped.wait(_BACKGROUND_AFTER):
        return
    while (job := chunks.next(lowest)) is not None:
        if _handle(chunks, sources[job.layer], job, stopped):
            pause = _PAUSE_MIN
            if cache is not None:
                cache.tidy()
                if job.priority == BACKGROUND and cache.store.added > cache.size // 2:
                    # More would push out what is of use.
                    chunks.unasked(prefetch=False, background=False)
        elif job.priority >= PREFETCH:
            # The source may be down: no use in asking on and on.
            del job
            if stopped.wait(pause):
                return
            pause = min(2 * pause, _PAUSE_MAX)
            continue
        del job


def _handle(
    chunks: Chunks,
    source: ByteSource,
    job: Job,
    stopped: threading.Event,
    *,
    again: bool = False,
) -> bool:
    """Do a job, which has its bytes already if it is given out again; whether it succeeded."""
    try:
        _fetch(chunks, source, job, again)
    except BaseException as error:
        # Whatever a source raises ends its request, never the worker.
        chunks.fail(job, error)
        if not stopped.is_set():
            with contextlib.suppress(Exception):  # what a log handler raises
                _report(error, source, job)
        return False
    return True


def _fetch(chunks: Chunks, source: ByteSource, job: Job, again: bool) -> None:
    try:
        if again:
            chunks.deliver(job)
        else:
            _deliver(chunks, source, job)
    except (DigestError, FormatError) as error:
        # Bytes may be damaged on the way: once more.
        _log.info("%s: fetching %d bytes at %d again", error, job.size, job.offset)
        _deliver(chunks, source, job)


def _deliver(chunks: Chunks, source: ByteSource, job: Job) -> None:
    if job.in_steps:
        chunks.deliver(job, source=_Steps(source, job.offset + job.size))
        return
    if job.priority == DEMAND and job.size > _STREAMED and hasattr(source, "read_pieces"):
        chunks.deliver(job, source=_Arriving(source, job))
        return
    data = source.read_at(job.offset, job.size)
    if len(data) != job.size:
        raise SourceError(
            f"{source.name}: {job.size} bytes at offset {job.offset} are wanted, the source gave "
            f"{len(data)}"
        )
    chunks.deliver(job, data)


def _report(error: BaseException, source: ByteSource, job: Job) -> None:
    text = str(error) or type(error).__name__
    name = "" if text.startswith(source.name) else f"{source.name}: "
    # Whoever waits for it has the error; of the others nobody hears but by this.
    level = logging.INFO if job.priority == DEMAND else logging.WARNING
    _log.log(level, "%s%s (%d bytes at offset %d)", name, text, job.size, job.offset)


class _Forward:
    """A source that a decoder reads from front to back."""

    def __init__(self, source: ByteSource, size: int) -> None:
        self.name = source.name
        self.size = size

    def read_at(self, offset: int, size: int) -> bytes:
        """See ByteSource.read_at."""
        raise NotImplementedError

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """See ByteSource.read_ranges."""
        return [self.read_at(*part) for part in ranges]

    def close(self) -> None:
        """Nothing: the source is another's."""


class _Steps(_Forward):
    """In larger steps than those of the decoder."""

    def __init__(self, source: ByteSource, end: int) -> None:
        super().__init__(source, source.size)
        self._source = source
        self._end = end
        self._data = b""
        self._at = 0
        self._step = _STEP_MIN

    def read_at(self, offset: int, size: int) -> bytes:
        """Bytes from the current step, or from a new one that begins at `offset`."""
        start = offset - self._at
        if start < 0 or start + size > len(self._data):
            want = max(size, min(self._step, self._end - offset))
            self._data = self._source.read_at(offset, want)
            self._step = min(2 * self._step, _STEP_MAX)
            self._at, start = offset, 0
        return self._data[start : start + size]


class _Arriving(_Forward):
    """The bytes of a request while they come: who waits for a chunk does not wait for what follows
    on it."""

    def __init__(self, source: Any, job: Job) -> None:
        super().__init__(source, job.offset + job.size)
        self._start = job.offset
        self._data = bytearray()
        self._pieces: Iterator[bytes] = source.read_pieces(job.offset, job.size)

    def read_at(self, offset: int, size: int) -> bytes:
        """Bytes of the request, once they have come."""
        start = offset - self._start
        while start + size > len(self._data):
            piece = next(self._pieces, b"")
            if start < 0 or not piece:
                raise SourceError(
                    f"{self.name}: {size} bytes at offset {offset} are wanted, the source gave "
                    f"{len(self._data)} from {self._start} on"
                )
            self._data += piece
        return bytes(memoryview(self._data)[start : start + size])
