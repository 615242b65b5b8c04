"""The documents of an image that SOCI indexes of version 2 are bound to.

Of an image's manifest only those that have a new index change, and what names these by their
digests: the index that lists them, and what it lists that is about them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from stargz.oci.convert import rewrite
from stargz.oci.convert.manifests import Manifests
from stargz.oci.convert.plan import Node, Plan, index_of
from stargz.oci.convert.rewrite import Written
from stargz.oci.destination import Destination
from stargz.oci.formats import go_json
from stargz.oci.formats.manifest import (
    OCI_INDEX,
    OCI_MANIFEST,
    OCI_TYPES,
    SOCI_INDEX,
    SOCI_V2,
    Descriptor,
    Manifest,
    about,
    check_keys,
)
from stargz.oci.formats.soci import CONFIG, CONFIG_DIGEST, SociIndex, is_soci, listed, named_by
from stargz.oci.repository import Repository


class IndexedManifests(Manifests):
    """What becomes of an image's documents when each of `indexes`, by the image that it is of, is
    bound to it. `bring` has blobs of the source at the destination; those of the indexes are."""

    def __init__(
        self,
        plan: Plan,
        indexes: Mapping[Node, SociIndex],
        bring: Callable[[Sequence[Descriptor]], object],
        source: Repository,
        destination: Destination,
    ) -> None:
        there = {node.manifest.digest for node in plan.nodes}
        super().__init__(_with_indexes(plan, indexes), source, destination)
        self._indexes = indexes
        self._bring = bring
        digests = {index.manifest.digest for index in indexes.values()}
        self._new = digests - there
        self._copied = there - digests
        self.make_all()

    def _make_image(self, node: Node) -> Written:
        index = self._indexes.get(node)
        if index is None or named_by(node.manifest) == index.manifest.digest:
            return rewrite.unchanged(node.manifest)
        return bind(node.manifest, index)

    def _make_index(self, node: Node) -> Written:
        children = [
            (self._noted(entry, child), self._made[child]) for entry, child in node.children
        ]
        before = node.manifest.manifests
        changed = len(children) != len(before) or any(
            made.changed or entry.digest != old.digest
            for (entry, made), old in zip(children, before, strict=True)
        )
        media_type = OCI_INDEX if changed and node.kind == "index" else node.manifest.media_type
        return rewrite.rewrite_index(
            node.manifest, children, media_type, self._about, dump=go_json.dump
        )

    def _noted(self, entry: Descriptor, child: Node) -> Descriptor:
        """An index's entry of an image, with the annotation that the image's manifest has."""
        index = self._indexes.get(child)
        if index is None or not self._made[child].changed:
            return entry
        return entry.annotated(entry.annotations | {SOCI_INDEX: index.manifest.digest})

    def _write_blobs(self, node: Node) -> None:
        manifest = node.manifest
        if not is_soci(manifest):
            return  # the layers have them all
        if manifest.digest in self._new and manifest.config.digest == CONFIG_DIGEST:
            self._destination.write_blob(CONFIG, CONFIG_DIGEST)
        if manifest.digest in self._copied:  # of an image that is not here
            self._bring(node.blobs)


class UnchangedManifests(Manifests):
    """The documents of an image that stays as it is, or of some of its platforms."""

    def __init__(self, plan: Plan, source: Repository, destination: Destination) -> None:
        super().__init__(plan, source, destination)
        self.make_all()

    def _make_image(self, node: Node) -> Written:
        return rewrite.unchanged(node.manifest)

    def _make_index(self, node: Node) -> Written:
        children = [(entry, self._made[child]) for entry, child in node.children]
        return rewrite.rewrite_index(
            node.manifest, children, node.manifest.media_type, self._about, dump=go_json.dump
        )

    def _write_blobs(self, node: Node) -> None:
        pass  # the layers have them all


def bind(manifest: Manifest, index: SociIndex) -> Written:
    """An image's manifest that names an index, with the media types of OCI; its layers keep
    theirs."""
    check_keys(manifest.json, ("mediaType", "config", "annotations"), manifest.source)
    config = manifest.json["config"]
    kind = config.get("mediaType")
    made = {
        **manifest.json,
        "mediaType": OCI_MANIFEST,
        "config": config | {"mediaType": OCI_TYPES.get(kind, kind)} if kind else config,
        "annotations": manifest.annotations | {SOCI_INDEX: index.manifest.digest},
    }
    return rewrite.written(made, OCI_MANIFEST, manifest.source, go_json.dump)


def _with_indexes(plan: Plan, indexes: Mapping[Node, SociIndex]) -> Plan:
    """A plan whose indexes list those of SOCI too: behind the images, since clients take the first
    entry that has their platform."""
    # A manifest that is listed by several, or was listed already, is written once.
    known = {node.manifest.digest: node for node in plan.nodes if node.kind == "copy"}
    for index in indexes.values():
        known.setdefault(index.manifest.digest, Node(index.manifest, "copy"))
    for node in plan.nodes:
        if node.kind == "index":
            node.children = _children(node, indexes, known)
    root = plan.root
    if root.kind == "image" and root in indexes:
        named = named_by(root.manifest)
        root = index_of(root)
        if named:  # as it is by an index that was made with it
            root.children = [
                (entry.annotated({SOCI_INDEX: named}), child) for entry, child in root.children
            ]
        root.children = _children(root, indexes, known)
    nodes = [*plan.nodes, *(node for node in known.values() if node not in plan.nodes)]
    nodes += [] if root is plan.root else [root]
    return replace(plan, root=root, nodes=nodes)


def _children(
    node: Node, indexes: Mapping[Node, SociIndex], known: Mapping[str, Node]
) -> list[tuple[Descriptor, Node]]:
    places: dict[str, int] = {}  # of all but SOCI indexes
    there = set()
    for number, (entry, child) in enumerate(node.children):
        if child.manifest.artifact_type == SOCI_V2:
            there.add((entry.digest, about(entry)))
        else:
            places.setdefault(child.manifest.digest, number)
    added: list[tuple[Descriptor, Node]] = []
    for entry, child in node.children:
        index, image = indexes.get(child), child.manifest.digest
        if index is not None and (index.manifest.digest, image) not in there:
            # Where the image has no platform there, an index with one would be taken for the image.
            made = listed(index, image, entry.platform)
            added.append((made, known[made.digest]))
    if not added:
        return node.children
    replaced = {about(entry) for entry, _ in added}
    platforms = [entry.platform for entry, _ in added]
    kept: list[tuple[Descriptor, Node]] = []
    for entry, child in node.children:
        whose = about(entry) or ""
        if child.manifest.artifact_type != SOCI_V2:
            kept.append((entry, child))
        elif whose in places and whose not in replaced:
            added.append((entry, child))
        elif whose not in places and entry.platform not in platforms:
            kept.append((entry, child))  # else replaced by that of its platform
    # In the order of the images, whichever of them got theirs first.
    added.sort(key=lambda item: places[about(item[0]) or ""])
    return kept + added
