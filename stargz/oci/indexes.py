"""Finds the SOCI indexes of an image, wherever that is."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice

from stargz.errors import DigestError, FormatError, SourceError
from stargz.oci.formats.manifest import Descriptor, Manifest
from stargz.oci.formats.soci import TYPES, SociIndex, Version, named_by, read_index
from stargz.oci.repository import Repository

_ERRORS = (SourceError, FormatError, DigestError)
# Indexes of version 1 that are looked at: each takes a request, and whoever may push can add some.
_MOST = 50
_log = logging.getLogger("stargz")


def indexes_of(
    repository: Repository,
    manifest: Manifest,
    *versions: Version,
    broken: Callable[[str, Exception], object] = lambda digest, error: None,
) -> Iterator[SociIndex]:
    """The indexes of an image's manifest that can be had, those of version 2 first: what its
    annotation names; then what is about it, of version 1. A broken one is as good as none;
    `broken` is told of it."""

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
        listed = repository.referrers(manifest.digest)
        about = (entry for entry in listed if entry.json.get("artifactType") == TYPES[1])
        for entry in islice(about, _MOST):
            with passing_over(entry.digest):
                index = read_index(repository.manifest(entry))
                if index.manifest.subject == manifest.digest:
                    yield index


class FoundIndex:
    """The SOCI index of an image that is read, looked for when it is first asked for. Any number
    of threads may use it.

    An image that is named by its digest is to be that, whoever may push to its repository: that
    digest is of an index of version 2 too, and what one of version 1 says could be anybody's."""

    def __init__(self, repository: Repository, manifest: Manifest) -> None:
        self._repository = repository
        self._manifest = manifest
        self._lock = threading.Lock()
        self._found: list[SociIndex | None] = []
        self._refused = False

    def get(self) -> SociIndex | None:
        """The first that there is, if it is to be used."""
        with self._lock:
            if not self._found:
                found = indexes_of(self._repository, self._manifest, 2, 1, broken=self._tell)
                first = next(found, None)
                if first is not None and first.version == 1 and self._repository.pinned:
                    _log.warning(
                        "%s: its SOCI index is of version 1, about which its digest says nothing: "
                        "who may push to the repository may have added it. It is not used; name "
                        "the image by a tag to use it",
                        self._repository.name,
                    )
                    first, self._refused = None, True
                self._found.append(first)
            return self._found[0]

    def exists(self) -> bool:
        """Whether there is one, used or not."""
        return self.get() is not None or self._refused

    def _tell(self, digest: str, error: Exception) -> None:
        _log.warning(
            "%s: the SOCI index %s is not used: %s", self._repository.name, digest, error
        )  # fmt: skip

    def ztoc(self, layer: Descriptor, limit: int) -> bytes | None:
        """The ztoc of a layer, checked against its digest; None where there is none that can be
        had, of at most `limit` bytes: the layer can be read without."""
        index = self.get()
        entry = None if index is None else index.ztocs.get(layer.digest)
        if entry is None:
            return None
        try:
            return self._repository.read_blob(entry, limit)
        except _ERRORS as error:
            _log.warning(
                "%s: the ztoc of layer %s is not used: %s",
                self._repository.name, layer.digest, error,
            )  # fmt: skip
            return None
