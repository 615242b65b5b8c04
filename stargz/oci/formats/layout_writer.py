"""An OCI image layout as a destination (OCI image specification 1.1, `image-layout.md`)."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from stargz.digests import check_digest, digest_of
from stargz.durable import NewFile, complete_or_absent, release, sync_folder, write_all
from stargz.errors import FormatError, SourceError, StargzError
from stargz.oci.formats.layout import ImageLayout, Layout
from stargz.oci.formats.manifest import (
    KNOWN,
    MAX_MANIFEST_SIZE,
    OCI_INDEX,
    REF_NAME,
    Descriptor,
    Manifest,
    check_bytes,
    layer_kind,
    load_json,
    parse_manifest,
    too_large,
    without_nulls,
)
from stargz.oci.formats.reference import ImageReference, LayoutReference, Reference

_VERSION = b'{"imageLayoutVersion":"1.0.0"}'
_TRIES = 1000  # to make a directory that others take away; where none can be, in no time
_INDEX = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}


class LayoutDestination:
    """A Destination in a layout's directory, which is made when the first thing is written.
    Any number of threads and processes may write to one directory. `close` takes away a layout
    that was not there before, if nothing was put into it.

    One that is a part of another destination (`within` is its name, which errors give) has a
    parent directory as long as that is open; afterwards it is not made."""

    at_once = False

    def __init__(self, reference: LayoutReference, within: str | None = None) -> None:
        self.reference: Reference | LayoutReference
        self.reference = self._reference = reference
        self.name: str = within or str(reference)
        self._within = within
        self._path = Path(os.path.abspath(reference.path))  # noqa: PTH100
        self._made = False
        self._new = [path for path in (self._path, *self._path.parents) if not path.exists()]
        self._was_there = (self._path / "oci-layout").exists()
        self._used: int | None = None  # keeps `blobs` locked: others do not take it away

    def has_blob(self, entry: Descriptor) -> bool:
        """See Destination.has_blob."""
        return _holds(self._blob(entry.digest), entry.size)

    def mount_blob(self, entry: Descriptor, other: ImageReference) -> bool:
        """See Destination.mount_blob: a hard link, on one file system."""
        if not isinstance(other, LayoutReference):
            return False
        algorithm, _, value = check_digest(entry.digest).partition(":")
        theirs = Path(other.path, "blobs", algorithm, value)
        mine = self._blob(entry.digest)
        if not _holds(theirs, entry.size):
            return False
        with errors_name(self._within):
            self._make()
        if _holds(mine, entry.size):
            return True
        try:
            fd = os.open(theirs, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            mine.parent.mkdir(exist_ok=True)
            os.link(theirs, mine, follow_symlinks=False)
            sync_folder(str(mine.parent))
        except OSError:
            pass  # another file system, an owner who does not allow it, or just written
        return _holds(mine, entry.size)

    def writer(self, size: int | None = None) -> LayoutBlob:
        """See Destination.writer."""
        with errors_name(self._within):
            self._make()
            return LayoutBlob(self._path, self.name, self._within)

    def write_blob(self, data: bytes, digest: str) -> None:
        """See Destination.write_blob."""
        check_bytes(data, digest, self.name)
        path = self._blob(digest)
        if _holds(path, len(data)) and path.read_bytes() == data:
            return
        with self.writer(len(data)) as writer:
            writer.write(data)
            writer.commit(digest)

    def is_whole(self, digest: str) -> bool:
        """See Destination.is_whole."""
        try:
            needed = [
                self.has_blob(entry)
                for entry in blobs_of(Layout(self._path), digest)
                if layer_kind(entry) != "foreign"
            ]
        except (StargzError, OSError):
            return False
        return bool(needed) and all(needed)

    def digest(self) -> str | None:
        """See Destination.digest. Without a name it is that of the only image without one."""
        try:
            (self._path / "index.json").stat()
        except OSError:
            return None
        found = self._named(Layout(self._path))
        if self._reference.ref is not None:
            return found[-1].digest if found else None
        return found[0].digest if len({entry.digest for entry in found}) == 1 else None

    def root(self, suffix: str = "") -> Manifest | None:
        """See Destination.root. What has no name is not replaced."""
        if self._reference.ref is None or not (self._path / "index.json").exists():
            return None
        layout = Layout(self._path)
        found = self._named(layout, suffix)
        return layout.manifest(found[-1]) if found else None

    def manifest(self, entry: Descriptor) -> Manifest:
        """See Destination.manifest."""
        return Layout(self._path).manifest(entry)

    def _ref(self, suffix: str = "") -> str | None:
        ref = self._reference.ref
        return None if ref is None else ref + suffix

    def _named(self, layout: ImageLayout, suffix: str = "") -> list[Descriptor]:
        ref = self._ref(suffix)
        listed = layout.index.manifests if suffix else layout.images
        return [entry for entry in listed if entry.annotations.get(REF_NAME) == ref]

    def write_manifest(self, data: bytes, media_type: str, *, named: bool, suffix: str = "") -> str:
        """See Destination.write_manifest. Only what is named is in the layout's index."""
        if len(data) > MAX_MANIFEST_SIZE:
            raise FormatError(too_large(len(data)), self.name)
        digest = digest_of(data)
        self.write_blob(data, digest)
        if named:
            entry: dict[str, Any] = {"mediaType": media_type, "digest": digest, "size": len(data)}
            if self._reference.ref is not None:
                entry["annotations"] = {REF_NAME: self._ref(suffix)}
            with errors_name(self._within):
                self._add(entry)
        return digest

    def write_referrer(self, data: bytes, media_type: str, kind: str) -> list[str]:
        """See Destination.write_referrer: the layout's index lists it, without a name."""
        digest = self.write_manifest(data, media_type, named=False)
        subject = parse_manifest(data, self.name).subject
        entry = {
            "mediaType": media_type,
            "digest": digest,
            "size": len(data),
            "artifactType": kind,
        }

        older: list[str] = []

        def is_older(old: object) -> bool:
            """Asked while nobody else writes the layout's index."""
            if not older:
                about = Layout(self._path).about(subject) if subject else ()
                same = (one.digest for one, found in about if found.artifact_type == kind)
                older.extend((digest, *same))
            return isinstance(old, dict) and not _name_of(old) and old.get("digest") in older

        with errors_name(self._within):
            self._add(entry, is_older)
        return []

    def interrupt(self) -> None:
        """See Destination.interrupt: nothing here waits for long."""

    def close(self) -> None:
        """Give back what it holds; nothing stays of a layout that was made for nothing."""
        with suppress(OSError, StargzError):  # it is there for good, or another still writes to it
            if not self._was_there:
                self._take_away()
        if self._used is not None:
            release(self._used)
            self._used = None

    def _take_away(self) -> None:
        """OSError where it is to stay. Of those who write at the same time one may have had the
        layout taken away already, and not the directories that are new since another began."""
        with suppress(_GoneError), self._lock():
            with suppress(FileNotFoundError):
                self._unmake()
            if self._path in self._new:
                self._path.rmdir()
        for path in self._new:
            if path != self._path:  # which another may have made anew, and goes by its lock alone
                with suppress(FileNotFoundError):
                    path.rmdir()

    def _unmake(self) -> None:
        """What is there of it: making it may have failed anywhere."""
        folder, index = self._path / "blobs", self._path / "index.json"
        with ExitStack() as stack:
            if folder.exists():
                fd = _open_folder(folder)
                stack.callback(os.close, fd)
                if self._used is not None:
                    fcntl.flock(self._used, fcntl.LOCK_UN)
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if (index.exists() and Layout(self._path).index.manifests) or any(
                    folder.glob("*/*")
                ):
                    return
                for name in folder.iterdir():
                    name.rmdir()
                folder.rmdir()
            for marker in (index, self._path / "oci-layout"):
                marker.unlink(missing_ok=True)

    # --- the directory ------------------------------------------------------------------

    def _blob(self, digest: str) -> Path:
        algorithm, _, value = check_digest(digest, self.name).partition(":")
        return self._path / "blobs" / algorithm / value

    def _make(self) -> None:
        """Have a layout in the directory; SourceError if there is something else."""
        tries = 0
        while not self._made:
            try:
                self._path.mkdir(parents=self._within is None, exist_ok=True)
            except (FileNotFoundError, FileExistsError) as error:
                if self._within is not None and isinstance(error, FileNotFoundError):
                    raise SourceError(f"{self.name}: it is closed") from None
                # Another may have taken it, or what is above it, away in the middle.
                tries += 1
                if tries > _TRIES or os.path.lexists(self._path):
                    raise
                continue
            with suppress(_GoneError):
                self._make_there()

    def _make_there(self) -> None:
        with self._lock():
            marker = self._path / "oci-layout"
            if not marker.exists():
                there = sorted(path.name for path in self._path.iterdir() if not _has_layouts(path))
                if there:
                    raise SourceError(
                        f"{self.name}: the directory has no oci-layout, but other things "
                        f"({there[0]!r}, ...): give a new or empty one"
                    )
                with complete_or_absent(str(marker)) as fd:
                    write_all(fd, _VERSION)
            (self._path / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
            if not (self._path / "index.json").exists():
                self._write_index(dict(_INDEX))
            Layout(self._path)  # of a version that is known
            if self._used is None:
                self._used = _open_folder(self._path / "blobs")
                fcntl.flock(self._used, fcntl.LOCK_SH)
        sync_folder(str(self._path.parent))
        self._made = True

    @contextmanager
    def _lock(self) -> Iterator[None]:
        try:
            fd = _open_folder(self._path)
        except FileNotFoundError:
            raise _GoneError from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if not _is_folder(fd, self._path):
                raise _GoneError
            for name in ("oci-layout", "index.json"):  # of who was killed
                for left in self._path.glob(f".{name}.*.partial"):
                    left.unlink()
            yield
        finally:
            release(fd)

    def _add(
        self, entry: dict[str, Any], is_older: Callable[[object], bool] = lambda old: False
    ) -> None:
        """Put a descriptor into the index, instead of the one with its name, and of older ones."""
        self._make()
        path = self._path / "index.json"
        with self._lock():
            with path.open("rb") as file:
                data = file.read(MAX_MANIFEST_SIZE + 1)
            if len(data) > MAX_MANIFEST_SIZE:
                raise FormatError(too_large(None), str(path))
            index = without_nulls(load_json(data, str(path)))
            listed = index.get("manifests", [])
            if not isinstance(listed, list):
                raise FormatError("'manifests' is not a list", str(path))
            kept = [old for old in listed if not (_same_name(old, entry) or is_older(old))]
            index["manifests"] = [*kept, entry]
            self._write_index(index)

    def _write_index(self, index: dict[str, Any]) -> None:
        path = self._path / "index.json"
        data = json.dumps(index, separators=(",", ":")).encode()
        if len(data) > MAX_MANIFEST_SIZE:
            raise FormatError(f"{too_large(len(data))}; give another directory", str(path))
        with complete_or_absent(str(path)) as fd:
            write_all(fd, data)


def blobs_of(layout: ImageLayout, digest: str | None = None) -> Iterator[Descriptor]:
    """All that a layout's images are made of: manifests, configs, layers; those of one image if
    its digest is given. Some come more than once."""
    left = [entry for entry in layout.index.manifests if digest in (None, entry.digest)]
    seen = set()
    while left:
        entry = left.pop()
        if entry.digest in seen:
            continue
        seen.add(entry.digest)
        yield entry
        if entry.media_type not in KNOWN:
            continue
        found = layout.manifest(entry)
        if found.kind == "index":
            left.extend(found.manifests)
        else:
            yield from (found.config, *found.layers)


class _GoneError(FileNotFoundError):
    """Another who made the directory took it away."""


class LayoutBlob:
    """A BlobWriter to a layout. What is written to `fd` by others counts as written here."""

    def __init__(self, layout: Path, name: str, within: str | None = None) -> None:
        self.name = name
        self._layout = layout
        self._within = within
        self._file = NewFile(str(layout / "blobs" / "sha256"), "blob")

    @property
    def fd(self) -> int:
        """A descriptor to write to, at its own position."""
        return self._file.fd

    def write(self, data: bytes | memoryview, /) -> int:
        """Append all of `data`; OSError if the disk is full."""
        with errors_name(self._within or str(self._layout)):
            return write_all(self._file.fd, data)

    def commit(self, digest: str) -> None:
        """Have the blob in the layout, in the place of one that is there: that may be damaged."""
        algorithm, _, value = check_digest(digest, self.name).partition(":")
        path = self._layout / "blobs" / algorithm / value
        with errors_name(self._within or str(path)):
            if algorithm != "sha256":
                path.parent.mkdir(exist_ok=True)
            if not self._file.publish(str(path), replace=False):
                self._file.publish(str(path))
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()


@contextmanager
def errors_name(name: str | None) -> Iterator[None]:
    """Have the system's errors name something else than the file, if anything."""
    try:
        yield
    except OSError as error:
        if name is None or isinstance(error, StargzError):
            raise
        raise OSError(error.errno, error.strerror, name) from None


def _open_folder(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _is_folder(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _has_layouts(path: Path) -> bool:
    """Whether a folder holds image layouts, and nothing but them: those of repositories below."""
    if path.is_symlink() or not path.is_dir():
        return False
    if (path / "oci-layout").exists():
        return True
    below = list(path.iterdir())
    return bool(below) and all(_has_layouts(one) for one in below)


def _holds(path: Path, size: int) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == size


def _name_of(entry: dict[str, Any]) -> object:
    notes = entry.get("annotations")
    return notes.get(REF_NAME) if isinstance(notes, dict) else None


def _same_name(old: object, entry: dict[str, Any]) -> bool:
    """Whether `entry` takes the place of an entry that is there."""
    if not isinstance(old, dict):
        return False
    name = _name_of(old)
    mine = entry.get("annotations", {}).get(REF_NAME)
    if mine is None:
        return name is None and old.get("digest") == entry["digest"]
    return bool(name == mine)
