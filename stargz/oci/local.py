"""Images in folders and files of this machine: OCI image layouts, archives, storage folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace

from stargz.digests import is_digest
from stargz.errors import DigestError, FormatError, SourceError
from stargz.oci.formats.archive import Archive, open_archive
from stargz.oci.formats.layout import ImageLayout, Layout, open_archived
from stargz.oci.formats.manifest import (
    EXTERNAL,
    MAX_MANIFEST_SIZE,
    REF_NAME,
    Descriptor,
    Manifest,
)
from stargz.oci.formats.reference import ArchiveReference, LayoutReference, StorageReference
from stargz.oci.formats.storage import Storage
from stargz.oci.registry import companions
from stargz.oci.registry.companions import Companion
from stargz.oci.registry.stream import BlobStream, SourceStream
from stargz.sources import ByteSource

LocalReference = LayoutReference | ArchiveReference | StorageReference


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

    def _external(self) -> str:
        ref = self._reference.ref
        if ref is None or self.pinned:  # the image may have a name all the same
            ref = self._layout.resolve(ref).annotations.get(REF_NAME) or "latest"
        return ref + EXTERNAL

    @property
    def external_name(self) -> str | None:
        try:
            return str(replace(self._reference, ref=self._external()))
        except SourceError:
            return None

    def external(self) -> Manifest | None:
        try:
            return self._layout.manifest(self._layout.resolve(self._external()))
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

    @property
    def external_name(self) -> str | None:
        return f"{self.name}{EXTERNAL}"

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

    def _external(self) -> str | None:
        wanted = self._reference
        if wanted.tag is None and wanted.digest is not None:
            return None
        return f"{wanted.tag or 'latest'}{EXTERNAL}"

    @property
    def external_name(self) -> str | None:
        tag = self._external()
        return None if tag is None else str(replace(self._reference, tag=tag, digest=None))

    def external(self) -> Manifest | None:
        tag = self._external()
        if tag is None:
            return None
        try:
            return self._storage.manifest(self._storage.resolve(self._reference.repository, tag))
        except SourceError:
            return None


@contextmanager
def open_local(reference: LocalReference) -> Iterator[_InLayout | _InArchive | _InStorage]:
    """The Repository of an image that is not in a registry."""
    if isinstance(reference, StorageReference):
        yield _InStorage(reference)
    elif isinstance(reference, LayoutReference):
        yield _InLayout(Layout(reference.path), reference)
    elif reference.kind == "oci-archive":
        with open_archived(reference.path) as layout:
            yield _InLayout(layout, reference)
    else:
        with open_archive(reference.path) as archive:
            yield _InArchive(archive, reference)
