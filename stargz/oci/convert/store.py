"""Has the layers of images made, each distinct one once, by the threads or processes at hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from typing import Any, Generic, Protocol, TypeVar

from stargz.oci.convert.layers import LayerReport
from stargz.oci.formats.manifest import Descriptor
from stargz.oci.formats.reference import LayoutReference, Reference, parse_image
from stargz.oci.registry.access import Access

Events = Callable[[Mapping[str, Any]], object]


class Cancelled(Exception):  # noqa: N818
    """Ends a conversion whose result nobody waits for any more."""


class Report(Protocol):
    """What became of a task: the blob that it made, "" where it made none."""

    @property
    def source_digest(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def beside(self) -> tuple[Descriptor, ...]:
        """Other blobs that were made with it, and have to be where it is."""

    @property
    def warnings(self) -> tuple[str, ...]: ...
    def to_json(self) -> dict[str, Any]: ...


R = TypeVar("R", bound=Report)
R_co = TypeVar("R_co", bound=Report, covariant=True)


class Keyed(Protocol):
    """Options of a task."""

    @property
    def key(self) -> str:
        """A short text that is equal for options that give the same bytes of the same layers."""


class Task(Protocol[R_co]):
    """What is to be made of layers. It can be pickled, and opens by itself what it reads and
    writes."""

    @property
    def source(self) -> str: ...
    @property
    def destination(self) -> str: ...
    @property
    def entries(self) -> tuple[Descriptor, ...]: ...
    @property
    def options(self) -> Keyed: ...
    @property
    def made_of(self) -> str:
        """A text that is equal for tasks about the same layers, but for the options."""

    @property
    def access(self) -> Access: ...
    @property
    def writing(self) -> Access | None: ...
    @property
    def key(self) -> str:
        """A text that is equal for tasks that make the same, wherever it comes from and goes."""

    def run(self, progress: Callable[[int, int], None] | None = None) -> R_co:
        """Make it, and have it at the destination. `progress` gets (bytes done, bytes in all) of
        the input, and ends it by raising."""


class Store(Protocol[R]):
    """Where layers are made: each distinct one once."""

    def submit(self, task: Any) -> Future[R]:
        """What a task makes: made already, being made, or to be made now. Its blob is
        then in the repository of the task that made it, which `place` tells."""

    def place(self, task: Any) -> Reference | LayoutReference | None:
        """The repository that has the blob of a finished task; None if it is not known."""

    def keep(self, task: Any, report: R) -> None:
        """What a task would make is at its destination already."""

    def lost(self, task: Any) -> None:
        """A finished task's blob is not there any more: it is to be made again."""


class LayerStore(Store[LayerReport], Protocol):
    """Where an image's conversion has its layers made."""


class LocalStore(Generic[R]):
    """A Store in memory: layers are made by an executor, and known while this object is.

    `progress` gets the events of `convert_image` about layers, from the threads that make them
    (of an executor of processes or machines, only their ends).
    """

    def __init__(self, executor: Executor, progress: Events | None = None) -> None:
        self._executor = executor
        self._threads = isinstance(executor, ThreadPoolExecutor)
        self._progress = progress
        self._lock = threading.Lock()
        self._made: dict[str, tuple[Future[R], str]] = {}  # and the destination
        self._stop = threading.Event()

    def submit(self, task: Task[R]) -> Future[R]:
        """See Store. One that failed is tried again when it is asked for again."""
        key = task.key
        with self._lock:
            future, _ = self._made.get(key, (None, ""))
            if future is None or (future.done() and (future.cancelled() or future.exception())):
                future = self._start(task)
                self._made[key] = future, task.destination
        return future

    def _start(self, task: Task[R]) -> Future[R]:
        if self._threads:
            future = self._executor.submit(self._convert, task)
        else:
            future = self._executor.submit(task.run)
        future.add_done_callback(self._done)
        return future

    def _convert(self, task: Task[R]) -> R:
        digest = "+".join(entry.digest for entry in task.entries)
        about = {"event": "layer", "digest": digest, "task": task.key}

        def progress(done: int, total: int) -> None:
            if self._stop.is_set():
                raise Cancelled
            if self._progress is not None:
                self._progress({**about, "done": done, "total": total})

        progress(0, sum(entry.size for entry in task.entries))
        return task.run(progress)

    def _done(self, future: Future[R]) -> None:
        if self._progress is not None and not future.cancelled() and not future.exception():
            self._progress({"event": "layer-done", **future.result().to_json()})

    def place(self, task: Task[R]) -> Reference | LayoutReference | None:
        """See Store."""
        with self._lock:
            _, destination = self._made.get(task.key, (None, ""))
        place = parse_image(destination) if destination else None
        return place if isinstance(place, (Reference, LayoutReference)) else None

    def keep(self, task: Task[R], report: R) -> None:
        """See Store."""
        made: Future[R] = Future()
        made.set_result(report)
        with self._lock:
            self._made.setdefault(task.key, (made, task.destination))

    def lost(self, task: Task[R]) -> None:
        """See Store."""
        with self._lock:
            self._made.pop(task.key, None)

    def stop(self) -> None:
        """End what is being made in threads here, and begin nothing more."""
        self._stop.set()
        with self._lock:
            futures = [future for future, _ in self._made.values()]
        for future in futures:
            future.cancel()

    def wait(self) -> None:
        """Until nothing is being made in threads here, after `stop`."""
        if self._threads:
            with self._lock:
                futures = [future for future, _ in self._made.values() if not future.cancelled()]
            wait(futures)
