"""The folder in which a registry keeps what it has, read without the registry.

The layout is that of CNCF distribution's storage drivers (its `registry/storage/paths.go`):

    repositories/NAME/_manifests/tags/TAG/current/link        the digest that a tag means
    repositories/NAME/_manifests/revisions/sha256/HEX/link    a manifest that NAME has
    blobs/sha256/HE/HEX/data                                  any blob or manifest

Names are checked by the grammar of references and digests before they become paths, and what a
symlink leads to is only read below the folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from stargz.digests import check_digest, is_digest
from stargz.errors import FormatError, MissingBlobError, SourceError
from stargz.oci.formats.layout import open_exact, read_small
from stargz.oci.formats.manifest import (
    MAX_MANIFEST_SIZE,
    Descriptor,
    Manifest,
    parse_manifest,
    too_large,
)
from stargz.oci.formats.reference import DEFAULT_TAG, is_repository, is_tag
from stargz.sources import LocalSource

_INNER = Path("docker", "registry", "v2")
_MAX_LINK = 1 << 10


class Storage:
    """A storage folder: DIR, or DIR/docker/registry/v2. Raises SourceError where there is none."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: Path = Path(path)
        self.name: str = f"storage:{self.path}"
        inner = self.path / _INNER
        root = inner if (inner / "repositories").is_dir() else self.path
        if not (root / "repositories").is_dir():
            raise SourceError(
                f"{self.name}: not the storage folder of a registry (no repositories in it, nor "
                f"in {_INNER})"
            )
        self._root = Path(os.path.realpath(root))

    # --- names --------------------------------------------------------------------------

    def repositories(self) -> Iterator[str]:
        """The repositories, each before those below it, sorted at each step; symlinks and what
        is no repository's name are left out."""
        yield from self._below(self._root / "repositories", "")

    def _below(self, folder: Path, prefix: str) -> Iterator[str]:
        # No deeper than names are long.
        for child in _folders(folder):
            name = f"{prefix}{child}"
            if not is_repository(name):
                continue
            here = folder / child
            if _is_folder(here / "_manifests"):
                yield name
            yield from self._below(here, f"{name}/")

    def tags(self, repository: str) -> Iterator[str]:
        """The tags of a repository, sorted."""
        tags = self._repository(repository) / "_manifests" / "tags"
        for tag in _folders(tags):
            if is_tag(tag) and (tags / tag / "current" / "link").is_file():
                yield tag

    def _repository(self, name: str) -> Path:
        if not is_repository(name):
            raise SourceError(f"{self.name}: {name!r:.200} is not the name of a repository")
        return self._root / "repositories" / name

    # --- content ------------------------------------------------------------------------

    def resolve(self, repository: str, tag: str | None = None, digest: str | None = None) -> str:
        """The digest of a manifest of a repository, by `digest`, else by `tag` (or "latest")."""
        manifests = self._repository(repository) / "_manifests"
        shown = f"{self.name}//{repository}"
        if digest is not None:
            algorithm, _, value = check_digest(digest, shown).partition(":")
            path = manifests / "revisions" / algorithm / value / "link"
            what = f"{shown}@{digest}"
        else:
            tag = tag or DEFAULT_TAG
            if not is_tag(tag):
                raise SourceError(f"{shown}: {tag!r:.200} is not a tag")
            path = manifests / "tags" / tag / "current" / "link"
            what = f"{shown}:{tag}"
        try:
            found = self._read(path, _MAX_LINK).decode("ascii", "replace").strip()
        except (FileNotFoundError, NotADirectoryError):
            raise SourceError(f"{what}: not in the storage folder; check the name") from None
        if not is_digest(found):
            raise FormatError(f"{found[:100]!r} is not a digest", str(path))
        if digest is not None and found != digest:
            raise FormatError(f"it names {found}", str(path))
        return found

    def manifest(self, digest: str, entry: Descriptor | None = None) -> Manifest:
        """The manifest or index of a digest, checked."""
        name = f"{self.name}@{digest}"
        if entry is not None and entry.size > MAX_MANIFEST_SIZE:
            raise FormatError(too_large(entry.size), name)
        try:
            data = self._read(self._blob(digest), MAX_MANIFEST_SIZE)
        except (FileNotFoundError, NotADirectoryError):
            raise MissingBlobError(f"{name}: the manifest is not in the storage folder") from None
        if entry is not None:
            entry.check(data, name)
        media_type = entry.media_type if entry is not None else None
        return parse_manifest(data, name, digest=digest, media_type=media_type)

    def open_blob(self, entry: Descriptor) -> LocalSource:
        """A blob, for reading at random; its size is checked, its digest is not."""
        path = self._inside(self._blob(entry.digest))
        try:
            return open_exact(path, entry.size)
        except (FileNotFoundError, NotADirectoryError):
            raise MissingBlobError(
                f"{self.name}: blob {entry.digest} is not in the storage folder ({path})"
            ) from None

    def _blob(self, digest: str) -> Path:
        algorithm, _, value = check_digest(digest, self.name).partition(":")
        return self._root / "blobs" / algorithm / value[:2] / value / "data"

    def _inside(self, path: Path) -> Path:
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(self._root):
            raise FormatError(f"leads out of the storage folder, to {real}", str(path))
        return real

    def _read(self, path: Path, limit: int) -> bytes:
        data = read_small(self._inside(path), limit)
        if data is None:
            raise FormatError(f"over the limit of {limit} bytes", str(path))
        return data


def images(path: str | os.PathLike[str]) -> Iterator[tuple[str, str]]:
    """Repository and tag of every image of a storage folder that has one."""
    storage = Storage(path)
    for repository in storage.repositories():
        for tag in storage.tags(repository):
            yield repository, tag


def _folders(path: Path) -> list[str]:
    """The names of the folders in a folder, sorted; none where there is no such folder."""
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
