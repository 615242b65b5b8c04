"""The configs, manifests and indexes of a converted image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import replace
from graphlib import TopologicalSorter
from typing import Any

from stargz.errors import FormatError, RegistryError, SourceError, StargzError
from stargz.oci.convert import rewrite
from stargz.oci.convert.image_layers import ImageLayers, all_of
from stargz.oci.convert.plan import Node, Plan
from stargz.oci.convert.rewrite import Types, Written
from stargz.oci.destination import Destination
from stargz.oci.formats.manifest import (
    SOCI_INDEX,
    SOCI_V2,
    Descriptor,
    about,
    diff_ids,
    layer_kind,
    load_json,
)
from stargz.oci.formats.reference import LayoutReference, Reference, parse_image
from stargz.oci.repository import Companion, Repository

# What registries answer to a manifest of a kind that they do not know.
_NO_MANIFEST = (400, 404, 405, 415, 422)


class ImageManifests:
    """The configs, manifests and indexes of the converted image."""

    def __init__(
        self,
        plan: Plan,
        layers: ImageLayers,
        source: Repository,
        destination: Destination,
        types: Types,
    ) -> None:
        self._plan = plan
        self._layers = layers
        self._source = source
        self._destination = destination
        self._types = types
        self._configs: dict[Node, Written] = {}
        self._made: dict[Node, Written] = {}
        self._about: dict[str, Written] = {}  # what became of manifests, by their old digests
        self._relayered: set[str] = set()  # those whose layers became others
        self._companions: dict[str, Future[list[Companion]]] = {}
        self.warnings: list[str] = []
        blobs: dict[str, int] = {}
        for node in _ordered(plan.nodes):
            self._made[node] = made = self._make(node, blobs)
            if made.changed:
                self._about[node.manifest.digest] = made
        self._nodes = self._to_write()
        self.size_after: int = sum(blobs.values())
        if types is rewrite.DOCKER:
            self.warnings.append(
                "Docker's media types carry no annotations for most readers: the image will not be "
                "pulled lazily"
            )

    @property
    def changed(self) -> bool:
        """Whether anything of the image is not as it was."""
        return any(made.changed for made in self._made.values())

    def _make(self, node: Node, blobs: dict[str, int]) -> Written:
        manifest = node.manifest
        if node.kind == "image":
            return self._make_image(node, blobs)
        if manifest.kind == "index":
            media_type = manifest.media_type if node.kind == "copy" else self._types.index
            children = [(entry, self._made[child]) for entry, child in self._children(node)]
            return rewrite.rewrite_index(
                manifest, children, media_type, self._about, self._relayered
            )
        blobs.update((entry.digest, entry.size) for entry in node.blobs)
        if node.kind == "other":
            self.warnings.append(
                f"manifest {manifest.digest} is of a kind that is not known "
                f"({manifest.media_type[:100]!r}): it stays as it is, and what it refers to is not "
                "copied with it"
            )
            return rewrite.unchanged(manifest)
        return rewrite.rewrite_copy(manifest, self._about)

    def _children(self, node: Node) -> list[tuple[Descriptor, Node]]:
        """What an index goes on listing: SOCI indexes of layers that are no more are left out."""
        return [
            (entry, child)
            for entry, child in node.children
            if child.manifest.artifact_type != SOCI_V2 or about(entry) not in self._relayered
        ]

    def _to_write(self) -> list[Node]:
        """All manifests, those that are listed before what lists them."""
        left = [self._plan.root]
        found = set(left)
        while left:
            below = {child for _, child in self._children(left.pop())} - found
            found |= below
            left.extend(below)
        return [node for node in self._made if node in found]

    def _make_image(self, node: Node, blobs: dict[str, int]) -> Written:
        manifest = node.manifest
        entries = manifest.layers
        where = f"{self._source.name}: config {manifest.config.digest}"
        descriptors: list[dict[str, Any]] = []
        if self._layers.flattens(node):
            new = self._layers.new(*entries)
            assert new is not None
            ids = [new.diff_id]
            lone = entries[0] if len(entries) == 1 else Descriptor("", "", 0)
            descriptors = [rewrite.layer_descriptor(lone, new, self._types)]
            blobs[new.digest] = new.size
        else:
            ids = diff_ids(load_json(node.config, where), len(entries), where)[:]
            for number, entry in enumerate(entries):
                kind = layer_kind(entry)
                new = self._layers.new(entry) if kind == "tar" else None
                if new is None:
                    same = rewrite.unindexed_layer if kind == "tar" else rewrite.same_layer
                    descriptors.append(same(entry, self._types))
                    if kind != "foreign":
                        blobs[entry.digest] = entry.size
                    continue
                ids[number] = new.diff_id
                descriptors.append(rewrite.layer_descriptor(entry, new, self._types))
                blobs[new.digest] = new.size
        config = rewrite.rewrite_config(node.config, ids, len(entries), where)
        if not config.changed:
            config = replace(config, digest=manifest.config.digest)
        self._configs[node] = config
        blobs[config.digest] = len(config.data)
        if rewrite.other_layers(manifest, descriptors):
            self._relayered.add(manifest.digest)
            if SOCI_INDEX in manifest.annotations:
                self.warnings.append(
                    f"the SOCI index of {manifest.digest} is left out: it is about layers that "
                    "became others"
                )
        return rewrite.rewrite_manifest(manifest, config, descriptors, self._types, self._about)

    def write(self, helpers: Executor, replaces: str | None) -> str:
        """Write them all, the root last and under the destination's name; its digest.

        `replaces` is what the name must mean until then.
        """
        for node, made in self._made.items():
            if made.changed:
                digest = node.manifest.digest
                self._companions[digest] = helpers.submit(self._source.companions, digest)
        root = self._plan.root
        below = [node for node in self._nodes if node is not root]
        for height in range(root.height):
            all_of([helpers.submit(self._write, node) for node in below if node.height == height])
        self._write_blobs(root)
        if replaces is not None:
            now = self._destination.digest()
            if now not in (None, replaces):
                raise SourceError(
                    f"{self._destination.name}: it became another image ({now}) while {replaces} "
                    "was converted; convert that"
                )
        return self._write_manifest(root, named=True)

    def _write_blobs(self, node: Node) -> None:
        """What only a manifest that stays refers to."""
        if node.manifest.artifact_type == SOCI_V2:
            self._layers.bring(node.blobs)
        config = self._configs.get(node)
        if config is not None:
            self._destination.write_blob(config.data, config.digest)

    def _write(self, node: Node) -> None:
        made = self._made[node]
        if node.kind == "other":
            self._write_other(made)
            return
        self._write_blobs(node)
        self._write_manifest(node, named=False)

    def _write_manifest(self, node: Node, *, named: bool) -> str:
        made = self._made[node]
        try:
            return self._destination.write_manifest(made.data, made.media_type, named=named)
        except RegistryError as error:
            children = [child for _, child in node.children if child.kind == "other"]
            kinds = ", ".join(sorted({child.manifest.media_type for child in children}))
            if not kinds or error.status not in _NO_MANIFEST:
                raise
            raise RegistryError(
                f"{error.message}; the index lists what not all registries take ({kinds}): choose "
                "the platforms that are images (--platform)",
                error.source,
                error.status,
            ) from error

    def _write_other(self, made: Written) -> None:
        """As a manifest, if it may be one and is taken for one; else as a blob."""
        if not made.data:
            return  # it was copied as a blob
        with suppress(FormatError):
            if "schemaVersion" in load_json(made.data, made.digest):
                try:
                    self._destination.write_manifest(made.data, made.media_type, named=False)
                    return
                except RegistryError as error:
                    if error.status not in _NO_MANIFEST:
                        raise
        self._destination.write_blob(made.data, made.digest)

    def stale(self) -> tuple[Companion, ...]:
        """What is signed or said about manifests that became others."""
        found: dict[tuple[str, str], Companion] = {}
        for node in self._nodes:
            for entry, child in self._children(node):
                whose = about(entry) or child.manifest.subject
                follows = child.kind != "copy" or child.manifest.artifact_type == SOCI_V2
                if whose in self._about and not follows:
                    name = _with_digest(self._source.name, entry.digest)
                    made = Companion(name, "attestation", entry.digest)
                    found.setdefault((made.kind, entry.digest), made)
        for digest, future in self._companions.items():
            try:
                for companion in future.result():
                    found.setdefault((companion.name, companion.kind), companion)
            except (StargzError, OSError) as error:
                self.warnings.append(f"what refers to {digest} could not be found out: {error}")
        return tuple(found.values())


def _ordered(nodes: Sequence[Node]) -> Iterator[Node]:
    """Manifests behind those that they list, and that they say they are about."""
    known: dict[str, list[Node]] = {}
    for node in nodes:
        known.setdefault(node.manifest.digest, []).append(node)
    sorter = TopologicalSorter[Node]()
    for node in nodes:
        about_it = known.get(node.manifest.subject or "", ())
        sorter.add(node, *(child for _, child in node.children), *about_it)
    yield from sorter.static_order()


def _with_digest(name: str, digest: str) -> str:
    found = parse_image(name)
    if isinstance(found, Reference):
        return f"docker://{found.with_digest(digest)}"
    if isinstance(found, LayoutReference):
        return str(replace(found, ref=digest))
    return f"{name.partition('@')[0]}@{digest}"
