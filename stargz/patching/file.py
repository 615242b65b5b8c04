"""The frames of a patch (csrc/patch/format.h is the format), for those who make one."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stargz.options import codec_name

if TYPE_CHECKING:
    from stargz.sources import ByteSource

MAGIC = b"SGZPATCH"
VERSION = 1
FRAME_MAX = 1 << 20  # of a frame's payload, stored and inflated
ENGINE_MAX = 64

COPY, MEMBER = 1, 2  # operations of a frame M
LITERAL, PIECE = 0, 1  # pieces of a MEMBER
LINES, TEXT = 1, 2  # operations of a frame T

# What makes apply refuse a patch, as csrc/patch/format.h has it.
WORK_FREE = 2 << 30
WORK_PER_BYTE = 64 << 10
WORK_OPERATION = 4 << 10
WORK_SEEK = 64 << 10
# Bytes to pass over that are worth less data in a patch: to begin with, and for each byte of NEW.
# So applying takes hardly longer than compressing does.
PASS_FREE = 128 << 20
PASS_PER_BYTE = 64

_HEAD = struct.Struct(f"<3I2q32s32sqQ2qQ{ENGINE_MAX}s")
_FRAME = struct.Struct("<BBHI")
_CRC = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Head:
    """What a patch says of itself, of BASE and of NEW. Sizes and offsets are bytes, digests 32 raw
    bytes; `level` 0 means that nothing is compressed anew, `toc_json_size` 0 that NEW's TOC is not
    made of BASE's."""

    base_size: int
    base_digest: bytes
    new_size: int
    new_digest: bytes
    new_toc_offset: int
    base_toc_offset: int
    base_toc_end: int
    base_json_size: int
    level: int = 0
    legacy: bool = False
    toc_json_size: int = 0
    engine: str = ""

    def pack(self) -> bytes:
        """The payload of the frame H."""
        return _HEAD.pack(
            VERSION,
            self.level,
            self.legacy,
            self.base_size,
            self.new_size,
            self.base_digest,
            self.new_digest,
            self.new_toc_offset,
            self.toc_json_size,
            self.base_toc_offset,
            self.base_toc_end,
            self.base_json_size,
            self.engine.encode("ascii", "replace"),
        )

    @classmethod
    def unpack(cls, payload: bytes) -> Head:
        """The head in the payload of a frame H of this version; ValueError if it is none."""
        try:
            version, level, legacy, *rest = _HEAD.unpack(payload)
        except struct.error:
            raise ValueError(f"a head has {_HEAD.size} bytes, not {len(payload)}") from None
        if version != VERSION:
            raise ValueError(f"a patch of version {version}; {VERSION} is known")
        base_size, new_size, base_digest, new_digest, new_toc, json_size, *base = rest
        return cls(
            base_size=base_size,
            base_digest=base_digest,
            new_size=new_size,
            new_digest=new_digest,
            new_toc_offset=new_toc,
            base_toc_offset=base[0],
            base_toc_end=base[1],
            base_json_size=base[2],
            level=level,
            legacy=bool(legacy),
            toc_json_size=json_size,
            engine=base[3].rstrip(b"\0").decode("ascii"),
        )


def engine(level: int) -> str:
    """What compresses at this level, as a head says it; "" for level 0.

    The same text means the same bytes. CodecError when the library is not there.
    """
    return codec_name(level)[:ENGINE_MAX] if level else ""


def varint(number: int) -> bytes:
    """LEB128 of 0 to 2^64 - 1."""
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def zigzag(number: int) -> bytes:
    """The varint of a signed number."""
    return varint(number << 1 if number >= 0 else (-number << 1) - 1)


def encode_frame(kind: bytes, payload: bytes, *, deflate: bool = False) -> bytes:
    """One frame; with `deflate` the payload is compressed if that makes it smaller."""
    if len(payload) > FRAME_MAX:
        raise ValueError(f"a frame has at most {FRAME_MAX} bytes, not {len(payload)}")
    deflated = False
    if deflate:
        stream = zlib.compressobj(6, zlib.DEFLATED, -15)
        packed = stream.compress(payload) + stream.flush()
        if len(packed) < len(payload):
            payload, deflated = packed, True
    start = _FRAME.pack(kind[0], deflated, 0, len(payload))
    return start + _CRC.pack(zlib.crc32(payload, zlib.crc32(start))) + payload


class Work:
    """The account of work that makes nothing (csrc/patch/format.h), of operations in the order of a
    patch. It stays within half of what `apply` allows, as frames T come behind it."""

    def __init__(self) -> None:
        self.spent: int = 0
        self.passed: int = 0
        self._member, self._at = -1, 0  # where the decoder of BASE's members is

    def copy(self) -> None:
        """Add a COPY."""
        self.spent += WORK_OPERATION

    def member(self, pieces: Iterable[tuple[int, int, int]], done: int) -> bool:
        """Add a MEMBER, `done` bytes into NEW, if there is enough left for it. Pieces are (offset
        in BASE, inner offset, length); those of the patch have the offset -1."""
        spent, passed = self.spent + WORK_OPERATION, self.passed
        member, at = self._member, self._at
        for offset, inner, length in pieces:
            spent += WORK_OPERATION
            if offset < 0:
                continue
            if member != offset or at > inner:
                member, at = offset, 0
                spent += WORK_SEEK
            spent += inner - at
            passed += inner - at
            at = inner + length
        if passed > PASS_FREE + PASS_PER_BYTE * done:
            return False
        if spent > (WORK_FREE + WORK_PER_BYTE * done) // 2:
            return False
        self.spent, self.passed = spent, passed
        self._member, self._at = member, at
        return True


class PatchWriter:
    """Writes a patch: magic and head at once, then frames, then `finish`."""

    def __init__(self, write: Callable[[bytes], object], head: Head) -> None:
        self.size: int = 0
        self._sink = write
        self._sha = hashlib.sha256()
        self._put(MAGIC + encode_frame(b"H", head.pack()))

    def frame(self, kind: bytes, payload: bytes, *, deflate: bool = False) -> None:
        """Write one frame."""
        self._put(encode_frame(kind, payload, deflate=deflate))

    def put(self, frames: bytes) -> None:
        """Write frames that are already encoded."""
        self._put(frames)

    def finish(self) -> None:
        """Write the frame E."""
        self._put(encode_frame(b"E", self._sha.digest()))

    def _put(self, data: bytes) -> None:
        self._sha.update(data)
        self._sink(data)
        self.size += len(data)


class Operations:
    """What makes NEW, in its order, written as frames D and M that are as large as may be; data
    is read from `source`, which is NEW."""

    def __init__(self, out: PatchWriter, source: ByteSource) -> None:
        self.out = out
        self.source = source
        self.operations: bytearray = bytearray()
        self.copy_end: int = 0  # of the last COPY that was written
        self.from_base: int = 0  # the COPY that may still grow
        self.base_length: int = 0
        self.from_new: int = 0  # data that may still grow
        self.new_length: int = 0

    def copy(self, offset: int, length: int) -> None:
        """Bytes of BASE."""
        self._end_data()
        if self.base_length and self.from_base + self.base_length == offset:
            self.base_length += length
            return
        self._end_copy()
        self.from_base, self.base_length = offset, length

    def member(self, operation: bytes) -> None:
        """A MEMBER, as it is packed."""
        self._end_data()
        self._end_copy()
        self._add(operation)

    def data(self, offset: int, length: int) -> None:
        """Bytes of NEW."""
        if not self.new_length:
            self._end_copy()
            self._end_operations()
            self.from_new = offset
        self.new_length += length

    def finish(self) -> None:
        """Write what is left."""
        self._end_data()
        self._end_copy()
        self._end_operations()

    def _add(self, operation: bytes) -> None:
        if len(self.operations) + len(operation) > FRAME_MAX:
            self._end_operations()
        self.operations += operation

    def _end_copy(self) -> None:
        if self.base_length:
            step = zigzag(self.from_base - self.copy_end)
            self._add(bytes((COPY,)) + step + varint(self.base_length))
            self.copy_end = self.from_base + self.base_length
            self.base_length = 0

    def _end_operations(self) -> None:
        if self.operations:
            self.out.frame(b"M", bytes(self.operations), deflate=True)
            self.operations.clear()

    def _end_data(self) -> None:
        while self.new_length:
            length = min(self.new_length, FRAME_MAX)
            self.out.frame(b"D", self.source.read_at(self.from_new, length))
            self.from_new += length
            self.new_length -= length
