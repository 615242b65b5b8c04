"""The configs, manifests and indexes of a converted image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from stargz.digests import digest_of
from stargz.errors import StargzError
from stargz.oci.convert import rewrite
from stargz.oci.convert.former_tocs import former_tocs
from stargz.oci.convert.image_layers import ImageLayers
from stargz.oci.convert.instances import mark, told
from stargz.oci.convert.manifests import Manifests
from stargz.oci.convert.plan import Node, Plan
from stargz.oci.convert.rewrite import Types, Written
from stargz.oci.destination import Destination
from stargz.oci.formats.manifest import (
    EXTERNAL,
    MAX_LAYERS,
    OCI_ZSTD_LAYER,
    SOCI_INDEX,
    SOCI_V2,
    Descriptor,
    about,
    diff_ids,
    layer_kind,
    load_json,
)
from stargz.oci.registry.companions import Companion
from stargz.oci.repository import Repository


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
        self._both = any(node.zstd for node in plan.nodes)
        self.make_all()
        self._layer_tocs = tocs = layers.tocs()
        self._blobs.update((toc.digest, toc.size) for toc in tocs.values())
        self._tocs = rewrite.toc_image(tocs, destination.name) if tocs else None
        self._tocs_there = ""  # the digest of what is written of them
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
        digest = self._tocs_there or self._tocs.digest
        return Companion(f"{self._destination.name}{EXTERNAL}", "external TOCs", digest)

    @property
    def new_tocs(self) -> bool:
        """Whether the source has not just these external TOCs."""
        if self._tocs is None:
            return False
        there = self._source.external()
        return there is None or there.digest != self._tocs.digest

    def _write_first(self) -> None:
        """The external TOCs, with those of the image that has the name until it has another: if
        that does not come about, it is read as before."""
        if self._tocs is None:
            return
        self._destination.write_blob(rewrite.NO_CONFIG, digest_of(rewrite.NO_CONFIG))
        first = self._tocs
        if not self._destination.at_once:
            mine, room = self._layer_tocs, MAX_LAYERS - len(self._layer_tocs)
            others = former_tocs(self._destination).items()
            kept = [(layer, toc) for layer, toc in others if layer not in mine][:room]
            first = rewrite.toc_image({**mine, **dict(kept)}, self._destination.name)
        self._write_tocs(first)

    def _write_last(self) -> None:
        """They alone."""
        if self._tocs is None or self._tocs_there == self._tocs.digest:
            return
        try:
            self._write_tocs(self._tocs)
        except (StargzError, OSError) as error:  # the image is there, and read
            self.warnings.append(
                f"{self._destination.name}{EXTERNAL} still has TOCs of the image that was replaced "
                f"too, which does no harm: {error}"
            )

    def _write_tocs(self, tocs: Written) -> None:
        self._tocs_there = self._destination.write_manifest(
            tocs.data, tocs.media_type, named=True, suffix=EXTERNAL
        )

    def _make_index(self, node: Node) -> Written:
        media_type = node.manifest.media_type if node.kind == "copy" else self._types.index
        children = []
        firsts: dict[tuple[str, str], str] = {}
        listed = self._children(node)
        ordinary = {self._made[child].digest for _, child in listed if not child.zstd}
        for entry, child in listed:
            described, made = self._marked(entry, child), self._made[child]
            if child.zstd and made.digest in ordinary:
                continue  # no layer is in zstd: there is one image
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
        return mark(entry, child in self._zstd and (child.zstd or not self._both))

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
                if new.same_tar and ids[number] != new.diff_id:
                    self.warnings.append(
                        f"layer {entry.digest}: the config {manifest.config.digest} gave it the "
                        f"DiffID {ids[number][:100]}, which is not that of its tar: it is set right"
                    )
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
