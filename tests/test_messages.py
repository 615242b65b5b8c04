"""What errors call things: the library's keywords with the option that is the same, of which the
command line shows the option alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import fails

import stargz
from stargz.cli._errors import describe
from stargz.errors import FormatError, RegistryError, SourceError, UsageError
from stargz.options import ConvertOptions

ROOT = Path(__file__).parent.parent
# Words with an underscore that are no keywords: of image manifests and configs; a program.
OTHERS = {"diff_id", "diff_ids", "cat_ranges", "open_image", "image_id", "indexed_gzip"} | {
    "disabled_plugins"  # of containerd's configuration
}
SQL = re.compile(r"^\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|PRAGMA)\b")
KEYWORD = re.compile(r"\b[a-z]+(?:_[a-z]+)+\b(?!\()")
# The library's own: no command comes there.
NOT_FOR_COMMANDS = {"fsspec.py"}


def messages(path: Path) -> Iterator[tuple[int, str]]:
    """The texts of the errors that a module raises or makes."""
    if path.suffix == ".c":
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for text in re.findall(r'"((?:[^"\\]|\\.)*)"', line):
                yield number, text
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Raise, ast.Return)):
            for part in ast.walk(node):
                if isinstance(part, ast.JoinedStr):
                    values = (v.value if isinstance(v, ast.Constant) else "{}" for v in part.values)
                    yield part.lineno, "".join(map(str, values))
                elif isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.lineno, part.value


def test_keywords_stand_with_their_options() -> None:
    found = []
    sources = [p for p in (ROOT / "stargz").rglob("*.py") if p.name not in NOT_FOR_COMMANDS]
    for path in [*sources, *(ROOT / "csrc").rglob("*.c")]:
        for line, text in messages(path):
            if " " not in text or SQL.match(text):
                continue  # a name, not a message
            plain = re.sub(r"\b[a-z_]+ \((?:--[a-z-]+[^)]*|[A-Z_]+)\)", "", text)
            words = set(KEYWORD.findall(plain)) - OTHERS
            if words and path.suffix == ".py":
                found.append((path.name, line, words))
            if path.suffix == ".c" and re.search(r"\bmax_[a-z_]+\b(?! \(--)", plain):
                found.append((path.name, line, words))
    assert found == []


@pytest.mark.parametrize(
    ("library", "command"),
    [
        ("f: max_toc_size (--max-toc-size SIZE) allows more", "f: --max-toc-size SIZE allows more"),
        ("x: toc (--toc) is for layers without one", "x: --toc is for layers without one"),
        ("no image for arm (--platform)", "no image for arm (--platform)"),
        ("a file called toc (--x y z)", "a file called toc (--x y z)"),
    ],
)
def test_the_command_line_shows_options(library: str, command: str) -> None:
    assert describe(UsageError(library)) == command


WRONG = {
    "--chunk-size 12 is not in 1 KiB to 1 GiB": ["--chunk-size", "12"],
    "--min-chunk-size 2147483648 is not in 0 to 1 GiB": ["--min-chunk-size", "2G"],
    "--format stargz has no landmarks: no --prioritize files with it": [
        "--format=stargz", "--prioritize", "a",
    ],
    "--format stargz cannot put small files together: no --min-chunk-size with it": [
        "--format=stargz", "--min-chunk-size", "1M",
    ],
    "--lossless keeps the order of the input: no --prioritize files with it": [
        "--lossless", "--prioritize", "a",
    ],
    "--memory of 1 bytes is not 1 KiB or more": ["--memory", "1"],
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_wrong_usage_of_convert_in_its_own_words(text: str, data: Path, tmp_path: Path) -> None:
    dst = tmp_path / "layer"
    dst.write_bytes(b"precious")  # that it is there is not what is wrong first
    said = fails(2, "convert", *WRONG[text], data / "tree.tar", dst, *["--force"][: "mem" in text])
    assert said == text
    assert dst.read_bytes() == b"precious"


def test_the_library_says_both() -> None:
    with pytest.raises(UsageError, match=r"chunk_size \(--chunk-size\) 12 is not"):
        ConvertOptions(chunk_size=12)


def test_limits_of_the_toc(data: Path) -> None:
    path = data / "tree.esgz"
    with pytest.raises(stargz.TOCError, match=r"max_toc_size \(--max-toc-size SIZE\)"):
        stargz.open(path, max_toc_size=100)
    for words in (["ls"], ["cat"], ["info"], ["toc"]):
        paths = ["etc/conf"] * (words == ["cat"])
        said = fails(1, *words, path, *paths, "--max-toc-size", "100")
        assert "--max-toc-size" in said and "max_toc_size" not in said
    assert "--require-verified needs --toc-digest" in fails(3, "ls", path, "--require-verified")
    assert "--toc is for" in fails(2, "ls", path, "--toc", path)
    said = fails(1, "ls", data / "external_toc.esgz")
    assert "give the file that holds it as --toc" in said


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["convert", "t.tar", "none/x"], "none/x: its directory is missing; make it first (DST)"),
        (["image", "info", "docker://"], "no image is named: give docker://"),
        (["image", "no"], "no command 'image no'; see 'stargz image --help'"),
        (["ls", "--ca-file", "t.tar", "https://127.0.0.1:1/"], "t.tar: not a PEM file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_to_do_is_said(words: list[str], text: str, data: Path, tmp_path: Path) -> None:
    (tmp_path / "t.tar").write_bytes((data / "tree.tar").read_bytes())
    (tmp_path / "folder").mkdir()
    code = 2 if words[0] == "image" else 1
    assert text in fails(code, *words, cwd=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "t.tar"]


@pytest.mark.parametrize("name", ["a\\b", "it's", "new\nline", "\x1b[31mred", "caf\u00e9 \udcff"])
def test_names_are_escaped_once(name: str, data: Path) -> None:
    path = data / "tree.esgz"
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
    shown = shown.replace("\\udc", "\\x")  # a byte
    for words in (["cat", path, name], ["ls", path, name], ["extract", path, name]):
        assert f"'{shown}'" in fails(1, *words)
    with stargz.open(path) as layer, pytest.raises(stargz.EntryNotFoundError) as caught:
        layer.read(name)
    assert f"'{shown}'" in str(caught.value)


@pytest.mark.parametrize("kind", [UsageError, SourceError, FormatError, RegistryError])
def test_every_error_is_one_line(kind: type[Exception]) -> None:
    """Also for who prints it without the command line."""
    error = kind("a\nb\x1b[31m\udcffc")
    assert str(error) == "a\\nb\\x1b[31m\\xffc"
    assert getattr(error, "message", str(error)) == str(error)
