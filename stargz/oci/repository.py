"""What images are read from: registries, OCI image layouts, archives, and storage folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, Protocol

from stargz.digests import is_digest
from stargz.errors import DigestError, FormatError, RegistryError, SourceError, UsageError
from stargz.oci.formats.archive import Archive, open_archive
from stargz.oci.formats.layout import ImageLayout, Layout, open_archived
from stargz.oci.formats.manifest import EXTERNAL as EXTERNAL
from stargz.oci.formats.manifest import (
    LAYER_DIGEST,
    MAX_MANIFEST_SIZE,
    REF_NAME,
    Descriptor,
    Manifest,
)
from stargz.oci.formats.reference import (
    ArchiveReference,
    LayoutReference,
    Reference,
    StorageReference,
    parse_image,
)
from stargz.oci.formats.storage import Storage
from stargz.oci.registry import companions
from stargz.oci.registry.access import Creds
from stargz.oci.registry.blob import RegistryBlob
from stargz.oci.registry.client import RegistryClient
from stargz.oci.registry.companions import Companion
from stargz.oci.registry.credentials import as_credentials
from stargz.oci.registry.stream import BlobStream, RegistryStream, SourceStream
from stargz.options import MAX_TOC_SIZE, toc_too_large
from stargz.sources import ByteSource

__all__ = [
    "EXTERNAL",
    "BlobStream",
    "Companion",
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

    def external(self) -> Manifest | None:
        """The image of the external TOCs that belongs to this one."""

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
        return companions.in_registry(self._client, self._reference, digest)

    def referrers(self, digest: str, *, optional: bool = False) -> list[Descriptor]:
        return companions.referrers(self._client, self._reference, digest, optional=optional)

    def external(self) -> Manifest | None:
        if self._reference.tag is None and self._reference.digest is not None:
            return None  # it is found by the image's tag alone
        tag = (self._reference.tag or self._reference.target) + EXTERNAL
        try:
            return self._client.manifest(self._reference.with_tag(tag))
        except RegistryError as error:
            if error.status == 404:
                return None
            raise

    def interrupt(self) -> None:
        if self._owned:
            self._client.close()


class _Local:
    """What all have in common that are not in a registry."""

    name: str
    pinned = False
    root: Callable[[], Manifest]
    open_blob: Callable[[Descriptor], ByteSource]

    def read_blob(self, entry: Descriptor, limit: int) -> bytes:
        with closing(self.open_blob(entry)) as source:
            if entry.size > limit:
                raise FormatError(f"{entry.digest}: over the limit of {limit} bytes", self.name)
            data = source.read_at(0, entry.size)
        entry.check(data, self.name)
        return data

    def other(self, entry: Descriptor) -> bytes:
        return self.read_blob(entry, MAX_MANIFEST_SIZE)

    def has_blob(self, entry: Descriptor) -> bool:
        try:
            self.open_blob(entry).close()
        except (SourceError, FormatError):
            return False
        return True

    def stream_blob(self, entry: Descriptor) -> BlobStream:
        return SourceStream(self.open_blob(entry), entry, f"{self.name}@{entry.digest}")

    def digest(self) -> str:
        return self.root().digest

    def interrupt(self) -> None:
        pass


class _InLayout(_Local):
    def __init__(self, layout: ImageLayout, reference: LayoutReference | ArchiveReference) -> None:
        self._layout = layout
        self._reference = reference
        self.name = str(reference)
        self.pinned = is_digest(reference.ref)

    def root(self) -> Manifest:
        index, ref = self._layout.index, self._reference.ref
        entries = self._layout.images
        nameless = ref is None and len(entries) > 1 and not self._layout.refs()
        if nameless and all(entry.platform for entry in entries):
            return index  # the layout is the image, one manifest for each platform
        return self._layout.manifest(self._layout.resolve(ref))

    def manifest(self, entry: Descriptor) -> Manifest:
        return self._layout.manifest(entry)

    def by_digest(self, digest: str) -> Manifest:
        return self._layout.by_digest(digest)

    def open_blob(self, entry: Descriptor) -> ByteSource:
        return self._layout.open_blob(entry)

    def companions(self, digest: str) -> list[Companion]:
        layout = self._layout
        found = companions.from_tags(
            digest,
            {ref for ref in layout.refs() if companions.is_companion_tag(ref)},
            lambda target: f"{layout.name}:{target.removeprefix('@')}",
            lambda ref: layout.manifest(layout.resolve(ref)),
        )
        for entry, manifest in layout.about(digest):
            kind = companions.kind_of_manifest(manifest)
            found.append(Companion(f"{layout.name}:{entry.digest}", kind, entry.digest))
        return found

    def referrers(self, digest: str, *, optional: bool = False) -> list[Descriptor]:
        found = [companions.referrer(entry, one) for entry, one in self._layout.about(digest)]
        tag = companions.referrers_tag(digest)
        if tag in self._layout.refs():
            with suppress(SourceError, FormatError, DigestError):
                found += self._layout.manifest(self._layout.resolve(tag)).manifests
        return found

    def external(self) -> Manifest | None:
        layout, ref = self._layout, self._reference.ref
        try:
            if ref is None or self.pinned:  # the image may have a name all the same
                ref = layout.resolve(ref).annotations.get(REF_NAME) or "latest"
            return layout.manifest(layout.resolve(ref + EXTERNAL))
        except SourceError:
            return None


class _InArchive(_Local):
    def __init__(self, archive: Archive, reference: ArchiveReference) -> None:
        self._archive = archive
        self._reference = reference
        self.name = str(reference)

    def root(self) -> Manifest:
        return self._archive.manifest(self._reference.ref)

    def manifest(self, entry: Descriptor) -> Manifest:
        raise SourceError(f"{self.name}: an archive has no manifest {entry.digest}")

    def by_digest(self, digest: str) -> Manifest:
        raise SourceError(f"{self.name}: an archive has no manifest {digest}")

    def open_blob(self, entry: Descriptor) -> ByteSource:
        self.root()  # what says which member is the blob of which digest
        return self._archive.open_blob(entry)

    def companions(self, digest: str) -> list[Companion]:
        return []

    def referrers(self, digest: str, *, optional: bool = False) -> list[Descriptor]:
        return []

    def external(self) -> Manifest | None:
        return None


class _InStorage(_Local):
    def __init__(self, reference: StorageReference) -> None:
        self._storage = Storage(reference.path)
        self._reference = reference
        self.name = str(reference)
        self.pinned = reference.digest is not None

    def root(self) -> Manifest:
        return self._storage.manifest(self.digest())

    def manifest(self, entry: Descriptor) -> Manifest:
        return self._storage.manifest(entry.digest, entry)

    def by_digest(self, digest: str) -> Manifest:
        return self._storage.manifest(digest)

    def open_blob(self, entry: Descriptor) -> ByteSource:
        return self._storage.open_blob(entry)

    def digest(self) -> str:
        wanted = self._reference
        return self._storage.resolve(wanted.repository, wanted.tag, wanted.digest)

    def companions(self, digest: str) -> list[Companion]:
        storage, repository = self._storage, self._reference.repository
        shown = f"{storage.name}//{repository}"
        return companions.from_tags(
            digest,
            filter(companions.is_companion_tag, storage.tags(repository)),
            lambda target: f"{shown}{target if target[0] == '@' else f':{target}'}",
            lambda tag: storage.manifest(storage.resolve(repository, tag)),
        )

    def referrers(self, digest: str, *, optional: bool = False) -> list[Descriptor]:
        storage, repository = self._storage, self._reference.repository
        try:
            tag = companions.referrers_tag(digest)
            return storage.manifest(storage.resolve(repository, tag)).manifests
        except (SourceError, FormatError, DigestError):
            return []

    def external(self) -> Manifest | None:
        wanted = self._reference
        if wanted.tag is None and wanted.digest is not None:
            return None
        try:
            tag = f"{wanted.tag or 'latest'}{EXTERNAL}"
            return self._storage.manifest(self._storage.resolve(wanted.repository, tag))
        except SourceError:
            return None


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
        raise toc_too_large(entry.size, max_size, f"{repository.name}{EXTERNAL}")
    return repository.read_blob(entry, max_size)


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
    if isinstance(reference, LayoutReference):
        yield _InLayout(Layout(reference.path), reference)
        return
    if isinstance(reference, ArchiveReference) and reference.kind == "oci-archive":
        with open_archived(reference.path) as layout:
            yield _InLayout(layout, reference)
        return
    if isinstance(reference, ArchiveReference):
        with open_archive(reference.path) as archive:
            yield _InArchive(archive, reference)
        return
    if isinstance(reference, StorageReference):
        yield _InStorage(reference)
        return
    if client is not None:
        yield _InRegistry(client, reference, False)
        return
    if creds is not None:
        registry["accounts"] = {reference.registry: as_credentials(creds)}
    with RegistryClient(**registry) as made:
        yield _InRegistry(made, reference, True)
