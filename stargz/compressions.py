"""How a file is compressed, by its first bytes."""

from __future__ import annotations

HEAD = 6  # bytes that tell

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
