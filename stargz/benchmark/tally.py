"""What is in the files of a tar, a tree or a layer: what was read against what is there."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from stargz.benchmark.measuring import WrongError, chunks

# Of a layer: what is read piece by piece, and how much of what is not at the same time.
_LARGE = 16 << 20
_HELD = 64 << 20
_MANY = 4096


def clean(name: str) -> str:
    """A name as layers have it: "./usr/bin/" is "usr/bin"."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


class Tally:
    """Regular files, as they are read: how many, and how many bytes; with `contents` also what is
    in each, by its name."""

    def __init__(self, contents: bool = True) -> None:
        self.entries = 0  # of a tar, of any kind
        self.files = 0
        self.bytes = 0
        self.contents: dict[str, bytes] | None = {} if contents else None
        self.links: dict[str, str] = {}  # hard links, which have the contents of another name

    def add(self, name: str, data: Iterable[bytes]) -> None:
        """A file; of several with one name the last one counts."""
        self.files += 1
        if self.contents is None:
            for piece in data:
                self.bytes += len(piece)
            return
        digest = hashlib.sha256()
        for piece in data:
            self.bytes += len(piece)
            digest.update(piece)
        self.contents[clean(name)] = digest.digest()

    def check(self, read: Tally) -> None:
        """WrongError unless the same was read as is in here."""
        mine, theirs = self._all(), read._all()
        if mine == theirs:
            return
        for name, digest in mine.items():
            if name not in theirs:
                raise WrongError(f"wrong: {name!r} is missing from what came out")
            if theirs[name] != digest:
                raise WrongError(f"wrong: {name!r} came out with other contents")
        more = next(iter(theirs.keys() - mine.keys()))
        raise WrongError(f"wrong: {more!r} came out, and was not in it")

    def _all(self) -> dict[str, bytes]:
        """By every name: those of a directory cannot tell which are hard links."""
        found = dict(self.contents or {})
        for name, target in self.links.items():
            if target in found:
                found[name] = found[target]
        return found


def of_tar(tar: Any, tally: Tally) -> Tally:
    """Of an open tarfile, read from its beginning to its end."""
    for info in tar:
        tally.entries += 1
        if info.isreg():
            tally.add(info.name, chunks(tar.extractfile(info)))
            tally.links.pop(clean(info.name), None)
        elif tally.contents is not None and not info.isdir():
            name = clean(info.name)
            tally.contents.pop(name, None)  # it took a file's place
            tally.links.pop(name, None)
            if info.islnk():
                target = clean(info.linkname)
                tally.links[name] = tally.links.get(target, target)
    return tally


def of_tar_at(path: Path, mode: str, tally: Tally) -> Tally:
    """Of a tar in a file; `mode` is tarfile's."""
    import tarfile

    with tarfile.open(path, mode, errors="surrogateescape") as tar:  # type: ignore[call-overload]
        return of_tar(tar, tally)


def of_tar_in(file: IO[bytes], tally: Tally) -> Tally:
    """Of a tar in an open file."""
    import tarfile

    with file, tarfile.open(fileobj=file, mode="r|", errors="surrogateescape") as tar:
        return of_tar(tar, tally)


def of_layer(layer: Any, tally: Tally) -> Tally:
    """Of an open layer, without what converters add to it."""
    from stargz.tree import Tree

    def files() -> Iterator[tuple[str, int]]:
        for entry in layer.toc:
            if entry.type == "reg" and entry.name not in layer.markers:
                yield entry.name, entry.size
            elif entry.type == "hardlink":
                tally.links[entry.name] = clean(entry.link_name)

    return of_files(Tree([layer], "raw"), files(), tally)


def of_image(image: Any, tally: Tally) -> Tally:
    """Of an open image, as a container sees it."""
    found = image.tree.scandir(recursive=True)
    return of_files(image.tree, ((one.path, one.size) for one in found if one.is_file()), tally)


def of_files(tree: Any, files: Iterable[tuple[str, int]], tally: Tally) -> Tally:
    """Of files of a stargz.tree.Tree, given by name and size: what is small many at a time."""
    batch: list[tuple[str, int, int]] = []
    held = 0

    def take() -> None:
        for (name, _, _), data in zip(batch, tree.read_many(batch), strict=True):
            tally.add(name, [data])
        batch.clear()

    for name, size in files:
        if size > _LARGE:
            tally.add(name, chunks(tree.open(name)))
            continue
        batch.append((name, 0, -1))
        held += size
        if held > _HELD or len(batch) >= _MANY:
            take()
            held = 0
    take()
    return tally


def of_tree(tree: Path, tally: Tally) -> Tally:
    """Of a directory, hard links by each of their names."""
    for folder, folders, files in os.walk(tree):
        folders.sort()
        for name in sorted(files):
            path = Path(folder, name)
            if stat.S_ISREG(path.lstat().st_mode):
                tally.add(str(path.relative_to(tree)), chunks(path.open("rb", buffering=0)))
    return tally


def of_zip(path: Path, tally: Tally) -> Tally:
    """Of a zip."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                tally.add(info.filename, chunks(archive.open(info)))
    return tally
