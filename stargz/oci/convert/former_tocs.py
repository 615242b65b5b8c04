"""The external TOCs of an image that is about to become another under its name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from stargz.errors import DigestError, FormatError, RegistryError, SourceError
from stargz.oci.destination import Destination
from stargz.oci.formats.manifest import (
    EXTERNAL,
    KNOWN,
    LAYER_DIGEST,
    MAX_INDEX_NESTING,
    MAX_MANIFESTS,
    Descriptor,
    Manifest,
    is_attestation,
)


def former_tocs(destination: Destination) -> dict[str, Descriptor]:
    """The external TOCs by which the layers of the image are read that the destination's name
    means now, by the digests of those: they have to be found until the name means another. None of
    what cannot be read, or is damaged: nothing is lost by that."""
    tocs = _root(destination, EXTERNAL)
    if tocs is None or tocs.kind != "manifest":
        return {}
    layers = set(_layers(destination))
    found: dict[str, Descriptor] = {}
    for toc in tocs.layers:
        layer = toc.annotations.get(LAYER_DIGEST)
        if layer in layers and layer not in found and destination.has_blob(toc):
            found[layer] = toc  # the first of two is what readers take
    return found


def _layers(destination: Destination) -> Iterator[str]:
    """The digests of the layers of all images that the destination's name means."""
    root = _root(destination)
    left = [] if root is None else [(root, 0)]
    count = 0
    while left:
        manifest, depth = left.pop()
        if manifest.kind == "manifest":
            yield from (entry.digest for entry in manifest.layers)
        elif manifest.kind == "index" and depth < MAX_INDEX_NESTING:
            for entry in manifest.manifests:
                if entry.media_type not in KNOWN or is_attestation(entry):
                    continue
                count += 1
                if count > MAX_MANIFESTS:
                    return
                with suppress(SourceError, FormatError, DigestError):
                    left.append((destination.manifest(entry), depth + 1))


def _root(destination: Destination, suffix: str = "") -> Manifest | None:
    try:
        return destination.root(suffix)
    except RegistryError as error:
        if error.status in (401, 403):
            return None
        raise
    except (SourceError, FormatError, DigestError):
        return None
