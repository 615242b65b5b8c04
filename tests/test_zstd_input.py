"""Tars in zstd: frames as writers make them, and what of them is refused."""

from __future__ import annotations

import io
import struct
import tarfile
from pathlib import Path
from typing import Any

import command
import pytest
import zstandard
from pieces import Pieces

import stargz
from stargz.conversion import ConvertResult
from stargz.errors import GzipError, UsageError


def a_tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("f")
        info.size = 300_000
        tar.addfile(info, io.BytesIO(bytes(range(250)) * 1200))
    return out.getvalue()


TAR = a_tar()
HALF = 100_001


def frame(data: bytes, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)


def streamed(data: bytes, window: int | None = None, **options: Any) -> bytes:
    """A frame that does not say how much it holds; `window` is put into its descriptor."""
    packer = zstandard.ZstdCompressor(**options).compressobj()
    out = bytearray(packer.compress(data) + packer.flush())
    assert not out[4] & 0x20
    if window is not None:
        out[5] = window
    return bytes(out)


def skippable(data: bytes, number: int = 0) -> bytes:
    return struct.pack("<II", 0x184D2A50 + number, len(data)) + data


def convert(data: bytes, **options: Any) -> tuple[bytes, ConvertResult]:
    out = io.BytesIO()
    result = stargz.convert(io.BytesIO(data), out, threads=1, **options)
    return out.getvalue(), result


FRAMES = {
    "one": frame(TAR),
    "content size unknown": streamed(TAR),
    "with a checksum": frame(TAR, write_checksum=True),
    "without": streamed(TAR, write_checksum=False),
    "two": frame(TAR[:HALF]) + frame(TAR[HALF:]),
    "an empty one between": frame(TAR[:HALF]) + frame(b"") + streamed(TAR[HALF:]),
    "a skippable one first": skippable(b"hello") + frame(TAR),
    "an empty skippable one": skippable(b"", 15) + frame(TAR),
    "as of pzstd": skippable(b"\x01\0\0\0") + frame(TAR[:HALF])
    + skippable(b"\x02\0\0\0") + frame(TAR[HALF:]),
    "a skippable one last": frame(TAR) + skippable(bytes(9999), 7),
    "a large skippable one": skippable(bytes(1 << 20)) + frame(TAR),
    "tiny ones": b"".join(frame(TAR[at : at + 64]) for at in range(0, 6400, 64))
    + frame(TAR[6400:]),
}  # fmt: skip


@pytest.mark.parametrize("name", FRAMES)
def test_frames(name: str, tmp_path: Path) -> None:
    data, expected = FRAMES[name], convert(TAR)[0]
    blob, result = convert(data)
    assert blob == expected and result.warnings == ()
    if len(data) < 100_000:
        out = io.BytesIO()
        stargz.convert(Pieces(data, 5), out, threads=1)
        assert out.getvalue() == expected
    (tmp_path / "t.zst").write_bytes(data)
    told = command.run("info", "--json", tmp_path / "t.zst")
    assert '"compression": "zstd"' in told.stdout


@pytest.mark.parametrize("zeros", [1, 3, 4, 8192, 1 << 20])
@pytest.mark.parametrize("options", [{}, {"prioritized": ["f"]}])
def test_zeros_behind_the_last_frame(zeros: int, options: dict[str, Any]) -> None:
    for data in (FRAMES["two"], FRAMES["a skippable one last"]):
        blob, result = convert(data + bytes(zeros), **options)
        assert blob == convert(TAR, **options)[0]
        assert result.warnings == ()
        assert stargz.conversion.diff_id(data + bytes(zeros))[1] == len(TAR)


@pytest.mark.parametrize("behind", [b"x", b"\0x", bytes(70_000) + b"x", bytes(9) + FRAMES["one"]])
def test_other_bytes_behind_the_last_frame(behind: bytes) -> None:
    with pytest.raises(GzipError) as caught:
        convert(FRAMES["one"] + behind)
    zeros = len(behind) - len(behind.lstrip(b"\0"))
    assert caught.value.offset == len(FRAMES["one"]) + zeros


CONTENT = tarfile.TarInfo("f").tobuf() + bytes(1024)


def by_hand(*blocks: tuple[int, bytes], size: int | None = len(CONTENT)) -> bytes:
    """A frame of these blocks, of a kind each, which says that it has `size` bytes (RFC 8878,
    section 3.1.1)."""
    out = b"\x28\xb5\x2f\xfd" + (
        b"\0\x58" if size is None else b"\x80\x58" + struct.pack("<I", size)
    )
    for number, (kind, data) in enumerate(blocks, 1):
        length = RLE_LENGTH if kind == RLE else len(data)
        out += struct.pack("<I", length << 3 | kind << 1 | (number == len(blocks)))[:3] + data
    return out


RAW, RLE, COMPRESSED, RESERVED = range(4)
RLE_LENGTH = 0
BLOCKS: dict[str, tuple[list[tuple[int, bytes]], bool]] = {
    "none": ([], True),
    "a raw one of no bytes": ([(RAW, b"")], True),
    "one that is repeated no time": ([(RLE, b"x")], True),
    "a compressed one of no bytes": ([(COMPRESSED, b"")], False),
    "a compressed one of one byte": ([(COMPRESSED, b"\0")], False),
    "a compressed one of no literals and no sequences": ([(COMPRESSED, b"\0\0")], True),
    "one of the kind that is reserved": ([(RESERVED, b"")], False),
    "one that is too large": ([(RAW, bytes(200_000))], False),
}
IN_PIECES = (None, 1, 7, 1000)


def verdict(data: bytes) -> bool:
    """Whether it is taken, and the same in any pieces."""
    made = set()
    for size in IN_PIECES:
        out = io.BytesIO()
        try:
            stargz.convert(io.BytesIO(data) if size is None else Pieces(data, size), out)
            made.add(out.getvalue())
        except stargz.StargzError as error:
            assert "zstd frame" in str(error)
            made.add(b"")
    assert len(made) == 1
    return made != {b""}


@pytest.mark.parametrize("size", [len(CONTENT), None])
@pytest.mark.parametrize("where", ["between", "last"])
@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_whatever_pieces_they_come_in(name: str, where: str, size: int | None) -> None:
    """libzstd takes another way for a frame that it has as a whole, and whose size it knows."""
    blocks, good = BLOCKS[name]
    first, second = (RAW, CONTENT[:700]), (RAW, CONTENT[700:])
    order = [first, *blocks, second] if where == "between" else [first, second, *blocks]
    assert verdict(by_hand(*order, size=size)) == good


@pytest.mark.parametrize("size", [0, 1, len(CONTENT) - 1, len(CONTENT) + 1, 70_000])
@pytest.mark.parametrize("last", [[], [(RAW, b"")], [(RLE, b"x")]])
def test_a_frame_has_the_size_that_it_says(size: int, last: list[tuple[int, bytes]]) -> None:
    assert not verdict(by_hand((RAW, CONTENT), *last, size=size))


def descriptor(log: int, eighths: int = 0) -> int:
    return (log - 10) << 3 | eighths


@pytest.mark.parametrize("options", [{}, {"prioritized": ["f"]}])
@pytest.mark.parametrize(
    ("window", "memory", "needs"),
    [
        (descriptor(27), None, None),
        (descriptor(29), None, None),
        (descriptor(29, 1), None, 576),
        (descriptor(31), None, 2048),
        (descriptor(31), 2 << 30, None),
        (descriptor(30, 4), 3 << 29, None),
        (descriptor(30, 5), 3 << 29, 1664),
        (descriptor(23), 8 << 20, None),
        (descriptor(24), 8 << 20, 16),
    ],
)
def test_windows(
    window: int, memory: int | None, needs: int | None, options: dict[str, Any]
) -> None:
    first = frame(TAR[:HALF])
    data = first + streamed(TAR[HALF:], window)
    if needs is None:
        assert convert(data, memory=memory, **options)[0] == convert(TAR, **options)[0]
        return
    limit = (memory or 512 << 20) >> 20
    with pytest.raises(GzipError) as caught:
        convert(data, memory=memory, **options)
    assert caught.value.offset == len(first)
    assert f"a window of {needs} MiB, over the limit of {limit} MiB" in caught.value.message
    assert f"--memory {needs}MiB" in caught.value.message


def test_a_frame_of_one_segment_needs_its_size() -> None:
    """Its window is its contents: a number that nobody has to believe."""
    data = bytearray(frame(TAR))
    assert data[4] & 0x20 and data[4] >> 6 == 2
    data[5:9] = (600 << 20).to_bytes(4, "little")
    with pytest.raises(GzipError, match="a window of 600 MiB"):
        convert(bytes(data))


def test_dictionaries() -> None:
    samples = [b"sample %d of many words, words and words" % n for n in range(2000)]
    dictionary = zstandard.train_dictionary(4096, samples)
    with pytest.raises(GzipError, match=f"needs the dictionary {dictionary.dict_id()}"):
        convert(frame(TAR, dict_data=dictionary))


@pytest.mark.parametrize("memory", [0, -1, 1023])
def test_memory_that_is_none(memory: int) -> None:
    with pytest.raises(UsageError, match="memory"):
        convert(TAR, memory=memory)


def test_the_command(tmp_path: Path) -> None:
    source, target = tmp_path / "t.zst", tmp_path / "t.stargz"
    source.write_bytes(streamed(TAR, descriptor(31)))
    failed = command.run("convert", source, target)
    assert failed.returncode == 1 and "--memory 2048MiB" in failed.stderr
    done = command.run("convert", "--memory", "2048MiB", source, target)
    assert done.returncode == 0 and target.read_bytes() == convert(TAR)[0]
