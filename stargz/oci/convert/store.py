"""Has the layers of images made, each distinct one once, by the threads or processes at hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

from stargz.oci.convert.layers import LayerReport, LayerTask, convert_layer
from stargz.oci.formats.reference import LayoutReference, Reference, parse_image

Events = Callable[[Mapping[str, Any]], object]


class Cancelled(Exception):  # noqa: N818
    """Ends a conversion whose result nobody waits for any more."""


class LayerStore(Protocol):
    """Where an image's conversion has its layers made: each distinct one once."""

    def submit(self, task: LayerTask) -> Future[LayerReport]:
        """The layer that a task makes: made already, being made, or to be made now. Its blob is
        then in the repository of the task that made it, which `place` tells."""

    def place(self, task: LayerTask) -> Reference | LayoutReference | None:
        """The repository that has the blob of a finished task; None if it is not known."""

    def lost(self, task: LayerTask) -> None:
        """A finished task's blob is not there any more: it is to be made again."""


def layer_key(task: LayerTask) -> str:
    """A text that is equal for tasks that make the same layer, wherever it comes from and goes."""
    return f"{task.options.key} {task.made_of}"


class LocalStore:
    """A LayerStore in memory: layers are made by an executor, and known while this object is.

    `progress` gets the events of `convert_image` about layers, from the threads that make them
    (of an executor of processes or machines, only their ends).
    """

    def __init__(self, executor: Executor, progress: Events | None = None) -> None:
        self._executor = executor
        self._threads = isinstance(executor, ThreadPoolExecutor)
        self._progress = progress
        self._lock = threading.Lock()
        self._made: dict[str, tuple[Future[LayerReport], str]] = {}  # and the destination
        self._stop = threading.Event()

    def submit(self, task: LayerTask) -> Future[LayerReport]:
        """See LayerStore. One that failed is tried again when it is asked for again."""
        key = layer_key(task)
        with self._lock:
            future, _ = self._made.get(key, (None, ""))
            if future is None or (future.done() and (future.cancelled() or future.exception())):
                future = self._start(task)
                self._made[key] = future, task.destination
        return future

    def _start(self, task: LayerTask) -> Future[LayerReport]:
        if self._threads:
            future = self._executor.submit(self._convert, task)
        else:
            future = self._executor.submit(convert_layer, task)
        future.add_done_callback(self._done)
        return future

    def _convert(self, task: LayerTask) -> LayerReport:
        digest = "+".join(entry.digest for entry in task.entries)

        def progress(done: int, total: int) -> None:
            if self._stop.is_set():
                raise Cancelled
            if self._progress is not None:
                self._progress({"event": "layer", "digest": digest, "done": done, "total": total})

        progress(0, sum(entry.size for entry in task.entries))
        return convert_layer(task, progress)

    def _done(self, future: Future[LayerReport]) -> None:
        if self._progress is not None and not future.cancelled() and not future.exception():
            self._progress({"event": "layer-done", **future.result().to_json()})

    def place(self, task: LayerTask) -> Reference | LayoutReference | None:
        """See LayerStore."""
        with self._lock:
            _, destination = self._made.get(layer_key(task), (None, ""))
        place = parse_image(destination) if destination else None
        return place if isinstance(place, (Reference, LayoutReference)) else None

    def lost(self, task: LayerTask) -> None:
        """See LayerStore."""
        with self._lock:
            self._made.pop(layer_key(task), None)

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
