"""The layers of an image, of all its platforms: those that are converted, and the others."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, wait
from dataclasses import replace
from functools import partial
from typing import Any

from stargz.errors import DigestError, FormatError, SourceError
from stargz.oci.convert.layers import NOT_SEEKABLE, LayerReport, LayerTask, bring_blob
from stargz.oci.convert.plan import Node, Plan
from stargz.oci.convert.rewrite import NewLayer
from stargz.oci.convert.store import LayerStore, LocalStore
from stargz.oci.destination import Destination
from stargz.oci.formats.manifest import SOCI_V2, Descriptor, layer_kind
from stargz.oci.formats.reference import LayoutReference, Reference
from stargz.oci.registry.access import shared_client
from stargz.oci.repository import Repository, open_repository

_TRIES = 2  # to have a layer that is not where it should be


class ImageLayers:
    """The layers of all platforms: those to convert as tasks, the others to be copied."""

    def __init__(
        self,
        plan: Plan,
        task: LayerTask,
        source: Repository,
        destination: Destination,
        flatten: bool,
    ) -> None:
        self._source = source
        self._destination = destination
        self._tasks: dict[tuple[str, ...], LayerTask] = {}
        self._copies: dict[str, Descriptor] = {}
        self._reports: dict[tuple[str, ...], LayerReport] = {}
        self._legacy = task.options.format == "stargz"
        self._flatten = flatten
        self._warnings: list[str] = []
        blobs: dict[str, int] = {}
        for node in plan.nodes:
            for entry in node.blobs:
                if layer_kind(entry) != "foreign":
                    blobs[entry.digest] = entry.size
            if node.kind == "image":
                self._plan_image(node, task)
            elif node.manifest.artifact_type != SOCI_V2:  # which may not stay
                for entry in node.blobs:
                    self._copy(entry)
        self.size_before: int = sum(blobs.values())

    def _plan_image(self, node: Node, task: LayerTask) -> None:
        layers = node.manifest.layers
        if self.flattens(node):
            self._tasks[tuple(entry.digest for entry in layers)] = replace(
                task, entries=tuple(layers), flatten=True
            )
            return
        for entry in layers:
            if layer_kind(entry) == "tar":
                self._tasks.setdefault((entry.digest,), replace(task, entries=(entry,)))
            else:
                self._copy(entry)

    def flattens(self, node: Node) -> bool:
        """Whether an image's layers become one, without whiteouts; FormatError where they
        cannot."""
        layers = node.manifest.layers
        if not self._flatten or not layers or (len(layers) < 2 and layer_kind(layers[0]) != "tar"):
            return False
        for entry in layers:
            if layer_kind(entry) != "tar":
                raise FormatError(
                    f"layer {entry.digest} is of the kind {entry.media_type[:100]!r}: such layers "
                    "cannot be merged (--flatten)",
                    node.manifest.source,
                )
        return True

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

    def make(self, store: LayerStore, helpers: Executor) -> None:
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

    def _is_here(self, store: LayerStore, key: tuple[str, ...]) -> bool:
        """Whether a layer was certainly made for this destination, in this run."""
        place = store.place(self._tasks[key]) if isinstance(store, LocalStore) else None
        return place is not None and _is_place_of(place, self._destination)

    def bring(self, entries: Sequence[Descriptor]) -> None:
        """Have blobs at the destination as they are."""
        for entry in entries:
            bring_blob(self._source, self._destination, entry)

    def _bring(self, store: LayerStore, key: tuple[str, ...]) -> LayerReport:
        """Have a layer at the destination that may have been made for another."""
        task, report = self._tasks[key], self._reports[key]
        for _ in range(_TRIES):
            entry = Descriptor("", report.digest, report.size)
            place = store.place(task)
            elsewhere = place is not None and not _is_place_of(place, self._destination)
            # What is made for many images is, as a rule, there or mounted: nothing else is asked.
            if elsewhere and place is not None and self._destination.mount_blob(entry, place):
                return report
            if self._destination.has_blob(entry):
                return report
            if elsewhere and self._copy_from(place, entry, task):
                return report
            store.lost(task)
            report = store.submit(task).result()
        if not self._destination.has_blob(Descriptor("", report.digest, report.size)):
            raise SourceError(
                f"{self._destination.name}: layer {report.digest} is not there although it was "
                "written; does something delete blobs?"
            )
        return report

    def _copy_from(
        self, place: Reference | LayoutReference | None, entry: Descriptor, task: LayerTask
    ) -> bool:
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

    def missing(self) -> tuple[str, ...]:
        """The prioritized paths that no layer has."""
        made = list(self._reports.values())
        if not made:
            return ()
        absent = set(made[0].missing).intersection(*(report.missing for report in made[1:]))
        return tuple(path for path in dict.fromkeys(made[0].missing) if path in absent)

    def new(self, *entries: Descriptor) -> NewLayer | None:
        """What became of a layer, or of those that were flattened; None if it is as it was."""
        report = self._reports.get(tuple(entry.digest for entry in entries))
        if report is None or report.status == NOT_SEEKABLE:
            return None
        return NewLayer(
            report.digest,
            report.size,
            report.diff_id,
            None if self._legacy else report.toc_digest,
            report.uncompressed_size,
            report.status == "kept",
        )

    def not_seekable(self) -> LayerReport | None:
        """The first of those that a TOC cannot hold."""
        return next((one for one in self.reports() if one.status == NOT_SEEKABLE), None)

    def reports(self) -> tuple[LayerReport, ...]:
        """Of all that were converted, in the order of the manifests."""
        return tuple(self._reports[key] for key in self._tasks)

    def warnings(self) -> Iterator[str]:
        """What there is to say about them."""
        yield from self._warnings
        for report in self.reports():
            for text in report.warnings:
                yield f"layer {report.source_digest}: {text}"


def all_of(futures: Sequence[Future[Any]]) -> None:
    """Wait for all, or for the first that fails, whose error is raised."""
    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    failed = [future for future in futures if future in done and future.cancelled()]
    for future in futures:
        if future in done and not future.cancelled() and future.exception():
            future.result()
    if failed:
        failed[0].result()


def _is_place_of(place: Reference | LayoutReference, destination: Destination) -> bool:
    """Whether it is the repository that the destination is."""
    here = destination.reference
    if isinstance(place, Reference) and isinstance(here, Reference):
        return place.name == here.name
    if isinstance(place, LayoutReference) and isinstance(here, LayoutReference):
        return os.path.realpath(place.path) == os.path.realpath(here.path)
    return False
