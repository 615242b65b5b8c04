"""The configs, manifests and indexes of a converted image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from stargz.digests import digest_of
from stargz.oci.convert import rewrite
from stargz.oci.convert.image_layers import ImageLayers
from stargz.oci.convert.instances import mark, told
from stargz.oci.convert.manifests import Manifests
from stargz.oci.convert.plan import Node, Plan
from stargz.oci.convert.rewrite import Types, Written
from stargz.oci.destination import Destination
from stargz.oci.formats.manifest import (
    EXTERNAL,
    OCI_ZSTD_LAYER,
    SOCI_INDEX,
    SOCI_V2,
    Descriptor,
    about,
    diff_ids,
    layer_kind,
    load_json,
)
from stargz.oci.repository import Companion, Repository


class ImageManifests(Manifests):
    """The configs, manifests and indexes of the converted image."""

    def __init__(
        self,
        plan: Plan,
        layers: ImageLayers,
        source: Repository,
        destination: Destination,
        types: Types,
    ) -> None:
        super().__init__(plan, source, destination)
        self._layers = layers
        self._types = types
        self._configs: dict[Node, Written] = {}
        self._relayered: set[str] = set()  # those whose layers became others
        self._zstd: set[Node] = set()  # images that have layers in zstd
        self.make_all()
        tocs = layers.tocs()
        self._blobs.update((toc.digest, toc.size) for toc in tocs.values())
        self._tocs = rewrite.toc_image(tocs, destination.name) if tocs else None
        if types is rewrite.DOCKER:
            self.warnings.append(
                "Docker's media types carry no annotations for most readers: the image will not be "
                "pulled lazily"
            )

    @property
    def toc_image(self) -> Companion | None:
        """The image of external TOCs that is written beside this one."""
        if self._tocs is None:
            return None
        return Companion(f"{self._destination.name}{EXTERNAL}", "external TOCs", self._tocs.digest)

    def _write_first(self) -> None:
        if self._tocs is not None:
            self._destination.write_blob(rewrite.NO_CONFIG, digest_of(rewrite.NO_CONFIG))
            self._destination.write_manifest(
                self._tocs.data, self._tocs.media_type, named=True, suffix=EXTERNAL
            )

    def _make_index(self, node: Node) -> Written:
        media_type = node.manifest.media_type if node.kind == "copy" else self._types.index
        children = []
        firsts: dict[tuple[str, str], str] = {}
        for entry, child in self._children(node):
            described, made = self._marked(entry, child), self._made[child]
            # The instances of an image in gzip and in zstd may have become one.
            if firsts.setdefault((made.digest, told(described)), entry.digest) == entry.digest:
                children.append((described, made))
        return rewrite.rewrite_index(
            node.manifest, children, media_type, self._about, self._relayered
        )

    def _marked(self, entry: Descriptor, child: Node) -> Descriptor:
        """An index's entry of an image, with what it says of those that have layers in zstd."""
        if child.kind != "image" or self._types is rewrite.DOCKER:
            return entry
        return mark(entry, child in self._zstd)

    def _children(self, node: Node) -> list[tuple[Descriptor, Node]]:
        """What an index goes on listing: SOCI indexes of layers that are no more are left out."""
        return [
            (entry, child)
            for entry, child in node.children
            if child.manifest.artifact_type != SOCI_V2 or about(entry) not in self._relayered
        ]

    def _make_image(self, node: Node) -> Written:
        manifest, blobs = node.manifest, self._blobs
        entries = manifest.layers
        where = f"{self._source.name}: config {manifest.config.digest}"
        descriptors: list[dict[str, Any]] = []
        if self._layers.flattens(node):
            new = self._layers.new(node, *entries)
            assert new is not None
            ids = [new.diff_id]
            lone = entries[0] if len(entries) == 1 else Descriptor("", "", 0)
            descriptors = [rewrite.layer_descriptor(lone, new, self._types)]
            blobs[new.digest] = new.size
        else:
            ids = diff_ids(load_json(node.config, where), len(entries), where)[:]
            for number, entry in enumerate(entries):
                kind = layer_kind(entry)
                new = self._layers.new(node, entry) if kind == "tar" else None
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
        if any(layer.get("mediaType") == OCI_ZSTD_LAYER for layer in descriptors):
            self._zstd.add(node)
        if self._is_named(node) and rewrite.other_layers(manifest, descriptors):
            self._relayered.add(manifest.digest)
            if SOCI_INDEX in manifest.annotations:
                self.warnings.append(
                    f"the SOCI index of {manifest.digest} is left out: it is about layers that "
                    "became others"
                )
        return rewrite.rewrite_manifest(manifest, config, descriptors, self._types, self._about)

    def _write_blobs(self, node: Node) -> None:
        """What only a manifest that stays refers to."""
        if node.manifest.artifact_type == SOCI_V2:
            self._layers.bring(node.blobs)
        config = self._configs.get(node)
        if config is not None:
            self._destination.write_blob(config.data, config.digest)
