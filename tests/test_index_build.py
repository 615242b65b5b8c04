"""The pass that makes a side index: what it says of files is in the blob at those places, whatever
the tar is wrapped in and however it comes; and what is refused is refused as by a conversion."""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import json
import os
import random
import struct
import subprocess
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import plain_index
import pytest
import zstandard
from blobs import tar_of
from mutated_tars import mutated_tar
from oracle import toc_json
from synthetic import noise, tar_bytes

import stargz
from stargz._engine.index import Index, build, load
from stargz._engine.toc import TOC
from stargz.errors import StargzError, UnindexableError

SPAN = 64 << 10
COUNT = int(os.environ.get("STARGZ_PROPERTY_ROUNDS", "300"))
LANDMARK = ".no.prefetch.landmark"
TAR = tar_bytes()
with tarfile.open(fileobj=io.BytesIO(TAR)) as _archive:
    MEMBERS = _archive.getmembers()
FILES = {m.name: TAR[m.offset_data : m.offset_data + m.size] for m in MEMBERS if m.isreg()}
ENTRIES = len(MEMBERS)
END = MEMBERS[-1].offset_data + (MEMBERS[-1].size + 511) // 512 * 512 + 1024


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def index_of(data: bytes, *, threads: int = 2, piece: int = 0, **options: Any) -> Index:
    """Of a blob that comes in pieces of random sizes up to `piece`, or whole."""
    rng = random.Random(piece)
    file = io.BytesIO(data)

    def read(n: int) -> bytes:
        return file.read(min(n, rng.randint(1, piece)) if piece else n)

    options.setdefault("span_size", SPAN)
    return build(read, source_name="blob", threads=threads, **options)


# --- how tars are wrapped ---------------------------------------------------------------------


def flushed(tar: bytes, mode: int, every: int) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    out = [
        packer.compress(tar[at : at + every]) + packer.flush(mode)
        for at in range(0, len(tar), every)
    ]
    return b"".join(out) + packer.flush()


def with_names(tar: bytes) -> bytes:
    plain = gzip.compress(tar, 6, mtime=1)
    head = (
        bytes((0x1F, 0x8B, 8, 4 | 8 | 16, 0, 0, 0, 0, 0, 3)) + b"\x05\0extra" + b"name\0" + b"c\0"
    )
    return head + plain[10:]


def members(tar: bytes, size: int) -> bytes:
    """As of eStargz, mgzip, bgzip: also empty ones."""
    parts = [gzip.compress(tar[at : at + size], 6) for at in range(0, len(tar), size)]
    return b"".join([*parts[:1], gzip.compress(b""), *parts[1:]])


def frames(tar: bytes, size: int) -> bytes:
    """As of pzstd, which writes a skippable frame before each other one."""
    out = []
    for at in range(0, len(tar), size):
        out.append(struct.pack("<II", 0x184D2A50, 4) + b"size")
        out.append(zstandard.ZstdCompressor(3).compress(tar[at : at + size]))
    return b"".join(out)


WRAPS: dict[str, Callable[[bytes], bytes]] = {
    "gzip -1": lambda tar: gzip.compress(tar, 1),
    "gzip -6": lambda tar: gzip.compress(tar, 6),
    "stored in gzip": lambda tar: gzip.compress(tar, 0),
    "gzip with names": with_names,
    "pigz": lambda tar: flushed(tar, zlib.Z_SYNC_FLUSH, 128 << 10),
    "full flushes": lambda tar: flushed(tar, zlib.Z_FULL_FLUSH, 30_000),
    "one member": lambda tar: members(tar, len(tar)),
    "members": lambda tar: members(tar, 100_000),
    "small members": lambda tar: members(tar, 5_000),
    "zstd": lambda tar: frames(tar, 100_000),
    "small frames": lambda tar: frames(tar, 3_000),
    "plain": lambda tar: tar,
}


def span_of(index: Index, blob: bytes, points: list[Any], i: int) -> bytes:
    """What is decoded from point i up to the next one, by other programs' decoders."""
    offset, skip, out, history, _ = points[i]
    last = i + 1 == len(points)
    end = len(blob) if last else points[i + 1][0] + (points[i + 1][1] > 0)
    size = (index.tar_size if last else points[i + 1][2]) - out
    data = blob[offset:end]
    if index.kind == "zstd":
        return zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
    decoded, taken = plain_index.inflate(data, skip, history, size)
    data = data[taken + 8 :]
    while len(decoded) < size:
        machine = zlib.decompressobj(31)
        decoded += machine.decompress(data, size - len(decoded))
        data = machine.unused_data
    return decoded


def check(blob: bytes, tar: bytes, files: dict[str, bytes], **options: Any) -> Index:
    """The index of a blob is right in all that it says of it."""
    index = index_of(blob, **options)
    assert (index.size, index.digest) == (len(blob), sha256(blob))
    assert (index.tar_size, index.diff_id) == (len(tar), sha256(tar))
    outs = {}
    if index.kind != "tar":
        points = index.entry_points()
        assert len(points) == index.spans and points[0][2] == 0
        ends = [*(out for _, _, out, _, _ in points[1:]), len(tar)]
        for i, (offset, _, out, _, _) in enumerate(points):
            assert span_of(index, blob, points, i) == tar[out : ends[i]]
            assert i == 0 or out - points[i - 1][2] > index.span_size
            outs[offset] = out
        assert index.longest_span == max(e - p[2] for e, p in zip(ends, points, strict=True))
    rows = json.loads(index.json())["entries"]
    found: dict[str, bytes] = {}
    for row in rows:
        if row["type"] == "reg":
            name, size = row["name"], row.get("size", 0)
            found[name] = b""
            assert row["digest"] == sha256(files[name])
        elif row["type"] != "chunk":
            continue
        done = len(found[name])
        left = size - done
        assert row.get("chunkOffset", 0) == done
        n = row.get("chunkSize", 0) or left
        if row.get("chunkType") == "zeros":
            found[name] += bytes(n)
        elif n:
            out = outs.get(row["offset"], row["offset"])
            start = out + row.get("innerOffset", 0)
            data = tar[start : start + n]
            assert row["chunkDigest"] == sha256(data)
            # No chunk crosses a point, and each but a last one is as long as it may be.
            later = [p for p in outs.values() if p > start]
            assert not later or start + n <= min(later)
            assert n <= 4 << 20
            found[name] += data
    assert found == files
    return index


@pytest.mark.parametrize("wrap", WRAPS)
def test_every_file_is_at_its_places(wrap: str) -> None:
    blob = WRAPS[wrap](TAR)
    index = check(blob, TAR, FILES)
    kind = "tar" if wrap == "plain" else "zstd" if blob[0] != 0x1F else "gzip"
    assert (index.kind, index.entries, index.archive_size) == (kind, ENTRIES, END)
    assert index.spans > 10 or kind == "tar"
    assert index.notes == []


@pytest.mark.parametrize("wrap", ["gzip -6", "small members", "zstd", "plain"])
@pytest.mark.parametrize("soci", [False, True])
def test_neither_threads_nor_pieces_change_it(wrap: str, soci: bool) -> None:
    blob = WRAPS[wrap](TAR)

    def all_of(**options: Any) -> tuple[Any, ...]:
        index = index_of(blob, soci=soci, **options)
        return index.json(), index.entry_points(), index.digest, index.diff_id

    made = all_of(threads=1)
    for threads, piece in ((2, 0), (3, 70_000), (4, 900), (1, 5_000)):
        assert all_of(threads=threads, piece=piece) == made, (threads, piece)


@pytest.mark.parametrize("wrap", ["gzip -6", "small members", "plain"])
def test_spans_of_soci(wrap: str) -> None:
    """A point as soon as there can be one; the digests of the blob's bytes of each span."""
    blob = WRAPS[wrap](TAR)
    index = index_of(blob, soci=True)
    points = index.entry_points()
    ends = [offset + (skip > 0) for offset, skip, *_ in points[1:]] + [len(blob)]
    for (offset, _, _, _, digest), end in zip(points, ends, strict=True):
        assert digest == sha256(blob[offset:end])
    if wrap == "plain":
        assert [(p[0], p[2]) for p in points] == [(n, n) for n in range(0, len(TAR), SPAN)]
    rows = json.loads(index.json())["entries"]
    assert not any("chunkDigest" in row for row in rows)
    assert sum(row.get("size", 0) for row in rows) == sum(map(len, FILES.values()))


@pytest.mark.parametrize("wrap", ["gzip -6", "small members", "plain"])
def test_a_ztoc_needs_no_digest_of_the_whole(wrap: str) -> None:
    blob = WRAPS[wrap](TAR)
    made = [index_of(blob, soci=True, whole=whole) for whole in (True, False)]
    ztocs: list[bytes] = []
    for index in made:
        parts: list[bytes] = []
        index.write_ztoc(parts.append)
        ztocs.append(b"".join(parts))
    assert ztocs[0] == ztocs[1]
    assert made[0].digest and made[0].diff_id
    assert (made[1].digest, made[1].diff_id) == ("", "")


def test_chunks_are_as_long_as_they_may_be() -> None:
    rows = json.loads(index_of(TAR, chunk_size=1 << 20).json())["entries"]
    large = [row for row in rows if row["name"] == "usr/large"]
    assert [row.get("chunkSize", 0) for row in large] == [1 << 20, 1 << 20, 1 << 20, 0]
    assert [row["offset"] - large[0]["offset"] for row in large] == [n << 20 for n in range(4)]


def test_many_rows() -> None:
    """The rows are read again a MiB at a time: names of chunks, and what is not UTF-8, too."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for n in range(16_000):
            kept = tarfile.TarInfo(f"./some/f\udcff{n}" if n % 5 == 0 else f"some/f{n % 15_000}")
            if n == 9_001:
                kept.size = 14_000 << 10
            archive.addfile(kept, io.BytesIO(bytes(kept.size)))
    index = index_of(out.getvalue(), chunk_size=1 << 10)
    parts: list[bytes] = []
    index.dump(parts.append)
    again = load(b"".join(parts))
    assert again.json() == index.json()
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        last = {member.name.removeprefix("./"): member for member in archive}
    rows = json.loads(index.json())["entries"]
    entries = [row for row in rows if row["type"] == "reg"]
    assert len(entries) == len(last)
    assert {row["name"] for row in rows if row["type"] == "chunk"} == {"some/f9001"}
    assert sum(row["type"] == "chunk" for row in rows) == 14_000 - 1
    for number, member in zip(
        [n for n in range(len(index.toc)) if index.toc.type(n) == "reg"],
        sorted(last.values(), key=lambda one: one.offset),
        strict=True,
    ):
        assert index.toc.name(number) == member.name.removeprefix("./")


# --- what tars hold ---------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["gnu", "oldgnu", "pax 0.0", "pax 0.1", "pax 1.0"])
def test_sparse_files(format: str, tmp_path: Path) -> None:
    """Data where it is stored, and holes that are nowhere."""
    tree = tmp_path / "tree"
    tree.mkdir()
    files = {}
    rng = random.Random(1)
    for name in ("begins with a hole", "ends with one", "hole", "many", "none"):
        with (tree / name).open("wb") as file:
            at = (1 << 20) if name.startswith("begins") else 0
            for n in range({"hole": 0, "none": 1, "many": 40}.get(name, 3)):
                file.seek(at)
                file.write(noise(f"{name}/{n}", 40_000) if rng.random() < 0.5 else b"x" * 8192)
                at += rng.choice((40_960, 57_344, 3 << 20)) if name != "many" else 49_152
            if name in ("ends with one", "hole"):
                file.truncate(at + (5 << 20))
        files[name] = (tree / name).read_bytes()
    kind, _, version = format.partition(" ")
    options = [f"--sparse-version={version}"] if version else []
    tar = subprocess.run(
        [
            *("tar", "-S", "--hole-detection=raw", f"--format={kind}", *options),
            *("-cf", "-", "-C", tree, *sorted(files)),
        ],
        check=True,
        capture_output=True,
    ).stdout
    for wrap in ("gzip -1", "zstd", "plain") if format in ("gnu", "pax 1.0") else ("gzip -1",):
        blob = WRAPS[wrap](tar)
        index = check(blob, tar, files)
        rows = json.loads(index.json())["entries"]
        assert sum(row.get("chunkType") == "zeros" for row in rows) > 10
        assert index_of(blob, threads=1, piece=7_777).json() == index.json()


def test_holes_that_would_take_long_to_hash() -> None:
    """A file has no digest of its own then, and all that it has of chunks."""

    def hole(name: str, size: int) -> bytes:
        info = tarfile.TarInfo(name)
        info.size = 512 + 512
        info.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": name,
            "GNU.sparse.realsize": str(size),
        }
        return info.tobuf(tarfile.PAX_FORMAT) + b"1\n0\n512\n".ljust(512, b"\0") + b"x" * 512

    tar = hole("small", 1 << 20) + hole("large", 1 << 40) + hole("again", 1 << 20) + bytes(1024)
    rows = json.loads(index_of(gzip.compress(tar)).json())["entries"]
    files = {row["name"]: row for row in rows if row["type"] == "reg"}
    expected = sha256(b"x" * 512 + bytes((1 << 20) - 512))
    assert files["small"]["digest"] == files["again"]["digest"] == expected
    assert "digest" not in files["large"]
    assert files["large"]["chunkDigest"] == sha256(b"x" * 512)
    assert rows[-1]["chunkType"] == "zeros" and rows[3]["chunkSize"] == (1 << 40) - 512


def test_names_stay_as_they_are() -> None:
    """Also those that JSON could not tell apart."""
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=tarfile.USTAR_FORMAT, encoding="latin-1"
    ) as archive:
        for name in ("\xe9", "\xe8", "\xe9/../x", "d/\xff"):
            info = tarfile.TarInfo(name)
            info.size = 1
            archive.addfile(info, io.BytesIO(name[-1:].encode("latin-1")))
    tar = out.getvalue()
    with pytest.raises(UnindexableError):
        stargz.convert(io.BytesIO(tar), io.BytesIO())
    assert index_of(tar).entries == 4


def test_what_a_conversion_left_is_no_part_of_the_files(tmp_path: Path) -> None:
    blob = io.BytesIO()
    stargz.convert(io.BytesIO(TAR), blob)
    index = index_of(blob.getvalue())
    assert index.entries == ENTRIES and index.notes == []
    assert (index.size, index.digest) == (len(blob.getvalue()), sha256(blob.getvalue()))
    plain = gzip.decompress(blob.getvalue())
    assert (index.tar_size, index.diff_id) == (len(plain), sha256(plain))
    names = {row["name"] for row in json.loads(index.json())["entries"]}
    assert names == {member.name for member in MEMBERS}
    own = io.BytesIO()
    with tarfile.open(fileobj=own, mode="w") as archive:
        info = tarfile.TarInfo("stargz.index.json")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"own"))
    index = index_of(own.getvalue())
    assert index.toc.names() == ["stargz.index.json"] and index.notes == []


def test_an_input_without_bytes() -> None:
    for data in (b"", gzip.compress(b""), bytes(1024), gzip.compress(bytes(10240))):
        index = index_of(data)
        assert (index.entries, index.size, index.digest) == (0, len(data), sha256(data))
    assert index_of(b"").archive_size == 0 and index_of(bytes(2048)).archive_size == 1024


def test_a_tar_without_its_end() -> None:
    """As of a stream that was cut between two members: the files are there, and it is said."""
    for end in (END - 1024, END - 512, END):
        index = index_of(gzip.compress(TAR[:end]))
        assert index.entries == ENTRIES and index.archive_size == end
        assert [("may have been cut short" in note) for note in index.notes] == [True] * (end < END)


def rounded(fields: tuple[Any, ...]) -> tuple[Any, ...]:
    """As a TOC has them: times of whole seconds."""
    return (*fields[:3], fields[3] + (fields[-1] >= 500_000_000), *fields[4:-1], 0)


@pytest.mark.parametrize("first", range(0, COUNT, 100))
def test_rows_are_those_of_a_conversion(first: int) -> None:
    """Of the same tar, whose entries get in each other's way. What is refused there, the index goes
    without, and says so; or reads it as GNU tar does."""
    refused = 0
    for seed in range(first, first + 100):
        tar = mutated_tar(seed)
        blob = io.BytesIO()
        try:
            stargz.convert(io.BytesIO(tar), blob, threads=1)
        except StargzError as error:
            refused += 1
            try:
                told = "".join(index_of(gzip.compress(tar, 1)).notes)
            except StargzError as cut:
                assert "truncated" in str(cut) or "before a first header" in str(cut)
                continue
            assert "left out" in told or "do not count" in told or "slash" in told, (seed, error)
            continue
        toc = TOC.parse(toc_json(blob.getvalue()), len(blob.getvalue()))
        index = index_of(gzip.compress(tar, 1), threads=1)
        rows = [rounded(index.toc.fields(n)) for n in index.toc.entries()]
        assert [f for f in map(toc.fields, toc.entries()) if f[0] != LANDMARK] == rows, seed
        assert index.toc.counts()["files"] == toc.counts()["files"] - 1
    assert 0 < refused < 100


# --- what is refused --------------------------------------------------------------------------


@functools.cache
def broken() -> dict[str, bytes]:
    packed = gzip.compress(TAR, 6)
    middle = len(packed) // 2
    crc = packed[:-8] + bytes(4) + packed[-4:]
    frame = frames(TAR, 1 << 20)
    return {
        "no tar": b"no tar at all " * 1000,
        "no tar in gzip": gzip.compress(b"no tar at all " * 1000),
        "no tar in gzip, and a long one": gzip.compress(noise("no tar", 3 << 20), 1),
        "xz": b"\xfd7zXZ\0" + bytes(1000),
        "cut off": packed[:middle],
        "header cut off": packed[:5],
        "trailer cut off": packed[:-3],
        "wrong check sum": crc,
        "flipped": packed[:middle] + bytes((packed[middle] ^ 0x55,)) + packed[middle + 1 :],
        "garbage where the tar has not ended": gzip.compress(TAR[:1_000_448]) + b"garbage",
        "cut off in a file": gzip.compress(TAR[:2_000_000]),
        "zstd cut off": frame[:-10],
        "zstd, garbage behind": frame + b"garbage",
        "no header": tarfile.TarInfo("f").tobuf()[:156] + b"9" + bytes(2000),
    }


@pytest.mark.parametrize("name", broken())
def test_what_a_conversion_refuses(name: str) -> None:
    """With the same words, whatever the threads."""
    blob = broken()[name]
    with pytest.raises(StargzError) as expected:
        stargz.convert(io.BytesIO(blob), io.BytesIO(), threads=1)
    for threads in (1, 2, 4):
        with pytest.raises(StargzError) as found:
            index_of(blob, threads=threads)
        assert type(found.value) is type(expected.value)
        said = str(expected.value).split(": ", 1)[1]
        assert str(found.value).split(": ", 1)[1] == said


@pytest.mark.parametrize("behind", [bytes(300), bytes(9 << 20), noise("behind", 3 << 20)])
def test_what_is_behind_the_last_member_counts(behind: bytes) -> None:
    for blob in (gzip.compress(TAR), TAR) if not any(behind) else (gzip.compress(TAR),):
        index = index_of(blob + behind)
        assert index.size == len(blob + behind) and index.digest == sha256(blob + behind)
        assert index.entries == ENTRIES and index.archive_size == END


def test_frames_without_entry_points() -> None:
    limit = 4 << 20
    fits = tar_of([("a", noise("a", 100_000))]).ljust(limit, b"\0")
    one = zstandard.ZstdCompressor().compress(fits)
    index = index_of(one)  # the frame is its entry point
    assert (index.entries, index.spans, index.longest_span) == (1, 1, limit)
    one = zstandard.ZstdCompressor().compress(fits + bytes(512))
    assert index_of(one, span_size=limit + 512).spans == 1
    for blob in (one, struct.pack("<II", 0x184D2A50, 4) + b"size" + one):
        with pytest.raises(UnindexableError, match="one zstd frame has no entry points"):
            index_of(blob)
    large = zstandard.ZstdCompressor().compress(TAR[: END - 1024] + bytes(70 << 20))
    with pytest.raises(UnindexableError, match="one zstd frame has no entry points"):
        index_of(large + one)


def test_a_failing_source_and_a_failing_progress() -> None:
    blob = io.BytesIO(gzip.compress(TAR))

    def read(n: int) -> bytes:
        if blob.tell() > 100_000:
            raise OSError(5, "gone")
        return blob.read(min(n, 50_000))

    with pytest.raises(OSError, match="gone"):
        build(read, source_name="blob", threads=2)

    def progress(done: int, total: int) -> None:
        raise KeyboardInterrupt

    receive, send = os.pipe()
    os.write(send, blob.getvalue()[:1000])
    try:
        with pytest.raises(KeyboardInterrupt):  # and nothing waits for the silent pipe
            build(receive, source_name="pipe", threads=2, progress=progress)
    finally:
        os.close(receive)
        os.close(send)
