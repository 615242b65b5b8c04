"""What is to be made of an image's layers, each distinct one once, and what is only copied."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, wait
from functools import partial
from typing import Any, Generic, TypeVar

from stargz.errors import DigestError, FormatError, SourceError
from stargz.oci.convert.layers import bring_blob
from stargz.oci.convert.plan import Plan
from stargz.oci.convert.store import LocalStore, Report, Store, Task
from stargz.oci.destination import Destination
from stargz.oci.formats.manifest import Descriptor, layer_kind
from stargz.oci.formats.reference import ImageReference, LayoutReference, Reference
from stargz.oci.registry.access import shared_client
from stargz.oci.repository import Repository, open_repository

_TRIES = 2  # to have a layer that is not where it should be

R = TypeVar("R", bound=Report)
T = TypeVar("T", bound=Task[Any])


class Tasks(Generic[T, R]):
    """The tasks of all platforms, by the digests of what they read; a subclass plans them."""

    def __init__(self, plan: Plan, source: Repository, destination: Destination) -> None:
        self._source = source
        self._destination = destination
        self._tasks: dict[tuple[str, ...], T] = {}
        self._copies: dict[str, Descriptor] = {}
        self._reports: dict[tuple[str, ...], R] = {}
        self._warnings: list[str] = []
        blobs = {
            entry.digest: entry.size
            for node in plan.nodes
            for entry in node.blobs
            if layer_kind(entry) != "foreign"
        }
        self.size_before: int = sum(blobs.values())

    def _copy(self, entry: Descriptor) -> None:
        if layer_kind(entry) != "foreign":
            self._copies[entry.digest] = entry
            return
        text = f"layer {entry.digest} may not be distributed: it stays as it is, where it is"
        if text not in self._warnings:
            self._warnings.append(text)

    def totals(self) -> dict[str, int]:
        """How many are to be converted, and their bytes."""
        sizes = [entry.size for task in self._tasks.values() for entry in task.entries]
        return {"layers": len(self._tasks), "bytes": sum(sizes)}

    def make(self, store: Store[R], helpers: Executor) -> None:
        """Have all of them at the destination; the first error ends it."""
        ordered = sorted(
            self._tasks.items(), key=lambda item: -sum(entry.size for entry in item[1].entries)
        )
        futures = {key: store.submit(task) for key, task in ordered}
        copies = [
            helpers.submit(bring_blob, self._source, self._destination, entry)
            for entry in self._copies.values()
        ]
        try:
            all_of([*futures.values(), *copies])
            for key, future in futures.items():
                self._reports[key] = future.result()
            elsewhere = [key for key in futures if not self._is_here(store, key)]
            bring = partial(self._bring, store)
            self._reports.update(zip(elsewhere, helpers.map(bring, elsewhere), strict=True))
        except BaseException:
            if not isinstance(store, LocalStore):  # its futures are those of others too
                for future in futures.values():
                    future.cancel()
            for copy in copies:
                copy.cancel()
            raise

    def _is_here(self, store: Store[R], key: tuple[str, ...]) -> bool:
        """Whether a layer was certainly made for this destination, in this run."""
        place = store.place(self._tasks[key]) if isinstance(store, LocalStore) else None
        return place is not None and is_place_of(place, self._destination)

    def bring(self, entries: Sequence[Descriptor]) -> None:
        """Have blobs at the destination as they are."""
        for entry in entries:
            bring_blob(self._source, self._destination, entry)

    def _bring(self, store: Store[R], key: tuple[str, ...]) -> R:
        """Have a layer at the destination that may have been made for another."""
        task, report = self._tasks[key], self._reports[key]
        for _ in range(_TRIES):
            place = store.place(task)
            if place is not None and is_place_of(place, self._destination):
                place = None
            if all(self._bring_blob(place, entry, task) for entry in _blobs(report)):
                return report
            store.lost(task)
            report = store.submit(task).result()
        for entry in _blobs(report):
            if not self._destination.has_blob(entry):
                raise SourceError(
                    f"{self._destination.name}: layer {entry.digest} is not there although it was "
                    "written; does something delete blobs?"
                )
        return report

    def _bring_blob(
        self, place: Reference | LayoutReference | None, entry: Descriptor, task: T
    ) -> bool:
        """Have one of its blobs here, which was made elsewhere if there is a `place`; False if it
        cannot be had."""
        # What is made for many images is, as a rule, there or mounted: nothing else is asked.
        if place is not None and self._destination.mount_blob(entry, place):
            return True
        if self._destination.has_blob(entry):
            return True
        return place is not None and self._copy_from(place, entry, task)

    def _copy_from(self, place: Reference | LayoutReference, entry: Descriptor, task: T) -> bool:
        """Copy a layer from where it was made; False if it cannot be had there."""
        name = f"docker://{place}" if isinstance(place, Reference) else str(place)
        try:
            with (
                shared_client(task.writing or task.access) as client,
                open_repository(name, client=client) as other,
            ):
                bring_blob(other, self._destination, entry)
        except (OSError, DigestError, FormatError):
            return False  # whatever is wrong with that copy: it can be made again
        return True

    def reports(self) -> tuple[R, ...]:
        """Of all that were made, in the order of the manifests."""
        return tuple(self._reports[key] for key in self._tasks)

    def warnings(self) -> Iterator[str]:
        """What there is to say about them."""
        yield from self._warnings
        for report in self.reports():
            for text in report.warnings:
                yield f"layer {report.source_digest}: {text}"


def _blobs(report: Report) -> tuple[Descriptor, ...]:
    return (Descriptor("", report.digest, report.size), *report.beside)


def all_of(futures: Sequence[Future[Any]]) -> None:
    """Wait for all, or for the first that fails, whose error is raised."""
    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    failed = [future for future in futures if future in done and future.cancelled()]
    for future in futures:
        if future in done and not future.cancelled() and future.exception():
            future.result()
    if failed:
        failed[0].result()


def is_place_of(place: ImageReference, destination: Destination) -> bool:
    """Whether it is the repository that the destination is."""
    here = destination.reference
    if isinstance(place, Reference) and isinstance(here, Reference):
        return place.name == here.name
    if isinstance(place, LayoutReference) and isinstance(here, LayoutReference):
        return os.path.realpath(place.path) == os.path.realpath(here.path)
    return False
