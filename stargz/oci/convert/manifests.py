"""What an image's conversion writes besides layers: its configs, manifests and indexes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import replace
from graphlib import TopologicalSorter

from stargz.errors import FormatError, RegistryError, SourceError, StargzError
from stargz.oci.convert import rewrite
from stargz.oci.convert.plan import Node, Plan
from stargz.oci.convert.rewrite import Written
from stargz.oci.convert.tasks import all_of
from stargz.oci.destination import Destination
from stargz.oci.formats.manifest import SOCI_V2, Descriptor, about, load_json
from stargz.oci.formats.reference import LayoutReference, Reference, parse_image
from stargz.oci.registry.companions import Companion
from stargz.oci.repository import Repository

# What registries answer to a manifest of a kind that they do not know.
_NO_MANIFEST = (400, 404, 405, 415, 422)


class Manifests:
    """All documents of an image, what becomes of them, and their way to the destination; `make_all`
    comes first. What a subclass does with each is its own."""

    def __init__(self, plan: Plan, source: Repository, destination: Destination) -> None:
        self._plan = plan
        self._source = source
        self._destination = destination
        # Of the documents that others go on naming: all but the second instances of images.
        self._named = {node.manifest.digest for node in plan.nodes if not node.zstd}
        self._made: dict[Node, Written] = {}
        self._about: dict[str, Written] = {}  # what became of manifests, by their old digests
        self._nodes: list[Node] = []  # those that are written
        self._blobs: dict[str, int] = {}  # of the image that is made, with their sizes
        self._companions: dict[str, Future[list[Companion]]] = {}
        self.warnings: list[str] = [*plan.warnings]

    def make_all(self) -> None:
        """Have all of them made, in memory."""
        for node in _ordered(self._plan.nodes):
            self._made[node] = made = self._make(node)
            if made.changed and self._is_named(node):
                self._about[node.manifest.digest] = made
        self._nodes = self._to_write()

    def _is_named(self, node: Node) -> bool:
        """Whether what names a document by its digest is about what becomes of it here."""
        digest = node.manifest.digest  # "": it replaces none
        return bool(digest) and not (node.zstd and digest in self._named)

    def _make(self, node: Node) -> Written:
        """What becomes of a document, when those that it lists and is about are made."""
        manifest = node.manifest
        if node.kind == "image":
            return self._make_image(node)
        if manifest.kind == "index":
            return self._make_index(node)
        self._blobs.update((entry.digest, entry.size) for entry in node.blobs)
        if node.kind == "other":
            self.warnings.append(
                f"manifest {manifest.digest} is of a kind that is not known "
                f"({manifest.media_type[:100]!r}): it stays as it is, and what it refers to is not "
                "copied with it"
            )
            return rewrite.unchanged(manifest)
        return rewrite.rewrite_copy(manifest, self._about)

    def _make_image(self, node: Node) -> Written:
        raise NotImplementedError

    def _make_index(self, node: Node) -> Written:
        raise NotImplementedError

    def _children(self, node: Node) -> list[tuple[Descriptor, Node]]:
        """What an index goes on listing."""
        return node.children

    def _write_blobs(self, node: Node) -> None:
        """Have at the destination what only this document refers to, and nothing else brings."""
        raise NotImplementedError

    @property
    def size_after(self) -> int:
        """Bytes of all distinct blobs of the image that is made."""
        return sum(self._blobs.values())

    @property
    def digest(self) -> str:
        """That of the root."""
        return self._made[self._plan.root].digest

    @property
    def changed(self) -> bool:
        """Whether anything of the image is not as it was."""
        return any(made.changed for made in self._made.values())

    def _to_write(self) -> list[Node]:
        """All manifests, those that are listed before what lists them."""
        left = [self._plan.root]
        found = set(left)
        while left:
            below = {child for _, child in self._children(left.pop())} - found
            found |= below
            left.extend(below)
        return [node for node in self._made if node in found]

    def write(self, helpers: Executor, replaces: str | None) -> str:
        """Write them all, the root last and under the destination's name; its digest.

        `replaces` is what the name must mean until then.
        """
        for digest in self._about:
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
                    "was being worked on; do it again"
                )
        self._write_first()
        digest = self._write_manifest(root, named=True)
        self._write_last()
        return digest

    def _write_first(self) -> None:
        """Have at the destination what has a name of its own, and is to be there before."""

    def _write_last(self) -> None:
        """Take back what was to be there only until the name means this image."""

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
        subject = node.manifest.subject
        about_it = known.get(subject, ()) if subject else ()
        sorter.add(node, *(child for _, child in node.children), *about_it)
    yield from sorter.static_order()


def _with_digest(name: str, digest: str) -> str:
    found = parse_image(name)
    if isinstance(found, Reference):
        return f"docker://{found.with_digest(digest)}"
    if isinstance(found, LayoutReference):
        return str(replace(found, ref=digest))
    return f"{name.partition('@')[0]}@{digest}"
