"""A bulk run that only looks: what there is to do, and what would keep an image from it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

from stargz.oci.bulk.discover import Pair
from stargz.oci.bulk.images import Images
from stargz.oci.bulk.state import State
from stargz.oci.bulk.store import Events, layer_key
from stargz.oci.conversion import ImageOptions
from stargz.oci.convert.layers import LayerTask
from stargz.oci.convert.occupied import ordinary_image, refusal
from stargz.oci.convert.plan import make_plan
from stargz.oci.destination import open_destination
from stargz.oci.formats.manifest import TOC_DIGEST, layer_kind
from stargz.oci.registry.client import RegistryClient
from stargz.oci.repository import open_repository


class DryRun(Images):
    """What there is to do is counted, and kept for the report; nothing is written."""

    def __init__(
        self,
        state: State,
        client: RegistryClient,
        writer: RegistryClient,
        images: ImageOptions,
        jobs: int,
        progress: Events | None,
    ) -> None:
        super().__init__(state, client, writer, images, jobs, progress)
        self._layers: dict[str, int] = {}  # and the bytes that are to be converted of each
        self._known = 0

    def count(self, found: Iterator[Pair], src: str) -> None:
        """Count what there is to do."""
        helpers = ThreadPoolExecutor(8, "stargz-plan")
        try:
            self._all(
                self._claimed(found, src),
                lambda number, pair: self._one(number, pair, helpers),
                lambda: helpers.shutdown(wait=False, cancel_futures=True),
            )
        finally:
            helpers.shutdown(cancel_futures=True)

    def totals(self) -> dict[str, int]:
        """See BulkReport."""
        found = super().totals()
        del found["converted"]
        found["to_do"] = found["images"] - found["unchanged"] - found["skipped"]
        found["to_do"] -= found["failed"] + found["throttled"]
        found["layers"] = len(self._layers)
        found["layers_known"] = self._known
        found["bytes"] = sum(self._layers.values())
        return found

    def _one(self, number: int, pair: Pair, helpers: Executor) -> None:
        begin = time.perf_counter()
        status = "unchanged"
        try:
            if not self._is_done(pair):
                status = "to do"
                layers = self._layers_of(pair, helpers)
                self._check_free(pair)
                size = sum(layer["source_size"] for layer in layers)
                self._state.plan(number, {"size_before": size, "layers": layers})
        except Exception as error:
            if self._stop.is_set():
                return
            self._failed(number, pair, error, time.perf_counter() - begin, False)
            return
        seconds = time.perf_counter() - begin
        self._state.finish(number, status, seconds)
        self._tell_image(pair, status, None, seconds)

    def _layers_of(self, pair: Pair, helpers: Executor) -> list[dict[str, Any]]:
        """The distinct layers that a conversion would make, as the report has them."""
        with open_repository(pair.source, client=self._client) as source:
            plan = make_plan(source, self._images.platforms, helpers)
        flat = self._images.flatten
        layers: dict[str, dict[str, Any]] = {}
        for image in plan.images():
            tars = [one for one in image.manifest.layers if layer_kind(one) == "tar"]
            for entries in [tars] if flat and tars else [[one] for one in tars]:
                names = pair.source, pair.destination
                task = LayerTask(*names, tuple(entries), self._images.layers, flatten=flat)
                key = layer_key(task)
                known = self._state.layer(key) is not None
                made = layers[task.made_of] = self._planned(task, known)
                with self._lock:
                    if key.sources not in self._layers:
                        self._known += known
                    self._layers[key.sources] = 0 if known else made["source_size"]
        return list(layers.values())

    def _check_free(self, pair: Pair) -> None:
        """Raise what the conversion would."""
        if self._images.force or pair.source == pair.destination:
            return
        with open_destination(pair.destination, client=self._writer) as destination:
            there = ordinary_image(destination, self._own(pair))
            if there is not None:
                raise refusal(destination, there)

    def _planned(self, task: LayerTask, known: bool) -> dict[str, Any]:
        """A layer as the report of a dry run has it."""
        status = "to convert"
        if known:
            status = "done"
        elif len(task.entries) == 1 and not task.flatten and not task.options.relayout:
            status = "seekable" if TOC_DIGEST in task.entries[0].annotations else status
        return {
            "source_digest": "+".join(entry.digest for entry in task.entries),
            "source_size": sum(entry.size for entry in task.entries),
            "status": status,
        }
