"""Ignore files mean what Docker takes them to mean."""

from __future__ import annotations

import json
import os
import posixpath
import random
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from absence import absent
from conftest import INTEROP
from hypothesis import example, given, settings
from hypothesis import strategies as st

import stargz
from stargz.errors import UsageError
from stargz.ignore import IgnoreFile


def ignored(text: str, name: str) -> bool:
    """Whether a file of this name is left out."""
    return IgnoreFile.parse(text.encode("utf-8", "surrogateescape"), "it").decide(name, False) > 0


# Ignore file, what it leaves out, what it does not. The first are Docker's documentation's.
TABLE = [
    ("# comment", "", "# comment|comment"),
    ("*/temp*", "somedir/temporary.txt|somedir/temp|a/temp/b", "temp|a/b/temp|tempa"),
    ("*/*/temp*", "somedir/subdir/temporary.txt", "somedir/temporary.txt|temp"),
    ("temp?", "tempa|tempb|tempa/x", "temp|tempab|x/tempa|temp/"),
    ("**/*.go", "a.go|b/c/d.go", "a.go.txt|go"),
    ("*.md\n!README.md", "a.md", "README.md|a/b.md"),
    ("*.md\n!README*.md\nREADME-secret.md", "a.md|README-secret.md", "README.md|README-x.md"),
    ("*.md\nREADME-secret.md\n!README*.md", "a.md", "README-secret.md|README.md"),
    ("/foo/bar", "foo/bar|foo/bar/baz", "foo|x/foo/bar|foobar"),
    ("foo/bar/", "foo/bar|foo/bar/x", "foo/barx"),
    ("./foo/../bar//x", "bar/x", "foo|x"),
    (" \t spaced name \t\r\n", "spaced name", " spaced name"),
    ("\ufeffbom", "bom", "\ufeffbom"),
    ("a\n\n   \nb", "a|b", "c"),
    (" # no comment", "# no comment", "no comment"),
    ("*", "a|.hidden|a/b", ""),
    ("*\n!keep", "a|keeps", "keep|keep/below"),
    ("*\n!a/b", "a/c|a", "a/b|a/b/c"),
    ("! /spaced", "", "spaced"),
    ("a\n!/a/b\n", "a/c", "a/b"),
    (".", "", "a|.a"),
    ("/", "", "a"),
    ("..", "", "a"),
    ("**", "a|a/b|.a", ""),
    ("**/", "a|a/b", ""),
    ("**/a", "a|b/a|b/c/a|a/x", "ba|ab"),
    ("a/**", "a/b|a/b/c", "a|b/a"),
    ("a/**/b", "a/b|a/x/b|a/x/y/b", "a/xb|ab"),
    ("**/a/**/*.c", "a/x.c|z/a/x.c|a/y/x.c", "x.c|za/x.c"),
    ("a**", "a|ab|a/b", "b"),
    ("**a", "a|ba|x/ya", "ab"),
    ("**\n!b/**", "a|b", "b/c"),
    ("[a-c]x", "ax|bx|cx/y", "dx|x|-x"),
    ("[^a-c]x", "dx|zx", "ax|x"),
    ("[!a]x", "!x|ax", "bx"),
    ("[\\]]x", "]x", "\\x"),
    ("[.]x", ".x", "ax"),
    ("\\*", "*", "a|\\*"),
    ("\\!a", "!a", "a"),
    ("\\#a", "#a", "a"),
    ("a\\ b", "a b", "a\\ b"),
    ("a.b+(c)|{d}$", "a.b+(c)|{d}$", "axb+(c)|{d}$"),
    ("*.b+(c)$", "a.b+(c)$", "axb+(c)$|a.bb(c)$"),
    ("?b{2}", "abb", "ab|ab{2}"),  # they forget to escape braces and the bar
    ("?{x}", "a{x}", "ax"),
    ("?a|b", "xab|xac|b|ab|x/b", "a|x"),
    ("a?c", "abc|aéc", "a/c|ac|a\udcc3\udca9c"),
    ("\udcff?", "\udcffa", "\udcfea"),
    ("a\nb\n!a\nc", "b|c", "a|a/x"),
    # The results of a directory are carried along: BuildKit's rule.
    ("x/y\n!x", "x/y", "x|x/z"),
    # A regular expression's escapes, since patterns become such.
    ("\\d\\w*", "1a|2_x", "d|ad|1"),
    ("\\x41?", "Ab", "x41b"),
    ("[[:digit:]]x", "1x", "dx|:x"),
    ("[a*]", "", "a|*"),
]


@pytest.mark.parametrize(("text", "out", "kept"), TABLE, ids=[repr(row[0]) for row in TABLE])
def test_table(text: str, out: str, kept: str) -> None:
    for name in filter(None, out.split("|") if "|{d}" not in out else [out]):
        assert ignored(text, name), name
    for name in filter(None, kept.split("|") if "|{d}" not in kept else ["axb+(c)|{d}$"]):
        assert not ignored(text, name), name


@pytest.mark.parametrize(
    "pattern",
    ["!", " ! ", "!/", "[", "[]", "[a", "[a-]", "[-a]", "[^]", "a\\", "[\\", "[b-a]", "\\q", "\\é"],
)
def test_malformed(pattern: str) -> None:
    with pytest.raises(stargz.UsageError, match=r"^\.ignore, line 3: pattern '.*': .*; correct"):
        IgnoreFile.parse(f"# first\na\n{pattern}\n".encode(), ".ignore")


@pytest.mark.parametrize(
    ("pattern", "name", "out"),
    [
        ("*a" * 40 + "b", "a" * 255, False),
        ("*a" * 40 + "b", "a" * 254 + "b", True),
        ("?*a" * 30 + "*.o", "a" * 255, False),
        ("**/a/" * 30 + "b", "a/" * 300 + "c", False),
        ("**/a/" * 30 + "b", "a/" * 300 + "b", True),
        ("**/*a*/" * 20 + "b", "xax/" * 300 + "c", False),
        ("a{0,99}" * 8 + "b?c", "a" * 255, False),
        ("a{0,99}" * 8 + "b?c", "a" * 255 + "bxc", True),
        ("[ab]{0,}" * 40 + "?c", "ab" * 120, False),
        ("*[ab]" * 30 + "c", "ab" * 120, False),
        ("a|" + "*a" * 30 + "?", "b" + "a" * 250 + "b", True),
        ("a|" + "*a" * 30 + "b?", "b" + "a" * 250 + "c", False),
        ("**/[^a]" * 30, "b/" * 300 + "a", True),
        ("**/?{0,3}" * 30 + "c?", "b/" * 300 + "a", False),
        ("\\w{0,1}" * 60 + "\\b-?", "a" * 255, False),
    ],
    ids=range(15),
)
def test_many_wildcards(pattern: str, name: str, out: bool) -> None:
    """What takes a power of the name's length by trying would not end here."""
    assert ignored(pattern, name) is out


def test_parts_are_limited() -> None:
    """Each takes memory, and a moment for each character of each name."""
    line = "?{1000}" * 100
    assert not ignored(line, "a" * 1000)
    for text in ("\n".join([line] * 3), line * 100):
        with pytest.raises(stargz.UsageError, match="more than 200,000 parts"):
            IgnoreFile.parse(text.encode(), ".ignore")
    # No number is too large to be refused, and nothing is looked for again and again.
    for pattern in ("?{%s}" % ("9" * 5000), "?{1001}", "?{2,1}", "?{1,1001}"):
        with pytest.raises(stargz.UsageError, match="has no meaning"):
            IgnoreFile.parse(pattern.encode(), ".ignore")
    assert ignored("[" + "[:" * 500_000 + "a]", ":")
    with pytest.raises(stargz.UsageError) as caught:
        IgnoreFile.parse(b"[" + b"[:" * 500_000 + b"]", ".ignore")
    assert len(str(caught.value)) < 1000


@given(
    st.lists(
        st.sampled_from(
            ["*", "**/", "?", "a", "b", "/", ".a", "[ab]", "[^b]", "a{0,2}", "[^/]{2}"]
        ),
        min_size=1,
        max_size=9,
    ),
    st.lists(st.sampled_from(["a", "b", "/", ".a"]), min_size=1, max_size=14),
)
@settings(max_examples=400, deadline=None)
@example(["**/", "a", "b", "**/", "b"], ["a", "b", "/", "b"])
def test_as_regular_expressions(pattern: list[str], name: list[str]) -> None:
    """The patterns are regular expressions of the reference: Python's find the same."""
    text, asked = posixpath.normpath("?" + "".join(pattern)), "x" + "".join(name)
    parts = {"**/": "(.*/)?", "**": "(.*/)?", "*": "[^/]*", "?": "[^/]", ".": r"\."}
    pieces = re.findall(r"\[.*?\]|\*\*/|\*\*|[*?.]|[^*?.\[]+", text)
    simple = "".join(parts.get(piece, piece) for piece in pieces)
    if pieces[-1] == "**":
        simple = simple.removesuffix("(.*/)?") + ".*"
    file = IgnoreFile.parse(text.encode(), "it")
    assert file._patterns[0].matches(asked) is bool(re.fullmatch(simple, asked))


def test_directories() -> None:
    """2 where nothing below can be an exception, so that it need not be read."""
    file = IgnoreFile.parse(b"a\nb\n!b/c/d\n*.o\nx*\n!x*/y\n!z/*/k\nz", "it")
    asked = {name: file.decide(name, True) for name in ("a", "b", "b/c", "b/x", "x1", "z", "d.o")}
    assert asked == {"a": 2, "b": 1, "b/c": 1, "b/x": 2, "x1": 1, "z": 1, "d.o": 2}
    assert file.decide(b"b/c/d", True) == 0 and file.decide("b/c/d/e", False) == 0
    assert file.decide("b/c/e", False) == 2 and file.decide("b", False) == 2
    assert IgnoreFile.parse(b"", "it").decide("a", True) == 0
    for exception, below in (("!aa|[ab]a", "a/ba"), ("!ab{0}?*", "a/b"), ("!x|a/[b]", "a/b")):
        file = IgnoreFile.parse(f"a\n{exception}".encode(), "it")
        assert (file.decide("a", True), file.decide(below, False)) in ((1, 0), (1, 2)), exception


# --- against Docker's own package ----------------------------------------------------------

PIECES = st.sampled_from([
    "a", "b", "ab", "*", "**", "?", "/", "/", "/", "[ab]", "[^a]", "\\*", "\\a", ".", "..", "!",
    " ", "é", "[a-b]", "[", "]", "\\", "-", "^", "$", "+", "(", "|", "*a", "a*", "#", "\\d",
])  # fmt: skip
LINES = st.lists(PIECES, max_size=7).map("".join)
FILES = st.tuples(st.lists(st.one_of(LINES, LINES.map("!{}".format)), max_size=4)).map(
    lambda lines: "\n".join(lines[0])
)
NAMES = [
    "/".join(parts)
    for depth in range(1, 4)
    for parts in [
        (x, y, z)[:depth]
        for x in ("a", "b", "ab", "é", "*", "^a", ".a")
        for y in ("a", "b", "ba")
        for z in ("a", "b1", "$")
    ]
]
NAMES = sorted(set(NAMES))


@settings(max_examples=300, deadline=None)
@given(FILES)
@example("a\n!aa|[ab]a")  # all that ends in "ba" is kept
@example("a\n!a/b{0}*")
@example("a\nb\n!b/a{0,1}?")
def test_left_out_whole(text: str) -> None:
    """What is below a directory that need not be read is left out too; a second look, and one
    without a look at the directories before, tell the same."""
    try:
        file = IgnoreFile.parse(text.encode(), "it")
    except stargz.UsageError:
        return
    first = {name: file.decide(name, True) for name in NAMES}
    for name, answer in first.items():
        above = name.rpartition("/")[0]
        if above and first[above] == 2:
            assert answer == 2
        assert IgnoreFile.parse(text.encode(), "it").decide(name, True) == answer
        assert file.decide(name.encode(), False) == (2 if answer else 0)


@pytest.fixture(scope="session")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[str]], list[Any]]:
    """docker(texts): what moby's packages decide of NAMES, for each text of an ignore file."""
    program = tmp_path_factory.mktemp("dockerignore") / "program"
    env = os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}
    try:
        built = subprocess.run(
            ["go", "build", "-o", program, "."],
            cwd=INTEROP / "dockerignore", env=env, capture_output=True, text=True,
        )  # fmt: skip
    except FileNotFoundError:
        absent("go is not installed")
    if built.returncode:
        absent(f"the dockerignore program cannot be built: {built.stderr.strip()}")

    def run(texts: list[str]) -> list[Any]:
        questions = json.dumps([{"text": text, "paths": NAMES} for text in texts])
        done = subprocess.run(
            [program], input=questions, capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)

    return run


def random_file(rng: random.Random) -> str:
    pieces = (
        ["a", "b", "ab", "é", "*", "**", "?", "/", "[ab]", "[^a]", "\\*", "\\a", ".", "..", " "]
        + [
            "[a-b]",
            "\\d",
            "[!a]",
            "$",
            "{2}",
            "{0,1}",
            "a{0,9}",
            "b{1,}",
            "{",
            "}",
            "^",
            "*a",
            "**/",
            "/**",
            "+",
            "|",
            "[[:alpha:]]",
            "[[:^alpha:]]",
            "[a*]",
            "\\b",
            "\\W",
            "\\.",
            "-",
        ]
        + ["[", "]", "\\"] * (rng.random() < 0.2)
    )
    lines = []
    for _ in range(rng.randrange(1, 5)):
        line = "".join(rng.choice(pieces) for _ in range(rng.randrange(1, 6)))
        if rng.random() < 0.5:
            line = rng.choice(NAMES) if rng.random() < 0.3 else line.replace("a", "a/")
        lines.append("!" * (rng.random() < 0.4) + line)
    return "\n".join(lines)


def test_as_docker(docker: Callable[[list[str]], list[Any]]) -> None:
    rng = random.Random(1)
    texts = [row[0] for row in TABLE if row[0].isprintable() or "\n" in row[0]]
    texts = [text for text in texts if text.isascii()] + [random_file(rng) for _ in range(4000)]
    used = refused = 0
    for text, theirs in zip(texts, docker(texts), strict=True):
        try:
            file = IgnoreFile.parse(text.encode(), "it")
        except stargz.UsageError:
            # Theirs looks at a pattern's end only if its beginning matches ".", and compiles one
            # when it is first asked: it lets some malformed ones pass, which we refuse.
            refused += not theirs["error"]
            continue
        assert not theirs["error"], (text, theirs["error"])
        assert [file.decide(name, True) > 0 for name in NAMES] == theirs["ignored"], text
        used += any(theirs["ignored"]) and not all(theirs["ignored"])
    assert used > 1000 and refused < 300


def test_a_file_without_end(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "abd").touch()
    for text in (b"abc\n" * (1 << 18), b"#" * (1 << 20)):
        (tmp_path / "ignore").write_bytes(text)
        stargz.pack(tmp_path / "tree", tmp_path / "layer", ignore=tmp_path / "ignore")
    for endless in ("/dev/zero", tmp_path / "ignore"):
        if endless != "/dev/zero":
            (tmp_path / "ignore").write_bytes(b"#" * ((1 << 20) + 1))
        with pytest.raises(UsageError, match="over 1 MiB"):
            stargz.pack(tmp_path / "tree", tmp_path / "layer", ignore=endless)
