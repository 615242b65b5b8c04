"""What a file is, by its first bytes: how it is compressed, or whether it is a tar."""

from __future__ import annotations

import re

HEAD = 6  # bytes that tell
_BLOCK = 512  # of a tar

_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"LZIP", "lzip"),
    (b"\x1f\x9d", "compress"),
)


def compression(head: bytes) -> str | None:
    """What the first HEAD bytes say; None for what is not compressed, or by nothing that is
    known."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    # A skippable frame may stand before the others.
    return "zstd" if head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F else None


def is_tar_header(head: bytes) -> bool:
    """Whether a block of 512 bytes has the checksum of a header."""
    stated = re.match(rb"[ \0]*([0-7]+)", head[148:156])
    others = head[:148] + b" " * 8 + head[156:]
    signed = sum(others) - 256 * sum(byte >= 128 for byte in others)  # as old programs add them up
    return len(head) == _BLOCK and stated is not None and int(stated[1], 8) in (sum(others), signed)
