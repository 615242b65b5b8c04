"""The writer: what goes into a layer, in which order, and what is refused."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import handmade
import pytest
import zstandard
from oracle import TOC_NAME, sha256, toc_json, toc_offset

import stargz
from stargz.errors import EntryNotFoundError, GzipError, SourceError, TarError, UsageError

Item = tuple[str, str, Any]  # name, kind ("f", "d", "l" hard link, "s" symlink), content or target


def make_tar(items: Iterable[Item], **options: Any) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **options) as tar:
        for name, kind, value in items:
            info = tarfile.TarInfo(name)
            if kind == "f":
                info.size = len(value)
                tar.addfile(info, io.BytesIO(value))
                continue
            info.type = {"d": tarfile.DIRTYPE, "l": tarfile.LNKTYPE, "s": tarfile.SYMTYPE}[kind]
            info.linkname = value or ""
            tar.addfile(info)
    return out.getvalue()


def convert(data: bytes, **options: Any) -> bytes:
    out = io.BytesIO()
    result = stargz.convert(io.BytesIO(data), out, **options)
    assert result.digest == sha256(out.getvalue())
    assert result.size == len(out.getvalue())
    assert result.diff_id == sha256(inflate(out.getvalue()))
    assert result.toc_digest == sha256(toc_json(out.getvalue()))
    return out.getvalue()


def inflate(blob: bytes) -> bytes:
    return gzip.GzipFile(fileobj=io.BytesIO(blob)).read()


def entries(blob: bytes) -> list[dict[str, Any]]:
    return json.loads(toc_json(blob))["entries"]


def outline(blob: bytes) -> list[tuple[str, ...]]:
    return [
        (e["name"], e["type"], *([e["linkName"]] if "linkName" in e else [])) for e in entries(blob)
    ]


def tar_names(blob: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(inflate(blob))) as tar:
        return tar.getnames()


BASIC: list[Item] = [
    ("d/", "d", None),
    ("d/a", "f", b"one"),
    ("d/empty", "f", b""),
    ("d/b", "l", "d/a"),
    ("d/c", "s", "a"),
    ("e", "f", b"two" * 3000),
]

# --- layout -------------------------------------------------------------------------------


def test_landmark_comes_first_and_starts_its_own_member() -> None:
    blob = convert(make_tar(BASIC))
    first, *rest = entries(blob)
    assert first["name"] == ".no.prefetch.landmark"
    assert first["size"] == 1
    assert inflate(blob[first["offset"] :])[:1] == b"\x0f"
    assert [e["name"] for e in rest] == [name for name, _, _ in BASIC]


def test_empty_archive_is_a_landmark_and_a_toc() -> None:
    blob = convert(bytes(10240))
    assert outline(blob) == [(".no.prefetch.landmark", "reg")]
    assert tar_names(blob) == [".no.prefetch.landmark", TOC_NAME]


def test_chunks_cut_at_the_chunk_size_and_say_so_where_the_reference_does() -> None:
    blob = convert(make_tar([("x", "f", b"q" * 8192), ("y", "f", b"r" * 5000)]), chunk_size=4096)
    rows = [
        {k: v for k, v in e.items() if k in ("name", "type", "chunkOffset", "chunkSize")}
        for e in entries(blob)[1:]
    ]
    assert rows == [
        {"name": "x", "type": "reg", "chunkSize": 4096},
        {"name": "x", "type": "chunk", "chunkOffset": 4096, "chunkSize": 4096},
        {"name": "y", "type": "reg", "chunkSize": 4096},
        {"name": "y", "type": "chunk", "chunkOffset": 4096},
    ]


def test_a_long_run_of_headers_is_cut_at_each_mebibyte() -> None:
    count = 5000
    blob = convert(make_tar((f"{n:06}", "f", b"") for n in range(count)))
    starts = [i for i in range(len(blob) - 2) if blob[i : i + 3] == b"\x1f\x8b\x08"]
    # The first two members are the landmark's header and the landmark.
    lengths = [len(inflate_one(blob[at:])) for at in starts[:-2]]
    assert max(lengths[2:-1], default=0) == 1 << 20
    assert sum(lengths) >= count * 512
    assert len(entries(blob)) == count + 1


def inflate_one(data: bytes) -> bytes:
    import zlib

    return zlib.decompressobj(31).decompress(data)


def test_minimum_chunk_size_shares_members_and_counts_inner_offsets() -> None:
    files: list[Item] = [(f"f{n:02}", "f", bytes([n]) * 1000) for n in range(40)]
    blob = convert(make_tar(files), min_chunk_size=10_000)
    data = [e for e in entries(blob) if e["type"] == "reg"]
    assert len({e.get("offset", 0) for e in data}) < 8
    for e, (_, _, content) in zip(data[1:], files, strict=True):
        inner = e.get("innerOffset", 0)
        member = inflate(blob[e.get("offset", 0) :])
        assert member[inner : inner + 1000] == content


def test_legacy_format_has_the_layout_of_crfs() -> None:
    blob = convert(make_tar(BASIC), format="stargz")
    assert blob[-47:-35] == b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x16\0"
    assert [e["name"] for e in entries(blob)] == [name for name, _, _ in BASIC]
    assert not any("chunkDigest" in e for e in entries(blob))
    assert all("digest" in e for e in entries(blob) if e["type"] == "reg")
    toc_member = blob[toc_offset(blob) :]
    assert toc_member[3] == 4
    assert toc_member[10:22] == b"\x0a\x00stargz.toc"


@pytest.mark.parametrize("trailing", [1024, 10240, 3 << 20])
def test_lossless_keeps_every_byte(trailing: int) -> None:
    tar = make_tar(BASIC).rstrip(b"\0")
    tar += bytes(-len(tar) % 512) + bytes(trailing)
    blob = convert(tar, lossless=True)
    inflated = inflate(blob)
    assert inflated[: len(tar)] == tar
    assert [e["name"] for e in entries(blob)] == [name for name, _, _ in BASIC]
    with tarfile.open(fileobj=io.BytesIO(inflated[len(tar) :])) as rest:
        assert rest.getnames() == [TOC_NAME]


def test_lossless_keeps_what_stands_behind_the_end() -> None:
    tar = make_tar(BASIC) + b"\xaa" * 5120
    assert inflate(convert(tar, lossless=True)).startswith(tar)
    assert b"\xaa" * 512 not in inflate(convert(tar))


def test_markers_of_an_earlier_conversion_are_dropped() -> None:
    once = convert(make_tar(BASIC))
    twice = convert(once)
    assert entries(once) == entries(twice)
    assert inflate(once) == inflate(twice)
    with pytest.raises(TarError, match=r"has a TOC already"):
        convert(once, lossless=True)


# --- order --------------------------------------------------------------------------------


def test_prioritized_files_come_first_with_parents_and_link_targets() -> None:
    tar = make_tar(
        [
            ("./", "d", None),
            ("./d/", "d", None),
            ("./d/x", "f", b"x"),
            ("./e/", "d", None),
            ("./e/target", "f", b"t" * 700),
            ("./d/link", "l", "./e/target"),
            ("./z", "f", b"z"),
        ]
    )
    blob = convert(tar, prioritized=["z", "/d/link"])
    assert tar_names(blob) == [
        ".",
        "./z",
        "./d",
        "./e",
        "./e/target",
        "./d/link",
        ".prefetch.landmark",
        "./d/x",
        TOC_NAME,
    ]
    landmark = next(e for e in entries(blob) if e["name"] == ".prefetch.landmark")
    for e in entries(blob):
        if e["name"] in ("./z", "./e/target"):
            assert e["offset"] < landmark["offset"]


@pytest.mark.parametrize("wrap", ["tar", "gzip", "pipe"])
def test_prioritizing_gives_the_same_bytes_however_the_input_comes(
    wrap: str, tmp_path: Path
) -> None:
    tar = make_tar([(f"f{n}", "f", os.urandom(50_000)) for n in range(20)])
    plain = tmp_path / "in.tar"
    plain.write_bytes(tar)
    expected = convert(tar, prioritized=["f19", "f3"])
    if wrap == "tar":
        stargz.convert(plain, tmp_path / "out", prioritized=["f19", "f3"])
    elif wrap == "gzip":
        (tmp_path / "in.gz").write_bytes(gzip.compress(tar))
        stargz.convert(tmp_path / "in.gz", tmp_path / "out", prioritized=["f19", "f3"])
    else:
        read, write = os.pipe()

        def feed() -> None:
            with os.fdopen(write, "wb") as pipe:
                pipe.write(tar)

        feeder = threading.Thread(target=feed)
        feeder.start()
        with os.fdopen(read, "rb", buffering=0) as pipe:
            stargz.convert(pipe, tmp_path / "out", prioritized=["f19", "f3"])
        feeder.join()
    assert (tmp_path / "out").read_bytes() == expected
    assert {p.name for p in tmp_path.iterdir()} <= {"in.tar", "in.gz", "out"}


def test_missing_prioritized_files() -> None:
    with pytest.raises(EntryNotFoundError, match="nope"):
        convert(make_tar(BASIC), prioritized=["nope", "e"])
    out = io.BytesIO()
    result = stargz.convert(
        io.BytesIO(make_tar(BASIC)), out, prioritized=["nope"], allow_missing=True
    )
    assert result.missing == ("nope",)
    assert outline(out.getvalue())[0] == (".prefetch.landmark", "reg")


def test_a_later_entry_of_the_same_name_wins() -> None:
    tar = make_tar([("a", "f", b"old"), ("./a", "f", b"newer"), ("b", "f", b"b")])
    blob = convert(tar)
    assert outline(blob)[1:] == [("./a", "reg"), ("b", "reg")]
    assert entries(blob)[1]["size"] == 5
    assert tar_names(convert(tar, prioritized=["b"])) == [
        "b",
        ".prefetch.landmark",
        "./a",
        TOC_NAME,
    ]


def test_a_link_to_a_file_that_is_replaced_later_keeps_the_old_bytes() -> None:
    tar = make_tar(
        [("a", "f", b"old" * 3000), ("b", "l", "a"), ("c", "l", "a"), ("a", "f", b"new")]
    )
    blob = convert(tar, chunk_size=4096)
    assert outline(blob)[1:] == [
        ("b", "reg"),
        ("b", "chunk"),
        ("b", "chunk"),
        ("c", "hardlink", "b"),
        ("a", "reg"),
    ]
    with stargz.open(io.BytesIO(blob)) as layer:
        assert layer.read("b") == layer.read("c") == b"old" * 3000
        assert layer.read("a") == b"new"
        assert layer.verify().ok
    # Moving any of them alone would change what the archive extracts to.
    for name in ("a", "b", "c"):
        with pytest.raises(TarError, match="cannot be moved"):
            convert(tar, prioritized=[name])


# --- what inputs may look like ------------------------------------------------------------


def test_every_wrapping_gives_the_same_bytes(tmp_path: Path) -> None:
    tar = make_tar([*BASIC, ("big", "f", os.urandom(300_000))])
    expected = convert(tar)
    half = len(tar) // 2
    frames = zstandard.compress(tar[:half]) + zstandard.compress(tar[half:])
    assert convert(gzip.compress(tar)) == expected
    assert convert(b"".join(gzip.compress(tar[i : i + 999]) for i in range(0, len(tar), 999))) == (
        expected
    )
    assert convert(frames) == expected
    assert convert(b"\x50\x2a\x4d\x18\x04\0\0\0skip" + frames) == expected
    assert convert(tar.rstrip(b"\0") + bytes(-len(tar.rstrip(b"\0")) % 512)) == expected


def test_garbage_behind_the_gzip_is_ignored_with_a_warning() -> None:
    tar = make_tar(BASIC)
    out = io.BytesIO()
    result = stargz.convert(io.BytesIO(gzip.compress(tar) + b"garbage"), out)
    assert [("behind the last gzip member" in text) for text in result.warnings] == [True]
    assert out.getvalue() == convert(tar)
    again = stargz.convert(
        gzip.compress(tar) + b"garbage", io.BytesIO(), prioritized=["e"], threads=1
    )
    assert again.warnings == result.warnings


@pytest.mark.parametrize("behind", [b"garbage", b"\0" * 9, b"\x1f\x00 damaged"])
def test_garbage_where_the_tar_goes_on_is_refused(behind: bytes) -> None:
    """Else what follows on it would be lost: of a damaged member, or of a joint of two inputs."""
    tar = make_tar(BASIC)
    entries = len(tar.rstrip(b"\0"))
    entries += -entries % 512
    first, second = gzip.compress(tar[:entries]), gzip.compress(tar[entries:])
    assert convert(first + second) == convert(tar)
    for data in (first + behind, first + behind + second):
        for options in ({}, {"prioritized": ["e"]}, {"lossless": True}):
            with pytest.raises(GzipError, match="has not ended") as caught:
                stargz.convert(data, io.BytesIO(), **options)  # type: ignore[arg-type]
            assert caught.value.offset == len(first)
        with pytest.raises(GzipError, match="has not ended"):
            stargz.conversion.diff_id(data)


def test_a_missing_last_padding_is_made_up() -> None:
    tar = make_tar([("a", "f", b"123")])
    assert convert(tar[:515]) == convert(tar)
    with pytest.raises(TarError, match="truncated"):
        convert(tar[:515], lossless=True)
    with pytest.raises(TarError, match="no multiple of 512"):
        convert(tar + b"x", lossless=True)


def test_a_missing_last_padding_does_not_matter_to_prioritizing(tmp_path: Path) -> None:
    tar = make_tar([("b", "f", b"b" * 700), ("a", "f", b"123")])
    source = tmp_path / "in.tar"
    source.write_bytes(tar[: 512 + 1024 + 515])
    expected = convert(tar, prioritized=["a"])
    stargz.convert(source, tmp_path / "out", prioritized=["a"])
    assert (tmp_path / "out").read_bytes() == expected
    assert convert(gzip.compress(source.read_bytes()), prioritized=["a"]) == expected


def test_prioritizing_leaves_out_the_markers_of_an_earlier_conversion() -> None:
    once = convert(make_tar([("a", "f", b"1"), ("b", "f", b"2"), ("c", "f", b"3")]))
    blob = convert(once, prioritized=["b"])
    assert [e["name"] for e in entries(blob)] == ["b", ".prefetch.landmark", "a", "c"]
    with pytest.raises(EntryNotFoundError):
        convert(once, prioritized=[".no.prefetch.landmark"])


def test_prioritizing_a_link_with_a_very_long_target() -> None:
    target = "./" * 2000 + "t"
    tar = make_tar(
        [("t", "f", b"1"), ("l", "l", target), ("x", "f", b"")], format=tarfile.PAX_FORMAT
    )
    names = [e["name"] for e in entries(convert(tar, prioritized=["l"]))]
    assert names == ["t", "l", ".prefetch.landmark", "x"]


@pytest.mark.parametrize("how", ["pax", "gnu"])
@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
def test_sparse_files_are_stored_expanded(how: str, version: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    with (tree / "sparse").open("wb") as file:
        file.write(b"head" * 3000)
        file.seek(9 << 20)
        file.write(b"middle" * 3000)
        file.seek(20 << 20)
        file.write(b"end")
    with (tree / "hole").open("wb") as file:
        file.truncate(5 << 20)
    (tree / "plain").write_bytes(b"plain" * 1000)
    archive = tmp_path / "in.tar"
    subprocess.run(
        ["tar", "-S", f"--format={how}"]
        + ([f"--sparse-version={version}"] if how == "pax" else [])
        + ["--sort=name", "-cf", archive, "-C", tree, "."],
        check=True,
    )
    assert archive.stat().st_size < 1 << 20
    blob = convert(archive.read_bytes())
    with stargz.open(io.BytesIO(blob)) as layer:
        for name in ("sparse", "hole", "plain"):
            assert layer.read(name) == (tree / name).read_bytes()
        assert layer.verify().ok
    (tmp_path / "blob").write_bytes(blob)
    (tmp_path / "again").mkdir()
    subprocess.run(["tar", "-xzf", tmp_path / "blob", "-C", tmp_path / "again"], check=True)
    for name in ("sparse", "hole", "plain"):
        assert (tmp_path / "again" / name).read_bytes() == (tree / name).read_bytes()
    with pytest.raises(TarError, match="sparse"):
        convert(archive.read_bytes(), lossless=True)


def test_global_headers_are_folded_into_the_entries() -> None:
    tar = make_tar(
        [("a", "f", b"1"), ("b", "f", b"2")],
        format=tarfile.PAX_FORMAT,
        pax_headers={"comment": "hello", "mtime": "1234567.75", "uname": "somebody"},
    )
    for options in ({}, {"prioritized": ["b"]}, {"lossless": True}):
        blob = convert(tar, **options)
        found = {e["name"]: e for e in entries(blob)}
        assert found["a"]["modtime"] == found["b"]["modtime"] == "1970-01-15T06:56:08Z"
        with tarfile.open(fileobj=io.BytesIO(inflate(blob))) as again:
            assert {(m.uname, m.mtime) for m in again if m.name in "ab"} == {
                ("somebody", 1234567.75)
            }
            assert bool(again.pax_headers) == ("lossless" in options)
    with pytest.raises(TarError, match="global"):
        convert(make_tar(BASIC, format=tarfile.PAX_FORMAT, pax_headers={"path": "evil"}))


def test_names_that_are_not_utf8_are_shown_with_replacements() -> None:
    tar = make_tar(
        [("caf\udce9", "f", b"1")],
        format=tarfile.GNU_FORMAT,
        encoding="utf-8",
        errors="surrogateescape",
    )
    out = io.BytesIO()
    result = stargz.convert(io.BytesIO(tar), out)
    assert outline(out.getvalue())[1] == ("caf\ufffd", "reg")
    assert "1 name is not UTF-8" in result.warnings[0]
    both = make_tar(
        [("caf\udce9", "f", b"1"), ("caf\udce8", "f", b"2")],
        format=tarfile.GNU_FORMAT,
        encoding="utf-8",
        errors="surrogateescape",
    )
    with pytest.raises(TarError):
        convert(both)


# --- what is refused ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([("a", "l", "nothing")], "nothing"),
        ([("a", "f", b""), ("a/b", "f", b"")], "used as a directory"),
        ([("d/", "d", None), ("l", "l", "d")], "directory"),
        ([("d/x", "f", b""), ("d", "f", b"")], "takes the place of a directory with entries"),
    ],
)
def test_trees_that_cannot_be(items: list[Item], message: str) -> None:
    with pytest.raises(TarError, match=message) as caught:
        convert(make_tar(items))
    assert caught.value.source == "input"


def test_truncated_input_is_refused_wherever_it_ends() -> None:
    tar = make_tar([("a", "f", b"x" * 3000), ("b", "f", b"y")])
    whole = [0, 512 + 3072]  # an archive may end between entries
    for end in (1, 100, 511, 513, 2000, 512 + 2999, 512 + 3072 + 100, 512 + 3072 + 512):
        with pytest.raises(TarError, match="truncated" if end >= 512 else "ends before a first"):
            convert(tar[:end])
    for end in whole[1:]:
        assert len(entries(convert(tar[:end]))) == 2
    packed = gzip.compress(tar)
    for end in range(3, len(packed), 7):
        with pytest.raises((GzipError, TarError)) as caught:
            convert(packed[:end])
        assert caught.value.offset is not None
    frame = zstandard.compress(tar)
    for end in range(5, len(frame), 7):
        with pytest.raises((GzipError, TarError)):
            convert(frame[:end])


@pytest.mark.parametrize(
    "data",
    [b"hello world", b"\xff" * 5000, bz2.compress(b"x"), b"\x1f\x8b\x08", b"PK\x03\x04"],
)
def test_what_is_no_tar_is_refused(data: bytes) -> None:
    with pytest.raises((TarError, GzipError)):
        convert(data)


def test_flipped_bytes_of_a_gzip_never_pass() -> None:
    packed = bytearray(gzip.compress(make_tar(BASIC), mtime=0))
    for at in range(10, len(packed), 3):
        packed[at] ^= 0x55
        with pytest.raises((GzipError, TarError)):
            convert(bytes(packed))
        packed[at] ^= 0x55


def test_many_small_entries_that_are_rewritten_take_linear_time() -> None:
    """Each is put into the slab anew; the bytes behind must not be copied for each."""
    one = make_tar([("stargz.index.json", "f", b"x")])[:1024]
    assert outline(convert(one * 40_000)) == [(".no.prefetch.landmark", "reg")]
    pax = make_tar(
        ((f"{n}", "f", b"") for n in range(20_000)),
        format=tarfile.PAX_FORMAT,
        pax_headers={"uname": "somebody"},
    )
    assert len(entries(convert(pax))) == 20_001


@pytest.mark.parametrize("program", ["xz", "bzip2"])
def test_other_compressions_are_named(program: str) -> None:
    packed = subprocess.run(
        [program, "-c"], input=make_tar(BASIC), capture_output=True, check=True
    ).stdout
    with pytest.raises(TarError, match=f"{program} is not read; decompress it first"):
        convert(packed)


@pytest.mark.parametrize(
    "options",
    [
        {"level": 0},
        {"level": 13},
        {"chunk_size": 1023},
        {"chunk_size": (1 << 30) + 1},
        {"min_chunk_size": -1},
        {"format": "zip"},
        {"threads": 0},
        {"chunk_size": 1 << 30, "min_chunk_size": 1 << 30},
        {"prioritized": "a"},
        {"format": "stargz", "min_chunk_size": 5000},
        {"format": "stargz", "prioritized": ["a"]},
        {"lossless": True, "prioritized": ["a"]},
    ],
)
def test_wrong_options(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        convert(make_tar(BASIC), **options)


def test_sources_and_sinks_of_wrong_kinds(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not int"):
        stargz.convert(5, io.BytesIO())  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="character device"):
        stargz.convert("/dev/zero", io.BytesIO())
    same = tmp_path / "same"
    same.write_bytes(make_tar(BASIC))
    with pytest.raises(UsageError, match="same file"):
        stargz.convert(same, same)
    with pytest.raises(UsageError):
        stargz.convert(io.BytesIO(make_tar(BASIC)), 7)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        stargz.convert(tmp_path / "absent", io.BytesIO())
    with pytest.raises(FileNotFoundError, match="no/such"):
        stargz.convert(io.BytesIO(make_tar(BASIC)), tmp_path / "no/such/out")


# --- nothing lost, nothing left -----------------------------------------------------------


def test_a_failed_conversion_leaves_the_destination_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_bytes(b"before")
    with pytest.raises(GzipError):
        stargz.convert(io.BytesIO(gzip.compress(make_tar(BASIC))[:-4]), out)
    assert out.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [out]


def test_the_destination_takes_the_usual_mode_and_links_are_followed(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_bytes(b"before")
    link.symlink_to(real)
    old = os.umask(0o027)
    try:
        stargz.convert(io.BytesIO(make_tar(BASIC)), link)
    finally:
        os.umask(old)
    assert link.is_symlink()
    assert real.read_bytes() == convert(make_tar(BASIC))
    assert real.stat().st_mode & 0o777 == 0o640


class Broken(io.RawIOBase):
    def __init__(self, data: bytes, after: int) -> None:
        self.data, self.left = io.BytesIO(data), after

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self.left <= 0:
            raise RuntimeError("the source broke")
        self.left -= 1
        return self.data.read(min(size, 1000))

    def write(self, data: Any) -> int:
        if self.left <= 0:
            raise RuntimeError("the sink broke")
        self.left -= 1
        return min(len(data), 100)  # a raw file may take less than it was given


def test_what_file_objects_raise_comes_through(tmp_path: Path) -> None:
    tar = make_tar([("a", "f", os.urandom(500_000))])
    with pytest.raises(RuntimeError, match="the source broke"):
        stargz.convert(Broken(tar, 9), tmp_path / "out")
    with pytest.raises(RuntimeError, match="the sink broke"):
        stargz.convert(io.BytesIO(tar), Broken(b"", 9))
    assert list(tmp_path.iterdir()) == []


def test_sinks_that_take_less_than_they_are_given() -> None:
    class Short(io.RawIOBase):
        def __init__(self) -> None:
            self.got = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.got += data[:777]
            return min(len(data), 777)

    sink = Short()
    stargz.convert(io.BytesIO(make_tar(BASIC)), sink)
    assert bytes(sink.got) == convert(make_tar(BASIC))


def test_sinks_that_take_nothing_are_an_error() -> None:
    class Refusing(io.RawIOBase):
        answer: int | None = None

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> Any:
            return self.answer

    with pytest.raises(BlockingIOError):
        stargz.convert(make_tar(BASIC), Refusing())
    Refusing.answer = 0
    with pytest.raises(SourceError, match="took nothing"):
        stargz.convert(make_tar(BASIC), Refusing())


def test_a_name_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    out = tmp_path / ("é" * 126)
    stargz.convert(make_tar(BASIC), out)
    assert [p.name for p in tmp_path.iterdir()] == [out.name]


def test_an_interrupt_ends_the_writing_of_a_toc_that_nobody_reads(tmp_path: Path) -> None:
    """The pipe takes the data but not the TOC; then SIGINT."""
    source = tmp_path / "in.tar"
    source.write_bytes(make_tar((f"file-{n}", "f", b"") for n in range(30_000)))
    whole = convert(source.read_bytes())
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import stargz, sys; stargz.convert(sys.argv[1], open(1, 'wb', buffering=0))",
            source,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    got = len(child.stdout.read(toc_offset(whole) + 1000))
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(1.5)
        child.send_signal(2)
        child.wait(20)
        assert child.stderr is not None
        assert b"KeyboardInterrupt" in child.stderr.read()
    finally:
        child.kill()
        child.communicate()
    assert got < len(whole)


def test_progress_is_reported_and_may_stop_the_work(tmp_path: Path) -> None:
    source = tmp_path / "in.tar"
    source.write_bytes(make_tar([("a", "f", bytes(30 << 20))]))
    seen: list[tuple[int, int]] = []
    stargz.convert(source, tmp_path / "out", progress=lambda *args: seen.append(args))
    assert seen[-1] == (source.stat().st_size, source.stat().st_size)
    assert seen == sorted(seen)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stargz.convert(source, tmp_path / "other", progress=stop)
    assert not (tmp_path / "other").exists()


def test_a_descriptor_that_blocks_does_not_stop_an_interrupt(tmp_path: Path) -> None:
    """SIGINT while the source is silent and nothing will ever come."""
    script = (
        "import os, sys, stargz\n"
        "stargz.convert(open(0, 'rb', buffering=0), sys.argv[1],"
        " prioritized=['a'] if len(sys.argv) > 2 else ())\n"
    )
    for extra in ([], ["prioritized"]):
        child = subprocess.Popen(
            [sys.executable, "-c", script, tmp_path / "out", *extra],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert child.stdin is not None
        child.stdin.write(make_tar(BASIC)[:2048])
        child.stdin.flush()
        try:
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(1.5)
            child.send_signal(2)
            _, err = child.communicate(timeout=20)
        finally:
            child.kill()
        assert b"KeyboardInterrupt" in err
        assert list(tmp_path.iterdir()) == []


def test_the_epoch_is_a_time_and_landmarks_have_none() -> None:
    """The reference leaves the epoch out, and its reader then shows the year 1."""
    tar = make_tar([("d/", "d", None), ("f", "f", b"x")])
    kinds: list[dict[str, Any]] = [{}, {"lossless": True}, {"format": "stargz"}]
    for options in kinds:
        blob = convert(tar, **options)
        times = {e["name"]: e.get("modtime") for e in entries(blob)}
        assert times.pop(".no.prefetch.landmark", None) is None
        assert set(times.values()) == {"1970-01-01T00:00:00Z"} and len(times) == 2
        # A layer of another writer, or of an earlier version, has no time there.
        with stargz.open(blob) as layer:
            at = layer.toc_offset
            text = re.sub(rb'"modtime": "[^"]*",', b"", layer.read_toc())
        header = handmade.header("stargz.index.json", len(text))
        member = handmade.member(header + text + bytes(-len(text) % 512) + bytes(1024))
        legacy = options.get("format") == "stargz"
        with stargz.open(blob[:at] + member + handmade.footer(at, legacy)) as layer:
            assert layer.verify().ok and layer.entry("f").mtime == 0
            assert not stargz.diff(layer, blob)


RESERVED = ("stargz.index.json", ".prefetch.landmark", ".no.prefetch.landmark")


@pytest.mark.parametrize("name", RESERVED)
@pytest.mark.parametrize("shape", ["{}", "./{}", "{}/", "{}/below", "a/../{}", "./" * 40 + "{}"])
@pytest.mark.parametrize("options", [{}, {"prioritized": ["f"]}])
def test_a_user_is_told_of_a_file_that_has_a_name_of_the_layers(
    name: str, shape: str, options: dict[str, Any]
) -> None:
    kind, content = ("d", None) if shape.endswith("/") else ("f", b"mine")
    tar = make_tar([(shape.format(name), kind, content), ("f", "f", b"x")])
    out = io.BytesIO()
    result = stargz.convert(io.BytesIO(tar), out, **options)
    assert [name in text and "was left out" in text for text in result.warnings] == [True]
    with stargz.open(out.getvalue()) as layer:
        assert layer.read("f") == b"x" and layer.verify().ok
    below = make_tar([(f"d/{name}", "f", b"mine"), ("f", "f", b"x")])
    result = stargz.convert(io.BytesIO(below), out := io.BytesIO(), **options)
    assert result.warnings == ()
    with stargz.open(out.getvalue()) as layer:
        assert layer.read(f"d/{name}") == b"mine"


@pytest.mark.parametrize("options", [{}, {"prioritized": ["f"]}, {"format": "stargz"}])
@pytest.mark.parametrize("again", [{}, {"prioritized": ["f"]}])
def test_what_an_earlier_conversion_left_is_dropped_in_silence(
    options: dict[str, Any], again: dict[str, Any], goldens: list[dict[str, Any]], data: Path
) -> None:
    blob = convert(make_tar([("f", "f", b"x")]), **options)
    assert stargz.convert(io.BytesIO(blob), io.BytesIO(), **again).warnings == ()
    for golden in goldens:
        if golden["blob"].endswith(".esgz"):  # of the reference
            source = data / golden["blob"]
            warnings = stargz.convert(source, io.BytesIO(), **again, allow_missing=True).warnings
            assert not any("left out" in text for text in warnings)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
@pytest.mark.parametrize("options", [{}, {"prioritized": ["f"]}, {"lossless": True}])
def test_a_layer_of_no_bytes_is_empty(pack: Any, options: dict[str, Any]) -> None:
    out = io.BytesIO()
    result = stargz.convert(io.BytesIO(pack(b"")), out, allow_missing=True, **options)
    assert [text for text in result.warnings if "no bytes" in text] == list(result.warnings[:1])
    with stargz.open(out.getvalue()) as layer:
        assert [name for name in layer.names() if "landmark" not in name] == []
        assert layer.verify().ok
    end = stargz.convert(io.BytesIO(pack(bytes(1024))), io.BytesIO(), allow_missing=True, **options)
    assert not [text for text in end.warnings if "no bytes" in text]


# --- holes --------------------------------------------------------------------------------------


def hole(name: str, size: int) -> bytes:
    """A sparse file of nothing: a map of no data."""
    info = tarfile.TarInfo("x")
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": name,
        "GNU.sparse.realsize": str(size),
    }
    body = (b"1\n%d\n0\n" % size).ljust(512, b"\0")
    info.size = len(body)
    return info.tobuf(tarfile.PAX_FORMAT) + body


def test_all_sparse_files_together_have_a_limit() -> None:
    size = 1 << 40
    with pytest.raises(TarError, match=r"'a': the holes .* more than the limit of 8589934592"):
        convert(hole("a", size) + bytes(1024))
    many = b"".join(hole(f"f{n}", 1 << 20) for n in range(3)) + hole(
        "f3", (8 << 30) - (3 << 20) + 1
    )
    with pytest.raises(TarError, match=r"'f3': the holes .* are 8589934593 bytes"):
        convert(many + bytes(1024))


def test_the_limit_of_holes_can_be_another() -> None:
    tar = hole("f", 5 << 20) + hole("g", 5 << 20) + bytes(1024)
    assert convert(tar, max_sparse=10 << 20) == convert(tar)
    for limit, options in ((10 << 20) - 1, {}), ((5 << 20), {"prioritized": ["g"]}):
        with pytest.raises(
            TarError, match=rf"the limit of {limit} .* max_sparse \(--max-sparse SIZE\)"
        ):
            convert(tar, max_sparse=limit, **options)
    with pytest.raises(TarError, match="are 21474836480 bytes, more than the limit of 21474836479"):
        convert(hole("f", 20 << 30) + bytes(1024), max_sparse=(20 << 30) - 1)
    for wrong in (0, -1, 1 << 62):
        with pytest.raises(UsageError, match="max_sparse"):
            convert(tar, max_sparse=wrong)


@pytest.mark.parametrize("level", [1, 6])
def test_a_hole_is_the_same_as_zeros(level: int) -> None:
    """Members of zeros are made once and copied, by each thread: the bytes are those of any."""
    size = (9 << 20) + 12345
    sparse = convert(hole("f", size) + bytes(1024), level=level, threads=2)
    info = tarfile.TarInfo("f")
    info.size = size
    info.mode = 0o644
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(bytes(size)))
    plain = convert(out.getvalue(), level=level, threads=1)
    chunks = [
        [(e.get("chunkDigest"), e.get("chunkSize")) for e in entries(b)] for b in (sparse, plain)
    ]
    assert chunks[0] == chunks[1]
    starts = [[e["offset"] for e in entries(b)[1:]] for b in (sparse, plain)]
    assert [b - a for a, b in zip(starts[0], starts[0][1:], strict=False)] == [
        b - a for a, b in zip(starts[1], starts[1][1:], strict=False)
    ]
