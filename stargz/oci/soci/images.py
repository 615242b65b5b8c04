"""SOCI indexes of whole images: a ztoc for each layer, all platforms; no layer changes.

report = index_image("docker://host/app:1.0", "docker://host/app:1.0-soci")
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Unpack

from stargz.errors import FormatError, SourceError, UsageError
from stargz.oci.convert.call import checked, layers_made
from stargz.oci.convert.ends import (
    Ends,
    absolute,
    destination_name,
    is_same,
    open_ends,
    worker_name,
)
from stargz.oci.convert.layers import bring_blob
from stargz.oci.convert.manifests import Manifests
from stargz.oci.convert.occupied import ordinary_image, refusal
from stargz.oci.convert.plan import Node, Plan, make_plan
from stargz.oci.convert.store import LocalStore, Store
from stargz.oci.convert.tasks import is_place_of
from stargz.oci.destination import Destination
from stargz.oci.formats.manifest import OCI_MANIFEST, Descriptor, Manifest
from stargz.oci.formats.reference import (
    ArchiveReference,
    LayoutReference,
    Reference,
    parse_image,
)
from stargz.oci.formats.soci import CONFIG, TYPES, SociIndex, Version, make_index, named_by
from stargz.oci.indexes import indexes_of
from stargz.oci.registry.access import Access, Creds, shared_client
from stargz.oci.registry.companions import Companion
from stargz.oci.registry.options import AccessOptions, access_of
from stargz.oci.repository import Repository, open_repository
from stargz.oci.soci.known import Known, Wanted, known_indexes
from stargz.oci.soci.layers import INDEXED, IndexLayers, ZtocOptions, ZtocReport, ZtocTask, tool
from stargz.oci.soci.manifests import IndexedManifests, UnchangedManifests
from stargz.options import SPAN_SIZE, check_min_layer_size, check_span_size

MIN_LAYER_SIZE = 10 << 20

ZtocStore = Store[ZtocReport]


@dataclass(frozen=True, slots=True)
class ImageIndexReport:
    """What became of an image: of all platforms of it.

    `status` is "indexed", "unchanged" if all of it had an index already, or "not indexable" if no
    layer can have a ztoc: then nothing was written. `digest` is what `destination` names, and
    `indexes` the digests of the SOCI indexes, by that of the image's manifest in the source.
    """

    source: str
    destination: str
    source_digest: str
    digest: str
    status: str
    soci_version: Version
    seconds: float
    size: int  # of the ztocs, in bytes
    indexes: Mapping[str, str]
    layers: tuple[ZtocReport, ...]  # distinct ones
    stale: tuple[Companion, ...] = ()  # signatures, attestations: for the source, not for this
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {
            **asdict(self),
            "layers": [layer.to_json() for layer in self.layers],
            "stale": [asdict(companion) for companion in self.stale],
            "warnings": list(self.warnings),
        }


NOT_INDEXABLE = "not indexable"


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOptions:
    """How images are indexed, whichever they are; see `index_image`."""

    soci_version: Version = 2
    min_layer_size: int = MIN_LAYER_SIZE
    span_size: int | None = None
    platforms: tuple[str, ...] = ()
    upgrade: bool = False
    force: bool = False
    access: Access = field(default_factory=Access)
    writing: Access | None = None  # of the destination, if it is not `access`
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.soci_version not in (*TYPES,):
            raise UsageError(
                f"soci_version (--soci-version) is 1 or 2, not {self.soci_version!r:.40}"
            )
        check_min_layer_size(self.min_layer_size)
        if self.span_size is not None:
            check_span_size(self.span_size)

    @property
    def key(self) -> str:
        """A short text that is equal for options that give the same bytes of the same image."""
        made_of = [self.soci_version, self.min_layer_size, self.span_size, self.platforms, tool()]
        return hashlib.sha256(json.dumps(["soci", *made_of]).encode()).hexdigest()[:32]


def index_image(
    src: str,
    dst: str | None = None,
    *,
    soci_version: Version = 2,
    min_layer_size: int = MIN_LAYER_SIZE,
    span_size: int | None = None,
    platforms: Sequence[str] = (),
    upgrade: bool = False,
    force: bool = False,
    access: Access | None = None,
    src_creds: Creds | None = None,
    dest_creds: Creds | None = None,
    jobs: int | None = None,
    threads: int | None = None,
    executor: Executor | None = None,
    store: ZtocStore | None = None,
    progress: Callable[[Mapping[str, Any]], object] | None = None,
    **registry: Unpack[AccessOptions],
) -> ImageIndexReport:
    """Make SOCI indexes of an image with all of its platforms; see the command `stargz image
    index`.

    src: `docker://host/repo[:tag][@digest]`, `oci:DIR[:ref]`, `oci-archive:FILE[:ref]`,
        `docker-archive:FILE[:ref]` or `storage:DIR//repo[:tag]`; dst one of the first three, or
        left out with `upgrade`, which replaces the source itself, and of version 1.
    soci_version: 2 binds the indexes to the image, whose manifests change for that; 1 leaves it as
        it is, and is found by the registry's referrers.
    min_layer_size: smaller layers (in bytes, compressed) get no ztoc, and are pulled whole.
    span_size: bytes of the tar between the points at which reading can begin (default: 4 MiB; an
        index that is there is kept whatever it has).
    platforms: such as "linux/arm64"; the default is all.
    force: replace an image at dst that has no SOCI index, too: else OccupiedError.
    access, src_creds, dest_creds, jobs, threads, progress: as for `convert_image`; `executor` and
        `store` too, which make ztocs here.

    The destination is complete or untouched: the name comes last. An image that has its indexes
    already is "unchanged". Raises UsageError, RegistryError, SourceError and other OSErrors,
    FormatError and DigestError.
    """
    call = checked(
        src,
        dst,
        platforms=platforms,
        upgrade=upgrade,
        access=access_of("index_image", access, registry),
        src_creds=src_creds,
        dest_creds=dest_creds,
        jobs=jobs,
        threads=threads,
        executor=executor,
    )
    wanted = IndexOptions(
        soci_version=soci_version,
        min_layer_size=min_layer_size,
        span_size=span_size,
        platforms=call.platforms,
        upgrade=upgrade,
        force=force,
        access=call.reading,
        writing=call.writing,
        threads=call.threads,
    )
    with layers_made(store, executor, call.jobs, progress) as (made, own):
        return index_as(wanted, call.src, call.dst, made, progress, own)


def index_as(
    options: IndexOptions,
    src: str,
    dst: str | None,
    store: ZtocStore,
    progress: Callable[[Mapping[str, Any]], object] | None = None,
    ends: LocalStore[ZtocReport] | None = None,
    own: str | None = None,
) -> ImageIndexReport:
    """`index_image`, with the options in one, and what makes the ztocs, which `ends` where the
    image does not succeed. An image at dst with the digest `own` is known to be replaceable."""
    begin = time.perf_counter()
    with _opened(options, src, dst, own, ends) as work:
        return work.run(store, progress, begin)


def plan_index(
    options: IndexOptions, src: str, dst: str | None, own: str | None = None
) -> tuple[list[ZtocTask], tuple[ZtocReport, ...]]:
    """What `index_as` would have made, and all distinct layers as its report would have them if
    that were left out. Nothing is written; what it would refuse is refused."""
    with _opened(options, src, dst, own) as work:
        return work.planned()


@contextmanager
def _opened(
    options: IndexOptions,
    src: str,
    dst: str | None,
    own: str | None,
    ends: LocalStore[ZtocReport] | None = None,
) -> Iterator[_Work]:
    name = _destination(options, src, dst)
    here = dst in (None, src) or is_same(parse_image(src), parse_image(name))
    reading, writing = options.access, options.writing or options.access
    with open_ends(src, name, reading, writing, ends) as both, ExitStack() as stack:
        plan = _plan(options, both, here)
        twin = None if here else _before(name, replace(writing, mirrors=()), stack)
        there = _occupied(options, plan, both.destination, here, twin, own)
        known, broken = known_indexes(
            plan,
            Wanted(options.soci_version, options.min_layer_size, options.span_size),
            both.source,
            twin,
            both.helpers,
        )
        yield _Work(options, src, name, plan, both, here, known, there, broken)


class _Work:
    """One image, with what it is read from and written to open."""

    def __init__(
        self,
        options: IndexOptions,
        src: str,
        dst: str,
        plan: Plan,
        both: Ends,
        here: bool,
        known: Mapping[Node, Known],
        there: Manifest | None,
        warnings: Sequence[str],
    ) -> None:
        self._there = there
        self._warnings = warnings
        self._options = options
        self._src = src
        self._plan = plan
        self._both = both
        self._here = here
        self._known = known
        archived = isinstance(parse_image(dst), ArchiveReference)
        task = ZtocTask(
            absolute(src),
            absolute(worker_name(both.destination)),
            (),
            ZtocOptions(options.span_size or SPAN_SIZE),
            options.access,
            options.threads,
            options.writing,
            both.destination.name if archived else None,
        )
        self._layers = IndexLayers(
            plan,
            task,
            options.min_layer_size,
            {node: one.index for node, one in known.items()},
            both.source,
            both.destination,
            is_place_of(parse_image(src), both.destination),
            options.soci_version == 1,
        )

    def planned(self) -> tuple[list[ZtocTask], tuple[ZtocReport, ...]]:
        """See `plan_index`."""
        tasks = self._layers.tasks()
        if tasks and self._there is not None and self._options.soci_version == 2:
            raise refusal(self._both.destination, self._there, _LACKS)
        return tasks, self._layers.told()

    def run(
        self,
        store: ZtocStore,
        progress: Callable[[Mapping[str, Any]], object] | None,
        begin: float,
    ) -> ImageIndexReport:
        """Make it, and tell."""
        layers, both, plan = self._layers, self._both, self._plan
        if progress is not None:
            progress({"event": "plan", **layers.totals()})
        layers.make(store, both.helpers)
        indexes = self._indexes()
        manifests: Manifests | None = None
        digest = plan.source_digest
        warnings = [*self._warnings]
        status = NOT_INDEXABLE
        if indexes:
            made = [node for node in indexes if node not in self._known]
            status = INDEXED if made else "unchanged"
            layers.copy(store, both.helpers)
            for one in self._known.values():
                for entry in one.index.blobs:
                    bring_blob(one.repository, both.destination, entry)
                layers.keep(store, one.index)
            if self._options.soci_version == 2:
                manifests = IndexedManifests(
                    plan, indexes, layers.bring, both.source, both.destination
                )
                if self._there is not None and manifests.changed:
                    raise refusal(both.destination, self._there, _LACKS)
            else:
                manifests = UnchangedManifests(plan, both.source, both.destination)
                warnings += self._write_referrers(indexes)
            if not self._here or (status == INDEXED and self._options.soci_version == 2):
                replaces = plan.source_digest if self._here else None
                digest = manifests.write(both.helpers, replaces)
        else:
            warnings += _not_images(plan)
        return ImageIndexReport(
            source=self._src,
            destination=self._named(),
            source_digest=plan.source_digest,
            digest=digest,
            status=status,
            soci_version=self._options.soci_version,
            seconds=time.perf_counter() - begin,
            size=sum({one.digest: one.size for one in layers.reports()}.values()),
            indexes={
                node.manifest.digest: index.manifest.digest for node, index in indexes.items()
            },
            layers=layers.reports(),
            stale=() if manifests is None else manifests.stale(),
            warnings=(*layers.warnings(), *(manifests.warnings if manifests else ()), *warnings),
        )

    def _indexes(self) -> dict[Node, SociIndex]:
        """The index of each image that has a layer with a ztoc."""
        found = {node: one.index for node, one in self._known.items()}
        for node in self._plan.images():
            ztocs = self._layers.ztocs(node)
            if node in found or not ztocs:
                continue
            manifest = node.manifest
            subject = None
            if self._options.soci_version == 1:
                subject = Descriptor(manifest.media_type, manifest.digest, len(manifest.data))
            without = self._layers.without(node)
            found[node] = make_index(ztocs, tool(), subject, without, manifest.source)
        return found

    def _named(self) -> str:
        """What has the indexes now, by a name that it has: not every digest has a tag."""
        place = parse_image(self._src)
        by_digest = isinstance(place, Reference) and place.digest
        unnamed = self._here and self._options.soci_version == 1 and by_digest
        return self._src if unnamed else self._both.destination.name

    def _write_referrers(self, indexes: Mapping[Node, SociIndex]) -> list[str]:
        """Have indexes of version 1 at the destination; what there is to say."""
        warnings = []
        for node, index in indexes.items():
            if self._here and node in self._known:
                continue
            if node not in self._known:
                self._both.destination.write_blob(CONFIG, index.manifest.config.digest)
            data = index.manifest.data
            others = self._both.destination.write_referrer(data, OCI_MANIFEST, TYPES[1])
            warnings += [
                f"{node.manifest.digest} has another SOCI index, {other}, which readers may take "
                "instead: delete it"
                for other in others
            ]
        return warnings


def _destination(options: IndexOptions, src: str, dst: str | None) -> str:
    """What is written to."""
    if options.soci_version == 2:
        if dst is None and not options.upgrade:
            raise UsageError(
                f"{src}: an index of version 2 changes the image: name a DST, or replace SRC "
                "(--upgrade); one of version 1 (--soci-version 1) does not"
            )
        return destination_name(src, dst, options.upgrade)
    place = parse_image(src)
    if dst not in (None, src) and not is_same(place, parse_image(dst)):
        return destination_name(src, dst, False)
    if isinstance(place, Reference):
        return f"docker://{replace(place, digest=None)}"
    if isinstance(place, LayoutReference):
        return src
    raise UsageError(f"{src}: nothing can be added to it; name a DST")


def _plan(options: IndexOptions, both: Ends, here: bool) -> Plan:
    """What the image is made of. Where it is replaced, those of its platforms stay as they are
    that are not asked for."""
    plan = make_plan(both.source, options.platforms, both.helpers, listed=True)
    if not (here and options.platforms):
        return plan
    chosen = {node.manifest.digest for node in plan.images()}
    plan = make_plan(both.source, (), both.helpers)
    for node in plan.images():
        if node.manifest.digest not in chosen:
            node.kind = "copy"
    return plan


def _not_images(plan: Plan) -> list[str]:
    """Of manifests that have layers, and none of a kind that images have; if there is no other."""
    if any(plan.images()):
        return []
    return [
        f"manifest {node.manifest.digest} is no image: "
        + (
            f"it is an artifact ({node.manifest.artifact_type[:100]!r})"
            if node.manifest.is_artifact
            else f"its layers are of the kind {node.manifest.layers[0].media_type[:100]!r}"
        )
        for node in plan.nodes
        if node.kind == "copy" and node.manifest.kind == "manifest" and node.manifest.layers
    ]


_LACKS = "it has no SOCI index"


def _before(name: str, access: Access, stack: ExitStack) -> Repository | None:
    """The image that the destination's name means, to be read; None where there is none."""
    try:
        client = stack.enter_context(shared_client(access))
        return stack.enter_context(open_repository(name, client=client))
    except (SourceError, FormatError):
        return None


def _occupied(
    options: IndexOptions,
    plan: Plan,
    destination: Destination,
    here: bool,
    twin: Repository | None,
    own: str | None,
) -> Manifest | None:
    """What would be replaced and has no SOCI index, if that is a copy of the source: another is
    refused."""
    if options.force or (here and options.soci_version == 1):
        return None

    def is_made(manifest: Manifest) -> bool:
        if options.soci_version == 2:
            return named_by(manifest) is not None
        return twin is not None and any(indexes_of(twin, manifest, 1))

    known = plan.source_digest if here else own
    there = ordinary_image(destination, known, is_made)
    if here:
        return None  # if it is another by now, `write` tells
    if there is not None and there.digest != plan.source_digest:
        raise refusal(destination, there, _LACKS)
    return there
