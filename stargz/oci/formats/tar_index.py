"""The files in an uncompressed tar, by name: headers are read, data is not.

An archive is taken for hostile: everything that is kept of it has a bound.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Literal

from stargz._engine.write import TarEntries
from stargz.errors import TarError

MAX_MEMBERS = 1_000_000
_MAX_NAME = 4096
_MAX_LINKS = 16
_MAX_NAMES = 256 << 20  # characters of all names

Kind = Literal["file", "symlink", "link", "other"]
_KINDS: dict[bytes, Kind] = {b"0": "file", b"1": "link", b"2": "symlink"}


@dataclass(frozen=True, slots=True)
class Member:
    """One member: its data is at [offset, offset + size); `target` is what a link names."""

    kind: Kind
    offset: int
    size: int
    target: str = ""


class TarIndex:
    """The members of the tar in a file descriptor, by name; of several of one name the last.

    Raises TarError, with `name` and the offset.
    """

    def __init__(self, fd: int, size: int, name: str) -> None:
        self.name = name
        self.members: dict[str, Member] = {}
        if size:
            self._scan(TarEntries(fd, size, name, any_type=True))

    def find(self, path: str) -> Member:
        """The file that a name means, links followed; TarError says why there is none."""
        at = _normal(path)
        for _ in range(_MAX_LINKS):
            if at is None:
                raise TarError(f"{path!r:.200} leads out of the archive", self.name)
            member = self.members.get(at)
            if member is None:
                via = "" if at == path else f" (by way of {path!r:.200})"
                raise TarError(f"it has no member {at!r:.200}{via}", self.name)
            if member.kind == "file":
                return member
            if member.kind == "other":
                raise TarError(f"its member {at!r:.200} is no plain file", self.name)
            # A symlink's target is relative to where it is, a hard link's to the root.
            relative = member.kind == "symlink" and not member.target.startswith("/")
            base = posixpath.dirname(at) if relative else ""
            at = _normal(posixpath.join(base, member.target.lstrip("/")))
        raise TarError(f"the links from {path!r:.200} lead in a circle", self.name)

    def _scan(self, entries: TarEntries) -> None:
        names = 0
        for count, entry in enumerate(entries):
            if max(count // 2, len(self.members)) > MAX_MEMBERS:
                raise TarError(f"over {MAX_MEMBERS} members", self.name, entry.start)
            name, target = _text(entry.name), _text(entry.link)
            if len(name) > _MAX_NAME or len(target) > _MAX_NAME:
                raise TarError(f"a name of over {_MAX_NAME} characters", self.name, entry.start)
            names += len(name) + len(target)
            if names > _MAX_NAMES:
                raise TarError(f"names of over {_MAX_NAMES >> 20} MiB in all", self.name)
            path = _normal(name)
            if path is not None and entry.type != b"5" and not name.endswith("/"):
                kind = _KINDS.get(entry.type, "other")
                self.members[path] = Member(kind, entry.data, entry.size, target)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _normal(path: str) -> str | None:
    """The path without "." and ".."; None for one that leads out."""
    found = posixpath.normpath("/".join([".", path]))
    return None if found == ".." or found.startswith("../") else found
