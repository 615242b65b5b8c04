"""The index files of other programs: their entry points are taken, if they are some."""

from __future__ import annotations

import gzip
import io
import struct
import subprocess
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import plain_index
import pytest
import synthetic
from absence import absent
from test_index_file import check, dumped

from stargz._engine.index import Index, build, load, load_foreign
from stargz.errors import IndexFileError


def small_tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(12):
            data = (synthetic.text if number % 3 else synthetic.noise)(str(number), 40_000)
            info = tarfile.TarInfo(f"file{number}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


TAR = small_tar()


def adopt(blob: bytes, file: bytes) -> Index:
    """The blob's index with the points of another; it is right in all that it says."""
    found = load_foreign(file, name="x.gzidx")
    assert found
    index = build(io.BytesIO(blob).read, source_name="blob", threads=2, wanted=found)
    data = dumped(index)
    check(plain_index.read(data), blob, gzip.decompress(blob), spans=True)
    assert dumped(load(data)) == data
    for piece in (1000, 77_777):  # however it comes
        source = io.BytesIO(blob)
        again = build(
            lambda n, source=source, piece=piece: source.read(min(n, piece)),
            source_name="blob",
            threads=1,
            wanted=found,
        )
        assert dumped(again) == data
    return index


# --- with the programs themselves -------------------------------------------------------------


def of_members(tar: bytes) -> bytes:
    """Members of all sizes, every other one empty."""
    sizes = (100, 70_000, 20_000, 300_000)
    parts, at = [], 0
    while at < len(tar):
        size = sizes[len(parts) % 4]
        parts += [gzip.compress(tar[at : at + size], 6), gzip.compress(b"")]
        at += size
    return b"".join(parts)


@pytest.mark.parametrize("spacing", [40_000, 200_000])
@pytest.mark.parametrize(
    "wrap",
    [gzip.compress, lambda tar: gzip.compress(tar, 1), of_members],
    ids=["gzip", "fast", "members"],
)
def test_indexed_gzip(tmp_path: Path, wrap: Callable[[bytes], bytes], spacing: int) -> None:
    try:
        import indexed_gzip
    except ImportError:
        absent("indexed_gzip is not installed (pip install indexed_gzip)")
    path = tmp_path / "blob.tar.gz"
    path.write_bytes(wrap(TAR))
    with indexed_gzip.IndexedGzipFile(str(path), spacing=spacing) as file:
        file.build_full_index()
        file.export_index(str(tmp_path / "blob.gzidx"))
    data = (tmp_path / "blob.gzidx").read_bytes()
    found = load_foreign(data)
    index = adopt(path.read_bytes(), data)
    assert found and found.size == index.size
    # Within the 32 KiB behind one point it may have another.
    assert 1 < index.spans <= found.spans
    assert spacing > 100_000 or index.spans > 5
    assert index.span_size == 0


def test_bgzip(tmp_path: Path, tool: Callable[[str], str]) -> None:
    path = tmp_path / "blob.tar"
    path.write_bytes(TAR)
    subprocess.run([tool("bgzip"), "--index", path], check=True)
    blob = (tmp_path / "blob.tar.gz").read_bytes()
    index = adopt(blob, (tmp_path / "blob.tar.gz.gzi").read_bytes())
    assert index.longest_span <= 64 << 10
    assert index.spans == len(TAR) // index.longest_span + 1


# --- by hand ----------------------------------------------------------------------------------


SECOND = 200_000


def two_members(name: bytes = b"") -> tuple[bytes, int]:
    """A blob of two members, and where the second begins; with a name its header is longer."""
    first, second = gzip.compress(TAR[:SECOND], 6), gzip.compress(TAR[SECOND:], 6)
    if name:
        second = second[:3] + b"\x08" + second[4:10] + name + b"\0" + second[10:]
    return first + second, len(first)


def gzidx(
    points: list[tuple[int, int, int, bytes]],
    size: int,
    end: int = len(TAR),
    version: int = 1,
    window: int = 32768,
) -> bytes:
    """Points are (offset of the first whole byte, decoded offset, bits, window)."""
    head = (
        b"GZIDX"
        + bytes((version, 0))
        + struct.pack("<QQIII", size, end, 1 << 20, window, len(points))
    )
    table = b"".join(
        struct.pack("<QQB", at, out, bits) + (bytes((bool(data),)) if version else b"")
        for at, out, bits, data in points
    )
    return head + table + b"".join(data for *_, data in points)


def gzi(*pairs: tuple[int, int]) -> bytes:
    return struct.pack("<Q", len(pairs)) + b"".join(struct.pack("<QQ", *pair) for pair in pairs)


def test_points_of_members() -> None:
    """Those of indexed_gzip stand behind a member's header, those of bgzip before it."""
    for name in (b"", b"a name that is long"):
        blob, second = two_members(name)
        behind = second + 10 + (len(name) + 1 if name else 0)
        end = (len(blob), len(TAR), 0, b"")
        file = gzidx([(10, 0, 0, b""), (behind, SECOND, 0, b""), end], len(blob))
        assert adopt(blob, file).spans == 2
        assert adopt(blob, gzi((second, SECOND))).spans == 2
        assert adopt(blob, gzi()).spans == 1


def test_version_0_has_a_window_for_all_but_the_first() -> None:
    blob, second = two_members()
    window = TAR[SECOND - 32768 : SECOND]
    file = gzidx([(10, 0, 0, b""), (second + 10, SECOND, 0, window)], len(blob), version=0)
    assert adopt(blob, file).spans == 2


def flushed() -> tuple[bytes, int, int]:
    """A blob of one member with a place in it where decoding can begin, at a whole byte."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    first = packer.compress(TAR[:SECOND]) + packer.flush(zlib.Z_SYNC_FLUSH)
    return first + packer.compress(TAR[SECOND:]) + packer.flush(), len(first), SECOND


def test_points_within_a_member() -> None:
    blob, at, out = flushed()
    window = TAR[out - 32768 : out]
    file = gzidx([(10, 0, 0, b""), (at, out, 0, window)], len(blob))
    assert adopt(blob, file).spans == 2
    # Where it is not needed, other programs have zeros.
    sparse = bytes(16384) + window[16384:]
    assert adopt(blob, gzidx([(10, 0, 0, b""), (at, out, 0, sparse)], len(blob))).spans == 2
    # A longer window than deflate can use, of which the end counts.
    longer = gzidx([(10, 0, 0, b""), (at, out, 0, b"x" * 100 + window)], len(blob), window=32868)
    assert adopt(blob, longer).spans == 2


def test_points_that_are_none() -> None:
    """The error says which, and where in the blob; nothing else is made instead."""
    blob, at, out = flushed()
    window = TAR[out - 32768 : out]
    wrong = {
        "decoding cannot begin there": (
            gzidx([(10, 0, 0, b""), (at + 1, out, 0, window)], len(blob)),
            gzidx([(10, 0, 0, b""), (at, out, 3, window)], len(blob)),
            gzidx([(10, 0, 0, b""), (at, out - 1, 0, window)], len(blob)),
            gzidx([(11, 0, 0, b""), (at, out, 0, window)], len(blob)),
            gzi((at, out)),
        ),
        "its window is not what comes before it": (
            gzidx([(10, 0, 0, b""), (at, out, 0, window[1:] + b"\x01")], len(blob)),
        ),
        "the blob ends before": (gzi((len(blob) + 1000, len(TAR) + 512)),),
    }
    for why, files in wrong.items():
        for file in files:
            found = load_foreign(file)
            with pytest.raises(IndexFileError, match=why) as caught:
                build(io.BytesIO(blob).read, source_name="blob", threads=2, wanted=found)
            assert caught.value.offset is not None
            assert f"blob at offset {caught.value.offset}: entry point " in str(caught.value)


def test_another_blob() -> None:
    blob, at, out = flushed()
    window = TAR[out - 32768 : out]
    points = [(10, 0, 0, b""), (at, out, 0, window)]
    for size, end, why in (
        (len(blob) + 1, len(TAR), "is of a file of .* bytes, and this one has"),
        (len(blob), len(TAR) + 1, "decodes to"),
    ):
        with pytest.raises(IndexFileError, match=why):
            build(
                io.BytesIO(blob).read,
                source_name="blob",
                threads=2,
                wanted=load_foreign(gzidx(points, size, end)),
            )
    with pytest.raises(IndexFileError, match="is of a gzip file, which this is not"):
        build(io.BytesIO(TAR).read, source_name="blob", threads=2, wanted=load_foreign(gzi()))


def test_malformed() -> None:
    blob, at, out = flushed()
    window = TAR[out - 32768 : out]
    first = (10, 0, 0, b"")
    good = gzidx([first, (at, out, 0, window)], len(blob))
    assert load_foreign(good)
    bad = {
        "ends within": [good[:length] for length in (5, 20, 34, 35, 70, 71, len(good) - 1)],
        "bytes follow": [good + b"\0"],
        "only versions 0 and 1": [good[:5] + b"\2" + good[6:], good[:6] + b"\1" + good[7:]],
        "32768 are needed": [gzidx([first, (at, out, 0, window[1:])], len(blob), window=32767)],
        "is before the one before it": [
            gzidx([first, (at, out, 0, window), (at + 9, out - 1, 0, window)], len(blob)),
            gzidx([first, (at, out, 0, window), (at - 9, out + 1, 0, window)], len(blob)),
            gzi((at, out), (at + 9, out - 1)),
        ],
        "is where the one before it is": [gzi((at, out), (at, out + 9))],
        "is outside of the blob": [
            gzidx([first, (len(blob) + 1, out, 0, window)], len(blob)),
            gzidx([first, (at, len(TAR) + 1, 0, window)], len(blob)),
            gzidx([first, (at, out, 8, window)], len(blob)),
            gzidx([(0, 0, 1, b"")], len(blob)),
        ],
        "not for the first byte": [gzidx([(at, out, 0, window)], len(blob))],
        "has no entry point": [gzidx([], len(blob))],
        "is impossible": [gzidx([first], 1 << 63), gzi((1 << 62, 1)), gzi((1, 1 << 62))],
    }
    for why, files in bad.items():
        for file in files:
            with pytest.raises(IndexFileError, match=why):
                load_foreign(file, name="x.gzidx")
    for other in (b"", b"GZID", good[1:], gzi((at, out))[:-1], b"\xff" * 16):
        assert load_foreign(other) is None
