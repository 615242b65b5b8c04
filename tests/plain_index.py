"""A reader of index files by docs/index-format.md alone: no line of it is stargz's."""

from __future__ import annotations

import ctypes
import gzip
import hashlib
import io
import json
import tarfile
import zlib
from dataclasses import dataclass, field
from typing import Any

HEAD = 216
KINDS = {1: "deflate", 2: "gzip", 3: "zstd", 4: "stored"}
BLOCK = 512


@dataclass
class Point:
    offset: int
    out: int
    skip: int = 0
    history: bytes = b""


@dataclass
class Entry:
    row: dict[str, Any]
    """As the JSON has it."""
    name: bytes
    content: int
    header: int
    ns: int
    pieces: list[dict[str, Any]] = field(default_factory=list)
    texts: dict[int, bytes] = field(default_factory=dict)


@dataclass
class Index:
    kind: str
    size: int
    digest: str
    tar_size: int
    diff_id: str
    archive_size: int
    span_size: int
    longest: int
    points: list[Point]
    entries: list[Entry]
    json: bytes


def number(data: bytes, at: int, size: int = 8) -> int:
    return int.from_bytes(data[at : at + size], "little")


def varint(stream: io.BytesIO) -> int:
    value = shift = 0
    while True:
        byte = stream.read(1)[0]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
        shift += 7


def padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def read_points(kind: str, count: int, data: bytes, histories: bytes) -> list[Point]:
    stream, raw = io.BytesIO(data), io.BytesIO(histories)
    points: list[Point] = []
    offset = out = 0
    for _ in range(count):
        offset += varint(stream)
        out += varint(stream)
        point = Point(offset, out)
        if kind == "deflate":
            length, point.skip = divmod(varint(stream), 8)
            packed = varint(stream)
            point.history = raw.read(packed or length)
            if packed:
                point.history = zlib.decompress(point.history, -15)
            assert len(point.history) == length
        points.append(point)
    assert not stream.read() and not raw.read()
    return points


def read_entries(count: int, data: bytes, text: bytes) -> list[Entry]:
    rows = json.loads(text)["entries"] or []
    entries: list[Entry] = []
    for row in rows:
        if row["type"] != "chunk":
            entries.append(Entry(row, row["name"].encode(), 0, 0, 0))
        if row["type"] == "chunk" or (row["type"] == "reg" and row.get("size")):
            entries[-1].pieces.append(row)
    assert len(entries) == count
    stream = io.BytesIO(data)
    gaps, headers, fractions = ([varint(stream) for _ in range(count)] for _ in range(3))
    end = 0
    for entry, gap, header, ns in zip(entries, gaps, headers, fractions, strict=True):
        entry.header = header * BLOCK
        entry.content = padded(end) + gap * BLOCK + entry.header
        entry.ns = ns
        end = entry.content
        for piece in entry.pieces:
            if piece.get("chunkType") != "zeros":
                left = entry.row["size"] - piece.get("chunkOffset", 0)
                end += piece.get("chunkSize", 0) or left
    which = 0
    while stream.tell() < len(data):
        which += varint(stream)
        kind, length = varint(stream), varint(stream)
        entries[which].texts[kind] = stream.read(length)
        if kind == 0:
            entries[which].name = clean(entries[which].texts[0])
    return entries


def clean(name: bytes) -> bytes:
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            parts = parts[:-1]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def read(data: bytes) -> Index:
    assert data[:8] == b"SGZINDEX" and number(data, 8, 4) == 1
    assert hashlib.sha256(data[:-32]).digest() == data[-32:]
    kind = KINDS[number(data, 12, 4)]
    parts = []
    at = HEAD
    for length_at in (176, 184, 200, 208):
        length = number(data, length_at)
        parts.append(data[at : at + length])
        at += length
    assert at + 32 == len(data)
    points, histories, packed, toc = parts
    entries = gzip.decompress(packed)
    assert len(entries) == number(data, 192)
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(toc))) as tar:
        member = tar.extractfile("stargz.index.json")
        assert member
        text = member.read()
        assert tar.getnames() == ["stargz.index.json"]
    assert len(text) == number(data, 136)
    assert hashlib.sha256(text).digest() == data[144:176]
    return Index(
        kind,
        number(data, 16),
        "sha256:" + data[24:56].hex(),
        number(data, 56),
        "sha256:" + data[64:96].hex(),
        number(data, 96),
        number(data, 104),
        number(data, 112),
        read_points(kind, number(data, 120), points, histories),
        read_entries(number(data, 128), entries, text),
        text,
    )


# --- decoding from a point -------------------------------------------------------------------


class Stream(ctypes.Structure):
    """zlib's z_stream."""

    _fields_ = (
        ("next_in", ctypes.c_char_p),
        ("avail_in", ctypes.c_uint),
        ("total_in", ctypes.c_ulong),
        ("next_out", ctypes.c_void_p),
        ("avail_out", ctypes.c_uint),
        ("total_out", ctypes.c_ulong),
        ("rest", ctypes.c_char * 64),
    )


def inflate(data: bytes, skip: int, history: bytes, length: int) -> tuple[bytes, int]:
    """Up to `length` bytes, and how many of the data they took. (Python's zlib cannot begin within
    a byte.)"""
    zlib_ = ctypes.CDLL("libz.so.1")
    stream, out = Stream(), ctypes.create_string_buffer(length + 1)
    at = ctypes.byref(stream)
    rest = data[1:] if skip else data
    assert not zlib_.inflateInit2_(at, -15, b"1", ctypes.sizeof(stream))
    if skip:
        assert not zlib_.inflatePrime(at, 8 - skip, data[0] >> skip)
    if history:
        assert not zlib_.inflateSetDictionary(at, history, len(history))
    stream.next_in, stream.avail_in = rest, len(rest)
    stream.next_out, stream.avail_out = ctypes.addressof(out), length
    assert zlib_.inflate(at, 0) in (0, 1, -5)
    zlib_.inflateEnd(at)
    return out.raw[: length - stream.avail_out], len(data) - stream.avail_in


def span(index: Index, number: int, blob: bytes) -> bytes:
    """What is decoded from a point to the next one."""
    point = index.points[number]
    after = index.points[number + 1 :]
    length = (after[0].out if after else index.tar_size) - point.out
    data = blob[point.offset :]
    assert index.kind == "deflate"
    out, taken = inflate(data, point.skip, point.history, length)
    data = data[taken + 8 :]
    while len(out) < length:  # over a member's end, and its trailer
        engine = zlib.decompressobj(31)
        out += engine.decompress(data, length - len(out))
        data = engine.unused_data
    return out
