"""The configs, manifests and indexes of a converted image."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from dataclasses import replace
from typing import Any

from stargz.errors import SourceError, StargzError
from stargz.oci.convert import rewrite
from stargz.oci.convert.image_layers import ImageLayers, all_of
from stargz.oci.convert.plan import Node, Plan
from stargz.oci.convert.rewrite import Types, Written
from stargz.oci.destination import Destination
from stargz.oci.formats.manifest import Descriptor, diff_ids, layer_kind, load_json
from stargz.oci.formats.reference import LayoutReference, Reference, parse_image
from stargz.oci.repository import Companion, Repository


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
        self._about: dict[str, str] = {}  # the new digests of manifests by their old ones
        self._companions: dict[str, Future[list[Companion]]] = {}
        self.warnings: list[str] = []
        blobs: dict[str, int] = {}
        for node in plan.nodes:  # children first
            self._made[node] = made = self._make(node, blobs)
            if made.changed:
                self._about[node.manifest.digest] = made.digest
        self.size_after = sum(blobs.values())
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
        if node.kind == "copy":
            blobs.update((entry.digest, entry.size) for entry in node.blobs)
            same = node.manifest
            return Written(same.data, same.media_type, same.digest, False)
        if node.kind == "index":
            # Those that attestations are about may come behind them.
            children = [(entry, self._made[child]) for entry, child in node.children]
            return rewrite.rewrite_index(node.manifest, children, self._types, self._about)
        return self._make_image(node, blobs)

    def _make_image(self, node: Node, blobs: dict[str, int]) -> Written:
        manifest = node.manifest
        entries = manifest.layers
        where = f"{self._source.name}: config {manifest.config.digest}"
        descriptors: list[dict[str, Any]] = []
        if self._layers.flattens(node):
            new = self._layers.new(*entries)
            assert new is not None
            ids = [new.diff_id]
            blank = Descriptor("", "", 0)
            descriptors = [rewrite.layer_descriptor(blank, new, self._types)]
            blobs[new.digest] = new.size
        else:
            ids = diff_ids(load_json(node.config, where), len(entries), where)[:]
            for number, entry in enumerate(entries):
                new = self._layers.new(entry) if layer_kind(entry) == "tar" else None
                if new is None:
                    descriptors.append(entry.json)
                    if layer_kind(entry) != "foreign":
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
        return rewrite.rewrite_manifest(manifest, config, descriptors, self._types)

    def write(self, helpers: Executor, replaces: str | None) -> str:
        """Write them all, the root last and under the destination's name; its digest.

        `replaces` is what the name must mean until then.
        """
        for node, made in self._made.items():
            if made.changed:
                digest = node.manifest.digest
                self._companions[digest] = helpers.submit(self._source.companions, digest)
        root = self._plan.root
        below = [node for node in self._plan.nodes if node is not root]
        for height in range(root.height):
            all_of([helpers.submit(self._write, node) for node in below if node.height == height])
        self._write_config(root)
        if replaces is not None:
            now = self._destination.digest()
            if now not in (None, replaces):
                raise SourceError(
                    f"{self._destination.name}: it became another image ({now}) while {replaces} "
                    "was converted; convert that"
                )
        made = self._made[root]
        return self._destination.write_manifest(made.data, made.media_type, named=True)

    def _write_config(self, node: Node) -> None:
        config = self._configs.get(node)
        if config is not None:
            self._destination.write_blob(config.data, config.digest)

    def _write(self, node: Node) -> None:
        self._write_config(node)
        made = self._made[node]
        self._destination.write_manifest(made.data, made.media_type, named=False)

    def stale(self) -> tuple[Companion, ...]:
        """What is signed or said about manifests that became others."""
        found: dict[tuple[str, str], Companion] = {}
        for node in self._plan.nodes:
            for entry, child in node.children:
                about = entry.annotations.get(rewrite.REFERENCE_DIGEST)
                if about in self._about and child.kind == "copy":
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


def _with_digest(name: str, digest: str) -> str:
    found = parse_image(name)
    if isinstance(found, Reference):
        return f"docker://{found.with_digest(digest)}"
    if isinstance(found, LayoutReference):
        return str(replace(found, ref=digest))
    return f"{name.partition('@')[0]}@{digest}"
