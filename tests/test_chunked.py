"""Layers in both dialects of zstd:chunked, read by tests/plain_chunked.py."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import command
import plain_chunked
import pytest
from chunked_layers import FORMATS, a_tar, add, convert, plain

import stargz
from stargz.errors import TarError, UsageError


@pytest.mark.parametrize("behind", [0, 100, 2_500_000])
@pytest.mark.parametrize("bound", [4 << 20, 4096])
def test_the_tar_is_kept_and_can_be_put_together(behind: int, bound: int) -> None:
    tar = a_tar(behind)
    blob, result = convert(tar, "zstd:chunked", chunk_size=bound)
    assert not result.warnings
    assert plain(blob) == tar
    assert result.diff_id == plain_chunked.sha256(tar)
    found = plain_chunked.read(blob, result.annotations)
    assert result.toc_digest == plain_chunked.sha256(found.json)
    files = plain_chunked.contents(blob, found)
    assert found.split is not None
    assert plain_chunked.put_together(found.split, files) == tar
    for rows in files.values():
        whole = b"".join(row["data"] for row in rows)
        made = [
            (row.get("chunkOffset", 0), row.get("chunkOffset", 0) + len(row["data"]),
             row.get("chunkType") == "zeros")
            for row in rows
        ]  # fmt: skip
        rule = plain_chunked.cuts(whole, bound)
        if len(rule) == 1:  # then nothing is said of its only chunk
            rule = [(0, len(whole), False)]
        assert made == rule
        assert all(("chunkSize" in row) == (len(rows) > 1) for row in rows)
        assert rows[0]["endOffset"] >= rows[-1]["offset"] + 9
    for a, b in zip(list(files.values()), list(files.values())[1:], strict=False):
        assert a[0]["endOffset"] < b[0]["offset"]


def test_entries_are_what_the_headers_say() -> None:
    blob, result = convert(a_tar(), "zstd:chunked")
    entries = plain_chunked.read(blob, result.annotations).toc["entries"]
    told = {
        entry["name"]: {
            key: value
            for key, value in entry.items()
            if "igest" not in key and "ffset" not in key and "chunk" not in key
        }
        for entry in entries
        if entry["type"] != "chunk"
    }
    epoch = "1970-01-01T00:00:00Z"
    assert told["./d/"] == {
        "type": "dir", "name": "./d/", "mode": 0o755, "modtime": "2023-11-14T22:13:20Z"
    }  # fmt: skip
    assert told["./d/a"] == {
        "type": "reg", "name": "./d/a", "mode": 0o644, "size": 6, "uid": 5, "gid": 6,
        "modtime": "2023-11-14T22:13:20.1234567Z",
    }  # fmt: skip
    assert told["./h"] == {
        "type": "hardlink", "name": "./h", "linkName": "./d/a", "mode": 0o644, "modtime": epoch
    }  # fmt: skip
    assert told["./c"] == {
        "type": "char", "name": "./c", "mode": 0o666, "modtime": epoch, "devMajor": 1, "devMinor": 3
    }  # fmt: skip
    assert told['./x "<é>'] == {
        "type": "reg", "name": './x "<é>', "mode": 0o755, "size": 5, "modtime": epoch,
        "accesstime": "2023-11-14T22:13:21.5Z", "changetime": "2023-11-14T22:13:22.25Z",
        "xattrs": {"user.%3D": "", "user.k": "dsOp"},
    }  # fmt: skip
    assert told["./neg"]["modtime"] == "1969-12-31T23:59:54.5Z"
    assert [entry["name"] for entry in entries][:2] == ["./", "./d/"]


def test_the_snapshotters_dialect() -> None:
    tar = a_tar()
    blob, result = convert(tar, "zstd:chunked-stargz", chunk_size=65536, prioritized=["d/a"])
    made = plain(blob)
    assert result.diff_id == plain_chunked.sha256(made)
    assert result.annotations[plain_chunked.SIZE] == str(len(made))
    found = plain_chunked.read(blob, result.annotations)
    files = plain_chunked.contents(blob, found)
    assert [len(row["data"]) for row in files["./noise"]] == [65536] * 4 + [300_000 - 4 * 65536]
    with tarfile.open(fileobj=io.BytesIO(made)) as ours, tarfile.open(fileobj=io.BytesIO(tar)) as t:
        names = ours.getnames()
        assert sorted(t.getnames()) == sorted(set(names) - {".prefetch.landmark"})
        assert names.index("./d/a") < names.index(".prefetch.landmark") < names.index("./noise")
    assert made.endswith(bytes(1024))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("level", [1, 19])
def test_bytes_do_not_depend_on_threads_or_pieces(format: str, level: int) -> None:
    tar = a_tar()

    class Pieces(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, 7001))

    first, _ = convert(tar, format, level=level, threads=1)
    assert convert(tar, format, level=level, threads=5)[0] == first
    out = io.BytesIO()
    stargz.convert(Pieces(tar), out, format=format, level=level)
    assert out.getvalue() == first


def twice(name: str, other: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        add(tar, name, b"1" * 5000)
        add(tar, other, b"22")
        add(tar, "behind", b"3")
    return out.getvalue()


def a_global_header() -> bytes:
    return a_tar(pax_headers={"comment": "abc"})


def latin() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        add(tar, "a", b"1")
        add(tar, "\u00fc", b"2")
    return out.getvalue()


def of(*entries: dict[str, Any]) -> bytes:
    """A tar of a directory d, a file d/f in it and a symlink s to d, and these."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        add(tar, "d", type=tarfile.DIRTYPE)
        add(tar, "d/f", b"1")
        add(tar, "s", type=tarfile.SYMTYPE, linkname="d")
        for entry in entries:
            add(tar, **entry)
    return out.getvalue()


def link(name: str, target: str) -> dict[str, Any]:
    return {"name": name, "type": tarfile.LNKTYPE, "linkname": target}


UNFIT = {
    "the same path twice": (twice("a", "a"), "twice"),
    "twice, written otherwise": (twice("a", "./a"), "twice"),
    "a global header": (a_global_header(), "global header"),
    "bytes behind the end": (a_tar() + b"x", "behind the end"),
    "a hard link to nothing": (of(link("l", "below")), "not in the layer"),
    "a hard link to itself": (of(link("l", "./l")), "later"),
    "a hard link to a later one": (of(link("l", "m"), link("m", "d/f")), "later"),
    "a hard link to a directory": (of(link("l", "d")), "directory"),
    "a hard link to what becomes a directory": (
        of(link("l", "e"), {"name": "e", "type": tarfile.DIRTYPE}),
        "no file",
    ),
    "a hard link behind a symlink": (of(link("l", "s/f")), "not in the layer"),
    "an entry below a symlink": (of({"name": "s/g", "data": b""}), "below what is no directory"),
    "a file where a directory is": (
        of({"name": "e/f", "data": b""}, {"name": "e", "data": b"1"}),
        "entries below it",
    ),
    "a name that goes up": (of({"name": "d/../../g", "data": b"1"}), "goes up"),
    "a dot behind a file's name": (of({"name": "g/.", "data": b"1"}), "goes up"),
    "a file for a root": (of({"name": ".", "data": b"1"}), "the root"),
    "a whiteout of no name": (of({"name": "d/.wh.", "data": b""}), "whiteout"),
    "a whiteout of the directory above": (of({"name": "d/.wh...", "data": b""}), "whiteout"),
    "a whiteout with contents": (of({"name": "d/.wh..wh..opq", "data": b"1"}), "whiteout"),
    "a whiteout behind what it is for": (of({"name": "d/.wh.f", "data": b""}), "same layer"),
    "a whiteout before what it is for": (
        of({"name": ".wh.n", "data": b""}, {"name": "n", "type": tarfile.SYMTYPE, "linkname": "d"}),
        "same layer",
    ),
    "a whiteout of a directory that is implied": (
        of({"name": "n/m/o", "data": b""}, {"name": "n/.wh.m", "data": b""}),
        "same layer",
    ),
    "an entry below what a whiteout is for": (
        of({"name": ".wh.n", "data": b""}, {"name": "n/m", "data": b""}),
        "below what is no directory",
    ),
    "a hard link to a pipe": (
        of({"name": "p", "type": tarfile.FIFOTYPE}, link("l", "p")),
        "device, pipe",
    ),
    "a hard link to a device": (
        of(link("l", "p"), {"name": "p", "type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}),
        "no file",
    ),
    "a large xattr": (
        of({"name": "x", "pax_headers": {"SCHILY.xattr.user.x": "v" * 65537}}),
        "xattr",
    ),
    "a whiteout that is a link": (of(link(".wh.e", "d/f")), "with contents"),
    "a long name": (of({"name": "d/" + "n" * 256, "data": b"1"}), "too long"),
    "a long path": (of({"name": "d/" + "n/" * 1600 + "f", "data": b"1"}), "too long"),
    "a name that is not UTF-8": (latin(), "not UTF-8"),
}


@pytest.mark.parametrize("what", UNFIT)
def test_what_the_format_cannot_hold_is_left_plain(what: str) -> None:
    tar, why = UNFIT[what]
    with pytest.raises(TarError, match=why):
        convert(tar, "zstd:chunked", strict=True)
    blob, result = convert(tar, "zstd:chunked")
    assert plain(blob) == tar
    assert result.diff_id == plain_chunked.sha256(tar)
    assert (result.annotations, result.toc_digest, result.entries, result.chunks) == ({}, "", 0, 0)
    assert any("plain zstd" in warning for warning in result.warnings)


def test_what_readers_take_is_not_left_plain() -> None:
    tar = of(
        link("l", "d/f"),
        link("m", "l"),
        link("n", "later"),
        {"name": "later", "data": b"2"},
        {"name": ".wh.x", "data": b""},
        {"name": "d/.wh..wh..opq", "data": b""},
        {"name": "d/.wh..wh.f", "data": b""},
        {"name": "p", "type": tarfile.FIFOTYPE},
        {"name": "./e//./f", "data": b"3"},
        {"name": "e", "type": tarfile.DIRTYPE},
        {"name": "d/" + "n" * 255, "data": b"4"},
        {"name": "...", "data": b"5"},
    )
    blob, result = convert(tar, "zstd:chunked", strict=True)
    found = plain_chunked.read(blob, result.annotations)
    assert result.entries == len([e for e in found.toc["entries"] if e["type"] != "chunk"]) == 15
    assert found.split is not None
    files = plain_chunked.contents(blob, found)
    assert plain_chunked.put_together(found.split, files) == tar
    with stargz.open(blob) as layer:
        assert layer.read("n") == b"2"


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "l.tar").write_bytes(a_tar())
    told = json.loads(
        command.ok("convert", "--json", "--format=zstd:chunked", "l.tar", "out", cwd=tmp_path)
    )
    assert told["level"] == 3
    assert told["codec"].startswith("zstd 1.")
    plain_chunked.read((tmp_path / "out").read_bytes(), told["annotations"])
    command.ok("convert", "-q", "--format=zstd:chunked-stargz", "l.tar", cwd=tmp_path)
    again = tmp_path / "l.chunked.tar.zst"
    assert plain(again.read_bytes()).endswith(bytes(1024))
    assert "exists" in command.fails(1, "convert", "--format=zstd:chunked", "l.tar", cwd=tmp_path)
    command.ok("convert", "-qf", "--format=zstd:chunked", "l.tar", cwd=tmp_path)
    assert plain(again.read_bytes()) == (tmp_path / "l.tar").read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        {"level": 20},
        {"level": 0},
        {"min_chunk_size": 1000},
        {"prioritized": ["a"], "format": "zstd:chunked"},
        {"level": 13, "format": "estargz"},
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        stargz.convert(io.BytesIO(a_tar()), io.BytesIO(), **{"format": FORMATS[1], **options})
