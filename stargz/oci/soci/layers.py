"""The layers of images, and the ztoc of each, made in one pass while the layer is fetched."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from stargz.compressions import HEAD, compression
from stargz.digests import Hashed
from stargz.errors import FormatError, UnindexableError
from stargz.oci.convert.layers import bring_blob, explained
from stargz.oci.convert.plan import Node, Plan
from stargz.oci.convert.store import LocalStore, Store
from stargz.oci.convert.tasks import Tasks, all_of, is_place_of
from stargz.oci.destination import BlobWriter, Destination, open_destination
from stargz.oci.formats.manifest import SOCI_V2, Descriptor, layer_kind
from stargz.oci.formats.reference import ImageReference, LayoutReference, Reference, parse_image
from stargz.oci.formats.soci import SociIndex, Ztoc
from stargz.oci.registry.access import Access, shared_client
from stargz.oci.registry.stream import BlobStream
from stargz.oci.repository import Repository, open_repository
from stargz.options import SPAN_SIZE, thread_count

INDEXED, KEPT, LEFT_OUT = "indexed", "kept", "left out"

_PIECE = 1 << 20


def tool() -> str:
    """What an index says that it was made by."""
    return f"stargz {getattr(sys.modules.get('stargz'), '__version__', '')}".rstrip()


@dataclass(frozen=True, slots=True)
class ZtocOptions:
    """What decides a ztoc's bytes."""

    span_size: int = SPAN_SIZE

    @property
    def key(self) -> str:
        """A short text that is equal for options that give the same bytes."""
        return f"ztoc/{self.span_size}/{tool()}"


@dataclass(frozen=True, slots=True)
class ZtocTask:
    """One layer that is to have a ztoc, and to be at the destination with it."""

    source: str  # docker://..., oci:..., docker-archive:..., storage:...
    destination: str  # docker://... or oci:...
    entries: tuple[Descriptor, ...]  # one
    options: ZtocOptions = field(default_factory=ZtocOptions)
    access: Access = field(default_factory=Access)
    threads: int | None = None
    writing: Access | None = None  # of the destination, if it is not `access`
    within: str | None = None  # see open_destination

    @property
    def made_of(self) -> str:
        """A text that is equal for tasks about the same layer; see LayerTask.made_of."""
        return "+".join(f"{entry.digest}/{entry.size}" for entry in self.entries)

    @property
    def key(self) -> str:
        """See Task.key."""
        return f"{self.options.key} {self.made_of}"

    def run(self, progress: Callable[[int, int], None] | None = None) -> ZtocReport:
        """See Task.run."""
        return make_ztoc(self, progress)


@dataclass(frozen=True, slots=True)
class ZtocReport:
    """What became of a layer. `status` is "indexed", "kept" for one whose ztoc was there, or "left
    out", where `why` tells the reason. `digest` and `size` are the ztoc's, "" and 0 if there is
    none; what is not known without reading the layer is None. So is `diff_id` but in reports of
    earlier versions: no ztoc needs it, and it took a quarter of the time."""

    status: str
    source_digest: str
    source_size: int
    digest: str = ""
    size: int = 0
    span_size: int | None = None
    spans: int | None = None
    entries: int | None = None
    uncompressed_size: int | None = None
    diff_id: str | None = None
    seconds: float = 0.0
    why: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def beside(self) -> tuple[Descriptor, ...]:
        """Nothing."""
        return ()

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {**asdict(self), "warnings": list(self.warnings)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ZtocReport:
        """The inverse of to_json."""
        return cls(**{**value, "warnings": tuple(value.get("warnings", ()))})


def make_ztoc(task: ZtocTask, progress: Callable[[int, int], None] | None = None) -> ZtocReport:
    """Have a layer's ztoc at the destination, and the layer, if it has to be fetched: that is done
    once, and checked.

    A layer that can have no ztoc is reported as left out. Raises StargzError and OSError; nothing
    that is not whole is left at the destination then.
    """
    begin = time.perf_counter()
    (entry,) = task.entries
    with ExitStack() as stack:
        client = stack.enter_context(shared_client(task.access))
        source = stack.enter_context(open_repository(task.source, client=client))
        writer = stack.enter_context(shared_client(task.writing or task.access))
        opened = open_destination(task.destination, client=writer, within=task.within)
        destination = stack.enter_context(opened)
        copy = None
        here = is_place_of(parse_image(source.name), destination)
        if not here and _is_fetched(source) and not _has(destination, entry, source):
            copy = stack.enter_context(destination.writer(entry.size))
        stream = stack.enter_context(closing(source.stream_blob(entry)))
        layer = _Copied(f"{source.name}: layer {entry.digest}", stream, copy)
        found: dict[str, Any] = {"status": LEFT_OUT}
        try:
            with explained([layer]):
                index = _build(layer, entry, task, progress)
            if not index.entries:  # a ztoc of nothing can be refused by its readers
                raise UnindexableError("it is empty", layer.name)
            layer.finish()
            digest, size = _write(index, destination)
        except FormatError as error:
            layer.finish()  # which may raise itself: then other bytes came than were asked for
            found["why"] = _reason(error, layer.head, entry.media_type)
        else:
            found = {
                "status": INDEXED,
                "digest": digest,
                "size": size,
                "span_size": task.options.span_size,
                "spans": index.spans,
                "entries": index.entries,
                "uncompressed_size": index.tar_size,
                "warnings": tuple(index.notes),
            }
        if copy is not None:
            copy.commit(entry.digest)
    seconds = time.perf_counter() - begin
    return ZtocReport(source_digest=entry.digest, source_size=entry.size, seconds=seconds, **found)


def _build(
    layer: _Copied, entry: Descriptor, task: ZtocTask, progress: Callable[[int, int], None] | None
) -> Any:
    from stargz._engine.index import build

    return build(
        layer.read,
        soci=True,
        whole=False,  # the stream's digest is checked, and nobody asks for the DiffID
        source_name=layer.name,
        source_size=entry.size,
        span_size=task.options.span_size,
        threads=thread_count(task.threads),
        progress=progress,
    )


def _write(index: Any, destination: Destination) -> tuple[str, int]:
    with destination.writer() as writer:
        out = Hashed(writer.write)
        index.write_ztoc(out.write, tool=tool())
        writer.commit(out.digest)
    return out.digest, out.size


def _is_fetched(source: Repository) -> bool:
    """Whether to read a layer twice costs more than to write it while it is read."""
    return isinstance(parse_image(source.name), Reference)


def _has(destination: Destination, entry: Descriptor, source: Repository) -> bool:
    """Whether a layer is at the destination, or can be had there without moving it."""
    origin = parse_image(source.name)
    if isinstance(origin, Reference) and destination.mount_blob(entry, origin):
        return True
    return destination.has_blob(entry)


def _reason(error: FormatError, head: bytes, media_type: str) -> str:
    name = compression(head)
    if name not in ("gzip", None):
        return f"it is compressed by {name}, which is not its media type ({media_type[:100]!r})"
    where = "" if error.offset is None else f"at offset {error.offset}: "
    what = "" if isinstance(error, UnindexableError) else "it is damaged, or no tar: "
    return f"{what}{where}{error.message}"


class _Copied:
    """A stream under the name that errors are to give; what is read of it is written, too."""

    def __init__(self, name: str, stream: BlobStream, copy: BlobWriter | None) -> None:
        self.name = name
        self.size: int = stream.size
        self.head: bytes = b""
        self._stream = stream
        self._copy = copy

    def read(self, size: int = -1, /) -> bytes:
        """See BlobStream.read."""
        piece = self._stream.read(size)
        self.head = self.head or bytes(piece[:HEAD])
        if self._copy is not None and piece:
            self._copy.write(piece)
        return piece

    def finish(self) -> None:
        """See BlobStream.finish."""
        while self.read(_PIECE):
            pass

    def close(self) -> None:
        """See BlobStream.close."""
        self._stream.close()


class IndexLayers(Tasks[ZtocTask, ZtocReport]):
    """The layers of all platforms: those to have a ztoc as tasks, the others to be copied. `known`
    are images that have an index; where `in_place` the destination has all blobs of the source.
    With `all_blobs` the SOCI indexes that are listed stay, too."""

    def __init__(
        self,
        plan: Plan,
        task: ZtocTask,
        min_size: int,
        known: Mapping[Node, SociIndex],
        source: Repository,
        destination: Destination,
        in_place: bool,
        all_blobs: bool,
    ) -> None:
        super().__init__(plan, source, destination)
        self._in_place = in_place
        self._task = task
        self._span_size = task.options.span_size
        self._min_size = min_size
        self._told: dict[str, ZtocReport] = {}  # of the layers, in the order of the manifests
        for node in plan.nodes:
            if node.kind == "image":
                self._plan_image(node, task, known.get(node))
            elif all_blobs or node.manifest.artifact_type != SOCI_V2:  # which may not stay
                self._copy_all(node.blobs)

    def _copy_all(self, entries: list[Descriptor]) -> None:
        for entry in entries:
            if not self._in_place or layer_kind(entry) == "foreign":
                self._copy(entry)

    def _plan_image(self, node: Node, task: ZtocTask, known: SociIndex | None) -> None:
        self._copy_all([node.manifest.config])
        for entry in node.manifest.layers:
            why = reason(entry, self._min_size)
            if known is None and why is None:
                self._tasks.setdefault((entry.digest,), replace(task, entries=(entry,)))
                self._told.setdefault(entry.digest, ZtocReport(LEFT_OUT, entry.digest, entry.size))
                continue
            self._copy_all([entry])
            ztoc = None if known is None else known.ztocs.get(entry.digest)
            if known is not None and ztoc is not None:
                span_size = known.spans[entry.digest] or None
                told = ZtocReport(KEPT, entry.digest, entry.size, ztoc.digest, ztoc.size, span_size)
            else:
                why = why or "it can have no ztoc"
                told = ZtocReport(LEFT_OUT, entry.digest, entry.size, why=why)
            self._told[entry.digest] = told

    def _bring(self, store: Store[ZtocReport], key: tuple[str, ...]) -> ZtocReport:
        return super()._bring(store, key) if self._reports[key].digest else self._reports[key]

    def make(self, store: Store[ZtocReport], helpers: Executor) -> None:
        """See Tasks.make; what is only copied is left to `copy`."""
        copies, self._copies = self._copies, {}
        super().make(store, helpers)
        self._copies = copies

    def copy(self, store: Store[ZtocReport], helpers: Executor) -> None:
        """Have all that stays as it is at the destination."""
        if self._in_place:
            return
        work = []
        for key, task in self._tasks.items():
            self._copies.pop(key[0], None)
            if not (_is_fetched(self._source) and self._is_here(store, key)):
                work.append(helpers.submit(self._bring_checked, store, task))
        for entry in self._copies.values():
            if entry.digest in self._told:
                work.append(helpers.submit(self._bring_other, store, entry))
            else:
                work.append(helpers.submit(bring_blob, self._source, self._destination, entry))
        all_of(work)

    def _bring_other(self, store: Store[ZtocReport], entry: Descriptor) -> None:
        """Have a layer at the destination of which no ztoc is made; from where it was brought for
        another image, if that may be."""
        task = replace(self._task, entries=(entry,), options=_COPIED)
        place = store.place(task)
        if place is None or not self._destination.mount_blob(entry, place):
            bring_blob(self._source, self._destination, entry)
            store.keep(task, ZtocReport(LEFT_OUT, entry.digest, entry.size))

    def _bring_checked(self, store: Store[ZtocReport], task: ZtocTask) -> None:
        """Have a layer at the destination that was seen to be right: here, or where its ztoc was
        made for. Mounted from there or, in the same file system, linked, if that may be."""
        (entry,) = task.entries
        place: ImageReference | None = store.place(task)
        if isinstance(store, LocalStore):
            origin = parse_image(self._source.name)
            place = origin if isinstance(origin, LayoutReference) else None
        if place is None or not self._destination.mount_blob(entry, place):
            bring_blob(self._source, self._destination, entry)

    def keep(self, store: Store[ZtocReport], index: SociIndex) -> None:
        """The ztocs of an index are at the destination: those that would be made here as they are
        need not be, for other images."""
        for layer in index.ztocs if index.tool == tool() else ():
            told = self._told.get(layer)
            if told is not None and told.status == KEPT and told.span_size == self._span_size:
                entry = Descriptor("", layer, told.source_size)
                store.keep(replace(self._task, entries=(entry,)), told)

    def tasks(self) -> list[ZtocTask]:
        """What is to be made."""
        return list(self._tasks.values())

    def told(self) -> tuple[ZtocReport, ...]:
        """`reports`, as if all that is to be made were left out."""
        return tuple(self._told.values())

    def ztocs(self, node: Node) -> list[Ztoc]:
        """Those of an image's layers that were made, in the order of the layers."""
        found = {}
        for entry in node.manifest.layers:
            report = self._reports.get((entry.digest,))
            if report is not None and report.digest:
                found[entry.digest] = Ztoc(report.digest, report.size, entry, self._span_size)
        return list(found.values())

    def without(self, node: Node) -> list[str]:
        """Layers of an image that were found to be able to have none."""
        found = [self._reports.get((entry.digest,)) for entry in node.manifest.layers]
        return [one.source_digest for one in found if one is not None and not one.digest]

    def reports(self) -> tuple[ZtocReport, ...]:
        """Of all layers, the distinct ones, in the order of the manifests."""
        made = {report.source_digest: report for report in super().reports()}
        return tuple({**self._told, **made}.values())

    def warnings(self) -> Iterator[str]:
        """What there is to say about them."""
        yield from super().warnings()
        small = 0
        for report in self.reports():
            if report.status != LEFT_OUT:
                continue
            if report.why == _SMALL:
                small += 1
            elif report.why != _FOREIGN:  # of which more is said above
                yield f"layer {report.source_digest} is left out: {report.why}"
        if small:
            noun = "layer is" if small == 1 else "layers are"
            yield (
                f"{small} {noun} left out: less than {self._min_size:,} bytes (--min-layer-size)"
            )


_COPIED = ZtocOptions(span_size=0)  # of layers that are only copied
_SMALL = "it is smaller than the least size"
_FOREIGN = "it may not be distributed"


def reason(entry: Descriptor, min_size: int) -> str | None:
    """Why a layer gets no ztoc, as far as its descriptor says; None if it may get one."""
    kind = layer_kind(entry)
    media_type = entry.media_type
    if kind == "foreign":
        return _FOREIGN
    if kind == "other":
        return f"it is of the kind {media_type[:100]!r}"
    if media_type.endswith(("zstd", "zst")):
        return "it is compressed by zstd, which SOCI does not read: 'stargz index' can"
    return _SMALL if entry.size < min_size else None
