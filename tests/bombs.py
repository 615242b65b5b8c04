"""Small files that take minutes to decode, for tests of what can end that."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import handmade

STEP = 16 << 20


def zeros(size: int, head: bytes = b"") -> Iterator[bytes]:
    """A gzip member of `head` and so many zeros, some STEPs; its CRC is wrong."""

    def packed(data: bytes) -> bytes:
        packer = zlib.compressobj(9, wbits=-15)
        return packer.compress(data) + packer.flush(zlib.Z_FULL_FLUSH)

    yield b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + packed(head)
    step = packed(bytes(STEP))
    for _ in range(size // STEP):
        yield step
    packer = zlib.compressobj(9, wbits=-15)
    yield packer.flush() + struct.pack("<II", 0, (len(head) + size) & 0xFFFFFFFF)


def layer(
    path: Path, names: Sequence[str], size: int, *, digest: bool = True, behind: bool = False
) -> None:
    """Write a layer of files of one chunk each: of `size` bytes, or of ten `behind` so many."""
    rows = []
    with path.open("wb") as file:
        for name in names:
            file.write(handmade.member(handmade.header(name)))
            row = {"name": name, "type": "reg", "size": size, "offset": file.tell(), "mode": 0o644}
            if behind:
                row |= {"size": 10, "innerOffset": size - 10}
            if digest:
                row |= dict.fromkeys(("digest", "chunkDigest"), "sha256:" + "0" * 64)
            rows.append(row)
            file.writelines(zeros(size))
        text = json.dumps({"version": 1, "entries": rows}).encode()
        tar = handmade.header("stargz.index.json", len(text)) + text
        end = file.tell()
        file.write(handmade.member(tar + bytes(-len(tar) % 512 + 1024)) + handmade.footer(end))
