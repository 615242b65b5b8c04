"""Finds the SOCI indexes of an image, wherever that is."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, islice
from typing import TYPE_CHECKING

from stargz.errors import DigestError, FormatError, SourceError
from stargz.oci.formats.manifest import Descriptor, Manifest
from stargz.oci.formats.soci import TYPES, ZTOC, SociIndex, Version, named_by, read_index
from stargz.oci.repository import Repository

if TYPE_CHECKING:
    from stargz._engine.index import Index

_ERRORS = (SourceError, FormatError, DigestError)
# Indexes of version 1 that are looked at: each takes a request, and whoever may push can add some.
_MOST = 50
_SMALL = 1 << 20  # what a ztoc may have beyond the size of its layer: more costs less to read
_log = logging.getLogger("stargz")


def indexes_of(
    repository: Repository,
    manifest: Manifest,
    *versions: Version,
    broken: Callable[[str, Exception], object] = lambda digest, error: None,
    unlisted: Callable[[Exception], object] | None = None,
) -> Iterator[SociIndex]:
    """The indexes of an image's manifest that can be had, those of version 2 first: what its
    annotation names; then what is about it, of version 1. A broken one is as good as none;
    `broken` is told of it. Where it cannot be found out which there are, `unlisted` is told, and
    there are none for whoever can do without; else that is raised."""

    @contextmanager
    def passing_over(digest: str) -> Iterator[None]:
        try:
            yield
        except _ERRORS as error:
            broken(digest, error)

    if 2 in versions and (digest := named_by(manifest)) is not None:
        with passing_over(digest):
            yield read_index(repository.by_digest(digest))
    if 1 in versions:
        try:
            listed = repository.referrers(manifest.digest, optional=unlisted is not None)
        except _ERRORS as error:
            if unlisted is None:
                raise
            unlisted(error)
            return
        about = (entry for entry in listed if entry.json.get("artifactType") == TYPES[1])
        for entry in islice(about, _MOST):
            with passing_over(entry.digest):
                index = read_index(repository.manifest(entry))
                if index.manifest.subject == manifest.digest:
                    yield index


def read_ztoc(
    repository: Repository, soci: SociIndex, layer: Descriptor, limit: int
) -> Index | None:
    """What a SOCI index has to read a layer by, checked against its digest and whether it is of
    that layer; None if it has nothing. FormatError for what is not there, or of more than `limit`
    bytes, or no such ztoc."""
    from stargz._engine.index import load_ztoc

    entry = soci.ztocs.get(layer.digest)
    if entry is None:
        if layer.digest in soci.odd:
            raise FormatError(
                f"the ztoc of layer {layer.digest}: it is of the media type "
                f"{soci.odd[layer.digest][:100]!r}, not {ZTOC!r}"
            )
        return None
    try:
        data = repository.read_blob(entry, limit)
        return load_ztoc(data, name=f"ztoc {entry.digest}", blob_size=layer.size)
    except _ERRORS as error:
        raise FormatError(f"the ztoc of layer {layer.digest}: {error}") from error


class FoundIndex:
    """The SOCI indexes of an image that is read, looked for when they are first asked for. Any
    number of threads may use it.

    An image that is named by its digest is to be that, whoever may push to its repository: that
    digest is of an index of version 2 too, and what one of version 1 says could be anybody's."""

    def __init__(self, repository: Repository, manifest: Manifest) -> None:
        self._repository = repository
        self._lock = threading.Lock()
        self._refused = False
        self._found: list[SociIndex] = []
        self._left = self._usable(manifest)
        # What may be read of ztocs that are of no use: no more than the layers have themselves.
        self._waste = _SMALL + sum(entry.size for entry in manifest.layers)

    def get(self) -> SociIndex | None:
        """The first that there is, if it is to be used."""
        return self._get(0)

    def _get(self, number: int) -> SociIndex | None:
        with self._lock:
            if number == len(self._found):
                self._found += islice(self._left, 1)
            return self._found[number] if number < len(self._found) else None

    def _usable(self, manifest: Manifest) -> Iterator[SociIndex]:
        layers = {entry.digest for entry in manifest.layers}
        found = indexes_of(
            self._repository, manifest, 2, 1, broken=self._tell, unlisted=self._tell_unlisted
        )
        for index in found:
            if index.version == 1 and self._repository.pinned:
                self._refused = True
                _log.warning(
                    "%s: its SOCI index is of version 1, about which its digest says nothing: "
                    "who may push to the repository may have added it. It is used only where a "
                    "tag names the image",
                    self._repository.name,
                )
                return
            if not layers.isdisjoint({*index.ztocs, *index.odd}):
                yield index

    def exists(self) -> bool:
        """Whether there is one, used or not."""
        return self.get() is not None or self._refused

    def _tell(self, digest: str, error: Exception) -> None:
        _log.warning(
            "%s: the SOCI index %s is not used: %s", self._repository.name, digest, error
        )  # fmt: skip

    def _tell_unlisted(self, error: Exception) -> None:
        _log.warning(
            "%s: whether there are SOCI indexes could not be found out: %s",
            self._repository.name,
            error,
        )

    def ztoc(self, layer: Descriptor, limit: int) -> Index | None:
        """What a layer is read by; None where there is nothing: the layer can be read without. If
        the first ztoc is of no use, the next index is asked."""
        for number in count():
            index = self._get(number)
            if index is None:
                return None
            try:
                return self._read(index, layer, limit)
            except FormatError as error:
                _log.warning("%s: %s; it is not used", self._repository.name, error)
        return None

    def _read(self, index: SociIndex, layer: Descriptor, limit: int) -> Index | None:
        """`read_ztoc`, of what is worth it: who may push may add any number of large ones."""
        entry = index.ztocs.get(layer.digest)
        size = 0 if entry is None else entry.size
        if size > layer.size + _SMALL:
            raise FormatError(
                f"the ztoc of layer {layer.digest} has {size:,} bytes, and the layer "
                f"{layer.size:,}: it costs less to read that"
            )
        with self._lock:
            if self._waste <= 0 < size:
                raise FormatError(
                    f"the ztoc of layer {layer.digest} is not read, after so many that were of no "
                    "use"
                )
        try:
            return read_ztoc(self._repository, index, layer, limit)
        except FormatError:
            with self._lock:
                self._waste -= size
            raise
