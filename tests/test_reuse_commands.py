"""`--level reuse` of the commands: formats, inputs, what it does not go together with."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from command import command, environment, fails, fails_here, ok_here, together
from test_reuse import TAR, convert, deflated

import stargz
from stargz.options import Format

BLOB = deflated(TAR, 9)
DONE = "the input's matches"
ZSTD = ("zstd:chunked", "zstd:chunked-stargz")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "layer.tar.gz"
    path.write_bytes(BLOB)
    return path


def converted(source: Path, *options: object) -> tuple[bytes, dict[str, Any]]:
    out = source.with_name("made")
    words = ("convert", "--level", "reuse", "--json", "-f", *options, source, out)
    told = json.loads(ok_here(*words))
    assert told["level"] == "reuse"
    return out.read_bytes(), told


def test_command(source: Path) -> None:
    made, told = converted(source)
    assert told["codec"] == DONE
    assert told["digest"] == "sha256:" + hashlib.sha256(made).hexdigest()
    assert made == convert(BLOB, level="reuse")[0]


@pytest.mark.parametrize("format", ["stargz", "estargz", "external-toc"])
def test_formats(format: Format, source: Path) -> None:
    """The layer is that of level 1, and verifies."""
    made, told = converted(source, "--format", format, "--verify")
    assert (told["format"], told["codec"]) == (format, DONE)
    one = source.with_name("one")
    result = stargz.convert(source, one, level=1, format=format)
    assert told["entries"] == result.entries
    assert (told["diff_id"] == result.diff_id) == (format == "external-toc")  # others have the TOC
    assert len(made) < 0.9 * result.size
    toc = ["--toc", f"{source.with_name('made')}.toc"] if format == "external-toc" else []
    ok_here("verify", *toc, source.with_name("made"))


@pytest.mark.parametrize(
    ("options", "like"),
    [
        (["--chunk-size", "64K"], {"chunk_size": 65536}),
        (["--min-chunk-size", "256K"], {"min_chunk_size": 262144}),
        (["--lossless"], {"lossless": True}),
    ],
)
def test_layouts(options: list[str], like: dict[str, Any], source: Path) -> None:
    made, told = converted(source, *options, "--verify")
    assert made == converted(source, *options)[0]
    plain, one = convert(BLOB, level=1, **like)
    assert told["chunks"] == one.chunks
    assert told["codec"] == DONE
    assert len(made) < len(plain)


def test_prioritized(source: Path) -> None:
    made, _ = converted(source, "--prioritize", "large", "--verify")
    assert made == convert(BLOB, level="reuse", prioritized=["large"])[0]
    with stargz.open(source.with_name("made")) as layer:
        assert layer.verify().ok
        assert layer.names()[0] == "large"


def test_gzip_as_it_comes(source: Path) -> None:
    """Zeros behind it, and other members before it or behind it, change nothing."""
    made, _ = converted(source)
    for blob in (BLOB + bytes(5000), deflated(b"") + BLOB + deflated(b"", 0)):
        source.write_bytes(blob)
        assert converted(source, "--verify")[0] == made


def test_from_a_pipe_to_a_pipe(source: Path) -> None:
    done = subprocess.run(
        command("convert", "--level", "reuse", "-", "-"),
        input=BLOB, capture_output=True, check=True, env=environment(),
    )  # fmt: skip
    assert done.stdout == converted(source)[0]


def test_seekable_layers(source: Path) -> None:
    """Of an eStargz each member is taken as it was; of zstd there is nothing to be had."""
    made, told = converted(source)
    source.write_bytes(made)
    assert converted(source, "--verify")[0] == made
    stargz.convert(BLOB, source, format="zstd:chunked")
    again, told = converted(source)
    assert told["codec"] == "isa-l"
    assert len(again) == convert(TAR, level=1)[1].size


@pytest.mark.parametrize("kind", ["tar", "zst"])
def test_not_gzip(kind: str, source: Path) -> None:
    """Level 1 compresses it, also with --verify."""
    if kind == "tar":
        source.write_bytes(TAR)
    else:
        subprocess.run(["zstd", "-qf", "-o", source], input=TAR, check=True)
    plain, _ = convert(source.read_bytes(), level=1)
    for options in ((), ("--verify",)):
        made, told = converted(source, *options)
        assert (made == plain, told["codec"]) == (True, "isa-l")


def test_level_1_in_its_place_is_told(source: Path) -> None:
    """By what was done: the note, and what would be smaller."""
    note = "no matches of the input could be reused: compressed by level 1"
    out = source.with_name("made")
    words = ("convert", "--level", "reuse", "-f", source, out)
    assert note not in ok_here(*words)
    assert "--level 6" not in ok_here(*words)
    few = ok_here(*words, "--prioritize", "large", "--chunk-size", "1K")
    assert note in few
    assert "--level 6 is smaller" in few
    source.write_bytes(TAR)
    assert note in ok_here(*words)
    assert note not in ok_here("convert", "--level", "1", "-f", source, out)
    assert note not in ok_here(*words, "--json")


def test_directories(tmp_path: Path) -> None:
    """There is nothing to reuse, so level 1 packs them: with a base of either level too."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(TAR[:100_000])
    one, two = tmp_path / "one", tmp_path / "two"
    ok_here("pack", "-q", "--level", "1", tree, one)
    told = json.loads(ok_here("pack", "--level", "reuse", "--base", one, "--json", tree, two))
    assert (told["level"], told["codec"], told["warnings"]) == ("reuse", "isa-l", [])
    assert told["reused_files"] == 1
    assert one.read_bytes() == two.read_bytes()


def test_other_levels_name_it() -> None:
    with pytest.raises(stargz.UsageError, match=r"'REUSE' is not in 1 to 12, .*, nor reuse$"):
        convert(TAR, level="REUSE")  # type: ignore[arg-type]
    with pytest.raises(stargz.UsageError, match=r"'REUSE' is not in 1 to 19, .*chunked$"):
        convert(TAR, level="REUSE", format="zstd:chunked")  # type: ignore[arg-type]


@pytest.mark.parametrize("format", ZSTD)
def test_not_of_zstd(format: str, tmp_path: Path) -> None:
    """Whatever else is wrong: nothing is read first."""
    missing = tmp_path / "missing"
    options = ("--level", "reuse", "--format", format)
    for words in (
        ("convert", missing, tmp_path / "made"),
        ("image", "convert", f"oci:{missing}", f"oci:{tmp_path}/made"),
        ("image", "bulk", missing, f"oci:{tmp_path}/made"),
    ):
        said = fails_here(2, *words, *options)
        assert f"--level reuse makes gzip alone: of --format {format} give 1 to 19" in said
    assert said.removesuffix("\n") in fails(2, "convert", "-", "-", *options)
    assert not [*tmp_path.iterdir()]


def test_verify_is_of_gzip(source: Path) -> None:
    for format in ZSTD:
        said = fails_here(2, "convert", "--verify", "--format", format, source, "made")
        assert "--verify" in said


@pytest.mark.parametrize("word", ["reuze", "REUSE", "reuse,1", "", "0", "20", "-1"])
def test_no_level(word: str, source: Path) -> None:
    for words in (("convert", source), ("pack", "tree"), ("image", "convert", "a", "b")):
        said = fails_here(2, *words, f"--level={word}")
        assert f"--level: {word!r} is neither a level, from 1 to 12 and of zstd to 19, nor" in said


def test_help() -> None:
    names = ("convert", "image convert", "image bulk", "pack")
    for code, out, _ in together(*([*name.split(), "--help"] for name in names)):
        assert code == 0
        assert "reuse" in out
