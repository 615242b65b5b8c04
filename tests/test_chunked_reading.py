"""Layers in both dialects of zstd:chunked, read by the library."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from blobs import sha256
from chunked_layers import FORMATS, a_tar, convert, plain
from faraway import Faraway

import stargz
from stargz.errors import (
    DigestError,
    FooterError,
    FormatError,
    GzipError,
    TOCError,
    UnverifiedError,
    UsageError,
)

C = "io.github.containers.zstd-chunked."
S = "io.containers.zstd-chunked."
TOC_DIGEST = "containerd.io/snapshot/stargz/toc.digest"


def skippable(payload: bytes) -> bytes:
    return struct.pack("<II", 0x184D2A50, len(payload)) + payload


def frame(data: bytes, **options: Any) -> bytes:
    options = {"level": 1, "write_checksum": True, **options}
    if "window" in options:
        window = zstandard.ZstdCompressionParameters(
            window_log=options["window"], write_checksum=1, write_content_size=0
        )
        squeezer = zstandard.ZstdCompressor(compression_params=window).compressobj()
        return squeezer.compress(data) + squeezer.flush()
    return zstandard.ZstdCompressor(**options).compress(data)


class Handmade:
    """A blob, frame by frame, with the rows of its TOC."""

    def __init__(self) -> None:
        self.data = frame(b"header" * 100)
        self.entries: list[dict[str, Any]] = []

    def put(self, packed: bytes) -> int:
        self.data += packed
        return len(self.data) - len(packed)

    def file(self, name: str, *chunks: bytes, digests: bool = True, **options: Any) -> None:
        at = 0
        whole = b"".join(chunks)
        for number, chunk in enumerate(chunks):
            row: dict[str, Any] = {"type": "chunk", "name": name}
            if not number:
                row |= {"type": "reg", "size": len(whole)}
                row |= {"digest": sha256(whole)} if digests else {}
            if len(chunks) > 1:
                row |= {"chunkSize": len(chunk), "chunkOffset": at}
                row |= {"chunkDigest": sha256(chunk)} if digests else {}
                row |= {} if any(chunk) else {"chunkType": "zeros"}
            self.entries.append(row | {"offset": self.put(frame(chunk, **options))})
            at += len(chunk)
        self.put(frame(b"header of another"))

    def toc(self, **changes: Any) -> tuple[bytes, bytes]:
        """Its JSON and its frame."""
        text = json.dumps({"version": 1, "entries": self.entries, **changes}).encode()
        return text, frame(text)

    def finish(self, end: str = "S") -> tuple[bytes, dict[str, str]]:
        """The blob with one of the ends that there are, and what annotates it."""
        text, packed = self.toc()
        return self.end(packed, len(text), end)

    def end(self, packed: bytes, size: int, end: str = "S") -> tuple[bytes, dict[str, str]]:
        offset = len(self.data) + 8
        numbers = struct.pack("<4Q", offset, len(packed), size, 1)
        blob = self.data + skippable(packed)
        notes = {
            f"{C}manifest-checksum": sha256(packed),
            f"{C}manifest-position": f"{offset}:{len(packed)}:{size}:1",
        }
        if end == "S":  # and of containers/storage before there was a tar-split
            return blob + skippable(numbers + b"GnUlInUx"), notes
        if end == "none":
            return blob, notes
        split = skippable(frame(b"{}\n"))
        notes[f"{C}tarsplit-position"] = f"{len(blob) + 8}:{len(split) - 8}:3"
        more = struct.pack("<3Q", len(blob) + 8, len(split) - 8, 3)
        if end == "odd":  # of some weeks in 2023
            return blob + split + skippable(numbers + more[:16] + b"GNUlInUx"), notes
        return blob + split + skippable(numbers + more + b"GNUlInUx"), notes


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


# --- what contradicts itself ------------------------------------------------------------------


def test_digests_that_are_not_the_tocs() -> None:
    blob, result = convert(a_tar(), "zstd:chunked")
    notes = result.annotations
    other = "sha256:" + "0" * 64
    stargz.open(blob, annotations=notes, toc_digest=result.toc_digest).close()
    for options in (
        {"toc_digest": other},
        {"annotations": notes, "toc_digest": other},
        {"annotations": notes | {TOC_DIGEST: other}},
        {"annotations": {TOC_DIGEST: other}},
        {"annotations": notes | {f"{C}manifest-checksum": other}},
    ):
        with pytest.raises(DigestError, match="the table of contents"):
            stargz.open(blob, **options)
    with pytest.raises(FormatError, match="no sha256 digest"):
        stargz.open(blob, annotations=notes | {f"{C}manifest-checksum": "x"})
    with pytest.raises(UsageError, match="sha256"):
        stargz.open(blob, annotations={TOC_DIGEST: "x"})
    with pytest.raises(UsageError, match="has its own TOC"):
        stargz.open(blob, toc=blob)


@pytest.mark.parametrize("prefix", [C, S])
def test_annotations_and_footers_that_do_not_agree(prefix: str) -> None:
    blob, result = convert(a_tar(), FORMATS[prefix == S])
    notes = result.annotations
    offset, packed, size, kind = map(int, notes[f"{prefix}manifest-position"].split(":"))
    for position in (
        (offset + 1, packed, size, kind),
        (offset, packed - 1, size, kind),
        (offset, packed, size + 1, kind),
        (len(blob), packed, size, kind),
    ):
        text = ":".join(map(str, position))
        with pytest.raises(FooterError, match="do not agree"):
            stargz.open(blob, annotations=notes | {f"{prefix}manifest-position": text})
    if prefix == C:
        split = {f"{C}tarsplit-position": f"{offset}:{packed}:{size}"}
        with pytest.raises(FooterError, match="do not agree"):
            stargz.open(blob, annotations=notes | split)
    gzip, _ = convert(a_tar(), "estargz")
    with pytest.raises(FooterError, match="do not agree"):
        stargz.open(gzip, annotations=notes)


def test_positions_that_are_nowhere() -> None:
    made = Handmade()
    made.file("a", b"hello")
    blob, notes = made.finish("none")
    offset, packed, size, _ = notes[f"{C}manifest-position"].split(":")
    for position in (f"{len(blob)}:1:1:1", f"{offset}:{int(packed) + 1}:{size}:1", "3:9:9:1"):
        with pytest.raises(FooterError):
            stargz.open(blob, annotations=notes | {f"{C}manifest-position": position})
    for position in ("1:2:3", "1:2:3:2", "-1:2:3:1", "1:2:3:1:", " 1:2:3:1", "9" * 40 + ":2:3:1"):
        with pytest.raises(FormatError, match="no position"):
            stargz.open(blob, annotations=notes | {f"{C}manifest-position": position})


# --- bad TOCs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "match"),
    [
        (-1, "longer than its"),
        (1, "ends 1 bytes early"),
        (-(1 << 20), "longer than its"),
        (1 << 40, "limit"),
    ],
)
def test_a_toc_of_another_size(size: int, match: str) -> None:
    made = Handmade()
    made.file("a", b"hello")
    text, packed = made.toc()
    blob, _ = made.end(packed, max(1, len(text) + size))
    with pytest.raises(TOCError, match=match):
        stargz.open(blob)


def test_tocs_that_are_none() -> None:
    made = Handmade()
    made.file("a", b"hello")
    text, packed = made.toc()
    bad = packed[:-1] + bytes([packed[-1] ^ 1])
    for toc, error, match in (
        (packed[:-6], TOCError, "cut off"),
        (packed + b"garbage", GzipError, "corrupt"),
        (bad, GzipError, "checksum"),
        (frame(text, window=26), GzipError, "window of 64 MiB, over the limit of 32 MiB"),
        (frame(bytes(1 << 28)), TOCError, "longer than its"),
        (frame(bytes(len(text))), TOCError, "in the TOC's JSON at byte 0"),
        (b"\x28\xb5\x2f\xfd", TOCError, "cut off"),
        (bytes(30), GzipError, "corrupt"),
        (skippable(b"x"), TOCError, "early"),
        (gzip_of(text), GzipError, "corrupt"),
    ):
        blob, _ = made.end(toc, len(text))
        with pytest.raises(error, match=match):
            stargz.open(blob)
    # Padding has no end.
    blob, _ = made.end(packed + skippable(bytes(1 << 20)), len(text))
    with pytest.raises(TOCError, match="does not take"):
        stargz.open(blob)


def gzip_of(data: bytes) -> bytes:
    import gzip

    return gzip.compress(data)


def test_a_toc_that_inflates_without_end() -> None:
    made = Handmade()
    made.file("a", b"hello")
    text, _ = made.toc()
    bomb = frame(text[:-1] + b" " * (1 << 28) + b"}")
    blob, _ = made.end(bomb, len(text))
    with pytest.raises(TOCError, match="longer than its"):
        stargz.open(blob)
    blob, _ = made.end(bomb, len(text) + (1 << 28))
    with pytest.raises(TOCError, match="limit"):
        stargz.open(blob, max_toc_size=1 << 20)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"offset": 1 << 40}, "not inside"),
        ({"offset": 0}, "no offset"),
        ({"offset": -1}, "negative"),
        ({"chunkOffset": 5}, "a chunk at 5"),
        ({"chunkSize": 5000}, "the file has"),
        ({"size": 1 << 50}, "too small for it|cannot come of"),
        ({"chunkType": "ones"}, "chunkType"),
        ({"chunkDigest": "sha256:1"}, "chunkDigest"),
        ({"digest": "md5:1"}, "digest"),
    ],
)
def test_rows_that_cannot_be(change: dict[str, Any], match: str) -> None:
    made = Handmade()
    made.file("a", b"hello" * 100)
    made.file("b", b"world" * 100)
    made.entries[1] |= change
    blob, _ = made.finish("C")
    with pytest.raises(TOCError, match=match):
        stargz.open(blob)


def test_frames_that_go_back_or_overlap() -> None:
    made = Handmade()
    made.file("a", b"hello" * 100)
    made.file("b", b"world" * 100)
    made.entries[0]["offset"], made.entries[1]["offset"] = (
        made.entries[1]["offset"],
        made.entries[0]["offset"],
    )
    with pytest.raises(TOCError, match="is before that of the entry before it"):
        stargz.open(made.finish("C")[0])
    made.entries[0]["offset"] = made.entries[1]["offset"]
    with pytest.raises(TOCError, match="overlaps"):
        stargz.open(made.finish("C")[0])


def test_zeros_have_their_place_too() -> None:
    made = Handmade()
    made.file("a", b"hello" * 100, bytes(4096), b"world")
    made.entries[1]["offset"] = made.entries[0]["offset"]
    with pytest.raises(TOCError, match="overlaps"):
        stargz.open(made.finish("C")[0])
    made.entries[1]["offset"] = 1 << 40
    del made.entries[2]
    made.entries[0]["size"] -= 5
    with pytest.raises(TOCError, match="not inside"):
        stargz.open(made.finish("C")[0])
    # Nothing is read for them.
    del made.entries[1]["offset"]
    made.entries[0]["digest"] = sha256(b"hello" * 100 + bytes(4096))
    with stargz.open(made.finish("C")[0]) as layer:
        assert layer.read("a") == b"hello" * 100 + bytes(4096)


# --- bad frames -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "packed",
    [
        frame(b"other" * 100),
        frame(b"hello" * 99),
        frame(b"hello" * 100)[:-10],
        skippable(b"hello" * 100),
        skippable(b"") + frame(b"hello" * 99),
        b"hello" * 100,
        frame(b"hello" * 100, window=26),
        bytes(20),
    ],
)
def test_frames_that_are_not_the_file(packed: bytes) -> None:
    made = Handmade()
    made.file("a", b"hello" * 100)
    made.data = made.data[: made.entries[0]["offset"]] + packed
    blob, notes = made.finish("C")
    for source in (blob, Faraway(blob)):
        with stargz.open(source, annotations=notes, cache=False) as layer:
            for _ in range(2):
                with pytest.raises((GzipError, DigestError)) as caught:
                    layer.read("a")
                assert caught.value.offset is None or caught.value.offset < len(made.data)


def test_a_frame_of_more_than_it_promises() -> None:
    """Only what was promised is decoded."""
    made = Handmade()
    made.file("a", b"hello" * 100)
    made.data = made.data[: made.entries[0]["offset"]] + frame(b"hello" * 100 + bytes(1 << 28))
    blob, notes = made.finish("C")
    for source in (blob, Faraway(blob)):
        with stargz.open(source, annotations=notes, cache=False) as layer:
            assert layer.read("a") == b"hello" * 100


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


# --- damage -----------------------------------------------------------------------------------


@pytest.mark.parametrize("known", ["annotations", "toc_digest", "nothing"])
@pytest.mark.parametrize("name", ["containers_storage.zst", "zstd_chunked.zst"])
def test_flipped_and_cut_anywhere(data: Path, name: str, known: str) -> None:
    """What is read is what was there, or an error; without digests of the TOC, of all but it."""
    blob = (data / name).read_bytes()
    with stargz.open(blob) as layer:
        wanted = {one: layer.read(one) for one in layer.toc.names("reg")}
        options = {"toc_digest": layer.toc_digest} if known == "toc_digest" else {}
        end = layer.data_end if known == "nothing" else len(blob)
    if known == "annotations" and name.startswith("containers"):
        options["annotations"] = json.loads((data / "containers_storage.json").read_text())
    places = [*range(0, end, 211), *range(max(0, end - 200), end, 7)]
    whole = 0
    for number, place in enumerate(places):
        flipped = bytearray(blob)
        flipped[place] ^= 1 << number % 8
        for bad in (bytes(flipped), blob[:place]) if number % 4 == 0 else (bytes(flipped),):
            try:
                layer = stargz.open(bad, index=False, **options)
            except (FormatError, DigestError):
                continue
            with layer:
                for one, content in wanted.items():
                    try:
                        assert layer.read(one) == content
                        whole += 1
                    except (FormatError, DigestError):
                        pass
    assert whole
