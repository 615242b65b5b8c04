"""Patches made by hand, frame by frame (csrc/patch/format.h): also such as no maker would make."""

from __future__ import annotations

import difflib
import hashlib
import io
import re
import struct
import tarfile
import zlib
from dataclasses import dataclass, replace

import stargz

MAGIC = b"SGZPATCH"
FRAME = 1 << 20
HEAD = struct.Struct("<IIIqq32s32sqQqqQ64s")


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def zigzag(value: int) -> bytes:
    return varint(value << 1 if value >= 0 else -value * 2 - 1)


def frame(
    kind: bytes,
    payload: bytes,
    *,
    deflated: bool = False,
    crc: int | None = None,
    zero: int = 0,
    length: int | None = None,
) -> bytes:
    if deflated:
        packer = zlib.compressobj(6, wbits=-15)
        payload = packer.compress(payload) + packer.flush()
    size = len(payload) if length is None else length
    front = kind + struct.pack("<BHI", deflated, zero, size)
    if crc is None:
        crc = zlib.crc32(payload, zlib.crc32(front))
    return front + struct.pack("<I", crc) + payload


@dataclass(frozen=True)
class Head:
    """What a patch says first; the defaults are those of one that only copies."""

    base: bytes
    new: bytes
    version: int = 1
    level: int = 0
    legacy: int = 0
    base_size: int | None = None
    new_size: int | None = None
    new_toc_offset: int | None = None
    toc_json_size: int = 0
    base_toc_offset: int = 0
    base_toc_end: int = 0
    base_json_size: int = 0
    engine: bytes = b"isa-l"

    def pack(self) -> bytes:
        def or_len(value: int | None, data: bytes) -> int:
            return len(data) if value is None else value

        return HEAD.pack(
            self.version,
            self.level,
            self.legacy,
            or_len(self.base_size, self.base),
            or_len(self.new_size, self.new),
            hashlib.sha256(self.base).digest(),
            hashlib.sha256(self.new).digest(),
            or_len(self.new_toc_offset, self.new),
            self.toc_json_size,
            self.base_toc_offset,
            self.base_toc_end,
            self.base_json_size,
            self.engine,
        )

    def but(self, **changes: object) -> Head:
        return replace(self, **changes)  # type: ignore[arg-type]


def patch(head: Head | bytes, *frames: bytes, end: bool = True) -> bytes:
    """The whole of it; `head` packed if it is one."""
    packed = head.pack() if isinstance(head, Head) else head
    out = MAGIC + frame(b"H", packed) + b"".join(frames)
    return out + frame(b"E", hashlib.sha256(out).digest()) if end else out


class Ops:
    """Operations of frames 'M'; `frame` gives those since the last one."""

    def __init__(self) -> None:
        self.out = bytearray()
        self.end = 0

    def copy(self, offset: int, length: int) -> Ops:
        self.out += b"\1" + zigzag(offset - self.end) + varint(length)
        self.end = offset + length
        return self

    def member(self, *pieces: bytes | tuple[int, int, int]) -> Ops:
        self.out += b"\2" + varint(len(pieces))
        for piece in pieces:
            if isinstance(piece, bytes):
                self.out += b"\0" + varint(len(piece)) + piece
            else:
                self.out += b"\1" + b"".join(map(varint, piece))
        return self

    def frame(self, *, deflated: bool = False) -> bytes:
        payload, self.out = bytes(self.out), bytearray()
        return frame(b"M", payload, deflated=deflated)


def lines(passed: int, taken: int, add: int = 0) -> bytes:
    """LINES, for a frame 'T'."""
    return b"\1" + varint(passed) + varint(taken) + zigzag(add)


def text(data: bytes) -> bytes:
    """TEXT, for a frame 'T'."""
    return b"\2" + varint(len(data)) + data


def data(payload: bytes, *, deflated: bool = False) -> bytes:
    """Frames 'D'."""
    pieces = [payload[at : at + FRAME] for at in range(0, len(payload), FRAME)]
    return b"".join(frame(b"D", piece, deflated=deflated) for piece in pieces)


def compressed(content: bytes, level: int = 1) -> bytes:
    """One member of whole blocks as the engine makes it: that of the only file of a layer."""
    assert len(content) % 512 == 0
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as out:
        info = tarfile.TarInfo("file")
        info.size = len(content)
        out.addfile(info, io.BytesIO(content))
    made = io.BytesIO()
    stargz.convert(tar.getvalue(), made, level=level, chunk_size=1 << 30)
    blob = Blob.of(made.getvalue())
    return blob.member(next(at for at, found in blob.members.items() if found == content))


# --- a simple maker of whole patches -------------------------------------------------------


@dataclass(frozen=True)
class Blob:
    """A seekable layer, as far as a patch is about it."""

    data: bytes
    toc_offset: int
    legacy: bool
    json: bytes
    members: dict[int, bytes]  # contents before the TOC, by offset

    @classmethod
    def of(cls, data: bytes) -> Blob:
        found = re.search(rb"([0-9a-f]{16})STARGZ", data[-60:])
        assert found is not None
        toc_offset, members, at = int(found[1], 16), {}, 0
        while at < toc_offset:
            stream = zlib.decompressobj(31)
            contents = b""
            while not stream.eof:
                piece = data[at : at + 65536]
                contents += stream.decompress(piece)
                at += len(piece) - len(stream.unused_data)
            members[at] = contents  # by its end, so far
        starts = [0, *members]
        members = dict(zip(starts, members.values(), strict=False))
        toc = zlib.decompressobj(31).decompress(data[toc_offset:])
        size = int(toc[124:135], 8)
        legacy = b"SG\x16\0" not in data[-51:]
        return cls(data, toc_offset, legacy, toc[512 : 512 + size], members)

    def member(self, offset: int) -> bytes:
        """A member as it is stored."""
        starts = [*self.members, self.toc_offset]
        return self.data[offset : starts[starts.index(offset) + 1]]

    @property
    def end(self) -> int:
        """Of the TOC's member."""
        return len(self.data) - (47 if self.legacy else 51)


_OFFSET = re.compile(rb"[ \t]*\"offset\": (\d{1,19}),?\n?")


def toc_operations(base: bytes, new: bytes) -> list[bytes]:
    """LINES and TEXT that make the one TOC of the other."""

    def parts(json: bytes) -> tuple[list[bytes], list[int], list[bytes]]:
        rows = json.splitlines(keepends=True)
        numbers, shapes = [], []
        for row in rows:
            found = _OFFSET.fullmatch(row)
            numbers.append(int(found[1]) if found else -1)
            shapes.append(row.replace(found[1], b"#") if found else row)
        return rows, numbers, shapes

    _, before, old = parts(base)
    rows, after, fresh = parts(new)
    operations, passed = [], 0
    matcher = difflib.SequenceMatcher(None, old, fresh, autojunk=False)
    for tag, i, j, k, end in matcher.get_opcodes():
        if tag != "equal":
            operations.append(text(b"".join(rows[k:end])))
            continue
        at = i
        while at < j:  # as far as all numbers move by the same
            steps = {after[k + n - i] - before[n] for n in range(at, at + 1) if before[n] >= 0}
            until = at + 1
            while until < j:
                step = {after[k + until - i] - before[until]} if before[until] >= 0 else set()
                if len(steps | step) > 1:
                    break
                steps |= step
                until += 1
            operations.append(lines(at - passed, until - at, next(iter(steps), 0)))
            passed = at = until
    return operations


def delta(base: Blob, new: Blob, level: int, engine: str, *, remake: bool = True) -> bytes:
    """A patch that copies members, makes those whose contents BASE has (with `remake`), and
    sends the others; its TOC is made of BASE's."""
    stored = {base.member(at): at for at in base.members}
    contents = {content: at for at, content in base.members.items()}
    frames, ops = [], Ops()
    for at, content in new.members.items():
        member = new.member(at)
        if member in stored:
            ops.copy(stored[member], len(member))
        elif remake and (same := _longest(content, contents)):
            ops.member((contents[same], 0, len(same) - 3), content[len(same) - 3 :])
        else:
            frames += [ops.frame(deflated=True), data(member)]
    frames.append(ops.frame())
    head = Head(
        base.data,
        new.data,
        level=level,
        engine=engine.encode()[:64],
        legacy=int(new.legacy),
        new_toc_offset=new.toc_offset,
        toc_json_size=len(new.json),
        base_toc_offset=base.toc_offset,
        base_toc_end=base.end,
        base_json_size=len(base.json),
    )
    toc = toc_operations(base.json, new.json)
    half = len(toc) // 2
    frames.append(frame(b"T", b"".join(toc[:half]), deflated=True))
    frames.append(frame(b"T", b"".join(toc[half:])))
    return patch(head, *frames)


def _longest(content: bytes, known: dict[bytes, int]) -> bytes:
    fits = [k for k in known if len(k) > 3 and content.startswith(k[:-3])]
    return max(fits, key=len, default=b"")
