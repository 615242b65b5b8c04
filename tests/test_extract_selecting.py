"""Parts of a layer, names without their first components, and going on after failures."""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import handmade
import pytest
from handmade import directory, hardlink, reg, symlink
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import leftovers, snapshot

import stargz
from stargz import errors
from stargz.extract import ExtractResult


def run(entries: Any, path: Path, *args: Any, **options: Any) -> ExtractResult:
    blob = entries if isinstance(entries, bytes) else handmade.blob(entries)
    with stargz.open(blob) as layer:
        return layer.extractall(path, *args, **options)


def names(path: Path) -> set[str]:
    """What is there, directories that hold something left out."""
    found = {str(p.relative_to(path)) for p in path.rglob("*")}
    return {name for name in found if not any(other.startswith(f"{name}/") for other in found)}


# --- through symlinks -----------------------------------------------------------------------

MERGED = [
    symlink("bin", "usr/bin"),
    symlink("usr/sbin", "bin"),
    directory("usr", mode=0o711),
    reg("usr/bin/dash", b"dash"),
    reg("usr/bin/bash", b"bash"),
    symlink("usr/bin/sh", "dash"),
    reg("usr/bin/true", b"true"),
    symlink("etc/alternatives/awk", "/usr/bin/true"),
]


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (["bin/dash"], {"bin", "usr/bin/dash"}),
        (["bin/*ash"], {"bin", "usr/bin/dash", "usr/bin/bash"}),
        (["usr/bin/[bt]*"], {"usr/bin/bash", "usr/bin/true"}),
        (["bin"], {"bin"}),
        (["bin/sh"], {"bin", "usr/bin/sh"}),
        (["usr/sbin/true"], {"usr/sbin", "usr/bin/true"}),
        (["**/dash", b"etc"], {"usr/bin/dash", "etc/alternatives/awk"}),
        ([PurePosixPath("/usr/bin/true")], {"usr/bin/true"}),
    ],
)
def test_links_on_the_way_are_written_too(
    members: list[Any], expected: set[str], tmp_path: Path
) -> None:
    run(MERGED, tmp_path, members)
    assert names(tmp_path) == expected


def test_a_pattern_that_matches_nothing_is_an_error_before_anything(tmp_path: Path) -> None:
    with pytest.raises(errors.EntryNotFoundError, match=r"no entry matches '\*\.none'"):
        run(MERGED, tmp_path / "out", ["bin", "*.none"])
    assert not (tmp_path / "out").exists()


def test_what_is_excluded(tmp_path: Path) -> None:
    result = run(MERGED, tmp_path, exclude=["*sh", "etc", "no/such"])
    assert names(tmp_path) == {"bin", "usr/sbin", "usr/bin/true"}
    assert result.unmatched == ("no/such",)
    assert (tmp_path / "usr").stat().st_mode & 0o777 == 0o711
    run(MERGED, tmp_path / "one", ["usr"], exclude="bin")
    assert names(tmp_path / "one") == {"usr/sbin"}


def test_landmarks_beside_patterns(tmp_path: Path) -> None:
    entries = [*MERGED, reg(".no.prefetch.landmark", b"\x0f")]
    run(entries, tmp_path, [".no.prefetch.landmark", "bin/tr*"])
    assert names(tmp_path) == {".no.prefetch.landmark", "bin", "usr/bin/true"}


def test_what_is_not_selected_need_not_be_safe(tmp_path: Path) -> None:
    run([symlink("no-target", ""), reg("a", b"a")], tmp_path, ["a"])
    assert names(tmp_path) == {"a"}


# --- as GNU tar -----------------------------------------------------------------------------


@st.composite
def trees(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Entries without contradictions, in any order."""
    found: dict[str, dict[str, Any]] = {}
    for _ in range(draw(st.integers(1, 14))):
        parts = draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4))
        name = "/".join(parts)
        kind = draw(st.sampled_from(["reg", "reg", "dir", "symlink"]))
        above = ["/".join(parts[:n]) for n in range(1, len(parts))]
        if name in found or any(found[a]["type"] != "dir" for a in above if a in found):
            continue
        if kind != "dir" and any(other.startswith(f"{name}/") for other in found):
            continue
        mode = draw(st.sampled_from([0o644, 0o600, 0o755]))
        if kind == "dir":
            found[name] = directory(name, mode=mode | 0o700)
        elif kind == "symlink":
            found[name] = symlink(name, "nowhere")
        else:
            found[name] = reg(name, name.encode(), mode=mode)
    return list(found.values())


def as_tar(entries: list[dict[str, Any]], path: Path) -> None:
    import tarfile

    kinds = {word: kind for kind, word in handmade.TYPES.items() if kind != tarfile.AREGTYPE}
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for entry in entries:
            info = tarfile.TarInfo(entry["name"])
            info.type = kinds[entry["type"]]
            info.mode = entry.get("mode", 0o777)
            info.linkname = entry.get("linkName", "")
            info.size = len(entry.get("content", b""))
            import io

            tar.addfile(info, io.BytesIO(entry.get("content", b"")))


def gnu(tar: Path, target: Path, *options: str) -> dict[str, Any]:
    target.mkdir()
    words = ["tar", "-xpf", tar, "-C", target, "--delay-directory-restore", *options]
    subprocess.run(words, check=True, env={**os.environ, "LC_ALL": "C"})
    return shape(target)


def shape(path: Path) -> dict[str, Any]:
    """Types, modes and contents: times of directories that nobody lists are now."""
    found = snapshot(path, root_itself=False)
    return {name: (is_[0], is_[3]) for name, is_ in found.items() if name != "one file"}


@settings(max_examples=20, deadline=None)
@given(trees(), st.sampled_from(["a", "b/c", "[ab]", "a/*", "*b*"]))
def test_exclude_is_gnu_tars(
    tool: Callable[[str], str], entries: list[dict[str, Any]], pattern: str
) -> None:
    tool("tar")
    with tempfile.TemporaryDirectory() as place:
        top = Path(place)
        as_tar(entries, top / "tar")
        # Of a pattern with a slash GNU tar's are from the root with this option.
        anchor = ["--anchored"] if "/" in pattern else []
        options = [*anchor, "--no-wildcards-match-slash", f"--exclude={pattern}"]
        expected = gnu(top / "tar", top / "gnu", *options)
        run(entries, top / "ours", exclude=pattern)
        assert shape(top / "ours") == expected


@settings(max_examples=20, deadline=None)
@given(trees(), st.integers(0, 3))
def test_strip_components_is_gnu_tars(
    tool: Callable[[str], str], entries: list[dict[str, Any]], strip: int
) -> None:
    tool("tar")
    meet: dict[str, set[str]] = {}
    for entry in entries:
        parts = entry["name"].split("/")[strip:]
        for n in range(1, len(parts)):
            meet.setdefault("/".join(parts[:n]), set()).add("dir")
        if parts:
            kind = "dir" if entry["type"] == "dir" else "other"
            meet.setdefault("/".join(parts), set()).add(kind)
    with tempfile.TemporaryDirectory() as place:
        top = Path(place)
        (top / "ours").mkdir()
        if any(len(kinds) == 2 for kinds in meet.values()):
            with pytest.raises(errors.ExtractError, match="has the name of one"):
                run(entries, top / "ours", strip_components=strip)
            assert not names(top / "ours")
            return
        as_tar(entries, top / "tar")
        expected = gnu(top / "tar", top / "gnu", f"--strip-components={strip}")
        run(entries, top / "ours", strip_components=strip)
        ours = shape(top / "ours")
        assert ours == expected


def test_hard_links_without_their_first_components(tmp_path: Path) -> None:
    entries = [
        reg("top", b"top"),
        reg("a/x", b"first"),
        hardlink("a/link", "a/x"),
        hardlink("b/top", "top"),
        reg("b/x", b"second"),
        directory("a", mode=0o700),
    ]
    result = run(entries, tmp_path, strip_components=1)
    assert names(tmp_path) == {"x", "link", "top"}
    # The later of two; the link is still another name of what it was.
    assert (tmp_path / "x").read_bytes() == b"second"
    assert (tmp_path / "link").read_bytes() == b"first"
    assert (tmp_path / "top").read_bytes() == b"top"
    assert result.files == 3


def test_strip_components_is_a_number_of_them(tmp_path: Path) -> None:
    with pytest.raises(errors.UsageError, match="strip_components"):
        run([], tmp_path, strip_components=-1)


# --- keep_going -----------------------------------------------------------------------------

NOISE = random.Random(3).randbytes(700_000)
WRONG = {"digest": handmade.digest(b"other")}


def damaged() -> list[dict[str, Any]]:
    wrong = {**WRONG, "chunkDigest": handmade.digest(b"other")}
    return [
        reg("a/good", b"good"),
        reg("a/bad", b"bad", override=wrong),
        hardlink("a/link-to-bad", "a/bad"),
        reg("empty", b"", override=WRONG),
        symlink("no-target", ""),
        directory("kept", mode=0o711),
        reg("kept/file", b"kept"),
        symlink("kept/link", "file"),
        hardlink("kept/hard", "kept/file"),
    ]


@pytest.mark.parametrize("threads", [1, 3])
def test_keep_going_writes_what_can_be_written(threads: int, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/bad").write_bytes(b"of before")
    result = run(damaged(), tmp_path, keep_going=True, threads=threads)
    assert names(tmp_path) == {"a/good", "a/bad", "kept/file", "kept/link", "kept/hard"}
    assert (tmp_path / "a/bad").read_bytes() == b"of before"  # and no link to it
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o711
    assert not leftovers(tmp_path)
    assert [e.name for e in result.errors] == [
        "a/bad",
        "a/link-to-bad",
        "empty",
        "no-target",
    ]
    assert (result.error_count, result.damaged, result.files) == (4, 2, 2)
    assert result.bytes == 8
    assert "expected sha256:" in result.errors[0].message
    assert "hard link" in result.errors[1].message


def test_without_it_the_first_failure_is_the_end(tmp_path: Path) -> None:
    with pytest.raises(errors.ExtractError):
        run(damaged(), tmp_path)
    assert not names(tmp_path)


@pytest.mark.parametrize("threads", [1, 4])
def test_a_file_of_many_chunks_that_fails_is_told_once(threads: int, tmp_path: Path) -> None:
    blob = bytearray(
        handmade.blob([reg("f", NOISE), reg("g", NOISE[:400_000])], chunk_size=20_000, level=0)
    )
    for at in (NOISE.index(NOISE[100_000:100_016]), 300_000):
        place = blob.index(NOISE[at : at + 16])
        blob[place] ^= 1
    result = run(bytes(blob), tmp_path, keep_going=True, threads=threads)
    # Both have the bytes at 100,000 once each: of `f` twice damaged, of `g` not at all.
    assert names(tmp_path) == {"g"}
    assert [e.name for e in result.errors] == ["f"]
    assert (result.error_count, result.damaged) == (1, 1)
    assert result.errors[0].offset is not None
    assert not leftovers(tmp_path)


def test_what_the_file_system_refuses(tmp_path: Path) -> None:
    (tmp_path / "a/below").mkdir(parents=True)
    result = run([reg("a", b"a"), reg("b", b"b")], tmp_path, keep_going=True)
    assert (tmp_path / "b").read_bytes() == b"b"
    assert [(e.name, e.offset) for e in result.errors] == [("a", None)]
    assert "not empty" in result.errors[0].message
    assert (result.error_count, result.damaged) == (1, 0)


def test_a_file_used_as_a_directory_is_left_out(tmp_path: Path) -> None:
    entries = [reg("a/x", b"x"), reg("b/x/y", b"y"), reg("b/z", b"z")]
    result = run(entries, tmp_path, keep_going=True, strip_components=1)
    assert names(tmp_path) == {"x/y", "z"}
    assert [e.name for e in result.errors] == ["a/x"]


def test_the_first_hundred_failures_in_their_order(tmp_path: Path) -> None:
    wrong = {**WRONG, "chunkDigest": handmade.digest(b"other")}
    entries = [reg(f"{n:03}", b"x", override=wrong) for n in range(250)]
    result = run(entries, tmp_path, keep_going=True, threads=4)
    assert [e.name for e in result.errors] == [f"{n:03}" for n in range(100)]
    assert (result.error_count, result.damaged) == (250, 250)


def test_a_source_that_fails_is_the_end_all_the_same(tmp_path: Path) -> None:
    import io

    class Failing(io.BytesIO):
        broken = False

        def read(self, size: int | None = -1) -> bytes:
            if self.broken:
                raise ConnectionError("the line is dead")
            return super().read(size)

    source = Failing(handmade.blob([reg("f", NOISE)]))
    with stargz.open(source) as layer:
        source.broken = True
        with pytest.raises(ConnectionError, match="the line is dead"):
            layer.extractall(tmp_path, keep_going=True)
    assert not names(tmp_path)


# --- what was written -----------------------------------------------------------------------


def test_written_is_told_of_each_entry_once(tmp_path: Path) -> None:
    told: list[str] = []
    entries = [*MERGED, reg("big", NOISE), reg("empty", b""), hardlink("again", "big")]
    run(handmade.blob(entries, chunk_size=50_000), tmp_path, written=told.append, threads=3)
    expected = [e["name"] + ("/" if e["type"] == "dir" else "") for e in entries]
    assert sorted(told) == sorted(expected)
    assert told[-1] == "usr/"  # metadata of directories comes last


def test_what_fails_is_not_told_of(tmp_path: Path) -> None:
    told: list[str] = []
    run(damaged(), tmp_path, keep_going=True, written=told.append)
    assert sorted(told) == ["a/good", "kept/", "kept/file", "kept/hard", "kept/link"]


def test_an_exception_from_written_ends_it(tmp_path: Path) -> None:
    def enough(name: str) -> None:
        raise RuntimeError(name)

    with pytest.raises(RuntimeError, match="one"):
        run([reg("one", b"1")], tmp_path, written=enough)
