"""A plain reader of zstd:chunked, of both dialects: slow, and without any code of the package."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
from dataclasses import dataclass
from typing import Any

import zstandard

C_MAGIC, S_MAGIC = b"GNUlInUx", b"GnUlInUx"
C_PREFIX = "io.github.containers.zstd-chunked."
S_PREFIX = "io.containers.zstd-chunked."
TOC_DIGEST = "containerd.io/snapshot/stargz/toc.digest"
SIZE = "io.containers.estargz.uncompressed-size"


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def frame(blob: bytes, offset: int) -> bytes:
    """The one that begins there, which has its size and a check sum."""
    assert blob[offset + 4] & 4
    assert zstandard.get_frame_parameters(blob[offset : offset + 18]).content_size < 1 << 40
    return (
        zstandard.ZstdDecompressor(max_window_size=1 << 25)
        .decompressobj()
        .decompress(blob[offset:])
    )


def skippable(blob: bytes, end: int, payload: int) -> tuple[int, bytes]:
    """The skippable frame that ends there: where it begins, and its payload."""
    begin = end - payload - 8
    assert blob[begin : begin + 8] == struct.pack("<II", 0x184D2A50, payload)
    return begin, blob[begin + 8 : end]


def cuts(data: bytes, bound: int) -> list[tuple[int, int, bool]]:
    """Where containers/storage ends chunks, but for the bound: (begin, end, of zeros)."""
    s1, s2, window, out = 64 * 31, 64 * 63 * 31, [0] * 64, []
    start = at = 0
    runs = {run.start(): run.end() for run in re.finditer(rb"\0{1024,}", data)}
    while at < len(data):
        run = at in runs
        if run and at > start:
            out.append((start, at, False))
            start = at
        for i in range(at, runs[at] if run else at + 1):
            s1 += data[i] - window[i % 64]
            s2 = (s2 + s1 - 64 * (window[i % 64] + 31)) & 0xFFFF
            window[i % 64] = data[i]
            at = i + 1
            if (s2 == 0xFFFF and not run) or at - start == bound:
                out.append((start, at, run))
                start = at
        if run and start < at:
            out.append((start, at, True))
            start = at
    if start < len(data):
        out.append((start, len(data), False))
    return out


def crc64(data: bytes) -> int:
    crc = (1 << 64) - 1
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xD800000000000000 if crc & 1 else 0)
    return crc ^ ((1 << 64) - 1)


@dataclass
class Chunked:
    toc: dict[str, Any]
    json: bytes
    packed: bytes  # the TOC's frame
    data_end: int
    split: bytes | None = None  # its lines


def read(blob: bytes, annotations: dict[str, str]) -> Chunked:
    """What the annotations of the dialect, and the footers, say; they must be the same."""
    end, s_footer = skippable(blob, len(blob), 40)
    offset, packed, size, kind = struct.unpack("<4Q", s_footer[:32])
    assert (kind, s_footer[32:]) == (1, S_MAGIC)
    toc = blob[offset : offset + packed]
    text = zstandard.ZstdDecompressor().decompress(toc)
    assert len(text) == size
    found = Chunked(json.loads(text), text, toc, offset - 8)
    if C_PREFIX + "manifest-checksum" not in annotations:
        prefix = S_PREFIX
        assert annotations[TOC_DIGEST] == sha256(text)
        assert offset + packed == end
    else:
        prefix = C_PREFIX
        assert TOC_DIGEST not in annotations
        end, c_footer = skippable(blob, end, 64)
        fields = struct.unpack("<7Q", c_footer[:56])
        assert fields[:4] == (offset, packed, size, 1)
        assert c_footer[56:] == C_MAGIC
        assert annotations[prefix + "tarsplit-position"] == ":".join(map(str, fields[4:]))
        begin, split = skippable(blob, end, fields[5])
        assert begin + 8 == fields[4]
        assert begin == offset + packed
        assert found.toc["tarSplitDigest"] == sha256(split)
        found.split = zstandard.ZstdDecompressor().decompressobj().decompress(split)
        assert len(found.split) == fields[6]
    assert annotations[prefix + "manifest-position"] == f"{offset}:{packed}:{size}:1"
    assert annotations[prefix + "manifest-checksum"] == sha256(toc)
    return found


def contents(blob: bytes, found: Chunked) -> dict[str, list[dict[str, Any]]]:
    """The rows of each file with contents; each chunk is a frame, and has its digest."""
    files: dict[str, list[dict[str, Any]]] = {}
    last = 0
    for entry in found.toc["entries"]:
        if entry["type"] == "reg" and entry.get("size"):
            files[entry["name"]] = [entry]
        elif entry["type"] == "chunk":
            files[entry["name"]].append(entry)
        else:
            assert "offset" not in entry
            continue
        data = frame(blob, entry["offset"])
        assert last < entry["offset"] < found.data_end
        last = entry["offset"]
        assert entry["chunkDigest"] == sha256(data)
        assert entry.get("chunkSize", len(data)) == len(data)
        entry["data"] = data
    for rows in files.values():
        whole = b"".join(row["data"] for row in rows)
        assert rows[0]["size"] == len(whole)
        assert rows[0]["digest"] == sha256(whole)
        at = 0
        for row in rows:
            assert row.get("chunkOffset", 0) == at
            at += len(row["data"])
    return files


def put_together(split: bytes, files: dict[str, list[dict[str, Any]]]) -> bytes:
    """The tar, of its tar-split and the files."""
    out = []
    for number, text in enumerate(split.splitlines()):
        line = json.loads(text)
        assert line["position"] == number
        if line["type"] == 2:
            out.append(base64.b64decode(line["payload"]))
        elif line.get("size"):
            whole = b"".join(row["data"] for row in files[line["name"]])
            assert len(whole) == line["size"]
            assert base64.b64decode(line["payload"]) == crc64(whole).to_bytes(8)
            out.append(whole)
        else:
            assert line["payload"] is None
    return b"".join(out)
