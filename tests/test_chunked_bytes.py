"""What the bytes of a layer in zstd:chunked depend on, and what of them is pinned: all but what the
version of libzstd decides."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile

import plain_chunked
import pytest
import zstandard
from chunked_layers import FORMATS, add, convert, plain

import stargz


def fixed_tar(noise: int = 400_000) -> bytes:
    random_ = random.Random(5)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        add(tar, "./", type=tarfile.DIRTYPE, mode=0o755)
        for i in range(40):
            add(tar, f"./d{i // 10}/f{i:03}", random_.randbytes(i * 100), mtime=1700000000 + i)
        add(tar, "./noise", random_.randbytes(noise), mode=0o755, uid=7, gid=8)
        mixed = random_.randbytes(3000) + bytes(5000) + b"x" * 300 + bytes(1024) + b"y"
        add(tar, "./mixed", mixed, pax_headers={"mtime": "1.25", "SCHILY.xattr.user.a": "b"})
        add(tar, "./l", type=tarfile.LNKTYPE, linkname="./mixed")
        add(tar, "./s", type=tarfile.SYMTYPE, linkname="d0/f001")
    return out.getvalue()


def frames(blob: bytes, end: int) -> list[int]:
    """The decoded sizes of the frames before `end`."""
    sizes, at = [], 0
    while at < end:
        decoder = zstandard.ZstdDecompressor().decompressobj()
        size = zstandard.frame_content_size(blob[at : at + 18])
        assert size == len(decoder.decompress(blob[at:end]))
        sizes.append(size)
        at = end - len(decoder.unused_data)
    return sizes


def without_offsets(text: bytes) -> str:
    toc = json.loads(text)
    toc.pop("tarSplitDigest", None)
    for entry in toc["entries"]:
        entry.pop("offset", None)
        entry.pop("endOffset", None)
    return plain_chunked.sha256(json.dumps(toc).encode())


# The TOC, the decoded sizes of frames, the lines of the tar-split.
PINS = {
    "zstd:chunked": [
        "sha256:79cde5430ce835e267a25b835c61fe42701d114753671a72bbd9cdbe78de97db",
        "sha256:a8c3bd63e78a396b234dc05bbe42015084d7e962f669e154fce1f813db815092",
        "sha256:3bc5ec8fbf99ab1169df0db276277a5cb507038af2985684a1d1998d7ca80260",
    ],
    "zstd:chunked-stargz": [
        "sha256:ee6ef0b94a890d81a645ac39a84c995df1754f26af30dbf9dfe1a25cb680a20b",
        "sha256:0ddc5ae3d70c6b4e33508ba14633d20c26c11ecb8f9bcd7562f49fa4f73180ae",
    ],
}


@pytest.mark.parametrize("format", FORMATS)
def test_pins(format: str) -> None:
    blob, result = convert(fixed_tar(), format)
    found = plain_chunked.read(blob, result.annotations)
    made = [without_offsets(found.json), str(frames(blob, found.data_end))]
    if found.split is not None:
        made.append(plain_chunked.sha256(found.split))
    made[1] = plain_chunked.sha256(made[1].encode())
    assert made == PINS[format]


@pytest.mark.parametrize("format", FORMATS)
def test_toc_and_tar_split_say_their_size(format: str) -> None:
    blob, result = convert(fixed_tar(), format)
    found = plain_chunked.read(blob, result.annotations)
    assert zstandard.frame_content_size(found.packed) == len(found.json)
    for key, value in result.annotations.items():
        if key.endswith("tarsplit-position"):
            offset, _, size = map(int, value.split(":"))
            assert zstandard.frame_content_size(blob[offset : offset + 18]) == size


class Pieces(io.BytesIO):
    """Reads are of any size."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, 1 + self.tell() * 7919 % 50_000))


@pytest.mark.parametrize("format", FORMATS)
def test_any_number_of_threads_and_any_wrapping_give_the_same(format: str) -> None:
    tar = fixed_tar(6_000_000)
    first, _ = convert(tar, format, threads=1)
    for threads in (2, 3, 8):
        assert convert(tar, format, threads=threads)[0] == first
    for wrapped in (gzip.compress(tar, 1), zstandard.compress(tar, 1)):
        assert convert(wrapped, format)[0] == first
    out = io.BytesIO()
    stargz.convert(Pieces(tar), out, format=format)
    assert out.getvalue() == first


def test_a_seekable_layer_keeps_its_tar() -> None:
    layer = io.BytesIO()
    stargz.convert(io.BytesIO(fixed_tar()), layer)
    made, result = convert(layer.getvalue(), "zstd:chunked")
    tar = gzip.decompress(layer.getvalue())
    assert plain(made) == tar
    assert result.diff_id == plain_chunked.sha256(tar)
    assert convert(tar, "zstd:chunked")[0] == made


@pytest.mark.parametrize("format", FORMATS)
def test_levels(format: str) -> None:
    tar = fixed_tar(1000)
    sizes = []
    for level in (1, 2, 5, 12, 19):
        blob, result = convert(tar, format, level=level, threads=1)
        assert result.level == level
        found = plain_chunked.read(blob, result.annotations)
        assert plain_chunked.contents(blob, found)
        sizes.append(len(found.packed))
    assert sizes[-1] < sizes[0]
    assert convert(tar, format)[0] == convert(tar, format, level=None)[0]


def test_what_the_sum_chooses_too_often_has_a_bound() -> None:
    """At 63 of 64 of its bytes a chunk would end."""
    data = (b"\x20\xe2" + b"\x81" * 62) * 3000
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        add(tar, "dense", data)
    blob, result = convert(out.getvalue(), "zstd:chunked")
    assert len(data) / 600 < result.chunks <= len(data) / 512 + 5
    files = plain_chunked.contents(blob, plain_chunked.read(blob, result.annotations))
    assert b"".join(row["data"] for row in files["dense"]) == data
