"""What commands say, and how much of it: levels, sizes, rates, what is logged."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from blobs import tar_of
from command import fails, ok, run, together
from servers import FaultProxy, find_nginx, nginx

from stargz.cli._output import rate_text, speed

WORDS = random.Random(5)
TEXT = [
    (f"dir/{n}", " ".join(str(WORDS.randrange(300)) for _ in range(300)).encode())
    for n in range(900)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With `small.tar.gz`, of many files that compress well, and `one.tar.gz`, of one file."""
    where = tmp_path_factory.mktemp("words")
    small, one = tar_of(TEXT), tar_of([("one", random.Random(1).randbytes(500_000))])
    (where / "small.tar").write_bytes(small)
    (where / "small.tar.gz").write_bytes(gzip.compress(small, 9))
    (where / "one.tar.gz").write_bytes(gzip.compress(one))
    return where


# --- levels -------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [1, 6, 9])
def test_gzips_levels(level: int, folder: Path, tmp_path: Path) -> None:
    given = json.loads(ok("convert", f"-{level}", "--json", folder / "small.tar", tmp_path / "a"))
    assert given["level"] == level
    both = json.loads(
        ok("convert", folder / "small.tar", "--level", level, tmp_path / "b", f"-{level}", "--json")
    )
    assert both["digest"] == given["digest"]
    (tmp_path / "dir").mkdir()
    packed = ok("pack", f"-{level}", "--mtime", "-5", tmp_path / "dir", tmp_path / "c", "--json")
    assert json.loads(packed)["level"] == level


@pytest.mark.parametrize(
    "words",
    [
        ["-6", "--level", "5"],
        ["--level=5", "-6"],
        ["--level", "5", "-1"],
        ["-6", "-5"],
        ["-6f", "-5k"],
        ["-6", "-f5"],
        ["--level", "-6"],
    ],
    ids=" ".join,
)
def test_levels_that_contradict_each_other(words: list[str], folder: Path, tmp_path: Path) -> None:
    fails(2, "convert", folder / "small.tar", tmp_path / "x", *words)
    assert not list(tmp_path.iterdir())


def test_what_is_no_level_is_said_of_the_level(folder: Path, tmp_path: Path) -> None:
    src, dst = folder / "small.tar", tmp_path / "x"
    lines: list[tuple[object, ...]] = [("image", "convert", "-15", "oci:x", "oci:y")]
    digits = ["15"]
    for word in ("-0", "-10", "-15", "-9f0", "-f12"):
        lines += [(word, src, dst), (src, word, dst), (src, dst, word)]
        digits += [re.split("[^0-9]", word)[-1]] * 3
    told = together(lines[0], *(("convert", *line) for line in lines[1:]))
    for line, level, (code, _, said) in zip(lines, digits, told, strict=True):
        assert code == 2 and said.startswith(f"stargz: -{level} is no level: they are -1 to -9"), (
            line
        )
    assert not list(tmp_path.iterdir())


def test_gzips_words(folder: Path, tmp_path: Path) -> None:
    """As gzip's users type them: letters together, and what is no news here."""
    source = folder / "one.tar.gz"
    made = set()
    for number, words in enumerate(
        (
            ["-9f"],
            ["-9k"],
            ["-kf9"],
            ["-f9k"],
            ["-9kq"],
            ["-q9"],
            ["-k", "-9", "-f"],
            ["--keep", "-9"],
        )
    ):
        dst = tmp_path / str(number)
        if any("f" in word for word in words):
            dst.write_bytes(b"there already")
        ok("convert", *words, source, dst)
        made.add(dst.read_bytes())
    ok("convert", f"-9o{tmp_path}/with-o9", source)
    made.add((tmp_path / "with-o9").read_bytes())
    for words in (["-c9", source], ["-9kc", source], ["--stdout", "--level", 9, source, "-"]):
        done = run("convert", *words, text=False)
        assert done.returncode == 0
        made.add(done.stdout)
    assert len(made) == 1 and source.exists() and not source.with_name("one.stargz").exists()
    for dst in (["x"], ["-o", "x"]):
        said = fails(2, "convert", "-c", source, *dst, cwd=tmp_path)
        assert said.startswith("-c is standard output, and DST is x")
    for words, instead in (
        (["-d"], "gzip -dc"),
        (["-dc"], "gzip -dc"),
        (["--decompress"], "zcat"),
        (["-t"], "stargz verify"),
        (["-l"], "stargz info"),
    ):
        assert instead in fails(2, "convert", *words, "x.stargz", cwd=tmp_path)
    assert "no option -x" in fails(2, "convert", "-9x", source, cwd=tmp_path)
    # Where digits are a value they stay one.
    ok("convert", "-o9", source, cwd=tmp_path)
    assert (tmp_path / "9").exists()


def test_images_have_gzips_levels_too(tmp_path: Path) -> None:
    text = fails(2, "image", "convert", "-6", "--level", "4", "oci:x", "oci:y", cwd=tmp_path)
    assert text.startswith("-6 and --level 4 contradict each other")


# --- sizes and rates ----------------------------------------------------------------------


def size_row(text: str) -> str:
    return next(line for line in text.splitlines() if line.startswith("size"))


def test_a_size_is_told_against_the_input(folder: Path, tmp_path: Path) -> None:
    source, dst = folder / "small.tar.gz", tmp_path / "layer"
    row = size_row(ok("convert", source, dst))
    ratio = dst.stat().st_size / source.stat().st_size
    assert ratio > 1.2
    assert f"{ratio:.2f} times the tar.gz; --level 6 is smaller, and so is" in row
    assert row.endswith("--min-chunk-size 1M, which only newer snapshotters read")
    # It is true.
    for words in (["--level", "6"], ["--min-chunk-size", "1M"]):
        ok("convert", source, tmp_path / "other", "--force", *words)
        assert (tmp_path / "other").stat().st_size < dst.stat().st_size
    row = size_row(ok("convert", "--format", "stargz", source, dst, "--force"))
    assert row.endswith("--level 6 is smaller")
    row = size_row(ok("convert", "-9", "--min-chunk-size", "1M", source, dst, "--force"))
    assert re.search(r", 1\.\d\d times the tar.gz$|, 0\.\d\d times the tar.gz$", row)
    assert re.search(r", 1\.00 times the tar.gz$", size_row(ok("convert", folder / "one.tar.gz")))
    assert "times" not in ok("convert", folder / "small.tar", dst, "--force")
    found = json.loads(ok("convert", "--json", source, dst, "--force"))
    assert found["source_size"] == source.stat().st_size
    piped = run("convert", "--json", "-", dst, "--force", input=source.read_bytes(), text=False)
    assert json.loads(piped.stdout)["source_size"] is None


def test_no_rate_of_nothing() -> None:
    assert speed(0, 0) == speed(0, 5) == rate_text(0) == ""
    for size, seconds in ((1, 1e9), (1, 0), (10**15, 0), (999_949, 1), (10**7, 1)):
        assert not re.search(r"^0 |inf|nan|e\+", speed(size, seconds)), (size, seconds)
    assert (rate_text(2e6), rate_text(2e8), rate_text(2e4)) == ("2.0 MB/s", "200 MB/s", "20.0 kB/s")


# --- what is logged -----------------------------------------------------------------------


@pytest.fixture
def site(folder: Path, tmp_path: Path) -> Iterator[FaultProxy]:
    if find_nginx() is None:
        pytest.skip("needs nginx")
    ok("convert", folder / "small.tar", folder / "layer", "--force")
    with nginx(folder, tmp_path) as url, FaultProxy(url) as proxy:
        yield proxy


def test_levels_of_what_is_said(site: FaultProxy) -> None:
    url = f"{site.url}/layer?signature=secret".replace("http://", "http://user:secret@")
    silent = run("cat", url, "dir/1")
    assert (silent.returncode, silent.stderr) == (0, "")
    said = run("--log-level", "debug", "ls", url, "dir")
    assert said.returncode == 0 and "secret" not in said.stderr
    assert re.search(r'^stargz: debug: urllib3\S*: .*"GET /layer\?\.\.\. HTTP', said.stderr, re.M)
    for words in (["-v"], ["--log-level=info"], ["-q", "--log-level", "info"]):
        said = run("ls", url, "dir", *words)
        assert "estargz, TOC sha256:" in said.stderr and "debug" not in said.stderr
        assert "secret" not in said.stderr
    assert run("ls", url, "--log-level", "loud").returncode == 2
    assert run("image", "--log-level", "error", "info", "oci:/none").returncode == 1


def test_quiet_says_nothing_of_what_was_done(folder: Path, tmp_path: Path) -> None:
    layer = folder / "layer"
    ok("convert", folder / "small.tar", layer, "--force")
    (tmp_path / "dir").mkdir()
    for words in (
        ["convert", folder / "small.tar", tmp_path / "a"],
        ["pack", tmp_path / "dir", tmp_path / "b"],
        ["delta", layer, layer, "-o", tmp_path / "patch"],
        ["apply", layer, tmp_path / "patch", "-o", tmp_path / "c"],
        ["extract", layer, "-C", tmp_path / "d"],
        ["verify", layer],
    ):
        assert ok("-q", *words) == "", words
    for words in (["info"], ["ls"], ["toc"]):
        assert ok("-q", *words, layer) == ok(*words, layer) != ""
    assert ok("-q", "cat", layer, "dir/1") == TEXT[1][1].decode()
