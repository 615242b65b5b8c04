"""The file-system view of one layer, or of the stack of layers that makes an image.

The one definition of what is where: mounts, fsspec, `ls` and `cat` all show a `Tree`.
Whiteouts follow the OCI image specification (layer.md, "Whiteouts"). Paths are relative to the
root, which is ""; a leading "/" is the root too. Nothing outside the layers is ever looked at.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from stargz import paths
from stargz._engine import toc as _toc
from stargz.contents import Mode, check_mode
from stargz.errors import UsageError, quoted
from stargz.layer import Layer
from stargz.paths import Name
from stargz.toc import IMPLIED_DIR_MODE, Entry, EntryType

Whiteouts = Literal["apply", "hide", "raw", "overlay"]


@dataclass(frozen=True, slots=True)
class Stat:
    """What is at a path, as stat(2) has it.

    `path` is cleaned; `type` is the TOC's word, never "hardlink"; `mode` has the S_IF bits;
    `size` is in bytes, of a symlink its target's length; `mtime` in seconds since the epoch, and
    `mtime_nsec` its fraction, which an ordinary tar alone may have;
    `nlink` of a directory is 2 and its subdirectories. `ino` is the same for all names of a
    file, and for the same layers always. `layer` numbers the layer it is from, from 0, the
    lowest, up. `opaque` and `whiteout` are what the "overlay" view made of it.
    """

    path: str
    type: EntryType
    mode: int
    size: int
    mtime: int
    uid: int
    gid: int
    nlink: int
    ino: int
    major: int
    minor: int
    user_name: str
    group_name: str
    target: str
    layer: int
    whiteout: bool = False
    opaque: bool = False
    mtime_nsec: int = 0

    @property
    def st_mode(self) -> int:
        """`mode`, by the name that os.stat has for it."""
        return self.mode

    @property
    def mtime_ns(self) -> int:
        """All of the time, in nanoseconds since the epoch."""
        return self.mtime * 1_000_000_000 + self.mtime_nsec

    @property
    def name(self) -> str:
        """The base name; "" of the root."""
        return self.path.rpartition("/")[2]

    def is_dir(self) -> bool:
        """Whether this is a directory."""
        return self.type == "dir"

    def is_file(self) -> bool:
        """Whether this is a regular file."""
        return self.type == "reg"

    def is_symlink(self) -> bool:
        """Whether this is a symbolic link."""
        return self.type == "symlink"


class Tree:
    """The files of open layers, given from the lowest up, or of one; closing those is the caller's.

    `whiteouts`: "apply" them to the layers below. For a single layer also "hide" (no layer is
    below: the same), "raw" (ordinary entries), or "overlay" (as overlayfs expects them: character
    devices 0:0, and the xattr of opaque directories). Landmarks, which layers have for themselves
    in the root, are shown only with `landmarks`. `name` is what errors call the tree (default: the
    uppermost layer's name).

    Paths are strings or `os.PathLike`, pathlib's among them. Symlinks are followed within the tree
    as in a chroot. Methods raise EntryNotFoundError (a
    KeyError) for what is not there, and NotADirectoryError, IsADirectoryError or OSError (ELOOP)
    as the system would, and ValueError once a layer is closed. Any number of threads may use a
    tree.
    """

    def __init__(
        self,
        layers: Layer | Sequence[Layer],
        whiteouts: Whiteouts = "apply",
        name: str | None = None,
        landmarks: bool = False,
    ) -> None:
        if isinstance(layers, Layer):
            layers = (layers,)
        if whiteouts not in ("apply", "hide", "raw", "overlay"):
            raise UsageError(f"whiteouts is apply, hide, raw or overlay, not {whiteouts!r}")
        if whiteouts != "apply" and len(layers) > 1:
            raise UsageError(f"whiteouts={whiteouts!r} is for one layer; {len(layers)} were given")
        for layer in layers:
            if not isinstance(layer, Layer):
                raise UsageError(f"a Tree is of open layers (stargz.open), not {layer!r}")
        self.layers: tuple[Layer, ...] = tuple(layers)
        self.whiteouts = whiteouts
        self.landmarks = landmarks
        self.name: str = (layers[-1].name if layers else "") if name is None else name
        rows = [layer.toc.rows for layer in layers]
        #: The same by node numbers, for those who read in C.
        self.engine: _toc.Tree = _toc.Tree(rows, whiteouts, landmarks)

    def __repr__(self) -> str:
        return f"<stargz.tree.Tree {self.name!r}: {len(self)} names>"

    def __reduce__(self) -> tuple[type[Tree], tuple[tuple[Layer, ...], Whiteouts, str, bool]]:
        return Tree, (self.layers, self.whiteouts, self.name, self.landmarks)

    def __len__(self) -> int:
        """How many names there are, the root included."""
        return len(self.engine)

    def __contains__(self, path: object) -> bool:
        """As `lexists`."""
        return isinstance(path, str | os.PathLike) and self.lexists(path)

    @property
    def inodes(self) -> int:
        """How many distinct files, directories and others there are."""
        return self.engine.inodes

    @property
    def size(self) -> int:
        """Bytes of all regular files, each counted once."""
        return self.engine.size

    # --- looking up ---------------------------------------------------------------------

    def node(self, path: Name, *, follow: bool = True) -> int:
        """The number of what a path leads to in `engine`; `follow` a symlink at its end."""
        self._check()
        return paths.find(self.engine, paths.text(path), follow=follow, source=self.name)

    def _check(self) -> None:
        for layer in self.layers:
            if layer.closed:
                layer.reader.check()

    def resolve(self, path: Name, *, follow: bool = True) -> str:
        """The cleaned path without symlinks that `path` leads to; with `follow=False` the last
        component may be one."""
        return self.engine.path(self.node(path, follow=follow))

    def lexists(self, path: Name) -> bool:
        """Whether something is at a path, a dangling symlink too."""
        return self._find(path, follow=False) >= 0

    def exists(self, path: Name) -> bool:
        """Whether a path leads to something."""
        return self._find(path) >= 0

    def isdir(self, path: Name) -> bool:
        """Whether a path leads to a directory."""
        return self._is(path, "dir")

    def isfile(self, path: Name) -> bool:
        """Whether a path leads to a regular file."""
        return self._is(path, "reg")

    def islink(self, path: Name) -> bool:
        """Whether a symlink is at a path."""
        return self._is(path, "symlink", follow=False)

    def _find(self, path: Name, *, follow: bool = True) -> int:
        try:
            return self.node(path, follow=follow)
        except (KeyError, OSError):
            return -1

    def _is(self, path: Name, kind: str, *, follow: bool = True) -> bool:
        node = self._find(path, follow=follow)
        return node >= 0 and self.engine.type(node) == kind

    # --- metadata -----------------------------------------------------------------------

    def stat(self, path: Name, follow: bool = True) -> Stat:
        """What a path leads to."""
        return self._stat(self.node(path, follow=follow))

    def _stat(self, node: int) -> Stat:
        engine = self.engine
        ino, size, mtime, mode, nlink, uid, gid, major, minor, nsec = engine.attr(node)
        return Stat(
            engine.path(node),
            cast(EntryType, engine.type(node)),
            mode,
            size,
            mtime,
            uid,
            gid,
            nlink,
            ino,
            major,
            minor,
            *engine.owner(node),
            engine.target(node),
            engine.row(node)[0],
            *engine.flags(node),
            nsec,
        )

    def entry(self, path: Name, *, follow: bool = False) -> Entry:
        """The TOC's entry behind a path, with its cleaned name.

        Of a hard link its own, of type "hardlink"; of a directory that several layers list the
        uppermost. What no layer lists has one too (implied directories, mode 0o755).
        """
        return self.entry_of(self.node(path, follow=follow))

    def entry_of(self, node: int) -> Entry:
        """The same by a node's number."""
        layer, row = self.engine.entry(node)
        if row >= 0:
            return Entry(*self.layers[layer].toc.rows.fields(row))  # type: ignore[arg-type]
        kind = cast(EntryType, self.engine.type(node))
        return Entry(self.engine.path(node), kind, mode=IMPLIED_DIR_MODE if kind == "dir" else 0)

    def layer_of(self, path: Name, *, follow: bool = True) -> int:
        """The number of the layer that what a path leads to is from."""
        return self.engine.row(self.node(path, follow=follow))[0]

    def readlink(self, path: Name) -> str:
        """The target of the symlink at a path; UsageError where none is."""
        node = self.node(path, follow=False)
        if self.engine.type(node) != "symlink":
            raise UsageError(f"{self.name}: {quoted(paths.text(path))} is no symlink")
        return self.engine.target(node)

    def xattrs(self, path: Name, *, follow: bool = True) -> dict[str, bytes]:
        """The extended attributes of what a path leads to."""
        return self.engine.xattrs(self.node(path, follow=follow))

    # --- directories --------------------------------------------------------------------

    def _directory(self, path: Name) -> int:
        node = self.node(path)
        if self.engine.type(node) != "dir":
            raise NotADirectoryError(f"{self.name}: {quoted(paths.text(path))} is no directory")
        return node

    def listdir(self, path: Name = "") -> list[str]:
        """The base names in a directory, sorted by their UTF-8."""
        return [self.engine.name(kid) for kid in self.engine.children(self._directory(path))]

    def nodes(self, path: Name = "", *, recursive: bool = False) -> Iterator[int]:
        """The numbers of what a directory holds, in the order of names; with `recursive` each
        directory is followed by all below it."""
        children = self.engine.children
        pending = [iter(children(self._directory(path)))]
        while pending:
            kid = next(pending[-1], None)
            if kid is None:
                pending.pop()
                continue
            yield kid
            if recursive and (below := children(kid)):
                pending.append(iter(below))

    def scandir(self, path: Name = "", *, recursive: bool = False) -> Iterator[Stat]:
        """The same as Stats; no symlink among them is followed."""
        return map(self._stat, self.nodes(path, recursive=recursive))

    def entries(self, path: Name = "", *, recursive: bool = False) -> Iterator[Entry]:
        """The same as the TOC's entries."""
        return map(self.entry_of, self.nodes(path, recursive=recursive))

    def walk(self, path: Name = "") -> Iterator[tuple[str, list[str], list[str]]]:
        """(path of a directory, names of directories in it, other names), from the top down, as
        os.walk: what the caller removes from the first list is not walked."""
        engine = self.engine
        pending = [self._directory(path)]
        while pending:
            node = pending.pop()
            found: tuple[list[str], list[str]] = ([], [])
            for kid in engine.children(node):
                found[engine.type(kid) != "dir"].append(engine.name(kid))
            directories, others = found
            yield engine.path(node), directories, others
            pending += [engine.child(node, name) for name in reversed(directories)]

    def glob(
        self, pattern: Name | Iterable[Name], exclude: Name | Iterable[Name] = ()
    ) -> list[str]:
        """The paths that a pattern matches, or one of several, in the order of the tree; less
        what `exclude` matches, and all below that.

        `*`, `?` and `[...]` are within a name, `**` is any number of directories and, at the
        end, all in them; only `**` does not go through symlinked directories. What an excluded
        pattern without a "/" matches is in any directory. A path that is so called is no pattern.
        """
        return paths.names(self.engine, pattern, exclude)

    # --- contents -----------------------------------------------------------------------

    def locate(self, path: Name) -> tuple[int, int]:
        """(layer number, row): where the contents are of the regular file that a path leads
        to. IsADirectoryError; UsageError for what else has none."""
        node = self.node(path)
        kind = self.engine.type(node)
        if kind == "dir":
            raise IsADirectoryError(f"{self.name}: {quoted(paths.text(path))} is a directory")
        if kind != "reg":
            raise UsageError(
                f"{self.name}: {quoted(paths.text(path))} is of type {kind}; only files have "
                "contents"
            )
        return self.engine.row(node)

    def read(self, path: Name, offset: int = 0, size: int = -1) -> bytes:
        """At most `size` bytes (all when negative) of a file from `offset` on.

        Raises DigestError for contents that do not match, GzipError for a damaged blob, and
        SourceError for bytes that cannot be had.
        """
        layer, row = self.locate(path)
        return self.layers[layer].read_row(row, offset, size)

    def read_many(self, requests: Sequence[tuple[Name, int, int]]) -> list[bytes]:
        """`read` of several (path, offset, size), in the order asked for; what a remote source
        has to fetch for them is asked for at the same time."""
        places = [self.locate(path) for path, _, _ in requests]
        found = [b""] * len(requests)
        for number in sorted({layer for layer, _ in places}):
            mine = [i for i, (layer, _) in enumerate(places) if layer == number]
            rows = [(places[i][1], requests[i][1], requests[i][2]) for i in mine]
            for i, data in zip(mine, self.layers[number].read_rows(rows), strict=True):
                found[i] = data
        return found

    def open(self, path: Name, mode: Mode = "rb") -> io.BufferedReader:
        """A file object over a file's contents: binary, seekable, for any number of threads
        that take turns; open one each to read in parallel. `mode` is for those who expect one."""
        check_mode(mode)
        layer, row = self.locate(path)
        return self.layers[layer].open_row(row, paths.text(path))
