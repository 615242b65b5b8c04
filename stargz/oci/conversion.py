"""Whole images: every layer seekable, configs and manifests rewritten to match.

report = convert_image("docker://host/app:1.0", "docker://host/app:1.0-lazy")
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Unpack

from stargz.conversion import not_prioritized
from stargz.errors import (
    DigestError,
    EntryNotFoundError,
    UnindexableError,
    UnverifiedError,
    UsageError,
)
from stargz.oci.convert import rewrite
from stargz.oci.convert.call import checked, layers_made
from stargz.oci.convert.ends import (
    absolute,
    check_toc_image,
    destination_name,
    is_same,
    open_ends,
    worker_name,
)
from stargz.oci.convert.image_layers import ImageLayers
from stargz.oci.convert.image_manifests import ImageManifests
from stargz.oci.convert.instances import with_instances, with_one
from stargz.oci.convert.layers import LayerReport, LayerTask
from stargz.oci.convert.occupied import check_free, ordinary_image, perhaps_own, refusal
from stargz.oci.convert.options import LayerOptions, layer_options
from stargz.oci.convert.plan import Plan, make_plan
from stargz.oci.convert.store import LayerStore, LocalStore
from stargz.oci.formats.reference import ArchiveReference, parse_image
from stargz.oci.registry.access import Access, Creds
from stargz.oci.registry.companions import Companion
from stargz.oci.registry.options import AccessOptions, access_of
from stargz.oci.repository import Repository
from stargz.options import Format, Level, check_max_sparse, check_memory, is_zstd
from stargz.paths import Name, several

__all__ = ["ImageReport", "LayerStore", "convert_image"]

_PARALLEL = 8  # small things that are read and written at the same time: manifests, configs


@dataclass(frozen=True, slots=True)
class ImageReport:
    """What became of an image: of all platforms of it."""

    source: str
    destination: str
    source_digest: str
    digest: str
    status: str  # "converted", or "unchanged": it and its external TOCs are those of the source
    seconds: float
    size_before: int  # of all distinct blobs, in bytes
    size_after: int
    layers: tuple[LayerReport, ...]  # distinct ones, in the order of the manifests
    stale: tuple[Companion, ...] = ()  # signatures, attestations: for the source, not for this
    missing: tuple[str, ...] = ()  # prioritized paths that no layer has
    warnings: tuple[str, ...] = field(default=())
    toc_image: Companion | None = None  # has the external TOCs, and is found by its name alone

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {
            **asdict(self),
            "layers": [layer.to_json() for layer in self.layers],
            "stale": [asdict(companion) for companion in self.stale],
            "missing": list(self.missing),
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOptions:
    """How images are converted, whichever they are; see `convert_image`."""

    layers: LayerOptions = field(default_factory=LayerOptions)
    platforms: tuple[str, ...] = ()
    flatten: bool = False
    allow_missing: bool = False
    docker_types: bool = False
    upgrade: bool = False
    verify: bool = False
    strict: bool = False
    both: bool = False
    access: Access = field(default_factory=Access)
    threads: int | None = None
    memory: int | None = None
    max_sparse: int | None = None
    force: bool = False
    writing: Access | None = None  # of the destination, if it is not `access`

    def __post_init__(self) -> None:
        if self.both and self.layers.format not in (None, "estargz", "zstd:chunked"):
            raise UsageError(
                "both (--both) are images as eStargz and in zstd:chunked: no other format "
                f"(--format), such as {self.layers.format!r:.40}, with it"
            )
        self.first.filled()  # UsageError
        if self.second is not None:
            self.second.filled()
        if self.docker_types and self.needs_annotations:
            what = "both (--both)" if self.both else f"format (--format) {self.layers.format}"
            raise UsageError(
                f"{what} needs OCI's media types, as others lose the digests of the TOCs: no "
                "docker_types (--docker-types) with it"
            )
        check_memory(self.memory)
        check_max_sparse(self.max_sparse)

    @property
    def external(self) -> bool:
        """Whether TOCs are kept apart from the image."""
        return self.layers.format == "external-toc"

    @property
    def needs_annotations(self) -> bool:
        """Whether nothing reads the layers by parts without what OCI's manifests say of them."""
        format = self.layers.format
        return self.both or self.external or (format is not None and is_zstd(format))

    @property
    def first(self) -> LayerOptions:
        """How the layers are made of each image; of `both`, those of the instance in gzip."""
        return replace(self.layers, format=None, gzip=True) if self.both else self.layers

    @property
    def second(self) -> LayerOptions | None:
        """How those of the instance in zstd are made, if there are to be `both`. It keeps the
        tar, in whose order nothing can come first."""
        if not self.both:
            return None
        level, size = self.layers.level, self.layers.chunk_size
        return LayerOptions(None if level == "reuse" else level, size, format="zstd:chunked")

    @property
    def key(self) -> str:
        """A short text that is equal for options that give the same bytes of the same image."""
        made_of = [self.first.key, self.platforms, self.flatten, self.docker_types]
        made_of += [name for name in ("strict", "both") if getattr(self, name)]
        text = json.dumps(made_of)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def convert_image(
    src: str,
    dst: str | None = None,
    *,
    options: LayerOptions | None = None,
    level: Level | None = None,
    chunk_size: int | None = None,
    min_chunk_size: int | None = None,
    prioritized: Iterable[Name] = (),
    lossless: bool = False,
    format: Format | None = None,
    platforms: Sequence[str] = (),
    flatten: bool = False,
    allow_missing: bool = False,
    docker_types: bool = False,
    upgrade: bool = False,
    verify: bool = False,
    strict: bool = False,
    both: bool = False,
    force: bool = False,
    access: Access | None = None,
    src_creds: Creds | None = None,
    dest_creds: Creds | None = None,
    jobs: int | None = None,
    threads: int | None = None,
    memory: int | None = None,
    max_sparse: int | None = None,
    executor: Executor | None = None,
    store: LayerStore | None = None,
    progress: Callable[[Mapping[str, Any]], object] | None = None,
    **registry: Unpack[AccessOptions],
) -> ImageReport:
    """Convert an image with all of its platforms; see the command `stargz image convert`.

    src: `docker://host/repo[:tag][@digest]`, `oci:DIR[:ref]`, `oci-archive:FILE[:ref]`,
        `docker-archive:FILE[:ref]` or `storage:DIR//repo[:tag]`; dst one of the first three, or
        left out with `upgrade`, which replaces the source itself.
    force: replace an image at dst that is not seekable, too, or an archive with other contents:
        else OccupiedError. Seekable ones, as this function makes them, are replaced as they are.
    level, chunk_size, min_chunk_size, prioritized, lossless, format: as for `stargz.convert`, or in
        one as `options`. With any of them but `format` layers are converted again that are in the
        format already; without, those are kept whose TOC is verified against their tar.
    platforms: such as "linux/arm64"; the default is all. Of one, its manifest alone is written, of
        several an index of them.
    flatten: one layer for each platform, of all its layers.
    allow_missing: prioritized paths that no layer of the image has are reported, not an error.
    docker_types: write Docker's media types, which lazy pulling does not work with.
    verify: check what was written, by reading it again.
    strict: a layer that a TOC cannot hold is an error; else it stays as it is, or of zstd:chunked
        becomes plain zstd, with a warning.
    both: an index of two instances of each image: first the one as eStargz, last, for clients that
        know of it, the one in zstd:chunked. Each layer is read for either.
    access: how registries are reached. src_creds, dest_creds: the account for the registry of src,
        or of dst: "user:password", or (user, password); it is sent there, to the
        token server that this registry names, and to no other host. With `upgrade` one is enough.
    jobs: layers at the same time (default: one for each core, at most 8); threads: of each.
    memory, max_sparse: of each layer, as for `stargz.convert`.
    executor: runs the conversions of layers, in threads, processes or on other machines; `store`
        decides instead which layers there are already. Neither is shut down here.
    progress: gets events, from any thread: {"event": "plan", "layers", "bytes"} once, {"event":
        "layer", "digest", "done", "total"} in compressed bytes at most some tens of times a second
        for each layer, {"event": "layer-done", ...} with the fields of LayerReport.

    The destination is complete or untouched: the name comes last. Raises UsageError,
    RegistryError, SourceError and other OSErrors, FormatError and DigestError (also of `verify`,
    when the name is there already), EntryNotFoundError for a prioritized path. KeyboardInterrupt
    ends all conversions at once.
    """
    names = several(prioritized, "prioritized")
    given = LayerOptions(level, chunk_size, min_chunk_size, names, lossless, format)
    options = layer_options(options, given)
    call = checked(
        src,
        dst,
        platforms=platforms,
        upgrade=upgrade,
        access=access_of("convert_image", access, registry),
        src_creds=src_creds,
        dest_creds=dest_creds,
        jobs=jobs,
        threads=threads,
        executor=executor,
    )
    wanted = ImageOptions(
        layers=options,
        platforms=call.platforms,
        flatten=flatten,
        allow_missing=allow_missing,
        docker_types=docker_types,
        upgrade=upgrade,
        verify=verify,
        strict=strict,
        both=both,
        access=call.reading,
        threads=call.threads,
        memory=memory,
        max_sparse=max_sparse,
        force=force,
        writing=call.writing,
    )
    with layers_made(store, executor, call.jobs, progress) as (made, own):
        return convert_as(wanted, call.src, call.dst, made, progress, own)


def convert_as(
    options: ImageOptions,
    src: str,
    dst: str | None,
    store: LayerStore,
    progress: Callable[[Mapping[str, Any]], object] | None = None,
    ends: LocalStore[LayerReport] | None = None,
    own: str | None = None,
) -> ImageReport:
    """`convert_image`, with the options in one, and what makes the layers, which `ends` where the
    image does not succeed. An image at dst with the digest `own` is known to be replaceable."""
    begin = time.perf_counter()
    dst = destination_name(src, dst, options.upgrade)
    if options.external:
        check_toc_image(dst)
    types = rewrite.DOCKER if options.docker_types else rewrite.OCI
    reading, writing = options.access, options.writing or options.access
    with open_ends(src, dst, reading, writing, ends) as both:
        source, destination, helpers = both.source, both.destination, both.helpers
        plan = planned(options, source, helpers)
        replaced = options.upgrade and is_same(parse_image(src), parse_image(dst))
        known = plan.source_digest if replaced else own
        there = None
        if replaced and not options.force:
            # An archive may have more in it. If it is another image by now, `write` tells.
            ordinary_image(destination, known)
        elif not options.force:
            there = perhaps_own(destination, known, plan)
        if options.external and not options.force:
            check_free(destination)
        names = absolute(src), absolute(worker_name(destination))
        limits = options.threads, options.memory, options.max_sparse
        task = LayerTask(
            *names,
            (),
            options.first,
            options.access,
            *limits,
            writing=options.writing,
            within=destination.name if isinstance(parse_image(dst), ArchiveReference) else None,
        )
        layers = ImageLayers(plan, task, source, destination, options.flatten, options.second)
        if progress is not None:
            progress({"event": "plan", **layers.totals()})
        layers.make(store, helpers)
        left = layers.not_seekable()
        if left is not None and options.strict:
            raise UnindexableError(
                f"a TOC cannot hold it, and --strict asks for one of each layer: "
                f"{left.unfit or left.warnings[-1]}",
                f"{src}: layer {left.source_digest}",
            )
        missing = layers.missing()
        if missing and not options.allow_missing:
            raise _not_found(missing[0], src)
        images = ImageManifests(plan, layers, source, destination, types)
        if there is not None and there.digest != images.digest:
            raise refusal(destination, there)
        changed = images.changed or images.new_tocs
        digest = images.write(helpers, plan.source_digest if replaced else None)
        report = ImageReport(
            source=src,
            destination=destination.name,
            source_digest=plan.source_digest,
            digest=digest,
            status="converted" if changed else "unchanged",
            seconds=time.perf_counter() - begin,
            size_before=layers.size_before,
            size_after=images.size_after,
            layers=layers.reports(),
            stale=images.stale(),
            missing=missing,
            warnings=(*layers.warnings(), *images.warnings),
            toc_image=images.toc_image,
        )
    if options.verify:
        check_image(report.destination, options.writing or options.access, report.digest)
        report = replace(report, seconds=time.perf_counter() - begin)
    return report


def planned(options: ImageOptions, source: Repository, helpers: Executor) -> Plan:
    """What the image is made of that is to be made."""
    both, zstd = options.both, is_zstd(options.layers.format or "estargz")
    plan = make_plan(
        source, options.platforms, helpers, listed=both, instance="zstd" if zstd else "gzip"
    )
    return with_instances(plan) if both else with_one(plan, zstd)


# --- what is found ------------------------------------------------------------------------


def _not_found(path: str, src: str) -> EntryNotFoundError:
    error = EntryNotFoundError(path, src)
    error.args = (f"{src}: no layer of the image has {path!r}, which is to be prioritized",)
    return not_prioritized(error)


def check_image(name: str, access: Access, digest: str | None = None) -> None:
    """Read an image that was written, and check it: DigestError, UnverifiedError."""
    from stargz.oci.verify.image import verify_image

    result = verify_image(name, access=replace(access, mirrors=()))
    there = f"{name}: it was written, but is not right"
    if digest is not None and result.digest != digest:
        raise DigestError("the image", digest, result.digest, there)
    if not result.ok:
        first = result.errors[0]
        where = " ".join(filter(None, (first.image, first.layer, first.name)))
        more = f" ({result.error_count} errors)" if result.error_count > 1 else ""
        raise UnverifiedError(f"{there}: {where}: {first.message}{more}")
