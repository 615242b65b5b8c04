"""OCI image layouts: a directory with `oci-layout`, `index.json` and `blobs/` in it, or a tar of
one (oci-archive:).

OCI image specification 1.1, `image-layout.md`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from stargz.digests import check_digest, is_digest
from stargz.durable import release
from stargz.errors import DigestError, FormatError, MissingBlobError, SourceError
from stargz.oci.formats.manifest import (
    EXTERNAL,
    MAX_MANIFEST_SIZE,
    OCI_INDEX,
    REF_NAME,
    Descriptor,
    Manifest,
    load_json,
    parse_manifest,
    too_large,
)
from stargz.oci.formats.tar_file import MemberSource, TarFile, open_shared
from stargz.oci.formats.tar_index import Member
from stargz.sources import ByteSource, LocalSource

_MAX_SUBJECTS = 50_000
# What manifests are about, by digest, size and media type, in whichever layouts: where each image
# of one has something that is about it, not all of that is read for each.
_subjects: dict[tuple[str, int, str], str | None] = {}


class ImageLayout:
    """An image layout that is read, wherever its files are."""

    name: str

    def __init__(self, name: str) -> None:
        self.name = name
        version = load_json(self._read("oci-layout"), f"{name}/oci-layout")
        if not str(version.get("imageLayoutVersion", "")).startswith("1."):
            raise FormatError("an image layout of another version than 1", name)
        index = f"{name}/index.json"
        self.index: Manifest = parse_manifest(self._read("index.json"), index, media_type=OCI_INDEX)

    def _read(self, name: str) -> bytes:
        """One of its two small files."""
        raise NotImplementedError

    def open_blob(self, entry: Descriptor) -> ByteSource:
        """A blob, for reading at random; its size is checked, its digest is not."""
        raise NotImplementedError

    def refs(self) -> list[str]:
        """The names of the images in it, as its index gives them."""
        names = (entry.annotations.get(REF_NAME) for entry in self.index.manifests)
        return [name for name in names if name]

    @property
    def images(self) -> list[Descriptor]:
        """What its index lists, but for what has no name and says that it is no image, or is about
        another manifest; and for the external TOCs of others, which have a name made of theirs."""
        tocs = {f"{name}{EXTERNAL}" for name in self.refs()}
        found = [
            entry
            for entry in self.index.manifests
            if (REF_NAME in entry.annotations or not entry.json.get("artifactType"))
            and entry.annotations.get(REF_NAME) not in tocs
        ]
        if len(found) < 2:
            return found
        return [entry for entry in found if not self._can_be_about(entry) or not self._about(entry)]

    def resolve(self, ref: str | None = None) -> Descriptor:
        """The descriptor of the manifest or index that `ref` (a name, or a digest, also of one that
        an index in it lists) means.

        Without `ref`, that of the only image. Raises SourceError that lists what there is.
        """
        entries = self.index.manifests
        if ref is not None:
            found = [entry for entry in entries if entry.annotations.get(REF_NAME) == ref]
            if not found and is_digest(ref):
                found = [entry for entry in entries if entry.digest == ref]
            if found:
                return found[-1]  # the newest: writers append
            if is_digest(ref):
                with suppress(MissingBlobError):
                    return Descriptor("", ref, self.blob_size(ref))
        elif len({entry.digest for entry in self.images}) == 1:
            return self.images[0]
        names = dict.fromkeys(self.refs() or [entry.digest for entry in self.images])
        there = ", ".join(names) or "none"
        what = f"no image {ref!r}" if ref is not None else f"{len(self.images)} images"
        hint = f"; name one: {self.name}:REF" if ref is None and self.images else ""
        raise SourceError(f"{self.name}: {what} in the layout, which has {there[:300]}{hint}")

    def manifest(self, entry: Descriptor) -> Manifest:
        """The manifest or index that a descriptor means, checked."""
        if entry.size > MAX_MANIFEST_SIZE:
            raise FormatError(too_large(entry.size), f"{self.name}@{entry.digest}")
        data = self.read_blob(entry)
        return parse_manifest(
            data, f"{self.name}@{entry.digest}", digest=entry.digest, media_type=entry.media_type
        )

    def about(self, digest: str) -> Iterator[tuple[Descriptor, Manifest]]:
        """What its index lists, without a name, that says it is about the manifest of a digest."""
        for entry in self.index.manifests:
            if self._can_be_about(entry) and self._about(entry) == digest:
                with suppress(SourceError, FormatError, DigestError):
                    yield entry, self.manifest(entry)

    def _can_be_about(self, entry: Descriptor) -> bool:
        """Only what can be about another is read: no image of many has to be."""
        return REF_NAME not in entry.annotations and entry.platform is None

    def _about(self, entry: Descriptor) -> str | None:
        """The digest that a manifest says it is about; None also where it cannot be read."""
        key = entry.digest, entry.size, entry.media_type
        if key not in _subjects:
            try:
                subject = self.manifest(entry).subject
            except (SourceError, FormatError, DigestError):
                return None
            if len(_subjects) >= _MAX_SUBJECTS:
                _subjects.clear()
            _subjects[key] = subject
        return _subjects[key]

    def by_digest(self, digest: str) -> Manifest:
        """The manifest of a digest, whatever its size; SourceError where it is not there."""
        return self.manifest(Descriptor("", digest, self.blob_size(digest)))

    def blob_size(self, digest: str) -> int:
        """The bytes of a blob; MissingBlobError where it is not there."""
        raise NotImplementedError

    def read_blob(self, entry: Descriptor) -> bytes:
        """All of a blob, checked; the caller has looked at its size."""
        with_source = self.open_blob(entry)
        try:
            data = with_source.read_at(0, entry.size)
        finally:
            with_source.close()
        entry.check(data, self.name)
        return data


class Layout(ImageLayout):
    """An image layout in a directory. Raises SourceError for a directory that is none."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: Path = Path(path)
        if not self.path.is_dir():
            file = self.path.is_file()
            what = "a file; archives are oci-archive:FILE and docker-archive:FILE"
            raise SourceError(f"oci:{self.path}: {what if file else 'no such directory'}")
        super().__init__(f"oci:{self.path}")

    def blob_path(self, digest: str) -> Path:
        """Where the blob of a digest is."""
        return self.path / _blob(digest, self.name)

    def open_blob(self, entry: Descriptor) -> LocalSource:
        """See ImageLayout.open_blob."""
        path = self.blob_path(entry.digest)
        try:
            return open_exact(path, entry.size)
        except (FileNotFoundError, NotADirectoryError):
            raise self._missing(entry.digest) from None

    def blob_size(self, digest: str) -> int:
        """See ImageLayout.blob_size."""
        try:
            return self.blob_path(digest).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            raise self._missing(digest) from None

    def _missing(self, digest: str) -> MissingBlobError:
        return MissingBlobError(f"{self.name}: blob {digest} is not in the layout")

    def _read(self, name: str) -> bytes:
        path = self.path / name
        try:
            data = read_small(path, MAX_MANIFEST_SIZE)
        except (FileNotFoundError, NotADirectoryError):
            other = "index.json" if name == "oci-layout" else "oci-layout"
            if (self.path / other).exists():  # of a layout, one has been lost
                raise FormatError(
                    f"an OCI image layout without its file {name}", self.name
                ) from None
            raise SourceError(
                f"{self.name}: not an OCI image layout (it has no file {name})"
            ) from None
        if data is None:
            raise FormatError(too_large(None), str(path))
        return data


class ArchivedLayout(ImageLayout):
    """An image layout in a tar, compressed or not; use `open_archived`. Any number of threads may
    use it."""

    def __init__(self, tar: TarFile) -> None:
        self._tar = tar
        if "oci-layout" not in tar.members:
            what = "not an archive of an OCI image layout (it has no file oci-layout)"
            if "manifest.json" in tar.members:
                what += f": it is what `docker save` writes; give docker-archive:{tar.path}"
            raise FormatError(what, tar.name)
        super().__init__(tar.name)

    def has_images(self) -> bool:
        """Whether there are any, and in the archive."""
        listed = self.index.manifests
        names = [_blob(entry.digest, self.name) for entry in listed]
        return bool(names) and all(name in self._tar.members for name in names)

    def open_blob(self, entry: Descriptor) -> MemberSource:
        """See ImageLayout.open_blob."""
        member = self._member(entry.digest)
        name = f"{self.name}@{entry.digest}"
        if member.size != entry.size:
            raise FormatError(f"{member.size} bytes, where its descriptor says {entry.size}", name)
        return MemberSource(self._tar.source, member.offset, member.size, name)

    def blob_size(self, digest: str) -> int:
        """See ImageLayout.blob_size."""
        return self._member(digest).size

    def _member(self, digest: str) -> Member:
        path = _blob(digest, self.name)
        if path not in self._tar.members:
            raise MissingBlobError(f"{self.name}: blob {digest} is not in the archive")
        return self._tar.find(path)

    def _read(self, name: str) -> bytes:
        return self._tar.read(name, MAX_MANIFEST_SIZE)


def open_archived(path: str) -> AbstractContextManager[ArchivedLayout]:
    """The layout in the tar at a path, shared by all who have it open at the same time
    (`open_shared`)."""
    return open_shared(path, "oci-archive", ArchivedLayout)


def _blob(digest: str, name: str) -> str:
    """Where the blob of a digest is in a layout."""
    algorithm, _, value = check_digest(digest, name).partition(":")
    return f"blobs/{algorithm}/{value}"


def open_exact(path: Path, size: int) -> LocalSource:
    """A regular file of that size; a symlink is followed. FormatError for another size."""
    source = LocalSource(path)
    try:
        if source.fd is None or not stat.S_ISREG(os.fstat(source.fd).st_mode):
            raise FormatError("not a regular file", str(path))
        if source.size != size:
            raise FormatError(
                f"{source.size} bytes, where its descriptor says {size}: the blob was "
                "cut short or replaced",
                str(path),
            )
    except BaseException:
        source.close()
        raise
    return source


def read_small(path: Path, limit: int) -> bytes | None:
    """What is in a regular file; None if that is over `limit` bytes."""
    # O_NONBLOCK: a pipe in the place of a file must not hang.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise FormatError("not a regular file", str(path))
        with os.fdopen(fd, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    finally:
        release(fd)
    return data if len(data) <= limit else None
