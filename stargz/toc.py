"""The table of contents (format section 2) as Python objects and numpy columns.

A `TOC` is a sequence of `Entry` objects that are made when asked for; names are cleaned:
relative to the root, no "." or "..", the root is "".
"""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, overload

from stargz._engine import toc as _toc
from stargz.paths import Name, text

EntryType = Literal["dir", "reg", "symlink", "hardlink", "char", "block", "fifo"]

PREFETCH_LANDMARK = ".prefetch.landmark"
NO_PREFETCH_LANDMARK = ".no.prefetch.landmark"
LANDMARKS = (PREFETCH_LANDMARK, NO_PREFETCH_LANDMARK)
# What the format put into the root, which is no part of the files.
MARKERS = (*LANDMARKS, "stargz.index.json")
IMPLIED_DIR_MODE = 0o755

_TYPE_BITS: dict[EntryType, int] = {
    "dir": stat.S_IFDIR,
    "reg": stat.S_IFREG,
    "symlink": stat.S_IFLNK,
    "hardlink": stat.S_IFREG,
    "char": stat.S_IFCHR,
    "block": stat.S_IFBLK,
    "fifo": stat.S_IFIFO,
}

# The Gregorian calendar repeats after 400 years; datetime knows only those from 1 to 9999.
_CYCLE_START = datetime(2000, 1, 1, tzinfo=UTC)
_CYCLE_SECONDS = 146097 * 86400


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: a name, what is there, and its metadata.

    `size` in bytes, of regular files only; `mtime` in seconds since the epoch, and `mtime_nsec` its
    fraction, which an ordinary tar alone may have; `mode` as the tar has it, it may carry the S_IF
    bits (`st_mode` always does); `digest` of the whole file ("sha256:..."), "" where the TOC gives
    none. A hard link is an entry of its own, of type "hardlink".
    """

    name: str
    type: EntryType
    size: int = 0
    mtime: int = 0
    mode: int = 0
    uid: int = 0
    gid: int = 0
    user_name: str = ""
    group_name: str = ""
    link_name: str = ""
    dev_major: int = 0
    dev_minor: int = 0
    xattrs: dict[str, bytes] = field(default_factory=dict, hash=False)
    digest: str = ""
    mtime_nsec: int = 0

    @property
    def st_mode(self) -> int:
        """Type and permissions as os.stat has them and the `stat` module understands; of a hard
        link those of a regular file."""
        return _TYPE_BITS[self.type] | stat.S_IMODE(self.mode)

    @property
    def mtime_ns(self) -> int:
        """All of the time, in nanoseconds since the epoch."""
        return self.mtime * 1_000_000_000 + self.mtime_nsec

    def is_dir(self) -> bool:
        """Whether this is a directory."""
        return self.type == "dir"

    def is_file(self) -> bool:
        """Whether this is a regular file (a hard link is not)."""
        return self.type == "reg"

    def to_json(self) -> dict[str, Any]:
        """The entry with the TOC's own keys, those that are empty left out, except name and
        type. User and group names are always there when they are known."""
        pairs: dict[str, Any] = {
            "size": self.size,
            "modtime": format_time(self.mtime, self.mtime_nsec) if self.mtime_ns else "",
            "linkName": self.link_name,
            "mode": self.mode,
            "uid": self.uid,
            "gid": self.gid,
            "userName": self.user_name,
            "groupName": self.group_name,
            "devMajor": self.dev_major,
            "devMinor": self.dev_minor,
            "xattrs": {k: base64.b64encode(v).decode("ascii") for k, v in self.xattrs.items()},
            "digest": self.digest,
        }
        found = {key: value for key, value in pairs.items() if value}
        return {"name": self.name, "type": self.type, **found}


@dataclass(frozen=True, slots=True)
class Chunk:
    """Where `size` bytes of a file lie, from `chunk_offset` in the file on.

    They begin `inner_offset` decoded bytes behind the start of the gzip member at blob offset
    `offset`. `digest` ("sha256:...") is "" in legacy blobs. With `zeros` they are a hole: bytes 0,
    of which the blob has nothing (both offsets are 0, the digest is "").
    """

    offset: int
    inner_offset: int
    chunk_offset: int
    size: int
    digest: str
    zeros: bool = False


class TOC:
    """The entries of a layer, in the order of the TOC; replaced ones are left out.

    `rows` is the engine's TOC: rows by number, chunks included. Objects are safe for any
    number of threads.
    """

    def __init__(self, rows: _toc.TOC) -> None:
        self.rows = rows
        self._numbers = rows.entries()

    @classmethod
    def parse(
        cls,
        data: bytes | bytearray | memoryview | Iterable[bytes],
        blob_end: int,
        source: str = "",
    ) -> TOC:
        """Parse TOC JSON, whole or in pieces.

        `blob_end` bounds the offsets: the TOC's own offset, or for an external TOC the blob's
        size less its footer. Raises TOCError for everything that is not a TOC of such a blob.
        """
        return cls(_toc.TOC.parse(data, blob_end, source))

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | list[Entry]:
        if isinstance(index, slice):
            return [self._entry(number) for number in self._numbers[index]]
        return self._entry(self._numbers[index])

    def __iter__(self) -> Iterator[Entry]:
        return map(self._entry, self._numbers)

    def __contains__(self, name: object) -> bool:
        """Whether a name is there, as an entry or as an implied directory."""
        if not isinstance(name, str | os.PathLike):
            return False
        name = text(name)
        return self.rows.lookup(name) >= 0 or self.rows.is_dir(name)

    def entry(self, name: Name) -> Entry:
        """The entry of a name, which is cleaned first; KeyError when there is none.

        Directories that only other names imply, the root among them, come as an entry of
        type "dir" and mode 0o755.
        """
        name = text(name)
        number = self.rows.lookup(name)
        if number >= 0:
            return self._entry(number)
        if self.rows.is_dir(name):
            return _implied(clean_name(name))
        raise KeyError(name)

    def resolve(self, name: Name) -> Entry:
        """The same, with hard links followed to the entry that they stand for."""
        number = self.rows.lookup(text(name))
        if number >= 0:
            return self._entry(self.rows.resolve(number))
        return self.entry(name)

    def row(self, name: Name) -> int:
        """The row number of a name, hard links followed; KeyError when no entry has it."""
        name = text(name)
        number = self.rows.lookup(name)
        if number < 0:
            raise KeyError(name)
        return self.rows.resolve(number)

    def names(self, *types: EntryType) -> list[str]:
        """The names of all entries, only of these types if given, without implied ones."""
        return self.rows.names(*types)

    def is_dir(self, name: Name) -> bool:
        """Whether a name is a directory, also an implied one. "" is the root."""
        return self.rows.is_dir(text(name))

    def listdir(self, name: Name = "") -> list[str]:
        """Base names in a directory, sorted by their UTF-8. KeyError, NotADirectoryError."""
        return [base for base, _ in self._children(text(name))]

    def children(self, name: Name = "") -> list[Entry]:
        """The entries in a directory, sorted likewise; implied directories too."""
        name = text(name)
        prefix = clean_name(name)
        prefix += "/" if prefix else ""
        return [
            self._entry(number) if number >= 0 else _implied(prefix + base)
            for base, number in self._children(name)
        ]

    def chunks(self, name: Name) -> list[Chunk]:
        """The chunks of a regular file in order, holes among them, hard links followed; none where
        it is empty.

        Raises KeyError when there is no such entry.
        """
        return [Chunk(*chunk) for chunk in self.rows.chunks(self.row(name))]

    @property
    def columns(self) -> Any:
        """All rows as a read-only numpy structured array (`TOC.rows` of the engine says what
        the columns are). Rows are chunks and replaced entries too: see type and flags."""
        return self.rows.rows()

    def counts(self) -> dict[str, int]:
        """How many "entries", regular "files" and "chunks", and the "bytes" of all files."""
        return self.rows.counts()

    def _entry(self, number: int) -> Entry:
        return Entry(*self.rows.fields(number))  # type: ignore[arg-type]

    def _children(self, name: str) -> list[tuple[str, int]]:
        found = self.rows.children(name)
        if found is not None:
            return found
        if self.rows.lookup(name) >= 0:
            raise NotADirectoryError(f"{name!r} is no directory")
        raise KeyError(name)


def clean_name(name: str) -> str:
    """A name as look-ups take it: joined to "/", normalised, ".." stopped at the root, without
    the leading "/"; the root is ""."""
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def format_time(seconds: int, nsec: int = 0) -> str:
    """Seconds since the epoch as the TOC writes them: RFC 3339, UTC. A fraction has as many digits
    as it needs."""
    epoch = seconds - int(_CYCLE_START.timestamp())
    cycles, rest = divmod(epoch, _CYCLE_SECONDS)
    time = _CYCLE_START + timedelta(seconds=rest)
    fraction = f".{nsec:09d}".rstrip("0") if nsec else ""
    return f"{time.year + 400 * cycles:04d}-{time:%m-%dT%H:%M:%S}{fraction}Z"


def _implied(name: str) -> Entry:
    return Entry(name, "dir", mode=IMPLIED_DIR_MODE)
