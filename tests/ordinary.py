"""Ordinary tars for tests, in every wrap that an index can be made of."""

from __future__ import annotations

import gzip
import io
import struct
import subprocess
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import blobs
from absence import absent

import stargz

SPAN = 64 << 10

TEXT = b"".join(b"line %d of some text\n" % n for n in range(8000))


def big_tar(size: int = 700_000) -> bytes:
    """Some spans of 64 KiB: files larger and smaller than one."""
    entries: list[tuple[str, bytes | None]] = [("d", None)]
    # Half noise, half text: it is compressed, but not to nothing.
    noise = blobs.noise("big", size)
    entries += [
        ("d/large", noise[: size // 2] + TEXT),
        *(
            (f"d/small{n}", b"%d " % n + noise[n * 999 :][: n * 50].hex().encode())
            for n in range(40)
        ),
        ("d/text", TEXT),
        ("d/last", noise[size // 2 :]),
    ]
    return blobs.tar_of(entries, uid=1000, gid=100, uname="user", mtime=1_700_000_000)


def linked_tar(target: str) -> bytes:
    """A tar of a symlink."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = tarfile.SYMTYPE, target
        archive.addfile(info)
    return out.getvalue()


def frames(tar: bytes, piece: int = 50_000) -> bytes:
    """A tar.zst of several frames."""
    import zstandard

    compress = zstandard.ZstdCompressor().compress
    return b"".join(compress(tar[at : at + piece]) for at in range(0, len(tar), piece))


def members(tar: bytes, piece: int = 150_000) -> bytes:
    """A tar.gz of several members."""
    return b"".join(gzip.compress(tar[at : at + piece], 6) for at in range(0, len(tar), piece))


def members_index(tar: bytes, piece: int = 150_000) -> bytes:
    """Where those members are, as bgzip writes it (.gzi): all but the first."""
    places = []
    offset = 0
    for at in range(0, len(tar), piece):
        if at:
            places.append(struct.pack("<QQ", offset, at))
        offset += len(gzip.compress(tar[at : at + piece], 6))
    return struct.pack("<Q", len(places)) + b"".join(places)


def named(tar: bytes) -> bytes:
    """A tar.gz with a name and a comment in its header."""
    body = zlib.compressobj(6, zlib.DEFLATED, -15)
    data = body.compress(tar) + body.flush()
    head = bytes.fromhex("1f8b081800000000ff03") + b"name.tar\0" + b"a comment\0"
    end = zlib.crc32(tar).to_bytes(4, "little") + (len(tar) & 0xFFFFFFFF).to_bytes(4, "little")
    return head + data + end


WRAPS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar.gz": lambda tar: gzip.compress(tar, 6),
    "fast.tar.gz": lambda tar: gzip.compress(tar, 1),
    "members.tar.gz": members,
    "named.tar.gz": named,
    "tar.zst": frames,
}


def by_tool(tool: str, tar: Path) -> Path:
    """The same by a program: gzip, pigz, igzip ..."""
    made = tar.with_suffix(f".{tool}.tar.gz")
    try:
        with tar.open("rb") as source, made.open("wb") as out:
            subprocess.run([tool, "-c"], stdin=source, stdout=out, check=True)
    except FileNotFoundError:
        absent(f"{tool} is not installed")
    return made


def beside(path: Path, span_size: int = SPAN) -> Path:
    """The index of a file beside it; by its spans it is known from those that are made unasked."""
    stargz.index(path, span_size=span_size, force=True)
    return path.with_name(path.name + ".index")


def span_size(layer: stargz.Layer) -> int:
    assert layer.index is not None
    assert layer.kind == "indexed"
    return layer.index.span_size
