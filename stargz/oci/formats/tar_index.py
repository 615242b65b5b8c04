"""Where the members of an uncompressed tar are: headers are read, data is not.

POSIX.1-2017 pax (ustar and its extended headers) and GNU tar's long names and binary numbers.
An archive is taken for hostile: everything that is kept of it has a bound, and a size never
leads back or out of the file.
"""

from __future__ import annotations

import os
import posixpath
import re
from dataclasses import dataclass
from typing import Literal

from stargz.errors import TarError

MAX_MEMBERS = 1_000_000
_BLOCK = 512
_MAX_HEADER = 1 << 20  # of an extended header, of which all is read
_MAX_NAME = 4096
_MAX_LINKS = 16
_MAX_NAMES = 256 << 20  # characters of all names
_RECORD = re.compile(rb"(\d{1,7}) ")
_ZEROS = bytes(_BLOCK)

Kind = Literal["file", "symlink", "link", "other"]
_KINDS: dict[bytes, Kind] = {
    b"0": "file", b"\0": "file", b"7": "file", b"1": "link", b"2": "symlink",
}  # fmt: skip
_WITHOUT_DATA = b"123456"


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
        self._fd = fd
        self._size = size
        self.name = name
        self.members: dict[str, Member] = {}
        self._scan()

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

    def _scan(self) -> None:
        at = 0
        headers = 0
        names = 0
        name: str | None = None  # what extended headers say of the next member
        target: str | None = None
        size: int | None = None
        sparse = False
        while at < self._size:
            block = self._read(at, _BLOCK)
            if block == _ZEROS:
                break
            headers += 1
            if headers > 2 * MAX_MEMBERS or len(self.members) > MAX_MEMBERS:
                raise TarError(f"over {MAX_MEMBERS} members", self.name, at)
            self._check(block, at)
            kind = block[156:157]
            stated = self._number(block[124:136], at)
            if kind == b"S" and block[482]:
                raise TarError("a sparse member in many pieces", self.name, at)
            if kind in (b"L", b"K", b"x", b"g"):
                data = self._extended(stated, at)
                if kind == b"L":
                    name = _text(data.rstrip(b"\0"))
                elif kind == b"K":
                    target = _text(data.rstrip(b"\0"))
                elif kind == b"x":
                    for key, value in self._records(data, at):
                        if key == b"path":
                            name = _text(value)
                        elif key == b"linkpath":
                            target = _text(value)
                        elif key == b"size":
                            if not re.fullmatch(rb"\d{1,18}", value):
                                raise TarError("a size that is none", self.name, at)
                            size = int(value)
                        elif key.startswith(b"GNU.sparse."):
                            sparse = True
                at += _BLOCK + _padded(stated)
                continue
            length = stated if size is None else size
            if kind in _WITHOUT_DATA:
                length = 0
            start = at + _BLOCK
            if length > self._size - start:
                raise TarError(
                    f"the archive is cut short: a member of {length} bytes at its end",
                    self.name,
                    at,
                )
            if name is None:
                name = _header_name(block)
            if target is None:
                target = _text(block[157:257].partition(b"\0")[0])
            if len(name) > _MAX_NAME or len(target) > _MAX_NAME:
                raise TarError(f"a name of over {_MAX_NAME} characters", self.name, at)
            names += len(name) + len(target)
            if names > _MAX_NAMES:
                raise TarError(f"names of over {_MAX_NAMES >> 20} MiB in all", self.name, at)
            path = _normal(name)
            sort = "other" if sparse else _KINDS.get(kind, "other")
            if path is not None and kind != b"5" and not name.endswith("/"):
                is_link = sort in ("symlink", "link")
                self.members[path] = Member(sort, start, length, target if is_link else "")
            at = start + _padded(length)
            name = target = size = None
            sparse = False

    def _extended(self, size: int, at: int) -> bytes:
        if size > _MAX_HEADER:
            raise TarError(f"an extended header of {size} bytes", self.name, at)
        return self._read(at + _BLOCK, size)

    def _read(self, at: int, size: int) -> bytes:
        data = os.pread(self._fd, size, at) if size else b""
        if len(data) != size:
            raise TarError("the archive is cut short", self.name, at)
        return data

    def _check(self, block: bytes, at: int) -> None:
        """The checksum, which is of all bytes with its own as spaces."""
        found = block[148:156].strip(b"\0 ")
        if not re.fullmatch(rb"[0-7]{1,8}", found) or int(found, 8) != (
            sum(block) - sum(block[148:156]) + 8 * 0x20
        ):
            raise TarError("not a tar header: its checksum is wrong", self.name, at)

    def _number(self, field: bytes, at: int) -> int:
        if field[0] == 0x80:
            value = int.from_bytes(field[1:], "big")
        else:
            text = field.strip(b"\0 ") or b"0"
            value = int(text, 8) if re.fullmatch(rb"[0-7]{1,12}", text) else -1
        if not 0 <= value < 1 << 62:
            raise TarError("a size that is none", self.name, at)
        return value

    def _records(self, data: bytes, at: int) -> list[tuple[bytes, bytes]]:
        """The "LENGTH KEY=VALUE\\n" of a pax header."""
        found = []
        start = 0
        while start < len(data):
            length = _RECORD.match(data, start)
            end = start + int(length[1]) if length else 0
            if not length or not length.end() < end <= len(data) or data[end - 1] != 0x0A:
                if not data[start:].strip(b"\0"):
                    break
                raise TarError("a malformed pax header", self.name, at)
            key, _, value = data[length.end() : end - 1].partition(b"=")
            found.append((key, value))
            start = end
        return found


def _header_name(block: bytes) -> str:
    name = block[:100].partition(b"\0")[0]
    if block[257:263] == b"ustar\0":
        prefix = block[345:500].partition(b"\0")[0]
        if prefix:
            name = prefix + b"/" + name
    return _text(name)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _normal(path: str) -> str | None:
    """The path without "." and ".."; None for one that leads out."""
    found = posixpath.normpath("/".join([".", path]))
    return None if found == ".." or found.startswith("../") else found
