"""The layers of an image merged into one tar: what applying them one after the other gives.

Whiteouts follow the OCI image specification (layer.md, "Whiteouts"): those of a layer hide what
is below it, and are not in the result. Every layer is decompressed once, into an unlinked
temporary file; then headers alone decide what stays, and the entries are copied as they are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from stargz._engine.write import TarEntries, TarEntry
from stargz.durable import release, unlinked
from stargz.errors import SourceError, TarError, quoted
from stargz.oci.convert.tar_headers import BLOCK, directory, renamed
from stargz.sources.spool import unpack
from stargz.toc import MARKERS

_HIDDEN = frozenset(name.encode() for name in MARKERS)
MAX_DEPTH = 4096  # more than a path of a system's can have
MAX_LINKS = 40  # symlinks that Linux follows in one path
_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"


class Reader(Protocol):
    """A layer's bytes in order: a plain tar, gzip or zstd."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; b"" at the end."""


@contextmanager
def merged_tar(
    layers: Sequence[Reader],
    *,
    lone_as_is: bool = False,
    memory: int | None = None,
    name: str = "merged layers",
) -> Iterator[MergedTar]:
    """One tar of the tars of `layers`, the lowest first; to be read with `read(n)`. With
    `lone_as_is` a single one without whiteouts is that tar as it stands. `name` is what errors call
    it.

    The readers are read to their ends here. Raises TarError and GzipError (whose `source` is the
    reader's `name`, or the layer's number) for what cannot be merged; SourceError when there is no
    room for the decompressed tars; and whatever the readers raise.
    """
    spools: list[int] = []
    try:
        stack = _Stack(spools)
        for number, layer in enumerate(layers):
            called = getattr(layer, "name", None)
            source = called if isinstance(called, str) else f"layer {number + 1}"
            spools.append(unlinked())
            _, size = unpack(layer.read, spools[-1], source, memory)
            stack.apply(number, size, source)
        alone = lone_as_is and len(spools) == 1 and not stack.hides
        parts: list[_Part] = [(0, 0, size)] if alone else stack.plan()
        yield MergedTar(spools, parts, name, stack.shadowed())
    finally:
        for fd in spools:
            release(fd)


@dataclass(frozen=True, slots=True)
class Shadowed:
    """A symlink of a layer below, where the layer of this number has files below its name: it is a
    directory then, as for overlayfs."""

    number: int
    path: str
    target: str

    def __str__(self) -> str:
        return (
            f"layer {self.number + 1} has files in {quoted(self.path)}, which a layer below has as "
            f"a link to {quoted(self.target)}: it is a directory now, as for overlayfs, and the "
            "link is gone"
        )


class _Node:
    """What is at a path: a directory (`kids`), or a name of a file. `entry` says it; None of a
    directory that is only implied. `number` is that of the layer."""

    __slots__ = ("entry", "file", "kids", "number")

    def __init__(self, number: int, entry: TarEntry | None = None) -> None:
        self.number = number
        self.entry = entry
        self.kids: dict[bytes, _Node] | None = {} if entry is None else None
        self.file: _File | None = None


class _File:
    """What is no directory: hard links are several names of one. `entry` has its contents."""

    __slots__ = ("entry", "number")

    def __init__(self, number: int, entry: TarEntry) -> None:
        self.number = number
        self.entry = entry


# What the merged tar is made of: bytes as they stand here, or a range of a layer's tar.
_Part = bytes | tuple[int, int, int]


class _Stack:
    """The tree that the layers applied so far make."""

    def __init__(self, spools: Sequence[int]) -> None:
        self._spools = spools
        self._sizes: list[int] = []
        self.hides = False  # whether there was any whiteout
        self._root = _Node(0)
        self._shadowed: dict[bytes, Shadowed] = {}  # by path

    # --- applying -----------------------------------------------------------------------

    def apply(self, number: int, size: int, source: str) -> None:
        """Put a layer's entries over what is there."""
        self._sizes.append(size)
        added: list[tuple[list[bytes], TarEntry, bool]] = []
        linked: dict[int, list[bytes]] = {}  # to what, of entries by where they start
        links: dict[bytes, bytes] = {}  # the layer's symlinks, and where they lead
        for entry in TarEntries(self._spools[number], size, source):
            path = _clean(entry.name)
            if links:
                path = _placed(path, links, entry, source)
                links.pop(b"/".join(path), None)
            if entry.type == b"1":
                linked[entry.start] = _placed(_clean(entry.link), links, entry, source)
            elif entry.type == b"2":
                links[b"/".join(path)] = entry.link
            if len(path) == 1 and path[0] in _HIDDEN:
                continue
            if len(path) > MAX_DEPTH:
                raise TarError(f"a path of more than {MAX_DEPTH} directories", source, entry.start)
            hides = bool(path) and path[-1].startswith(_WHITEOUT)
            if hides:
                self.hides = True
                self._hide(path)
            added.append((path, entry, hides))
        for path, entry, hides in added:
            if not hides:
                self._add(number, path, entry, linked.get(entry.start, []), source)
            elif not self._is_below_file(number, path):  # its directory is there all the same
                self._folder(number, path[:-1], entry, source)

    def _find(self, path: Sequence[bytes]) -> _Node | None:
        node: _Node | None = self._root
        for part in path:
            node = node.kids.get(part) if node is not None and node.kids is not None else None
        return node

    def _hide(self, path: list[bytes]) -> None:
        folder = self._find(path[:-1])
        if folder is None or folder.kids is None:
            return
        if path[-1] == _OPAQUE:
            folder.kids.clear()
        else:
            folder.kids.pop(path[-1][len(_WHITEOUT) :], None)

    def _is_below_file(self, number: int, path: Sequence[bytes]) -> bool:
        """Whether the layer itself has a file on the way."""
        node: _Node | None = self._root
        for part in path[:-1]:
            node = node.kids.get(part) if node is not None and node.kids is not None else None
            if node is not None and node.kids is None and node.number == number:
                return True
        return False

    def _folder(self, number: int, path: Sequence[bytes], entry: TarEntry, source: str) -> _Node:
        """The directory of a path, made if it is not there."""
        node = self._root
        for depth, part in enumerate(path, 1):
            assert node.kids is not None
            below = node.kids.get(part)
            if below is None or below.kids is None:
                if below is not None and below.number == number:
                    raise TarError(
                        f"{os.fsdecode(entry.name)!r}: a file of the same layer is used as a "
                        "directory",
                        source,
                        entry.start,
                    )
                if below is not None and below.entry is not None and below.entry.type == b"2":
                    name = b"/".join(path[:depth])
                    link = os.fsdecode(below.entry.link)
                    self._shadowed[name] = Shadowed(number, os.fsdecode(name), link)
                below = node.kids[part] = _Node(number)
            node = below
        return node

    def _add(
        self, number: int, path: list[bytes], entry: TarEntry, link: list[bytes], source: str
    ) -> None:
        if entry.type == b"5":
            node = self._root
            if path:
                folder = self._folder(number, path[:-1], entry, source)
                assert folder.kids is not None
                found = folder.kids.get(path[-1])
                if found is None or found.kids is None:
                    found = folder.kids[path[-1]] = _Node(number)
                node = found
            node.number, node.entry = number, entry
            return
        if not path:
            raise TarError(
                f"{os.fsdecode(entry.name)!r}: the root is no directory", source, entry.start
            )
        file = _File(number, entry)
        if entry.type == b"1":
            target = self._find(link)
            if target is None or target.file is None:
                what = "not there" if target is None else "a directory"
                raise TarError(
                    f"{os.fsdecode(entry.name)!r}: a hard link to {os.fsdecode(entry.link)!r}, "
                    f"which is {what}",
                    source,
                    entry.start,
                )
            file = target.file
        folder = self._folder(number, path[:-1], entry, source)
        assert folder.kids is not None
        node = folder.kids.get(path[-1]) or _Node(number)
        if node.file is file:
            return  # a link to itself, or the same once more
        node = folder.kids[path[-1]] = _Node(number, entry)
        node.file = file

    # --- the result ---------------------------------------------------------------------

    def shadowed(self) -> list[Shadowed]:
        """The symlinks in whose place there are directories that no layer lists."""
        return [
            link
            for path, link in self._shadowed.items()
            if (node := self._find(path.split(b"/"))) and node.kids is not None and not node.entry
        ]

    def plan(self) -> list[_Part]:
        """The parts of the merged tar, in the order of the layers and of their entries."""
        found: list[tuple[int, int, bytes, _Node]] = []
        implied: list[bytes] = []
        path: list[bytes] = []
        walk = [iter([(b"", self._root)])]
        while walk:
            part, node = next(walk[-1], (b"", None))
            if node is None:
                walk.pop()
                del path[-1:]
                continue
            if node.entry is not None:
                name = b"/".join([*path[1:], part])
                found.append((node.number, node.entry.start, name, node))
            elif not node.kids and part:
                implied.append(b"/".join([*path[1:], part]))
            if node.kids:
                path.append(part)
                walk.append(iter(node.kids.items()))
        found.sort(key=lambda item: item[:2])
        names: dict[int, bytes] = {}  # where the contents of a file are, by its id
        parts: list[_Part] = []
        for number, _, name, node in found:
            if node.file is None:
                self._copy(parts, number, node.entry, name)
            elif (first := names.setdefault(id(node.file), name)) is name:
                self._put_file(parts, name, node)
            else:
                self._put_link(parts, node, name, first)
        parts += [directory(name) for name in sorted(implied)]
        parts.append(bytes(2 * BLOCK))
        return parts

    def _copy(self, parts: list[_Part], number: int, entry: TarEntry | None, path: bytes) -> None:
        """An entry as it stands in its layer, which is at `path`."""
        assert entry is not None
        start = entry.start
        placed = b"/".join(_clean(entry.name)) == path
        if entry.shared or not placed:
            parts.append(renamed(self._spools[number], entry, entry.name if placed else path))
            start = entry.header + BLOCK
        self._range(parts, number, start, entry.end)

    def _put_file(self, parts: list[_Part], path: bytes, node: _Node) -> None:
        """A file under the first name that is left of it."""
        file = node.file
        assert file is not None
        if node.entry is file.entry:
            self._copy(parts, file.number, file.entry, path)
            return
        parts.append(renamed(self._spools[file.number], file.entry, path))
        self._range(parts, file.number, file.entry.header + BLOCK, file.entry.end)

    def _put_link(self, parts: list[_Part], node: _Node, path: bytes, first: bytes) -> None:
        entry = node.entry
        assert entry is not None
        linked = entry.type == b"1" and b"/".join(_clean(entry.link)) == first
        if linked and not entry.shared and b"/".join(_clean(entry.name)) == path:
            self._range(parts, node.number, entry.start, entry.end)
        else:
            parts.append(renamed(self._spools[node.number], entry, path, first))

    def _range(self, parts: list[_Part], number: int, start: int, end: int) -> None:
        size = self._sizes[number]
        last = parts[-1] if parts else None
        stop = min(end, size)
        if isinstance(last, tuple) and last[0] == number and last[2] == start:
            parts[-1] = (number, last[1], stop)
        elif stop > start:
            parts.append((number, start, stop))
        if end > stop:
            parts.append(bytes(end - stop))  # the last padding, which some writers leave out


def is_whiteout(name: str) -> bool:
    """Whether an entry of this name is a whiteout, and no file."""
    return name.rpartition("/")[2].startswith(".wh.")


def _clean(name: bytes) -> list[bytes]:
    """The parts of a path as the tree has it: `..` ends at the root."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return parts


def _placed(
    path: list[bytes], links: dict[bytes, bytes], entry: TarEntry, source: str
) -> list[bytes]:
    """Where extracting the layer puts an entry: its symlinks lead on, below the root."""
    found: list[bytes] = []
    left = path[-2::-1]  # the directories to come, the next one last
    followed = 0
    while left:
        part = left.pop()
        if part == b"..":
            del found[-1:]
            continue
        found.append(part)
        target = links.get(b"/".join(found))
        if target is None:
            continue
        followed += 1
        if followed > MAX_LINKS:
            raise TarError(
                f"{os.fsdecode(entry.name)!r}: its path leads through more than {MAX_LINKS} "
                "symlinks of the layer",
                source,
                entry.start,
            )
        del found[0 if target.startswith(b"/") else -1 :]
        left += [part for part in reversed(target.split(b"/")) if part not in (b"", b".")]
    return found + path[-1:]


class MergedTar:
    """A plain tar, to be read once and in order."""

    def __init__(
        self,
        spools: Sequence[int],
        parts: Sequence[_Part],
        name: str,
        shadowed: Sequence[Shadowed],
    ) -> None:
        self.name = name
        self.shadowed = shadowed
        self._spools = spools
        self._parts = iter(parts)
        self._bytes = b""
        self._fd, self._at, self._end = -1, 0, 0

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, all that is left if negative; b"" at the end."""
        if size < 0:
            return b"".join(iter(lambda: self.read(1 << 20), b""))
        pieces: list[bytes] = []
        while size:
            piece = self._next(size)
            if not piece:
                break
            pieces.append(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _next(self, size: int) -> bytes:
        while True:
            if self._bytes:
                piece, self._bytes = self._bytes[:size], self._bytes[size:]
                return piece
            if self._at < self._end:
                piece = os.pread(self._fd, min(size, self._end - self._at), self._at)
                if not piece:
                    raise SourceError("the temporary copy of a layer became shorter")
                self._at += len(piece)
                return piece
            part = next(self._parts, None)
            if part is None:
                return b""
            if isinstance(part, bytes):
                self._bytes = part
            else:
                number, self._at, self._end = part
                self._fd = self._spools[number]
