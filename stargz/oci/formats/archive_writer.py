"""A tar of an OCI image layout as a destination (oci-archive:)."""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from stargz.digests import check_digest
from stargz.durable import complete_or_absent, release, write_all
from stargz.endpoints import is_replaced
from stargz.errors import FormatError, OccupiedError, SourceError, StargzError, UsageError
from stargz.oci.formats.layout import Layout, open_archived
from stargz.oci.formats.layout_writer import LayoutDestination, blobs_of, errors_name
from stargz.oci.formats.manifest import REF_NAME, Descriptor, Manifest, layer_kind
from stargz.oci.formats.reference import STDIN, ArchiveReference, LayoutReference

_LAYOUT = "layout"
_MARKER = "made-by-stargz"  # a file beside it: only a directory with it may be taken away
_RANDOM = "[a-z0-9_]" * 8  # as tempfile has it in names
_RECORD = 10240  # bytes of which a tar has a whole number, as GNU tar writes it


class ArchiveDestination(LayoutDestination):
    """A Destination that is a layout in a hidden directory beside the file, until the image has
    its name: then the file is written, in the place of one that is there. Its bytes depend on the
    image and its name alone."""

    at_once = True

    def __init__(self, reference: ArchiveReference) -> None:
        if reference.path == STDIN:
            raise UsageError(f"{reference}: an archive is written to a file; name one")
        self._file = os.path.realpath(reference.path)
        self._path_given = reference.path
        if not is_replaced(self._file):
            raise SourceError(f"{reference}: not a regular file; name a file to write")
        with errors_name(str(reference)):
            self._folder, self._held = _hidden(self._file)
        # In a folder of its own: writers of a layout lock it for themselves.
        layout = LayoutReference(f"{self._folder}/{_LAYOUT}", reference.ref)
        super().__init__(layout, within=str(reference))

    def digest(self) -> str | None:
        """See Destination.digest."""
        if not Path(self._file).exists():
            return None
        with suppress(SourceError, FormatError), open_archived(self._path_given) as there:
            found = self._named(there)
            return found[-1].digest if found else None
        return None

    def root(self, suffix: str = "") -> Manifest | None:
        """See Destination.root; OccupiedError if the file has something besides, which would be
        lost with it."""
        if not Path(self._file).exists():
            return None
        try:
            with open_archived(self._path_given) as there:
                mine = self._named(there)
                others = [one for one in there.images if one not in mine]
                if others:
                    names = ", ".join(one.annotations.get(REF_NAME) or one.digest for one in others)
                    raise OccupiedError(
                        f"{self.name}: the file is written as a whole, and has other images "
                        f"({names[:200]}), which would be lost: name another file, or give --force"
                    )
                if suffix:
                    mine = self._named(there, suffix)
                return there.manifest(mine[-1]) if mine else None
        except FormatError as error:
            raise OccupiedError(
                f"{self.name}: the file exists, and is no archive of an OCI layout; --force "
                "replaces it"
            ) from error

    def manifest(self, entry: Descriptor) -> Manifest:
        """See Destination.manifest."""
        with open_archived(self._path_given) as there:
            return there.manifest(entry)

    def is_whole(self, digest: str) -> bool:
        """See Destination.is_whole."""
        try:
            with open_archived(self._path_given) as there:
                needed = [e for e in blobs_of(there, digest) if layer_kind(e) != "foreign"]
                for entry in needed:
                    there.open_blob(entry).close()
        except (StargzError, OSError):
            return False
        return bool(needed)

    def write_manifest(self, data: bytes, media_type: str, *, named: bool, suffix: str = "") -> str:
        """See Destination.write_manifest. What is named is written to the file, and gone from the
        directory."""
        digest = super().write_manifest(data, media_type, named=named, suffix=suffix)
        if named and not suffix:
            with errors_name(self.name), complete_or_absent(self._file) as fd:
                _write(fd, Layout(self._path))
        return digest

    def close(self) -> None:
        """Take the directory away."""
        super().close()
        shutil.rmtree(self._folder, ignore_errors=True)
        release(self._held)


def _hidden(file: str) -> tuple[str, int]:
    """A new directory beside a file, and what keeps it locked. Those that killed processes left
    of the same file go: with our marker, nothing of others, and locked by nobody."""
    folder, name = os.path.split(file)
    short = os.fsdecode(os.fsencode(f".{name}")[:200])
    for left in glob.glob(f"{glob.escape(f'{folder}/{short}')}.{_RANDOM}.layout"):  # noqa: PTH207
        with suppress(OSError):
            if _MARKER in (names := os.listdir(left)) and {*names} <= {_LAYOUT, _MARKER}:  # noqa: PTH208
                fd = _locked(left, fcntl.LOCK_EX)
                shutil.rmtree(left, ignore_errors=True)
                os.close(fd)
    try:
        made = tempfile.mkdtemp(".layout", f"{short}.", folder)
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "No such directory", folder) from None
    try:
        fd = _locked(made, fcntl.LOCK_SH)  # before it can be taken for one that was left
    except BaseException:
        os.rmdir(made)  # noqa: PTH106
        raise
    try:
        os.close(os.open(_MARKER, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=fd))
    except BaseException:
        os.close(fd)
        shutil.rmtree(made, ignore_errors=True)
        raise
    return made, fd


def _locked(folder: str, how: int) -> int:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _write(fd: int, layout: Layout) -> None:
    """The tar of a layout, without what nothing in it refers to. Each blob goes as soon as it is
    in the tar: there need not be room for two of all of them."""
    import tarfile

    size = 0

    def member(name: str, source: Path | None = None) -> None:
        nonlocal size
        info = tarfile.TarInfo(name)  # of the time 0 and the owner 0
        info.mode = 0o644 if source else 0o755
        info.type = tarfile.REGTYPE if source else tarfile.DIRTYPE
        if source is None:
            size += write_all(fd, info.tobuf(tarfile.GNU_FORMAT))
            return
        with source.open("rb", buffering=0) as file:
            info.size = left = os.fstat(file.fileno()).st_size
            size += write_all(fd, info.tobuf(tarfile.GNU_FORMAT))
            while left:
                sent = os.sendfile(fd, file.fileno(), None, left)
                if not sent:
                    raise FormatError("the file became shorter", str(source))
                left -= sent
        size += info.size + write_all(fd, bytes(-info.size % 512))

    member("oci-layout", layout.path / "oci-layout")
    member("index.json", layout.path / "index.json")
    names = {check_digest(one.digest).replace(":", "/") for one in blobs_of(layout)}
    there = [f"blobs/{name}" for name in names if (layout.path / "blobs" / name).exists()]
    folders = {name.rpartition("/")[0] for name in there}
    for name in ["blobs/", *sorted(f"{one}/" for one in folders)]:
        member(name)
    for name in sorted(there):
        member(name, layout.path / name)
        (layout.path / name).unlink()
    end = size + 1024
    write_all(fd, bytes(1024 + -end % _RECORD))
