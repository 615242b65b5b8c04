"""Tars and layers for the tests of zstd:chunked."""

from __future__ import annotations

import io
import random
import tarfile
from typing import Any

import zstandard

import stargz
from stargz.conversion import ConvertResult

FORMATS = ["zstd:chunked", "zstd:chunked-stargz"]


def add(tar: tarfile.TarFile, name: str, data: bytes | None = None, **fields: Any) -> None:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    if data is not None:
        info.size = len(data)
    tar.addfile(info, io.BytesIO(data) if data is not None else None)


def a_tar(behind: int = 0, **options: Any) -> bytes:
    """Entries of every type and with all that a TOC has of them."""
    out = io.BytesIO()
    noise = random.Random(7).randbytes(300_000)
    records = {
        "SCHILY.xattr.user.k": "vé",
        "SCHILY.xattr.user.%3D": "",
        "atime": "1700000001.5",
        "ctime": "1700000002.25",
        "comment": "c",
    }
    with tarfile.open(fileobj=out, mode="w", **{"format": tarfile.PAX_FORMAT, **options}) as tar:
        add(tar, "./", type=tarfile.DIRTYPE, mode=0o755)
        add(tar, "./d/", type=tarfile.DIRTYPE, mode=0o755, mtime=1700000000)
        add(tar, "./d/a", b"hello\n", mode=0o644, mtime=1700000000.123456789, uid=5, gid=6)
        add(tar, "./d/empty", b"", mode=0o600)
        add(tar, "./d/zeros", bytes(5000))
        mixed = b"x" * 100 + bytes(4096) + b"y" * 3000 + bytes(1023) + b"z" + bytes(1024)
        add(tar, "./d/mixed", mixed, mode=0o4755)
        add(tar, "./noise", noise, mode=0o100644)
        add(tar, "./d/" + "l" * 200, b"long")
        add(tar, "./s", type=tarfile.SYMTYPE, linkname="d/a", mode=0o777)
        add(tar, "./h", type=tarfile.LNKTYPE, linkname="./d/a", mode=0o644)
        add(tar, "./c", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
        add(tar, "./f", type=tarfile.FIFOTYPE, mode=0o600)
        if tar.format == tarfile.PAX_FORMAT:
            add(tar, './x "<é>', b"xattr", mode=0o755, pax_headers=records)
            add(tar, "./neg", b"neg", pax_headers={"mtime": "-5.5"})
    return out.getvalue() + bytes(behind)


def convert(data: bytes, format: str, **options: Any) -> tuple[bytes, ConvertResult]:
    out = io.BytesIO()
    result = stargz.convert(io.BytesIO(data), out, format=format, **options)
    return out.getvalue(), result


def plain(blob: bytes) -> bytes:
    """As every reader of zstd has it."""
    return zstandard.ZstdDecompressor().stream_reader(blob, read_across_frames=True).read()
