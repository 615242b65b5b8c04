"""A bulk run that only looks: what there is to do, and what would keep an image from it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from stargz.oci.bulk.discover import Pair
from stargz.oci.bulk.images import Images
from stargz.oci.bulk.making import Making, Planned
from stargz.oci.bulk.state import DONE, FAILED, LayerKey, State
from stargz.oci.bulk.store import Events, layer_key
from stargz.oci.registry.client import RegistryClient


class DryRun(Images):
    """What there is to do is counted, and kept for the report; nothing is written."""

    def __init__(
        self,
        state: State,
        client: RegistryClient,
        writer: RegistryClient,
        making: Making,
        jobs: int,
        progress: Events | None,
    ) -> None:
        super().__init__(state, client, writer, making, jobs, progress)
        self._layers: dict[LayerKey, int] = {}  # and the bytes that are to be read for each
        self._known_layers = 0

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
        found["to_do"] = found["images"] - sum(
            found.get(status.replace(" ", "_"), 0) for status in (*DONE, *FAILED, "skipped")
        )
        del found[self._making.images[0]]
        found["layers"] = len(self._layers)
        found["layers_known"] = self._known_layers
        found["bytes"] = sum(self._layers.values())
        return found

    def _one(self, number: int, pair: Pair, helpers: Executor) -> None:
        begin = time.perf_counter()
        try:
            status = self._known(pair)
            if status is None:
                own = self._own(pair)
                ends = self._client, self._writer
                status, planned = self._making.planned(pair, own, *ends, helpers)
                layers = list(map(self._planned, planned))
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

    def _planned(self, layer: Planned) -> dict[str, Any]:
        """A layer as the report of a dry run has it; if there is something to do, it is counted."""
        status = layer.status
        if layer.task is not None:
            key = layer_key(layer.task)
            known = self._state.layer(key) is not None
            with self._lock:
                key = replace(key, root="")
                if key not in self._layers:
                    self._known_layers += known
                self._layers[key] = 0 if known else layer.source_size
            status = "done" if known else status
        return {
            "source_digest": layer.source_digest,
            "source_size": layer.source_size,
            "status": status,
        }
