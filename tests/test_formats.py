"""Every format of layers: what of it the command line and the library promise alike."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from blobs import tar_of
from command import fails_here, ok_here

import stargz

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
        (f"--format {CHUNKED} --level reuse", "'reuse' is not a level"),
        (f"--format {CHUNKED} --level 20", "'20' is not a level"),
        (f"--format {CHUNKED} -19", "-19 is no level"),
        ("--level 13", "--level 13 is not in 1 to 12, those of estargz"),
        (f"--format {APART} --level 19", "--level 19 is not in 1 to 12, those of external-toc"),
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
    ],
)
def test_what_does_not_go_together(options: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "l.tar").write_bytes(SMALL)
    words = ["convert", *options.split(), tmp_path / "l.tar", tmp_path / "out"]
    assert said in fails_here(2, *words)
    assert [path.name for path in tmp_path.iterdir()] == ["l.tar"]


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
