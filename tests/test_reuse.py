"""level="reuse": what the compressor of a gzip input found is coded again."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import json
import os
import random
import shutil
import struct
import subprocess
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bounded
import pytest
from absence import absent
from command import run
from pieces import Pieces

import stargz

LAYOUTS: list[dict[str, Any]] = [
    {},
    {"chunk_size": 65536},
    {"chunk_size": 65536, "min_chunk_size": 300_000},
    {"lossless": True},
    {"format": "stargz"},
]


def make_tar(seed: int = 1, files: int = 30, global_header: bool = False) -> bytes:
    """Files of words, noise and zeros, small and large; some are longer than a slab."""
    rng = random.Random(seed)
    words = [rng.randbytes(rng.randrange(3, 9)) for _ in range(500)]
    out = io.BytesIO()
    headers = {"comment": "of all"} if global_header else {}
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers=headers) as tar:
        for i in range(files):
            kind = rng.randrange(6)
            if kind == 0:
                data = rng.randbytes(rng.randrange(1, 50_000))
            elif kind == 1:
                data = bytes(rng.randrange(1, 300_000))
            else:
                count = rng.choice([0, 3, 1000, 20_000])
                data = b" ".join(rng.choices(words, k=count))
            info = tarfile.TarInfo(f"dir{i % 7}/file{i}" + "x" * (i % 3 * 80))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        info = tarfile.TarInfo("large")
        data = b"".join(rng.choices(words, k=700_000))
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


TAR = make_tar()
PINNED = (
    "fc6bf6c1261fc66ba69aee923d6f12ecab0b19ee25d1be8d2d0b194d464db178",
    "4bed340ad258aea29aaa852415a204fc976cfee6a1062838ad2820b57f49faf6",
)


def deflated(data: bytes, level: int = 6, strategy: int = 0, window: int = 15) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, 16 + window, 9, strategy)
    return packer.compress(data) + packer.flush()


def convert(blob: bytes, **options: Any) -> tuple[bytes, Any]:
    out = io.BytesIO()
    result = stargz.convert(io.BytesIO(blob), out, **options)
    return out.getvalue(), result


def entries(blob: bytes, tmp_path: Path, **how: Any) -> list[Any]:
    """The TOC but for offsets, and that every byte of the blob is right."""
    path = tmp_path / "layer"
    path.write_bytes(blob)
    with stargz.open(path) as layer:
        assert layer.verify().ok
    listed = json.loads(run("toc", path).stdout)["entries"]
    return [{k: v for k, v in entry.items() if k != "offset"} for entry in listed]


@pytest.mark.parametrize("options", LAYOUTS, ids=str)
@pytest.mark.parametrize("tar", [TAR, make_tar(2, 20, True)], ids=["plain", "global"])
def test_same_layer(tar: bytes, options: dict[str, Any], tmp_path: Path) -> None:
    """The layer is that of level 1, but smaller."""
    blob = deflated(tar, 9)
    plain, one = convert(blob, level=1, **options)
    reused, result = convert(blob, level="reuse", **options)
    assert result.level == "reuse"
    assert result.codec == "the input's matches"
    assert entries(reused, tmp_path) == entries(plain, tmp_path)
    inner = gzip.decompress(reused)[: 1 << 20], gzip.decompress(plain)[: 1 << 20]
    assert inner[0] == inner[1]
    assert result.entries == one.entries
    assert len(reused) < len(plain)


@pytest.mark.parametrize("blob", [deflated(TAR, 1), deflated(TAR, 6, 2)], ids=["good", "poor"])
def test_same_bytes(blob: bytes, tmp_path: Path) -> None:
    """Whatever the threads and the pieces that the input comes in."""
    expected, _ = convert(blob, level="reuse")
    source = tmp_path / "layer.tar.gz"
    source.write_bytes(blob)
    for threads in (1, 5):
        out = io.BytesIO()
        stargz.convert(source, out, level="reuse", threads=threads)
        assert out.getvalue() == expected
    for size in (997,):
        out = io.BytesIO()
        stargz.convert(Pieces(blob, size), out, level="reuse")
        assert out.getvalue() == expected


def by_igzip(data: bytes) -> bytes:
    if not shutil.which("igzip"):
        absent("igzip is not installed (Debian's isal)")
    return subprocess.run(
        ["igzip", "-1", "-c"], input=data, stdout=subprocess.PIPE, check=True
    ).stdout


# From what has no matches at all to what has better ones than level 1.
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "stored": lambda data: deflated(data, 0),
    "huffman": lambda data: deflated(data, 6, zlib.Z_HUFFMAN_ONLY),
    "rle": lambda data: deflated(data, 6, zlib.Z_RLE),
    "fixed": lambda data: deflated(data, 1, zlib.Z_FIXED),
    "zlib-1": lambda data: deflated(data, 1),
    "igzip-1": by_igzip,
    "window of 512 bytes": lambda data: deflated(data, 9, window=9),
    "window of 4 KiB": lambda data: deflated(data, 6, window=12),
    "window of 8 KiB": lambda data: deflated(data, 1, window=13),
    "zlib-9": lambda data: deflated(data, 9),
}


def changing(*names: str, every: int) -> Callable[[bytes], bytes]:
    """A gzip member by each compressor in turn."""

    def packed(data: bytes) -> bytes:
        parts = range(0, len(data), every)
        turns = itertools.cycle(COMPRESSORS[name] for name in names)
        return b"".join(turn(data[at : at + every]) for turn, at in zip(turns, parts, strict=False))

    return packed


def within(data: bytes) -> bytes:
    """One deflate stream that is poor in the middle of each slab."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    stored = zlib.compressobj(0, zlib.DEFLATED, -15)
    out, crc = [packer.compress(data[: 1 << 20])], zlib.crc32(data)
    out.append(packer.flush(zlib.Z_FULL_FLUSH))
    out.append(stored.compress(data[1 << 20 : 2 << 20]) + stored.flush(zlib.Z_FULL_FLUSH))
    raw = zlib.compressobj(9, zlib.DEFLATED, -15)
    out.append(raw.compress(data[2 << 20 :]) + raw.flush())
    return b"".join(out) + struct.pack("<LL", crc, len(data) & 0xFFFFFFFF)


MIXTURES: dict[str, Callable[[bytes], bytes]] = {
    **COMPRESSORS,
    "good, then poor": changing("zlib-9", "huffman", every=3 << 20),
    "poor, then good": changing("stored", "zlib-9", every=3 << 20),
    "poor by each 512 KiB": changing("zlib-9", "rle", every=512 << 10),
    "a little poor": changing(*["zlib-9"] * 7, "huffman", every=256 << 10),
    "fast and poor": changing("zlib-1", "stored", "zlib-1", "huffman", every=700_000),
    "small windows, now and then": changing("window of 512 bytes", *["zlib-9"] * 3, every=400_000),
    "all": changing(*COMPRESSORS, every=300_000),
    "poor within a stream": within,
}


def source_code() -> bytes:
    """Files of this machine's Python: text, small and large, and what repeats in noise."""
    out = io.BytesIO()
    noise = random.Random(9)
    with tarfile.open(fileobj=out, mode="w") as tar:
        for i, path in enumerate(sorted(Path(os.__file__).parent.glob("*.py"))[:120]):
            tar.add(path, f"small/{path.name}")
            if i % 20 == 0:
                blocks = {
                    f"dense{i}": noise.randbytes(60_000),
                    f"period{i}": noise.randbytes(900) * 99,
                }
                for name, data in blocks.items():
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        text = b"".join(
            p.read_bytes() for p in sorted(Path(os.__file__).parent.glob("*/*.py"))[:90]
        )
        info = tarfile.TarInfo("large")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    return out.getvalue()


@pytest.fixture(scope="module")
def layer_one() -> tuple[bytes, bytes]:
    tar = source_code()
    return tar, convert(deflated(tar, 1), level=1)[0]


@pytest.mark.parametrize("how", MIXTURES)
def test_poor_input(how: str, layer_one: tuple[bytes, bytes], tmp_path: Path) -> None:
    """Whatever compressed the input, and where that changed: not much is larger than level 1."""
    tar, plain = layer_one
    reused, result = convert(MIXTURES[how](tar), level="reuse", verify=True)
    assert len(reused) <= 1.02 * len(plain)
    assert result.codec == ("isa-l" if how in ("stored", "huffman") else "the input's matches")
    if how == "all":
        assert entries(reused, tmp_path) == entries(plain, tmp_path)


def test_members(tmp_path: Path) -> None:
    """Input of many members, some of them empty, some of other levels."""
    rng = random.Random(3)
    parts, at = [], 0
    while at < len(TAR):
        n = rng.choice([0, 1, 511, 100_000, 900_000])
        parts.append(deflated(TAR[at : at + n], rng.randrange(10)))
        at += n
    plain, _ = convert(b"".join(parts), level=1)
    reused, _ = convert(b"".join(parts), level="reuse")
    assert entries(reused, tmp_path) == entries(plain, tmp_path)


def test_other_input(tmp_path: Path) -> None:
    """What is not gzip is compressed by level 1; and so it is with prioritized files."""
    plain, _ = convert(TAR, level=1)
    made, result = convert(TAR, level="reuse")
    assert made == plain
    assert (result.level, result.codec) == ("reuse", "isa-l")
    blob = deflated(TAR)
    plain, _ = convert(blob, level=1, prioritized=["large"])
    made, _ = convert(blob, level="reuse", prioritized=["large"])
    assert made == plain


def test_broken_input() -> None:
    """The errors are those of level 1."""
    blob = bytearray(deflated(TAR))
    for at in (len(blob) // 3, len(blob) - 6, len(blob) - 2):
        broken = bytearray(blob)
        broken[at] ^= 0x10
        for data in (bytes(broken), bytes(broken[:at])):
            messages = set()
            for level in (1, "reuse"):
                with pytest.raises(stargz.StargzError) as caught:
                    convert(data, level=level)
                messages.add(str(caught.value))
            assert len(messages) == 1


# A tar with megabytes between two files, or at its end, that are left out of the layer.
SKIPPED = """
import io, random, tarfile, zlib

level, where, path = sys.argv[1:]
rng = random.Random(5)
words = [rng.randbytes(3) for _ in range(400)]

def packed(data):
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()

def head(name, size):
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf()

skipped = b"".join(rng.choices(words, k=350_000))[: 1 << 20]
text = b" ".join(rng.choices(words, k=50_000))
file = head("file", len(text)) + text + bytes(-len(text) % 512)
middle = where == "middle"
blob = packed(file + (head("stargz.index.json", 48 << 20) if middle else bytes(1024)))
blob += packed(skipped) * 48 + (packed(file + bytes(1024)) if middle else b"")
source, out = io.BytesIO(blob), io.BytesIO()
before = peak()
level = 1 if level == "1" else level
size = stargz.convert(source, out, level=level, threads=1, verify=True).size
print(peak() - before, size)
open(path, "wb").write(out.getvalue())
"""


@pytest.mark.parametrize("where", ["middle", "end"])
def test_memory(where: str, tmp_path: Path) -> None:
    """Tokens of what is left out are dropped, and those behind it are still found."""
    path = tmp_path / "layer"
    plain, reused = (
        [int(n) for n in bounded.run(SKIPPED, level, where, path).split()] for level in (1, "reuse")
    )
    assert reused[0] < plain[0] + 24
    assert reused[1] < plain[1] if where == "middle" else reused[1] <= plain[1]
    with stargz.open(path) as layer:
        assert layer.verify().ok


def test_many_runs(tmp_path: Path) -> None:
    """A sparse file of a run for every other byte."""
    data = random.Random(7).choices(b"abcd", k=40_000)
    runs = "".join(f"{2 * i}\n1\n" for i in range(len(data)))
    table = f"{len(data)}\n{runs}".encode()
    table += bytes(-len(table) % 512)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("GNUSparseFile.0/f")
        info.size = len(table) + len(data)
        info.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "f",
            "GNU.sparse.realsize": str(2 * len(data)),
        }
        tar.addfile(info, io.BytesIO(table + bytes(data)))
    blob = deflated(out.getvalue(), 9)
    plain, _ = convert(blob, level=1)
    reused, _ = convert(blob, level="reuse", verify=True)
    assert entries(reused, tmp_path) == entries(plain, tmp_path)


def test_verify(tmp_path: Path) -> None:
    """The bytes are the same; of zstd there is nothing to inflate."""
    source = tmp_path / "layer.tar.gz"
    source.write_bytes(deflated(TAR, 9))
    for level in ("1", "reuse"):
        for name, options in (("a", []), ("b", ["--verify"])):
            done = run("convert", "--level", level, *options, source, tmp_path / f"{name}{level}")
            assert done.returncode == 0, done.stderr
        assert (tmp_path / f"a{level}").read_bytes() == (tmp_path / f"b{level}").read_bytes()
    done = run("convert", "--verify", "--format", "zstd:chunked", source, tmp_path / "c")
    assert done.returncode == 2
    assert "--verify" in done.stderr
    assert not (tmp_path / "c").exists()


def test_pinned() -> None:
    """What is made of an input that is pinned itself: a change is one for who caches by digest."""
    source, _ = convert(TAR, level=2, min_chunk_size=1 << 20)
    assert hashlib.sha256(source).hexdigest() == PINNED[0]
    made, _ = convert(source, level="reuse")
    assert hashlib.sha256(made).hexdigest() == PINNED[1]
    assert len(made) < len(convert(TAR, level=1)[0])
