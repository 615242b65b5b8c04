"""SOCI indexes that an image has already: at its source, or at the destination from before."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass

from stargz.errors import DigestError, FormatError, RegistryError, SourceError
from stargz.oci.convert.plan import Node, Plan
from stargz.oci.formats.manifest import Descriptor, Manifest
from stargz.oci.formats.selection import images
from stargz.oci.formats.soci import SociIndex, Version
from stargz.oci.indexes import indexes_of, read_ztoc
from stargz.oci.repository import Repository
from stargz.oci.soci.layers import reason
from stargz.options import MAX_TOC_SIZE

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
) -> tuple[dict[Node, Known], list[str]]:
    """The index of each image that has one as it is wanted, with all its blobs, whose ztocs are of
    the image's layers; and what there is to say of those that are not so. `destination` is
    what the destination's name meant before, if that is not the source."""
    nodes = list(plan.images())
    manifests = [node.manifest for node in nodes]
    look = _Look(wanted)
    known = list(helpers.map(lambda one: look.first(source, one), manifests))
    if destination is not None and None in known:
        twins = {_key(one): one for one in _images(destination)}
        found = [twins.get(_key(one)) for one in manifests]
        there = helpers.map(lambda one: one and look.first(destination, one), found)
        known = [mine or theirs for mine, theirs in zip(known, there, strict=True)]
    made = {node: one for node, one in zip(nodes, known, strict=True) if one is not None}
    return made, list(look.warnings)


class _Look:
    """Looks for an index as it is wanted; any number of threads may use it."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self.warnings: dict[str, None] = {}
        self._turns: dict[str, threading.Lock] = {}  # of ztocs, which platforms may share
        self._right: set[tuple[str, str, str]] = set()

    def first(self, repository: Repository, manifest: Manifest) -> Known | None:
        """The first of an image that is of use."""

        def tell(digest: str, error: Exception) -> None:
            if _is_unknown(error):
                raise error  # it may be as it is wanted: nothing large is read for another
            where = f"the SOCI index {digest} of {repository.name}"
            self.warnings[f"{where} is not used: {error}"] = None

        layers = manifest.layers
        for index in indexes_of(repository, manifest, self._wanted.version, broken=tell):
            if self._wanted.has(index, layers):
                try:
                    self._check(repository, index, layers)
                except _ERRORS as error:
                    tell(index.manifest.digest, error)
                else:
                    return Known(index, repository)
        return None

    def _check(self, repository: Repository, index: SociIndex, layers: list[Descriptor]) -> None:
        """Whether all of an index is there, as far as can be told without the layers: that its
        ztocs tell the truth is for `stargz verify`."""
        read = set()
        for layer in layers:
            entry = index.ztocs.get(layer.digest)
            if entry is not None:
                read.add(entry.digest)
                key = repository.name, entry.digest, layer.digest
                with self._turns.setdefault(entry.digest, threading.Lock()):
                    if key not in self._right:
                        read_ztoc(repository, index, layer, MAX_TOC_SIZE)
                        self._right.add(key)
        for entry in index.blobs:
            if entry.digest not in read and not repository.has_blob(entry):
                raise FormatError(f"{entry.digest} is not there")


def _is_unknown(error: BaseException | None) -> bool:
    """Whether it says nothing about what was asked for: a registry refused, or failed."""
    if isinstance(error, FormatError):  # of a ztoc that could not be read
        error = error.__cause__
    if not isinstance(error, RegistryError):
        return False
    if error.status is None:  # no answer, or one that is no use
        return isinstance(error.__cause__, SourceError)
    return error.status not in (200, 404)


def _images(repository: Repository) -> Iterator[Manifest]:
    with suppress(*_ERRORS):
        for _, manifest in images(repository.root(), repository.manifest):
            yield manifest


def _key(manifest: Manifest) -> tuple[str, ...]:
    """What the manifest of an image and of that with an index have in common."""
    return (manifest.config.digest, *(entry.digest for entry in manifest.layers))
