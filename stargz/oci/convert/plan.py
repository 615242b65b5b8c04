"""What an image is made of, before anything of it is converted: its manifests and configs."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from stargz.errors import DigestError, FormatError, SourceError
from stargz.oci.formats.manifest import (
    INDEXES,
    KNOWN,
    MANIFESTS,
    MAX_CONFIG_SIZE,
    MAX_INDEX_NESTING,
    MAX_MANIFEST_SIZE,
    MAX_MANIFESTS,
    OCI_INDEX,
    SOCI_V2,
    Descriptor,
    Manifest,
    about,
    diff_ids,
    is_attestation,
    is_image,
    is_zstd_instance,
    kind_of,
    load_json,
)
from stargz.oci.formats.platforms import Platform, check_platform, parse_platform, platform_of
from stargz.oci.formats.selection import path_to, select
from stargz.oci.repository import Repository, is_missing

MAX_DOCUMENTS = 128 << 20  # bytes of its manifests and configs together
MAX_IMAGE = 1 << 50  # bytes of its layers together


@dataclass(slots=True, eq=False)
class Node:
    """A manifest of the image: "image" and "index" are converted, "copy" stays as it is but for
    what it says it is about, and "other", of a kind that is not known, as it is. `blob` is an
    "other" that is too large for a manifest."""

    manifest: Manifest
    kind: Literal["image", "index", "copy", "other"]
    blob: Descriptor | None = None
    children: list[tuple[Descriptor, Node]] = field(default_factory=list)  # of any index
    config: bytes = b""  # of an image
    height: int = 0  # indexes below and with this one
    zstd: bool = False  # it is the instance in zstd:chunked of an image that is to have two

    @property
    def blobs(self) -> list[Descriptor]:
        """What a manifest that is no index refers to: config and layers."""
        if self.manifest.kind == "manifest":
            return [self.manifest.config, *self.manifest.layers]
        return [self.blob] if self.blob is not None else []


@dataclass(frozen=True, slots=True)
class Plan:
    """All of an image. `nodes` are distinct, children before the indexes that list them;
    `warnings` tell what of the image is left out that was not asked to be."""

    source_digest: str
    root: Node
    nodes: list[Node]
    warnings: Sequence[str] = ()

    def images(self) -> Iterator[Node]:
        """The manifests whose layers are converted."""
        return (node for node in self.nodes if node.kind == "image")


_EMPTY = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
_PLATFORM = ("architecture", "os", "os.version", "os.features", "variant")


def stated_platform(node: Node) -> dict[str, Any] | None:
    """What an image's config says that it is for, as an index has it."""
    config = load_json(node.config, node.manifest.source)
    found = {key: config[key] for key in _PLATFORM if config.get(key)}
    return found if platform_of(found) else None


def index_of(node: Node) -> Node:
    """An index that there is not yet, of an image alone."""
    image = node.manifest
    entry: dict[str, Any] = {"mediaType": image.media_type, "digest": image.digest}
    entry["size"] = len(image.data)
    if (stated := stated_platform(node)) is not None:
        entry["platform"] = stated
    described = Descriptor(image.media_type, image.digest, len(image.data), {}, entry)
    index = Node(Manifest(b"", "", OCI_INDEX, _EMPTY, image.source), "index")
    index.children = [(described, node)]
    index.height = 1
    return index


def make_plan(
    source: Repository,
    platforms: Sequence[str],
    pool: Executor,
    *,
    listed: bool = False,
    instance: Literal["gzip", "zstd"] | None = None,
) -> Plan:
    """Read the manifests and configs of the image that `source` names, of all platforms or of
    those that are given; FormatError for what is not right about them, and what is over a limit.

    Of one platform that is its manifest alone, unless it is to stay `listed`, with what is about
    it. Of a platform that has several instances that is the first, or the first in zstd if such an
    `instance` is wanted; of several platforms they are all there if one is wanted.
    """
    wanted = tuple(dict.fromkeys(parse_platform(text) for text in platforms))
    found = source.root()
    if found.lists_blobs:
        found.check_image(source.name)
    walker = _Walker(source, pool, instance is not None)
    if len(wanted) == 1 and found.kind == "index" and not listed:
        path = path_to(found, wanted[0], source.manifest)
        if instance == "zstd":
            path[-1] = _in_zstd(path[-2], path[-1], source)
        for index in path[:-1]:
            walker.leave_out(index, path[-1])
        root = walker.walk(path[-1], False, 0, ())
    else:
        root = walker.walk(found, False, 0, wanted if found.kind == "index" else ())
    nodes = list(walker.nodes.values())
    images = [node for node in nodes if node.kind == "image"]
    for node, config in zip(images, pool.map(walker.config, images), strict=True):
        node.config = config
    if wanted and found.kind == "manifest":
        _check_platform(root, wanted)
    _check_sizes(nodes, source.name)
    return Plan(found.digest, root, nodes, walker.warnings)


def _in_zstd(index: Manifest, image: Manifest, source: Repository) -> Manifest:
    """Of an image that an index lists the instance in zstd, if there is one."""
    listed = next(entry for entry in index.manifests if entry.digest == image.digest)
    for entry in index.manifests:
        if entry.platform == listed.platform is not None and is_zstd_instance(entry):
            return source.manifest(entry)
    return image


class _Walker:
    def __init__(self, source: Repository, pool: Executor, instances: bool) -> None:
        self._source = source
        self._pool = pool
        self._instances = instances
        self.nodes: dict[tuple[str, bool, tuple[Platform, ...]], Node] = {}
        self._lock = threading.Lock()
        self._count = 0
        self._size = 0
        self.warnings: list[str] = []

    def walk(
        self, manifest: Manifest, copied: bool, depth: int, wanted: tuple[Platform, ...]
    ) -> Node:
        """The node of a manifest and, if it is an index, those below it."""
        key = manifest.digest, copied, wanted
        if key in self.nodes:
            return self.nodes[key]
        self._count += 1
        if self._count > MAX_MANIFESTS:
            raise FormatError(f"more than {MAX_MANIFESTS} manifests", self._source.name)
        self._add(len(manifest.data))
        if manifest.kind == "index":
            node = self._index(manifest, copied or manifest.is_artifact, depth, wanted)
        elif manifest.kind == "other":
            node = Node(manifest, "other")
        else:
            copied = copied or not is_image(manifest)
            node = Node(manifest, "copy" if copied else "image")
        self.nodes[key] = node
        return node

    def _index(
        self, index: Manifest, copied: bool, depth: int, wanted: tuple[Platform, ...]
    ) -> Node:
        too_deep = FormatError(
            f"more than {MAX_INDEX_NESTING} indexes one inside the other (index nesting)",
            self._source.name,
        )
        if depth >= MAX_INDEX_NESTING:
            raise too_deep
        chosen = self._choose(index, wanted)
        distinct = {
            (entry.digest, copied or is_attestation(entry), inner): entry for entry, inner in chosen
        }
        if self._count + len(distinct) > MAX_MANIFESTS:
            raise FormatError(f"more than {MAX_MANIFESTS} manifests", self._source.name)
        new = [key for key in distinct if key not in self.nodes]
        loaded = self._pool.map(partial(self._load, index), [distinct[key] for key in new])
        below = {key: self.nodes[key] for key in distinct if key in self.nodes}
        for key, manifest in zip(new, loaded, strict=True):
            below[key] = node = self.walk(manifest, key[1], depth + 1, key[2])
            if node.kind == "other" and not manifest.data:
                node.blob = distinct[key]
        node = Node(index, "copy" if copied else "index")
        node.children = [
            (entry, below[entry.digest, copied or is_attestation(entry), inner])
            for entry, inner in chosen
        ]
        node.height = 1 + max((child.height for child in below.values()), default=0)
        if node.height > MAX_INDEX_NESTING:  # by way of one that was found elsewhere before
            raise too_deep
        return node

    def _load(self, index: Manifest, entry: Descriptor) -> Manifest:
        """What an index lists."""
        try:
            if entry.media_type in KNOWN:
                return self._source.manifest(entry)
            small = entry.size <= MAX_MANIFEST_SIZE
            data = self._source.other(entry) if small else b""
        except SourceError as error:
            if not is_missing(error):
                raise
            stated = platform_of(entry.platform)
            what = f"{entry.digest}{f' ({stated})' if stated else ''}"
            raise SourceError(
                f"{index.source}: the index lists {what}, which is not there; choose platforms "
                f"that are (--platform): {error}"
            ) from error
        return Manifest(data, entry.digest, entry.media_type, {}, index.source)

    def _choose(
        self, index: Manifest, wanted: tuple[Platform, ...]
    ) -> list[tuple[Descriptor, tuple[Platform, ...]]]:
        """The entries for the platforms that are wanted, what is about them, and what of each of
        them is wanted in turn, where that is an index."""
        entries = index.manifests
        if not wanted:
            return [(entry, ()) for entry in entries]
        found: dict[str, tuple[Platform, ...]] = {}
        picked = []
        for platform in wanted:
            entry = select(index, platform, self._source.manifest)
            inner = (platform,) if entry.media_type in INDEXES else ()
            found[entry.digest] = found.get(entry.digest, ()) + inner
            picked.append(entry)
            if self._instances and entry.platform is not None:
                alike = (one for one in entries if one.platform == entry.platform)
                zstd = is_zstd_instance(entry)
                picked += [one for one in alike if is_zstd_instance(one) != zstd]
        chosen: list[tuple[Descriptor, tuple[Platform, ...]]] = []
        for entry in entries:
            if is_attestation(entry):
                whose = self._about(entry)
                if whose in found:
                    chosen.append((entry, ()))
                elif whose not in {one.digest for one in entries}:
                    self._left_out(entry, "it does not say what platform it is about")
            elif any(one.json is entry.json for one in picked):  # one may be for several platforms
                chosen.append((entry, found.get(entry.digest, ())))
        return chosen

    def leave_out(self, index: Manifest, image: Manifest) -> None:
        """Tell what is about an image that is taken out of an index."""
        for entry in index.manifests:
            if is_attestation(entry) and self._about(entry) == image.digest:
                self._left_out(entry, "of one platform its manifest alone is written")

    def _left_out(self, entry: Descriptor, why: str) -> None:
        if entry.json.get("artifactType") != SOCI_V2:  # which can be made again
            self.warnings.append(
                f"the {kind_of(entry)} {entry.digest} is left out: {why} (--platform)"
            )

    def _about(self, entry: Descriptor) -> str | None:
        """What an entry of an index is about, as that says, or itself."""
        if about(entry) is None and entry.media_type in MANIFESTS:
            with suppress(SourceError, FormatError, DigestError):
                return self._source.manifest(entry).subject
        return about(entry)

    def config(self, node: Node) -> bytes:
        """An image's config, which has to fit its layers."""
        described = node.manifest.config
        self._add(described.size)
        data = self._source.read_blob(described, MAX_CONFIG_SIZE)
        where = f"{self._source.name}: config {described.digest}"
        diff_ids(load_json(data, where), len(node.manifest.layers), where)
        return data

    def _add(self, size: int) -> None:
        with self._lock:
            self._size += size
            if self._size > MAX_DOCUMENTS:
                raise FormatError(
                    f"manifests and configs of more than {MAX_DOCUMENTS >> 20} MiB",
                    self._source.name,
                )


def _check_platform(root: Node, wanted: Sequence[Platform]) -> None:
    if root.kind != "image":
        return
    stated = platform_of(load_json(root.config, root.manifest.source))
    for platform in wanted:
        check_platform(stated, platform, root.manifest.source)


def _check_sizes(nodes: Sequence[Node], name: str) -> None:
    """One size for each digest, and none that no disk could hold."""
    sizes: dict[str, int] = {}
    for node in nodes:
        for entry in node.blobs:
            if sizes.setdefault(entry.digest, entry.size) != entry.size:
                raise FormatError(
                    f"{entry.digest} has two sizes: {sizes[entry.digest]} and {entry.size}", name
                )
    if sum(sizes.values()) > MAX_IMAGE:
        raise FormatError(f"blobs of more than {MAX_IMAGE >> 50} PiB in all", name)
