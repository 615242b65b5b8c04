"""Ztocs read and made by their description alone: no line of it is stargz's, or the reference's."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

WINDOW = 32768

# --- flatbuffers ------------------------------------------------------------------------------


@dataclass
class Table:
    """Fields by number: the format of a number and the number, or what is referred to."""

    fields: dict[int, object]


def flat(root: Table, shared: Sequence[object] = ()) -> bytes:
    """Each table's own vtable before it, and what it refers to behind it; nothing is aligned. What
    is `shared` is there once, at the end."""
    out = bytearray(4)
    late: dict[int, list[int]] = {id(value): [] for value in shared}

    def refer(at: int, value: object) -> None:
        if id(value) in late:
            late[id(value)].append(at)
        else:
            place(at, put(value))

    def place(at: int, to: int) -> None:
        struct.pack_into("<I", out, at, to - at)

    def put(value: object) -> int:
        """Where it is."""
        at = len(out)
        if isinstance(value, bytes):
            out.extend(struct.pack("<I", len(value)) + value + b"\0")
        elif isinstance(value, list):
            out.extend(struct.pack("<I", len(value)) + bytes(4 * len(value)))
            for i, item in enumerate(value):
                refer(at + 4 + 4 * i, item)
        else:
            assert isinstance(value, Table)
            count = max(value.fields, default=-1) + 1
            offsets, inline, refs = [0] * count, bytearray(), []
            for number, item in value.fields.items():
                offsets[number] = 4 + len(inline)
                if isinstance(item, tuple):
                    inline += struct.pack(f"<{item[0]}", item[1])
                else:
                    refs.append((4 + len(inline), item))
                    inline += bytes(4)
            size = 4 + 2 * count
            out.extend(struct.pack(f"<HH{count}H", size, 4 + len(inline), *offsets))
            at = len(out)
            out.extend(struct.pack("<i", size) + inline)
            for offset, item in refs:
                refer(at + offset, item)
        return at

    place(0, put(root))
    for value in shared:
        at, refs = len(out), late.pop(id(value))
        put(value)
        for ref in refs:
            place(ref, at)
    return bytes(out)


@dataclass
class View:
    """A table that is read."""

    data: bytes
    at: int

    @classmethod
    def root(cls, data: bytes) -> View:
        return cls(data, struct.unpack_from("<I", data)[0])

    def _field(self, number: int) -> int:
        vtable = self.at - struct.unpack_from("<i", self.data, self.at)[0]
        slot = 4 + 2 * number
        if slot >= struct.unpack_from("<H", self.data, vtable)[0]:
            return 0
        offset = struct.unpack_from("<H", self.data, vtable + slot)[0]
        return self.at + offset if offset else 0

    def _follow(self, at: int) -> int:
        return at + struct.unpack_from("<I", self.data, at)[0]

    def _bytes(self, at: int) -> bytes:
        size = struct.unpack_from("<I", self.data, at)[0]
        return self.data[at + 4 : at + 4 + size]

    def number(self, number: int, kind: str, default: int = 0) -> int:
        at = self._field(number)
        return struct.unpack_from(f"<{kind}", self.data, at)[0] if at else default

    def text(self, number: int) -> bytes:
        at = self._field(number)
        return self._bytes(self._follow(at)) if at else b""

    def table(self, number: int) -> View:
        return View(self.data, self._follow(self._field(number)))

    def _items(self, number: int) -> list[int]:
        at = self._field(number)
        if not at:
            return []
        at = self._follow(at)
        count = struct.unpack_from("<I", self.data, at)[0]
        return [self._follow(at + 4 + 4 * i) for i in range(count)]

    def tables(self, number: int) -> list[View]:
        return [View(self.data, at) for at in self._items(number)]

    def texts(self, number: int) -> list[bytes]:
        return [self._bytes(at) for at in self._items(number)]


# --- ztocs ------------------------------------------------------------------------------------


@dataclass
class Entry:
    name: bytes
    type: bytes = b"reg"
    offset: int = 512
    size: int = 0
    link: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    uname: bytes = b""
    gname: bytes = b""
    mtime: bytes = b"2023-11-14T22:13:20Z"
    dev: tuple[int, int] = (0, 0)
    records: Sequence[tuple[bytes, bytes]] = ()


@dataclass
class Point:
    offset: int
    """Of the first whole byte."""
    out: int
    bits: int = 0
    window: bytes = bytes(WINDOW)


@dataclass
class Ztoc:
    size: int
    archive_size: int
    entries: list[Entry]
    digests: list[bytes]
    points: list[Point] = field(default_factory=list)
    span: int = 65536
    tool: bytes = b"test"
    gzip: bool = True
    plain_size: int = -1
    """What the checkpoints of a plain tar have as its size; -1: the right one."""
    version: int = 2
    """Of the checkpoints."""
    last: int | None = None
    """The number of the last span, if it is not the right one."""

    def changed(self, **changes: object) -> Ztoc:
        return replace(self, **changes)  # type: ignore[arg-type]

    def checkpoints(self) -> bytes:
        if not self.gzip:
            size = self.size if self.plain_size < 0 else self.plain_size
            return flat(Table({0: ("i", 2), 1: ("q", self.span), 2: ("q", size)}))
        points = self.points[1:] if self.version == 1 else self.points
        packed = [struct.pack("<qqB", p.offset, p.out, p.bits) + p.window for p in points]
        return struct.pack("<iq", len(self.points), self.span) + b"".join(packed)


def digest(span: bytes) -> bytes:
    return b"sha256:" + hashlib.sha256(span).hexdigest().encode()


def read(data: bytes) -> Ztoc:
    root = View.root(data)
    assert root.text(0) == b"0.9"
    info = root.table(5)
    entries = [
        Entry(
            name=t.text(0),
            type=t.text(1),
            offset=t.number(2, "q"),
            size=t.number(3, "q"),
            link=t.text(4),
            mode=t.number(5, "q"),
            uid=t.number(6, "I"),
            gid=t.number(7, "I"),
            uname=t.text(8),
            gname=t.text(9),
            mtime=t.text(10),
            dev=(t.number(11, "q"), t.number(12, "q")),
            records=[(x.text(0), x.text(1)) for x in t.tables(13)],
        )
        for t in root.table(4).tables(0)
    ]
    ztoc = Ztoc(root.number(2, "q"), root.number(3, "q"), entries, info.texts(2))
    ztoc.tool = root.text(1)
    ztoc.gzip = info.number(0, "b", 1) == 1
    assert info.number(1, "i") == len(ztoc.digests) - 1
    packed = info.text(3)
    if not ztoc.gzip:
        inner = View.root(packed)
        assert inner.number(0, "i") == 2
        ztoc.span, ztoc.plain_size = inner.number(1, "q"), inner.number(2, "q")
        return ztoc
    count, ztoc.span = struct.unpack_from("<iq", packed)
    assert len(packed) == 12 + count * (17 + WINDOW)
    for at in range(12, len(packed), 17 + WINDOW):
        offset, out, bits = struct.unpack_from("<qqB", packed, at)
        window = packed[at + 17 : at + 17 + WINDOW]
        ztoc.points.append(Point(offset, out, bits, window))
    return ztoc


def write(ztoc: Ztoc, *, sparing: bool = True, shared: Sequence[object] = ()) -> bytes:
    """Fields that have their default are left out, or (not `sparing`) there all the same."""

    def table(fields: dict[int, object]) -> Table:
        default = ((0,), b"", [])
        return Table(
            {
                number: value
                for number, value in fields.items()
                if not sparing or (value[1:] if isinstance(value, tuple) else value) not in default
            }
        )

    entries = [
        table(
            {
                13: [table({0: key, 1: value}) for key, value in e.records],
                12: ("q", e.dev[1]),
                11: ("q", e.dev[0]),
                10: e.mtime,
                9: e.gname,
                8: e.uname,
                7: ("I", e.gid),
                6: ("I", e.uid),
                5: ("q", e.mode),
                4: e.link,
                3: ("q", e.size),
                2: ("q", e.offset),
                1: e.type,
                0: e.name,
            }
        )
        for e in ztoc.entries
    ]
    last = len(ztoc.digests) - 1 if ztoc.last is None else ztoc.last
    info = {1: ("i", last), 2: list(ztoc.digests), 3: ztoc.checkpoints()}
    if not ztoc.gzip or not sparing:
        info[0] = ("b", 1 if ztoc.gzip else 2)
    root: dict[int, object] = {
        0: b"0.9",
        1: ztoc.tool,
        2: ("q", ztoc.size),
        3: ("q", ztoc.archive_size),
        4: table({0: entries}),
        5: Table(info),
    }
    return flat(table(root), shared)
