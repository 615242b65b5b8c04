"""Layers in both dialects of zstd:chunked, read by the library."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from blobs import sha256
from chunked_layers import FORMATS, a_tar, convert, plain
from faraway import Faraway
from handmade_chunked import TOC_DIGEST, Handmade, frame

import stargz
from stargz.errors import (
    DigestError,
    FooterError,
    GzipError,
    UnverifiedError,
)


def names(tar: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        return {os.path.normpath(one.name): one for one in opened}


# --- what there is ------------------------------------------------------------------------------


def test_golden(data: Path, goldens: list[dict[str, Any]]) -> None:
    (case,) = (case for case in goldens if case["kind"] == "zstd")
    blob = data / case["blob"]
    with stargz.open(blob, toc_digest=case["toc_digest"], require_verified=True) as layer:
        assert (layer.kind, layer.verified) == ("zstd:chunked", True)
        for name, digest in case["file_sha256"].items():
            assert hashlib.sha256(layer.read(name)).hexdigest() == digest, name
        assert sha256(layer.read_toc()) == case["toc_digest"] == layer.toc_digest
        assert b"".join(layer.iter_toc(1000)) == layer.read_toc()
        assert layer.uncompressed_size() == len(plain(blob.read_bytes()))
        assert not set(stargz.toc.MARKERS) & set(layer)
    for notes in (case["annotations"], {TOC_DIGEST: case["toc_digest"]}):
        with stargz.open(blob, annotations=notes) as layer:
            assert layer.verified


def test_annotations_vouch_for_every_format() -> None:
    for format in ("estargz", *FORMATS):
        blob, result = convert(a_tar(), format)
        stargz.open(blob, annotations=result.annotations, require_verified=True).close()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("bound", [4 << 20, 4096])
def test_everything_is_as_in_the_tar(format: str, bound: int) -> None:
    tar = a_tar()
    blob, result = convert(tar, format, chunk_size=bound)
    with (
        stargz.open(blob, annotations=result.annotations, require_verified=True) as layer,
        tarfile.open(fileobj=io.BytesIO(tar)) as opened,
    ):
        assert layer.toc_digest == result.toc_digest
        there = names(tar)
        assert set(layer) | {"."} == set(there)
        for name, info in there.items():
            if name == ".":
                continue
            entry = layer.entry(name)
            if info.isreg():
                file = opened.extractfile(info)
                assert file is not None
                data = file.read()
                assert layer.read(name) == data
                assert layer.read(name, 1000, 2000) == data[1000:3000]
                with layer.open(name) as stream:
                    stream.seek(50)
                    assert stream.read() == data[50:]
                assert sum(chunk.size for chunk in layer.chunks(name)) == len(data)
            if not info.islnk():
                assert (entry.uid, entry.gid) == (info.uid, info.gid)
                assert entry.mode & 0o7777 == info.mode & 0o7777
                off = abs(entry.mtime_ns - float(info.mtime) * 1e9)
                assert off < 1000 if format == "zstd:chunked" else off <= 5e8, name
                assert format == "zstd:chunked" or not entry.mtime_nsec
            xattrs = {
                key[len("SCHILY.xattr.") :]: value.encode()
                for key, value in info.pax_headers.items()
                if key.startswith("SCHILY.xattr.")
            }
            assert {k.replace("%3D", "="): v for k, v in entry.xattrs.items()} == {
                k.replace("%3D", "="): v for k, v in xattrs.items()
            }


@pytest.mark.parametrize("format", FORMATS)
def test_extracted_as_gnu_tar_does(tmp_path: Path, tool: Callable[[str], str], format: str) -> None:
    import subprocess

    tar = a_tar()
    blob, _ = convert(tar, format)
    (tmp_path / "gnu").mkdir()
    subprocess.run([tool("tar"), "-xpf-", "-C", tmp_path / "gnu"], input=tar, check=True)
    with stargz.open(blob) as layer:
        layer.extractall(tmp_path / "ours", devices=True, setid=True)
    for folder in ("gnu", "ours"):
        (tmp_path / folder / "x").mkdir()
    theirs = {path.relative_to(tmp_path / "gnu") for path in (tmp_path / "gnu").rglob("*")}
    assert {
        path.relative_to(tmp_path / "ours") for path in (tmp_path / "ours").rglob("*")
    } == theirs
    for name in theirs - {Path("x")}:
        one, other = (tmp_path / folder / name for folder in ("gnu", "ours"))
        assert one.lstat().st_mode == other.lstat().st_mode, name
        if one.is_file() and not one.is_symlink():
            assert one.read_bytes() == other.read_bytes()
            if format == "zstd:chunked":
                assert one.stat().st_mtime_ns == other.stat().st_mtime_ns, name


@pytest.mark.parametrize("end", ["S", "C", "odd", "none"])
def test_every_end_that_containers_storage_wrote(end: str) -> None:
    """Its positions are in annotations, which are all that it reads."""
    made = Handmade()
    noise = bytes(range(256)) * 40
    made.file("./a", b"hello")
    made.file("big", noise, bytes(5000), noise[::-1])
    made.file("zeros", bytes(2000), b"x")
    blob, notes = made.finish(end)
    with stargz.open(blob, annotations=notes, require_verified=True) as layer:
        assert layer.kind == "zstd:chunked"
        assert layer.verified
        assert layer.read("a") == b"hello"
        assert layer.read("big") == noise + bytes(5000) + noise[::-1]
        assert layer.read("big", 10_000, 6000) == (noise + bytes(5000) + noise[::-1])[10_000:16_000]
        assert layer.read("zeros") == bytes(2000) + b"x"
        again = pickle.loads(pickle.dumps(layer))
        with again:
            assert again.verified
            assert again.read("a") == b"hello"
    if end in ("S", "C"):
        with stargz.open(blob) as layer:
            assert not layer.verified
            assert layer.read("zeros") == bytes(2000) + b"x"
        with pytest.raises(UnverifiedError):
            stargz.open(blob, require_verified=True)
    elif end == "odd":
        with pytest.raises(FooterError):
            stargz.open(blob)


def test_a_file_of_one_frame_has_the_digest_of_the_file() -> None:
    made = Handmade()
    made.file("a", b"hello" * 100)
    made.entries[0]["digest"] = sha256(b"other")
    blob, notes = made.finish("C")
    with stargz.open(blob, annotations=notes) as layer:
        assert layer.verified
        with pytest.raises(DigestError):
            layer.read("a")
        with pytest.raises(DigestError):
            layer.read("a", 1, 2)


def test_without_digests_the_check_sum_of_the_frame_vouches() -> None:
    made = Handmade()
    made.file("good", b"hello" * 100, digests=False)
    made.file("bare", b"world" * 100, digests=False, write_checksum=False)
    made.file("two", b"a" * 1000, b"b" * 1000, digests=False)
    blob, notes = made.finish("C")
    broken = bytearray(blob)
    broken[made.entries[0]["offset"] + len(frame(b"hello" * 100)) - 1] ^= 1
    with stargz.open(blob, annotations=notes) as layer:
        assert not layer.verified
        assert layer.read("good", 3, 10) == (b"hello" * 100)[3:13]
        assert layer.read("two", 990, 20) == b"a" * 10 + b"b" * 10
        with pytest.raises(GzipError, match="no check sum") as caught:
            layer.read("bare")
        assert caught.value.offset == made.entries[1]["offset"]
    with pytest.raises(UnverifiedError):
        stargz.open(blob, annotations=notes, require_verified=True)
    with stargz.open(blob, verify=False) as layer:
        assert layer.read("bare") == b"world" * 100
    with stargz.open(bytes(broken), annotations=notes) as layer, pytest.raises(GzipError):
        layer.read("good", 3, 10)


@pytest.mark.parametrize("format", [*FORMATS, "containers/storage"])
def test_what_must_be_fetched(data: Path, format: str) -> None:
    if format in FORMATS:
        blob, _ = convert(a_tar(), format, chunk_size=10_000)
    else:  # no digests of chunks where a file has one
        blob = (data / "containers_storage.zst").read_bytes()
    with stargz.open(blob) as layer:
        toc_digest = layer.toc_digest
        wanted = {name: layer.read(name) for name in layer.toc.names("reg")}
    far = Faraway(blob)
    with stargz.open(far, toc_digest=toc_digest, cache=True) as layer:
        assert len(far.log) <= 2
        for name, data in wanted.items():
            assert layer.read(name) == data
        assert layer.verified
    assert far.total < len(blob) * 2
    again = Faraway(blob)
    with stargz.open(again, toc_digest=toc_digest, cache=True) as layer:
        opened = len(again.log)
        for name, data in wanted.items():
            assert layer.read(name) == data
        assert len(again.log) == opened, "all of it was kept"


# --- verification ----------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("bound", [4 << 20, 4096])
def test_verified(format: str, bound: int) -> None:
    tar = a_tar()
    blob, result = convert(tar, format, chunk_size=bound)
    for source in (blob, Faraway(blob)):
        with stargz.open(source, annotations=result.annotations, cache=False) as layer:
            found = layer.verify()
            assert found.ok, found.errors
            assert found.verified
            assert found.bytes == len(plain(blob)) == layer.uncompressed_size()
            assert found.chunks == layer.toc.counts()["chunks"]


def test_verified_what_others_made(data: Path) -> None:
    for name in ("containers_storage.zst", "zstd_chunked.zst"):
        with stargz.open(data / name) as layer:
            found = layer.verify()
            assert found.ok, found.errors
            assert not found.verified


def test_zeros_that_are_none() -> None:
    """Readers are given zeros, whatever the frame has."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as opened:
        info = tarfile.TarInfo("a")
        info.size = 5000
        opened.addfile(info, io.BytesIO(b"x" * 1000 + bytes(4000)))
    blob, _ = convert(tar.getvalue(), "zstd:chunked")
    with stargz.open(blob) as layer:
        assert layer.verify().ok
        text = json.loads(layer.read_toc())
        offset = text["entries"][1]["offset"]
        end = layer.data_end
    made = Handmade()
    lie = bytes(3999) + b"y"
    made.data = blob[:offset] + frame(lie)
    behind = zstandard.ZstdDecompressor().decompressobj()
    behind.decompress(blob[offset:end])
    made.data += behind.unused_data
    made.entries = text["entries"]
    for digest in (sha256(bytes(4000)), sha256(lie), None):
        made.entries[1].pop("chunkDigest", None)
        made.entries[1] |= {"chunkDigest": digest} if digest else {}
        if digest == sha256(lie):
            with pytest.raises(DigestError, match="a chunk of zeros"):
                stargz.open(made.finish("none")[0], annotations=made.finish("none")[1])
            continue
        with stargz.open(made.finish("none")[0], annotations=made.finish("none")[1]) as layer:
            assert layer.read("a") == b"x" * 1000 + bytes(4000)
            found = layer.verify()
            assert not found.ok
            messages = " ".join(error.message for error in found.errors)
            assert ("has other bytes" in messages) == (digest != sha256(bytes(4000)))
            assert {error.name for error in found.errors} == {"a"}
