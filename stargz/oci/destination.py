"""What images are written to: repositories of registries, OCI image layouts and tars of those.

A destination is complete or untouched: blobs come first, then the manifests that name them,
and the name last.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Protocol, Self

from stargz.errors import UsageError
from stargz.oci.formats.archive_writer import ArchiveDestination
from stargz.oci.formats.layout_writer import LayoutDestination
from stargz.oci.formats.manifest import Descriptor, Manifest
from stargz.oci.formats.reference import (
    ArchiveReference,
    ImageReference,
    LayoutReference,
    Reference,
    parse_image,
)
from stargz.oci.registry.client import RegistryClient
from stargz.oci.registry.sessions import Uploads, cancel_upload, cancel_uploads
from stargz.oci.registry.writer import RegistryDestination
from stargz.oci.repository import Repository

__all__ = [
    "BlobWriter",
    "Destination",
    "Uploads",
    "cancel_upload",
    "cancel_uploads",
    "copy_blob",
    "open_destination",
]

_PIECE = 1 << 20


class BlobWriter(Protocol):
    """One blob on its way to a destination; a context manager. Left without `commit`, nothing
    of it stays."""

    name: str

    @property
    def fd(self) -> int | None:
        """A descriptor that what makes the blob may write to by itself, instead of `write`;
        None where there is none."""

    def write(self, data: bytes | memoryview, /) -> int:
        """Append all of `data`; its length. Waits while too much of it is on its way."""

    def commit(self, digest: str) -> None:
        """Have the blob there under its digest, complete and durable, or raise."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


class Destination(Protocol):
    """One repository (or layout), and the name there that the image is for. Any number of
    threads may use it."""

    name: str  # docker://host/repo:tag, oci:DIR:ref or oci-archive:FILE:ref
    reference: Reference | LayoutReference  # where others write its blobs
    at_once: bool  # all names that are written appear together, in the place of all that was there

    def has_blob(self, entry: Descriptor) -> bool:
        """Whether the blob is there already, with that size."""

    def mount_blob(self, entry: Descriptor, other: ImageReference) -> bool:
        """Have the blob of another repository (of the same registry) here without moving its
        bytes, if it is not here; False where that is not possible, whatever the reason."""

    def writer(self, size: int | None = None) -> BlobWriter:
        """Begin a blob (of `size` bytes, where that is known)."""

    def write_blob(self, data: bytes, digest: str) -> None:
        """A whole blob from memory: configs."""

    def digest(self) -> str | None:
        """The digest that the name means now; None if there is no such image."""

    def root(self, suffix: str = "") -> Manifest | None:
        """The manifest or index that the name (with a suffix) means now, and that would be
        replaced; None if there is none."""

    def manifest(self, entry: Descriptor) -> Manifest:
        """One that such an index lists."""

    def is_whole(self, digest: str) -> bool:
        """Whether all blobs of the image of that digest are there, with their sizes, as far as
        that is known without asking for each of them."""

    def write_manifest(self, data: bytes, media_type: str, *, named: bool, suffix: str = "") -> str:
        """A manifest or an index, whose blobs and manifests are all there: under its digest,
        and, if `named`, under the destination's name too, at once and last; under that with a
        `suffix` before. Its digest."""

    def write_referrer(self, data: bytes, media_type: str, kind: str) -> list[str]:
        """A manifest with a `subject`, which is found by that: in the place of others of the same
        `kind` about it, as far as the destination lets us say so. The digests of those that are
        still found."""

    def interrupt(self) -> None:
        """Let what other threads wait for fail at once, if nobody else uses it."""


@contextmanager
def open_destination(
    dst: str,
    *,
    client: RegistryClient | None = None,
    uploads: Uploads | None = None,
    within: str | None = None,
    **registry: Any,
) -> Iterator[Destination]:
    """The place that `dst` (`docker://...`, `oci:DIR[:ref]` or `oci-archive:FILE[:ref]`) names;
    nothing is asked or made there yet.

    Without `client` one is made with `registry`, which are RegistryClient's options. `uploads` is
    told of upload sessions at the registry, for `cancel_upload`. `within` is the name of the
    destination whose `reference` this is, if it has another: errors give that, and a layout is not
    made any more when that is closed. Raises UsageError for what can
    be no destination: a digest, an archive as `docker save` writes it.
    """
    reference = parse_image(dst)
    if isinstance(reference, LayoutReference):
        with closing(LayoutDestination(reference, within)) as layout:
            yield layout
    elif isinstance(reference, ArchiveReference) and reference.kind == "oci-archive":
        with closing(ArchiveDestination(reference)) as archive:
            yield archive
    elif not isinstance(reference, Reference):
        raise UsageError(
            f"{dst!r}: images are written to docker://host/repo[:tag], oci:DIR[:ref] and "
            "oci-archive:FILE[:ref] alone"
        )
    elif client is not None:
        if uploads is None and client.uploads is not None:
            uploads = client.uploads(reference)
        yield RegistryDestination(client, reference, uploads=uploads)
    else:
        with RegistryClient(**registry) as made:
            yield RegistryDestination(made, reference, owned=True, uploads=uploads)


def copy_blob(source: Repository, destination: Destination, entry: Descriptor) -> bool:
    """Have a blob of `source` at `destination`, checked on its way; whether it was moved, and was
    not there already."""
    if destination.has_blob(entry):
        return False
    with closing(source.stream_blob(entry)) as stream, destination.writer(entry.size) as writer:
        while piece := stream.read(_PIECE):
            writer.write(piece)
        writer.commit(entry.digest)
    return True
