"""What the tests of ztocs share: layers in every wrap, and ztocs of them."""

from __future__ import annotations

import gzip
import io
import random
import struct
import tarfile
import zlib
from collections.abc import Callable
from typing import Any

import synthetic

from stargz._engine.index import Index, build

SPAN = 64 << 10
TAR = synthetic.tar_bytes()


def index_of(blob: bytes, *, piece: int = 0, **options: Any) -> Index:
    file, rng = io.BytesIO(blob), random.Random(piece)
    options = {"threads": 2, "span_size": SPAN, "soci": True, "digests": False, **options}

    def read(n: int) -> bytes:
        return file.read(min(n, rng.randint(1, piece)) if piece else n)

    return build(read, source_name="blob", **options)


def written(index: Index, **options: Any) -> bytes:
    pieces: list[bytes] = []
    index.write_ztoc(pieces.append, **options)
    return b"".join(pieces)


def named(tar: bytes) -> bytes:
    out = io.BytesIO()
    with gzip.GzipFile("a name", "wb", 6, out, mtime=7) as file:
        file.write(tar)
    return out.getvalue()


def in_members(tar: bytes) -> bytes:
    pieces = (tar[at : at + 150_001] for at in range(0, len(tar), 150_001))
    return gzip.compress(b"") + b"".join(gzip.compress(piece, 1) for piece in pieces)


def in_small_members(tar: bytes) -> bytes:
    """Of many blocks each, so that points are near the beginnings of members."""
    out = []
    for at in range(0, len(tar), 41_003):
        packer = zlib.compressobj(6, zlib.DEFLATED, 31)
        for start in range(at, min(at + 41_003, len(tar)), 3000):
            out.append(packer.compress(tar[start : min(start + 3000, at + 41_003)]))
            out.append(packer.flush(zlib.Z_SYNC_FLUSH))
        out.append(packer.flush())
    return b"".join(out)


def stored(tar: bytes) -> bytes:
    """The same bytes whatever zlib it is."""
    out = [b"\x1f\x8b\x08\0\0\0\0\0\0\xff"]
    for at in range(0, len(tar), 60_000):
        block = tar[at : at + 60_000]
        size = len(block)
        out.append(struct.pack("<BHH", at + size == len(tar), size, size ^ 0xFFFF) + block)
    return b"".join([*out, struct.pack("<II", zlib.crc32(tar), len(tar) & 0xFFFFFFFF)])


WRAPS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda tar: tar,
    "gzip": lambda tar: gzip.compress(tar, 6, mtime=0),
    "stored": stored,
    "named": named,
    "members": in_members,
    "small members": in_small_members,
}


def make_tar(*infos: tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, errors="surrogateescape") as tar:
        for info in infos:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return out.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in fields.items():
        setattr(info, key, value)
    return info
