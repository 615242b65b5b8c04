"""What layers hold, written below a directory: in parallel, and never outside of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from stargz import paths
from stargz._engine import extract as _engine
from stargz._engine import toc as _toc
from stargz._engine.reader import Blob
from stargz.durable import release
from stargz.errors import EntryNotFoundError, UsageError
from stargz.options import thread_count
from stargz.paths import Name
from stargz.toc import MARKERS

Xattrs = Literal["none", "user", "all"]
Member = Name | bytes

# What is written beside regular files, by the engine's names for the counts.
OTHERS = {
    "directories": "directories",
    "symlinks": "symlinks",
    "hardlinks": "hard links",
    "specials": "special files",
}

# Why things are left out, by the engine's names for the counts.
SKIPPED = {
    "devices": "device nodes",
    "setid": "set-uid and set-gid bits",
    "xattrs": "xattrs outside of user.*",
    "xattrs-failed": "xattrs refused by the file system",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """An entry that could not be written: its name, the blob offset (None if it has none), what
    is wrong, of an image the number of its layer, counted from 1 for the lowest, and where the
    file system refused it, the path of the file."""

    name: str
    offset: int | None
    message: str
    layer: int | None = None
    path: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As the command prints it."""
        found = {"name": self.name, "offset": self.offset, "message": self.message}
        more = {"layer": self.layer, "path": self.path}
        return {**found, **{key: value for key, value in more.items() if value is not None}}


@dataclass(frozen=True)
class ExtractResult:
    """What an extraction wrote, and what it left out. It is true when `ok` is."""

    files: int
    """Regular files written; a hard link to one of them is not counted."""
    bytes: int
    """Bytes of contents in them."""
    unverified: int = 0
    """Files of whose contents the TOC has no digest: only CRCs were checked."""
    skipped: dict[str, int] = field(default_factory=dict)
    """How many of what were left out, by the words of SKIPPED; zeros are not listed."""
    errors: tuple[Failure, ...] = ()
    """The first hundred of the entries that failed, with `keep_going`."""
    error_count: int = 0
    """How many failed."""
    damaged: int = 0
    """How many of them because the layer is damaged: contents that do not match or decode."""
    unmatched: tuple[str, ...] = ()
    """What was excluded and is not there."""
    others: dict[str, int] = field(default_factory=dict)
    """How many of what else were written, by the words of OTHERS; zeros are not listed."""

    @property
    def ok(self) -> bool:
        """Whether nothing failed; without `keep_going` that raises."""
        return not self.error_count

    def __bool__(self) -> bool:
        return self.ok

    def to_json(self) -> dict[str, Any]:
        """As the command prints it."""
        return {
            "ok": self.ok,
            "files": self.files,
            "bytes": self.bytes,
            "others": self.others,
            "unverified": self.unverified,
            "skipped": self.skipped,
            "errors": [error.to_json() for error in self.errors],
            "error_count": self.error_count,
        }


class Part(Protocol):
    """What extraction needs to know of an open layer."""

    @property
    def toc(self) -> _toc.TOC: ...
    @property
    def blob(self) -> Blob: ...
    @property
    def data_end(self) -> int:
        """Blob offset at which the members of chunks end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractOptions:
    """How entries are written: the keywords of `stargz.layer.Layer.extractall`."""

    strip_components: int = 0
    keep_going: bool = False
    threads: int | None = None
    same_owner: bool | None = None
    devices: bool = False
    setid: bool = False
    xattrs: Xattrs = "user"
    verify: bool = True
    progress: Callable[[int, int], object] | None = None
    written: Callable[[str], object] | None = None

    def __post_init__(self) -> None:
        if self.xattrs not in get_args(Xattrs):
            raise UsageError(f"xattrs is 'none', 'user' or 'all', not {self.xattrs!r}")
        if not 0 <= self.strip_components < 1 << 32:
            raise UsageError(
                f"strip_components (--strip-components) is at least 0, not {self.strip_components}"
            )
        thread_count(self.threads)


def extract(
    parts: Sequence[Part],
    engine: _toc.Tree | None,
    name: str,
    path: str | os.PathLike[str],
    members: Iterable[Member] | None,
    exclude: list[Name],
    options: ExtractOptions,
) -> ExtractResult:
    """Write the layers `parts`, the lowest first, or `members` of them, below `path`. `engine` says
    what is where; None: all of a lone layer is written as it stands. `name` is what errors call
    them.
    """
    if isinstance(members, str | bytes | os.PathLike):
        raise UsageError("members is a list of names, not one name")
    asked = None if members is None else [_text(member) for member in members]
    empty: list[str] = []
    unmatched: list[str] = []
    wanted: Sequence[bytearray | None] = [None]
    if engine is not None:
        rows, empty, unmatched = _select(
            parts, engine, name, [""] if asked is None else asked, exclude
        )
        wanted = rows
        if asked is not None and not (empty or any(map(any, rows))):
            return ExtractResult(0, 0, unmatched=tuple(unmatched))
    with suppress(FileExistsError):  # then it is no directory, which is said below
        Path(path).mkdir(parents=True, exist_ok=True)
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    same_owner = os.geteuid() == 0 if options.same_owner is None else options.same_owner
    try:
        found = _engine.extract(
            [
                (part.toc, part.blob, part.data_end, rows)
                for part, rows in zip(parts, wanted, strict=True)
            ],
            name,
            root,
            os.fspath(path),
            empty=empty,
            strip=options.strip_components,
            keep_going=options.keep_going,
            written=options.written,
            threads=thread_count(options.threads),
            verify=options.verify,
            same_owner=same_owner,
            devices=options.devices,
            setid=options.setid,
            xattrs=options.xattrs,
            progress=options.progress,
        )
    finally:
        release(root)
    lone = len(parts) == 1
    return ExtractResult(
        found["files"],
        found["bytes"],
        found["unverified"],
        {SKIPPED[key]: found[key] for key in SKIPPED if found[key]},
        tuple(Failure(**e, layer=None if lone else n + 1) for n, e in found["errors"]),
        found["error_count"],
        found["damaged"],
        tuple(unmatched),
        {OTHERS[key]: found[key] for key in OTHERS if found[key]},
    )


def check(
    parts: Sequence[Part],
    engine: _toc.Tree,
    name: str,
    members: Iterable[Member] | None,
    exclude: list[Name],
) -> None:
    """Raise EntryNotFoundError, as `extract` does, for the first of `members` that is not there."""
    _select(parts, engine, name, [""] if members is None else [*map(_text, members)], exclude)


def _select(
    parts: Sequence[Part],
    engine: _toc.Tree,
    name: str,
    members: list[str],
    exclude: list[Name],
) -> tuple[list[bytearray], list[str], list[str]]:
    """By row what is written of each layer, empty directories that none lists, and what of
    `exclude` is not there."""
    own: list[int] = []
    if len(parts) == 1:  # what the format put into a layer is no part of its tree
        own = [row for member in members if (row := _marker(parts[0].toc, member)) >= 0]
        members = [member for member in members if _marker(parts[0].toc, member) < 0]
    try:
        selection = paths.select(engine, members, exclude, name)
    except NotADirectoryError:
        for member in members:
            try:
                paths.matches(engine, member, name)
            except NotADirectoryError:
                raise EntryNotFoundError(member, name) from None
        raise
    nodes = {node for match in selection.matches for node in (match.node, *match.links)}
    rows, empty = engine.rows(nodes, selection.excluded)
    for row in own:
        rows[0][row] = 1
    return rows, empty, selection.unmatched


def _text(member: Member) -> str:
    return os.fsdecode(member) if isinstance(member, bytes) else paths.text(member)


def _marker(toc: _toc.TOC, name: str) -> int:
    """The row of a landmark, or of the TOC's own entry; -1."""
    row = toc.lookup(name)
    return row if row >= 0 and not toc.ordinary and toc.name(row) in MARKERS else -1
