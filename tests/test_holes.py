"""Files with holes: a TOC says where, and the blob has no bytes of them. Every reader gives what
GNU tar makes of the same sparse archive; 1 TiB of zeros costs nothing until it is asked for."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blobs
import fsspec
import pytest
from command import ok, run
from faraway import Faraway
from mounts import cli_mount, needs_fuse

import stargz
from stargz.errors import DigestError, TOCError
from stargz.toc import Chunk

TIB = 1 << 40
CHUNK = 3000


def sparse_tree(root: Path, seed: int) -> dict[str, bytes]:
    """Files with holes at all places, whole blocks and other sizes."""
    rng = random.Random(seed)
    files = {"plain": rng.randbytes(5000), "all": bytes(20_000), "empty": b"", "zero": bytes(512)}
    for first in (False, True):
        for pieces in range(1, 7):
            content = bytearray()
            for number in range(pieces):
                hole = (number + first) % 2
                size = 512 * rng.randrange(16 if hole else 1, 30)
                size += rng.choice((0, 0, rng.randrange(512)))
                content += bytes(size) if hole else rng.randbytes(size)
            files[f"{'hole' if first else 'data'}{pieces}"] = bytes(content)
    for name, content in files.items():
        with (root / name).open("wb") as file:
            file.truncate(len(content))
            for at in range(0, len(content), 512):
                if any(content[at : at + 512]):  # GNU tar looks at files with few blocks
                    file.seek(at)
                    file.write(content[at : at + 512])
    return files


def rows_of(archive: tarfile.TarFile, tar: bytes, rng: random.Random) -> tuple[Any, list[int]]:
    """The rows of a sparse archive as a TOC has them, and where chunks begin in it."""
    rows: list[dict[str, Any]] = []
    starts: list[int] = []
    for info in archive:
        if not info.isreg() and not info.issparse():
            rows.append({"name": info.name, "type": "dir", "mode": info.mode})
            continue
        content = archive.extractfile(info).read()  # type: ignore[union-attr]
        row = {"name": info.name, "type": "reg", "mode": info.mode, "size": len(content)}
        row["digest"] = blobs.sha256(content)
        pieces: list[dict[str, Any]] = []
        at, place = 0, info.offset_data
        extents = info.sparse if info.issparse() else [(0, info.size)]
        for offset, size in [*((o, s) for o, s in extents if s), (len(content), 0)]:
            if offset > at:
                pieces.append({"chunkOffset": at, "chunkSize": offset - at, "chunkType": "zeros"})
            at = offset
            while at < offset + size:
                length = min(CHUNK, offset + size - at)
                piece = tar[place : place + length]
                assert piece == content[at : at + length]
                pieces.append({"chunkOffset": at, "chunkSize": length, "place": place})
                pieces[-1]["chunkDigest"] = blobs.sha256(piece)
                if rng.random() < 0.5:
                    starts.append(place)
                place += length
                at += length
        for number, piece in enumerate(pieces):
            rows.append({**(row if not number else {"name": info.name, "type": "chunk"}), **piece})
        if not pieces:
            rows.append(row)
    return rows, starts


def blob_of(tar: bytes, rows: list[dict[str, Any]], starts: list[int]) -> bytes:
    """The members of a tar, cut at `starts`, and its TOC."""
    out = bytearray()
    places = sorted({0, *starts})
    offsets = {}
    for start, end in zip(places, [*places[1:], len(tar)], strict=True):
        offsets[start] = len(out)
        out += blobs.member(tar[start:end])
    for row in rows:
        place = row.pop("place", None)
        if place is not None:
            start = max(start for start in places if start <= place)
            row["offset"], row["innerOffset"] = offsets[start], place - start
    return blobs.with_toc(bytes(out), json.dumps({"version": 1, "entries": rows}).encode())


@pytest.fixture(scope="module", params=["gnu", "posix 0.1", "posix 1.0"])
def sparse(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[bytes, dict[str, bytes]]:
    """The blob of what `tar --sparse` wrote, and the files that GNU tar makes of that."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("out")
    form, _, version = request.param.partition(" ")
    files = sparse_tree(tree, 7)
    words = ["tar", "-C", tree, "--sparse", "--hole-detection=raw", f"--format={form}", "-cf", "-"]
    words += [f"--sparse-version={version}"] * bool(version) + ["."]
    tar = subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "-C", out, "-xf", "-"], input=tar, check=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == files
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        assert any(info.issparse() for info in archive)
        rows, starts = rows_of(archive, tar, random.Random(8))
    return blob_of(tar, rows, starts), files


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("far", [False, True])
def test_reads(sparse: tuple[bytes, dict[str, bytes]], far: bool, verify: bool) -> None:
    data, files = sparse
    rng = random.Random(9)
    source = Faraway(data) if far else data
    with stargz.open(source, verify=verify, cache=False) as layer:
        assert sorted(name for name in layer if layer.entry(name).is_file()) == sorted(files)
        for name, content in files.items():
            assert layer.read(name) == content
            chunks = layer.chunks(name)
            assert sum(chunk.size for chunk in chunks) == len(content)
            for chunk in chunks:
                piece = content[chunk.chunk_offset :][: chunk.size]
                assert not (chunk.zeros and any(piece))
                assert (chunk.offset > 0 or chunk.inner_offset > 0) == (not chunk.zeros)
            for _ in range(12):
                at, size = rng.randrange(len(content) + 1), rng.randrange(9000)
                buffer = bytearray(b"x" * len(content[at : at + size]))
                layer.reader.read_into(layer._file(name), at, len(buffer), buffer)
                assert layer.read(name, at, size) == content[at : at + size] == buffer
            with layer.open(name) as file:
                file.seek(len(content) // 2)
                assert file.read() == content[len(content) // 2 :]


@pytest.mark.parametrize("verify", [True, False])
def test_extraction_makes_holes(
    sparse: tuple[bytes, dict[str, bytes]], tmp_path: Path, verify: bool
) -> None:
    data, files = sparse
    with stargz.open(data, verify=verify) as layer:
        result = layer.extractall(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files
    assert (result.files, result.bytes) == (len(files), sum(map(len, files.values())))
    assert (tmp_path / "all").stat().st_blocks == 0


def test_commands(sparse: tuple[bytes, dict[str, bytes]], tmp_path: Path) -> None:
    data, files = sparse
    path = tmp_path / "l.stargz"
    path.write_bytes(data)
    for name in ("hole5", "all"):
        assert ok("cat", path, name, text=False) == files[name]
    counts = json.loads(ok("info", "--json", path))
    assert counts["content_size"] == sum(map(len, files.values()))
    with stargz.open(data) as layer:
        chunks = [chunk for name in files for chunk in layer.chunks(name) if not chunk.zeros]
    assert counts["chunks"] == len(chunks)
    assert counts["largest_chunk"] == CHUNK
    assert ok("ls", "-l", path).count("20000") == 1
    assert not stargz.diff(path, path)
    file = fsspec.filesystem("stargz", fo=str(path)).open("hole4")
    assert file.read() == files["hole4"]
    du = ok("du", "--compressed", path, "all")
    assert du.split()[0] == "0"


def test_mounted(sparse: tuple[bytes, dict[str, bytes]], tmp_path: Path) -> None:
    needs_fuse()
    data, files = sparse
    path = tmp_path / "l.stargz"
    path.write_bytes(data)
    with cli_mount(path, directory=tmp_path / "mnt") as mounted:
        for name, content in files.items():
            assert (mounted / name).read_bytes() == content


# --- large holes ------------------------------------------------------------------------------


def large(**keys: Any) -> tuple[bytes, bytes]:
    """A blob of a file with data in the middle of two holes of 1 TiB, and the data."""
    content = blobs.noise("middle", 10_000)
    made = blobs.build(blobs.tar_of([("f", content)]), chunk_size=len(content), **keys)
    found = json.loads(made.text)["entries"]
    (row,) = (row for row in found if row["name"] == "f")
    where = {key: row.pop(key) for key in list(row) if key in ("offset", "innerOffset")}
    del row["digest"]
    piece = {"chunkDigest": row.pop("chunkDigest"), "chunkSize": len(content), **where}
    row |= {"size": 2 * TIB + len(content), "chunkSize": TIB, "chunkType": "zeros"}
    tail = {"chunkOffset": TIB + len(content), "chunkSize": TIB, "chunkType": "zeros"}
    chunks = [{"chunkOffset": TIB, **piece}, tail]
    at = found.index(row) + 1
    found[at:at] = [{"name": "f", "type": "chunk", **chunk} for chunk in chunks]
    text = json.dumps({"version": 1, "entries": found}).encode()
    return blobs.with_toc(made.data[: made.toc_offset], text), content


def test_what_is_said_of_zeros_does_not_stand_for_the_file(tmp_path: Path) -> None:
    """Only containers/storage has frames of zeros: elsewhere a place and a digest of them are
    nothing, and the file's own digest tells."""
    content, other = blobs.noise("middle", 10_000), blobs.sha256(b"other")
    made = blobs.build(blobs.tar_of([("f", content)]), chunk_size=len(content))
    found = json.loads(made.text)["entries"]
    (row,) = (row for row in found if row["name"] == "f")
    row |= {"size": len(content) + 8192, "chunkSize": len(content), "digest": other}
    zeros = {"name": "f", "type": "chunk", "chunkOffset": len(content), "chunkSize": 8192}
    zeros |= {"chunkType": "zeros", "chunkDigest": other, "offset": row["offset"] + 1}
    found.insert(found.index(row) + 1, zeros)
    text = json.dumps({"version": 1, "entries": found}).encode()
    data = blobs.with_toc(made.data[: made.toc_offset], text)
    with stargz.open(data) as layer, pytest.raises(DigestError, match="the file"):
        layer.extractall(tmp_path / "out")


@pytest.mark.parametrize("far", [False, True])
def test_only_what_is_asked_for(far: bool) -> None:
    data, content = large()
    source = Faraway(data)
    with stargz.open(source if far else data, cache=False) as layer:
        log = len(source.log)
        assert layer.read("f", 0, 10) == layer.read("f", TIB - 10, 10) == bytes(10)
        assert layer.read("f", 2 * TIB + 9990) == bytes(10)
        assert layer.read("f", 2 * TIB, 9990) == bytes(9990)
        assert len(source.log) == log  # nothing was fetched for zeros
        assert layer.read("f", TIB - 7, 20_000) == bytes(7) + content + bytes(9993)
        assert layer.chunks("f")[0] == Chunk(0, 0, 0, TIB, "", True)


def test_large_holes_are_extracted_and_mounted(tmp_path: Path) -> None:
    data, content = large()
    path = tmp_path / "l.stargz"
    path.write_bytes(data)
    assert ok("extract", path, "-C", tmp_path / "out") is not None
    stat = (tmp_path / "out" / "f").stat()
    assert stat.st_size == 2 * TIB + len(content)
    assert stat.st_blocks * 512 < 1 << 20
    needs_fuse()
    with cli_mount(path, directory=tmp_path / "mnt") as mounted:
        fd = os.open(mounted / "f", os.O_RDONLY)
        try:
            assert os.pread(fd, 20_000, TIB - 5) == bytes(5) + content + bytes(9995)
            assert os.pread(fd, 4096, 2 * TIB) == bytes(4096)
            assert os.fstat(fd).st_size == 2 * TIB + len(content)
        finally:
            os.close(fd)


# --- digests of the whole ---------------------------------------------------------------------


def edited(edit: Callable[[list[dict[str, Any]]], Any]) -> bytes:
    """A blob of "a", 4,000 bytes of which the middle is a hole, whose rows are changed."""
    data = blobs.noise("a", 2000)
    content = data[:1000] + bytes(2000) + data[1000:]

    def change(rows: list[dict[str, Any]]) -> None:
        first, second = (row for row in rows if row["name"] == "a")
        first |= {"size": len(content), "digest": blobs.sha256(content)}
        second["chunkOffset"] = 3000
        zeros = {"name": "a", "type": "chunk", "chunkOffset": 1000}
        rows.insert(rows.index(second), {**zeros, "chunkSize": 2000, "chunkType": "zeros"})
        edit(rows)

    return blobs.build(blobs.tar_of([("a", data)]), chunk_size=1000, edit=change).data


def test_the_digest_of_the_file_is_of_its_zeros_too(tmp_path: Path) -> None:
    right = edited(lambda rows: None)
    wrong = edited(lambda rows: rows[0].update(digest=blobs.sha256(b"other")))
    none = edited(lambda rows: rows[0].pop("digest"))
    for number, data in enumerate((right, none)):
        with stargz.open(data) as layer:
            assert not layer.reader.undigested()
            result = layer.extractall(tmp_path / f"{number}")
            assert not result.unverified
            assert (tmp_path / f"{number}/a").read_bytes() == layer.read("a")
    with stargz.open(wrong) as layer:
        with pytest.raises(DigestError, match="the file"):
            layer.extractall(tmp_path / "wrong")
        with pytest.raises(DigestError):
            layer.read("a")
        assert layer.read("a", 900, 200) == layer.read("a", 0, 1000)[900:] + bytes(100)


def test_the_digest_of_a_file_of_zeros(tmp_path: Path) -> None:
    def toc(**keys: Any) -> bytes:
        row = {"name": "z", "type": "reg", "size": 5000, "chunkSize": 5000, "chunkType": "zeros"}
        text = json.dumps({"version": 1, "entries": [{**row, **keys}]}).encode()
        return blobs.with_toc(blobs.member(bytes(512)), text)

    for keys in ({}, {"digest": blobs.sha256(bytes(5000))}, {"chunkSize": 0}, {"offset": 3}):
        with stargz.open(toc(**keys)) as layer:
            layer.extractall(tmp_path)
            assert (tmp_path / "z").read_bytes() == layer.read("z") == bytes(5000)
    wrong = toc(digest=blobs.sha256(b"x"))
    with stargz.open(wrong) as layer, pytest.raises(DigestError, match="z: the file"):
        layer.extractall(tmp_path / "wrong")
    assert not (tmp_path / "wrong" / "z").exists()
    # What is hashed unasked is bounded.
    endless = {"size": 1 << 62, "chunkSize": 0, "digest": blobs.sha256(b"x")}
    with stargz.open(toc(**endless)) as layer:
        assert layer.read("z", 1 << 61, 3) == bytes(3)
        assert layer.toc.rows.whole_digests() == []


# --- what is refused --------------------------------------------------------------------------

FILE = {"name": "a", "type": "reg", "size": 100, "chunkType": "zeros"}
NEXT = {"name": "a", "type": "chunk", "chunkOffset": 50}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{**FILE, "chunkType": "ones", "offset": 5}], "chunkType: expected nothing or zeros"),
        ([{**FILE, "chunkSize": 50}, {**NEXT, "chunkType": "data"}], "chunkType"),
        ([{**FILE, "chunkSize": 50}], "hold 50 of its 100"),
        ([{**FILE, "chunkSize": 101}], "101 bytes where the file has 100"),
        ([{**FILE, "chunkSize": 49}, {**NEXT, "chunkType": "zeros"}], "a chunk at 50"),
        ([{**FILE, "chunkSize": 50}, NEXT], "it has data but no offset"),
        ([{**FILE, "chunkOffset": 3}], "a chunk at 3"),
        ([FILE, {**NEXT, "chunkType": "zeros"}], "a chunk at 50"),
        ([{**FILE, "name": "d", "type": "dir"}, {**NEXT, "chunkType": "zeros"}], "a dir"),
        ([{**FILE, "size": 1 << 62}, {**FILE, "size": 1 << 62, "name": "b"}], "impossibly large"),
    ],
)
def test_refused(rows: list[dict[str, Any]], message: str) -> None:
    text = json.dumps({"version": 1, "entries": rows}).encode()
    with pytest.raises(TOCError, match=message):
        stargz.open(blobs.with_toc(blobs.member(bytes(512)), text))


def test_verify_says_that_the_tar_has_more(tmp_path: Path) -> None:
    """A hole in the TOC where the tar has bytes: that is not what was converted."""
    path = tmp_path / "l.stargz"
    path.write_bytes(edited(lambda rows: None))
    done = run("verify", path)
    assert done.returncode == 3
    assert "a:" in done.stderr + done.stdout
