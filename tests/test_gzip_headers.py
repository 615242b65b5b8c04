"""Headers of gzip members (RFC 1952): their own CRC, their flags, wherever they are read."""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import zlib
from pathlib import Path

import blobs
import pytest
from blobs import noise, tar_of
from pieces import Pieces

import stargz
from stargz.errors import GzipError

CONTENT = noise("content", 3000)
FHCRC, FEXTRA, FNAME, FCOMMENT, RESERVED = 2, 4, 8, 16, (32, 64, 128)


def header(flags: int, wrong: int = 0, method: int = 8) -> bytes:
    """With what the flags say; `wrong` is put into its CRC."""
    data = bytes([0x1F, 0x8B, method, flags, 1, 2, 3, 4, 0, 255])
    if flags & FEXTRA:
        data += b"\5\0AB\1\0x"
    if flags & FNAME:
        data += b"a name\0"
    if flags & FCOMMENT:
        data += b"c" * 300 + b"\0"
    if flags & FHCRC:
        data += ((zlib.crc32(data) & 0xFFFF) ^ wrong).to_bytes(2, "little")
    return data


def member(data: bytes, head: bytes) -> bytes:
    return head + blobs.member(data)[10:]


def fine() -> list[bytes]:
    return [header(sum(some) | FHCRC) for n in range(5) for some in _some(n)]


def _some(count: int) -> list[tuple[int, ...]]:
    return list(itertools.combinations((1, FEXTRA, FNAME, FCOMMENT), count))


BAD = {
    "crc": (header(FHCRC, wrong=0x100), "CRC-16"),
    "crc, much else": (header(FHCRC | FEXTRA | FNAME | FCOMMENT, wrong=1), "CRC-16"),
    **{f"flag {flag}": (header(flag), "reserved flags") for flag in RESERVED},
    "method": (header(0, method=7), "method 7"),
}


@pytest.fixture(params=BAD)
def bad(request: pytest.FixtureRequest) -> tuple[bytes, str]:
    return BAD[request.param]


def test_gzip_takes_the_good_ones() -> None:
    for head in fine():
        done = subprocess.run(
            ["gzip", "-dc"], input=member(CONTENT, head), capture_output=True, check=True
        )
        assert done.stdout == CONTENT


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@pytest.mark.parametrize("before", [b"", noise("x", 512)])
def test_input(bad: tuple[bytes, str], step: int, before: bytes) -> None:
    head, says = bad
    tar = tar_of([("f", CONTENT)])
    first = blobs.member(tar[:512]) if before else b""
    rest = tar[512:] if before else tar
    for good in (header(0), header(FHCRC | FNAME)):
        out = io.BytesIO()
        stargz.convert(Pieces(first + member(rest, good), step), out)
        with stargz.open(out.getvalue()) as layer:
            assert layer.read("f") == CONTENT
    with pytest.raises(GzipError, match=says) as caught:
        stargz.convert(Pieces(first + member(rest, head), step), io.BytesIO())
    assert caught.value.offset == len(first)


def layer_with(head: bytes, second: bool, digests: bool) -> tuple[bytes, int]:
    """The chunk's member has this header, or the second of its two has; and where that is."""
    first = blobs.member(b"headers")
    parts = [CONTENT[:1000], CONTENT[1000:]] if second else [b"", CONTENT]
    data = blobs.member(parts[0]) if second else b""
    at = len(first) + len(data)
    data += member(parts[1], head)
    row = {"name": "f", "type": "reg", "size": len(CONTENT), "offset": len(first)}
    if digests:
        row["chunkDigest"] = row["digest"] = blobs.sha256(CONTENT)
    text = json.dumps({"version": 1, "entries": [row]}).encode()
    return blobs.with_toc(first + data, text), at


@pytest.mark.parametrize("digests", [True, False])
@pytest.mark.parametrize("second", [False, True])
def test_members_of_a_blob(
    bad: tuple[bytes, str], second: bool, digests: bool, tmp_path: Path
) -> None:
    head, says = bad
    for good in fine():
        data, _ = layer_with(good, second, digests)
        with stargz.open(data) as layer:
            assert layer.read("f") == CONTENT
            layer.extractall(tmp_path / "good")
    data, at = layer_with(head, second, digests)
    with stargz.open(data) as layer:
        with pytest.raises(GzipError, match=says) as caught:
            layer.read("f")
        assert caught.value.offset == at
        with pytest.raises(GzipError, match=says):
            layer.extractall(tmp_path / "bad")
        assert not (tmp_path / "bad/f").exists()
        assert any(says in error.message and error.offset == at for error in layer.verify().errors)


def test_the_member_of_the_toc(bad: tuple[bytes, str]) -> None:
    head, says = bad
    made = blobs.build(tar_of([("f", CONTENT)]))
    for one in (header(FHCRC | FNAME), head):
        data = made.data[: made.toc_offset]
        data += member(blobs.toc_entry(made.text) + bytes(1024), one)
        data += blobs.footer(made.toc_offset)
        if one is head:
            with pytest.raises(GzipError, match=says) as caught:
                stargz.open(data)
            assert caught.value.offset == made.toc_offset
        else:
            with stargz.open(data) as layer:
                assert layer.read("f") == CONTENT
