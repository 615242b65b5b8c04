"""What a conversion would replace at its destination: an image of another kind is not lost by
mistake."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from stargz.descriptors import is_of_format
from stargz.errors import DigestError, FormatError, OccupiedError, RegistryError, SourceError
from stargz.oci.destination import Destination
from stargz.oci.formats.manifest import (
    EXTERNAL,
    KNOWN,
    MAX_INDEX_NESTING,
    Manifest,
    is_attestation,
    is_toc_image,
)

_MAX_LOOKED_AT = 200  # manifests of an index


def is_seekable(manifest: Manifest) -> bool:
    """Whether a layer of an image has the annotations of a seekable one."""
    return any(any(map(is_of_format, entry.annotations)) for entry in manifest.layers)


def ordinary_image(
    destination: Destination,
    own: str | None = None,
    is_made: Callable[[Manifest], bool] = is_seekable,
    suffix: str = "",
) -> Manifest | None:
    """What the destination's name (with a suffix) means now, if none of its images `is_made` by
    what replaces it: seekable. None also where it cannot be told: who may write but not read is not
    kept from it, and what is damaged can only gain. One with the digest `own` is known to be ours.

    Raises OccupiedError for an archive whose other contents would be lost, and RegistryError for a
    destination that does not answer.
    """
    try:
        found = destination.root(suffix)
    except RegistryError as error:
        if error.status in (401, 403):
            return None
        raise
    except (SourceError, FormatError, DigestError):
        return None
    if found is None or found.digest == own or _has_made(destination, found, is_made):
        return None
    return found


def refusal(
    destination: Destination, found: Manifest, lacks: str = "no layer has a TOC digest"
) -> OccupiedError:
    """The error that tells what is there."""
    what = f"an ordinary image ({lacks})"
    if found.is_artifact:
        what = f"an artifact ({found.artifact_type[:100]!r})"
    return OccupiedError(
        f"{destination.name}: the name is that of {what}, {found.digest}, which would be lost: "
        "name another, or replace it with --force (or, where it is to be changed itself, "
        "--upgrade without DST)"
    )


def check_free(destination: Destination) -> None:
    """OccupiedError if the name of the external TOCs of an image is that of something else."""
    found = ordinary_image(destination, is_made=is_toc_image, suffix=EXTERNAL)
    if found is not None:
        raise OccupiedError(
            f"{destination.name}{EXTERNAL}: the name that the external TOCs are to have is that of "
            f"another image, {found.digest}, which would be lost: give another tag, or replace it "
            "with --force"
        )


def _has_made(
    destination: Destination, root: Manifest, is_made: Callable[[Manifest], bool]
) -> bool:
    """Whether any image is; one without layers counts as one."""
    left = [(root, 0)]
    looked = bare = 0
    while left:
        found, depth = left.pop()
        if found.kind == "manifest" and not found.is_artifact:
            if is_made(found):
                return True
            bare += 1 if found.layers else 0
        if found.kind != "index" or depth >= MAX_INDEX_NESTING:
            continue
        for entry in found.manifests:
            if entry.media_type not in KNOWN or is_attestation(entry):
                continue
            looked += 1
            if looked > _MAX_LOOKED_AT:
                return False
            with suppress(SourceError, FormatError, DigestError):
                left.append((destination.manifest(entry), depth + 1))
    return not bare and not root.is_artifact and root.kind != "other"
