"""Layers in zstd:chunked that are put together by hand, to be right or wrong in any way."""

from __future__ import annotations

import json
import struct
from typing import Any

import zstandard
from blobs import sha256

C = "io.github.containers.zstd-chunked."
S = "io.containers.zstd-chunked."
TOC_DIGEST = "containerd.io/snapshot/stargz/toc.digest"


def skippable(payload: bytes) -> bytes:
    return struct.pack("<II", 0x184D2A50, len(payload)) + payload


def frame(data: bytes, **options: Any) -> bytes:
    options = {"level": 1, "write_checksum": True, **options}
    if "window" in options:
        window = zstandard.ZstdCompressionParameters(
            window_log=options["window"], write_checksum=1, write_content_size=0
        )
        squeezer = zstandard.ZstdCompressor(compression_params=window).compressobj()
        return squeezer.compress(data) + squeezer.flush()
    return zstandard.ZstdCompressor(**options).compress(data)


class Handmade:
    """A blob, frame by frame, with the rows of its TOC."""

    def __init__(self) -> None:
        self.data = frame(b"header" * 100)
        self.entries: list[dict[str, Any]] = []

    def put(self, packed: bytes) -> int:
        self.data += packed
        return len(self.data) - len(packed)

    def file(self, name: str, *chunks: bytes, digests: bool = True, **options: Any) -> None:
        at = 0
        whole = b"".join(chunks)
        for number, chunk in enumerate(chunks):
            row: dict[str, Any] = {"type": "chunk", "name": name}
            if not number:
                row |= {"type": "reg", "size": len(whole)}
                row |= {"digest": sha256(whole)} if digests else {}
            if len(chunks) > 1:
                row |= {"chunkSize": len(chunk), "chunkOffset": at}
                row |= {"chunkDigest": sha256(chunk)} if digests else {}
                row |= {} if any(chunk) else {"chunkType": "zeros"}
            self.entries.append(row | {"offset": self.put(frame(chunk, **options))})
            at += len(chunk)
        self.put(frame(b"header of another"))

    def toc(self, **changes: Any) -> tuple[bytes, bytes]:
        """Its JSON and its frame."""
        text = json.dumps({"version": 1, "entries": self.entries, **changes}).encode()
        return text, frame(text)

    def finish(self, end: str = "S") -> tuple[bytes, dict[str, str]]:
        """The blob with one of the ends that there are, and what annotates it."""
        text, packed = self.toc()
        return self.end(packed, len(text), end)

    def end(self, packed: bytes, size: int, end: str = "S") -> tuple[bytes, dict[str, str]]:
        offset = len(self.data) + 8
        numbers = struct.pack("<4Q", offset, len(packed), size, 1)
        blob = self.data + skippable(packed)
        notes = {
            f"{C}manifest-checksum": sha256(packed),
            f"{C}manifest-position": f"{offset}:{len(packed)}:{size}:1",
        }
        if end == "S":  # and of containers/storage before there was a tar-split
            return blob + skippable(numbers + b"GnUlInUx"), notes
        if end == "none":
            return blob, notes
        split = skippable(frame(b"{}\n"))
        notes[f"{C}tarsplit-position"] = f"{len(blob) + 8}:{len(split) - 8}:3"
        more = struct.pack("<3Q", len(blob) + 8, len(split) - 8, 3)
        if end == "odd":  # of some weeks in 2023
            return blob + split + skippable(numbers + more[:16] + b"GNUlInUx"), notes
        return blob + split + skippable(numbers + more + b"GNUlInUx"), notes
