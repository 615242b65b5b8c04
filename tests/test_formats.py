"""Every format of layers: what of it the command line and the library promise alike."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import oracle
import pytest
from blobs import tar_of
from command import fails_here, here, ok, ok_here, run

import stargz
from stargz.options import FORMATS, default_level, is_zstd

SMALL = tar_of([("a", b"content"), ("d/b", b"x" * 600)])
CHUNKED, STARGZ, APART = "zstd:chunked", "zstd:chunked-stargz", "external-toc"


@pytest.mark.parametrize(
    ("src", "format", "made"),
    [
        ("l.tar.gz", "estargz", "l.stargz"),
        ("l.tar", "stargz", "l.stargz"),
        ("l.tgz", APART, "l.stargz"),
        ("l.tar.zst", CHUNKED, "l.chunked.tar.zst"),
        ("l.tzst", STARGZ, "l.chunked.tar.zst"),
        ("other", CHUNKED, "other.chunked.tar.zst"),
        ("l.stargz", CHUNKED, "l.chunked.tar.zst"),
        ("l.chunked.tar.zst", "estargz", "l.stargz"),
        ("l.chunked.tar.zst", STARGZ, None),
        ("l.stargz", APART, None),
        (".stargz", CHUNKED, None),
    ],
)
def test_what_the_layer_is_called(src: str, format: str, made: str | None, tmp_path: Path) -> None:
    (tmp_path / src).write_bytes(SMALL)
    words = ["convert", "-q", "--format", format, str(tmp_path / src)]
    if made is None:
        assert "DST" in fails_here(2, *words)
        made = src
    else:
        ok_here(*words)
    there = {src, made, *([f"{made}.toc"] if format == APART and made != src else [])}
    assert {path.name for path in tmp_path.iterdir()} == there


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (f"--format {CHUNKED} --level reuse", "--level reuse makes gzip alone"),
        (f"--format {CHUNKED} --level 20", "'20' is neither a level"),
        (f"--format {CHUNKED} -19", "-19 is no level"),
        ("--level 13", "--level 13 is not in 1 to 12, those of estargz, nor reuse"),
        (
            f"--format {APART} --level 19",
            "--level 19 is not in 1 to 12, those of external-toc, nor",
        ),
        (f"--format {CHUNKED} --min-chunk-size 1M", "no --min-chunk-size with it"),
        (f"--format {STARGZ} --min-chunk-size 1M", "no --min-chunk-size with it"),
        ("--format stargz --min-chunk-size 1M", "no --min-chunk-size with it"),
        (f"--format {CHUNKED} --prioritize a", "no --prioritize files with it"),
        (f"--format {APART} --prioritize a", "no --prioritize files with it"),
        (f"--format {STARGZ} --lossless --prioritize a", "no --prioritize files with it"),
        ("--strict", "--strict is for --format zstd:chunked alone"),
        (f"--format {STARGZ} --strict", "--strict is for --format zstd:chunked alone"),
        (f"--format {CHUNKED} --toc-out toc", "--toc-out is for --format external-toc alone"),
        ("--format zstd", "invalid choice: 'zstd'"),
        (f"--format {APART} -c", "name it by --toc-out FILE"),
        (f"--format {APART} -o out --toc-out -", "cannot go to standard output; name a file"),
    ],
)
def test_what_does_not_go_together(options: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "l.tar").write_bytes(SMALL)
    words = ["convert", *options.split(), tmp_path / "l.tar"]
    if not {"-o", "-c"} & {*words}:
        words.append(tmp_path / "out")
    assert said in fails_here(2, *words)
    assert [path.name for path in tmp_path.iterdir()] == ["l.tar"]


def test_strict(tmp_path: Path) -> None:
    (tmp_path / "l.tar").write_bytes(tar_of([("a", b"1"), ("./a", b"2")]))
    words = ["convert", "--format", CHUNKED, tmp_path / "l.tar", tmp_path / "out"]
    said = fails_here(1, *words, "--strict")
    why = "'./a': the tar has this path twice"
    assert f"{why}, which zstd:chunked cannot hold; without --strict the layer is plain" in said
    assert not (tmp_path / "out").exists()
    done = here(*words, "--json")
    assert done.returncode == 0 and not done.stderr
    told = json.loads(done.stdout)
    (warning,) = told["warnings"]
    assert why in warning and "plain zstd" in warning
    assert (told["annotations"], told["toc_digest"]) == ({}, "")
    done = here(*words, "-f")
    assert "warning" in done.stderr and "plain zstd" in done.stdout


def test_no_toc_is_made_beside_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "l.tar").write_bytes(SMALL)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    words = ["convert", "-q", "--format", APART, tmp_path / "l.tar", pipe]
    assert "name it by --toc-out FILE" in fails_here(2, *words)
    with pytest.raises(stargz.UsageError, match="toc_out"):
        stargz.convert(SMALL, pipe, format=APART)
    assert "is a directory" in fails_here(1, *words[:-1], tmp_path)
    ok_here(*words, "--toc-out", tmp_path / "toc")
    assert os.read(reader, 3) == b"\x1f\x8b\x08" and (tmp_path / "toc").exists()
    os.close(reader)
    assert not (tmp_path / "pipe.toc").exists()


@pytest.mark.parametrize("format", [CHUNKED, STARGZ, APART])
def test_pack_makes_estargz_alone(format: str, tmp_path: Path) -> None:
    said = fails_here(2, "pack", "--format", format, tmp_path, tmp_path / "out")
    assert "pack makes eStargz alone" in said and "stargz convert" in said
    ok_here("pack", "-q", "--format", "estargz", tmp_path, tmp_path.with_suffix(".out"))


def test_patches_of_what_there_are_none() -> None:
    made, patch = io.BytesIO(), io.BytesIO()
    stargz.convert(io.BytesIO(SMALL), made)
    chunked = io.BytesIO()
    stargz.convert(io.BytesIO(SMALL), chunked, format=CHUNKED)
    with stargz.open(made.getvalue()) as layer:
        stargz.delta(layer, layer, patch)
    size = len(made.getvalue())
    for base, said in (
        (chunked.getvalue(), "but in zstd:chunked"),
        (SMALL, "but no seekable layer"),
        (SMALL[:size].ljust(size), "but no seekable layer"),
    ):
        with pytest.raises(stargz.DigestError, match=said):
            stargz.apply(io.BytesIO(base), io.BytesIO(patch.getvalue()), io.BytesIO())


def digests(folder: Path) -> dict[str, str]:
    return {path.name: oracle.sha256(path.read_bytes()) for path in folder.iterdir()}


@pytest.mark.parametrize("format", FORMATS)
def test_through_pipes(format: str, tmp_path: Path) -> None:
    """The same bytes, and the result on stderr."""
    (tmp_path / "l.tar").write_bytes(SMALL)
    apart = ["--toc-out", "l.toc"] if format == APART else []
    words = ["convert", "--json", "--format", format, *apart]
    told = json.loads(ok(*words, "l.tar", "file", cwd=tmp_path))
    before = digests(tmp_path)
    done = run(*words, "-f", "-", "-", cwd=tmp_path, input=SMALL, text=False)
    assert done.returncode == 0
    assert oracle.sha256(done.stdout) == told["digest"] == before["file"]
    said = json.loads(done.stderr)
    assert {**said, "seconds": 0, "source_size": 0} == {**told, "seconds": 0, "source_size": 0}
    assert digests(tmp_path) == before
    assert (told["toc_blob"] == before["l.toc"]) if apart else not told["toc_blob"]


@pytest.mark.parametrize("format", FORMATS)
def test_what_the_library_tells(format: str) -> None:
    """How far it is, and what makes it."""
    seen: list[tuple[int, int]] = []
    out, toc = io.BytesIO(), io.BytesIO()
    more = {"toc_out": toc} if format == APART else {}
    data = SMALL + bytes(4 << 20)
    result = stargz.convert(data, out, format=format, progress=lambda *at: seen.append(at), **more)  # type: ignore[arg-type]
    assert seen == sorted(seen) and seen[-1] == (len(data), len(data))
    assert result.level == default_level(format)
    assert result.codec.startswith("zstd " if is_zstd(format) else "isa-l")
    assert not result.warnings


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_is_left_of_what_fails(format: str, tmp_path: Path) -> None:
    (tmp_path / "l.tar").write_bytes(SMALL[:515])
    words = ["convert", "-f", "--format", format, tmp_path / "l.tar", tmp_path / "out"]
    (tmp_path / "out").write_bytes(b"earlier")
    assert "l.tar" in fails_here(1, *words)
    assert {path.name for path in tmp_path.iterdir()} == {"l.tar", "out"}
    assert (tmp_path / "out").read_bytes() == b"earlier"
