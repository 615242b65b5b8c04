"""What a bulk run makes of images: seekable ones, or SOCI indexes. All else that it does is the
same for both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from stargz.oci.bulk.discover import Pair
from stargz.oci.bulk.state import KnownImage
from stargz.oci.conversion import ImageOptions, check_image, convert_as, planned
from stargz.oci.convert.ends import check_toc_image
from stargz.oci.convert.layers import NOT_SEEKABLE, LayerReport, LayerTask
from stargz.oci.convert.occupied import check_free, ordinary_image, refusal
from stargz.oci.convert.store import Events, Keyed, Store, Task
from stargz.oci.destination import open_destination
from stargz.oci.formats.manifest import EXTERNAL, layer_kind
from stargz.oci.formats.reference import Reference, parse_image
from stargz.oci.registry.access import Access, shared_client
from stargz.oci.registry.client import RegistryClient
from stargz.oci.repository import open_repository
from stargz.oci.soci.images import NOT_INDEXABLE, IndexOptions, index_as, plan_index
from stargz.oci.soci.layers import INDEXED, LEFT_OUT, ZtocReport


@dataclass(frozen=True, slots=True)
class Planned:
    """A layer of an image that a dry run has found: what becomes of it, and the task that is to be
    done for that, if any."""

    source_digest: str
    source_size: int
    status: str
    task: Task[Any] | None = None


class Options(Keyed, Protocol):
    """How images are worked on, whichever they are; equal keys give the same of the same image."""

    @property
    def force(self) -> bool: ...
    @property
    def access(self) -> Access: ...
    @property
    def writing(self) -> Access | None: ...


class Making(Protocol):
    """What is made of each image, and how it is known that it is there."""

    @property
    def options(self) -> Options: ...
    @property
    def images(self) -> Sequence[str]:
        """What can have become of an image that is in the report, the usual first; "unchanged" and
        failures besides."""

    @property
    def layers(self) -> Sequence[str]:
        """What can have become of a layer."""

    @property
    def read(self) -> Callable[[dict[str, Any]], Any]:
        """What reads the report of a layer, as the state keeps it."""

    def make(
        self, pair: Pair, store: Store[Any], progress: Events | None, own: str | None
    ) -> dict[str, Any]:
        """Make it of an image: the report, with "status", "source_digest", "digest", "size_before",
        "size_after", "layers", "warnings" and "stale". `own` is the digest of what an earlier run
        wrote to the destination."""

    def is_there(self, pair: Pair, known: KnownImage, writer: RegistryClient) -> bool:
        """Whether what was made of an image is still there, as far as the digest of an image that
        it has changed, or copied, does not tell."""

    def check(self, pair: Pair) -> None:
        """Look at what is there already, if it was asked for."""

    def planned(
        self,
        pair: Pair,
        own: str | None,
        client: RegistryClient,
        writer: RegistryClient,
        helpers: Executor,
    ) -> tuple[str, list[Planned]]:
        """What `make` would do: the image's status, or "to do", and its distinct layers. Nothing is
        written; what `make` would refuse is refused."""

    def shown(self) -> Mapping[str, Any]:
        """The options as a report has them."""


class Converting:
    """Images are made seekable."""

    images: Sequence[str] = ("converted",)
    layers: Sequence[str] = ("converted", "kept", NOT_SEEKABLE)

    def __init__(self, options: ImageOptions) -> None:
        self.options: Options = options
        self.read: Callable[[dict[str, Any]], LayerReport] = LayerReport.from_json
        self._options = options

    def make(
        self, pair: Pair, store: Store[LayerReport], progress: Events | None, own: str | None
    ) -> dict[str, Any]:
        """See Making.make."""
        names = pair.source, pair.destination
        return convert_as(self._options, *names, store, progress, own=own).to_json()

    def is_there(self, pair: Pair, known: KnownImage, writer: RegistryClient) -> bool:
        """See Making.is_there: external TOCs are beside the image."""
        tocs = known.report.get("toc_image")
        if not isinstance(tocs, dict):
            return True
        with open_destination(pair.destination, client=writer) as destination:
            there = destination.root(EXTERNAL)
            return (
                there is not None
                and there.digest == tocs.get("digest")
                and destination.is_whole(there.digest)
            )

    def check(self, pair: Pair) -> None:
        """See Making.check."""
        if self._options.verify:
            check_image(pair.destination, self._options.writing or self._options.access)

    def planned(
        self,
        pair: Pair,
        own: str | None,
        client: RegistryClient,
        writer: RegistryClient,
        helpers: Executor,
    ) -> tuple[str, list[Planned]]:
        """See Making.planned."""
        if self._options.external:
            check_toc_image(pair.destination)
        with open_repository(pair.source, client=client) as source:
            plan = planned(self._options, source, helpers)
        flat, second = self._options.flatten, self._options.second
        found: dict[str, Planned] = {}
        for image in plan.images():
            tars = [one for one in image.manifest.layers if layer_kind(one) == "tar"]
            options = second if image.zstd and second is not None else self._options.first
            for entries in [tars] if flat and tars else [[one] for one in tars]:
                names = pair.source, pair.destination
                task = LayerTask(*names, tuple(entries), options, flatten=flat)
                found[task.key] = _planned(task, _status(task))
        if not self._options.force and pair.source != pair.destination:
            with open_destination(pair.destination, client=writer) as destination:
                there = ordinary_image(destination, own)
                if there is not None:
                    raise refusal(destination, there)
                if self._options.external:
                    check_free(destination)
        return "to do", list(found.values())

    def shown(self) -> Mapping[str, Any]:
        """See Making.shown."""
        options = self._options
        layers = asdict(options.first.filled())
        del layers["allow_missing"]
        names = ("flatten", "docker_types", "verify", "strict", "both", "threads", "upgrade")
        return {
            **layers,
            "prioritized": len(options.layers.prioritized),
            "platforms": list(options.platforms),
            **{name: getattr(options, name) for name in names},
        }


def _planned(task: Task[Any], status: str) -> Planned:
    digest = "+".join(entry.digest for entry in task.entries)
    return Planned(digest, sum(entry.size for entry in task.entries), status, task)


def _status(task: LayerTask) -> str:
    alone = len(task.entries) == 1 and not task.flatten
    return "seekable" if alone and task.options.keeps(task.entries[0]) else "to convert"


class Indexing:
    """Images get SOCI indexes, and their layers ztocs."""

    images: Sequence[str] = (INDEXED, NOT_INDEXABLE)
    layers: Sequence[str] = (INDEXED, LEFT_OUT)

    def __init__(self, options: IndexOptions) -> None:
        self.options: Options = options
        self.read: Callable[[dict[str, Any]], ZtocReport] = ZtocReport.from_json
        self._options = options

    def make(
        self, pair: Pair, store: Store[ZtocReport], progress: Events | None, own: str | None
    ) -> dict[str, Any]:
        """See Making.make. Sizes are those of the layers, and of the ztocs."""
        names = pair.source, pair.destination
        report = index_as(self._options, *names, store, progress, own=own)
        sizes = {layer.source_digest: layer.source_size for layer in report.layers}
        return {
            **report.to_json(),
            "size_before": sum(sizes.values()),
            "size_after": report.size,
        }

    def is_there(self, pair: Pair, known: KnownImage, writer: RegistryClient) -> bool:
        """See Making.is_there: indexes of version 1 are beside the image."""
        bound = self._options.soci_version == 2
        if bound and pair.source != pair.destination:
            return True
        indexes = known.report.get("indexes")
        if not isinstance(indexes, dict):
            return False
        place = parse_image(known.report["destination"])
        if not isinstance(place, Reference):
            with open_destination(known.report["destination"], client=writer) as destination:
                return all(map(destination.is_whole, [known.digest] if bound else indexes.values()))
        if bound:
            return True
        access = replace(self.options.writing or self.options.access, mirrors=())
        with (
            shared_client(access) as client,
            open_repository(f"docker://{place}", client=client) as there,
        ):
            return all(
                any(entry.digest == index for entry in there.referrers(image))
                for image, index in indexes.items()
            )

    def check(self, pair: Pair) -> None:
        """See Making.check."""

    def planned(
        self,
        pair: Pair,
        own: str | None,
        client: RegistryClient,
        writer: RegistryClient,
        helpers: Executor,
    ) -> tuple[str, list[Planned]]:
        """See Making.planned."""
        tasks, reports = plan_index(self._options, pair.source, pair.destination, own)
        found = {one.entries[0].digest: _planned(one, "to index") for one in tasks}
        others = (one for one in reports if one.source_digest not in found)
        status = "to do" if found else NOT_INDEXABLE
        if not found and any(one.digest for one in reports):
            status = "unchanged"
        return status, [
            *found.values(),
            *(Planned(one.source_digest, one.source_size, one.status) for one in others),
        ]

    def shown(self) -> Mapping[str, Any]:
        """See Making.shown."""
        options = self._options
        names = ("soci_version", "min_layer_size", "span_size", "threads", "upgrade")
        return {
            "index": True,
            **{name: getattr(options, name) for name in names},
            "platforms": list(options.platforms),
        }
