"""The images of a bulk run on their way: found by one thread, worked on by several."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from queue import Empty, Full, Queue
from typing import Any

from stargz.errors import (
    ArtifactError,
    RegistryError,
    SourceError,
    StargzError,
    StateError,
    UsageError,
)
from stargz.oci.bulk.discover import Pair
from stargz.oci.bulk.making import Making
from stargz.oci.bulk.state import State
from stargz.oci.bulk.store import Events
from stargz.oci.destination import open_destination
from stargz.oci.registry.client import RegistryClient
from stargz.oci.repository import open_repository
from stargz.oci.soci.images import NOT_INDEXABLE

_AHEAD = 1000  # images that are found before their turn comes
_MAX_COORDINATORS = 200
_TICK = 0.1  # seconds in which threads that wait see that all ends


class Images:
    """What conversions and dry runs have in common: each image claims its destination, has its
    turn in one of the threads, and ends with a status."""

    def __init__(
        self,
        state: State,
        client: RegistryClient,
        writer: RegistryClient,
        making: Making,
        jobs: int,
        progress: Events | None,
    ) -> None:
        self._state = state
        self._client = client  # of sources
        self._writer = writer  # of destinations
        self._making = making
        # Some have all their layers, and write; some only look.
        self._coordinators = min(2 * jobs + 2, _MAX_COORDINATORS)
        self._progress = progress
        self._stop = threading.Event()
        self._fatal: BaseException | None = None
        self._lock = threading.Lock()
        self.found_all = False  # of the source, nothing kept it from being listed

    def reach(self, first: Pair) -> None:
        """Raise the error of a destination that cannot be reached at all."""
        if first.error is not None or not first.destination.startswith("docker://"):
            return
        if "@" in first.destination:  # what stays as it is may be known by its digest alone
            return
        try:
            with open_destination(first.destination, client=self._writer) as destination:
                destination.digest()
        except RegistryError as error:
            if error.status is None:
                raise

    def totals(self) -> dict[str, int]:
        """See BulkReport."""
        return self._state.totals(self._making.images, self._making.layers)

    # --- threads ------------------------------------------------------------------------

    def _all(
        self,
        pairs: Iterator[tuple[int, Pair]],
        work: Callable[[int, Pair], None],
        end: Callable[[], object],
    ) -> None:
        """Do it for each, in threads; what ends one of them unforeseen, or Ctrl-C, ends all."""
        queue: Queue[tuple[int, Pair] | None] = Queue(_AHEAD)

        def find() -> None:
            for pair in pairs:
                self._put(queue, pair)
            for _ in range(self._coordinators):
                self._put(queue, None)

        def take() -> None:
            while not self._stop.is_set():
                try:
                    item = queue.get(timeout=_TICK)
                except Empty:
                    continue
                if item is None:
                    return
                work(*item)

        def guarded(function: Callable[[], None]) -> None:
            try:
                function()
            except BaseException as error:
                with self._lock:
                    self._fatal = self._fatal or error
                self._stop.set()
                end()

        threads = [
            threading.Thread(target=guarded, args=(function,), name=name, daemon=True)
            for function, name in [(find, "stargz-find")]
            + [(take, f"stargz-bulk-{n}") for n in range(self._coordinators)]
        ]
        started = []
        try:
            for thread in threads:
                thread.start()
                started.append(thread)
            for thread in started:
                thread.join()
        except BaseException:
            self._stop.set()
            end()
            self._client.close()  # Ctrl-C does not wait for the network
            self._writer.close()
            for thread in started:
                thread.join()
            raise
        if self._fatal is not None:
            raise self._fatal

    def _put(self, queue: Queue[tuple[int, Pair] | None], item: tuple[int, Pair] | None) -> None:
        while not self._stop.is_set():
            try:
                queue.put(item, timeout=_TICK)
                return
            except Full:
                continue

    def _claimed(self, found: Iterator[Pair], src: str) -> Iterator[tuple[int, Pair]]:
        """Those that can be converted, each destination once."""
        count = 0
        whole = True
        while not self._stop.is_set():
            try:
                pair = next(found, None)
            except (StargzError, OSError) as failed:
                if isinstance(failed, StateError):
                    raise
                # Of the rest nothing is known; what was found is converted all the same.
                pair = Pair(src, "", failed)
            whole = whole and (pair is None or pair.error is None)
            if pair is None:
                self.found_all = whole
                return
            count += 1
            self._tell({"event": "found", "images": count})
            error = pair.error
            names = pair.source + pair.destination
            if error is None and _printable(names) != names:
                source = _printable(pair.source)
                error = UsageError(f"{source}: a name that is not UTF-8; rename it")
            first = self._state.claimed(pair.destination) if error is None else None
            if first is not None:
                error = UsageError(
                    f"{pair.source}: its destination {pair.destination} is that of {first} too"
                )
            shown = pair.destination if first is None else ""
            number = self._state.claim(_printable(pair.source), _printable(shown))
            if error is None:
                yield number, pair
            else:
                again = is_transient(error) and pair.error is not None and bool(pair.destination)
                self._failed(number, pair, error, 0.0, again)

    # --- one image ----------------------------------------------------------------------

    def _known(self, pair: Pair) -> str | None:
        """The status of an image of which nothing is to be made: source and destination are what
        they were when it was. None if that is not so."""
        known = self._state.image(pair.destination)
        key = self._making.options.key
        if known is None or known.options != key or known.source != pair.source:
            return None
        with open_repository(pair.source, client=self._client) as source:
            digest = source.digest()
        here = pair.source == pair.destination
        if digest != (known.digest if here else known.source_digest):
            return None
        if known.report["status"] == NOT_INDEXABLE:
            return NOT_INDEXABLE
        if not here:
            with open_destination(pair.destination, client=self._writer) as destination:
                if destination.digest() != known.digest or not destination.is_whole(known.digest):
                    return None
        return "unchanged" if self._making.is_there(pair, known, self._writer) else None

    def _own(self, pair: Pair) -> str | None:
        """The digest of what an earlier run wrote to the destination."""
        known = self._state.image(pair.destination)
        return known.digest if known is not None else None

    def _failed(
        self, number: int, pair: Pair, error: BaseException, seconds: float, again: bool
    ) -> None:
        text = _describe(error)
        throttled = isinstance(error, SourceError) and error.throttled
        status = "throttled" if throttled else "failed"
        if isinstance(error, ArtifactError):
            status = "skipped"
        self._state.finish(number, status, seconds, error=text, transient=again)
        self._tell_image(pair, status, text, seconds)

    def _tell_image(self, pair: Pair, status: str, error: str | None, seconds: float) -> None:
        self._tell(
            {
                "event": "image",
                "source": pair.source,
                "destination": pair.destination,
                "status": status,
                "error": error,
                "seconds": seconds,
            }
        )

    def _tell(self, event: Mapping[str, Any]) -> None:
        if self._progress is not None:
            self._progress(event)


def is_transient(error: BaseException) -> bool:
    """Whether it may be otherwise in a minute."""
    return isinstance(error, RegistryError) and error.transient


def _printable(text: str) -> str:
    """The text without half surrogate pairs, of which hostile JSON and file names can be made."""
    return text.encode("utf-8", "backslashreplace").decode()


def _describe(error: BaseException) -> str:
    """An error as one line."""
    if isinstance(error, OSError) and error.strerror and not isinstance(error, StargzError):
        names = [os.fsdecode(one) for one in (error.filename, error.filename2) if one is not None]
        text = ": ".join([*(str(name) for name in names), error.strerror])
    elif isinstance(error, StargzError | OSError):
        text = str(error)
    elif isinstance(error, MemoryError):
        text = "out of memory"
    else:
        text = f"{type(error).__name__}: {error} (this is a bug in stargz)"
    return _printable(" ".join(text.split()))
