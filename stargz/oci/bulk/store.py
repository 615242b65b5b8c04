"""The layers of a bulk run: each distinct one made once, in this run and in those before."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from stargz.errors import DigestError, FormatError, RegistryError
from stargz.oci.bulk.state import LayerKey, State
from stargz.oci.convert.store import Cancelled, Report, Task
from stargz.oci.formats.reference import LayoutReference, Reference, parse_image, parse_reference

Events = Callable[[Mapping[str, Any]], object]
_MAX_BAD = 1000  # layers that are known to be corrupt: no more are remembered

R = TypeVar("R", bound=Report)


class _Flight(Generic[R]):
    """What is being made of a layer, and those who wait for it."""

    def __init__(self) -> None:
        self.work: Future[R] | None = None
        self.waiting: dict[Future[R], Task[R]] = {}  # and what each asked for


class StateStore(Generic[R]):
    """A Store over a state file, which `read` reads reports of. Any number of images may wait for
    one layer, and each may give up alone. What was made of a layer is in the state before anybody
    gets it."""

    def __init__(
        self,
        state: State,
        executor: Executor,
        read: Callable[[dict[str, Any]], R],
        progress: Events | None = None,
    ) -> None:
        self._state = state
        self._read = read
        self._executor = executor
        self._here = isinstance(executor, ThreadPoolExecutor)
        self._progress = progress
        self._lock = threading.Lock()
        self._flights: dict[LayerKey, _Flight[R]] = {}
        self._bad: dict[tuple[LayerKey, str], str] = {}  # and where from
        self._stop = threading.Event()

    # --- Store --------------------------------------------------------------------------

    def submit(self, task: Task[R]) -> Future[R]:
        """See Store. Content that is corrupt is not fetched for every image that has it."""
        key = layer_key(task)
        mine: Future[R] = Future()
        with self._lock:
            if self._stop.is_set():
                _cancel(mine)
                return mine
            flight = self._flights.get(key)
            begin = flight is None
            if flight is None:
                known = self._known(key)
                if known is not None:
                    mine.set_result(known)
                    return mine
                bad = self._bad.get((key, _origin(task)))
                if bad is not None:
                    mine.set_exception(FormatError(bad))
                    return mine
                flight = self._flights[key] = _Flight()
            flight.waiting[mine] = task
        mine.add_done_callback(lambda future: self._left(key, flight, future))
        if begin:
            self._begin(key, flight, task)
        return mine

    def place(self, task: Task[R]) -> Reference | LayoutReference | None:
        """See Store."""
        known = self._state.layer(layer_key(task), use=False)
        if known is None:
            return None
        if known.place.startswith("oci:"):
            return LayoutReference(known.place.removeprefix("oci:"))
        return parse_reference(known.place.removeprefix("docker://"))

    def keep(self, task: Task[R], report: R) -> None:
        """See Store."""
        key = layer_key(task)
        with self._lock:
            if key not in self._flights and self._state.layer(key, use=False) is None:
                self._state.keep_layer(key, report.to_json(), _place(task), made=False)

    def lost(self, task: Task[R]) -> None:
        """See Store."""
        key = layer_key(task)
        with self._lock:
            if key not in self._flights:  # else it is being made again already
                self._state.forget_layer(key)

    # --- work ---------------------------------------------------------------------------

    def _known(self, key: LayerKey) -> R | None:
        """What was made of a layer, unless its report is none: then it is made anew."""
        known = self._state.layer(key)
        if known is None:
            return None
        try:
            return self._read(known.report)
        except TypeError:
            self._state.forget_layer(key)
            return None

    def _begin(self, key: LayerKey, flight: _Flight[R], task: Task[R]) -> None:
        try:
            if self._here:
                work = self._executor.submit(self._make, task)
            else:
                work = self._executor.submit(task.run)
        except BaseException as error:
            work = Future()
            work.set_exception(error)
        with self._lock:
            flight.work = work
            abandoned = not flight.waiting or self._stop.is_set()
        if abandoned:
            work.cancel()
        work.add_done_callback(lambda future: self._landed(key, flight, task, future))

    def _make(self, task: Task[R]) -> R:
        """In a thread of ours: it tells how far it is, and ends when it is told to."""
        digest = "+".join(entry.digest for entry in task.entries)
        about = {"event": "layer", "digest": digest, "task": task.key}

        def progress(done: int, total: int) -> None:
            if self._stop.is_set():
                raise Cancelled
            self._tell({**about, "done": done, "total": total})

        progress(0, sum(entry.size for entry in task.entries))
        try:
            return task.run(progress)
        except BaseException:
            self._tell({"event": "layer-failed", "digest": digest})
            raise

    def _left(self, key: LayerKey, flight: _Flight[R], future: Future[R]) -> None:
        """Somebody does not wait any more: what nobody waits for is not begun."""
        if not future.cancelled():
            return
        with self._lock:
            if future not in flight.waiting:
                return
            del flight.waiting[future]
            work = flight.work if not flight.waiting else None
        future.set_running_or_notify_cancel()  # who waits for several is told only by this
        if work is not None:
            work.cancel()

    def _landed(self, key: LayerKey, flight: _Flight[R], task: Task[R], work: Future[R]) -> None:
        error: BaseException | None = None
        report = None
        if not work.cancelled():
            error = work.exception()
            report = work.result() if error is None else None
        if report is not None:
            try:
                self._state.keep_layer(key, report.to_json(), _place(task))
            except Exception as failed:  # without it, a rerun would not know of the blob
                report, error = None, failed
        with self._lock:
            self._flights.pop(key, None)
            waiting, flight.waiting = flight.waiting, {}
            if isinstance(error, FormatError | DigestError) and len(self._bad) < _MAX_BAD:
                self._bad[key, _origin(task)] = str(error)
        if report is not None:
            try:
                self._tell({"event": "layer-done", **report.to_json()})
            except Exception as failed:  # those who wait must not wait for ever
                report, error = None, failed
        for future, asked in waiting.items():
            other = error is not None and _differs(asked, task, error)
            if work.cancelled() or other:
                # Whoever came after the last had left has it begun anew, unless all ends.
                if self._stop.is_set():
                    _cancel(future)
                elif future.set_running_or_notify_cancel():
                    _forward(self.submit(asked), future)
            elif future.set_running_or_notify_cancel():
                if report is not None:
                    future.set_result(report)
                else:
                    assert error is not None
                    future.set_exception(error)

    def _tell(self, event: Mapping[str, Any]) -> None:
        if self._progress is not None:
            self._progress(event)

    def stop(self) -> None:
        """End what is being made in threads here, and begin nothing more."""
        self._stop.set()
        with self._lock:
            flights = list(self._flights.values())
        for flight in flights:
            for future in list(flight.waiting):
                future.cancel()
            if flight.work is not None:
                flight.work.cancel()


def _cancel(future: Future[R]) -> None:
    """Cancel a future that is in nobody's list, and tell who waits for it."""
    future.cancel()
    future.set_running_or_notify_cancel()


def _forward(work: Future[R], future: Future[R]) -> None:
    """Have the result of one future in another that runs."""

    def done(ended: Future[R]) -> None:
        if ended.cancelled():
            future.set_exception(Cancelled())
        elif (error := ended.exception()) is not None:
            future.set_exception(error)
        else:
            future.set_result(ended.result())

    work.add_done_callback(done)


def _origin(task: Task[Any]) -> str:
    """Where a task's blobs come from, as far as two of one origin have the same bytes."""
    place = parse_image(task.source)
    return place.registry if isinstance(place, Reference) else str(place.path)


def _differs(asked: Task[Any], failed: Task[Any], error: BaseException) -> bool:
    """Whether what made one task fail need not make another that wants the same layer."""
    if isinstance(error, FormatError | DigestError):
        return _origin(asked) != _origin(failed)
    if not isinstance(error, OSError):
        return False
    if isinstance(error, RegistryError) and error.transient:
        # A registry that is away is away for all: not everybody has to find out.
        hosts = [(_origin(task), root_of(task.destination)) for task in (asked, failed)]
        return hosts[0] != hosts[1]
    return (asked.source, asked.destination) != (failed.source, failed.destination)


def root_of(destination: str) -> str:
    """Where a destination's blobs can be had from without converting: see LayerKey."""
    place = parse_image(destination)
    return f"docker://{place.registry}" if isinstance(place, Reference) else "oci:"


def layer_key(task: Task[Any]) -> LayerKey:
    """What the state knows the layer by that a task makes."""
    return LayerKey(root_of(task.destination), task.made_of, task.options.key)


def _place(task: Task[Any]) -> str:
    place = parse_image(task.destination)
    if isinstance(place, LayoutReference):
        return f"oci:{os.path.abspath(place.path)}"  # noqa: PTH100
    assert isinstance(place, Reference)
    return f"docker://{place.name}"
