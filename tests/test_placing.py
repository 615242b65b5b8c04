"""Where entries of a tar end up that later or earlier ones move: below symlinks of the layer, as
hard links to what was replaced, as whiteouts of what is no directory."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from trees import snapshot

import stargz
from stargz.errors import EntryNotFoundError, TarError

Tool = Callable[[str], str]
Item = tuple[str, str, str]  # name, type, and link or contents


def make_tar(items: Sequence[Item]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, value in items:
            info = tarfile.TarInfo(name)
            info.mode, info.mtime = 0o755, 1_700_000_000
            if kind == "f":
                info.size = len(value)
                tar.addfile(info, io.BytesIO(value.encode()))
                continue
            info.type = {"d": tarfile.DIRTYPE, "l": tarfile.LNKTYPE, "s": tarfile.SYMTYPE}[kind]
            info.linkname = value
            tar.addfile(info)
    return out.getvalue()


def names(path: Path) -> dict[str, str]:
    """Of a layer that holds what it says: the names, and what each is."""
    with stargz.open(path) as layer:
        assert layer.verify().ok
        found = {}
        for name in layer.names():
            entry = layer.entry(name)
            if entry.type == "reg":
                found[name] = layer.read(name).decode()
            elif entry.type in ("hardlink", "symlink"):
                found[name] = f"{entry.type} {entry.link_name}"
            else:
                found[name] = entry.type
    del found[".no.prefetch.landmark"]
    return found


# Tars that GNU tar extracts without a complaint: what it makes of them is right.
GNU: dict[str, list[Item]] = {
    "below a link": [
        ("app", "d", ""), ("app/store", "d", ""), ("app/store/pkg", "d", ""),
        ("app/mod", "s", "store/pkg"), ("app/mod/index.js", "f", "js"),
        ("app/mod/lib", "d", ""), ("app/mod/lib/one", "f", "1"),
    ],
    "through two links": [
        ("a", "d", ""), ("a/b", "d", ""), ("s", "s", "a"), ("a/t", "s", "b"), ("s/t/f", "f", "x"),
    ],
    "a link is replaced by a directory": [
        ("a", "d", ""), ("s", "s", "a"), ("s/f", "f", "1"), ("s", "d", ""), ("s/f", "f", "2"),
    ],
    "a link is replaced by a link": [
        ("a", "d", ""), ("b", "d", ""), ("s", "s", "a"), ("s/f", "f", "1"), ("s", "s", "b"),
        ("s/f", "f", "2"),
    ],
    "a hard link's target below a link": [
        ("a", "d", ""), ("a/f", "f", "1"), ("s", "s", "a"), ("s/g", "l", "s/f"), ("h", "l", "s/g"),
    ],
    "a hard link to a symlink": [
        ("a", "d", ""), ("s", "s", "a"), ("t", "l", "s"), ("t/f", "f", "1"),
    ],
    "to itself": [("a", "f", "1"), ("b", "l", "a"), ("b", "l", "b"), ("a", "l", "a")],
    "in a circle": [("a", "f", "1"), ("b", "l", "a"), ("c", "l", "b"), ("b", "l", "c")],
    "in a circle of another file": [
        ("a", "f", "1"), ("x", "f", "2"), ("b", "l", "a"), ("c", "l", "b"), ("b", "l", "x"),
        ("b", "l", "c"),
    ],
    "to what it replaces": [
        ("a", "f", "1"), ("b", "l", "a"), ("a", "f", "2"), ("c", "l", "a"), ("a", "l", "b"),
        ("b", "l", "c"), ("c", "l", "a"),
    ],
    "a symlink to itself": [("a", "f", "1"), ("b", "s", "a"), ("b", "l", "b")],
    "an empty directory is replaced": [("a", "d", ""), ("a", "f", "1"), ("a", "d", "")],
}  # fmt: skip


@pytest.mark.parametrize("case", GNU)
def test_as_gnu_tar_extracts_it(
    tmp_path: Path, case: str, tool: Tool, reference: Callable[..., Any]
) -> None:
    (tmp_path / "tar").write_bytes(make_tar(GNU[case]))
    stargz.convert(tmp_path / "tar", tmp_path / "blob")
    (tmp_path / "ours").mkdir()
    (tmp_path / "theirs").mkdir()
    subprocess.run([tool("tar"), "-xpf", tmp_path / "tar", "-C", tmp_path / "theirs"], check=True)
    with stargz.open(tmp_path / "blob") as layer:
        layer.extractall(tmp_path / "ours")
    # A directory's time is that of the last entry in it, where tar did not come back to it.
    ours, theirs = (
        {
            name: seen if name == "one file" else seen[:2] + seen[3:]
            for name, seen in snapshot(tmp_path / each, root_itself=False).items()
        }
        for each in ("ours", "theirs")
    )
    assert ours == theirs
    assert set(reference("verify", tmp_path / "blob")["files"]) >= {
        name for name, what in names(tmp_path / "blob").items() if not what.startswith("sym")
        and what != "dir" and what != "hardlink s"
    }  # fmt: skip


# Links that leave the place where GNU tar extracts: containerd and umoci stay below the root.
CLAMPED: dict[str, tuple[list[Item], dict[str, str]]] = {
    "absolute": ([("t", "d", ""), ("s", "s", "/t"), ("s/f", "f", "1")], {"t/f": "1"}),
    "above the root": (
        [("a", "d", ""), ("a/s", "s", "../../../t"), ("a/s/f", "f", "1")], {"t/f": "1"},
    ),
    "nothing there": ([("s", "s", "gone/far"), ("s/f", "f", "1")], {"gone/far/f": "1"}),
    "of a hard link": ([("t/f", "f", "1"), ("s", "s", "/t"), ("h", "l", "s/f")], {"t/f": "1"}),
    "up behind a link": (
        [("a", "d", ""), ("a/b", "d", ""), ("s", "s", "a/b"), ("t", "s", "s/../c"),
         ("t/f", "f", "1")],
        {"a/c/f": "1"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CLAMPED)
def test_links_stay_below_the_root(tmp_path: Path, case: str) -> None:
    items, right = CLAMPED[case]
    made = stargz.convert(io.BytesIO(make_tar(items)), tmp_path / "blob")
    found = names(tmp_path / "blob")
    assert right.items() <= found.items()
    assert (items[-1][0] in found) == (items[-1][1] == "l")
    assert [w for w in made.warnings if "below symlinks" in w and items[-1][0] in w]
    with stargz.open(tmp_path / "blob") as layer:
        layer.extractall(tmp_path / "out")
    assert [(tmp_path / "out" / name).read_text() for name in right] == [*right.values()]


WHITEOUTS: dict[str, tuple[list[Item], dict[str, str]]] = {
    "a file, then": ([("f", "f", "1"), ("f/.wh.a", "f", "")], {"f": "1"}),
    "a file, before": ([("f/.wh.a", "f", ""), ("f", "f", "1")], {"f": "1"}),
    "a file, opaque": ([("f", "d", ""), ("f/.wh..wh..opq", "f", ""), ("f", "f", "1")], {"f": "1"}),
    "a file, then a directory": (
        [("f/.wh.a", "f", ""), ("f", "f", "1"), ("f", "d", ""), ("f", "d", "")], {"f": "dir"},
    ),
    "a file, then a directory, above": (
        [("f/g/h/.wh.a", "f", ""), ("f", "f", "1"), ("f", "d", ""), ("f/g/h", "d", "")],
        {"f": "dir", "f/g/h": "dir"},
    ),
    "a file, then a directory, which has another": (
        [("f", "d", ""), ("f/.wh.a", "f", ""), ("f", "s", "g"), ("f", "d", ""),
         ("f/.wh.b", "f", ""), ("f", "d", "")],
        {"f": "dir", "f/.wh.b": ""},
    ),
    "a symlink, before": ([("f/.wh.a", "f", ""), ("f", "s", "g")], {"f": "symlink g"}),
}  # fmt: skip


def test_whiteouts_that_are_one_file_below_what_is_no_directory(tmp_path: Path) -> None:
    items = [("f", "f", "1"), ("d/.wh.a", "l", "f"), ("d/.wh.b", "l", "f"), ("f", "f", "2")]
    made = stargz.convert(io.BytesIO(make_tar([*items, ("d", "f", "3")])), tmp_path / "blob")
    assert names(tmp_path / "blob") == {"f": "2", "d": "3"}
    assert made.warnings[0].startswith("2 whiteouts below")


@pytest.mark.parametrize("case", WHITEOUTS)
def test_whiteouts_below_what_is_no_directory(tmp_path: Path, case: str) -> None:
    items, right = WHITEOUTS[case]
    made = stargz.convert(io.BytesIO(make_tar(items)), tmp_path / "blob")
    assert names(tmp_path / "blob") == right
    assert len(made.warnings) == 1 and made.warnings[0].startswith("1 whiteout below")


def test_a_way_through_long_symlinks_takes_no_longer_than_its_text(tmp_path: Path) -> None:
    """Once each ".." took as long as the whole path, and so each name half a second."""
    deep = "/".join("a" * 1000)
    links = [(f"{deep}/l{n}", "s", "../a/" * 800 + f"l{n + 1}") for n in range(38)]
    items = [*links, (f"{deep}/l38", "s", "f"), ("s", "s", f"{deep}/l0"), ("t", "s", f"{deep}/l0")]
    items += [(f"{'st'[n % 2]}/{n}", "f", str(n)) for n in range(100)]
    stargz.convert(io.BytesIO(make_tar(items)), tmp_path / "blob")
    found = names(tmp_path / "blob")
    assert {f"{deep}/f/{n}": str(n) for n in range(100)}.items() <= found.items()


def test_a_whiteout_below_a_symlink_hides_what_is_there(tmp_path: Path) -> None:
    items = [("d", "d", ""), ("s", "s", "d"), ("s/.wh.a", "f", "")]
    stargz.convert(io.BytesIO(make_tar(items)), tmp_path / "blob")
    assert names(tmp_path / "blob") == {"d": "dir", "s": "symlink d", "d/.wh.a": ""}


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([("s", "s", "t"), ("t", "s", "s"), ("s/f", "f", "1")], "'s/f'.*more than 40 symlinks"),
        ([("a", "d", ""), ("a/f", "f", "1"), ("a", "s", "b"), ("a", "d", "")], "takes the place"),
        ([("s", "s", "/"), ("s/stargz.index.json", "f", "1")], "for itself"),
        ([("s", "s", "d"), ("h", "l", "s/f")], "not in the tar before it"),
        ([("d/.wh.a", "f", ""), ("d/.wh.b", "l", "d/.wh.a")], "'d/.wh.b'.*a whiteout and no file"),
        ([(".wh..wh..opq", "f", ""), ("h", "l", "./.wh..wh..opq")], "a whiteout and no file"),
    ],
)
def test_what_tools_do_not_agree_on_is_refused(items: list[Item], says: str) -> None:
    with pytest.raises(TarError, match=says):
        stargz.convert(io.BytesIO(make_tar(items)), io.BytesIO())


def test_what_depends_on_a_symlink_is_not_moved(tmp_path: Path) -> None:
    """Else a file below a link would come before it, and the link would find a directory."""
    tar = make_tar([("d", "d", ""), ("s", "s", "d"), ("s/f", "f", "1"), ("d/g", "f", "2")])
    for name in ("d/g", "s"):
        stargz.convert(io.BytesIO(tar), tmp_path / "blob", prioritized=[name])
        with stargz.open(tmp_path / "blob") as layer:
            assert layer.verify().ok
            assert layer.read("d/f") == b"1"
    with pytest.raises(TarError, match=r"'d/f'.*cannot be moved"):
        stargz.convert(io.BytesIO(tar), io.BytesIO(), prioritized=["d/f"])
    kept = make_tar([("a", "f", "1"), ("b", "l", "a"), ("a", "d", ""), ("a/x", "f", "2")])
    with pytest.raises(TarError, match=r"'a/x'.*cannot be moved"):
        stargz.convert(io.BytesIO(kept), io.BytesIO(), prioritized=["a/x"])


LINKED: list[Item] = [
    ("./", "d", ""), ("./bin", "s", "usr/bin"), ("./etc/", "d", ""), ("./etc/x", "f", "x"),
    ("./lib", "l", "./bin"), ("./out", "s", "../../usr"), ("./loop", "s", "loop/y"),
    ("./usr/", "d", ""), ("./usr/bin/", "d", ""), ("./usr/bin/bash", "f", "b"),
    ("./usr/bin/dash", "f", "d"), ("./usr/bin/hard", "l", "./etc/x"), ("./usr/bin/sh", "s", "dash"),
    ("./usr/here", "s", "."), ("./usr/up", "s", "here/../etc"),
]  # fmt: skip


def order(items: list[Item], *prioritized: str) -> list[str]:
    """The names before the landmark."""
    out = io.BytesIO()
    result = stargz.convert(io.BytesIO(make_tar(items)), out, prioritized=prioritized)
    assert not result.missing
    with stargz.open(out) as layer:
        assert layer.verify().ok
        names = layer.names()
        assert set(names) - {".prefetch.landmark"} == {name.strip("./") for name, _, _ in items}
        return names[: names.index(".prefetch.landmark")]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bin/dash", "bin usr usr/bin usr/bin/dash"),
        ("/bin/./dash/", "bin usr usr/bin usr/bin/dash"),
        ("bin/sh", "bin usr usr/bin usr/bin/sh"),  # itself, as `usr/bin/sh` is
        ("bin/hard", "bin usr usr/bin etc etc/x usr/bin/hard"),
        ("lib/dash", "bin lib usr usr/bin usr/bin/dash"),  # a hard link to the symlink
        ("out/bin/dash", "out usr usr/bin usr/bin/dash"),
        ("out/here/here/here/bin/sh", "out usr usr/here usr/bin usr/bin/sh"),
        ("usr/up/x", "usr usr/up usr/here etc etc/x"),
        ("bin/../here/bin/bash", "bin usr usr/here usr/bin usr/bin/bash"),
        ("bin", "bin"),
        ("bin/", "bin"),
    ],
)
def test_prioritized_names_lead_through_symlinks(name: str, expected: str) -> None:
    assert order(LINKED, name) == ["", *expected.split()]


def test_prioritized_names_behind_symlinks_and_others() -> None:
    found = order(LINKED, "etc/x", "bin/sh", "usr/bin/sh", "bin/dash")
    assert found == ["", "etc", "etc/x", "bin", "usr", "usr/bin", "usr/bin/sh", "usr/bin/dash"]


@pytest.mark.parametrize(
    "name", ["bin/zsh", "loop/x", "etc/x/y", "bin/dash/x", "zsh", "/", "out/../bin/x"]
)
def test_prioritized_names_that_lead_nowhere_are_missing(name: str) -> None:
    tar = make_tar(LINKED[1:])
    out, plain = io.BytesIO(), io.BytesIO()
    result = stargz.convert(io.BytesIO(tar), out, prioritized=[name, "etc/x"], allow_missing=True)
    assert result.missing == (name,)
    stargz.convert(io.BytesIO(tar), plain, prioritized=["etc/x"])
    assert out.getvalue() == plain.getvalue()  # the links on the way stay where they were
    with pytest.raises(EntryNotFoundError):
        stargz.convert(io.BytesIO(tar), io.BytesIO(), prioritized=[name])


def test_what_was_put_below_a_symlink_is_not_moved_by_that_name() -> None:
    tar = make_tar([("d", "d", ""), ("s", "s", "d"), ("s/f", "f", "1"), ("d/g", "f", "2")])
    with pytest.raises(TarError, match=r"'d/f'.*cannot be moved"):
        stargz.convert(io.BytesIO(tar), io.BytesIO(), prioritized=["s/f"])
    for prioritized in (["s/g"], ["s", "d/g"]):
        out = io.BytesIO()
        stargz.convert(io.BytesIO(tar), out, prioritized=prioritized)
        with stargz.open(out) as layer:
            assert layer.verify().ok
            assert layer.names() == ["s", "d", "d/g", ".prefetch.landmark", "d/f"]
