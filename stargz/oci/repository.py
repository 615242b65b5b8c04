"""What images are read from: registries, OCI image layouts, archives, and storage folders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from stargz.errors import RegistryError, SourceError, UsageError
from stargz.oci.formats.manifest import (
    EXTERNAL,
    LAYER_DIGEST,
    MAX_MANIFEST_SIZE,
    Descriptor,
    Manifest,
)
from stargz.oci.formats.reference import Reference, parse_image
from stargz.oci.registry.access import Creds
from stargz.oci.registry.blob import RegistryBlob
from stargz.oci.registry.client import RegistryClient
from stargz.oci.registry.credentials import as_credentials
from stargz.oci.registry.stream import BlobStream, RegistryStream
from stargz.options import MAX_TOC_SIZE, toc_too_large
from stargz.sources import ByteSource

if TYPE_CHECKING:
    from stargz.oci.registry.companions import Companion

__all__ = [
    "BlobStream",
    "Repository",
    "open_repository",
]


class Repository(Protocol):
    """Where an image's manifests and blobs are."""

    name: str
    pinned: bool  # the reference has a digest: what is read is to be that, whoever may write there

    def root(self) -> Manifest:
        """What the reference names: a manifest or an index."""

    def manifest(self, entry: Descriptor) -> Manifest:
        """One that an index lists."""

    def by_digest(self, digest: str) -> Manifest:
        """One that is known by its digest alone; SourceError where it is not there."""

    def other(self, entry: Descriptor) -> bytes:
        """What an index lists that is no manifest of a kind that is known, checked."""

    def has_blob(self, entry: Descriptor) -> bool:
        """Whether a blob is there, with that size."""

    def read_blob(self, entry: Descriptor, limit: int) -> bytes:
        """All of a blob, checked."""

    def open_blob(self, entry: Descriptor) -> ByteSource:
        """A blob to be read at random."""

    def stream_blob(self, entry: Descriptor) -> BlobStream:
        """A blob to be read once, in order, and checked; to be closed."""

    def digest(self) -> str:
        """The digest of `root()`, at the least cost."""

    def companions(self, digest: str) -> list[Companion]:
        """What refers to the manifest of a digest and is kept apart from it: signatures,
        attestations and the like, by the referrers API, its tag, and cosign's tags."""

    def referrers(self, digest: str, *, optional: bool = False) -> list[Descriptor]:
        """The artifacts that say they are about the manifest of a digest (`subject`), as far as it
        is known without reading all there is; SourceError, FormatError or DigestError where a
        registry does not tell. What is `optional` is asked for a few times, and nothing else
        waits for that."""

    @property
    def external_name(self) -> str | None:
        """The name of the image of the external TOCs that belongs to this one; None where nothing
        leads to it: a digest without a tag."""

    def external(self) -> Manifest | None:
        """That image; None if it is not there."""

    def interrupt(self) -> None:
        """Let what other threads wait for fail at once, if nobody else uses it."""


class _InRegistry:
    def __init__(self, client: RegistryClient, reference: Reference, owned: bool) -> None:
        self._client = client
        self._owned = owned
        self._reference = reference
        self.name = f"docker://{reference}"
        self.pinned = reference.digest is not None

    def root(self) -> Manifest:
        return self._client.manifest(self._reference)

    def manifest(self, entry: Descriptor) -> Manifest:
        return self._client.manifest(self._reference, entry)

    def by_digest(self, digest: str) -> Manifest:
        return self._client.manifest(self._reference.with_digest(digest))

    def has_blob(self, entry: Descriptor) -> bool:
        try:
            size = self._client.blob_size(self._reference.with_digest(entry.digest))
        except RegistryError as error:
            if error.status == 404:
                return False
            raise
        return size == entry.size

    def other(self, entry: Descriptor) -> bytes:
        try:  # as go-containerregistry keeps it
            return self._client.read_blob(self._reference, entry, MAX_MANIFEST_SIZE)
        except RegistryError as error:
            if error.status != 404:
                raise
        return self._client.read_manifest(self._reference, entry)

    def read_blob(self, entry: Descriptor, limit: int) -> bytes:
        return self._client.read_blob(self._reference, entry, limit)

    def open_blob(self, entry: Descriptor) -> ByteSource:
        return RegistryBlob(self._client, self._reference, entry)

    def stream_blob(self, entry: Descriptor) -> BlobStream:
        return RegistryStream(RegistryBlob(self._client, self._reference, entry))

    def digest(self) -> str:
        return self._client.digest(self._reference)

    def companions(self, digest: str) -> list[Companion]:
        from stargz.oci.registry import companions

        return companions.in_registry(self._client, self._reference, digest)

    def referrers(self, digest: str, *, optional: bool = False) -> list[Descriptor]:
        from stargz.oci.registry import companions

        return companions.referrers(self._client, self._reference, digest, optional=optional)

    def _external(self) -> Reference | None:
        if self._reference.tag is None and self._reference.digest is not None:
            return None  # it is found by the image's tag alone
        tag = (self._reference.tag or self._reference.target) + EXTERNAL
        return self._reference.with_tag(tag)

    @property
    def external_name(self) -> str | None:
        found = self._external()
        return None if found is None else f"docker://{found}"

    def external(self) -> Manifest | None:
        found = self._external()
        if found is None:
            return None
        try:
            return self._client.manifest(found)
        except RegistryError as error:
            if error.status == 404:
                return None
            raise

    def interrupt(self) -> None:
        if self._owned:
            self._client.close()


def is_missing(error: SourceError) -> bool:
    """Whether it tells of what is not there, and not of the way to it."""
    return not isinstance(error, RegistryError) or error.status == 404


def external_toc(
    repository: Repository,
    manifest: Manifest | None,
    digest: str,
    max_size: int = MAX_TOC_SIZE,
) -> bytes | None:
    """The gzip'ed tar of the TOC of a layer whose TOC is external; None if `manifest`, which is
    the repository's `external`, has none. More than `max_size` bytes are not read."""
    entry = external_entry(manifest, digest)
    if entry is None:
        return None
    if entry.size > max_size:
        raise toc_too_large(entry.size, max_size, repository.external_name or repository.name)
    return repository.read_blob(entry, max_size)


def toc_not_found(repository: Repository) -> str:
    """What to say of a layer whose TOC is external, and not found."""
    name = repository.external_name
    if name is None:
        return (
            "its TOC is kept apart, in an image that is found by the tag of this one, to which a "
            "digest does not lead: name both, as in app:TAG@sha256:..."
        )
    return f"its TOC is kept apart, and there is no image {name} that has it"


def external_entry(manifest: Manifest | None, digest: str) -> Descriptor | None:
    """The same as what it is in the image of external TOCs: one of its layers."""
    if manifest is None or manifest.kind != "manifest":
        return None
    for entry in manifest.layers:
        if entry.annotations.get(LAYER_DIGEST) == digest:
            return entry
    return None


@contextmanager
def open_repository(
    src: str,
    *,
    client: RegistryClient | None = None,
    creds: Creds | None = None,
    **registry: Any,
) -> Iterator[Repository]:
    """Where the image that `src` names is (see parse_image).

    Without `client` one is made with `registry`, which are RegistryClient's options, and `creds`,
    the account for the registry that `src` names: "user:password", or (user, password).
    """
    reference = parse_image(src)
    if creds is not None and (client is not None or registry.get("credentials") is not None):
        raise UsageError("creds are for a client that is made of them: give no other account")
    if not isinstance(reference, Reference):
        from stargz.oci.local import open_local

        with open_local(reference) as found:
            yield found
        return
    if client is not None:
        yield _InRegistry(client, reference, False)
        return
    if creds is not None:
        registry["accounts"] = {reference.registry: as_credentials(creds)}
    with RegistryClient(**registry) as made:
        yield _InRegistry(made, reference, True)
