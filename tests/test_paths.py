"""Paths and patterns in a layer mean what they mean in the same tree on disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import handmade
import pytest
from handmade import directory, reg, symlink
from hypothesis import given, settings
from hypothesis import strategies as st

import stargz
from stargz import paths
from stargz.errors import EntryNotFoundError, UsageError
from stargz.tree import Tree

# As Debian's base layers are.
MERGED_USR = [
    symlink("bin", "usr/bin"),
    directory("etc"),
    reg("etc/a[1].txt", b"1"),
    reg("etc/a1.txt", b"2"),
    symlink("etc/mtab", "../proc/mounts"),
    symlink("lib", "usr/lib"),
    symlink("sbin", "/usr/sbin"),
    directory("usr"),
    directory("usr/bin"),
    reg("usr/bin/bash", b"bash"),
    reg("usr/bin/dash", b"dash"),
    symlink("usr/bin/sh", "dash"),
    reg("usr/bin/.hidden", b""),
    directory("usr/lib"),
    reg("usr/lib/libc.so", b"so"),
    reg("usr/lib/locale/C/x.mo", b"mo"),
    reg("usr/lib/x/deep/er/libz.so", b"so"),
    directory("usr/sbin"),
    symlink("usr/sbin/bin", "../bin"),
    reg("usr/share/locale/de/x.mo", b"mo"),
]


@contextmanager
def tree_of(entries: list[dict[str, Any]]) -> Iterator[Tree]:
    with stargz.open(handmade.blob(entries)) as layer:
        yield Tree([layer], "raw", "the tree")


@pytest.fixture(scope="module")
def merged() -> Iterator[Tree]:
    with tree_of(MERGED_USR) as tree:
        yield tree


# --- against a file system --------------------------------------------------------------------

NAMES = ["a", "b", "ab", ".a", "a.b"]
PARTS = ["a", "b", "*", "?", "a*", "*b", "[ab]", "[!a]*", ".*", "**", "**", "*.*"]
TARGETS = [".", "..", "a", "../b", "/a", "a/b", "nowhere", "../../a/b", "b/", "/b/a"]


@st.composite
def trees(draw: st.DrawFn) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for _ in range(draw(st.integers(0, 14))):
        above = draw(st.sampled_from(["", *(n for n, e in found.items() if e["type"] == "dir")]))
        name = f"{above}/{draw(st.sampled_from(NAMES))}".strip("/")
        kind = draw(st.sampled_from(["dir", "dir", "reg", "symlink"]))
        if name not in found:
            # Not out of the root: a layer's `..` stays there.
            depth = name.count("/")
            target = draw(st.sampled_from([t for t in TARGETS if t.count("..") <= depth]))
            made = {"dir": directory(name), "reg": reg(name, b""), "symlink": symlink(name, target)}
            found[name] = made[kind]
    return list(found.values())


def on_disk(root: Path, entries: list[dict[str, Any]]) -> None:
    for entry in entries:
        path = root / entry["name"]
        if entry["type"] == "dir":
            path.mkdir()
        elif entry["type"] == "reg":
            path.touch()
        else:
            target = entry["linkName"]
            path.symlink_to(f"{root}{target}" if target.startswith("/") else target)


def by_pathlib(root: Path, pattern: str) -> set[str]:
    """What pathlib finds as of Python 3.13, with that of 3.11, less what is outside of root."""
    parts = pattern.strip("/").split("/")
    slash = "/" if pattern.endswith("/") else ""
    if parts[-1] == "**":
        patterns = ["/".join([*parts, ""]), *(() if slash else ["/".join([*parts, "*"])])]
    else:
        parts[-1] = f"[{parts[-1][0]}]{parts[-1][1:]}" if parts[-1].isalnum() else parts[-1]
        patterns = ["/".join(parts) + slash]
    found = {path.relative_to(root).as_posix() for p in patterns for path in root.glob(p)}
    return found - {"."}


@given(trees(), st.lists(st.sampled_from(PARTS), min_size=1, max_size=5), st.booleans())
@settings(max_examples=150, deadline=None)
def test_glob_is_pathlibs(entries: list[dict[str, Any]], parts: list[str], slash: bool) -> None:
    pattern = "/".join(parts) + "/" * slash
    with tempfile.TemporaryDirectory() as folder, tree_of(entries) as tree:
        on_disk(Path(folder), entries)
        found = list(paths.glob(tree.engine, pattern))
        assert {match.path for match in found} == by_pathlib(Path(folder), pattern)
        assert len({match.path for match in found}) == len(found)
        assert found == sorted(found, key=lambda m: m.path.encode().split(b"/"))
        for match in found:
            links: list[int] = []
            node = paths.find(tree.engine, match.path + "/" * slash, follow=False, links=links)
            if match.node != node:  # `x/**` finds the directory that a symlink x leads to
                assert "**" in parts
                links = []
                node = paths.find(tree.engine, match.path, links=links)
            assert (match.node, match.links) == (node, tuple(links))


@given(trees(), st.lists(st.sampled_from([*NAMES, "..", ".", ""]), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_find_is_realpath(entries: list[dict[str, Any]], parts: list[str]) -> None:
    """Nothing is behind what is no directory, not even "." and "..": that is the kernel's rule."""
    with tempfile.TemporaryDirectory() as folder, tree_of(entries) as tree:
        root = Path(folder).resolve()
        on_disk(root, entries)
        expected: Path | None = root
        for part in parts:
            try:
                # Of links that end in a slash, which Path drops, the kernel has to be asked.
                os.stat(f"{expected}/{part}")  # noqa: PTH116
                if part != ".." or expected != root:
                    expected = (expected / part).resolve(strict=True)
            except (OSError, RuntimeError):
                expected = None
                break
        links: list[int] = []
        try:
            node = paths.find(tree.engine, "/".join(parts), links=links)
        except (KeyError, OSError):
            assert expected is None
        else:
            assert expected is not None
            assert root / tree.engine.path(node) == expected
            assert all(tree.engine.type(link) == "symlink" for link in links)


# --- tables -----------------------------------------------------------------------------------


@pytest.mark.parametrize("behind", ["/", "/.", "/..", "/./..", "//", "/../a1.txt", "/x"])
@pytest.mark.parametrize("file", ["etc/a1.txt", "usr/bin/sh"])
def test_nothing_is_behind_a_file(file: str, behind: str, merged: Tree) -> None:
    with pytest.raises(NotADirectoryError, match="is no directory"):
        paths.find(merged.engine, file + behind)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("bin/*sh", ["bin/bash", "bin/dash", "bin/sh"]),
        ("./bin//?ash", ["bin/bash", "bin/dash"]),
        ("/sbin/bin/d*", ["sbin/bin/dash"]),
        ("usr/*bin", ["usr/bin", "usr/sbin"]),
        ("*bin", ["bin", "sbin"]),
        ("*bin/", ["bin", "sbin"]),
        ("usr/bin/*", ["usr/bin/.hidden", "usr/bin/bash", "usr/bin/dash", "usr/bin/sh"]),
        ("**/*.so", ["usr/lib/libc.so", "usr/lib/x/deep/er/libz.so"]),
        ("lib/**/*.so", ["lib/libc.so", "lib/x/deep/er/libz.so"]),
        ("**/locale", ["usr/lib/locale", "usr/share/locale"]),
        ("**/locale/**", [
            "usr/lib/locale", "usr/lib/locale/C", "usr/lib/locale/C/x.mo",
            "usr/share/locale", "usr/share/locale/de", "usr/share/locale/de/x.mo",
        ]),
        ("usr/share/**/", ["usr/share", "usr/share/locale", "usr/share/locale/de"]),
        ("usr/*/../bin", None),
        ("bin/../lib/*.so", ["usr/lib/libc.so"]),
        ("etc/a[1].txt", ["etc/a[1].txt"]),  # so called
        ("etc/a[12].txt", ["etc/a1.txt"]),
        ("etc/a[[]1].txt", ["etc/a[1].txt"]),
        ("ETC/*", []),
        ("nowhere/*", []),
        ("etc/mtab/*", []),
        ("usr/bin/dash/*", []),
        ("etc/mtab", ["etc/mtab"]),
        ("", []),
        ("/", []),
    ],
)  # fmt: skip
def test_a_table(merged: Tree, pattern: str, found: list[str] | None) -> None:
    if found is None:
        with pytest.raises(UsageError, match=r'"\.\."'):
            merged.glob(pattern)
        return
    assert merged.glob(pattern) == found
    assert (
        merged.layers[0].glob(PurePosixPath(pattern) if pattern[-1:] != "/" else pattern) == found
    )


ALL = ["usr/bin/bash", "usr/bin/dash", "usr/bin/sh", "usr/lib/libc.so", "usr/lib/locale/C/x.mo",
       "usr/lib/x/deep/er/libz.so", "usr/share/locale/de/x.mo"]  # fmt: skip


@pytest.mark.parametrize(
    ("exclude", "left_out", "unmatched"),
    [
        ([], [], []),
        (["*.so"], [3, 5], []),
        (["locale"], [4, 6], []),
        (["locale/"], [4, 6], []),
        (["/locale", "locale/*"], [], ["/locale", "locale/*"]),
        (["usr/share/locale", "lib/x/"], [5, 6], []),
        (["bin/?ash", "lib"], [0, 1, 3, 4, 5], []),
        (["usr/**/*.mo", "/lib"], [4, 6], []),  # /lib is the link
        (["/lib/"], [3, 4, 5], []),
        (["*"], range(7), []),
        (["*.pyc", "dash"], [1], ["*.pyc"]),
        (["DASH", "bin/nowhere", "sh/x"], [], ["DASH", "bin/nowhere", "sh/x"]),
    ],
)
def test_excluding(
    merged: Tree, exclude: list[str], left_out: list[int], unmatched: list[str]
) -> None:
    chosen = paths.select(merged.engine, ["usr"], [*exclude, ".hidden", "usr/sbin/bin"])
    assert chosen.unmatched == unmatched
    nodes = [node for match in chosen.matches for node in chosen.below(match.node)]
    expected = [name for i, name in enumerate(ALL) if i not in left_out]
    files = [merged.engine.path(node) for node in nodes if merged.engine.type(node) != "dir"]
    assert files == expected
    assert merged.glob(ALL, exclude) == expected
    assert merged.glob(["nothing", *ALL], iter(exclude)) == expected


def test_a_link_that_is_excluded_leads_to_nothing(merged: Tree) -> None:
    assert merged.glob(["lib/libc.so", "lib", "bin/dash"], "/lib") == ["bin/dash"]
    assert merged.glob(["usr/lib/libc.so", "sbin/bin/*sh"], "/usr/sbin") == ["usr/lib/libc.so"]


def test_no_name_keeps_a_pattern_from_what_it_excludes(merged: Tree) -> None:
    for exclude in "a[1].txt", "etc/a[1].txt":
        assert merged.glob("etc/*", exclude) == ["etc/mtab"]
    assert merged.glob("etc/*", "a[1-3].txt") == ["etc/a[1].txt", "etc/mtab"]
    assert merged.glob("etc/*", r"a\[1].txt") == ["etc/a1.txt", "etc/mtab"]


@pytest.mark.parametrize("exclude", ["/", ".", "..", "./", "usr/..", "bin/../.."])
def test_the_root_is_not_excluded(exclude: str, merged: Tree) -> None:
    with pytest.raises(UsageError, match="is the root: nothing would be left"):
        merged.glob("etc/*", exclude)


@pytest.mark.parametrize("path", ["usr/bin/dash/", "bin/sh/", "bin/dash/.", "lib/libc.so//"])
def test_a_slash_behind_a_file_asks_for_a_directory(path: str, merged: Tree) -> None:
    with pytest.raises(NotADirectoryError, match="is no directory"):
        paths.matches(merged.engine, path)
    with pytest.raises(NotADirectoryError):
        merged.read(path)
    assert merged.resolve("bin/") == "usr/bin"


def test_selections_say_what_is_missing(merged: Tree) -> None:
    for path, words in [
        ("bin/nowhere", r"no entry 'bin/nowhere' \(looked up as 'usr/bin/nowhere'\)"),
        ("bin/x*", r"no entry matches 'bin/x\*'"),
    ]:
        with pytest.raises(EntryNotFoundError, match=words):
            paths.select(merged.engine, ["usr", path])
    with pytest.raises(UsageError, match="not ''"):
        paths.select(merged.engine, ["usr"], [""])
    with pytest.raises(UsageError, match="not 7"):
        paths.select(merged.engine, [7])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="not b'usr'"):
        merged.glob([b"usr"])  # type: ignore[list-item]


def test_a_selection_keeps_what_is_asked_for_in_its_order(merged: Tree) -> None:
    chosen = paths.select(merged.engine, ["usr/bin/dash", "bin/*sh", "sbin/bin/dash", "bin/"])
    sbin = merged.engine.find("sbin"), merged.engine.find("usr/sbin/bin")
    bin_ = (merged.engine.find("bin"),)
    found = [(m.path, merged.engine.path(m.node), m.links) for m in chosen.matches]
    assert found == [
        ("usr/bin/dash", "usr/bin/dash", ()),
        ("bin/bash", "usr/bin/bash", bin_),
        ("bin/dash", "usr/bin/dash", bin_),
        ("bin/sh", "usr/bin/sh", bin_),
        ("sbin/bin/dash", "usr/bin/dash", sbin),
        ("bin", "usr/bin", bin_),
    ]
    assert merged.glob(["bin/dash", "bin/*sh"]) == ["bin/dash", "bin/bash", "bin/sh"]


def test_a_pattern_that_is_a_name(merged: Tree) -> None:
    for pattern, path in [("bin", "bin"), ("bin/", "usr/bin"), ("bin/dash", "usr/bin/dash")]:
        found = list(paths.glob(merged.engine, pattern))
        assert [merged.engine.path(match.node) for match in found] == [path]
    for pattern in ("bin/dash/", "etc/mtab/", "none", ""):
        assert list(paths.glob(merged.engine, pattern)) == []


# --- hostile ones -----------------------------------------------------------------------------


def test_patterns_do_not_multiply() -> None:
    deep = "/".join("a" * 400)
    with tree_of([reg(f"{deep}/b", b"")]) as tree:
        assert tree.glob("/".join(["**", "a"] * 60) + "/nowhere") == []
        assert len(tree.glob("**/*/**/*/**/*/**")) == 399
        assert tree.glob("a/" * 400 + "*" * 5000 + "b") == [f"{deep}/b"]
        assert tree.glob("a/" * 400 + "*b" * 50 + "c") == []


def test_symlinks_in_circles_end() -> None:
    circles = [symlink(f"{i:02}", ".") for i in range(50)]
    with tree_of([*circles, reg("x", b"")]) as tree:
        assert len(tree.glob("*/x")) == 50
        assert len(tree.glob("**/x")) == 1
        with pytest.raises(UsageError, match="too many paths by way of symlinks"):
            tree.glob("*/*/*/*/*/*/x")
        assert tree.glob("00/" * 40 + "?") == ["00/" * 40 + "x"]
        assert tree.glob("00/" * 41 + "?") == []  # as for the system
        assert len(tree.glob("00/" * 39 + "*/x")) == 50
        assert tree.glob("00/" * 40 + "*/x") == []
