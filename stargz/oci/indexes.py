"""Finds the SOCI indexes of an image, wherever that is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from stargz.errors import DigestError, FormatError, SourceError
from stargz.oci.formats.manifest import Manifest
from stargz.oci.formats.soci import TYPES, SociIndex, Version, named_by, read_index
from stargz.oci.repository import Repository

_ERRORS = (SourceError, FormatError, DigestError)


def indexes_of(
    repository: Repository, manifest: Manifest, *versions: Version
) -> Iterator[SociIndex]:
    """The indexes of an image's manifest that can be had, those of version 2 first: what its
    annotation names; then what is about it, of version 1. A broken one is as good as none."""
    if 2 in versions and (digest := named_by(manifest)) is not None:
        with suppress(*_ERRORS):
            yield read_index(repository.by_digest(digest))
    if 1 in versions:
        for entry in repository.referrers(manifest.digest):
            if entry.json.get("artifactType") == TYPES[1]:
                with suppress(*_ERRORS):
                    index = read_index(repository.manifest(entry))
                    if index.manifest.subject == manifest.digest:
                        yield index
