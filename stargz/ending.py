"""Whether an ordinary tar, tar.gz or tar.zst ends where it should, as far as that is seen without
decompressing it: its first bytes, its last, and of zstd the headers of blocks."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from stargz.compressions import compression, is_tar_header
from stargz.sources import ByteSource
from stargz.sources.base import is_direct

HEAD = 16 << 10  # bytes in which the first member of a seekable layer most likely ends
_BLOCK = 512
_BLOCKS = 100_000  # of zstd, whose headers are read: of some 10 GB
_LANDMARKS = (b".prefetch.landmark\0", b".no.prefetch.landmark\0")

_LAYER = "it begins as a seekable layer and has no footer: it was cut short; get it again"
_GZIP = "its last bytes are not the size of a tar: it may be cut short ('stargz verify' tells)"
_TAR = "it has no end of an archive: it may be cut short ('stargz verify' tells)"
_ZSTD = "it ends inside a frame: it was cut short; get it again"


def cut_short(blob: ByteSource, compressed: str | None) -> str | None:
    """What is wrong with the end of a blob without a footer, which is compressed as
    `compression_of` says; None where nothing is seen to be."""
    if compressed == "gzip":
        if lost := without_footer(blob):
            return lost
        # A member ends in the size of what it holds, and compresses to a 1032nd at best. Of several
        # members the last may hold any part of the tar.
        size = int.from_bytes(_at(blob, max(0, blob.size - 4), 4), "little")
        return _GZIP if size % _BLOCK or size > 1032 * blob.size else None
    if compressed == "none":
        size = min(blob.size, 2 * _BLOCK)
        tail = blob.read_at(blob.size - size, size)
        return _TAR if blob.size % _BLOCK or any(tail) else None
    if compressed == "zstd" and is_direct(blob):
        return _ZSTD if _inside_a_frame(blob) else None
    return None


def without_footer(blob: ByteSource) -> str | None:
    """What is wrong with a blob without a footer that begins as seekable layers do; None for all
    others."""
    return lost_footer(blob.read_at(0, min(blob.size, HEAD)))


def lost_footer(head: bytes) -> str | None:
    """The same of its first HEAD bytes."""
    return _LAYER if _begins_as_layer(head) else None


def _begins_as_layer(head: bytes) -> bool:
    """Whether there is a member behind the first, which is that of a landmark, or ends before the
    contents of a file."""
    if compression(head) != "gzip":
        return False
    member = zlib.decompressobj(31)
    try:
        tar = member.decompress(head, 64 * len(head))
    except zlib.error:
        return False
    if not (member.eof and member.unused_data.startswith(b"\x1f\x8b")):
        return False
    last = tar[-_BLOCK:]
    regular = last[156:157] in (b"0", b"\0") and last[124:135].strip(b"0 \0") != b""
    header = len(tar) % _BLOCK == 0 and regular and is_tar_header(last)
    return tar.startswith(_LANDMARKS) or header


def _inside_a_frame(blob: ByteSource) -> bool:
    """Whether a blob ends before a frame of zstd does (RFC 8878, section 3.1)."""
    at = 0
    budget = iter(range(_BLOCKS))
    for _ in budget:
        head = _at(blob, at, 8)
        if 0x50 <= head[0] <= 0x5F and head[1:4] == b"\x2a\x4d\x18":
            at += 8 + int.from_bytes(head[4:8], "little")
        elif head.startswith(b"\x28\xb5\x2f\xfd"):
            at = _end_of_frame(blob, at + 4, budget)
        else:
            return False  # the end, or something that is no frame
        if at > blob.size:
            return True
    return False


def _end_of_frame(blob: ByteSource, at: int, budget: Iterator[int]) -> int:
    """Where a frame ends whose descriptor is at `at`, by the headers of its blocks."""
    flags = _at(blob, at, 1)[0]
    single = flags >> 5 & 1
    at += 1 + (not single) + (0, 1, 2, 4)[flags & 3] + (single, 2, 4, 8)[flags >> 6]
    for _ in budget:
        if at >= blob.size:
            return blob.size + 1
        header = int.from_bytes(_at(blob, at, 3), "little")
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        at += 3 + (1 if kind == 1 else size)  # 1: a byte that is repeated
        if last:
            return at + 4 * (flags >> 2 & 1)  # and the checksum
    return blob.size


def _at(blob: ByteSource, offset: int, size: int) -> bytes:
    """So many bytes, with zeros behind the end."""
    there = max(0, min(size, blob.size - offset))
    return blob.read_at(offset, there).ljust(size, b"\0")
