"""Layers worked on by a Dask cluster (extra "dask").

Workers read from the source and write to the destination by themselves. They need the same
version of stargz; what `Access` says (the authfile's path, certificates) must hold where they are,
and an `oci:` destination, or source, must be on a file system that they share with the caller. The
state stays with the caller. A task that is lost with its worker is begun anew on another, as
often as the scheduler's `allowed-failures` says.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stargz.errors import SourceError, StargzError, UsageError, extra

_CONNECT = 15.0  # seconds
_LEAVE = 5.0


def version() -> str:
    """That of this process's stargz."""
    return str(getattr(sys.modules.get("stargz"), "__version__", ""))


def on_worker(wanted: str, function: Callable[..., Any], *args: Any) -> Any:
    """Call it, on a worker of the caller's version (of those that joined later, too)."""
    import stargz.errors  # noqa: F401  # the package, and with it its version

    if version() != wanted:
        raise UsageError(_other_version("this worker", version(), wanted))
    return function(*args)


def _other_version(worker: str, found: object, wanted: str) -> str:
    return f"{worker} has stargz {found or '(unknown)'}, here it is {wanted}: have them the same"


class Cluster(Executor):
    """An Executor over a Dask client; its futures are those of concurrent.futures."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._running: set[Any] = set()

    @property
    def threads(self) -> int:
        """Tasks that the workers run at the same time."""
        return int(sum(self._client.nthreads().values()))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have it called on a worker; arguments and result are pickled."""
        future: Future[Any] = Future()
        # Not pure: a layer whose blob was lost is made again, under the same arguments.
        work = self._client.submit(on_worker, version(), fn, *args, pure=False, **kwargs)
        with self._lock:
            self._running.add(work)
        future.add_done_callback(lambda ended: self._cancel(work) if ended.cancelled() else None)
        work.add_done_callback(lambda ended: self._done(ended, future))
        return future

    def _done(self, work: Any, future: Future[Any]) -> None:
        with self._lock:
            self._running.discard(work)
        if not future.set_running_or_notify_cancel():
            return
        if work.status == "finished":
            try:
                future.set_result(work.result())
            except Exception as error:
                future.set_exception(_explained(error))
        elif work.status == "error":
            future.set_exception(_explained(work.exception()))
        else:
            why = "the Dask cluster gave the layer up: its scheduler ended, or was cut off"
            future.set_exception(SourceError(why))

    def _cancel(self, work: Any) -> None:
        with suppress(Exception):
            self._client.cancel([work], force=True)

    def cancel(self) -> None:
        """Begin nothing more there; what a worker has begun it ends, for nobody."""
        with self._lock:
            works = list(self._running)
        with suppress(Exception):
            self._client.cancel(works, force=True)


def _explained(error: BaseException) -> BaseException:
    if type(error).__name__ == "KilledWorker":
        return SourceError(
            "the workers that had the layer died, one after the other (out of memory?): see the "
            "cluster's logs; with --threads 1 they need less"
        )
    if isinstance(error, StargzError | OSError | MemoryError):
        return error
    return SourceError(f"a Dask worker failed: {type(error).__name__}: {error}")


@contextmanager
def connect(address: str) -> Iterator[Cluster]:
    """The cluster of a scheduler: tcp://host:port, host:port, or its file.

    Raises UsageError if Dask is not installed, or the workers have another stargz; SourceError if
    no scheduler answers, or has no workers.
    """
    try:
        distributed = importlib.import_module("distributed")
    except ImportError as error:
        raise UsageError(f"--dask needs Dask ({error}): {extra('dask')}") from None
    where: dict[str, Any] = {"address": address if "://" in address else f"tcp://{address}"}
    if "://" not in address and Path(address).is_file():
        where = {"scheduler_file": address}
    elif not address.rpartition(":")[2].isdecimal():
        raise UsageError(f"{address!r} is not a Dask scheduler: give HOST:PORT, or its file")
    try:
        client = distributed.Client(
            **where, timeout=_CONNECT, set_as_default=False, name="stargz-bulk"
        )
    except (OSError, ValueError, TypeError, AssertionError) as error:  # the last: of a wrong file
        text = str(error).partition("\n")[0] or type(error).__name__
        raise SourceError(f"{address}: no Dask scheduler answers ({text})") from error
    try:
        cluster = Cluster(client)
        _check_workers(client, address)
        try:
            yield cluster
        except BaseException:
            cluster.cancel()
            raise
    finally:
        with suppress(Exception):
            client.close(timeout=_LEAVE)


def _check_workers(client: Any, address: str) -> None:
    if not client.nthreads():
        raise SourceError(f"{address}: the Dask cluster has no workers; start some: dask worker")
    try:
        found = client.run(on_worker, version(), version, on_error="return")
    except Exception as error:
        raise UsageError(
            f"{address}: its workers cannot use stargz ({type(error).__name__}: {error}): pip "
            "install it where they run"
        ) from error
    for worker, answer in found.items():
        if isinstance(answer, UsageError):
            raise UsageError(f"{address}: {str(answer).replace('this worker', worker)}")
        if isinstance(answer, BaseException):
            raise UsageError(
                f"{worker}: it cannot use stargz ({type(answer).__name__}: {answer}): pip install "
                "it there"
            )
