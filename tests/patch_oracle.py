"""A second, slow reader and applier of patches in plain Python, written from csrc/patch/format.h.

Only what must be made by the same engine is asked of stargz: one compressed member, and the end
of a blob (TOC member and footer) of its JSON.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import tarfile
import zlib
from collections import Counter
from dataclasses import dataclass, field

from stargz._engine.patch import compress, toc_members

FRAME = 1 << 20
HEAD = (
    "version",
    "level",
    "legacy",
    "base_size",
    "new_size",
    "base_digest",
    "new_digest",
    "new_toc_offset",
    "toc_json_size",
    "base_toc_offset",
    "base_toc_end",
    "base_json_size",
    "engine",
)


@dataclass
class Applied:
    """NEW, and what a patch is made of: bytes and operations of each kind."""

    data: bytes = b""
    head: dict[str, int | bytes | str] = field(default_factory=dict)
    frames: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    sent: bytes = b""


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        assert 0 <= size <= len(self.data) - self.at, "what a frame holds ends early"
        self.at += size
        return self.data[self.at - size : self.at]

    def varint(self) -> int:
        value = 0
        for n in range(10):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << 7 * n
            if byte < 0x80:
                assert value < 1 << 64
                return value
        raise AssertionError("a varint of more than ten bytes")

    def zigzag(self) -> int:
        value = self.varint()
        return (value >> 1) if value % 2 == 0 else -(value >> 1) - 1

    def more(self) -> bool:
        return self.at < len(self.data)


def frames(patch: bytes) -> list[tuple[str, bytes]]:
    """Type and payload, inflated, of all frames; every check that a frame allows."""
    assert patch[:8] == b"SGZPATCH"
    found = []
    at = 8
    while at < len(patch):
        assert len(patch) - at >= 12
        kind, deflated, zero, length, crc = struct.unpack_from("<BBHII", patch, at)
        payload = patch[at + 12 : at + 12 + length]
        assert deflated in (0, 1) and zero == 0 and len(payload) == length <= FRAME
        assert zlib.crc32(patch[at : at + 8] + payload) == crc
        if chr(kind) == "E":
            assert payload == hashlib.sha256(patch[:at]).digest()
            assert not deflated
        if deflated:
            stream = zlib.decompressobj(-15)
            payload = stream.decompress(payload, FRAME + 1)
            assert len(payload) <= FRAME and stream.eof and not stream.unused_data
        found.append((chr(kind), payload))
        at += 12 + length
    kinds = "".join(kind for kind, _ in found)
    assert re.fullmatch("H[DM]*T*E", kinds), kinds
    return found


def head(payload: bytes) -> dict[str, int | bytes | str]:
    """The numbers of a frame H by name."""
    return dict(zip(HEAD, struct.unpack("<IIIqq32s32sqQqqQ64s", payload), strict=True))


def apply(base: bytes, patch: bytes) -> Applied:
    """NEW; AssertionError for a patch that is not as it should be, or not BASE's."""
    done = Applied()
    parts = frames(patch)
    done.frames.update(kind for kind, _ in parts)
    h = done.head = head(parts[0][1])
    assert h["version"] == 1
    assert h["base_size"] == len(base) and h["base_digest"] == hashlib.sha256(base).digest()
    out = bytearray()
    copy_end = 0
    for kind, payload in parts:
        if kind == "D":
            out += payload
            done.sent += payload
        if kind != "M":
            continue
        ops = _Bytes(payload)
        while ops.more():
            op = ops.varint()
            if op == 1:
                start = copy_end + ops.zigzag()
                length = ops.varint()
                copy_end = start + length
                assert 0 <= start <= copy_end <= len(base)
                out += base[start:copy_end]
                done.operations["copy"] += 1
            else:
                assert op == 2
                out += compress(_contents(base, ops, done), h["level"])
                done.operations["member"] += 1
    if h["toc_json_size"]:
        assert len(out) == h["new_toc_offset"]
        json = _toc(base, h, b"".join(p for kind, p in parts if kind == "T"), done)
        assert len(json) == h["toc_json_size"]
        out += toc_members(json, len(out), h["level"], bool(h["legacy"]))
    else:
        assert "T" not in done.frames
    assert len(out) == h["new_size"]
    assert hashlib.sha256(out).digest() == h["new_digest"]
    done.data = bytes(out)
    return done


def _contents(base: bytes, ops: _Bytes, done: Applied) -> bytes:
    contents = b""
    for _ in range(ops.varint()):
        kind = ops.varint()
        if kind == 0:
            literal = ops.take(ops.varint())
            done.sent += literal
            contents += literal
            continue
        assert kind == 1
        offset, skip, length = ops.varint(), ops.varint(), ops.varint()
        inflated = b""
        rest = memoryview(base)[offset:]
        while len(inflated) < skip + length:
            stream = zlib.decompressobj(31)
            inflated += stream.decompress(rest)
            assert stream.eof
            rest = stream.unused_data
        contents += inflated[skip : skip + length]
    return contents


def _toc(base: bytes, h: dict[str, int | bytes | str], payload: bytes, done: Applied) -> bytes:
    lines: list[bytes] = []
    if h["base_json_size"]:
        member = zlib.decompressobj(31).decompress(base[h["base_toc_offset"] : h["base_toc_end"]])
        with tarfile.open(fileobj=io.BytesIO(member)) as tar:
            file = tar.extractfile("stargz.index.json")
            assert file is not None
            json = file.read()
        assert len(json) == h["base_json_size"]
        lines = json.split(b"\n")
        lines = [line + b"\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    at = 0
    out = b""
    ops = _Bytes(payload)
    while ops.more():
        op = ops.varint()
        if op == 2:
            out += ops.take(ops.varint())
            done.operations["text"] += 1
            continue
        assert op == 1
        at += ops.varint()
        count, shift = ops.varint(), ops.zigzag()
        assert at + count <= len(lines)
        for line in lines[at : at + count]:
            found = re.fullmatch(rb'([ \t]*"offset": )([0-9]{1,19})(,?\n?)', line)
            if found and shift:
                line = found[1] + str(int(found[2]) + shift).encode() + found[3]
            out += line
        at += count
        done.operations["lines"] += 1
    return out
