"""SOCI indexes that an image has already: at its source, or at the destination from before."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass

from stargz.errors import DigestError, FormatError, SourceError
from stargz.oci.convert.plan import Node, Plan
from stargz.oci.formats.manifest import Descriptor, Manifest, images
from stargz.oci.formats.soci import SociIndex, Version
from stargz.oci.indexes import indexes_of
from stargz.oci.repository import Repository
from stargz.oci.soci.layers import reason

_ERRORS = (SourceError, FormatError, DigestError)


@dataclass(frozen=True, slots=True)
class Known:
    """An index, and where its blobs are."""

    index: SociIndex
    repository: Repository


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an index must have to be kept."""

    version: Version
    min_size: int
    span_size: int | None  # None: any

    def has(self, index: SociIndex, layers: list[Descriptor]) -> bool:
        """Whether nothing would be made of these layers that the index has not."""
        needed = [entry for entry in layers if reason(entry, self.min_size) is None]
        return (
            index.version == self.version
            and any(entry.digest in index.ztocs for entry in layers)
            and all(index.fits(entry, self.span_size) for entry in needed)
        )


def known_indexes(
    plan: Plan,
    wanted: Wanted,
    source: Repository,
    destination: Repository | None,
    helpers: Executor,
) -> dict[Node, Known]:
    """The index of each image that has one as it is wanted, with all its blobs. `destination` is
    what the destination's name meant before, if that is not the source."""
    nodes = list(plan.images())
    manifests = [node.manifest for node in nodes]
    known = list(helpers.map(lambda one: _first(source, one, wanted), manifests))
    if destination is not None and None in known:
        twins = {_key(one): one for one in _images(destination)}
        found = [twins.get(_key(one)) for one in manifests]
        there = helpers.map(lambda one: one and _first(destination, one, wanted), found)
        known = [mine or theirs for mine, theirs in zip(known, there, strict=True)]
    return {node: one for node, one in zip(nodes, known, strict=True) if one is not None}


def _first(repository: Repository, manifest: Manifest, wanted: Wanted) -> Known | None:
    layers = manifest.layers
    for index in indexes_of(repository, manifest, wanted.version):
        with suppress(*_ERRORS):
            if wanted.has(index, layers) and all(map(repository.has_blob, index.blobs)):
                return Known(index, repository)
    return None


def _images(repository: Repository) -> Iterator[Manifest]:
    with suppress(*_ERRORS):
        for _, manifest in images(repository.root(), repository.manifest):
            yield manifest


def _key(manifest: Manifest) -> tuple[str, ...]:
    """What the manifest of an image and of that with an index have in common."""
    return (manifest.config.digest, *(entry.digest for entry in manifest.layers))
